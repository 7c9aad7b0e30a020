"""Lecture 11: fast style transfer. A network that paints at once, in one style or in a blend of several."""

import contextlib
import copy
import io
import json
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lecturelib.assets import data_file
from lecturelib.errors import ArgumentError, WeightsError
from lecturelib.images import require_image
from lecturelib.models import best_device

SMALLEST = 16  # pixels: below, the reflected border is wider than the picture in the middle of the network
Blend = int | str | Sequence[float] | Tensor


class ConditionalInstanceNorm(nn.Module):
    """Instance norm with one scale and one shift per channel *and style* (Dumoulin et al., 2017).

    z = gamma (x - mean) / std + beta, mean and std over the positions of each channel of each picture. `weight` and
    `bias` have the shape (S, C); a picture's gamma and beta are the mixture of the S rows that its blend says.
    """

    def __init__(self, channels: int, styles: int = 1):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(styles, channels))
        self.bias = nn.Parameter(torch.zeros(styles, channels))

    def forward(self, x: Tensor, blend: Tensor) -> Tensor:
        """x (N, C, H, W), blend (N, S) or (1, S) -> (N, C, H, W)."""
        # No matrix product, which autocast would round to 16 bits; nor are statistics taken of 16-bit numbers.
        gamma, beta = ((blend[..., None] * table).sum(dim=1) for table in (self.weight, self.bias))
        x = x.to(self.weight.dtype)
        # One group per channel is instance norm, by a kernel that is several times as fast as F.instance_norm.
        if len(blend) == 1:
            return F.group_norm(x, x.shape[1], gamma[0], beta[0])
        return torch.addcmul(beta[..., None, None], F.group_norm(x, x.shape[1]), gamma[..., None, None])


class _Conv(nn.Module):
    """Reflected border, convolution; a flat picture stays flat, which a border of zeros would spoil."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.border = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, [self.border] * 4, mode="reflect"))


class _Upsampled(nn.Module):
    """Each pixel becomes 2 x 2 equal ones, then a 3 x 3 convolution with reflected border.

    Computed on the small map: a 3 x 3 filter over doubled pixels sees at most 2 x 2 different ones, so each of the four
    output pixels of an input pixel is a 2 x 2 convolution. The same numbers from 2.25 times fewer operations.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = F.pad(x, [1] * 4, mode="replicate")
        phases = [
            F.conv2d(x[:, :, down : down + height + 1, right : right + width + 1], filters, self.conv.bias)
            for down, rows in enumerate(_folded(self.conv.weight, dim=2))
            for right, filters in enumerate(_folded(rows, dim=3))
        ]
        return F.pixel_shuffle(torch.stack(phases, dim=2).flatten(1, 2), 2)


