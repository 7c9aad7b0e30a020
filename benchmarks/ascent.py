"""Pictures of 16 channels of VGG-16's relu3_3, beside lucent and beside a plain loop.

    python benchmarks/ascent.py --channels 16 --size 128 --steps 40 --rounds 1

Every contender takes Adam steps on Fourier coefficients under random shifts, turns and sizes, from its own random
start, on the same random weights (He et al., 2015). They take turns in one process, on one thread; the median of their
processor seconds is compared. "plain" is a frozen network cut at the layer, all channels as one batch. "lucent" is as
its documentation shows it: one channel after the other, the whole network on pictures enlarged to 224 pixels, and
weights that collect gradients; "lucent, tuned" has one batch, the pictures' own size, and frozen weights. lucent is no
dependency of the course (`pip install torch-lucent decorator` and a kornia of its time); where it does not run, a loop
with the same settings, written by hand, stands in its place and says so.
"""

import argparse
import importlib
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lecturelib.ascent import channel_pictures
from lecturelib.canvas import Fourier
from lecturelib.models import Model, load_model
from lecturelib.scores import channel_score

LAYER, LR = "relu3_3", 0.05
Contender = Callable[[list[int], int, int], Tensor]


class Live(nn.Module):
    """torchvision's network with the normalization in front, as the peers are given it."""

    def __init__(self, model: Model, *, frozen: bool, depth: int | None = None):
        super().__init__()
        whole = models.vgg16()
        whole.load_state_dict(model.network.state_dict())
        for module in whole.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        self.network = (whole if depth is None else whole.features[:depth]).eval().requires_grad_(not frozen)
        self.mean, self.std, self.features = model.mean, model.std, None
        last = whole.features[int(model.reader.path(LAYER).split(".")[-1])]
        last.register_forward_hook(lambda *call: setattr(self, "features", call[-1]))

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def plain(model: Model) -> Contender:
    """The network cut at the layer, frozen, in the faster memory layout, and all channels as one batch."""
    live = Live(model, frozen=True, depth=1 + int(model.reader.path(LAYER).split(".")[-1]))
    live.network.to(memory_format=torch.channels_last)
    return lambda channels, size, steps: _climb(live, channels, size, steps)


def by_hand_as_lucent(model: Model) -> Contender:
    """One channel after the other, the whole network on 224 pixels, weights that collect gradients."""
    live = Live(model, frozen=False)

    def climb(channels: list[int], size: int, steps: int) -> Tensor:
        return torch.cat([_climb(live, [channel], size, steps, enlarged=224) for channel in channels])

    return climb


def tuned_by_hand(model: Model) -> Contender:
    """All channels as one batch of the pictures' own size, and frozen weights, but still the whole network."""
    live = Live(model, frozen=True)
    return lambda channels, size, steps: _climb(live, channels, size, steps)


def lucent(model: Model, *, tuned: bool) -> Contender:
    """lucent itself; raises `ImportError` where it or what it needs is missing."""
    objectives, parameters, render = (
        importlib.import_module(f"lucent.optvis.{name}") for name in ("objectives", "param", "render")
    )
    network = models.vgg16()
    network.load_state_dict(model.network.state_dict())
    network.eval().requires_grad_(not tuned)
    layer = model.reader.path(LAYER).replace(".", "_")

    def draw(objective, count: int, size: int, steps: int, **more) -> Tensor:
        made = render.render_vis(
            network,
            objective,
            lambda: parameters.image(size, batch=count),
            thresholds=(steps,),
            show_image=False,
            progress=False,
            **more,
        )
        return torch.from_numpy(made[-1]).permute(0, 3, 1, 2)

    def climb(channels: list[int], size: int, steps: int) -> Tensor:
        if not tuned:
            return torch.cat([draw(objectives.channel(layer, channel), 1, size, steps) for channel in channels])
        parts = [objectives.channel(layer, channel, batch=place) for place, channel in enumerate(channels)]
        return draw(objectives.Objective.sum(parts), len(channels), size, steps, fixed_image_size=size)

    return climb


def contenders(model: Model) -> dict[str, Contender]:
    """All of them by name; a line tells what is missing."""
    found = {
        "lecturelib": lambda channels, size, steps: channel_pictures(
            model, LAYER, channels, size=size, steps=steps, lr=LR, progress=False
        ),
        "plain loop": plain(model),
    }
    try:
        peers = {"lucent": lucent(model, tuned=False), "lucent, tuned": lucent(model, tuned=True)}
        peers["lucent, tuned"]([0], 64, 1)
        found |= peers
    except (ImportError, AttributeError) as error:  # lucent 0.1.8 calls functions that kornia no longer has
        print(f"lucent does not run here ({error}): a loop by hand with its settings stands in its place")
        found["by hand, as lucent"] = by_hand_as_lucent(model)
        found["the same, tuned"] = tuned_by_hand(model)
    return found


def _climb(live: Live, channels: list[int], size: int, steps: int, *, enlarged: int | None = None) -> Tensor:
    canvas = Fourier(size, count=len(channels))
    optimizer = torch.optim.Adam(canvas.parameters(), lr=LR)
    rows = torch.arange(len(channels))
    for _ in range(steps):
        optimizer.zero_grad()
        shift = torch.randint(-6, 7, (2,)).tolist()
        seen = canvas.image().roll(shift, dims=(2, 3))
        side = enlarged or round(size * (0.9 + 0.2 * float(torch.rand(()))))
        live(F.interpolate(seen, size=(side, side), mode="bilinear"))
        (-live.features[rows, channels].mean(dim=(1, 2)).sum()).backward()
        optimizer.step()
    return canvas.image().detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = load_model("vgg16", trained=False, device="cpu")
    channels = list(range(options.channels))
    score, everyone = channel_score(model, LAYER, channels), contenders(model)
    seconds, reached = {name: [] for name in everyone}, {}
    for _ in range(options.rounds):
        for name, climb in everyone.items():
            begin = time.process_time()
            pictures = climb(channels, options.size, options.steps)
            seconds[name].append(time.process_time() - begin)
            with torch.no_grad():
                reached[name] = score(pictures).mean().item()
    ours = statistics.median(seconds["lecturelib"])
    for name in everyone:
        spent = statistics.median(seconds[name])
        print(f"{name:20s} {spent:7.2f} s  {spent / ours:5.2f} x our time; mean score reached {reached[name]:.3f}")


if __name__ == "__main__":
    main()
