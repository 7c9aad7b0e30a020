"""Checks of lecture 05: climb a score in the space of pictures."""

from functools import partial

import torch
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.checks.saliency import gradient
from lecturelib.oracles import LinearNet, SaturatedNet


@exercise(5)
def ascent_step(answer: Answer, case: Case) -> None:
    """`ascent_step(image, model, y, lam, lr)`: image + lr (gradient of the score - 2 lam image)."""
    lam, lr, label = 0.05 + 0.1 * case.integer(1, 4), 0.1 * case.integer(2, 6), case.integer(0, 4)
    for network in (LinearNet(case.generator), case.network()):
        model, image = case.model(network), case.rand(1, 3, 8, 8)
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
    """`maximize(model, y, start, steps, lr)`: a picture (1, 3, H, W) in [0, 1] of higher score, from `start`."""
    start, label = 0.4 + 0.2 * case.rand(1, 3, 8, 8), case.integer(0, 4)
    for network in (case.network(), SaturatedNet(case.generator)):
        model = case.model(network)

        def score(images: Tensor, model=model) -> Tensor:
            with torch.no_grad():
                return model(images)[:, label]

        got = as_tensor(answer(model, label, start, 20, 0.1), start.shape, "the picture")
        require(got.shape == start.shape, f"The picture has shape {tuple(got.shape)}; wanted: {tuple(start.shape)}.")
        require(got.isfinite().all(), "The picture has values that are not finite.")
        inside = got.min() >= -1e-5 and got.max() <= 1 + 1e-5
        require(inside, f"The picture leaves [0, 1]: it reaches from {got.min():.3g} to {got.max():.3g}.")
        require((got - start).abs().max() > 1e-6, "Nothing moved: did you climb the probability, which is flat here?")
        before, after = score(start).item(), score(got).item()
        require(after >= before, f"The score fell, from {before:.3g} to {after:.3g}: climb, do not descend.")
        moved = (got - start).norm()
        noise = case.randn(60, 3, 8, 8)
        noise = (start + moved * noise / noise.flatten(1).norm(dim=1)[:, None, None, None]).clamp(0, 1)
        best = score(noise).max().item()
        require(after > best, f"Noise of the same size reaches {best:.3g}, your picture {after:.3g}.")
        slope = gradient(model, start, lambda logits: logits[0, label])
        one = (start + 0.1 * slope / slope.norm()).clamp(0, 1)
        enough = after > before + 1.5 * (score(one).item() - before)
        require(enough, "The score grew as little as in one step: does the loop go on from the moved picture?")
