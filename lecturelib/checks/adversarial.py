"""Checks of lecture 06: small changes that turn a network's answer."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.checks.saliency import gradient
from lecturelib.models import Model
from lecturelib.oracles import AdditiveNet, LinearNet

_STEPS = 40


@exercise(6)
def fool(answer: Answer, case: Case) -> None:
    """`fool(model, x, target, lr, steps)`: steps of length lr up the target's score until the model answers with it."""
    for network in (AdditiveNet(case.generator, side=8, classes=5), case.network()):
        model, image = case.model(network), case.rand(1, 3, 8, 8)
        order = model(image)[0].argsort(descending=True)
        target, winner = int(order[2]), int(order[0])
        _judge_first_step(answer, model, image, target)
        same = as_tensor(answer(model, image, winner, 0.3, 5), image.shape)
        require(torch.equal(same, image), "The model answers with the target already: then the picture stays as it is.")
        walk = partial(_fooled, model, image, target, 0.2)
        mistakes = {
            "The gradients of earlier steps add up in .grad: empty it, x.grad = None, before every step.": partial(
                walk, add_up=True
            ),
            "You clipped to [0, 1]; here the picture is not clipped.": partial(walk, clip=True),
            "You clipped to [0, 1] at the end; here the picture is not clipped.": lambda walk=walk: walk().clamp(0, 1),
            "You went on after the model was fooled: stop at the first success.": partial(walk, extra=1),
            "You went on after the model was fooled, to the last step: stop at the first success.": partial(
                walk, extra=_STEPS
            ),
            "Every step begins at x again: go on from the moved picture.": lambda walk=walk: walk(steps=1),
        }
        compare(answer(model, image, target, 0.2, _STEPS), walk(), mistakes, what="the picture")


def _judge_first_step(answer: Answer, model: Model, image: Tensor, target: int) -> None:
    slope = gradient(model, image, lambda logits: logits[0, target])
    entropy = gradient(model, image, lambda logits: F.cross_entropy(logits, torch.tensor([target])))
    chance = gradient(model, image, lambda logits: logits.softmax(dim=1)[0, target])
    away = gradient(model, image, lambda logits: logits[0].max())
    unit = slope / slope.norm()
    lr = 0.02
    mistakes = {
        "You divided by the squared norm: the step has to have the length lr.": lr * slope / slope.square().sum(),
        "The gradient is not normalized: the step has to have the length lr.": lr * slope,
        "You took the sign of the gradient (that is FGSM); wanted: a step of length lr along it.": lr * slope.sign(),
        "The step goes down: the target's score has to grow.": -lr * unit,
        "You climbed the cross-entropy of the target: that leads away from it.": lr * entropy / entropy.norm(),
        "You descended the cross-entropy; wanted: climb the score before the softmax.": -lr * entropy / entropy.norm(),
        "You climbed the probability; wanted: the score before the softmax.": lr * chance / chance.norm(),
        "You divided by the largest entry; wanted: by the L2 norm.": lr * slope / slope.abs().max(),
        "You divided by the L1 norm; wanted: by the L2 norm.": lr * slope / slope.abs().sum(),
        "You went down the score of the model's answer; wanted: up the target's score.": -lr * away / away.norm(),
        "You took more than `steps` steps.": lambda: _fooled(model, image, target, lr, steps=1000) - image,
        "You clipped to [0, 1]; here the picture is not clipped.": (image + lr * unit).clamp(0, 1) - image,
        "You did not move.": torch.zeros_like(slope),
    }
    step = as_tensor(answer(model, image, target, lr, 1), image.shape) - image
    compare(step, lr * unit, mistakes, what="the first step")


def _fooled(
    model: Model,
    image: Tensor,
    target: int,
    lr: float,
    *,
    steps: int = _STEPS,
    add_up: bool = False,
    clip: bool = False,
    extra: int = 0,
) -> Tensor:
    """The picture after at most `steps` steps; the options are the ways to get it wrong."""
    total = torch.zeros_like(image)
    for _ in range(steps):
        if model(image).argmax().item() == target:
            extra -= 1
            if extra < 0:
                break
        slope = gradient(model, image, lambda logits: logits[0, target])
        total = total + slope if add_up else slope
        image = image + lr * total / total.norm()
        image = image.clamp(0, 1) if clip else image
    return image


