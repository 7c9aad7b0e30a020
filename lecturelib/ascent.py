"""Lecture 05: the pictures that a class, a channel or a neuron likes best. The network stays; the picture climbs."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lecturelib.canvas import Code, Fourier, Pixels, grey_noise
from lecturelib.errors import ArgumentError
from lecturelib.generators import Generator
from lecturelib.models import Model
from lecturelib.optimize import OnStep, maximize
from lecturelib.regularizers import (
    GREY,
    AfterStep,
    blur_every,
    clip_small_contributions,
    clip_small_gradients,
    clip_small_pixels,
    l2,
)
from lecturelib.saliency import input_gradient
from lecturelib.scores import Score, channel_score, class_score, firing_score
from lecturelib.transforms import Transform, compose, jitter, random_rotate, random_scale

VIEW = 0.5, 0.8  # how large a network sees the picture of a class, a half to four fifths as large as it was drawn
FINEST = 0.25  # the shortest wave in it: four pixels as drawn, two or three as seen


class Recipe(NamedTuple):
    """What calms the picture after each step, in the order of the fields (Yosinski et al., 2015).

    decay: the share of the distance to grey that is taken away. blur_sigma: of a Gaussian blur, in pixels, after every
    `blur_every` steps. The last three are percentiles: so many percent of the pixels turn grey, those that differ least
    from it, those with the smallest gradient, or those that contribute least. 0 leaves a change out.
    """

    decay: float = 0.0
    blur_sigma: float = 0.0
    blur_every: int = 4
    small_pixels: float = 0.0
    small_gradients: float = 0.0
    small_contributions: float = 0.0

    def after_step(self) -> AfterStep:
        """All changes as one."""
        if not 0 <= self.decay < 1:
            raise ArgumentError("a decay lies in [0, 1)", received=self.decay, do="for example decay=0.01")
        return compose(
            *[lambda images, gradient, step: GREY + (1 - self.decay) * (images - GREY)] * (self.decay > 0),
            *[blur_every(self.blur_every, sigma=self.blur_sigma)] * (self.blur_sigma > 0),
            *[clip_small_pixels(self.small_pixels)] * (self.small_pixels > 0),
            *[clip_small_gradients(self.small_gradients)] * (self.small_gradients > 0),
            *[clip_small_contributions(self.small_contributions)] * (self.small_contributions > 0),
        )


# The four that Yosinski et al. (2015) found by a random search, each for another look.
YOSINSKI = {
    "small pixels": Recipe(blur_sigma=0.5, blur_every=4, small_pixels=50),
    "strong decay": Recipe(decay=0.3, small_pixels=20),
    "wide blur": Recipe(decay=1e-4, blur_sigma=1.0, blur_every=4),
    "small contributions": Recipe(blur_sigma=0.5, blur_every=4, small_contributions=90),
}


def ascend(
    start: Tensor,
    score: Score,
    *,
    weight: float = 0.0,
    recipe: Recipe | None = None,
    steps: int = 100,
    lr: float = 0.02,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """Images (N, 3, H, W) that the score likes, climbed from `start` (Simonyan et al., 2013).

    argmax S(I) - weight ||I||^2, with steps along the gradient that change a value by `lr` on average, and the changes
    of `recipe` after each step. Zero is middle grey. Where the gradient at the start is zero, behind dead ReLUs, it
    warns and starts from noise.
    """
    if not 0 <= weight < float("inf"):
        raise ArgumentError("the weight of the penalty is 0 or more", received=weight, do="for example weight=1e-3")

    def penalized(images: Tensor) -> Tensor:
        return score(images) - weight * l2(images)

    if not bool(input_gradient(start, penalized).any()):
        warnings.warn("The gradient at the start is zero, so it starts from grey noise instead.", stacklevel=2)
        noise = grey_noise(tuple(start.shape[2:]), count=len(start), generator=torch.Generator().manual_seed(0))
        start = noise.to(start)
    return maximize(
        start,
        penalized,
        steps=steps,
        lr=lr,
        step_rule="normalized",
        after_step=recipe.after_step() if recipe else None,
        on_step=on_step,
        progress=progress,
    )


def class_pictures(
    model: Model,
    names: str | int | Sequence[str | int],
    *,
    size: int = 96,
    steps: int = 100,
    lr: float = 0.08,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """One picture (3, size, size) for each class, shape (N, 3, size, size), recognizable at a glance.

    Climbs the logits in Fourier space, coarse waves first, under random shifts, turns and sizes. The network sees the
    picture made small, about as large as it saw photographs: then one object fills it, and not a herd. Waves that are
    too fine to be seen then are left out.
    """
    names = [names] if isinstance(names, str | int) else list(names)
    return maximize(
        Fourier(size, count=len(names), decay=1.7, finest=FINEST, generator=generator, device=model.device),
        class_score(model, names),
        steps=steps,
        lr=lr,
        transform=robust(*VIEW),
        generator=generator,
        on_step=on_step,
        progress=progress,
    )


def channel_pictures(
    model: Model,
    layer: str,
    channels: Sequence[int],
    *,
    size: int = 64,
    steps: int = 60,
    lr: float = 0.05,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """The picture that each channel likes best, shape (N, 3, size, size): all of them climb as one batch.

    Name the convolution, not its ReLU: `firing_score` is climbed, with which no channel is silent for good.
    """
    return maximize(
        Fourier(size, count=len(channels), generator=generator, device=model.device),
        firing_score(model, layer, list(channels)),
        steps=steps,
        lr=lr,
        transform=robust(0.9, 1.1),
        generator=generator,
        on_step=on_step,
        progress=progress,
    )


def robust(low: float, high: float) -> Transform:
    """Random shifts, turns, and sizes between `low` and `high`: what survives them is no accident of pixels."""
    return compose(jitter(6), random_scale(low, high), random_rotate(8))


def dissimilar(score: Score, model: Model, layer: str, *, weight: float) -> Score:
    """`score` less `weight` times each image's mean likeness to the others of the batch (Olah et al., 2017).

    The likeness of two images is the cosine, in [0, 1], of the Gram matrices of a layer: of what occurs together.
    """

    def score_together(images: Tensor) -> Tensor:
        features = model.activation(images, layer).flatten(2)
        grams = torch.nn.functional.normalize((features @ features.mT).flatten(1), dim=1)
        likeness = (grams @ grams.T).fill_diagonal_(0).sum(dim=1) / max(1, len(images) - 1)
        return score(images) - weight * likeness

    return score_together


def maximize_code(
    generator: Generator,
    score: Score,
    *,
    start: Tensor | None = None,
    count: int = 1,
    weight: float = 0.0,
    steps: int = 100,
    lr: float = 0.1,
    random: torch.Generator | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """Images (N, 3, H, W) drawn from codes that climb a score (Nguyen et al., 2016: DGN-AM).

    h* = argmax S(G(h)) - weight ||h||^2, where each number of the code is measured in its standard deviations over the
    training photographs, and kept between 0 and 3 of them. start: codes (N, D); by default `count` random ones.
    """
    sigma = generator.sigma
    first = generator.random_codes(count, random) if start is None else start.to(sigma)
    canvas = Code(lambda scaled: generator(scaled * sigma), first / sigma.clamp_min(1e-6), high=3.0)
    return maximize(
        canvas,
        lambda images: score(images) - weight * canvas.parameters()[0].square().sum(dim=1).to(images.device),
        steps=steps,
        lr=lr,
        on_step=on_step,
        progress=progress,
    )


def keras_pictures(
    model: Model,
    layer: str,
    channels: Sequence[int],
    *,
    size: int = 64,
    steps: int = 20,
    generator: torch.Generator | None = None,
    progress: bool = True,
) -> Tensor:
    """The filters of a layer as in the listing of the Keras book (Chollet, 2017), before `deprocess`.

    20 steps of g / (sqrt(mean g^2) + 1e-5) on pixels between 0 and 255, without any bounds, from U[0, 1) 20 + 128: here
    all of it divided by 255. The values leave [0, 1].
    """
    noise = torch.rand(len(channels), 3, size, size, generator=generator)
    start = Pixels((noise * 20 + 128).to(model.device) / 255, low=-torch.inf, high=torch.inf)
    score = channel_score(model, layer, list(channels))
    return maximize(start, score, steps=steps, lr=1 / 255, step_rule="normalized", progress=progress)


def deprocess(images: Tensor) -> Tensor:
    """Any numbers (N, 3, H, W) as images: 0.5 + 0.1 (x - mean) / (std + 1e-5) for each image, clipped to [0, 1].

    As in the Keras book. What is an image already is changed only in brightness and contrast, and only once.
    """
    flat = images.flatten(1)
    mean, std = (value.view(-1, 1, 1, 1) for value in (flat.mean(dim=1), flat.std(dim=1, correction=0)))
    return (GREY + 0.1 * (images - mean) / (std + 1e-5)).clamp(0, 1)


def spectral_centroid(images: Tensor) -> Tensor:
    """The mean spatial frequency of images (N, C, H, W), in cycles per pixel, weighted by energy, shape (N,).

    Large for fine patterns, small for coarse ones; a grating of period p has 1 / p. The mean color does not count. 0
    for a flat image.
    """
    energy = torch.fft.rfft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().square().sum(dim=1)
    height, width = images.shape[2:]
    frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)).to(energy)
    energy[:, :, 1 : (width + 1) // 2] *= 2  # the half that `rfft2` leaves out
    return (energy * frequency).sum(dim=(1, 2)) / energy.sum(dim=(1, 2)).clamp_min(torch.finfo(energy.dtype).tiny)
