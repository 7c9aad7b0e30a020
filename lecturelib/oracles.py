"""Small networks whose answers are known in closed form: what a check, or a curious student, can calculate with.

Each takes images (N, 3, side, side) and gives logits (N, K). The weights are drawn with the generator that is given, so
that no two checks see the same network. `load_model(oracle, mean=(0, 0, 0), std=(1, 1, 1))` makes a `Model` of one.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RELUS = ("module", "functional", "in-place", "reused")


class LinearNet(nn.Module):
    """Logits W x: the gradient of class k is the k-th row of W, whatever the image."""

    def __init__(self, generator: torch.Generator, *, side: int = 8, classes: int = 5):
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(3 * side * side, classes, bias=False)
        _draw(self, generator)
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.flatten(images))

    def weight_of(self, label: int) -> Tensor:
        """The weights of one class as a picture, shape (3, side, side)."""
        return self.fc.weight[label].detach().unflatten(0, (3, self.side, self.side))


class AdditiveNet(nn.Module):
    """Logits that are sums over pixels, w x + v x^2: what a pixel contributes does not depend on the others."""

    def __init__(self, generator: torch.Generator, *, side: int = 6, classes: int = 4):
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(3 * side * side, classes, bias=False)
        self.fc_of_square = nn.Linear(3 * side * side, classes, bias=False)
        _draw(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        pixels = self.flatten(images)
        return self.fc(pixels) + self.fc_of_square(pixels * pixels)


class OrthoConv(nn.Module):
    """A layer `conv` that only turns the space of colors and of 2 x 2 blocks: nothing of the image is lost in it."""

    def __init__(self, generator: torch.Generator, *, side: int = 8, classes: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 2, stride=2, bias=False)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(3 * side * side, classes)
        _draw(self, generator)
        rotation, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator))
        with torch.no_grad():
            self.conv.weight.copy_(rotation.unflatten(1, (3, 2, 2)))

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.flatten(self.conv(images)))


class ReluZoo(nn.Module):
    """The same network with its two ReLUs written in one of four ways: `RELUS`."""

    def __init__(self, generator: torch.Generator, *, side: int = 8, classes: int = 4, relu: str = "module"):
        super().__init__()
        self.kind = relu
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * side * side, classes)
        if relu != "functional":
            self.relu1 = nn.ReLU(inplace=relu == "in-place")
            self.relu2 = self.relu1 if relu == "reused" else nn.ReLU(inplace=relu == "in-place")
        _draw(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        if self.kind == "functional":
            return self.fc(self.flatten(F.relu(self.conv2(F.relu(self.conv1(images))))))
        return self.fc(self.flatten(self.relu2(self.conv2(self.relu1(self.conv1(images))))))


class SaturatedNet(nn.Module):
    """A `RandomCNN` with logits a hundred times as large: its probabilities are 0 or 1, their gradients vanish."""

    def __init__(self, generator: torch.Generator, *, side: int = 8, classes: int = 5):
        super().__init__()
        self.network = RandomCNN(generator, side=side, classes=classes)

    def forward(self, images: Tensor) -> Tensor:
        return 100 * self.network(images)


class RandomCNN(nn.Sequential):
    """conv1 relu1 pool1 conv2 relu2 flatten fc with random weights; `wide` and `strided` are other architectures."""

    def __init__(
        self, generator: torch.Generator, *, side: int = 8, classes: int = 5, wide: bool = False, strided: bool = False
    ):
        first, second = (10, 14) if wide else (6, 8)
        super().__init__()
        self.conv1 = nn.Conv2d(3, first, 3, padding=1, stride=2 if strided else 1)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2) if wide else nn.Identity() if strided else nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=not wide)
        self.relu2 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(second * (side // 2) ** 2, classes)
        _draw(self, generator)


@torch.no_grad()
def _draw(network: nn.Module, generator: torch.Generator) -> None:
    """Weights that keep the size of activations (He et al., 2015), small biases."""
    for parameter in network.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