@exercise(6)
def fgsm(answer: Answer, case: Case) -> None:
    """`fgsm(model, x, y, eps)`: one step of size eps away from the class y, in [0, 1]."""
    for network in (case.network(), LinearNet(case.generator)):
        model, images, labels, epsilon = case.model(network), case.rand(2, 3, 8, 8), case.labels(2, 5), 0.06
        images[:, :, 0] = case.labels(8, 2).float()  # black and white pixels: there the step meets the border
        slope = gradient(model, images, lambda logits, y=labels: F.cross_entropy(logits, y, reduction="sum"))
        right = (images + epsilon * slope.sign()).clamp(0, 1)
        twice = gradient(model, images, lambda logits, y=labels: F.cross_entropy(logits.softmax(dim=1), y))
        score = gradient(model, images, lambda logits, y=labels: logits.gather(1, y[:, None]).sum())
        own = gradient(model, images, lambda logits: F.cross_entropy(logits, logits.argmax(dim=1)))
        unit = slope / slope.flatten(1).norm(dim=1)[:, None, None, None]
        mistakes = {
            "The picture leaves [0, 1]: clip it.": images + epsilon * slope.sign(),
            "The step goes the wrong way: climb the cross-entropy of y.": (images - epsilon * slope.sign()).clamp(0, 1),
            "The sign is missing: you added the gradient itself.": (images + epsilon * slope).clamp(0, 1),
            "F.cross_entropy takes the logits: no softmax before it.": (images + epsilon * twice.sign()).clamp(0, 1),
            "You went down the score of y; wanted: up the cross-entropy.": (images - epsilon * score.sign()).clamp(
                0, 1
            ),
            "You climbed the score of y: that makes the model surer of it.": (images + epsilon * score.sign()).clamp(
                0, 1
            ),
            "You took the model's own answers; wanted: the classes y.": (images + epsilon * own.sign()).clamp(0, 1),
            "You took the gradient of the mean over the batch, without its sign.": (images + epsilon * slope / 2).clamp(
                0, 1
            ),
            "You took a step of length eps (L2); wanted: eps in every pixel.": (images + epsilon * unit).clamp(0, 1),
            "This is the change; wanted: the picture.": epsilon * slope.sign(),
            "You clipped to [-1, 1]; pictures lie in [0, 1].": (images + epsilon * slope.sign()).clamp(-1, 1),
            "You clipped the change to [0, 1]: it may be negative.": images + (epsilon * slope.sign()).clamp(0, 1),
            "You clipped to [0, 255]; pictures lie in [0, 1].": (images + epsilon * slope.sign()).clamp(0, 255),
        }
        compare(answer(model, images, labels, epsilon), right, mistakes, what="the picture")
        require(
            torch.equal(as_tensor(answer(model, images, labels, 0.0), images.shape), images),
            "With eps = 0 the picture has to stay as it is.",
        )


@exercise(6)
def pgd(answer: Answer, case: Case) -> None:
    """`pgd(model, x, y, eps, lr, steps)`: steps lr sign(g) away from y, each put back into the ball and [0, 1]."""
    model, images, labels = case.model(), case.rand(2, 3, 8, 8), case.labels(2, 5)
    epsilon, lr, steps = 0.05, 0.02, 6
    attack = partial(_attacked, model, images, labels, epsilon=epsilon, lr=lr, steps=steps)
    mistakes = {
        "The change grows larger than eps: put the picture back into the ball after every step.": partial(
            attack, ball=False
        ),
        "The picture leaves [0, 1].": partial(attack, box=False),
        "The ball lies around the last picture; wanted: around the first one, x.": partial(attack, moving=True),
        "The steps go the wrong way: climb the cross-entropy of y.": partial(attack, sign=-1.0),
        "Every step begins at x again: go on from the moved picture.": (
            images + (attack(steps=1) - images).clamp(-epsilon, epsilon)
        ).clamp(0, 1),
        "You took every gradient at x; wanted: at the moved picture.": partial(attack, still=True),
        "F.cross_entropy takes the logits: no softmax before it.": partial(
            attack, read=lambda logits: logits.softmax(1)
        ),
        "You took one step too many.": partial(attack, steps=steps + 1),
        "You took one step too few.": partial(attack, steps=steps - 1),
        "You took steps of size eps; wanted: lr.": partial(attack, lr=epsilon),
        "You put the picture back into the ball only at the end.": (
            images + (attack(ball=False) - images).clamp(-epsilon, epsilon)
        ).clamp(0, 1),
        "The sign is missing: you added the gradient itself.": partial(attack, signed=False),
    }
    got = as_tensor(answer(model, images, labels, epsilon, lr, steps), images.shape)
    right = attack()
    if got.shape != images.shape or ((got - right).abs() > 1e-4).float().mean() > 0.01:  # a sign of 0 may flip
        compare(got, right, mistakes, what="the picture")


def _attacked(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    lr: float,
    steps: int,
    ball: bool = True,
    box: bool = True,
    moving: bool = False,
    still: bool = False,
    signed: bool = True,
    sign: float = 1.0,
    read: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> Tensor:
    """The pictures after the attack; the options are the ways to get it wrong."""
    moved = images
    for _ in range(steps):
        place = images if still else moved
        slope = gradient(model, place, lambda logits: F.cross_entropy(read(logits), labels, reduction="sum"))
        center = moved if moving else images
        step = moved + sign * lr * (slope.sign() if signed else slope)
        moved = center + (step - center).clamp(-epsilon, epsilon) if ball else step
        moved = moved.clamp(0, 1) if box else moved
    return moved


@exercise(6)
def amplify_difference(answer: Answer, case: Case) -> None:
    """`amplify_difference(x, x_adv, k)`: 0.5 + k (x_adv - x), clipped to [0, 1]."""
    images, k = case.rand(2, 3, 5, 7), float(case.integer(5, 12))
    other = images + 0.06 * case.randn(2, 3, 5, 7)
    change = other - images
    mistakes = {
        "The result leaves [0, 1]: clip it.": 0.5 + k * change,
        "The middle grey is missing: without change the picture is 0.5.": (k * change).clamp(0, 1),
        "The sign is wrong: x_adv minus x.": (0.5 - k * change).clamp(0, 1),
        "You clipped before adding 0.5: negative changes are lost.": (0.5 + (k * change).clamp(0, 1)).clamp(0, 1),
        "You took the absolute value: brighter and darker look the same.": (0.5 + k * change.abs()).clamp(0, 1),
        "The factor k has to multiply the difference only.": (k * (0.5 + change)).clamp(0, 1),
        "You scaled the difference to its own maximum; wanted: times k.": (
            0.5 + 0.5 * change / change.abs().max()
        ).clamp(0, 1),
    }
    compare(answer(images, other, k), (0.5 + k * change).clamp(0, 1), mistakes, what="the picture")