def _folded(weight: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """What a filter of 3 does to doubled pixels, as two filters of 2: for the first of each pair, and the second."""
    a, b, c = weight.unbind(dim)
    return torch.stack([a, b + c], dim), torch.stack([a + b, c], dim)


class _Layer(nn.Module):
    """A convolution and its norm."""

    def __init__(self, conv: nn.Module, channels: int, styles: int):
        super().__init__()
        self.conv, self.norm = conv, ConditionalInstanceNorm(channels, styles)

    def forward(self, x: Tensor, blend: Tensor) -> Tensor:
        return self.norm(self.conv(x), blend)


class _Residual(nn.Module):
    """x + two layers of it."""

    def __init__(self, channels: int, styles: int):
        super().__init__()
        self.first = _Layer(_Conv(channels, channels, 3), channels, styles)
        self.second = _Layer(_Conv(channels, channels, 3), channels, styles)

    def forward(self, x: Tensor, blend: Tensor) -> Tensor:
        return x + self.second(self.first(x, blend).relu(), blend)


class StyleNetwork(nn.Module):
    """Paints images (N, 3, H, W) in [0, 1] in one forward pass (Johnson et al., 2016), in any of `styles` styles.

    The architecture of the paper with nearest-neighbor upsampling: 9 x 9, two strided layers, residual blocks, two
    upsampled layers, 9 x 9; `width` channels at full size, 2 and 4 times as many further in. Every norm is conditional
    on the style. Width 32 with one style is the reference size, 1,679,235 parameters. The output has the input's size.
    """

    def __init__(self, *, styles: int = 1, width: int = 32, blocks: int = 5, names: Sequence[str] | None = None):
        super().__init__()
        self.width = width
        self.names = list(names) if names is not None else [str(number) for number in range(styles)]
        if len(self.names) != styles:
            raise ArgumentError("each style has one name", received=f"{len(self.names)} names for {styles} styles")
        middle = 4 * width
        self.down = nn.ModuleList(
            [
                _Layer(_Conv(3, width, 9), width, styles),
                _Layer(_Conv(width, 2 * width, 3, stride=2), 2 * width, styles),
                _Layer(_Conv(2 * width, middle, 3, stride=2), middle, styles),
            ]
        )
        self.blocks = nn.ModuleList([_Residual(middle, styles) for _ in range(blocks)])
        self.up = nn.ModuleList(
            [
                _Layer(_Upsampled(middle, 2 * width), 2 * width, styles),
                _Layer(_Upsampled(2 * width, width), width, styles),
            ]
        )
        self.paint = _Conv(width, 3, 9)

    def forward(self, images: Tensor, style: Blend = 0) -> Tensor:
        """style: a style's number or name; its weights (S,), which blend styles; or one row for each image (N, S)."""
        require_image(images, smallest=SMALLEST)
        return self.painted(images, self.blend(style, len(images)))

    def painted(self, images: Tensor, blend: Tensor) -> Tensor:
        """`forward` without its checks, for blends (1, S) or (N, S): what is trained and exported."""
        height, width = images.shape[2:]
        x = (2 * images - 1).contiguous(memory_format=torch.channels_last)
        for layer in self.down:
            x = layer(x, blend).relu()
        for block in self.blocks:
            x = block(x, blend)
        for layer in self.up:
            x = layer(x, blend).relu()
        return self.paint(x).sigmoid()[:, :, :height, :width]

    def blend(self, style: Blend, count: int = 1) -> Tensor:
        """`style` as a table of weights, shape (1, S) or (count, S)."""
        reference = self.down[0].norm.weight
        if isinstance(style, str):
            if style not in self.names:
                raise ArgumentError("no such style", received=repr(style), do=f"choose one of {', '.join(self.names)}")
            style = self.names.index(style)
        if isinstance(style, int) and not isinstance(style, bool):
            if not 0 <= style < len(self.names):
                raise ArgumentError(
                    "no such style", received=style, do=f"give a number from 0 to {len(self.names) - 1}"
                )
            return F.one_hot(torch.tensor([style], device=reference.device), len(self.names)).to(reference)
        try:
            weights = torch.as_tensor(style).to(reference)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArgumentError("a style is a number, a name or a list of weights", received=repr(style)) from error
        rows = weights[None] if weights.ndim == 1 else weights
        if rows.ndim != 2 or rows.shape[1] != len(self.names) or len(rows) not in (1, count):
            raise ArgumentError(
                f"this network has {len(self.names)} styles, so a blend has {len(self.names)} weights",
                received=f"shape {tuple(weights.shape)}",
                do=f"for example style={[1.0] + [0.0] * (len(self.names) - 1)}",
            )
        if not bool(rows.isfinite().all()):
            raise ArgumentError("the weights of a blend are finite numbers", received=repr(style))
        return rows

    def style_parameters(self) -> list[nn.Parameter]:
        """The scales and shifts of all norms, each (S, C): all that tells the styles apart."""
        norms = [module for module in self.modules() if isinstance(module, ConditionalInstanceNorm)]
        return [parameter for norm in norms for parameter in (norm.weight, norm.bias)]


def with_style(network: StyleNetwork, name: str) -> StyleNetwork:
    """A copy of the network with one more style, which starts as the mean of the others; weights are not shared."""
    if name in network.names:
        raise ArgumentError("the network has a style of this name", received=repr(name), do="choose another name")
    names = [*network.names, name]
    larger = StyleNetwork(styles=len(names), width=network.width, blocks=len(network.blocks), names=names)
    state = {
        key: torch.cat([value, value.mean(dim=0, keepdim=True)])
        if value.shape != larger.get_parameter(key).shape
        else value
        for key, value in network.state_dict().items()
    }
    larger.load_state_dict(state)
    return larger.to(network.paint.conv.weight.device)


def load_style_net(name: str | Path, *, device: str | torch.device | None = None) -> StyleNetwork:
    """A trained style network: "four_styles", which comes with the course, or the path of one of yours.

    Raises `WeightsError` for a file that is damaged or of another kind.
    """
    path = data_file(f"{name}.safetensors") if name == "four_styles" else Path(name).expanduser()
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["style_network"])
            network = StyleNetwork(**facts, styles=len(facts["names"]))
            network.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118
    except Exception as error:  # safetensors, json and torch raise many kinds for a damaged file
        raise WeightsError(
            "this is not a style network of the course",
            received=f"{name} ({type(error).__name__})",
            do='load_style_net("four_styles"), or give a file that save_style_net wrote',
        ) from error
    network = network.requires_grad_(requires_grad=False).eval()
    return network.to(device or best_device(), memory_format=torch.channels_last)


