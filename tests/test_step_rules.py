"""What one step does, in numbers."""

import pytest
import torch

from lecturelib.optimize import maximize
from lecturelib.step_rules import STEP_RULES, View, unit


def one_step(rule: str, gradient: torch.Tensor, lr: float) -> torch.Tensor:
    parameter = torch.zeros_like(gradient).requires_grad_()
    look = lambda: View(parameter.detach(), (gradient * parameter.detach()).flatten(1).sum(dim=1), [gradient])  # noqa: E731
    STEP_RULES[rule]([parameter], lr, look)([gradient])
    return parameter.detach()


def test_every_rule_goes_uphill():
    gradient = torch.randn(2, 3, 4, 4)
    for rule in STEP_RULES:
        step = one_step(rule, gradient, 0.1)
        assert ((gradient * step).flatten(1).sum(dim=1) > 0).all(), rule


def test_the_first_steps_by_hand():
    gradient = torch.tensor([[3.0, -4.0], [0.0, 1e-3]])
    torch.testing.assert_close(one_step("sgd", gradient, 0.1), 0.1 * gradient)
    torch.testing.assert_close(one_step("sign", gradient, 0.1), torch.tensor([[0.1, -0.1], [0.0, 0.1]]))
    torch.testing.assert_close(one_step("adam", gradient, 0.1), torch.tensor([[0.1, -0.1], [0.0, 0.1]]))
    lengths = one_step("normalized", gradient, 0.1).square().mean(dim=1).sqrt()
    torch.testing.assert_close(lengths, torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1.0, 1e20, 1e38])
def test_a_unit_gradient_has_length_one_whatever_its_size(scale):
    gradient = torch.randn(3, 3, 5, 5, dtype=torch.float64)
    gradient[1] = 0
    found = unit((scale * gradient / gradient.abs().max()).float())
    torch.testing.assert_close(found.flatten(1).norm(dim=1), torch.tensor([1.0, 0.0, 1.0]))
    direction = torch.nn.functional.cosine_similarity(found.flatten(1).double(), gradient.flatten(1))
    torch.testing.assert_close(direction[[0, 2]], torch.ones(2, dtype=torch.float64), atol=1e-3, rtol=0)


def test_lbfgs_finds_the_top_of_a_hill_in_few_steps():
    top = 0.2 + 0.6 * torch.rand(1, 3, 6, 6, dtype=torch.float64)
    curvature = torch.logspace(0, 2, 108, dtype=torch.float64).view(1, 3, 6, 6)
    hill = lambda images: -(curvature * (images - top).square()).flatten(1).sum(dim=1)  # noqa: E731
    found = maximize(torch.full_like(top, 0.5), hill, steps=60, lr=1, step_rule="lbfgs")
    torch.testing.assert_close(found, top, atol=1e-3, rtol=0)


def test_lbfgs_asks_the_score_once_per_place():
    places = []

    def hill(images):
        places.append(images.detach().clone())
        return -(images * torch.linspace(1, 9, 48).view(3, 4, 4) - 0.3).square().flatten(1).sum(dim=1)

    maximize(torch.rand(1, 3, 4, 4), hill, steps=4, lr=1, step_rule="lbfgs")
    with_gradient = places[:-1]  # the last look is the verdict on the result
    assert all(not torch.equal(one, other) for n, one in enumerate(with_gradient) for other in with_gradient[:n])
