"""What we ask of a network: a score is a callable from images (N, 3, H, W) to one number per image, shape (N,).

One number *per image*, because then the images of a batch cannot influence each other: the loops add the numbers
up, and the
gradient of the sum is each image's own gradient. Where a maker takes a class or a channel, it also takes a list
with one for each image.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu

from lecturelib.errors import ArgumentError, LayerNameError, ScoreError
from lecturelib.models import Model

Score = Callable[[Tensor], Tensor]

LARGEST_MAP = 16 * 2**20  # bytes; larger ones leave a CPU's cache and get new pages of memory on every pass


@dataclass(frozen=True)
class ModelScore:
    """A score that reads one layer of a model and says so: then it is known what can be left out (`occlusion` does).

    Many images go through the network a few at a time, forward and back: faster, and with constant memory.

    layer: the layer that is read; None for the logits.
    head: the layer's activation, shape (N, ...) -> a table of numbers, shape (N, K).
    chosen: the column of the table; or a list with one column for each image.
    """

    model: Model
    layer: str | None
    head: Callable[[Tensor], Tensor]
    chosen: int | list[int]

    def __call__(self, images: Tensor) -> Tensor:
        parts = _parts(self, images)
        if len(parts) == 1:
            return self.read(self.model(images) if self.layer is None else self.model.activation(images, self.layer))
        if torch.is_grad_enabled() and images.requires_grad:
            return _PartByPart.apply(images, parts)
        return torch.cat([score(images[place]) for place, score in parts])

    def read(self, activation: Tensor) -> Tensor:
        """The score, shape (N,), of images for which the layer gives `activation`."""
        return _pick(self.head(activation), self.chosen)

    def of_image(self, n: int) -> "ModelScore":
        """What is asked of the n-th image, as a score for any number of images."""
        return replace(self, chosen=self.chosen[n]) if isinstance(self.chosen, list) else self


def class_score(model: Model, name: str | int | Sequence[str | int]) -> Score:
    """The logit of a class: the score before the softmax (Simonyan et al., 2013)."""
    return ModelScore(model, None, lambda logits: logits, _indices(name, model.class_index))


def log_probability(model: Model, name: str | int | Sequence[str | int]) -> Score:
    """The logarithm of a class's probability, at most 0: minus the cross-entropy loss."""
    return ModelScore(model, None, lambda logits: logits.log_softmax(dim=1), _indices(name, model.class_index))


def probability(model: Model, name: str | int | Sequence[str | int]) -> Score:
    """The probability of a class, in [0, 1]. Its gradient vanishes where the network is sure: climb a logit instead."""
    return ModelScore(model, None, lambda logits: logits.softmax(dim=1), _indices(name, model.class_index))


def channel_score(model: Model, layer: str, channel: int | Sequence[int]) -> Score:
    """The mean of a channel's map (of a dense layer: the unit's value)."""

    def means(activation: Tensor) -> Tensor:
        return activation.flatten(2).mean(dim=2) if activation.ndim > 2 else activation

    return ModelScore(model, layer, means, _indices(channel, _whole_number))


def firing_score(model: Model, layer: str, channel: int | Sequence[int]) -> Score:
    """How strongly a channel fires, where it does: the mean of its map, in which what is below 0 counts a tenth.

    For a convolution before its ReLU. The plain mean of such a map is the same filter applied to the mean of its input:
    it knows of colors, but of no pattern. Behind the ReLU a silent channel would have no gradient.
    """

    def firing(activation: Tensor) -> Tensor:
        activation = leaky_relu(activation, 0.1)
        return activation.flatten(2).mean(dim=2) if activation.ndim > 2 else activation

    return ModelScore(model, layer, firing, _indices(channel, _whole_number))


def neuron_score(
    model: Model, layer: str, channel: int | Sequence[int], y: int | None = None, x: int | None = None
) -> Score:
    """The activation of one neuron: a channel at the position (y, x) of its map; in the middle by default."""

    def at_position(activation: Tensor) -> Tensor:
        if activation.ndim == 2:
            return activation
        height, width = activation.shape[2:]
        row, column = height // 2 if y is None else y, width // 2 if x is None else x
        whole = isinstance(row, int) and isinstance(column, int)
        if not whole or not (0 <= row < height and 0 <= column < width):
            raise ArgumentError(
                f"the map of {layer} has no position ({row}, {column})",
                received=f"a map of {height} x {width} for pictures of this size",
                do=f"choose y in 0 ... {height - 1} and x in 0 ... {width - 1}",
            )
        return activation[:, :, row, column]

    return ModelScore(model, layer, at_position, _indices(channel, _whole_number))


def layer_score(model: Model, layer: str) -> Score:
    """Half the mean square of a layer: climbing it amplifies whatever the layer sees (Mordvintsev et al., 2015).

    Of half the *sum* of squares the gradient with respect to the layer would be the activation itself; the mean
    keeps the
    numbers of different layers and picture sizes comparable.
    """
    return lambda images: 0.5 * model.activation(images, layer).square().flatten(1).mean(dim=1)


