"""Lecture 06: small changes that change the answer. The lecture's fooling step, FGSM, PGD, and what carries over.

Everything happens on images (N, 3, H, W) in [0, 1]; `epsilon` is the largest change of a value there, like 4/255.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor

from lecturelib.canvas import Pixels, grey_noise
from lecturelib.errors import ArgumentError, OptimizationError
from lecturelib.images import require_image
from lecturelib.models import Model
from lecturelib.modes import recording
from lecturelib.optimize import Climb, Options, climb
from lecturelib.scores import Score, log_probability
from lecturelib.step_rules import unit

Label = str | int


def fool(
    model: Model,
    image: Tensor,
    target: Label | Sequence[Label],
    *,
    confidence: float = 0.0,
    lr: float = 1.0,
    steps: int = 100,
) -> Tensor:
    """Images (N, 3, H, W), little changed, that the model takes for `target`, one class or one for each image.

    X <- X + lr g / ||g||_2, with g the gradient of the target's score, until the model answers with the target and at
    least this confidence, also after the picture was saved with 8 bits. An image that got there is left alone. A
    warning names those that did not, after all `steps` or an interrupt.
    """
    require_image(image)
    _require(isinstance(steps, int) and steps >= 0, "steps is a whole number from 0", steps, "for example steps=100")
    _require(_is_number(lr) and lr > 0, "a learning rate is a positive number", lr, "for example lr=1")
    _require(_is_number(confidence) and 0 <= confidence < 1, "a confidence lies in [0, 1)", confidence, "say 0.99")
    targets = _class_indices(model, target, len(image))
    fooled, missed, ending = image.detach().clone(), list(range(len(image))), f"after {steps} steps"
    step = 0
    try:
        for step in range(steps + 1):
            logits, gradient = _target_gradient(model, fooled, targets)
            reached = _is_taken_for(targets, logits, confidence)
            if bool(reached.any()):
                reached &= _is_taken_for(targets, _logits(model, round_to_8_bit(fooled)), confidence)
            missed = (~reached).nonzero().flatten().tolist()
            if step == steps or not missed:
                break
            moved = (fooled + lr * unit(gradient)).clamp(0, 1)
            fooled = torch.where(reached.to(fooled.device)[:, None, None, None], fooled, moved)
    except KeyboardInterrupt:
        ending = f"when interrupted in step {step + 1} of {steps}"
    if missed:
        names = ", ".join(map(str, missed))
        warnings.warn(f"Not fooled {ending}: image {names}. Try more steps or a larger lr.", stacklevel=2)
    return fooled


def fool_from_noise(
    model: Model,
    target: Label | Sequence[Label],
    *,
    confidence: float = 0.99,
    size: int = 96,
    lr: float = 1.0,
    steps: int = 300,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images (N, 3, size, size) of nothing that the model takes for `target` with confidence (Nguyen et al., 2015).

    The same steps as in `fool`, from noise drawn with `generator`.
    """
    count = len(target) if _is_list(target) else 1
    noise = grey_noise(size, count=count, std=0.1, generator=generator)
    return fool(model, noise, target, confidence=confidence, lr=lr, steps=steps)


def fgsm(image: Tensor, score: Score, *, epsilon: float = 4 / 255) -> Tensor:
    """x + epsilon sign(g), the fast gradient sign method (Goodfellow et al., 2014): one step of `pgd`.

    Like there, an image whose score would fall by the step stays as it is.
    """
    return pgd(image, score, epsilon=epsilon, lr=epsilon, steps=1)


