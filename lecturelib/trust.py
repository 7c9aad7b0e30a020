"""Lecture 04, be suspicious: does a map say anything about the network, or only about the picture?

Every method is asked the same questions: does its map change when the weights become random (Adebayo et al., 2018),
does it change with the class, does its peak lie on the object (Zhang et al., 2016)? An edge detector, which sees
no network, and a random map, which sees nothing, are asked as well.
"""

from collections.abc import Callable

import torch
from skimage import metrics
from torch import Tensor, nn
from torch.nn import functional as F

from lecturelib.images import require_image
from lecturelib.maps import energy_in_box, rank_agreement, require_whole, to_pixels
from lecturelib.models import Model
from lecturelib.occlusion import area_under, deletion_curve, insertion_curve, occlusion_map
from lecturelib.relu_rules import relu_rule
from lecturelib.saliency import (
    grad_cam,
    gradient_times_input,
    integrated_gradients,
    saliency_map,
    smoothgrad,
)
from lecturelib.scores import class_score, probability

Method = Callable[[Model, Tensor, str | int], Tensor]  # (model, image, name of a class) -> map (N, H, W)
Similarity = Callable[[Tensor, Tensor], Tensor]


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM of two maps (N, H, W), each stretched to [0, 1], shape (N,), in [-1, 1] (Wang et al., 2004)."""
    x, y = (_stretched(maps).double().cpu().numpy() for maps in (a, b))
    return torch.tensor([metrics.structural_similarity(*pair, data_range=1.0) for pair in zip(x, y, strict=True)])


def edge_detector(image: Tensor) -> Tensor:
    """The strength of the edges in the picture, shape (N, H, W), >= 0 (Sobel): a map that no network was asked for."""
    gray = F.pad(require_image(image).mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across = gray.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    filters = torch.stack([across, across.T])[:, None]
    return F.conv2d(gray, filters).norm(dim=1)


def random_map(image: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Uniform noise in [0, 1], shape (N, H, W), drawn on the CPU: a map that knows nothing."""
    noise = torch.rand(len(image), *image.shape[2:], generator=generator, dtype=image.dtype)
    return noise.to(image.device)


def last_maps(model: Model) -> str:
    """The last convolution, the usual layer for Grad-CAM."""
    return [layer for layer in model.layers if isinstance(model.module(layer), nn.Conv2d)][-1]


def with_rule(rule: str) -> Method:
    """The method that takes the largest absolute gradient over the colors under a ReLU rule."""

    def method(model: Model, image: Tensor, name: str | int) -> Tensor:
        with relu_rule(model, rule):
            return saliency_map(image, class_score(model, name))

    return method


def _strength(attribution: Tensor) -> Tensor:
    return attribution.abs().amax(dim=1)


