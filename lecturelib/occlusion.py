"""Lecture 03, occlusion: cover a part of the picture and see what becomes of the score (Zeiler and Fergus, 2014)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from lecturelib.arrays import require_range
from lecturelib.errors import ArgumentError
from lecturelib.images import require_image
from lecturelib.incremental import chain_to
from lecturelib.maps import require_whole
from lecturelib.modes import recording
from lecturelib.networks import MEAN
from lecturelib.regularizers import blur
from lecturelib.scores import ModelScore, Score, evaluate

FILLS = ("mean", "grey", "blur", "noise")
TOGETHER = 4 * 224 * 224  # pixels: larger batches are slower on a CPU, because their buffers leave the cache

Fill = str | Tensor
Masks = Callable[[int, int], Tensor]


@recording(False)
def occlusion_map(
    image: Tensor,
    score: Score,
    *,
    window: int = 32,
    stride: int = 8,
    fill: Fill = "mean",
    drop: bool = True,
    batch: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """How much the score drops when a window is covered, shape (N, h, w), where h = floor((H - window) / stride) + 1.

    drop = score(image) - score(covered image): large where the network needs the picture. Entry (i, j) is for the
    window whose upper left corner is the pixel (i * stride, j * stride); `maps.to_pixels` brings the map to the
    size of the picture.

    window, stride: in pixels.
    fill: what the window shows, as in `filling`.
    drop: False gives the score of the covered picture itself, as Zeiler and Fergus drew it: low where it matters.
    batch: how many pictures run together; by default about as many as hold four of 224 x 224 pixels.

    Any score works. For scores made by `class_score`, `log_probability`, `probability`, `channel_score` and
    `neuron_score` on networks whose layers form a chain, such as AlexNet and VGG, only what the window can reach is
    computed again (see `incremental`): the same numbers, several times faster.
    """
    filler = filling(image, fill, generator=generator)
    require_whole(window=window, stride=stride)
    height, width = image.shape[2:]
    if window > min(height, width):
        raise ArgumentError(
            "the window is larger than the picture",
            received=f"a window of {window} x {window} pixels, a picture of {height} x {width}",
            do=f"choose window <= {min(height, width)}",
        )
    batch = _micro_batch(image, batch)
    tops, lefts = range(0, height - window + 1, stride), range(0, width - window + 1, stride)

    def mask(n: int, place: int) -> Tensor:
        row, column = divmod(place, len(lefts))
        return _window(image, tops[row], lefts[column], window)

    clean = evaluate(score, image).to(image)
    covered = _by_recomputing(image, score, filler, tops, lefts, window, batch)
    if covered is None:
        covered = _under_masks(image, score, filler, mask, len(tops) * len(lefts), batch)
    covered = covered.unflatten(1, (len(tops), len(lefts)))
    return clean[:, None, None] - covered if drop else covered


def occlude(
    image: Tensor,
    top: int,
    left: int,
    *,
    window: int = 32,
    fill: Fill = "mean",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The images with one square covered, (N, 3, H, W); what would lie outside of the picture is cut off."""
    filler = filling(image, fill, generator=generator)
    require_whole(window=window)
    return torch.where(_window(image, top, left, window), filler, image)


def filling(image: Tensor, fill: Fill, *, generator: torch.Generator | None = None) -> Tensor:
    """What shows where pixels are covered, as images (N, 3, H, W).

    fill: "mean" (the mean color of ImageNet's photographs, which most networks see as 0), "grey" (0.5), "blur" (the
        picture without its details: a Gaussian blur, sigma = 1/16 of the shorter side), "noise" (uniform in [0, 1],
        from `generator`, otherwise the same every time; one noise for all images), or a tensor that broadcasts to
        the image, such as a color of shape (3, 1, 1).
    """
    require_image(image)
    if isinstance(fill, Tensor):
        return _broadcast(fill, image)
    if not isinstance(fill, str) or fill not in FILLS:
        raise ArgumentError(
            "a covered part is filled by name or with a tensor",
            received=repr(fill),
            do=f"choose from {', '.join(FILLS)}",
        )
    if fill == "blur":
        return blur(image.detach(), min(image.shape[2:]) / 16).clamp(0, 1)
    if fill == "noise":
        generator = generator or torch.Generator().manual_seed(0)
        noise = torch.rand(image.shape[1:], generator=generator, device=generator.device)
        return noise.to(image).expand_as(image)
    color = torch.tensor(MEAN if fill == "mean" else (0.5, 0.5, 0.5)).to(image)
    return color.view(3, 1, 1).expand_as(image)


