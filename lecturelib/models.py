"""`Model`: a frozen classifier that takes images. It owns preprocessing, layer names and class names."""

import copy
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lecturelib import torchvision_networks
from lecturelib.assets import data_file
from lecturelib.errors import ArgumentError, ClassNameError, ImageInputError, LectureError, ModelNameError, nearest
from lecturelib.modes import recording
from lecturelib.networks import EMBEDDED, MEAN, STD
from lecturelib.reading import LayerReader

_TOO_SMALL = "the picture is too small for {}", "use a larger picture or an earlier layer"
_REFUSALS = {  # what PyTorch says: (what it means, what to do)
    "Kernel size can't be greater": _TOO_SMALL,
    "Output size is too small": _TOO_SMALL,
    "stride should not be zero": _TOO_SMALL,
    "shapes cannot be multiplied": (
        "{} does not take pictures of this size",
        "resize them to the size it was made for",
    ),
    "channels, but got": ("{} does not take pictures in color", "load nn.Sequential(v2.Grayscale(), network) instead"),
}


class Model:
    """A frozen classifier: images (N, 3, H, W) in [0, 1] -> logits (N, K), the scores before the softmax.

    Make one with `load_model`. The model follows its network's device; images are brought there. The network is in
    evaluation mode and its parameters need no gradients; gradients flow to the images.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        classes: Sequence[str],
        layers: dict[str, str],
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ):
        self.name = name
        self.network = _frozen(network)
        self.classes = list(classes)
        reference = next(self.network.parameters(), torch.zeros(()))
        self.device, self.dtype = reference.device, reference.dtype
        self.mean, self.std = (
            torch.as_tensor(value, device=self.device, dtype=self.dtype).view(-1, 1, 1) for value in (mean, std)
        )
        self.reader = LayerReader(self.network, layers)

    def __repr__(self) -> str:
        return f"Model({self.name!r}, {len(self.classes)} classes, {len(self.layers)} layers, on {self.device})"

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, shape (N, K)."""
        return self._logits(self._run(self.reader.logits, images))

    def twin(self) -> "Model":
        """The same model with modules of its own, which share the weights: replacing theirs leaves this one alone."""
        twin = copy.copy(self)
        twin.network = _frozen(self.network)
        twin.reader = self.reader.of_twin(twin.network)
        return twin

    def behind(self, layer: str) -> tuple[list[str], Callable[..., Tensor]]:
        """The network behind `layer`: the layers that it reads, `layer` first, and a function from these to logits."""
        layers, rest = self.reader.after(layer)

        def logits(*activations: Tensor) -> Tensor:
            with self._explaining(f"shape {tuple(activations[0].shape)} behind {layer}"):
                return self._logits(rest(*activations))

        return layers, logits

    def _logits(self, logits: object) -> Tensor:
        """`logits`, if they are what a classifier gives."""
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise LectureError(
                f"the network {self.name} does not give one row of class scores per image",
                received=f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__,
                do="wrap it in a module that returns logits of shape (N, K)",
            )
        return logits

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities, shape (N, K); each row sums to 1."""
        return self(images).softmax(dim=1)

    def activation(self, images: Tensor, layer: str) -> Tensor:
        """What `layer` gives for the images, shape (N, C, h, w), or (N, C) for dense layers."""
        return self.activations(images, [layer])[layer]

    def activations(self, images: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Several layers in one pass that ends at the deepest of them: {layer: activation}."""
        return self._run(lambda inputs: self.reader.read(inputs, layers), images)

    @property
    def layers(self) -> list[str]:
        """The names of the layers in order: the papers' names where there are any, otherwise PyTorch's dotted ones."""
        named = list(self.reader.aliases)
        return named or [name for name, module in self.network.named_modules() if name and not list(module.children())]

    @property
    def code_layer(self) -> str:
        """The layer in front of the last dense layer, whose output is the code of an image (fc7 after its ReLU)."""
        return self.reader.code_layer()

    def module(self, layer: str) -> nn.Module:
        """The PyTorch module behind `layer`, for example to look at its weights."""
        return self.network.get_submodule(self.reader.path(layer))

    def class_index(self, name: str | int) -> int:
        """The number of a class given by name (in any case) or by number.

        Raises `ClassNameError` for an unknown name, with the nearest ones; for a name that several classes have,
        with their numbers;
        and for a number outside 0 ... K-1.
        """
        if isinstance(name, str):
            return self._index_of_name(name)
        try:
            index = operator.index(name)
        except TypeError:
            index = None
        if index is None or isinstance(name, bool) or not 0 <= index < len(self.classes):
            raise ClassNameError(
                "a class is a name or a whole number", received=repr(name), do=f"give 0 ... {len(self.classes) - 1}"
            )
        return index

    @recording(False)
    def top(self, images: Tensor, k: int = 5) -> list[list[tuple[str, float]]]:
        """For each image, the k likeliest classes with their probabilities, likeliest first."""
        values, indices = self.probabilities(images).topk(min(k, len(self.classes)))
        return [
            [(self.classes[index], value) for value, index in zip(row, places, strict=True)]
            for row, places in zip(values.tolist(), indices.tolist(), strict=True)
        ]

    def _index_of_name(self, name: str) -> int:
        wanted = name.strip().lower()
        found = [index for index, known in enumerate(self.classes) if known.lower() == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            raise ClassNameError(
                f"{name!r} names {len(found)} classes", received=repr(name), do=f"give one of the numbers {found}"
            )
        containing = [known for known in self.classes if wanted and wanted in known.lower()]
        near = list(dict.fromkeys(containing + nearest(name, self.classes)))[:5]
        raise ClassNameError(
            f"{self.name} knows no class {name!r}", received=repr(name), do=f"near it: {', '.join(near)}"
        )

    def _run(self, function, images: Tensor):
        """`function` of the normalized images, the only normalization in the project."""
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ImageInputError(
                "a model takes images as a float tensor of shape (N, 3, H, W) in [0, 1]",
                received=f"{images.dtype}, shape {tuple(images.shape)}" if isinstance(images, Tensor) else type(images),
                do="use load_image(...)",
            )
        inputs = (images.to(self.device, self.dtype) - self.mean) / self.std
        with self._explaining(f"{images.shape[2]} x {images.shape[3]} pixels"):
            return function(inputs.contiguous(memory_format=torch.channels_last))

    @contextmanager
    def _explaining(self, received: str) -> Iterator[None]:
        """Says what PyTorch means where it refuses a picture."""
        try:
            yield
        except RuntimeError as error:
            refusal = next((refusal for sign, refusal in _REFUSALS.items() if sign in str(error)), None)
            if refusal is None:
                raise
            what, do = refusal
            raise ImageInputError(what.format(self.name), received=received, do=do) from error


def load_model(
    network: str | nn.Module,
    *,
    trained: bool = True,
    seed: int = 0,
    device: str | torch.device | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
) -> Model:
    """A network as a frozen `Model`.

    network: "mini_alexnet" or "mini_vgg", which come with the course; a network of torchvision with its ImageNet
    weights
        ("alexnet", "vgg16", "vgg19", "resnet18", "resnet101", "densenet121", "squeezenet1_1", "googlenet",
        "inception_v3"), fetched once and then
        read from torchvision's cache; or your own `nn.Module`, which is never changed: the model has modules of its own
        that share your weights.
    trained: False gives the same architecture with random weights (He et al., 2015) drawn with `seed`, as a control.
    device: where it runs; by default CUDA, then Apple's MPS, then the CPU.
    classes, mean, std: for your own module: class names, and the normalization that it was trained with.

    Raises `ModelNameError`, `DownloadError` (offline and not in the cache), `WeightsError` (a damaged file).
    """
    if isinstance(network, nn.Module):
        name, module, layers = type(network).__name__, network, {}
        device = device or next(network.parameters(), torch.zeros(())).device
        if not trained:
            module = copy.deepcopy(network, _kept_tensors(network))
        classes = classes if classes is not None else [str(index) for index in range(_outputs(network))]
    elif network in list(EMBEDDED):
        name, (module, classes) = network, _embedded(network)
        layers = {layer: layer for layer, _ in module.named_children()}
    elif network in torchvision_networks.NAMES:
        name, (module, classes) = network, torchvision_networks.build(network, trained=trained)
        layers = torchvision_networks.paper_layers(name, module)
    else:
        known = [*EMBEDDED, *torchvision_networks.NAMES]
        raise ModelNameError(
            f"there is no network {network!r}",
            received=repr(network),
            do=f"near it: {', '.join(nearest(str(network), known))}; {' and '.join(EMBEDDED)} work offline",
        )
    if not trained:
        _randomize(module, seed)
    if not isinstance(network, nn.Module):
        module = module.to(device or best_device(), memory_format=torch.channels_last)
    elif torch.device(device) != next(network.parameters(), torch.zeros(())).device:
        module = copy.deepcopy(module, _kept_tensors(module)).to(device)
    return Model(module, name=name, classes=classes, layers=layers, mean=mean, std=std)


def best_device() -> torch.device:
    """CUDA, then Apple's MPS, then the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else torch.device("cpu")


def _embedded(name: str) -> tuple[nn.Module, list[str]]:
    """The network and its class names from the released file: 16-bit numbers, used as 32-bit ones."""
    with safe_open(data_file(f"{name}.safetensors"), framework="pt") as file:
        classes = json.loads(file.metadata()["classes"])
        with torch.device("meta"):
            network = EMBEDDED[name](len(classes))
        network.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()}, assign=True)  # noqa: SIM118
    return network, classes


def _frozen(network: nn.Module) -> nn.Module:
    """A copy of the modules in evaluation mode that shares the weights: the given network stays as it was."""
    shared = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False) for parameter in network.parameters()
    }
    shared |= {id(buffer): buffer.detach() for buffer in network.buffers()}
    return copy.deepcopy(network, {**_kept_tensors(network), **shared}).eval()


def _kept_tensors(network: nn.Module) -> dict[int, Tensor]:
    """For `deepcopy`, which refuses them: tensors with a history that a network keeps, such as its last activation."""
    kept = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return {id(value): value.detach() for value in kept}


@recording(False)
def _randomize(network: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1:
                inputs = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * (2 / inputs) ** 0.5)
            else:
                parameter.fill_(0 if "bias" in name else 1)
        if hasattr(module, "reset_running_stats"):
            module.reset_running_stats()


def _outputs(network: nn.Module) -> int:
    """The number of classes of a network: the outputs of its last dense layer or convolution."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    if not last:
        raise ArgumentError("this network has no dense layer or convolution", do="give its class names: classes=[...]")
    return last[-1].out_features if isinstance(last[-1], nn.Linear) else last[-1].out_channels
