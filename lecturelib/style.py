"""Lecture 10: style transfer. The content of one picture, painted in the style of another (Gatys et al., 2016).

A loss is a list of terms, each of which reads one layer: `content_terms(...) + weighted(style_terms(...), 60)`. Lists
of terms add up to masks, to a mixture of two styles, to whatever one wants; `loss_of` reads all their layers in one
pass, and `contributions` tells what each of them adds.
"""

import copy
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lecturelib.errors import ArgumentError
from lecturelib.images import require_image
from lecturelib.inversion import relative_distance
from lecturelib.models import Model
from lecturelib.modes import recording
from lecturelib.optimize import OnStep, minimize
from lecturelib.texture import Loss, gram

Layers = Sequence[str] | Mapping[str, float]


class Term(NamedTuple):
    """One part of a loss.

    layer: the layer that is read; None for the picture itself.
    distance: the layer's features (N, C, h, w) -> (N,), small for the wanted picture.
    weight: a number, or one for each picture of a batch, shape (N,).
    """

    name: str
    layer: str | None
    distance: Loss
    weight: float | Tensor = 1.0


class Recipe(NamedTuple):
    """Which layers a network is asked for, and how much the style counts where the content counts 1."""

    content: Layers
    style: Layers
    beta: float


# mini_vgg: found by eye. Its first layers count more, they hold the colors and the edge of the brush.
# VGG: the layers and their equal shares are the paper's. Its alpha / beta belongs to another normalization.
_PAPER = Recipe(["conv4_2"], dict.fromkeys(["conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1"], 0.2), 60.0)
RECIPES = {
    "mini_vgg": Recipe(["relu3_2"], {"relu1_1": 0.52, "relu2_1": 0.26, "relu3_1": 0.13, "relu4_1": 0.09}, 60.0),
    "vgg16": _PAPER,
    "vgg19": _PAPER,
}
_LRS = {"lbfgs": 1.0, "adam": 0.03}


def transfer_style(
    model: Model,
    *,
    content: Tensor,
    style: Tensor,
    beta: float | Sequence[float] | None = None,
    tv: float = 15.0,
    content_layers: Layers | None = None,
    style_layers: Layers | None = None,
    start: Tensor | None = None,
    steps: int = 60,
    step_rule: str = "lbfgs",
    on_step: OnStep | None = None,
) -> Tensor:
    """The content of one picture in the style of another, images (N, 3, H, W) of its size (Gatys et al., 2016).

    Descends content + beta * style + tv * variation, the terms of `transfer_terms`. The style picture may have any
    size: the larger it is, the larger its strokes become in the result.
    beta: how much the style counts; a list makes one picture for each number, all in one batch ("adam" keeps them
        independent). The paper's alpha is 1, because only the ratio matters.
    start: where to begin; the content by default. `grey_noise(...)`, or the style, gives more of the style.
    step_rule: "lbfgs", the paper's, or "adam"; the learning rates are set.

    Departures from the paper: relative distances, and a penalty on the variation. With beta=0 and tv=0 the content
    comes back. An interrupt returns the best so far.
    """
    if step_rule not in _LRS:
        raise ArgumentError(
            "styles are transferred by one of two step rules", received=repr(step_rule), do=f"one of {', '.join(_LRS)}"
        )
    terms = transfer_terms(
        model, content=content, style=style, beta=beta, tv=tv, content_layers=content_layers, style_layers=style_layers
    )
    count = 1 if beta is None or not isinstance(beta, Sequence) else len(beta)
    first = content.expand(count, -1, -1, -1) if start is None else start
    return minimize(first, loss_of(model, terms), steps=steps, lr=_LRS[step_rule], step_rule=step_rule, on_step=on_step)


def transfer_terms(
    model: Model,
    *,
    content: Tensor,
    style: Tensor,
    beta: float | Sequence[float] | None = None,
    tv: float = 15.0,
    content_layers: Layers | None = None,
    style_layers: Layers | None = None,
) -> list[Term]:
    """The terms that `transfer_style` descends: content, style and variation, with their weights."""
    recipe = RECIPES.get(model.name, Recipe(content_layers or [], style_layers or [], 60.0))
    weight = recipe.beta if beta is None else beta
    terms = content_terms(model, content, recipe.content if content_layers is None else content_layers)
    terms += weighted(style_terms(model, style, recipe.style if style_layers is None else style_layers), weight)
    return terms + weighted([variation_term()], tv)


@recording(False)
def content_terms(model: Model, image: Tensor, layers: Layers) -> list[Term]:
    """How far pictures are from `image` in each layer: ||F - P||^2 / ||P||^2.

    layers: a list, whose layers share the weight 1 equally; or {layer: weight}.
    """
    require_image(image)
    shares = _shares(layers)
    found = model.activations(image, list(shares))
    return [Term(f"content {layer}", layer, _distance_to(found[layer]), share) for layer, share in shares.items()]


@recording(False)
def style_terms(model: Model, image: Tensor, layers: Layers, *, mask: Tensor | None = None) -> list[Term]:
    """How far the Grams of pictures are from those of `image`, in each layer: ||G - A||^2 / ||A||^2.

    layers: as in `content_terms`. mask: where in the picture the style is wanted, shape (H, W), from 0 to 1; it is
    averaged down to the size of each layer, and the positions count by their weights.
    """
    require_image(image)
    shares = _shares(layers)
    if mask is not None:
        _require_mask(mask)
    found = {layer: gram(features) for layer, features in model.activations(image, list(shares)).items()}
    return [
        Term(f"style {layer}", layer, _distance_to_gram(found[layer], mask), share) for layer, share in shares.items()
    ]


