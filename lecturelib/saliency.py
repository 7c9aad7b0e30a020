"""Lecture 04: which pixels does a number inside the network depend on? The gradient with respect to the picture."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, islice

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.errors import ArgumentError, LayerNameError, ScoreError
from lecturelib.images import require_image
from lecturelib.maps import require_whole
from lecturelib.models import Model
from lecturelib.modes import recording
from lecturelib.scores import ModelScore, Score, class_score, evaluate, images_together


def input_gradient(image: Tensor, score: Score) -> Tensor:
    """The gradient of each image's score with respect to its pixels, shape (N, 3, H, W), of either sign.

    Raises `ImageInputError`, `ScoreError`.
    """
    return _gradient(require_image(image), score)


def saliency_map(image: Tensor, score: Score) -> Tensor:
    """The largest absolute gradient over the colors, shape (N, H, W), >= 0 (Simonyan et al., 2013)."""
    return input_gradient(image, score).abs().amax(dim=1)


def gradient_times_input(image: Tensor, score: Score) -> Tensor:
    """Gradient times pixel, shape (N, 3, H, W): what each pixel adds to a linear score (Shrikumar et al., 2016)."""
    return input_gradient(image, score) * image.detach()


def smoothgrad(
    image: Tensor, score: Score, *, samples: int = 32, sigma: float = 0.15, generator: torch.Generator | None = None
) -> Tensor:
    """The mean gradient over noisy copies of the image, shape (N, 3, H, W) (Smilkov et al., 2017).

    sigma: standard deviation of the Gaussian noise; pixels go from 0 to 1.
    generator: draws the noise, on the CPU. All images of a batch get the same, so a batch equals its images one by one.

    The copies go through the network a few at a time: the memory does not grow with their number.
    """
    require_image(image)
    require_whole(samples=samples)
    if not sigma >= 0:
        raise ArgumentError("sigma is a standard deviation", received=f"sigma={sigma}", do="give a number from 0")

    def noisy_copies() -> Iterator[Tensor]:
        for _ in range(samples):
            noise = torch.randn(image.shape[1:], generator=generator, dtype=image.dtype)
            yield image + sigma * noise.to(image.device)

    return _sum_of_gradients(noisy_copies(), score) / samples


def integrated_gradients(image: Tensor, score: Score, *, baseline: Tensor | float = 0.0, steps: int = 50) -> Tensor:
    """(image - baseline) times the mean gradient on the straight way between them, shape (N, 3, H, W).

    Sundararajan et al., 2017; the integral is a midpoint sum. The attributions of an image add up to its score minus
    the baseline's: `completeness_gap` says how nearly.

    baseline: an image of which one would say that nothing is there; a number is a gray level, 0 is black.
    """
    require_image(image)
    require_whole(steps=steps)
    image, start = image.detach(), _baseline(image, baseline)
    points = (start + (image - start) * ((step + 0.5) / steps) for step in range(steps))
    return (image - start) * _sum_of_gradients(points, score) / steps


@recording(False)
def completeness_gap(image: Tensor, score: Score, attribution: Tensor, *, baseline: Tensor | float = 0.0) -> Tensor:
    """The sum of the attributions minus (score of the image - score of the baseline), shape (N,); 0 is complete."""
    rise = evaluate(score, image) - evaluate(score, _baseline(image, baseline))
    return attribution.flatten(1).sum(dim=1) - rise.to(attribution)


@recording(True)
def grad_cam(model: Model, image: Tensor, layer: str, name: str | int | Sequence[str | int]) -> Tensor:
    """Where a layer's maps speak for a class, shape (N, H, W), >= 0, enlarged to the image (Selvaraju et al., 2017).

    ReLU of the sum of the maps A_k, each times the mean over its positions of the class score's gradient:
    max(0, sum_k A_k mean(dS/dA_k)). The usual layer is the last one with maps. No graph is recorded below it.

    Raises `LayerNameError` for a layer without maps, and where the way from it to the classes is not known.
    """
    require_image(image)
    score = class_score(model, name)
    layers, logits = model.behind(layer)
    with torch.no_grad():
        found = [model.activations(part, layers) for part in image.split(images_together(model, image))]
    maps, *others = (torch.cat([part[each] for part in found]) for each in layers)
    if maps.ndim != 4:
        raise LayerNameError(
            f"Grad-CAM needs a layer with maps, shape (N, C, h, w); {layer} has none",
            received=f"shape {tuple(maps.shape)}",
            do="choose a convolution, its ReLU or a pooling layer",
        )
    gradient = _of_sum(score.read(logits(maps.requires_grad_(), *others)), maps)
    weighted = (maps.detach() * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1, keepdim=True).clamp_(min=0)
    return F.interpolate(weighted, size=image.shape[2:], mode="bilinear")[:, 0]


@recording(True)
def _gradient(image: Tensor, score: Score) -> Tensor:
    image = image.detach().clone().requires_grad_()
    return _of_sum(evaluate(score, image), image)


def _sum_of_gradients(images: Iterator[Tensor], score: Score) -> Tensor:
    """The sum of the gradients at many versions of the images, each (N, 3, H, W), a few versions at a time."""
    total = 0.0
    first = next(images)
    images = chain([first], images)
    while versions := list(islice(images, _together(first, score))):
        gradient = _gradient(torch.cat(versions), _repeated(score, len(versions)))
        total = total + gradient.unflatten(0, (len(versions), -1)).sum(dim=0)
    return total


def _together(image: Tensor, score: Score) -> int:
    """How many versions of the images go through the network in one pass."""
    if not isinstance(score, ModelScore):
        return 1  # a score of N images may ask something else of each of them
    return max(1, images_together(score.model, image) // len(image))


def _repeated(score: Score, count: int) -> Score:
    """The score of `count` versions of the images, one after the other."""
    if isinstance(score, ModelScore) and isinstance(score.chosen, list):
        return replace(score, chosen=score.chosen * count)
    return score


def _of_sum(values: Tensor, source: Tensor) -> Tensor:
    """The gradient of the summed scores: each image's own, because images do not influence each other."""
    gradient = None
    if values.requires_grad:
        (gradient,) = torch.autograd.grad(values.sum(), source, allow_unused=True)
    if gradient is None:
        raise ScoreError(
            "the score has no gradient with respect to the picture",
            received="a number that PyTorch did not differentiate",
            do="compute it from the images, without detach(), item(), numpy() or argmax()",
        )
    return gradient


def _baseline(image: Tensor, baseline: Tensor | float) -> Tensor:
    if not isinstance(baseline, Tensor):
        return torch.full_like(image, baseline, requires_grad=False)
    if baseline.shape[-3:] != image.shape[1:] or baseline.ndim != 4 or len(baseline) not in (1, len(image)):
        raise ArgumentError(
            "the baseline is an image of the same size, or a gray level",
            received=f"shape {tuple(baseline.shape)} for images of shape {tuple(image.shape)}",
            do="give one baseline, one for each image, or a number in [0, 1]",
        )
    return baseline.detach().to(image).expand_as(image)