def direction_score(model: Model, layer: str, direction: Tensor) -> Score:
    """The mean over positions of the inner product with `direction`, shape (C,), in the space of a layer's channels."""

    def score(images: Tensor) -> Tensor:
        activation = model.activation(images, layer)
        if direction.shape != activation.shape[1:2]:
            raise LayerNameError(
                f"a direction in {layer} needs one number per channel",
                received=f"shape {tuple(direction.shape)}",
                do=f"give a tensor of shape ({activation.shape[1]},)",
            )
        product = torch.einsum("nc...,c->n...", activation, direction.to(activation))
        return product if product.ndim == 1 else product.flatten(1).mean(dim=1)

    return score


def images_together(model: Model, images: Tensor) -> int:
    """How many images of this size go through the network together, so that its largest map fits `LARGEST_MAP`.

    The map that is looked at is the first convolution's, the largest one in the networks of this field.
    """
    first = next((module for module in model.network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None:
        return max(1, len(images))
    values = first.out_channels * images.shape[2] * images.shape[3] / (first.stride[0] * first.stride[1])
    room = LARGEST_MAP if model.device.type == "cpu" else 16 * LARGEST_MAP  # a GPU wants more work at a time
    return max(1, int(room / (4 * max(1, values))))


def _parts(score: ModelScore, images: Tensor) -> list[tuple[slice, ModelScore]]:
    """Which images go through the network together, and what is asked of them; parts of nearly equal size."""
    if not isinstance(images, Tensor) or images.ndim != 4:
        return [(slice(None), score)]  # the model says what is wrong with them
    count, many = len(images), isinstance(score.chosen, list)
    together = images_together(score.model, images)
    if count <= together or (many and len(score.chosen) != count):
        return [(slice(None), score)]
    size = -(-count // -(-count // together))
    places = [slice(begin, begin + size) for begin in range(0, count, size)]
    return [(place, replace(score, chosen=score.chosen[place]) if many else score) for place in places]


class _PartByPart(torch.autograd.Function):
    """The scores of all images; the gradients are computed with them, so that one part's graph is held at a time."""

    @staticmethod
    def forward(ctx, images: Tensor, parts: list[tuple[slice, ModelScore]]) -> Tensor:
        values, gradients = [], []
        for place, score in parts:
            with torch.enable_grad():
                leaf = images[place].detach().requires_grad_()
                value = score(leaf)
                (gradient,) = torch.autograd.grad(value.sum(), leaf)
            values.append(value.detach())
            gradients.append(gradient)
        ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(values)

    @staticmethod
    @once_differentiable
    def backward(ctx, above: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return above.to(gradient)[:, None, None, None] * gradient, None


def evaluate(score: Score, images: Tensor) -> Tensor:
    """The score of the images, shape (N,); raises `ScoreError` for anything else than one number per image."""
    if not callable(score):
        raise ScoreError(
            "a score is a function from images to one number per image",
            received=type(score).__name__,
            do='for example class_score(model, "koala")',
        )
    values = score(images)
    if not isinstance(values, Tensor) or values.shape != images.shape[:1]:
        raise ScoreError(
            "a score gives one number per image",
            received=f"shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__,
            do=f"return a tensor of shape ({len(images)},): reduce over all dimensions but the first",
        )
    return values


def _indices(chosen, resolve: Callable) -> int | list[int]:
    many = isinstance(chosen, Sequence) and not isinstance(chosen, str)
    if many and not len(chosen):
        raise ArgumentError("nothing is asked", received=repr(chosen), do="name one class or channel for each image")
    return [resolve(one) for one in chosen] if many else resolve(chosen)


def _whole_number(channel: int) -> int:
    """`channel` as an int, also from NumPy's integers and tensors of one."""
    try:
        number = operator.index(channel)
    except TypeError:
        number = -1
    if isinstance(channel, bool) or number < 0:
        raise ArgumentError("a channel is a whole number from 0", received=repr(channel), do="for example channel=17")
    return number


def _pick(values: Tensor, chosen: int | list[int]) -> Tensor:
    """Column `chosen` of values (N, C); of a list, its n-th entry for the n-th image."""
    largest = max(chosen) if isinstance(chosen, list) else chosen
    if largest >= values.shape[1]:
        raise ArgumentError(
            "there is no such channel", received=str(largest), do=f"choose one of 0 ... {values.shape[1] - 1}"
        )
    if not isinstance(chosen, list):
        return values[:, chosen]
    if len(chosen) != len(values):
        raise ArgumentError(
            "a list names one class or channel for each image",
            received=f"{len(chosen)} names, {len(values)} images",
            do="give lists of equal length",
        )
    return values.gather(1, torch.tensor(chosen, device=values.device)[:, None])[:, 0]
