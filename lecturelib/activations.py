"""Lecture 02, what happens in between: receptive fields, the patches that excite a channel most, channels found by
search."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from lecturelib.errors import ArgumentError, LayerNameError
from lecturelib.images import resize
from lecturelib.models import Model
from lecturelib.modes import recording

Box = tuple[int, int, int, int]
"""top, left, bottom, right in pixels; bottom and right are the first outside; it may reach over the picture's
border."""


@dataclass(frozen=True)
class ReceptiveField:
    """Which pixels a position of a map can see: position (y, x) sees `size` pixels from `start + stride * (y, x)`
    on."""

    size: int
    stride: int
    start: int

    def box(self, y: int, x: int) -> Box:
        top, left = self.start + self.stride * y, self.start + self.stride * x
        return top, left, top + self.size, left + self.size

    @property
    def first_center(self) -> float:
        """The middle of the first position's field, in pixels from the picture's edge."""
        return self.start + self.size / 2


def receptive_field(model: Model, layer: str) -> ReceptiveField:
    """The receptive field of a layer's positions, from the kernels, strides and paddings on the way to it (Araujo
    et al., 2019).

    Where ways of different length meet (ResNet, GoogLeNet), the field covers all of them.
    Raises `LayerNameError` for layers that see the whole picture, such as dense layers.
    """
    target = model.reader.node(layer)
    first, second = _field_of(target, model, layer, 0), _field_of(target, model, layer, 1)
    return ReceptiveField(size=first[1] - first[0], stride=second[0] - first[0], start=first[0])


@dataclass(frozen=True)
class Patches:
    """For each of C channels its k strongest places: `values` (C, k), largest first; `images` (C, k), the numbers
    of the
    photographs; `positions` (C, k, 2), row and column in the layer's map."""

    values: Tensor
    images: Tensor
    positions: Tensor


@recording(False)
def strongest_patches(model: Model, layer: str, photos: Tensor, *, k: int = 9, batch: int = 32) -> Patches:
    """Where in photos (N, 3, H, W) each channel of a layer fires most, at most once per photograph (Zeiler and
    Fergus, 2014)."""
    if not 1 <= k <= len(photos):
        raise ArgumentError("k counts photographs", received=str(k), do=f"choose 1 ... {len(photos)}")
    maxima, places = [], []
    for part in photos.split(batch):
        activation = model.activation(part, layer)
        if activation.ndim != 4:
            raise LayerNameError(f"{layer} has no map: it sees the whole picture", do="choose a convolution")
        columns = activation.shape[3]
        value, place = activation.flatten(2).max(dim=2)
        maxima.append(value.cpu())
        places.append(place.cpu())
    values, images = torch.cat(maxima).T.topk(k, dim=1)
    chosen = torch.cat(places).T.gather(1, images)
    return Patches(values, images, torch.stack([chosen // columns, chosen % columns], dim=2))


def cut(photo: Tensor, box: Box, *, size: int | None = None) -> Tensor:
    """The part of photo (1, 3, H, W) inside the box, shape (1, 3, h, w); what lies over the border is mid-grey.

    size: enlarged or reduced to so many pixels.
    """
    top, left, bottom, right = box
    height, width = photo.shape[2:]
    inside = photo[:, :, max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    border = (max(-left, 0), max(right - width, 0), max(-top, 0), max(bottom - height, 0))
    part = F.pad(inside, border, value=0.5)
    return part if size is None else resize(part, (size, size))


def patch_images(photos: Tensor, patches: Patches, field: ReceptiveField, channel: int, *, size: int = 64) -> Tensor:
    """The strongest patches of a channel as images (k, 3, size, size), strongest first."""
    places = zip(patches.images[channel].tolist(), patches.positions[channel].tolist(), strict=True)
    return torch.cat([cut(photos[number : number + 1], field.box(*position), size=size) for number, position in places])


def find_channel(activation: Tensor, box: Box, *, height: int, width: int) -> tuple[int, Tensor]:
    """The channel whose map looks most like a box, and every channel's correlation with it, shape (C,), in [-1, 1].

    activation: the maps of one picture of `height` x `width` pixels, shape (1, C, h, w). box: in pixels of the
    picture. A
    constant map has correlation 0.
    """
    top, left, bottom, right = box
    mask = torch.zeros(1, 1, height, width)
    mask[:, :, max(top, 0) : bottom, max(left, 0) : right] = 1
    mask = F.interpolate(mask, size=activation.shape[2:], mode="area").flatten()
    maps = activation[0].cpu().flatten(1)
    mask, maps = mask - mask.mean(), maps - maps.mean(dim=1, keepdim=True)
    correlation = maps @ mask / (maps.norm(dim=1) * mask.norm()).clamp_min(1e-12)
    return int(correlation.argmax()), correlation


def dead_channels(activation: Tensor) -> Tensor:
    """The numbers of the channels that are 0 at every position of every image of (N, C, h, w)."""
    return (activation.flatten(2).amax(dim=(0, 2)) <= 0).nonzero()[:, 0]


def _field_of(target: fx.Node, model: Model, layer: str, place: int) -> tuple[int, int]:
    """First and last (exclusive) pixel row that can change row `place` of the target's output."""
    rows: dict[fx.Node, tuple[int, int]] = {target: (place, place)}  # inclusive
    for node in reversed(list(target.graph.nodes)):
        if node not in rows:
            continue
        if node.op == "placeholder":
            low, high = rows[node]
            return low, high + 1
        for source in node.all_input_nodes:
            low, high = _rows_before(node, model.network, rows[node], layer)
            known = rows.get(source, (low, high))
            rows[source] = (min(low, known[0]), max(high, known[1]))
    raise LayerNameError(f"the layer {layer!r} does not depend on the picture")


def _rows_before(node: fx.Node, network: nn.Module, rows: tuple[int, int], layer: str) -> tuple[int, int]:
    """The rows of an operation's input that its output `rows` depend on."""
    operation = network.get_submodule(node.target) if node.op == "call_module" else node.kwargs
    if (node.op == "call_module" and isinstance(operation, _WHOLE)) or (
        node.op != "call_module" and _name(node) in _WHOLE_CALLS
    ):
        raise LayerNameError(
            f"{layer!r} has no receptive field smaller than the picture", do="choose a layer before the global pooling"
        )
    if isinstance(operation, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        settings = (operation.kernel_size, operation.stride, operation.padding, getattr(operation, "dilation", 1))
    elif _name(node) in ("max_pool2d", "avg_pool2d"):
        kernel = _argument(node, 1, "kernel_size")
        stride = _argument(node, 2, "stride") or kernel
        settings = (kernel, stride, _argument(node, 3, "padding") or 0, 1)
    else:
        return rows  # element by element
    kernel, stride, padding, dilation = map(_vertical, settings)
    low, high = rows
    return low * stride - padding, high * stride - padding + dilation * (kernel - 1)


_WHOLE = (nn.Linear, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten)
_WHOLE_CALLS = ("adaptive_avg_pool2d", "adaptive_max_pool2d", "flatten", "mean", "view", "reshape", "linear", "matmul")


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "").lstrip("_")


def _argument(node: fx.Node, place: int, name: str):
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)


def _vertical(setting: int | Iterable[int]) -> int:
    return setting if isinstance(setting, int) else next(iter(setting))
