"""Pieces of HTML for panels: images with captions, bars, a figure. They are drawn by the browser, in a few milliseconds
and in its own fonts, where a figure takes a tenth of a second or more."""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lecturelib.display import Figure
from lecturelib.errors import ImageInputError
from lecturelib.images import _encode, encode_png

_TEXT = "font: 18px/1.3 sans-serif; color: var(--jp-content-font-color1, #222)"


def tiles(
    images: Tensor, titles: Sequence[str] | None = None, *, alt: str, height: int = 200, exact: bool = False
) -> str:
    """Images (N, 3, H, W) in [0, 1] side by side, each with its title below; as many in a row as there is room for.

    alt: what is to be seen, for those who cannot see it. height: of one image on the screen, in pixels. exact: every
    pixel as it is, for noise and gradients; otherwise a third of the data, with the colors of neighbours mixed a bit.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ImageInputError("tiles are images (N, 3, H, W)", received=f"shape {tuple(images.shape)}")
    images = images.detach().cpu().float().clamp(0, 1)
    titles = list(titles or []) + [""] * (len(images) - len(titles or []))
    width = round(height * images.shape[-1] / images.shape[-2])
    figures = []
    for image, title in zip(images, titles, strict=True):
        source = _source(image, exact)
        figures.append(
            f'<figure style="margin: 0; width: {width}px"><img alt="{_quoted(f"{title}: {alt}" if title else alt)}" '
            f'width="{width}" height="{height}" style="max-width: none; display: block" src="{source}">'
            + (f'<figcaption style="{_TEXT}; min-height: 1.3em">{html.escape(title)}</figcaption>' if title else "")
            + "</figure>"
        )
    return f'<div style="display: flex; flex-wrap: wrap; gap: 10px">{"".join(figures)}</div>'


def marked(image: Tensor, title: str, at: Sequence[float], *, alt: str, height: int) -> str:
    """A square image (1, 3, H, H) to point at, with a ring at a place (down, right) of it, or with a frame around a
    rectangle (top, left, bottom, right), in percent."""
    reach = 8 if len(at) == 2 else 0
    low, high = ([round(value * height / 100) for value in corner] for corner in (at[:2], at[-2:]))
    (top, bottom), (left, right) = ((min(ends) - reach, max(ends) + reach) for ends in zip(low, high, strict=True))
    # Margins only, which JupyterLab leaves in stored pictures, too. A dark and a bright line are seen on everything;
    # what is not quite opaque is painted after the image.
    mark = (
        f'<div style="margin: {top - height}px 0 {height - bottom}px {left}px; width: {right - left}px; '
        f"height: {bottom - top}px; box-sizing: border-box; border: 2px solid #fff; outline: 3px solid #d55e00; "
        f'border-radius: {reach}px; opacity: 0.99; pointer-events: none"></div>'
    )
    return (
        f'<div style="width: {height}px; cursor: crosshair; user-select: none"><img alt="{_quoted(f"{title}: {alt}")}" '
        f'width="{height}" height="{height}" draggable="false" style="max-width: none; display: block" '
        f'src="{_source(image.detach().cpu().float().clamp(0, 1)[0], False)}">{mark}'
        f'<div style="{_TEXT}; min-height: 1.3em">{html.escape(title)}</div></div>'
    )


def framed(image: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The images with an orange frame of two pixels inside a box (top, left, bottom, right), as far as it lies on
    them."""
    height, width = image.shape[-2:]
    top, left, bottom, right = (min(max(side, 0), end) for side, end in zip(box, (height, width) * 2, strict=True))
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[top:bottom, left:right] = True
    inside[top + 2 : bottom - 2, left + 2 : right - 2] = False
    color = torch.tensor((0.84, 0.37, 0.0)).view(1, 3, 1, 1)
    return torch.where(inside, color, image.detach().cpu())


def heading(text: str) -> str:
    """A line of text over what follows."""
    return f'<div style="{_TEXT}; font-weight: bold; margin: 6px 0 4px">{html.escape(text)}</div>'


def beside(*parts: str) -> str:
    """The parts next to each other where there is room, for comparing."""
    cells = "".join(f"<div>{part}</div>" for part in parts)
    return f'<div style="display: flex; flex-wrap: wrap; gap: 32px; align-items: flex-start">{cells}</div>'


def bar_rows(values: Mapping[str, float], *, largest: float = 1.0, width: int = 260) -> str:
    """One horizontal bar for each name, the first on top; a bar of `largest` has the full width, in pixels."""
    rows = []
    for name, value in values.items():
        length = round(width * min(max(value / largest, 0), 1))
        bar = f'<div style="width: {length}px; height: 1em; background: #0072B2; margin-right: 6px"></div>'
        cell = f'<div style="display: flex; width: {width + 70}px; align-items: center">{bar}{value:.3f}</div>'
        label = f'<td style="padding: 2px 8px 2px 0; text-align: right; white-space: nowrap">{html.escape(name)}</td>'
        rows.append(f"<tr>{label}<td>{cell}</td></tr>")
    return f'<table style="{_TEXT}; border: 0; background: none"><tbody>{"".join(rows)}</tbody></table>'


def drawn(figure: Figure, *, alt: str) -> str:
    """A figure as one picture."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80, facecolor="white")
    source = base64.b64encode(stream.getvalue()).decode()
    return f'<figure style="margin: 0"><img alt="{_quoted(alt)}" src="data:image/png;base64,{source}"></figure>'


def only_stored(picture: str) -> str:
    """A picture for where no kernel runs, with what to do there."""
    return picture + heading("This is a stored picture. To move its controls, run this cell: Shift + Enter.")


def words(text: str) -> str:
    """Plain text, with its line breaks."""
    return f'<div style="{_TEXT}; white-space: pre-wrap; max-width: 50em">{html.escape(text)}</div>'


def _source(image: Tensor, exact: bool) -> str:
    """The address of an image (3, H, W) that carries the image itself."""
    kind, data = ("png", encode_png(image[None])) if exact else ("jpeg", _encode(image[None], "JPEG"))
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)