def save_style_net(network: StyleNetwork, path: str | Path) -> Path:
    """Write the network in 16 bits, as `load_style_net` reads it."""
    path = Path(path)
    facts = {"names": network.names, "width": network.width, "blocks": len(network.blocks)}
    weights = {key: value.detach().cpu().half().contiguous() for key, value in network.state_dict().items()}
    save_file(weights, path, metadata={"style_network": json.dumps(facts)})
    return path


def export_onnx(network: StyleNetwork, path: str | Path, *, size: int | tuple[int, int] = 256) -> Path:
    """Write the network for other programs: `images` (1, 3, H, W), `blend` (1, S) -> `painted`.

    The picture size is fixed, as borders are reflected. The names of the styles are in the metadata under "styles".
    Needs the packages of the extra `export`; raises `ArgumentError` where they are missing.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise ArgumentError(
            "ONNX is not installed", received=error.name, do="pip install onnx onnxscript onnxruntime"
        ) from None
    height, width = (size, size) if isinstance(size, int) else size
    on_cpu = copy.deepcopy(network).cpu().eval()
    inputs = torch.full((1, 3, height, width), 0.5), on_cpu.blend(0)
    require_image(inputs[0], smallest=SMALLEST)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter's own, about versions of its operators
        program = torch.onnx.export(
            _Painter(on_cpu), inputs, input_names=["images", "blend"], output_names=["painted"], dynamo=True
        )
    model = program.model_proto
    model.metadata_props.append(onnx.StringStringEntryProto(key="styles", value=json.dumps(network.names)))
    onnx.save(model, path)
    return Path(path)


class _Painter(nn.Module):
    """`StyleNetwork.painted` as a forward pass, which is what the exporter takes."""

    def __init__(self, network: StyleNetwork):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, blend: Tensor) -> Tensor:
        return self.network.painted(images, blend)


def speedup(
    slow: Callable[[], object],
    fast: Callable[[], object],
    *,
    repeats: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """How many times as fast `fast` is as `slow`: the ratio of their median times.

    Each is called once to warm up; then they take turns, `repeats` times, so that both see the same busy computer.
    """
    if type(repeats) is not int or repeats < 1:
        raise ArgumentError("repeats is a whole number from 1", received=repr(repeats), do="for example repeats=5")

    def seconds(function: Callable[[], object]) -> float:
        _synchronize()
        begin = clock()
        function()
        _synchronize()
        return clock() - begin

    slow(), fast()
    turns = [(seconds(slow), seconds(fast)) for _ in range(repeats)]
    slow_times, fast_times = zip(*turns, strict=True)
    return statistics.median(slow_times) / statistics.median(fast_times)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
