"""The painter of lecture 11 beside the same architecture written with library layers, as pytorch/examples does.

    python benchmarks/faststyle.py --size 512 --rounds 5
    python benchmarks/faststyle.py --quick

The contenders share their weights, take turns in one process and are compared by the median of their processor seconds,
for one forward pass and for one training step (forward, loss of a VGG-16 with random weights, backward, Adam). Each
line says by which share of their largest value their pictures, or their losses, differ. The last line is the shipped
network's time on all cores, at 256 pixels.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lecturelib import load_image, load_model
from lecturelib.faststyle import StyleNetwork, load_style_net
from lecturelib.training.style_loss import Recipe, StyleLoss


class Layer(nn.Module):
    """Reflected border, convolution, nn.InstanceNorm2d; doubled pixels in front where wanted."""

    def __init__(self, ours: nn.Module, *, double: bool = False):
        super().__init__()
        conv = ours.conv.conv
        self.double, self.pad = double, nn.ReflectionPad2d(conv.kernel_size[0] // 2)
        self.conv = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride)
        self.norm = nn.InstanceNorm2d(conv.out_channels, affine=True)
        self.conv.load_state_dict(conv.state_dict())
        self.norm.load_state_dict({"weight": ours.norm.weight[0], "bias": ours.norm.bias[0]})

    def forward(self, x: Tensor) -> Tensor:
        if self.double:
            x = F.interpolate(x, mode="nearest", scale_factor=2)
        return self.norm(self.conv(self.pad(x)))


class Peer(nn.Module):
    """The architecture of pytorch/examples' fast_neural_style, in its order of layers."""

    def __init__(self, network: StyleNetwork):
        super().__init__()
        self.down = nn.ModuleList(Layer(layer) for layer in network.down)
        self.blocks = nn.ModuleList(
            nn.ModuleList([Layer(block.first), Layer(block.second)]) for block in network.blocks
        )
        self.up = nn.ModuleList(Layer(layer, double=True) for layer in network.up)
        self.pad, self.paint = nn.ReflectionPad2d(4), nn.Conv2d(network.width, 3, 9)
        self.paint.load_state_dict(network.paint.conv.state_dict())

    def forward(self, images: Tensor) -> Tensor:
        x = 2 * images - 1
        for layer in self.down:
            x = layer(x).relu()
        for first, second in self.blocks:
            x = x + second(first(x).relu())
        for layer in self.up:
            x = layer(x).relu()
        return self.paint(self.pad(x)).sigmoid()


class PlainLoss(StyleLoss):
    """The same numbers as pytorch/examples computes them: photographs and paintings go through the same slices of a
    frozen VGG-16, all of them, and the content layer is one of what they give."""

    def _features(self, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
        wanted, found = {self.model.module(layer): layer for layer in self.layers}, {}
        x = (images - self.model.mean) / self.model.std
        for module in self.model.network.features:
            x = F.relu_(x) if isinstance(module, nn.ReLU) else module(x)
            if module in wanted:
                found[wanted[module]] = x
            if len(found) == len(wanted):
                break
        return found


def training_step(network: nn.Module, kind: type[StyleLoss], images: Tensor) -> Callable[[], Tensor]:
    """One step of a training with the layers of pytorch/examples, as a function; VGG-16 has random weights."""
    recipe = Recipe(
        ("mosaic",),
        style_pixels=128,
        network="vgg16",
        content_layer="relu2_2",
        style_layers=("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
    )
    model = load_model("vgg16", trained=False, device="cpu")
    loss = kind(model, recipe, [load_image("mosaic", size=128)])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-9)  # as good as standing still: both stay comparable

    def step() -> Tensor:
        losses = loss(network(images), images, torch.zeros(len(images), dtype=torch.long))
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        return losses.detach()

    return step


def compare(what: str, contenders: dict[str, Callable[[], Tensor]], rounds: int) -> None:
    results = {name: call() for name, call in contenders.items()}
    seconds = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, call in contenders.items():
            begin = time.process_time()
            call()
            seconds[name].append(time.process_time() - begin)
    ours, peer = (statistics.median(seconds[name]) for name in ("ours", "peer"))
    gap = ((results["ours"] - results["peer"]).abs().max() / results["peer"].abs().max()).item()
    print(
        f"{what:34s} ours {ours:7.3f} s   library layers {peer:7.3f} s   ratio {peer / ours:.2f}   difference {gap:.1e}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="256 pixels, 3 rounds")
    chosen = parser.parse_args()
    size, rounds = (256, 3) if chosen.quick else (chosen.size, chosen.rounds)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = StyleNetwork().to(memory_format=torch.channels_last)
    peer = Peer(network)

    image = load_image("china", size=size)
    with torch.inference_mode():
        painters = {"ours": lambda: network(image), "peer": lambda: peer(image)}
        compare(f"forward, {size} pixels", painters, rounds)
    batch = torch.cat([load_image(name, size=size // 2) for name in ("cat", "china", "coffee", "rocket")])
    steps = {"ours": training_step(network, StyleLoss, batch), "peer": training_step(peer, PlainLoss, batch)}
    compare(f"training step, 4 of {size // 2} pixels", steps, rounds)

    torch.set_num_threads(threads)
    shipped, image = load_style_net("four_styles", device="cpu"), load_image("cat", size=256)
    with torch.inference_mode():
        shipped(image)
        seconds = []
        for _ in range(4 * rounds):
            begin = time.perf_counter()
            shipped(image)
            seconds.append(time.perf_counter() - begin)
    print(f"the shipped network, 256 pixels, {threads} threads: {1e3 * statistics.median(seconds):.0f} ms")


if __name__ == "__main__":
    main()
