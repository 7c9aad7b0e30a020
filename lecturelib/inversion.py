"""Lecture 08: feature inversion. Which pictures look alike to a layer, and what of a photograph it keeps.

Every measure compares images (N, 3, H, W) with `original` (N or 1, 3, H, W): one number per image, shape (N,).
"""

import warnings
from collections.abc import Callable, Sequence
from math import inf, pi
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.canvas import Canvas, Fourier
from lecturelib.errors import ArgumentError
from lecturelib.images import require_image
from lecturelib.models import Model
from lecturelib.modes import recording
from lecturelib.optimize import Options, climb
from lecturelib.regularizers import GREY, total_variation
from lecturelib.scores import Score

Distance = Callable[[Tensor, Tensor], Tensor]


def invert(
    model: Model,
    image: Tensor,
    layer: str | Sequence[str],
    *,
    tv: float | Sequence[float] = 1e-5,
    beta: float = 2.0,
    norm: float = 0.0,
    alpha: float = 6.0,
    start: Tensor | Canvas | None = None,
    steps: int = 100,
    progress: bool = True,
) -> Tensor:
    """Images (N, 3, H, W) that give `layer` what `image` gives it (Mahendran and Vedaldi, 2014).

    Minimizes `inversion_loss`, whose options tv, beta, norm and alpha are, with L-BFGS: one image after the other,
    because L-BFGS couples the images of a batch. Lists of layers or of weights `tv` have one entry for each image. A
    single image serves all entries, so that a list of layers shows a photograph at every depth.
    start: by default `Fourier` waves at rest, which are plain grey; or images, to change their pixels; or, for a single
        image, a canvas such as a generator's `Code`.

    An interrupt returns the best so far, and the start for those images that were not begun.
    """
    require_image(image)
    tasks = _tasks(image, layer, tv)
    losses = [
        inversion_loss(model, target, name, tv=weight, beta=beta, norm=norm, alpha=alpha)
        for target, name, weight in tasks
    ]
    canvases = _canvases(start, image, len(tasks))
    found = [canvas if isinstance(canvas, Tensor) else canvas.image().detach().clone() for canvas in canvases]
    for n, (canvas, loss) in enumerate(zip(canvases, losses, strict=True)):
        result = climb(canvas, _negative(loss), Options(steps, 1.0, "lbfgs", progress=progress))
        found[n] = result.images
        if result.stop is not None:
            if n + 1 < len(tasks):
                warnings.warn(f"Images {n + 1} to {len(tasks) - 1} were not begun: they are the start.", stacklevel=2)
            break
    return torch.cat(found)


@recording(False)
def inversion_loss(
    model: Model,
    image: Tensor,
    layer: str,
    *,
    tv: float = 0.0,
    beta: float = 2.0,
    norm: float = 0.0,
    alpha: float = 6.0,
) -> Score:
    """How far pictures are from `image` (N or 1, 3, H, W) to a layer, and how rough: a loss, images -> (N,).

    ||P(x) - P(image)||^2 / ||P(image)||^2 + tv TV_beta(x) + norm sum |x - 0.5|^alpha, with P(x) what the layer gives.
    The penalties are sums over pixels, the first part is a share: for larger pictures choose smaller weights.
    """
    require_image(image)
    for name, value in (("tv", tv), ("norm", norm)):
        _require(_is_number(value) and value >= 0, f"the weight {name} is a number from 0", value, f"try {name}=1e-5")
    _require(_is_number(alpha) and alpha >= 1, "alpha is a number from 1", alpha, "for example alpha=6")
    total_variation(image, beta)  # a wrong beta is told here
    target = model.activation(image, layer)

    def loss(images: Tensor) -> Tensor:
        total = relative_distance(model.activation(images, layer), target).to(images)
        if tv:
            total = total + tv * total_variation(images, beta)
        if norm:
            total = total + norm * (images - GREY).abs().pow(alpha).flatten(1).sum(dim=1)
        return total

    return loss


def relative_distance(values: Tensor, target: Tensor) -> Tensor:
    """||values - target||^2 / ||target||^2 for each picture, shape (N,): 0 when equal, 1 for all zeros.

    Of a target of zeros, such as that of a dead layer, it is the plain squared distance.
    """
    size = target.flatten(1).square().sum(dim=1)
    return (values - target).flatten(1).square().sum(dim=1) / size.masked_fill(size == 0, 1)


@recording(False)
def relative_error(model: Model, images: Tensor, original: Tensor, layer: str) -> Tensor:
    """The `relative_distance` of what a layer gives for the images from what it gives for `original`."""
    return relative_distance(model.activation(images, layer), model.activation(original, layer)).to(images)


