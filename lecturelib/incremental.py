"""Occlusion without waste: under a window, only what the window can reach in each layer is computed again.

A value in a convolutional layer depends on a small part of the layer before. Outside of what a window reaches, a layer
stays as it is for the uncovered picture. So it is enough to cut a patch out of that, to paste the changed block into
it, and to run the layer on the patch. Exact, up to the rounding of float32 (Krypton: Nakandala et al., SIGMOD 2019).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from lecturelib.models import Model

Step = Callable[[Tensor], Tensor]

POINTWISE = {nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity}
POINTWISE |= {nn.Dropout, nn.Dropout2d, nn.BatchNorm2d}  # as they are in evaluation mode
POINTWISE |= {F.relu, torch.relu}
WAITING = 32 * 2**20  # bytes of maps that are collected for the layers which look at whole maps, as dense layers do


@dataclass(frozen=True)
class Local:
    """A convolution or a pooling, with the pointwise layers behind it; all pairs are (vertical, horizontal)."""

    whole: Step
    unpadded: Step
    extent: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    border: float
    pointwise: list[Step] = field(default_factory=list)

    def padded(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The inputs with all the border that the outputs saw; a pooling that rounds up sees more than its padding."""
        widths = []
        for axis in (1, 0):
            seen = self.patch(axis, 0, outputs.shape[2 + axis])[1]
            widths += [self.padding[axis], max(0, seen - self.padding[axis] - inputs.shape[2 + axis])]
        return F.pad(inputs, widths, value=self.border) if any(widths) else inputs

    def reach(self, axis: int, starts: Sequence[int], size: int, length: int) -> tuple[list[int], int]:
        """Where changes of `size` inputs at `starts` show among the `length` outputs: starts, and one size for all."""
        before = self.extent[axis] - 1 - self.padding[axis]
        first = [max(0, -((before - start) // self.stride[axis])) for start in starts]
        last = [min(length - 1, (start + size - 1 + self.padding[axis]) // self.stride[axis]) for start in starts]
        size = max(1, *(end - begin + 1 for begin, end in zip(first, last, strict=True)))
        return [min(begin, length - size) for begin in first], size

    def patch(self, axis: int, start: int, size: int) -> tuple[int, int]:
        """Start and size, along an axis of the padded inputs, of what a block of outputs sees."""
        return start * self.stride[axis], (size - 1) * self.stride[axis] + self.extent[axis]


class Blocks(NamedTuple):
    """Parts of one map that have changed, each in another way: values (n, C, h, w), and their places in the map."""

    values: Tensor
    top: int
    lefts: list[int]

    def paste(self, maps: Tensor, top: int, lefts: Sequence[int]) -> None:
        """Write each block into one of `maps`, (n, C, H, W), with corners at (top, left); cut off what sticks out."""
        inside, rows = _overlap(self.top - top, self.values.shape[2], maps.shape[2])
        for block, target, left, corner in zip(self.values, maps, self.lefts, lefts, strict=True):
            across, columns = _overlap(left - corner, block.shape[2], target.shape[2])
            target[:, inside, across] = block[:, rows, columns]


class Chain:
    """The layers from the picture to one layer of a model, each of which reads only the one before.

    `start` are pointwise layers on the picture, `local` looks at parts, and `rest` begins where a layer looks at all.
    """

    def __init__(self, model: Model, steps: Sequence[Step]):
        self.model = model
        self.start, self.local = [], []
        for place, step in enumerate(steps):
            if local := _local(step):
                self.local.append(local)
            elif step in POINTWISE or type(step) in POINTWISE:
                (self.local[-1].pointwise if self.local else self.start).append(step)
            else:
                self.rest = steps[place:]
                break
        else:
            self.rest = []

    @torch.no_grad()
    def activations(
        self, image: Tensor, filler: Tensor, tops: Sequence[int], lefts: Sequence[int], window: int, *, batch: int
    ) -> Iterator[Tensor]:
        """The layer, (n, ...) at a time, for one image that shows `filler` in a window at each (top, left), row by row.

        `batch` windows that lie side by side are computed together.
        """
        maps = [self._ready(image)]
        for local in self.local:
            maps.append(_through(local.pointwise, local.whole(maps[-1])))
        padded = [local.padded(*around) for local, *around in zip(self.local, maps[:-1], maps[1:], strict=True)]
        filler = self._ready(filler)
        waiting = []
        for top in tops:
            for begin in range(0, len(lefts), batch):
                columns = list(lefts[begin : begin + batch])
                covers = [filler[:, :, top : top + window, left : left + window] for left in columns]
                blocks = Blocks(torch.cat(covers), top, columns)
                for local, inputs, outputs in zip(self.local, padded, maps[1:], strict=True):
                    blocks = _recomputed(local, inputs, blocks, outputs.shape[2:])
                waiting.append(maps[-1].repeat(len(columns), 1, 1, 1))
                blocks.paste(waiting[-1], 0, [0] * len(columns))
                if sum(some.nbytes for some in waiting) >= WAITING:
                    yield _through(self.rest, torch.cat(waiting))
                    waiting = []
        if waiting:
            yield _through(self.rest, torch.cat(waiting))

    def _ready(self, image: Tensor) -> Tensor:
        inputs = (image.to(self.model.device, self.model.dtype) - self.model.mean) / self.model.std
        return _through(self.start, inputs.contiguous(memory_format=torch.channels_last))


def chain_to(model: Model, layer: str | None) -> Chain | None:
    """The chain to `layer`, or to the logits; None where layers branch, or where none of them looks at parts only."""
    steps = _steps(model, layer)
    chain = Chain(model, steps) if steps else None
    return chain if chain and chain.local else None


def _recomputed(local: Local, inputs: Tensor, blocks: Blocks, size: tuple[int, int]) -> Blocks:
    """What has changed behind `local`, whose padded `inputs` have changed in `blocks` and whose outputs have `size`."""
    (top,), height = local.reach(0, [blocks.top], blocks.values.shape[2], size[0])
    lefts, width = local.reach(1, blocks.lefts, blocks.values.shape[3], size[1])
    row, rows = local.patch(0, top, height)
    columns = [local.patch(1, left, width) for left in lefts]
    patches = torch.cat([inputs[:, :, row : row + rows, column : column + count] for column, count in columns])
    blocks.paste(patches, row - local.padding[0], [column - local.padding[1] for column, _ in columns])
    return Blocks(_through(local.pointwise, local.unpadded(patches)), top, lefts)


def _through(steps: Sequence[Step], values: Tensor) -> Tensor:
    for step in steps:
        values = step(values)
    return values


def _overlap(offset: int, size: int, length: int) -> tuple[slice, slice]:
    """The part of a block at `offset` that lies in 0 ... length: as a slice of the whole, and of the block."""
    begin = max(0, offset)
    end = max(begin, min(length, offset + size))
    return slice(begin, end), slice(begin - offset, end - offset)


def _local(step: Step) -> Local | None:
    """`step` as a layer that looks at parts, if it is one of those that PyTorch users meet."""
    kind = type(step)
    if kind is nn.Conv2d and step.padding_mode == "zeros" and not isinstance(step.padding, str):
        options = {"bias": step.bias, "stride": step.stride, "dilation": step.dilation, "groups": step.groups}
        return _placed(step, lambda patches: F.conv2d(patches, step.weight, **options), step.dilation, border=0.0)
    if kind is nn.MaxPool2d and not step.return_indices:
        pool = nn.MaxPool2d(step.kernel_size, step.stride, dilation=step.dilation)
        return _placed(step, pool, step.dilation, border=float("-inf"))
    if kind is nn.AvgPool2d and not step.ceil_mode and (step.count_include_pad or not any(_pair(step.padding))):
        pool = nn.AvgPool2d(step.kernel_size, step.stride, divisor_override=step.divisor_override)
        return _placed(step, pool, 1, border=0.0)
    return None


def _placed(step: nn.Module, unpadded: Step, dilation: int | tuple[int, int], *, border: float) -> Local:
    kernel, dilation = _pair(step.kernel_size), _pair(dilation)
    extent = tuple((size - 1) * gap + 1 for size, gap in zip(kernel, dilation, strict=True))
    return Local(step, unpadded, extent, _pair(step.stride), _pair(step.padding), border)


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _steps(model: Model, layer: str | None) -> list[Step] | None:
    """The network's operations in order, up to `layer`; None unless each has exactly one input: the one before."""
    modules, path = dict(model.network.named_modules()), None if layer is None else model.reader.path(layer)
    if model.reader.graph is None or (path is not None and path not in modules):
        return None
    target = modules.get(path)
    previous, *nodes = model.reader.graph.nodes
    steps = []
    for node in nodes:
        if node.all_input_nodes != [previous] or node.args[:1] != (previous,):
            return None
        if node.op == "call_module" and (len(node.args) > 1 or node.kwargs):
            return None
        if node.op == "output":
            return steps if target is None else None
        steps.append(_step(model.network, node))
        if target is not None and steps[-1] is target:
            return steps
        previous = node
    return None


def _step(network: nn.Module, node: fx.Node) -> Step:
    if node.op == "call_module":
        return network.get_submodule(node.target)
    if node.op == "call_method":
        return lambda values: getattr(values, node.target)(*node.args[1:], **node.kwargs)
    if node.target in POINTWISE:
        return node.target
    return lambda values: node.target(values, *node.args[1:], **node.kwargs)
