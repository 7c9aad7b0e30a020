"""Lecture 09: texture. What occurs together in a layer, and pictures that repeat it."""

from collections.abc import Callable, Sequence
from math import inf

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.canvas import Code, grey_noise
from lecturelib.errors import ArgumentError
from lecturelib.images import require_image, resize
from lecturelib.inversion import relative_distance
from lecturelib.models import Model
from lecturelib.modes import recording
from lecturelib.optimize import OnStep, Options, climb

Loss = Callable[[Tensor], Tensor]

_LRS = {"lbfgs": 1.0, "adam": 0.1}  # of the logits of pixels
_BOTH_RULES = 'choose "lbfgs" or "adam"'
_SMALLEST = 16  # pixels: a scale below it shows nothing to a network with four poolings


def gram(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """Which channels are active together: F F^T / M for features (N, C, H, W), shape (N, C, C) (Gatys et al., 2015).

    F is the C x M matrix of a picture's features, M = H W the number of positions. `mask` (H, W) or (N, H, W) with
    weights from 0 to 1 lets each position count by its weight; masks that add up to 1 give Grams that add up.
    """
    if features.ndim != 4:
        raise ArgumentError("features have the shape (N, C, H, W)", received=tuple(features.shape))
    positions = features.flatten(2)
    if mask is None:
        return _OuterProducts.apply(positions) / positions.shape[2]
    if mask.shape[-2:] != features.shape[-2:]:
        raise ArgumentError(
            "a mask has one weight for each position of the features",
            received=f"{tuple(mask.shape)} for features {tuple(features.shape)}",
            do="resize the mask to the height and width of the layer",
        )
    weighted = positions * mask.to(features).reshape(-1, 1, positions.shape[2])
    return weighted @ positions.mT / positions.shape[2]


class _OuterProducts(torch.autograd.Function):
    """F F^T for (N, C, M). Autograd would multiply once for each factor on the way back; they are equal."""

    @staticmethod
    def forward(ctx, features: Tensor) -> Tensor:
        ctx.save_for_backward(features)
        return features @ features.mT

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (features,) = ctx.saved_tensors
        return (features.mT @ (gradient + gradient.mT)).mT  # channels last, as a model's features are


def covariance(features: Tensor) -> Tensor:
    """How channels vary together: the Gram of features (N, C, H, W) less their mean over positions, shape (N, C, C)."""
    return gram(features - features.mean(dim=(-2, -1), keepdim=True))


def conventions(found: Tensor, target: Tensor) -> dict[str, Tensor]:
    """What is published as the loss of one layer, from two Grams F F^T / M of shape (N, C, C): name -> (N,).

    All are the same sum of squares, divided by something else that depends on the layer: weights that were found good
    in one convention mean something else in another.
    """
    squares, channels = (found - target).flatten(1).square().sum(dim=1), found.shape[-1]
    return {
        "F F^T / M, sum": squares,
        "F F^T, sum / (4 C^2 M^2)": squares / (4 * channels**2),
        "F F^T / (C M), sum": squares / channels**2,
        "F F^T / (C M), mean": squares / channels**4,
        "relative": relative_distance(found, target),
    }


@recording(False)
def gram_loss(
    model: Model,
    image: Tensor,
    layers: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
) -> Loss:
    """How far the Grams of pictures are from those of `image` (1, 3, H, W): a loss, images (N, 3, h, w) -> (N,).

    The sum over layers of w ||G - G0||^2 / ||G0||^2. Divided by its target each layer counts about alike, so the
    weights (1 / number of layers where none are given) mean the same for every network.
    """
    require_image(image)
    layers, weights = _weighted(layers, weights)
    targets = [gram(features) for features in model.activations(image, layers).values()]

    def loss(images: Tensor) -> Tensor:
        found = model.activations(images, layers).values()
        return sum(
            weight * relative_distance(gram(features), target)
            for weight, features, target in zip(weights, found, targets, strict=True)
        )

    return loss


def synthesize(
    model: Model,
    image: Tensor,
    layers: Sequence[str],
    *,
    size: int | tuple[int, int] | None = None,
    weights: Sequence[float] | None = None,
    steps: int = 80,
    scales: int = 3,
    step_rule: str = "lbfgs",
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """A new picture (N, 3, h, w) with the texture of `image`, grown from noise (Gatys et al., 2015).

    Descends `gram_loss`. It begins with sample and picture at a quarter of their size, then doubles both, because what
    is wider than the deepest layer sees can only be matched while it is small.
    size: the side of the picture or (height, width), whatever the sample's size; that size by default.
    steps: at each scale. scales: at most; a sample is not made smaller than 16 pixels. 1 is the paper's way.
    step_rule: "lbfgs" or "adam"; the learning rates are set.
    on_step: called as on_step(step, images, losses), where steps count on through the scales and images grow.

    An interrupt ends all scales and returns the best so far, enlarged to `size`.
    """
    sizes = _sizes(require_image(image), image.shape[-2:] if size is None else size, scales)
    if step_rule not in _LRS:
        raise ArgumentError("a texture is made by one of two step rules", received=repr(step_rule), do=_BOTH_RULES)
    picture = grey_noise(sizes[0][1], count=len(image), std=0.1, generator=generator).to(image)
    for place, (sample_size, picture_size) in enumerate(sizes):
        loss = gram_loss(model, resize(image, sample_size).clamp(0, 1), layers, weights=weights)
        told = _counting_on(on_step, place * steps)
        options = Options(steps, _LRS[step_rule], step_rule, on_step=told, progress=progress)
        picture, stop = climb(_free(_enlarged(picture, picture_size)), _minus(loss), options)
        if stop is not None:
            break
    return _enlarged(picture, sizes[-1][1])


def _sizes(image: Tensor, size: int | tuple[int, int], scales: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """(height, width) of sample and picture at each scale, from coarse to fine."""
    if type(scales) is not int or scales < 1:
        raise ArgumentError("scales is a whole number from 1", received=repr(scales), do="for example scales=3")
    final = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(final) != 2 or not all(type(side) is int and side > 0 for side in final):
        raise ArgumentError("a size is a whole number of pixels or (height, width)", received=repr(size), do="say 128")
    shortest = min(*image.shape[-2:], *final)
    factors = [2**place for place in reversed(range(scales)) if place == 0 or shortest >= _SMALLEST * 2**place]
    return [
        tuple(tuple(max(1, round(side / f)) for side in whole) for whole in (image.shape[-2:], final)) for f in factors
    ]


def _enlarged(picture: Tensor, size: tuple[int, int]) -> Tensor:
    return picture if picture.shape[-2:] == size else F.interpolate(picture, size=size, mode="bilinear")


def _free(picture: Tensor) -> Code:
    """Pixels as the sigmoid of numbers without bounds: clipping would spoil what L-BFGS knows of the curvature."""
    return Code(torch.sigmoid, picture.logit(eps=0.01), low=-inf, high=inf)


def _minus(loss: Loss) -> Loss:
    return lambda images: -loss(images)


def _counting_on(on_step: OnStep | None, offset: int) -> OnStep | None:
    if on_step is None:
        return None
    return lambda step, images, scores: on_step(offset + step, images, -scores)


def _weighted(layers: Sequence[str], weights: Sequence[float] | None) -> tuple[list[str], list[float]]:
    """The layers and one weight for each; equal shares of 1 where none are given."""
    if isinstance(layers, str) or not layers:
        raise ArgumentError("layers is a list of names", received=repr(layers), do='for example ["relu1_1", "relu2_1"]')
    layers = list(layers)
    weights = [1 / len(layers)] * len(layers) if weights is None else list(weights)
    if len(weights) != len(layers):
        raise ArgumentError("each layer has one weight", received=f"{len(weights)} weights for {len(layers)} layers")
    return layers, weights
