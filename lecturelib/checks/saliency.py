"""Checks of lecture 04: the gradient of a score with respect to the pixels."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.models import Model
from lecturelib.oracles import AdditiveNet, LinearNet


def gradient(network: Callable[[Tensor], Tensor], images: Tensor, number: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of `number` of the logits with respect to the images."""
    leaf = images.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(number(network(leaf)), leaf)
    return found


@exercise(4)
def saliency(answer: Answer, case: Case) -> None:
    """`saliency(model, X, y)`: the largest absolute gradient over the colors, shape (N, H, W)."""
    for network in (case.network(), LinearNet(case.generator)):
        model, images, labels = case.model(network), case.rand(4, 3, 8, 8), case.labels(4, 5)
        right = gradient(model, images, partial(_own_score, labels)).abs().amax(dim=1)
        mistakes = partial(_saliency_mistakes, model, images, labels)
        compare(answer(model, images, labels), right, mistakes, what="the map")


def _own_score(labels: Tensor, logits: Tensor) -> Tensor:
    return logits.gather(1, labels[:, None]).sum()


def _saliency_mistakes(model: Model, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    of = partial(gradient, model, images)
    plain = of(partial(_own_score, labels))
    entropy = of(lambda logits: F.cross_entropy(logits, labels, reduction="sum")).abs().amax(dim=1)
    chances = of(lambda logits: _own_score(labels, logits.softmax(dim=1))).abs().amax(dim=1)
    all_classes = of(lambda logits: logits.sum()).abs().amax(dim=1)
    every_label = of(lambda logits: logits[:, labels].sum()).abs().amax(dim=1)
    largest_of_each = plain.abs().amax(dim=(1, 2, 3), keepdim=True)[:, 0]
    largest = of(lambda logits: logits.amax(dim=1).sum()).abs().amax(dim=1)
    count = len(images)
    return {
        "You took the mean over the batch: each gradient is N times too small. Add the scores up with sum().": (
            plain.abs().amax(dim=1) / count
        ),
        "The absolute value is missing: a pixel that lowers the score matters too.": plain.amax(dim=1),
        "Take the absolute value before the maximum over the colors, not after it.": plain.amax(dim=1).abs(),
        "You took the maximum over the images, dimension 0; the colors are dimension 1.": plain.abs().amax(dim=0),
        "You took the maximum over the rows, dimension 2; the colors are dimension 1.": plain.abs().amax(dim=2),
        "The colors are still there, as a dimension of length 1: take the maximum without keepdim.": (
            plain.abs().amax(dim=1, keepdim=True)
        ),
        "You took the mean over the colors; wanted: the maximum.": plain.abs().mean(dim=1),
        "You added up the colors; wanted: the maximum.": plain.abs().sum(dim=1),
        "You took the norm over the colors; wanted: the largest absolute value.": plain.norm(dim=1),
        "This is the gradient of the cross-entropy; wanted: that of the score, before any softmax.": entropy,
        "This is the gradient of the mean cross-entropy; wanted: that of the score.": entropy / count,
        "This is the gradient of the probability; wanted: that of the score before the softmax.": chances,
        "You added up the scores of all classes; wanted: for each image only that of its class y.": all_classes,
        "[:, y] takes for every image the scores of all classes in y; wanted: [range(N), y], or gather.": every_label,
        "You took each image's largest score; wanted: that of the class y.": largest,
        "You divided each map by its largest value; wanted: the gradient as it is.": (
            plain.abs().amax(dim=1) / largest_of_each
        ),
        "You took squares; wanted: absolute values.": plain.square().amax(dim=1),
        "You multiplied by the image: that is gradient times input.": (plain * images).abs().amax(dim=1),
        "This is the gradient itself; its absolute value and the maximum over the colors are missing.": plain,
    }


RULES = {
    "backprop": lambda f, r: (f > 0) * r,
    "deconvnet": lambda f, r: (r > 0) * r,
    "guided": lambda f, r: (f > 0) * (r > 0) * r,
}


@exercise(4)
def relu_backward(answer: Answer, case: Case) -> None:
    """`relu_backward(rule, f, R)`: what goes back through a ReLU with input f when R comes in."""
    slide = [[1, -1, 5], [2, -5, -7], [-3, 2, 4]], [[-2, 3, -1], [6, -3, 1], [2, -1, 3]]
    drawn = case.randn(2, 4, 5), case.randn(2, 4, 5)
    drawn[0][:, 0] = 0  # an input of exactly 0 lets nothing through
    for f, incoming in (tuple(map(torch.tensor, slide)), drawn):
        f, incoming = f.float(), incoming.float()
        for name, rule in RULES.items():
            mistakes = {
                f"For {name!r} you gave what {other!r} gives.": wrong_rule(f, incoming)
                for other, wrong_rule in RULES.items()
                if other != name
            }
            mistakes["A ReLU input of exactly 0 lets nothing through: use > and not >=."] = {
                "backprop": (f >= 0) * incoming,
                "deconvnet": incoming,
                "guided": (f >= 0) * (incoming > 0) * incoming,
            }[name]
            mistakes["You gave the mask; it has to be multiplied by R."] = RULES[name](f, incoming).ne(0).float()
            mistakes["You multiplied by f; wanted: by the mask f > 0."] = RULES[name](f, incoming) * f
            mistakes["You let the negative gradients through instead of the positive ones."] = (
                RULES[name](f, -incoming) * -1
            )
            compare(answer(name, f, incoming), rule(f, incoming), mistakes, what=f"the result for {name!r}")


@exercise(4)
def smoothgrad(answer: Answer, case: Case) -> None:
    """`smoothgrad(model, x, y, n, sigma)`: the mean gradient over n noisy copies, shape (1, 3, H, W)."""
    image, label, n, sigma = case.rand(1, 3, 6, 6), case.integer(0, 3), 30, 0.2
    linear, additive = (case.model(kind(case.generator, side=6, classes=4)) for kind in (LinearNet, AdditiveNet))
    for model, noise in ((additive, 0.0), (linear, sigma)):
        plain = gradient(model, image, lambda logits: logits[0, label])
        mistakes = {
            "You added the n gradients up; wanted: their mean.": 5 * plain,
            "You divided by n twice: the mean of the gradients, of the sum of the scores.": plain / 5,
            "You took absolute values; wanted: the mean of the gradients with their signs.": plain.abs(),
            "You took squares: that is SmoothGrad-Squared.": plain.square(),
            "This is the gradient of the probability; wanted: that of the score before the softmax.": (
                gradient(model, image, lambda logits: logits.softmax(dim=1)[0, label])
            ),
            "You multiplied by the image.": plain * image,
        }
        compare(answer(model, image, label, 5, noise), plain, mistakes, what="the mean gradient")
    plain, curved = (gradient(additive, point, lambda logits: logits[0, label]) for point in (image, image + 1))
    mean = as_tensor(answer(additive, image, label, n, sigma), image.shape)
    noise = (mean - plain) / (curved - plain)  # the gradient of this network is linear in the image
    usual = (curved - plain).abs() > 0.05
    _judge_noise(noise[usual], n, sigma)
    half_open = as_tensor(answer(case.model(_kinked(image)), image, 0, n, sigma))
    require(
        ((half_open > 0.01) & (half_open < 0.99)).any(),
        "You took the mean of the noisy pictures and then one gradient; wanted: the mean of n gradients.",
    )


def _kinked(image: Tensor) -> nn.Sequential:
    """A network with one class, sum relu(x - image): noise opens a ReLU, gradient 1, or closes it, gradient 0."""
    shift, total = nn.Linear(image.numel(), image.numel()), nn.Linear(image.numel(), 1, bias=False)
    with torch.no_grad():
        shift.weight.copy_(torch.eye(image.numel()))
        shift.bias.copy_(-image.flatten())
        total.weight.fill_(1)
    return nn.Sequential(nn.Flatten(), shift, nn.ReLU(), total)


def _judge_noise(noise: Tensor, n: int, sigma: float) -> None:
    """Whether the mean of n draws of noise has mean 0 and standard deviation sigma / sqrt(n)."""
    spread, shift, expected = noise.std().item(), noise.mean().item(), sigma / n**0.5
    require(spread > 0.05 * expected, "Without noise one gets the same: is noise of size sigma added to x?")
    unbiased = abs(shift) < 6 * max(spread, expected) / len(noise) ** 0.5
    require(unbiased, "The noise has a mean other than 0: use torch.randn, not torch.rand.")
    require(spread < 0.7 * sigma, "The noise is the same in all n copies: draw it anew for each.")
    fits = 0.6 < spread / expected < 1.6
    require(fits, f"The noise has {spread / expected:.2g} times the standard deviation that sigma asks for.")


@exercise(4)
def guided_backprop(answer: Answer, case: Case) -> None:
    """`guided_backprop(network, x, y)`: the guided gradient of the score of class y, shape (1, 3, H, W)."""
    network, image, label = case.network(), case.rand(1, 3, 8, 8), case.integer(0, 4)
    found = {name: _with_rule(network, image, label, rule) for name, rule in RULES.items()}
    mistakes = {
        "This is the plain gradient: no ReLU knows of the rule.": found["backprop"],
        "This is what a deconvnet gives: the mask of the forward pass is missing.": found["deconvnet"],
        "You clipped the plain gradient at the image; the rule belongs into every ReLU.": found["backprop"].relu(),
        "You clipped the result at 0; only the gradients inside of the network are.": found["guided"].relu(),
        "You took the absolute value.": found["guided"].abs(),
    }
    compare(answer(network, image, label), found["guided"], mistakes, what="the guided gradient")


def _with_rule(network: nn.Sequential, image: Tensor, label: int, rule: Callable) -> Tensor:
    """The gradient of a chain of layers with another rule in its ReLUs, layer by layer."""
    entered, value = [], image
    for layer in network:
        entered.append(value)
        value = layer(value)
    back = F.one_hot(torch.tensor([label]), value.shape[1]).float()
    for layer, before in reversed(list(zip(network, entered, strict=True))):
        if isinstance(layer, nn.ReLU):
            back = rule(before, back)
        else:
            leaf = before.detach().requires_grad_()
            (back,) = torch.autograd.grad(layer(leaf), leaf, back)
    return back