def deletion_curve(
    image: Tensor,
    score: Score,
    order: Tensor,
    *,
    steps: int = 50,
    fill: Fill = "mean",
    batch: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The score while the pixels are covered, shape (N, steps + 1), from none of them to all (Petsiuk et al., 2018).

    order: a map (N, H, W); the pixel with its largest value goes first. A good map lets the score fall early.
    """
    filler = filling(image, fill, generator=generator)
    return _curve(image, score, filler, order, steps, batch)


def insertion_curve(
    image: Tensor,
    score: Score,
    order: Tensor,
    *,
    steps: int = 50,
    fill: Fill = "blur",
    batch: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The score while the pixels appear, shape (N, steps + 1), from none of them to all (Petsiuk et al., 2018).

    order: a map (N, H, W); the pixel with its largest value comes first. A good map lets the score rise early.
    """
    filler = filling(image, fill, generator=generator)
    return _curve(filler, score, image, order, steps, batch)


def area_under(curve: Tensor) -> Tensor:
    """The area under curves (N, steps + 1) over [0, 1], shape (N,), by the trapezoid rule."""
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1), dim=1)


def _by_recomputing(
    image: Tensor, score: Score, filler: Tensor, tops: Sequence[int], lefts: Sequence[int], window: int, batch: int
) -> Tensor | None:
    """The scores under all windows, (N, hw), through `incremental`; None where that is not possible."""
    chain = chain_to(score.model, score.layer) if isinstance(score, ModelScore) else None
    if chain is None:
        return None
    rows = []
    for n in range(len(image)):
        one = score.of_image(n)
        parts = chain.activations(image[n : n + 1], filler[n : n + 1], tops, lefts, window, batch=2 * batch)
        rows.append(torch.cat([one.read(activation) for activation in parts]))
    return torch.stack(rows).to(image)


def _under_masks(image: Tensor, score: Score, filler: Tensor, mask: Masks, count: int, batch: int) -> Tensor:
    """The score of each image n under each of its masks (H, W), `mask(n, k)` for k < count, shape (N, count)."""
    values = image.new_empty(len(image), count)
    for ask, pairs in _batches(image, score, count, batch):
        covered = torch.stack([torch.where(mask(n, k), filler[n], image[n]) for n, k in pairs])
        images, places = zip(*pairs, strict=True)
        values[list(images), list(places)] = evaluate(ask, covered).to(image)
    return values


def _batches(image: Tensor, score: Score, count: int, batch: int) -> Iterator[tuple[Score, list[tuple[int, int]]]]:
    """What runs together: a score, and pairs of an image and a mask."""
    if len(image) > 1 and not isinstance(score, ModelScore):
        # A score of N images may ask something else of each of them: they keep their places.
        for k in range(count):
            yield score, [(n, k) for n in range(len(image))]
        return
    for n in range(len(image)):
        ask = score.of_image(n) if isinstance(score, ModelScore) else score
        for begin in range(0, count, batch):
            yield ask, [(n, k) for k in range(begin, min(begin + batch, count))]


@recording(False)
def _curve(start: Tensor, score: Score, end: Tensor, order: Tensor, steps: int, batch: int | None) -> Tensor:
    """The score on the way from `start` to `end`, pixel by pixel, (N, steps + 1)."""
    require_whole(steps=steps)
    pixels = start.shape[2] * start.shape[3]
    if not isinstance(order, Tensor) or order.shape != (len(start), *start.shape[2:]) or order.isnan().any():
        raise ArgumentError(
            "the order of the pixels is a map without NaN, with one value per pixel",
            received=f"shape {tuple(order.shape)}" if isinstance(order, Tensor) else type(order).__name__,
            do=f"give a tensor of shape {(len(start), *start.shape[2:])}",
        )
    rank = (
        order.to(start.device).flatten(1).argsort(dim=1, descending=True, stable=True).argsort(dim=1).view(order.shape)
    )
    evaluate(score, start)

    def mask(n: int, step: int) -> Tensor:
        return rank[n] < round(pixels * step / steps)

    return _under_masks(start, score, end, mask, steps + 1, _micro_batch(start, batch))


def _window(image: Tensor, top: int, left: int, window: int) -> Tensor:
    mask = torch.zeros(image.shape[2:], dtype=torch.bool, device=image.device)
    mask[max(0, top) : max(0, top + window), max(0, left) : max(0, left + window)] = True
    return mask


def _broadcast(fill: Tensor, image: Tensor) -> Tensor:
    try:
        filler = fill.detach().to(image).broadcast_to(image.shape)
    except RuntimeError:
        raise ArgumentError(
            "this fill does not fit the picture",
            received=f"shape {tuple(fill.shape)}",
            do=f"give a color of shape (3, 1, 1) or a picture of shape {tuple(image.shape)}",
        ) from None
    require_range(filler)
    return filler


def _micro_batch(image: Tensor, batch: int | None) -> int:
    if batch is not None:
        require_whole(batch=batch)
        return batch
    # On a GPU each launch has its price, and memory is plentiful.
    together = TOGETHER if image.device.type == "cpu" else 16 * TOGETHER
    return max(1, together // (image.shape[2] * image.shape[3]))