def _occlusion(model: Model, image: Tensor, name: str | int) -> Tensor:
    window, stride = max(1, min(image.shape[2:]) // 4), max(1, min(image.shape[2:]) // 16)
    heat = occlusion_map(image, class_score(model, name), window=window, stride=stride)
    return to_pixels(heat, window=window, stride=stride, size=tuple(image.shape[2:]))


METHODS: dict[str, Method] = {
    "occlusion": _occlusion,
    "gradient": lambda model, image, name: saliency_map(image, class_score(model, name)),
    "gradient x input": lambda model, image, name: _strength(gradient_times_input(image, class_score(model, name))),
    "SmoothGrad": lambda model, image, name: _strength(smoothgrad(image, class_score(model, name), samples=8)),
    "integrated gradients": lambda model, image, name: _strength(
        integrated_gradients(image, class_score(model, name), steps=8)
    ),
    "deconvnet": with_rule("deconvnet"),
    "guided backprop": with_rule("guided"),
    "Grad-CAM": lambda model, image, name: grad_cam(model, image, last_maps(model), name),
    "edge detector": lambda model, image, name: edge_detector(image),
    "random map": lambda model, image, name: random_map(image),
}


def randomization_cascade(
    model: Model,
    image: Tensor,
    name: str | int,
    method: Method,
    *,
    similarity: Similarity = rank_agreement,
    stages: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """How similar a method's map stays while the layers become random, from the last one down (Adebayo et al., 2018).

    {"trained": 1.0, layer: similarity to the trained network's map when this layer and all above it are random}, means
    over the images. What shows the network falls towards 0; what stays near 1 shows the picture. The weights are He's
    (2015), drawn with `seed`, in private modules: the model itself is never touched.

    stages: look only that many times, evenly spread from the last layer to the first; by default after every layer.
    """
    require_whole(stages=1 if stages is None else stages)
    trained = method(model, image, name)
    found = {"trained": similarity(trained, trained).mean().item()}
    private, groups = _private_copy(model)
    looked_at = torch.linspace(0, len(groups) - 1, stages or len(groups)).round().tolist()
    generator = torch.Generator().manual_seed(seed)
    for number, (layer, modules) in enumerate(groups.items()):
        for module in modules:
            _randomize(module, generator)
        if number in looked_at:
            found[layer] = similarity(trained, method(private, image, name)).mean().item()
    return found


def label_swap_similarity(
    model: Model,
    image: Tensor,
    name: str | int,
    other: str | int,
    method: Method,
    *,
    similarity: Similarity = rank_agreement,
) -> float:
    """How similar the maps of two classes are, a mean over the images; 1: the method does not see the class."""
    return similarity(method(model, image, name), method(model, image, other)).mean().item()


def pointing_game(maps: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Whether the largest value of each map (N, H, W) lies in the object's box, shape (N,), bool (Zhang et al., 2016).

    box: (top, left, bottom, right) in pixels, bottom and right not included. A random map wins as often as the box's
    share of the picture is large.
    """
    peak = F.one_hot(maps.flatten(1).argmax(dim=1), maps.shape[1] * maps.shape[2])
    return energy_in_box(peak.view(maps.shape).float(), box) > 0


def trust_table(
    model: Model,
    image: Tensor,
    name: str | int,
    *,
    other: str | int,
    box: tuple[int, int, int, int],
    methods: dict[str, Method] = METHODS,
    stages: int = 3,
    seed: int = 0,
) -> list[dict[str, object]]:
    """One row for each method: {"method": its name, one number for each control, "passes": the controls it passes}.

    weights: the mean similarity over the stages of `randomization_cascade`; passed below 0.5.
    class: `label_swap_similarity` with the class `other`; passed below 0.9.
    pointing: the share of images whose peak lies in `box`; passed from 0.5.
    deletion, insertion: the area under the curve of p(class); passed by what beats each of 8 random maps.

    No row proves a method right: an edge detector wins the pointing game wherever the object has the sharpest edge, and
    a random map depends on neither weights nor class. Only what passes everything can be about network and object.
    """
    generator = torch.Generator().manual_seed(seed)
    chance = [_areas(model, image, name, random_map(image, generator=generator)) for _ in range(8)]
    least_deletion, most_insertion = min(pair[0] for pair in chance), max(pair[1] for pair in chance)
    rows = []
    for label, method in methods.items():
        maps = method(model, image, name)
        cascade = list(randomization_cascade(model, image, name, method, stages=stages, seed=seed).values())
        weights = sum(cascade[1:]) / len(cascade[1:])
        swapped = label_swap_similarity(model, image, name, other, method)
        pointing = pointing_game(maps, box).float().mean().item()
        deletion, insertion = _areas(model, image, name, maps)
        controls = {
            "weights": (weights, weights < 0.5),
            "class": (swapped, swapped < 0.9),
            "pointing": (pointing, pointing >= 0.5),
            "deletion": (deletion, deletion < least_deletion),
            "insertion": (insertion, insertion > most_insertion),
        }
        passes = [control for control, (_, passed) in controls.items() if passed]
        rows.append({"method": label, **{key: value for key, (value, _) in controls.items()}, "passes": passes})
    return rows


def _areas(model: Model, image: Tensor, name: str | int, maps: Tensor) -> tuple[float, float]:
    """The areas under the deletion and the insertion curve, means over the images."""
    score = probability(model, name)
    curves = (curve(image, score, maps, steps=10) for curve in (deletion_curve, insertion_curve))
    deletion, insertion = (area_under(curve).mean().item() for curve in curves)
    return deletion, insertion


def _private_copy(model: Model) -> tuple[Model, dict[str, list[nn.Module]]]:
    """A copy of the model that shares its weights, and {layer: its modules with weights}, from the last to the first.

    A norm goes with the convolution in front of it.
    """
    private, paths = model.twin(), {layer: model.reader.path(layer) for layer in model.layers}
    names, groups = {path: layer for layer, path in paths.items()}, {}
    for path, module in private.network.named_modules():
        if next(module.parameters(recurse=False), None) is None:
            continue
        if isinstance(module, nn.Conv2d | nn.Linear) or not groups:
            group = groups[names.get(path, path)] = []
        group.append(module)
    return private, dict(reversed(groups.items()))


def _randomize(module: nn.Module, generator: torch.Generator) -> None:
    """New tensors for the module's own; the old ones, which the model shares, are left as they are."""
    for name, values in list(module.named_parameters(recurse=False)):
        setattr(module, name, nn.Parameter(_random(name, values, generator), requires_grad=False))
    for name, values in list(module.named_buffers(recurse=False)):
        setattr(module, name, _random(name, values, generator))


def _random(name: str, values: Tensor, generator: torch.Generator) -> Tensor:
    if values.ndim > 1:
        noise = torch.randn(values.shape, generator=generator, dtype=values.dtype)
        return noise.to(values.device) * (2 / values[0].numel()) ** 0.5
    return torch.ones_like(values) if name in ("weight", "running_var") else torch.zeros_like(values)


def _stretched(maps: Tensor) -> Tensor:
    low, high = (edge(dim=(1, 2), keepdim=True) for edge in (maps.detach().amin, maps.detach().amax))
    return (maps.detach() - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)