def psnr(images: Tensor, original: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10(mean squared difference): 20 when 0.1 off, infinite when equal."""
    return -10 * (images - original).square().flatten(1).mean(dim=1).log10()


def color_distance(images: Tensor, original: Tensor, *, bins: int = 8) -> Tensor:
    """How differently often colors occur, wherever they are: half the L1 distance of color histograms, in [0, 1].

    Red, green and blue have `bins` levels each, and a color is one level of each.
    """

    def histogram(pictures: Tensor) -> Tensor:
        red, green, blue = (pictures * bins).long().clamp(0, bins - 1).unbind(dim=1)
        return _shares((red * bins + green) * bins + blue, bins**3)

    return (histogram(images) - histogram(original)).abs().sum(dim=1) / 2


def texture_distance(images: Tensor, original: Tensor, *, directions: int = 8) -> Tensor:
    """How differently often brightness changes in each direction and strength, wherever it does, in [0, 1].

    Half the L1 distance of histograms with four strengths, each twice the one before, of `directions` directions, and
    with one place for everything flat.
    """

    def histogram(pictures: Tensor) -> Tensor:
        down, right = _slopes(pictures)
        strength = (torch.hypot(down, right) / _FLAT).clamp_min(1e-6).log2().floor().long().clamp(-1, 3)
        direction = ((torch.atan2(down, right) % pi) / pi * directions).long() % directions
        return _shares(torch.where(strength < 0, 4 * directions, strength * directions + direction), 4 * directions + 1)

    return (histogram(images) - histogram(original)).abs().sum(dim=1) / 2


def layout_distance(images: Tensor, original: Tensor, *, cells: int = 8) -> Tensor:
    """Whether light and dark lie in the same places: 1 - correlation of the means of cells x cells parts, in [0, 2]."""
    return _uncorrelated(*(F.adaptive_avg_pool2d(pictures.mean(dim=1), cells) for pictures in (images, original)))


def edge_distance(images: Tensor, original: Tensor) -> Tensor:
    """Whether edges lie in the same places: 1 - correlation of the lengths of the brightness gradient, in [0, 2]."""
    return _uncorrelated(*(torch.hypot(*_slopes(pictures)) for pictures in (images, original)))


def survival(distance: Distance, images: Tensor, originals: Tensor) -> Tensor:
    """How much of a property is left, shape (N,): 1 - distance(image, original) / mean distance(others, original).

    The others are the rest of the originals, which must be two or more. 1: as in the original. 0: an image tells no
    more about its original than the other photographs do.
    """
    count = len(originals)
    _require(count > 1 and len(images) == count, "there is one image for each of several originals", count, "add some")
    usual = torch.stack([distance(originals, each[None]).sum() / (count - 1) for each in originals])
    return 1 - distance(images, originals) / usual


_FLAT = 0.02  # a weaker slope, in brightness per pixel, counts as flat


def _slopes(images: Tensor) -> tuple[Tensor, Tensor]:
    """How brightness changes from one pixel to the next, downwards and to the right, each (N, H - 1, W - 1)."""
    grey = images.mean(dim=1)
    return (grey[:, 1:] - grey[:, :-1])[..., :-1], (grey[..., 1:] - grey[..., :-1])[:, :-1]


def _shares(places: Tensor, count: int) -> Tensor:
    """How often each of the numbers 0 ... count-1 occurs in `places` (N, ...), as shares, shape (N, count)."""
    counted = torch.stack([torch.bincount(each.flatten(), minlength=count) for each in places])
    return counted / places[0].numel()


def _uncorrelated(values: Tensor, target: Tensor) -> Tensor:
    """1 - Pearson's correlation for each picture, shape (N,); 1 where one of the two is flat."""
    values, target = ((each - each.mean(dim=(-2, -1), keepdim=True)).flatten(1) for each in (values, target))
    return 1 - F.cosine_similarity(values, target, dim=1)


def _tasks(image: Tensor, layer: str | Sequence[str], tv: float | Sequence[float]) -> list[tuple[Tensor, str, float]]:
    """One (image, layer, tv) for each picture to be made; what is given once serves all."""
    given = [image.detach().split(1), *([each] if _is_single(each) else list(each) for each in (layer, tv))]
    count = max(map(len, given))
    lengths = "{} images, {} layers, {} weights tv".format(*map(len, given))
    fine = all(len(each) in (1, count) for each in given)
    _require(fine, "lists have one entry for each image", lengths, "give as many of each, or a single one")
    return list(zip(*(list(each) * (count // len(each)) for each in given), strict=True))


def _canvases(start: Tensor | Canvas | None, image: Tensor, count: int) -> list[Tensor | Canvas]:
    """A canvas, or pixels, for each of `count` pictures."""
    if start is None:
        return [Fourier(tuple(image.shape[2:]), std=0.0, device=image.device) for _ in range(count)]
    if isinstance(start, Tensor):
        require_image(start)
        fine = len(start) in (1, count)
        _require(fine, "there is one start for each image", f"{len(start)} starts, {count} images", "give one, or all")
        return list(start.detach().expand(count, -1, -1, -1).split(1))
    _require(count == 1, "a canvas starts a single image", f"{count} images", "invert them one after the other")
    return [start]


def _negative(loss: Score) -> Score:
    return lambda images: -loss(images)


def _is_single(value: object) -> bool:
    return isinstance(value, str) or not isinstance(value, Sequence)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and -inf < value < inf


def _require(fine: bool, what: str, received: object, do: str) -> None:
    if not fine:
        raise ArgumentError(what, received=received, do=do)
