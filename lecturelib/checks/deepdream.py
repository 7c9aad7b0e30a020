"""Checks of lecture 07: amplify what is there, at growing sizes."""

import torch
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.checks.verdicts import wrong


@exercise(7)
def dream_score(answer: Answer, case: Case) -> None:
    """`dream_score(activation)`: the number whose gradient with respect to the activation is the activation itself."""
    activation = case.randn(2, 4, 5, 5)
    leaf = activation.clone().requires_grad_()
    got = answer(leaf)
    if not isinstance(got, Tensor) or not got.requires_grad:
        as_tensor(got, ())
        raise wrong("The result has no history: calculate it with torch from the activation, without detach or item.")
    require(got.numel() == 1, f"A score is one number; yours has shape {tuple(got.shape)}.")
    # The copies that the student's function gets are made by clone(), through which the gradient flows.
    (slope,) = torch.autograd.grad(got.sum(), leaf, allow_unused=True)
    count = activation.numel()
    mistakes = {
        "The gradient is twice the activation: the factor 1/2 is missing.": 2 * activation,
        "The gradient is much too small: you took the mean; wanted: half the sum of the squares.": activation / count,
        "The gradient is too small: you took the mean of the squares; wanted: half their sum.": 2 * activation / count,
        "The gradient is too small: you took the mean over the images.": activation / len(activation),
        "The gradient is 1 everywhere: you added up the activation, not its squares.": torch.ones_like(activation),
        "The gradient is the same everywhere: you took the mean of the activation, not half the sum of its squares.": (
            torch.ones_like(activation) / count
        ),
        "The gradient is the sign: you added up absolute values, not squares.": activation.sign(),
        "The sign is wrong: this score falls when the activation grows.": -activation,
        "The gradient has length 1: you took the norm, not half its square.": activation / activation.norm(),
        "Negative activations are lost: no ReLU here.": activation.relu(),
    }
    compare(slope, activation, mistakes, what="the gradient of your score")


@exercise(7)
def dream_step(answer: Answer, case: Case) -> None:
    """`dream_step(image, g, lr)`: image + lr g / mean|g|, in [0, 1]; a gradient of 0 changes nothing."""
    image, lr = case.rand(1, 3, 6, 6), 0.05 + 0.05 * case.rand(1).item()
    slope = (3 + 10 * case.rand(1)) * case.randn(1, 3, 6, 6)
    unit = slope / slope.abs().mean()
    mistakes = {
        "The picture leaves [0, 1]: clip it.": image + lr * unit,
        "The gradient is not normalized: divide by mean|g|.": (image + lr * slope).clamp(0, 1),
        "You divided by the L2 norm; wanted: by the mean absolute value.": (image + lr * slope / slope.norm()).clamp(
            0, 1
        ),
        "You divided by the largest entry; wanted: by the mean absolute value.": (
            image + lr * slope / slope.abs().max()
        ).clamp(0, 1),
        "You divided by the mean without absolute values: that can be nearly 0, or negative.": (
            image + lr * slope / slope.mean()
        ).clamp(0, 1),
        "You divided by the standard deviation; wanted: by the mean absolute value.": (
            image + lr * slope / slope.std()
        ).clamp(0, 1),
        "You divided by the root of the mean square; wanted: by the mean absolute value.": (
            image + lr * slope / slope.square().mean().sqrt()
        ).clamp(0, 1),
        "You divided by the sum; wanted: by the mean absolute value.": (image + lr * slope / slope.abs().sum()).clamp(
            0, 1
        ),
        "The step goes down: add the gradient.": (image - lr * unit).clamp(0, 1),
        "You clipped the step to [0, 1]: it may be negative.": image + (lr * unit).clamp(0, 1),
        "You took the sign of the gradient.": (image + lr * slope.sign()).clamp(0, 1),
    }
    compare(answer(image, slope, lr), (image + lr * unit).clamp(0, 1), mistakes, what="the picture")
    still = as_tensor(answer(image, torch.zeros_like(image), lr), image.shape)
    require(still.isfinite().all(), "A gradient of 0 gives nan: guard the division by 0.")
    compare(still, image, what="the picture after a gradient of 0")


