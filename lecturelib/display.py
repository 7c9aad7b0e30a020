"""Pictures on the screen. Functions that end a cell make a figure; `show` puts it there, with words for those who
cannot see it."""

import base64
import html
import io
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from IPython.display import display
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from torch import Tensor

from lecturelib.errors import ArgumentError, ImageInputError

SIGNED = "RdBu_r"  # red and blue stay apart for color-blind eyes; drawn with white at 0
UNSIGNED = "viridis"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito, 2008
_STYLE = {
    "font.size": 12,
    "axes.titlesize": 12,
    "figure.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "image.interpolation": "nearest",
}


def show(picture: Tensor | Figure, titles: Sequence[str] | None = None, *, title: str | None = None, alt: str | None
= None,
         columns: int | None = None, height: float = 2.4) -> None:  # fmt: skip
    """Show images (N, 3, H, W) in [0, 1], maps (N, H, W) or (H, W), or a figure, with an alternative text.

    titles: one per image. title: over all. alt: what is to be seen, for those who cannot see it; by default the titles.
    columns: images in a row. height: of one image, in inches.
    """
    if isinstance(picture, Figure):
        figure = picture
        title = title or (figure.get_suptitle() or "figure")
    else:
        figure = grid(picture, titles, title=title, columns=columns, height=height)
    display(as_output(figure, alt or ". ".join(filter(None, [title, ", ".join(titles or [])])) or "picture"), raw=True)


