"""Checks of lecture 05: climb a score in the space of pictures."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.checks.saliency import gradient
from lecturelib.models import Model
from lecturelib.oracles import AdditiveNet, LinearNet, SaturatedNet


@exercise(5)
def ascent_step(answer: Answer, case: Case) -> None:
    """`ascent_step(image, model, y, lam, lr)`: image + lr (gradient of the score - 2 lam image)."""
    lam, lr, label = 0.05 + 0.1 * case.integer(1, 4), 0.1 * case.integer(2, 6), case.integer(0, 4)
    for network in (LinearNet(case.generator), case.network()):
        model, image = case.model(network), case.rand(1, 3, 8, 8)
        image[:, :, 0] = image[:, :, 0].round()  # black and white: from there the step leaves [0, 1]
        slope = gradient(model, image, lambda logits: logits[0, label])
        chance = gradient(model, image, lambda logits: logits.softmax(dim=1)[0, label])
        entropy = gradient(model, image, lambda logits: -logits.log_softmax(dim=1)[0, label])
        decay = 2 * lam * image
        mistakes = {
            "The step goes down: add the gradient, because the score has to grow.": image - lr * (slope - decay),
            "The penalty has the wrong sign: lam ||I||^2 is subtracted from the score.": image + lr * (slope + decay),
            "The gradient goes down; only the penalty may pull down.": image - lr * (slope + decay),
            "The derivative of lam I^2 is 2 lam I: the 2 is missing.": image + lr * (slope - lam * image),
            "The penalty is missing.": image + lr * slope,
            "You took the norm as the penalty; wanted: its square, with the derivative 2 lam I.": image
            + lr * (slope - lam * image / image.norm()),
            "You clipped to [0, 1]; this step does not clip.": (image + lr * (slope - decay)).clamp(0, 1),
            "The penalty is not multiplied by the learning rate.": image + lr * slope - decay,
            "You normalized the gradient; wanted: the gradient itself.": image + lr * (slope / slope.norm() - decay),
            "You took the sign of the gradient; wanted: the gradient itself.": image + lr * (slope.sign() - decay),
            "This is the step; wanted: the picture after it.": lr * (slope - decay),
            "You climbed the probability; wanted: the score before the softmax.": image + lr * (chance - decay),
            "You climbed the cross-entropy; wanted: the score.": image + lr * (entropy - decay),
            "You climbed the log-probability; wanted: the score before the softmax.": image - lr * (entropy + decay),
        }
        compare(answer(image, model, label, lam, lr), image + lr * (slope - decay), mistakes, what="the picture")


def _without(image: Tensor, strength: Tensor, percent: float, *, keep_small: bool = False) -> Tensor:
    """The image without the pixels of smallest strength (N, H, W), all colors of a pixel together."""
    count = round(strength[0].numel() * percent / 100)
    order = strength.flatten(1).argsort(dim=1, descending=keep_small)[:, :count]
    mask = torch.ones_like(strength).flatten(1).scatter(1, order, 0.0).view_as(strength)
    return image * mask[:, None]


def _require_share(got: Tensor, image: Tensor, percent: float, right: Tensor) -> None:
    """As many pixels are black as asked for; one more or less does not matter."""
    require(got.shape == image.shape, f"The result has shape {tuple(got.shape)}; wanted: {tuple(image.shape)}.")
    black = (got == 0).float().mean(dim=1)
    parts = ((black > 0) & (black < 1)).any()
    require(not parts, "You set single colors to 0; wanted: whole pixels, all three colors together.")
    share, wanted = black.mean(dim=(1, 2)), (right == 0).all(dim=1).float().mean(dim=(1, 2))
    close = (share - wanted).abs() <= 1.5 / image[0, 0].numel()
    exchanged = (share - (1 - wanted)).abs() <= 1.5 / image[0, 0].numel()
    require(close.all() or not exchanged.all(), "You kept the share that should be black.")
    require(
        close.all(), f"{share[0]:.0%} of the first picture's pixels are black; wanted: {percent:g} percent in each."
    )
    alike = ((got - image).abs() < 1e-6) | (got == 0)
    require(alike.all(), "The pixels that stay have to stay as they are.")


@exercise(5)
def clip_small_pixels(answer: Answer, case: Case) -> None:
    """`clip_small_pixels(image, percent)`: the given percent of the pixels, those of smallest norm, become 0."""
    percent, image = 10.0 * case.integer(2, 3), case.randn(2, 3, 6, 10) * torch.tensor([1.0, 3.0])[:, None, None, None]
    right = _without(image, image.norm(dim=1), percent)
    mistakes = {
        "You set the largest pixels to 0; wanted: the smallest.": partial(
            _without, image, image.norm(dim=1), percent, keep_small=True
        ),
        "You compared the values with their signs; wanted: the norm over the colors.": partial(
            _without, image, image.sum(dim=1), percent
        ),
        "You compared the mean over the colors with its sign; wanted: the norm.": partial(
            _without, image, image.mean(dim=1), percent
        ),
        "You added up absolute values; wanted: the norm over the colors.": partial(
            _without, image, image.abs().sum(dim=1), percent
        ),
        "You compared one color only; wanted: the norm over the colors.": partial(
            _without, image, image[:, 0].abs(), percent
        ),
    }
    got = as_tensor(answer(image, percent), image.shape)
    _judge_clipped(got, image, percent, right, mistakes)


@exercise(5)
def clip_small_contribution(answer: Answer, case: Case) -> None:
    """`clip_small_contribution(image, g, percent)`: 0 where |sum over colors of image x g| is among the smallest."""
    percent, image, slope = 10.0 * case.integer(2, 3), case.randn(2, 3, 6, 10), case.randn(2, 3, 6, 10)
    by = partial(_without, image)
    right = by((image * slope).sum(dim=1).abs(), percent)
    mistakes = {
        "The absolute value belongs outside of the sum over the colors.": by((image * slope).abs().sum(dim=1), percent),
        "The absolute value is missing: a large negative contribution is not small.": by(
            (image * slope).sum(dim=1), percent
        ),
        "You took the norm of the pixels; wanted: the contribution, image times gradient.": by(
            image.norm(dim=1), percent
        ),
        "You took the norm of the gradient; wanted: the contribution, image times gradient.": by(
            slope.norm(dim=1), percent
        ),
        "You set the largest to 0; wanted: the smallest.": by(
            (image * slope).sum(dim=1).abs(), percent, keep_small=True
        ),
    }
    got = as_tensor(answer(image, slope, percent), image.shape)
    _judge_clipped(got, image, percent, right, mistakes)


def _judge_clipped(got: Tensor, image: Tensor, percent: float, right: Tensor, mistakes: dict) -> None:
    """Right when at most one pixel of an image is chosen otherwise: where the line is drawn is a matter of taste."""
    if got.shape == image.shape:
        others = ((got == 0).all(dim=1) != (right == 0).all(dim=1)).flatten(1).sum(dim=1)
        if bool((others <= 1).all()):
            _require_share(got, image, percent, right)
            return
    for sentence, mistake in mistakes.items():
        value = mistake() if callable(mistake) else mistake
        if got.shape == value.shape:
            others = ((got == 0).all(dim=1) != (value == 0).all(dim=1)).flatten(1).sum(dim=1)
            require((others > 2).any(), sentence)
    _require_share(got, image, percent, right)
    compare(got, right, what="the picture")


@exercise(5)
def maximize(answer: Answer, case: Case) -> None:
    """`maximize(model, y, start, steps, lr)`: `steps` steps of length lr up the score from `start`, in [0, 1]."""
    label, steps, lr = case.integer(0, 4), 6, 0.3
    for network in (AdditiveNet(case.generator, side=8, classes=5), case.network(), SaturatedNet(case.generator)):
        model, start = case.model(network), case.rand(1, 3, 8, 8)
        climb = partial(_climbed, model, start, label, steps, lr)
        mistakes = {
            "Nothing moved.": start,
            "The steps go down: the score has to grow.": partial(_climbed, model, start, label, steps, -lr),
            "Every step begins at `start` again: go on from the moved picture.": partial(
                _climbed, model, start, label, 1, lr
            ),
            "The gradients of earlier steps add up in .grad: empty it, x.grad = None, before every step.": partial(
                climb, add_up=True
            ),
            "The gradient is not divided by its norm.": partial(climb, step=lambda slope: slope),
            "You took the sign of the gradient; wanted: the gradient divided by its norm.": partial(
                climb, step=torch.sign
            ),
            "You climbed the probability; wanted: the score before the softmax.": partial(climb, read=_chance),
            "You climbed the probability, which is flat; wanted: the score, and its gradient divided by the norm.": (
                partial(climb, read=_chance, step=lambda slope: slope)
            ),
            "You climbed the log-probability; wanted: the score before the softmax.": partial(
                climb, read=lambda logits: logits.log_softmax(dim=1)
            ),
            "You clipped at the end only; wanted: after every step.": lambda climb=climb: climb(clip=False).clamp(0, 1),
            "You took one step too few.": partial(_climbed, model, start, label, steps - 1, lr),
            "You took one step too many.": partial(_climbed, model, start, label, steps + 1, lr),
        }
        got = as_tensor(answer(model, label, start, steps, lr), start.shape, "the picture")
        inside = got.numel() == 0 or (got.min() >= -1e-5 and got.max() <= 1 + 1e-5)
        require(inside or not got.isfinite().all(), "The picture leaves [0, 1]: clip it after every step.")
        compare(got, climb(), mistakes, what="the picture")


def _chance(logits: Tensor) -> Tensor:
    return logits.softmax(dim=1)


def _climbed(
    model: Model,
    image: Tensor,
    label: int,
    steps: int,
    lr: float,
    *,
    read: Callable[[Tensor], Tensor] = lambda logits: logits,
    step: Callable[[Tensor], Tensor] = lambda slope: slope / slope.norm(),
    add_up: bool = False,
    clip: bool = True,
) -> Tensor:
    """The picture after some steps up; the options are the ways to get it wrong."""
    total = torch.zeros_like(image)
    for _ in range(steps):
        slope = gradient(model, image, lambda logits: read(logits)[0, label])
        total = total + slope if add_up else slope
        image = image + lr * step(total)
        image = image.clamp(0, 1) if clip else image
    return image