def variation_term() -> Term:
    """`shift_variation` per pixel, as a term."""
    return Term("variation", None, lambda images: shift_variation(images) / images[0, 0].numel())


def shift_variation(images: Tensor) -> Tensor:
    """Squared differences to the picture shifted one pixel right, and down, summed over colors and positions, (N,).

    The sum over all neighbors; `total_variation` leaves out the last row and column (Chollet, 2017).
    """
    right = (images[..., :, 1:] - images[..., :, :-1]).square().flatten(1).sum(dim=1)
    down = (images[..., 1:, :] - images[..., :-1, :]).square().flatten(1).sum(dim=1)
    return right + down


def weighted(terms: Sequence[Term], weight: float | Sequence[float] | Tensor) -> list[Term]:
    """The terms with their weights multiplied by `weight`; a list or a tensor has one number for each picture."""
    factor = torch.as_tensor(weight, dtype=torch.float32)
    if not bool((factor.isfinite() & (factor >= 0)).all()) or factor.ndim > 1:
        raise ArgumentError("weights are finite numbers from 0", received=repr(weight), do="for example 60")
    factor = factor.item() if factor.ndim == 0 else factor
    return [term._replace(weight=term.weight * factor) for term in terms]


def contributions(model: Model, images: Tensor, terms: Sequence[Term]) -> dict[str, Tensor]:
    """What each term adds to the loss of images (N, 3, H, W): {name: (N,)}; equal names are added up."""
    if not terms:
        raise ArgumentError("a loss has at least one term", received="none", do="add content_terms(...)")
    layers = {term.layer: None for term in terms if term.layer is not None}
    found = {None: images.to(model.device), **model.activations(images, list(layers))}
    added: dict[str, Tensor] = {}
    for term in terms:
        distance = term.distance(found[term.layer])
        weight = term.weight.to(distance) if isinstance(term.weight, Tensor) else term.weight
        added[term.name] = added.get(term.name, 0) + weight * distance
    return added


def loss_of(model: Model, terms: Sequence[Term]) -> Loss:
    """The sum of the terms as a loss, images (N, 3, H, W) -> (N,); all layers are read in one pass."""
    return lambda images: sum(contributions(model, images, terms).values())


def content_loss(model: Model, image: Tensor, layers: Layers) -> Loss:
    """How far the features of pictures (N, 3, H, W) are from those of `image`, (N,): 0 when equal, 1 for all zeros."""
    return loss_of(model, content_terms(model, image, layers))


def style_loss(model: Model, image: Tensor, layers: Layers) -> Loss:
    """How far the Grams of pictures (N, 3, h, w) of any size are from those of `image`, (N,): `gram_loss`."""
    return loss_of(model, style_terms(model, image, layers))


def average_pooled(model: Model) -> Model:
    """The model with average pooling in the place of max pooling, as in the paper; it shares the weights."""
    shared = {id(tensor): tensor for tensor in (*model.network.parameters(), *model.network.buffers())}
    network = copy.deepcopy(model.network, shared)
    for path, module in list(network.named_modules()):
        if isinstance(module, nn.MaxPool2d):
            pool = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, module.ceil_mode)
            network.set_submodule(path, pool)
    layers = dict(model.reader.aliases)
    return Model(network, name=model.name, classes=model.classes, layers=layers, mean=model.mean, std=model.std)


class Cost(NamedTuple):
    """What one evaluation of a loss and its gradient takes."""

    seconds: float
    megabytes: float


@recording(True)
def step_cost(loss: Loss, images: Tensor, *, repeats: int = 3) -> Cost:
    """Processor seconds (the median of `repeats`), and the memory that is kept for the way back, for one step."""
    kept: dict[int, int] = {}

    def keep(value: Tensor) -> Tensor:
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    leaf = images.detach().clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        total = loss(leaf).sum()
    torch.autograd.grad(total, leaf)
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        (gradient,) = torch.autograd.grad(loss(leaf).sum(), leaf)
        gradient.sum().item()  # waits for a GPU
        seconds.append(time.process_time() - begin)
    return Cost(statistics.median(seconds), sum(kept.values()) / 1e6)


def _distance_to(target: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda features: relative_distance(features, target)


def _distance_to_gram(target: Tensor, mask: Tensor | None) -> Callable[[Tensor], Tensor]:
    def distance(features: Tensor) -> Tensor:
        if mask is None:
            return relative_distance(gram(features), target)
        small = F.adaptive_avg_pool2d(mask[None].to(features), features.shape[2:])[0]
        return relative_distance(gram(features, small), target * small.mean())

    return distance


def _shares(layers: Layers) -> dict[str, float]:
    """{layer: weight}; equal shares of 1 where none are given."""
    if isinstance(layers, str) or not layers:
        raise ArgumentError(
            "layers is a list of names, or {name: weight}",
            received=repr(layers),
            do='for example content_layers=["relu3_2"]; model.layers lists the names',
        )
    return dict(layers) if isinstance(layers, Mapping) else {layer: 1 / len(layers) for layer in layers}


def _require_mask(mask: Tensor) -> None:
    if not isinstance(mask, Tensor) or mask.ndim != 2 or not bool(((mask >= 0) & (mask <= 1)).all()):
        raise ArgumentError(
            "a mask has one weight from 0 to 1 for each pixel",
            received=f"shape {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__,
            do="give a tensor of shape (H, W)",
        )
