"""Lecture 05: a network that draws the picture of a code, as a prior for pictures (Nguyen et al., 2016: DGN-AM).

The generator was trained to invert the codes of the embedded network, which is the last layer before the class scores.
"""

from collections import OrderedDict

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lecturelib.assets import data_file
from lecturelib.errors import ModelNameError, nearest
from lecturelib.models import best_device

WIDTHS = {4: 160, 8: 128, 16: 96, 32: 64, 64: 32, 128: 16}  # pixels: channels
SHIPPED = ("mini_vgg_fc6",)


class Generator:
    """A frozen generator: codes (N, D), at least 0, -> images (N, 3, H, W) in [0, 1].

    sigma: the standard deviation of each number of a code over the training photographs, shape (D,).
    mean: their mean, shape (D,).
    layer: the layer of the network whose output the codes are.
    """

    def __init__(self, network: nn.Module, *, sigma: Tensor, mean: Tensor, layer: str):
        self.network = network.eval().requires_grad_(False)
        self.sigma, self.mean, self.layer = sigma, mean, layer
        self.device = sigma.device

    def __call__(self, codes: Tensor) -> Tensor:
        return self.network(codes.to(self.device)).contiguous()

    def random_codes(self, count: int, random: torch.Generator | None = None) -> Tensor:
        """Codes (count, D) that start a search: the mean code plus Gaussian noise of sigma, at least 0."""
        noise = torch.randn(count, len(self.sigma), generator=random).to(self.device)
        return (self.mean + self.sigma * noise).clamp_min(0)


def load_generator(name: str = "mini_vgg_fc6", *, device: str | torch.device | None = None) -> Generator:
    """The generator that comes with the course, for codes of `mini_vgg`."""
    if name not in SHIPPED:
        raise ModelNameError(
            f"there is no generator {name!r}",
            received=repr(name),
            do=f"near it: {', '.join(nearest(str(name), list(SHIPPED)))}",
        )
    with safe_open(data_file(f"{name}.safetensors"), framework="pt") as file:
        tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        facts = file.metadata()
    sigma, mean = tensors.pop("sigma"), tensors.pop("mean")
    with torch.device("meta"):
        network = fc6_generator(len(sigma), pixels=int(facts["pixels"]))
    network.load_state_dict(tensors, assign=True)
    device = torch.device(device or best_device())
    return Generator(network.to(device), sigma=sigma.to(device), mean=mean.to(device), layer=facts["layer"])


def fc6_generator(code: int = 512, *, pixels: int = 64, batch_norm: bool = False) -> nn.Sequential:
    """Codes (N, `code`) -> images (N, 3, pixels, pixels) in [0, 1] (after Dosovitskiy and Brox, 2016).

    A dense layer makes a map of 4 x 4, which is doubled and convolved until it is large enough. Enlarging and then
    convolving leaves no checkerboard behind, as an up-convolution does (Odena et al., 2016). Batch norms are there
    while it is trained; `fold_batch_norm` takes them away.
    """
    layers = OrderedDict()
    side, width = 4, WIDTHS[4]
    layers["fc"] = nn.Linear(code, width * side**2, bias=not batch_norm)
    if batch_norm:
        layers["norm_fc"] = nn.BatchNorm1d(width * side**2)
    layers["relu_fc"] = nn.LeakyReLU(0.2)
    layers["grid"] = nn.Unflatten(1, (width, side, side))
    while side < pixels:
        side *= 2
        layers[f"up{side}"] = nn.Upsample(scale_factor=2, mode="nearest")
        layers[f"conv{side}"] = nn.Conv2d(width, WIDTHS[side], 3, padding=1, bias=not batch_norm)
        width = WIDTHS[side]
        if batch_norm:
            layers[f"norm{side}"] = nn.BatchNorm2d(width)
        layers[f"relu{side}"] = nn.LeakyReLU(0.2)
    layers["rgb"] = nn.Conv2d(width, 3, 3, padding=1)
    layers["image"] = nn.Sigmoid()
    return nn.Sequential(layers)
