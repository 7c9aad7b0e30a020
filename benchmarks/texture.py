"""Texture by Grams on an untrained VGG-19, beside a plain loop and pystiche where it is installed.

    python benchmarks/texture.py --size 256 --steps 10 --rounds 3

All match the Grams of relu1_1 ... relu5_1 by Adam, from the same noise. The contenders take turns in one process, on
one thread; the median of their processor seconds is compared. "Plain loop" is what the usual tutorials do: frozen
layers of torchvision up to the deepest one, in the default memory format, and `backward()`; "pystiche" is its
documented loop with its own Gram loss. Each line also gives our loss of the picture that was reached; pystiche weighs
the layers otherwise. It is no dependency of the course: `pip install pystiche` into an environment of its own.
"""

import argparse
import importlib
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import models

from lecturelib.canvas import Pixels
from lecturelib.models import Model, load_model
from lecturelib.optimize import minimize
from lecturelib.texture import gram_loss

LAYERS = {
    "relu1_1": 1,
    "relu2_1": 6,
    "relu3_1": 11,
    "relu4_1": 20,
    "relu5_1": 29,
}  # their places in torchvision's VGG-19
LR = 0.02


def plain_vgg(model: Model) -> nn.Module:
    """torchvision's VGG-19 with the weights of our model, frozen."""
    network = models.vgg19()
    network.load_state_dict(model.network.state_dict())
    return network.eval().requires_grad_(False)


def plain_loop(model: Model, sample: Tensor, steps: int) -> Callable[[Tensor], Tensor]:
    """The loop of the tutorials, with the same relative Gram loss as ours."""
    layers = plain_vgg(model).features[: max(LAYERS.values()) + 1]

    def grams(image: Tensor) -> list[Tensor]:
        found, x = [], (image - model.mean) / model.std
        for place, layer in enumerate(layers):
            x = layer(x)
            if place in LAYERS.values():
                flat = x.view(x.shape[0], x.shape[1], -1)
                found.append(flat.bmm(flat.transpose(1, 2)) / flat.shape[2])
        return found

    targets = [target.detach() for target in grams(sample)]

    def run(start: Tensor) -> Tensor:
        image = start.clone().requires_grad_()
        optimizer = torch.optim.Adam([image], lr=LR)
        for _ in range(steps):
            optimizer.zero_grad()
            pairs = zip(grams(image), targets, strict=True)
            loss = sum((found - target).square().sum() / target.square().sum() for found, target in pairs) / len(LAYERS)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                image.clamp_(0, 1)
        return image.detach()

    return run


def pystiche_loop(model: Model, sample: Tensor, steps: int) -> Callable[[Tensor], Tensor]:
    """pystiche 1.0: a multi-layer encoder, one Gram loss for each layer, and its `image_optimization`."""
    for name in ("alexnet", "vgg"):  # torchvision has dropped what pystiche imports
        module = importlib.import_module(f"torchvision.models.{name}")
        vars(module).setdefault("model_urls", dict.fromkeys(models.list_models(include=f"{name}*"), ""))
    from pystiche import enc, loss, optim

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls torchvision in an old way
        encoder = enc.vgg19_multi_layer_encoder(pretrained=False)
    encoder.load_state_dict(plain_vgg(model).state_dict(), strict=False)  # without the classifier
    criterion = loss.MultiLayerEncodingLoss(
        encoder, list(LAYERS), lambda layer, weight: loss.GramLoss(layer, score_weight=weight)
    )
    criterion.set_target_image(sample)

    def run(start: Tensor) -> Tensor:
        image = start.clone()
        return optim.image_optimization(
            image, criterion, optimizer=torch.optim.Adam([image.requires_grad_()], lr=LR), num_steps=steps, quiet=True
        ).detach()

    return run


def our_loop(model: Model, sample: Tensor, steps: int) -> Callable[[Tensor], Tensor]:
    loss = gram_loss(model, sample, list(LAYERS))

    def run(start: Tensor) -> Tensor:
        return minimize(Pixels(start), loss, steps=steps, lr=LR, progress=False)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("vgg19", trained=False, device="cpu")
    generator = torch.Generator().manual_seed(0)
    sample, start = (torch.rand(1, 3, options.size, options.size, generator=generator) for _ in range(2))
    sample = nn.functional.avg_pool2d(sample, 5, stride=1, padding=2)
    makers = {"lecturelib": our_loop, "plain loop": plain_loop}
    if importlib.util.find_spec("pystiche"):
        makers["pystiche"] = pystiche_loop
    else:
        print("pystiche is not installed: skipped")
    loops = {name: make(model, sample, options.steps) for name, make in makers.items()}
    seconds, results = {name: [] for name in loops}, {}
    for _ in range(options.rounds):
        for name, loop in loops.items():
            begin = time.process_time()
            results[name] = loop(start)
            seconds[name].append(time.process_time() - begin)
    ours = statistics.median(seconds["lecturelib"])
    loss = gram_loss(model, sample, list(LAYERS))
    for name, result in results.items():
        ratio = statistics.median(seconds[name]) / ours
        with torch.no_grad():
            reached = loss(result.clamp(0, 1)).item()
        print(f"{name:14s} {ratio:5.2f} x our time; loss {loss(start).item():.4f} -> {reached:.4f}")


if __name__ == "__main__":
    main()
