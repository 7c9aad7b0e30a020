"""Inversion of VGG-16's relu3_3, beside a loop as it is usually written by hand.

    python benchmarks/inversion.py --size 224 --steps 10 --rounds 3

The other loop runs the whole network, a hook keeps the layer's output, and `backward()` fills the gradients of all
weights, because nobody froze them. Both loops take the same Adam steps on the same loss from the same start, in turn in
one process, on one thread; the median of their processor seconds is compared. The weights are random (He et al., 2015),
drawn with a seed. Each line says what error was reached.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn
from torchvision import models

from lecturelib.inversion import inversion_loss, relative_error
from lecturelib.models import Model, load_model
from lecturelib.optimize import minimize

LAYER, TV, LR = "relu3_3", 1e-5, 0.02


class ByHand:
    """The loop on live weights."""

    def __init__(self, model: Model):
        self.network, self.mean, self.std = models.vgg16(), model.mean, model.std
        self.network.load_state_dict(model.network.state_dict())
        self.network.eval()
        for module in self.network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False  # or it would overwrite what the hook kept
        place = model.reader.path(LAYER)
        self.network.get_submodule(place).register_forward_hook(lambda *call: setattr(self, "features", call[-1]))

    def __call__(self, image: Tensor, start: Tensor, steps: int) -> Tensor:
        with torch.no_grad():
            self.network((image - self.mean) / self.std)
            target = self.features
        x = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([x], lr=LR)
        for _ in range(steps):
            optimizer.zero_grad()
            self.network((x - self.mean) / self.std)
            here = x[..., :-1, :-1]
            rough = ((x[..., :-1, 1:] - here) ** 2 + (x[..., 1:, :-1] - here) ** 2).sum()
            ((self.features - target) ** 2).sum().div((target**2).sum()).add(TV * rough).backward()
            optimizer.step()
            with torch.no_grad():
                x.clamp_(0, 1)
        return x.detach()


def ours(model: Model, image: Tensor, start: Tensor, steps: int) -> Tensor:
    return minimize(start, inversion_loss(model, image, LAYER, tv=TV), steps=steps, lr=LR, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("vgg16", trained=False, device="cpu")
    by_hand = ByHand(model)
    image = torch.rand(1, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    start = torch.full_like(image, 0.5)
    loops = {
        "lecturelib": lambda: ours(model, image, start, options.steps),
        "live weights": lambda: by_hand(image, start, options.steps),
    }
    seconds, results = {name: [] for name in loops}, {}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            begin = time.process_time()
            results[name] = loop()
            seconds[name].append(time.process_time() - begin)
    for name, result in results.items():
        ratio = statistics.median(seconds[name]) / statistics.median(seconds["lecturelib"])
        error = relative_error(model, result, image, LAYER).item()
        print(f"{name:14s} {ratio:5.2f} x our time; relative error reached {error:.5f}")


if __name__ == "__main__":
    main()
