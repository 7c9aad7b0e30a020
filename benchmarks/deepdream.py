"""DeepDream with an untrained VGG16: relu4_3, 300 pixels, 4 octaves x 10 steps, beside two hand-written loops.

    python benchmarks/deepdream.py --size 300 --steps 10 --rounds 3
    python benchmarks/deepdream.py --memory

*plain*: the usual loop: the whole network, gradients of the weights as well. *rescaled*: the settings that
gordicaleksa/pytorch-deepdream describes: the convolutions to the end, frozen weights, the gradient blurred with three
Gaussians, the whole picture rescaled between the sizes. The contenders take turns in one process, on one thread; the
median of their processor seconds is compared. Each line says how much more the layer sees (the mean square, against
the photograph). `--memory` tells what a large picture needs as a whole and in tiles.
"""

import argparse
import multiprocessing
import resource
import statistics
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lecturelib.deepdream import dream, octave_sizes
from lecturelib.images import load_image, resize
from lecturelib.models import Model, load_model
from lecturelib.regularizers import blur
from lecturelib.scores import layer_score
from lecturelib.tiling import tiled_score

LAYER, OCTAVES, RATIO, LR, SHIFT = "relu4_3", 4, 1.8, 0.02, 32
BEFORE = 23  # modules of torchvision's `features` up to relu4_3


class Loop(nn.Module):
    """A dream written by hand around torchvision's network."""

    def __init__(self, model: Model, *, plain: bool):
        super().__init__()
        self.network, self.mean, self.std, self.plain = models.vgg16(), model.mean, model.std, plain
        self.network.load_state_dict(model.network.state_dict())
        self.eval().requires_grad_(plain)

    def layer(self, images: Tensor) -> Tensor:
        """The layer's activation, after which the pass goes on to its end as in these loops."""
        first, rest = self.network.features[:BEFORE], self.network.features[BEFORE:]
        activation = first((images - self.mean) / self.std)
        last = rest(activation)
        if self.plain:
            self.network.classifier(self.network.avgpool(last).flatten(1))
        return activation

    def forward(self, image: Tensor, steps: int) -> Tensor:
        shifts = torch.Generator().manual_seed(0)
        for size in octave_sizes(*image.shape[2:], OCTAVES, RATIO):
            image = F.interpolate(image.detach(), size=size, mode="bilinear")
            for _ in range(steps):
                down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=shifts).tolist()
                image = image.detach().roll((down, right), (2, 3)).requires_grad_()
                self.layer(image).square().mean().backward()
                image = self._stepped(image.detach(), image.grad).roll((-down, -right), (2, 3))
        return image

    def _stepped(self, image: Tensor, gradient: Tensor) -> Tensor:
        if not self.plain:
            gradient = sum(blur(gradient, sigma) for sigma in (0.5, 1.0, 2.0)) / 3
        return (image + LR * gradient / gradient.std()).clamp(0, 1)


def compare(size: int, steps: int, rounds: int) -> None:
    model = load_model("vgg16", trained=False, device="cpu")
    image, score = load_image("china", size=size), layer_score(model, LAYER)
    options = {"octaves": OCTAVES, "ratio": RATIO, "steps": steps, "jitter": SHIFT}
    rescaled, plain = Loop(model, plain=False), Loop(model, plain=True)
    contenders = {
        "lecturelib": lambda: dream(image, score, lr=LR / 2, **options),
        "lecturelib, plain pixels": lambda: dream(image, score, lr=LR, bands=1, **options),
        "rescaled loop": lambda: rescaled(image, steps),
        "plain loop": lambda: plain(image, steps),
    }
    seconds, results = {name: [] for name in contenders}, {}
    for _ in range(rounds):
        for name, contender in contenders.items():
            begin = time.process_time()
            results[name] = contender()
            seconds[name].append(time.process_time() - begin)
    ours = statistics.median(seconds["lecturelib"])
    with torch.no_grad():
        for name, result in results.items():
            ratio, gain = statistics.median(seconds[name]) / ours, (score(result) / score(image)).item()
            print(f"{name:25s} {ratio:5.2f} x our time; the layer sees {gain:.1f} times as much")


def memory(side: int) -> None:
    """Peak memory of one step above the network, in processes of their own."""
    for tile in (None, 256):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(f"{side} x {side} pixels, tile {tile}: {pool.apply(_peak, (side, tile)):.0f} MB above the network")


def _peak(side: int, tile: int | None) -> float:
    torch.set_num_threads(1)
    model = load_model("mini_vgg", device="cpu")
    score = layer_score(model, "relu4_2")
    image = resize(load_image("china"), side)
    dream(image[..., :64, :64], score, octaves=1, steps=1)  # what torch loads at its first step
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dream(image, tiled_score(score, tile=tile) if tile else score, octaves=1, steps=2)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        memory(1200)
    else:
        compare(options.size, options.steps, options.rounds)


if __name__ == "__main__":
    main()
