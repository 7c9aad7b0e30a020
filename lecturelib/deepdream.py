"""Lecture 07: DeepDream. Climb a score from a photograph, at growing sizes, so that what a layer sees appears in it.

To set the gradient of a layer equal to its activation is to climb half the sum of its squares (Mordvintsev et al.,
2015). Everything else here keeps the result beautiful: sizes from coarse to fine, a shift before each step, steps that
are equally large at coarse and fine scales, and a score in which no channel can shout the others down.
"""

import warnings
from math import inf
from numbers import Real

import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm.auto import tqdm

from lecturelib.canvas import COLORS, Pixels
from lecturelib.errors import ArgumentError
from lecturelib.images import require_image
from lecturelib.models import Model
from lecturelib.modes import recording
from lecturelib.optimize import Climb, OnStep, Options, climb
from lecturelib.scores import Score
from lecturelib.transforms import jitter as shifted_by

FADE = 0.03  # of the change at one size is given back after every step, or long dreams burn


def dream(
    image: Tensor,
    score: Score,
    *,
    octaves: int = 4,
    ratio: float = 1.4,
    steps: int = 10,
    lr: float = 0.008,
    jitter: int = 8,
    bands: int = 3,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images (N, 3, H, W) in which `score` is larger, climbed to at growing sizes (Mordvintsev et al., 2015).

    At each size the photograph is taken anew, and what was dreamt so far is enlarged and added to it. So no detail of
    the photograph is lost, and 0 steps give back the image exactly.
    octaves, ratio: how many sizes, and by what factor they grow (see `octave_sizes`).
    lr: the typical change of a value in each step, in each of the bands.
    jitter: before each step the picture is shifted by up to so many pixels, drawn with `generator`.
    bands: the change is a sum of so many pictures, each half as large as the one before, in decorrelated colors
        (`Bands`). 1 climbs the plain pixels.
    on_step: called as on_step(step, images, scores), in place of a progress bar; steps count from 0 at each size.

    An interrupt returns the best so far, at full size.
    """
    require_image(image)
    if type(bands) is not int or bands < 1:
        raise ArgumentError("bands is a whole number from 1", received=repr(bands), do="for example bands=3")
    sizes = octave_sizes(*image.shape[2:], octaves, ratio)
    options = Options(steps, lr, "normalized", on_step=on_step, progress=on_step is None)
    return _dream(image, _shifting(score, jitter, generator), sizes, bands, options).images


def octave_sizes(
    height: int, width: int, octaves: int = 4, ratio: float = 1.4, *, smallest: int = 32
) -> list[tuple[int, int]]:
    """Sizes (h, w) that grow by `ratio` up to (height, width), as many as `octaves` says.

    Sizes with a side below `smallest` are left out, but never the full one.
    """
    if type(octaves) is not int or octaves < 1:
        raise ArgumentError("octaves is a whole number from 1", received=repr(octaves), do="for example octaves=4")
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 1 < ratio < inf:
        raise ArgumentError("sizes grow by a ratio above 1", received=repr(ratio), do="for example ratio=1.4")
    sizes = [(round(height / ratio**k), round(width / ratio**k)) for k in range(octaves - 1, 0, -1)]
    return [*(size for size in sizes if min(size) >= smallest), (height, width)]


class Bands:
    """A canvas: the images `base` (N, 3, H, W) and a change that is a sum of pictures from fine to coarse.

    Each of the `count` pictures is half as large as the one before, and has its own gradient: normalized by itself, it
    moves as fast as the others, where otherwise the finest would have it all. (Mordvintsev et al. divide the bands of
    a Laplacian pyramid by their norms; Olah et al., 2017, also decorrelate the colors.) Coarser pictures count more, by
    a factor of sqrt(2), as in photographs. After each step the change fades a little, by `FADE`.
    """

    def __init__(self, base: Tensor, count: int):
        height, width = base.shape[2:]
        with torch.inference_mode(False):
            self.base = torch.empty_like(base).copy_(base.detach())
            self.colors = base.new_tensor(COLORS)
            self._pictures = [
                base.new_zeros(len(base), 3, max(1, height >> k), max(1, width >> k)).requires_grad_()
                for k in range(count)
            ]

    def parameters(self) -> list[Tensor]:
        return self._pictures

    def image(self) -> Tensor:
        size, last = self.base.shape[2:], len(self._pictures) - 1
        parts = [2 ** ((k - last) / 2) * F.interpolate(p, size, mode="bilinear") for k, p in enumerate(self._pictures)]
        return (self.base + torch.einsum("rc,nchw->nrhw", self.colors, sum(parts))).clamp(0, 1)

    def project(self) -> None:
        """The change fades; there is nothing else to keep within bounds."""
        with torch.no_grad():
            for picture in self._pictures:
                picture.mul_(1 - FADE)


def balanced_score(model: Model, layer: str) -> Score:
    """Half the mean over channels of log(mean square of the channel): no loud channel burns the picture.

    `layer_score` pulls at a channel the harder the louder it is, until one of them covers everything. Here the pull is
    divided by the channel's own mean square, so that all of them grow by the same factor. To each mean square a
    hundredth of the layer's, as a constant, is added: channels that see nothing are not dug out of the noise.
    """

    def score(images: Tensor) -> Tensor:
        energy = model.activation(images, layer).square().flatten(2).mean(dim=2)
        floor = 0.01 * energy.detach().mean(dim=1, keepdim=True) + torch.finfo(energy.dtype).tiny
        return 0.5 * (energy + floor).log().mean(dim=1)

    return score


@recording(False)
def guided_score(model: Model, layer: str, guide: Tensor) -> Score:
    """How well each position of a layer fits the position of another picture, `guide`, that fits it best.

    The mean over positions of the largest inner product with a position of the guide (1, 3, H, W), whose features have
    length 1 (after Mordvintsev et al., 2015): the dream is made of what the guide shows.
    """
    require_image(guide)
    wanted = F.normalize(model.activation(guide[:1], layer)[0].flatten(1), dim=0)  # (C, positions of the guide)

    def score(images: Tensor) -> Tensor:
        features = model.activation(images, layer).flatten(2)
        return torch.einsum("ncp,cq->npq", features, wanted).amax(dim=2).mean(dim=1)

    return score


def zoom_dream(
    image: Tensor,
    score: Score,
    *,
    frames: int = 24,
    zoom: float = 1.04,
    octaves: int = 2,
    steps: int = 4,
    lr: float = 0.008,
    jitter: int = 8,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A flight into the dream, images (frames, 3, H, W): each is the one before, enlarged by `zoom`, and dreamt on.

    The first is the image itself, (1, 3, H, W). Mean and contrast of each color stay those of the photograph, or they
    would run away. An interrupt returns the frames so far.
    """
    require_image(image)
    _require_flight(image, frames, zoom)
    sizes = octave_sizes(*image.shape[2:], octaves)
    score, options = _shifting(score, jitter, generator), Options(steps, lr, "normalized", progress=False)
    flight = [image.detach().clone()]
    try:
        for _ in tqdm(range(frames - 1), delay=1, leave=False):
            frame, stop = _dream(_enlarged(flight[-1], zoom), score, sizes, 3, options)
            flight.append(_with_colors_of(image, frame))
            if stop:
                break
    except KeyboardInterrupt:
        warnings.warn(f"Interrupted; the first {len(flight)} of {frames} frames are returned.", stacklevel=2)
    return torch.cat(flight)


def _dream(image: Tensor, score: Score, sizes: list[tuple[int, int]], bands: int, options: Options) -> Climb:
    """`image` with what was dreamt at all `sizes`, and what stopped it early, if anything did."""
    image = image.detach()
    dreamt, stop = torch.zeros_like(image), None
    try:
        with tqdm(total=len(sizes) * options.steps, delay=2, leave=False, disable=not options.progress) as bar:
            at_each_size = options._replace(progress=False, on_step=_counted(bar, options.on_step))
            for size in sizes:
                photograph = _resized(image, size)
                start = (photograph + _resized(dreamt, size)).clamp(0, 1)
                found, stop = climb(Pixels(start) if bands == 1 else Bands(start, bands), score, at_each_size)
                dreamt = found - photograph
                if stop:
                    break
    except KeyboardInterrupt as error:
        warnings.warn("Interrupted between two sizes; the dream so far is returned.", stacklevel=3)
        stop = error
    return Climb((image + _resized(dreamt, image.shape[2:])).clamp(0, 1), stop)


def _counted(bar: tqdm, on_step: OnStep | None) -> OnStep:
    """`on_step` that moves the bar too: one bar for all sizes together."""

    def see(step: int, images: Tensor, scores: Tensor) -> None:
        bar.update(step > 0)
        if on_step:
            on_step(step, images, scores)

    return see


def _shifting(score: Score, pixels: int, generator: torch.Generator | None) -> Score:
    """The score of images shifted by a new distance each time.

    In the score, because a dream takes few steps: the mean over several looks, by which the loop judges under a
    transform, would come too late.
    """
    shift = shifted_by(pixels)
    return lambda images: score(shift(images, generator))


def _resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == tuple(size):
        return images
    return F.interpolate(images, size=tuple(size), mode="bilinear", antialias=True)


def _enlarged(image: Tensor, zoom: float) -> Tensor:
    """The middle of the image, `zoom` times as large, at the same size."""
    turn = image.new_tensor([[[1 / zoom, 0, 0], [0, 1 / zoom, 0]]])
    grid = F.affine_grid(turn, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)


def _with_colors_of(image: Tensor, frame: Tensor) -> Tensor:
    """`frame` with the mean and the standard deviation of each color of `image`."""
    means, stds = ([f(x, dim=(2, 3), keepdim=True) for x in (frame, image)] for f in (torch.mean, torch.std))
    return ((frame - means[0]) / stds[0].clamp_min(1e-6) * stds[1] + means[1]).clamp(0, 1)


def _require_flight(image: Tensor, frames: int, zoom: float) -> None:
    if len(image) != 1:
        raise ArgumentError(
            "a flight starts from one image", received=f"{len(image)} images", do="choose one: image[:1]"
        )
    if type(frames) is not int or frames < 1:
        raise ArgumentError("frames is a whole number from 1", received=repr(frames), do="for example frames=24")
    if isinstance(zoom, bool) or not isinstance(zoom, Real) or not 1 <= zoom < inf:
        raise ArgumentError("zoom is a factor from 1", received=repr(zoom), do="for example zoom=1.04")