def grid(
    pictures: Tensor,
    titles: Sequence[str] | None = None,
    *,
    title: str | None = None,
    columns: int | None = None,
    height: float = 2.4,
) -> Figure:
    """Images (N, 3, H, W) in [0, 1] or maps (N, H, W) side by side. Maps share one scale, which is drawn beside them;
    where they have negative values the scale is centered on 0."""
    pictures = pictures.detach().cpu()
    if pictures.ndim == 2:
        pictures = pictures[None]
    if pictures.ndim not in (3, 4) or (pictures.ndim == 4 and pictures.shape[1] != 3):
        raise ImageInputError(
            "show takes images (N, 3, H, W) or maps (N, H, W)",
            received=f"shape {tuple(pictures.shape)}",
            do="for the channels of a layer give activation[0], shape (C, h, w)",
        )
    is_map = pictures.ndim == 3
    scale = _map_scale(pictures) if is_map else {}
    count = len(pictures)
    columns = min(count, columns or (count if count <= 6 else 8))
    rows = -(-count // columns)
    if not titles and count > 12:  # hundreds of axes would take minutes
        pictures, height = _mosaic(pictures, columns), rows * height
        count = columns = rows = 1
    width = height * pictures.shape[-1] / pictures.shape[-2]
    head = 0.45 if title else 0.05
    line = 0.3 * max((text.count("\n") + 1 for text in titles), default=0) if titles else 0.06
    width_of_title = 0.115 * len(title or "")
    size = (max(columns * (width + 0.08) + (0.9 if is_map else 0), width_of_title), rows * (height + line) + head)
    with rc_context(_STYLE):
        figure = Figure(size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for place, axis in enumerate(axes):
            axis.set_axis_off()
            if place < count:
                drawn = axis.imshow(pictures[place].numpy() if is_map else _displayed(pictures[place]), **scale)
                if is_map and pictures[place].numel() <= 36:
                    _write_values(axis, pictures[place], drawn)
                if titles and place < len(titles):
                    axis.set_title(titles[place], pad=3)
        if is_map:
            figure.colorbar(drawn, ax=axes.tolist(), shrink=0.8, pad=0.02)
        if title:
            figure.suptitle(title)
    return figure


def overlay(image: Tensor, heat: Tensor, *, strength: float = 0.6, signed: bool | None = None) -> Tensor:
    """A map (N, h, w) laid over the image (N, 3, H, W) in color: images (N, 3, H, W) in [0, 1].

    The map is enlarged to the image. Signed maps are red and blue with white at 0; others run from dark to yellow.
    """
    heat = F.interpolate(heat.detach()[:, None].float(), size=image.shape[-2:], mode="bilinear")[:, 0].cpu()
    scale = _map_scale(heat, signed=signed)
    colors = colormaps[scale["cmap"]](Normalize(scale["vmin"], scale["vmax"])(heat.numpy()))[..., :3]
    colors = torch.from_numpy(np.ascontiguousarray(colors)).float().permute(0, 3, 1, 2)
    grey = image.detach().cpu().mean(dim=1, keepdim=True)
    return ((1 - strength) * grey + strength * colors).clamp(0, 1)


def boxes(image: Tensor, corners: Sequence[tuple[int, int, int, int]], *, title: str | None = None, height: float = 3.4,
          labels: Sequence[str] | None = None) -> Figure:  # fmt: skip
    """One image with rectangles (top, left, bottom, right), in pixels, drawn on it."""
    figure = grid(image[:1], title=title, height=height)
    axis = figure.axes[0]
    for place, (top, left, bottom, right) in enumerate(corners):
        color = COLORS[(place + 1) % len(COLORS)]
        axis.add_patch(
            Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, fill=False, edgecolor=color, lw=3)
        )
        if labels:
            axis.text(left, top - 2, labels[place], color="white", backgroundcolor=color, fontsize=10, va="bottom")
    return figure


def curves(lines: Mapping[str, Sequence[float]], *, x: Sequence[float] | None = None, title: str, x_label: str,
y_label: str,
           log: bool = False) -> Figure:  # fmt: skip
    """Lines over a common axis, one per name; `log` makes the vertical axis logarithmic."""
    figure, axis = _plot(title, x_label, y_label)
    looks = zip(_cycle(COLORS, len(lines)), _cycle(("-", "--", ":", "-."), len(lines)), strict=True)
    for (name, values), (color, dashes) in zip(lines.items(), looks, strict=True):
        values = np.asarray(values, dtype=float)
        axis.plot(np.arange(len(values)) if x is None else x, values, dashes, label=name, color=color, lw=2.5)
    axis.set_yscale("log" if log else "linear")
    if len(lines) > 1:
        figure.legend(loc="outside right center")  # inside it would cover a part of the curves
    return figure


def bars(values: Mapping[str, float], *, title: str, x_label: str) -> Figure:
    """One horizontal bar per name, the first on top."""
    with rc_context(_STYLE):
        figure, axis = _plot(title, x_label, "", size=(6.5, 0.8 + 0.4 * len(values)))
        axis.barh(list(values), list(values.values()), color=COLORS[0])
        axis.invert_yaxis()
        axis.bar_label(axis.containers[0], fmt="%.3g", padding=3)
        axis.margins(x=0.15)
        axis.grid(visible=False)
    return figure


def scatter(points: Tensor, labels: Tensor, names: Sequence[str], *, title: str, legend: bool = True) -> Figure:
    """Points (N, 2), colored by label (N,) and marked by shape too, so that no class depends on its color alone."""
    figure, axis = _plot(title, "", "", size=(7.5, 5.5) if legend else (5.5, 5.5))
    present = labels.unique().tolist()
    markers = _cycle("os^Dv<>Ph*X", len(present))
    shades = colormaps["turbo"](np.linspace(0.03, 0.97, len(present)))
    for label, marker, shade in zip(present, markers, shades, strict=True):
        chosen = points[labels == label]
        axis.scatter(*chosen.T.numpy(), s=22, marker=marker, color=shade, label=names[label], alpha=0.8, lw=0)
    axis.set_axis_off()
    if legend:
        figure.legend(loc="outside right center", fontsize=10, markerscale=1.4)
    return figure


def thumbnails(points: Tensor, images: Tensor, *, title: str, zoom: float = 0.4) -> Figure:
    """The images themselves, drawn at their points (N, 2)."""
    figure, axis = _plot(title, "", "", size=(8.5, 7))
    axis.scatter(*points.T.numpy(), s=0)
    for point, image in zip(points.tolist(), images, strict=True):
        picture = AnnotationBbox(OffsetImage(_displayed(image), zoom=zoom), point, frameon=False)
        picture.set_in_layout(False)
        axis.add_artist(picture)
    axis.set_axis_off()
    return figure


def as_output(figure: Figure, alt: str) -> dict[str, str]:
    """A figure as a notebook stores it: HTML with the alternative text, the bare picture, and the text alone.

    JupyterLab drops the alternative text of bare pictures, therefore the HTML; the bare picture is for readers that
    take no
    HTML. Each in the smallest of its formats: PNG for sharp maps, WebP or JPEG for photographs.
    """
    png, jpeg = _encoded(figure, "png"), _encoded(figure, "jpeg", quality=74, optimize=True)
    described = min(("image/png", png), ("image/webp", _encoded(figure, "webp", quality=77)), key=_length)
    kind, bare = min(("image/png", png), ("image/jpeg", jpeg), key=_length)
    source = f"data:{described[0]};base64,{described[1]}"
    picture = f'<figure style="margin:0"><img alt="{html.escape(alt, quote=True)}" src="{source}"></figure>'
    return {"text/html": picture, kind: bare, "text/plain": textwrap.shorten(alt, 300)}


def _mosaic(pictures: Tensor, columns: int) -> Tensor:
    """All pictures as the tiles of one, (1, ...), row by row; the gaps are white."""
    gap = max(1, round(pictures.shape[-1] / 25))
    white = torch.nan if pictures.ndim == 3 else 1.0
    tiles = F.pad(pictures, (0, gap, 0, gap), value=white)
    missing = -len(tiles) % columns
    tiles = torch.cat([tiles, torch.full_like(tiles[:1], white).expand(missing, *tiles.shape[1:])])
    rows = [torch.cat(list(row), dim=-1) for row in tiles.split(columns)]
    return torch.cat(rows, dim=-2)[None, ..., :-gap, :-gap]


def _write_values(axis: Axes, values: Tensor, drawn: AxesImage) -> None:
    """The numbers of a small map, in black on light colors and in white on dark ones."""
    for (row, column), value in np.ndenumerate(values.numpy()):
        light = np.dot(drawn.to_rgba(value)[:3], (0.299, 0.587, 0.114)) > 0.5
        axis.text(column, row, f"{value:.3g}", ha="center", va="center", color="black" if light else "white")


def _length(encoded: tuple[str, str]) -> int:
    return len(encoded[1])


def _encoded(figure: Figure, form: str, **options) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format=form, dpi=80, facecolor="white", pil_kwargs=options)
    return base64.b64encode(stream.getvalue()).decode()


