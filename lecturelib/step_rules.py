"""What follows from a gradient: the step rules of the loop, all of them uphill.

A rule is made for some parameters and a learning rate. The function that it gives takes the gradients and changes the
parameters in place.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """What a score says at one place: images, scores (N,), and the gradients with respect to the parameters."""

    images: Tensor
    scores: Tensor
    gradients: list[Tensor]


Look = Callable[[], View]
Change = Callable[[list[Tensor]], object]
Rule = Callable[[list[Tensor], float, Look], Change]


def unit(gradient: Tensor) -> Tensor:
    """g / ||g||_2 for each image; 0 stays 0."""
    flat = gradient.flatten(1)
    largest = flat.abs().amax(dim=1, keepdim=True)
    flat = flat / largest.masked_fill(largest == 0, 1)  # the squares of tiny numbers would all be 0
    length = flat.norm(dim=1, keepdim=True)
    return (flat / length.masked_fill(length == 0, 1)).view_as(gradient)


def _along(direction: Callable[[Tensor], Tensor]) -> Rule:
    """The step rule that goes `lr` times a function of the gradient."""

    def rule(parameters: list[Tensor], lr: float, look: Look) -> Change:
        @torch.no_grad()
        def change(gradients: list[Tensor]) -> None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(direction(gradient), alpha=lr)

        return change

    return rule


def _adam(parameters: list[Tensor], lr: float, look: Look) -> Change:
    optimizer = torch.optim.Adam(parameters, lr=lr, maximize=True)

    def change(gradients: list[Tensor]) -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()

    return change


def _lbfgs(parameters: list[Tensor], lr: float, look: Look) -> Change:
    optimizer = torch.optim.LBFGS(parameters, lr=lr, max_iter=1, max_eval=25, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        view = look()
        for parameter, gradient in zip(parameters, view.gradients, strict=True):
            parameter.grad = -gradient
        return -view.scores.sum()

    return lambda gradients: optimizer.step(loss)


def _normalized(gradient: Tensor) -> Tensor:
    return unit(gradient) * gradient[0].numel() ** 0.5


STEP_RULES = {
    "adam": _adam,
    "sgd": _along(lambda gradient: gradient),
    "normalized": _along(_normalized),
    "sign": _along(torch.sign),
    "lbfgs": _lbfgs,
}
