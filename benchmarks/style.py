"""One step of style transfer with VGG-19, beside pystiche where it is installed, a plain loop, and the floor.

    python benchmarks/style.py --size 256 --rounds 5

A step is one evaluation of content + style and its gradient with respect to the picture, the paper's layers, random
weights. The contenders take turns in one process, on one thread; the median of their processor seconds is compared.

floor: the network cut behind its deepest layer, forward and back to the picture, and no loss.
plain loop: what one writes first: hooks on the whole network, `backward()` with the parameters' gradients.

Each line also says how far the gradient is from that of the formula, written out. The peer is no dependency of the
course: `pip install --no-deps pystiche` into an environment of its own.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision import models

from lecturelib.models import Model, load_model
from lecturelib.style import RECIPES, loss_of, transfer_terms

BETA = 60.0
CONTENT, STYLE = RECIPES["vgg19"].content, list(RECIPES["vgg19"].style)
Gradient = Callable[[Tensor], Tensor]


def plain(model: Model) -> nn.Module:
    """torchvision's network with the same weights, in evaluation mode, as one gets it: parameters want gradients."""
    network = models.vgg19(weights=None)
    network.load_state_dict(model.network.state_dict())
    return network.eval()


def relative(values: Tensor, target: Tensor) -> Tensor:
    return (values - target).square().sum() / target.square().sum()


def gram(features: Tensor) -> Tensor:
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def ours(model: Model, content: Tensor, style: Tensor) -> Gradient:
    loss = loss_of(model, transfer_terms(model, content=content, style=style, beta=BETA, tv=0))

    def gradient(image: Tensor) -> Tensor:
        return torch.autograd.grad(loss(image.requires_grad_()).sum(), image)[0]

    return gradient


def floor(model: Model) -> Gradient:
    """Forward and back through the layers that are needed, and nothing else."""
    last = list(model.network.features).index(model.module(STYLE[-1]))
    network = model.network.features[: last + 1]

    def gradient(image: Tensor) -> Tensor:
        inputs = ((image.requires_grad_() - model.mean) / model.std).contiguous(memory_format=torch.channels_last)
        features = network(inputs)
        return torch.autograd.grad(features, image, torch.ones_like(features))[0]

    return gradient


def plain_loop(model: Model, content: Tensor, style: Tensor) -> Gradient:
    network, found = plain(model), {}
    for layer in (*CONTENT, *STYLE):
        module = network.get_submodule(model.reader.path(layer))
        module.register_forward_hook(lambda _, __, output, layer=layer: found.__setitem__(layer, output.clone()))

    def read(image: Tensor) -> dict[str, Tensor]:
        network((image - model.mean) / model.std)
        return dict(found)

    with torch.no_grad():
        wanted = {layer: features for layer, features in read(content).items() if layer in CONTENT}
        grams = {layer: gram(features) for layer, features in read(style).items() if layer in STYLE}

    def gradient(image: Tensor) -> Tensor:
        image.requires_grad_().grad = None
        features = read(image)
        loss = sum(relative(features[layer], target) for layer, target in wanted.items())
        styles = [relative(gram(features[layer]), target) for layer, target in grams.items()]
        (loss + BETA * sum(styles) / len(styles)).backward()
        return image.grad

    return gradient


def pystiche_loop(model: Model, content: Tensor, style: Tensor) -> Gradient:
    """pystiche's own losses and encoder, weighted so that the loss is the same."""
    from pystiche import enc, loss

    encoder = enc.vgg19_multi_layer_encoder(pretrained=False)
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d):
            module.load_state_dict(model.module(name).state_dict())
    with torch.no_grad():
        found = model.activations(content, CONTENT)[CONTENT[0]]
        grams = [gram(features) for features in model.activations(style, STYLE).values()]
    contents = loss.FeatureReconstructionLoss(
        encoder.extract_encoder(CONTENT[0]), score_weight=found.numel() / found.square().sum().item()
    )
    weights = [target.numel() / target.square().sum().item() / len(STYLE) for target in grams]
    styles = loss.MultiLayerEncodingLoss(
        encoder, STYLE, lambda layer, weight: loss.GramLoss(layer, score_weight=weight), layer_weights=weights,
        score_weight=BETA,
    )  # fmt: skip
    criterion = loss.PerceptualLoss(contents, styles)
    criterion.set_content_image(content)
    criterion.set_style_image(style)

    def gradient(image: Tensor) -> Tensor:
        image.requires_grad_().grad = None
        criterion(image).backward()
        return image.grad

    return gradient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("vgg19", trained=False, device="cpu")
    generator = torch.Generator().manual_seed(0)
    content, style, image = torch.rand(3, 1, 3, options.size, options.size, generator=generator)
    steps = {
        "lecturelib": ours(model, content, style),
        "floor": floor(model),
        "plain loop": plain_loop(model, content, style),
    }
    try:
        steps["pystiche"] = pystiche_loop(model, content, style)
    except ImportError as error:
        print(f"pystiche is not at hand: skipped ({error.msg})")
    seconds, gradients = {name: [] for name in steps}, {}
    for _ in range(options.rounds):
        for name, step in steps.items():
            leaf = image.clone()
            begin = time.process_time()
            gradients[name] = step(leaf)
            seconds[name].append(time.process_time() - begin)
    time_of_ours = statistics.median(seconds["lecturelib"])
    formula = gradients["plain loop"]
    for name, gradient in gradients.items():
        ratio = statistics.median(seconds[name]) / time_of_ours
        error = "no loss" if name == "floor" else f"{((gradient - formula).norm() / formula.norm()).item():.1e}"
        print(f"{name:12s} {ratio:5.2f} x our time; gradient off by {error}")


if __name__ == "__main__":
    main()