def _plot(title: str, x_label: str, y_label: str, *, size: tuple[float, float] = (7, 3.6)):
    with rc_context(_STYLE):
        figure = Figure(size, layout="constrained")
        axis = figure.subplots()
        axis.set_xlabel(x_label)
        axis.set_ylabel(y_label)
        figure.suptitle(title)
    return figure, axis


def _displayed(image: Tensor) -> np.ndarray:
    """One image (3, H, W) as matplotlib wants it; a value outside [0, 1] is a mistake, not something to hide."""
    array = image.detach().cpu().permute(1, 2, 0).float().numpy()
    if not (np.isfinite(array).all() and array.min() >= -1e-4 and array.max() <= 1 + 1e-4):
        raise ImageInputError(
            "an image has values in [0, 1]",
            received=f"{array.min():.3g} ... {array.max():.3g}",
            do="bring it into [0, 1], or show it as a map of shape (N, H, W)",
        )
    return array.clip(0, 1)


def _map_scale(maps: Tensor, *, signed: bool | None = None) -> dict:
    """Color map and limits: centered on 0 for signed maps, otherwise from the smallest value to the largest."""
    low, high = float(maps.min()), float(maps.max())
    if not np.isfinite([low, high]).all():
        raise ArgumentError(
            "a map has values that are not finite", received=f"{low} ... {high}", do="look for a division by 0"
        )
    if low < 0 if signed is None else signed:
        limit = max(-low, high) or 1.0
        return {"cmap": SIGNED, "vmin": -limit, "vmax": limit}
    return {"cmap": UNSIGNED, "vmin": low, "vmax": high if high > low else low + 1}


def _cycle(values: Sequence[str], count: int) -> list[str]:
    return [values[place % len(values)] for place in range(count)]