@exercise(7)
def jitter(answer: Answer, case: Case) -> None:
    """`jitter(image, dy, dx)`: everything dy down and dx right; what leaves on one side enters on the other."""
    image = case.rand(2, 3, 6, 9)
    dy, dx = case.integer(1, 2), case.integer(3, 4)
    for down, right in ((dy, dx), (-dy, dx), (0, 0)):
        moved = torch.roll(image, (down, right), dims=(2, 3))
        padded = torch.zeros_like(image)
        padded[:, :, max(down, 0) : 6 + min(down, 0), right:] = image[
            :, :, max(-down, 0) : 6 - max(down, 0), : 9 - right
        ]
        mistakes = {
            "Down and right are exchanged: rows are dimension 2, columns dimension 3.": image.roll(
                (right, down), (2, 3)
            ),
            "The picture moved the other way: positive means down and right.": image.roll((-down, -right), (2, 3)),
            "What leaves on one side has to enter on the other; yours is black there.": padded,
            "The images or the colors moved: rows are dimension 2, columns dimension 3.": image.roll(
                (down, right), (0, 1)
            ),
            "The colors moved: rows are dimension 2, columns dimension 3.": image.roll((down, right), (1, 2)),
            "Only the rows moved.": image.roll(down, 2),
            "Only the columns moved.": image.roll(right, 3),
        }
        compare(answer(image, down, right), moved, mistakes, what="the picture", tolerance=1e-6)


@exercise(7)
def octave_sizes(answer: Answer, case: Case) -> None:
    """`octave_sizes(h, w, n, ratio)`: n sizes (h, w), each `ratio` times the one before, the last the picture's own."""
    for n, ratio in ((case.integer(3, 4), 1.3 + 0.1 * case.integer(0, 2)), (1, 1.5)):
        height, width = case.integer(90, 120), case.integer(130, 160)
        right = [(height / ratio**k, width / ratio**k) for k in reversed(range(n))]
        got = as_tensor(answer(height, width, n, ratio), (n, 2), "the list").double()
        wanted = torch.tensor(right, dtype=torch.float64)
        near = got.shape == wanted.shape and bool(((got - wanted).abs() <= 1).all())
        whole = bool((got == got.round()).all())
        require(not near or whole, "A picture has a whole number of pixels: round the sizes.")
        exact = near and got[-1].tolist() == [height, width]
        if exact:
            continue
        mistakes = {
            "The order is the wrong way round: begin with the smallest.": wanted.flip(0),
            "You multiplied: the largest octave is the picture itself, the others are smaller.": wanted.flip(0)[-1]
            * torch.tensor([[ratio**k] * 2 for k in range(n)], dtype=torch.float64)
            * ratio ** (n - 1),
            "Rows and columns are exchanged.": wanted.flip(1),
            "The picture's own size is missing at the end.": wanted / ratio,
            "Only n - 1 sizes: the picture's own size counts too.": wanted[1:],
            "One size too many: n in all.": torch.cat([wanted[:1] / ratio, wanted]),
            "Each size is the one before times the ratio; yours grow by equal steps.": _equal_steps(wanted),
        }
        for sentence, mistake in mistakes.items():
            same = got.shape == mistake.shape and bool(((got - mistake).abs() <= 2).all())
            require(not same or near, sentence)
        compare(got, wanted.round(), what="the list of sizes", tolerance=1e-3)


def _equal_steps(sizes: Tensor) -> Tensor:
    return torch.stack([torch.linspace(a, b, len(sizes)) for a, b in zip(sizes[0], sizes[-1], strict=True)], dim=1)