def pgd(
    image: Tensor,
    score: Score,
    *,
    epsilon: float = 4 / 255,
    lr: float | None = None,
    steps: int = 10,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images (N, 3, H, W) with the largest score found in the ball |x - image| <= epsilon (Madry et al., 2017).

    x <- x + lr sign(g), put back into the ball and [0, 1]; the best on the way is returned. lr is epsilon / 4 by
    default. With a generator the way begins at a random point of the ball. To leave a class, climb
    `cross_entropy_score`; to reach one, `log_probability` or `class_score`.
    """
    return _attack(image, score, epsilon, lr, steps, generator).images


def cross_entropy_score(model: Model, label: Label | Sequence[Label]) -> Score:
    """Minus the log-probability of the right class: climbing it leads away from the class."""
    return replace(log_probability(model, label), head=lambda logits: -logits.log_softmax(dim=1))


def round_to_8_bit(image: Tensor, original: Tensor | None = None, *, epsilon: float = 1.0) -> Tensor:
    """The images as a PNG file keeps them: multiples of 1/255, in the ball around `original` if that is given.

    Where the ball holds no multiple of 1/255, the one nearest to the original is taken.
    """
    levels = (image * 255).round()
    if original is not None:
        low, high = (((original + side).clamp(0, 1) * 255) for side in (-epsilon, epsilon))
        low, high = (low - 1e-4).ceil(), (high + 1e-4).floor()  # 4 / 255 in float32 may lie just below level 4
        levels = torch.where(low <= high, levels.clamp(low, high), (original * 255).round())
    return levels / 255


def amplify_difference(image: Tensor, other: Tensor, *, k: float = 10) -> Tensor:
    """k times the difference of two images around middle grey, 0.5 + k (other - image), clipped to [0, 1]."""
    return (0.5 + k * (other - image)).clamp(0, 1)


def epsilon_sweep(
    model: Model,
    images: Tensor,
    labels: Sequence[Label],
    epsilons: Sequence[float],
    *,
    steps: int = 10,
) -> Tensor:
    """The share of images that the model gets wrong within each epsilon, shape (E,); `steps=1` is FGSM.

    The epsilons rise. What was found in a small ball lies in each larger one too, so the shares never fall. Pictures
    are rounded to 8 bits, the originals too: what counts would survive in a file.
    """
    rising = list(epsilons) == sorted(epsilons)
    _require(rising and len(epsilons) > 0, "the epsilons rise", list(epsilons), "for example [0, 1/255, 2/255]")
    images = round_to_8_bit(images)
    wrong, shares = torch.zeros(len(images), dtype=torch.bool), []
    for epsilon in epsilons:
        wrong |= ~_is_right(model, _found(model, images, labels, epsilon, steps), labels)
        shares.append(wrong.float().mean())
    return torch.stack(shares)


def transfer_matrix(
    models: Sequence[Model],
    images: Tensor,
    labels: Sequence[Label],
    *,
    epsilon: float = 4 / 255,
    steps: int = 10,
) -> Tensor:
    """Shares of wrong answers, shape (M, M): row i attacks model i (PGD on the cross-entropy), column j asks model j.

    Pictures are rounded to 8 bits, the originals too. With epsilon 0 each row is the models' error without any attack.
    """
    images = round_to_8_bit(images)
    rows = []
    for source in models:
        attacked = _found(source, images, labels, epsilon, steps)
        rows.append(torch.stack([(~_is_right(model, attacked, labels)).float().mean() for model in models]))
    return torch.stack(rows)


def _attack(
    image: Tensor,
    score: Score,
    epsilon: float,
    lr: float | None,
    steps: int,
    generator: torch.Generator | None = None,
) -> Climb:
    require_image(image)
    _require(_is_number(epsilon) and epsilon >= 0, "epsilon is a number from 0", epsilon, "for example epsilon=4/255")
    image = image.detach()
    if epsilon == 0:
        return Climb(image.clone(), None)
    low, high = (image - epsilon).clamp(0, 1), (image + epsilon).clamp(0, 1)
    start = image
    if generator is not None:
        noise = torch.rand(image.shape, generator=generator, device=generator.device).to(image)
        start = image + epsilon * (2 * noise - 1)
    options = Options(steps=steps, lr=epsilon / 4 if lr is None else lr, step_rule="sign", progress=False)
    return climb(Pixels(start, low=low, high=high), score, options)


def _found(model: Model, images: Tensor, labels: Sequence[Label], epsilon: float, steps: int) -> Tensor:
    """The attacked images in 8 bits; unlike in `pgd`, an interrupt ends everything."""
    lr = epsilon if steps == 1 else None
    attacked, stop = _attack(images, cross_entropy_score(model, labels), epsilon, lr, steps)
    if isinstance(stop, KeyboardInterrupt):
        raise stop
    return round_to_8_bit(attacked, images, epsilon=epsilon)


@recording(True)
def _target_gradient(model: Model, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (N, K), and the gradient of each image's target score with respect to the image."""
    leaf, targets = (
        images.clone().requires_grad_(),
        targets.clone(),
    )  # no gradient flows through tensors of inference mode
    logits = model(leaf)
    (gradient,) = torch.autograd.grad(logits.gather(1, targets.to(logits.device)[:, None]).sum(), leaf)
    if not (bool(logits.isfinite().all()) and bool(gradient.isfinite().all())):
        raise OptimizationError("the network's answer is not a finite number", do="look at it: model(image)")
    return logits.detach(), gradient


def _is_taken_for(targets: Tensor, logits: Tensor, confidence: float) -> Tensor:
    probabilities, answers = logits.softmax(dim=1).cpu().max(dim=1)
    return (answers == targets) & (probabilities >= confidence)


def _is_right(model: Model, images: Tensor, labels: Sequence[Label]) -> Tensor:
    return _logits(model, images).argmax(dim=1).cpu() == _class_indices(model, labels, len(images))


@recording(False)
def _logits(model: Model, images: Tensor) -> Tensor:
    return model(images)


def _class_indices(model: Model, labels: Label | Sequence[Label], count: int) -> Tensor:
    """The number of each image's class, shape (count,)."""
    named = [model.class_index(label) for label in (labels if _is_list(labels) else [labels] * count)]
    _require(
        len(named) == count, "a list names one class for each image", f"{len(named)} for {count}", "add or drop some"
    )
    return torch.tensor(named)


def _is_list(labels: object) -> bool:
    return isinstance(labels, Sequence) and not isinstance(labels, str)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and value < float("inf")


def _require(fine: bool, what: str, received: object, do: str) -> None:
    if not fine:
        raise ArgumentError(what, received=repr(received), do=do)
