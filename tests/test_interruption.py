"""Whatever ends an explanation or an attack early, nothing of it stays behind."""

import random
import signal
import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn
from tqdm.auto import tqdm

from lecturelib.adversarial import cross_entropy_score, epsilon_sweep, fgsm, fool, fool_from_noise, pgd, transfer_matrix
from lecturelib.models import Model, load_model
from lecturelib.occlusion import deletion_curve, insertion_curve, occlusion_map
from lecturelib.relu_rules import relu_rule
from lecturelib.saliency import (
    completeness_gap,
    grad_cam,
    gradient_times_input,
    input_gradient,
    integrated_gradients,
    saliency_map,
    smoothgrad,
)
from lecturelib.scores import class_score, neuron_score, probability
from lecturelib.trust import METHODS, label_swap_similarity, randomization_cascade


class Failing(nn.Module):
    """Raises in the forward pass or in the backward pass, as the plan says; the copies of a model share the plan."""

    plan: dict[str, str | None] = {"fail": None}  # noqa: RUF012

    def __init__(self, place: int):
        super().__init__()
        self.place = place

    def forward(self, values):
        if self.plan["fail"] == f"forward {self.place}":
            raise RuntimeError("as planned")
        if self.plan["fail"] == f"backward {self.place}" and values.requires_grad:
            values.register_hook(self.fail)
        return values + 0

    def fail(self, gradient):
        raise RuntimeError("as planned")


def seen(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
    """A hook of the user's own: it must stay, and keeps the module as it is in a trace."""


@pytest.fixture
def model():
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Failing(0), nn.ReLU(), Failing(1), nn.Conv2d(4, 5, 3), Failing(2)]
    torch.manual_seed(0)
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(80, 3)).double()
    for layer in (2, 4, 6):
        network[layer].register_forward_hook(seen)
    yield load_model(network)
    Failing.plan["fail"] = None


def guided(model: Model, images: torch.Tensor) -> torch.Tensor:
    with relu_rule(model, "guided"):
        return input_gradient(images, class_score(model, 1))


WITH_GRADIENTS = {
    "guided": guided,
    "saliency": lambda model, images: saliency_map(images, neuron_score(model, "6", 0)),
    "gradient x input": lambda model, images: gradient_times_input(images, class_score(model, [1, 2])),
    "SmoothGrad": lambda model, images: smoothgrad(images, class_score(model, 0), samples=2, sigma=0),
    "integrated": lambda model, images: integrated_gradients(images, class_score(model, 0), steps=2),
    "cascade": lambda model, images: randomization_cascade(model, images, 0, METHODS["guided backprop"], stages=1),
    "labels": lambda model, images: label_swap_similarity(model, images, 0, 1, METHODS["deconvnet"]),
    "fool": lambda model, images: fool(model, images, 1, confidence=0.9, steps=3),
    "noise": lambda model, images: fool_from_noise(model, 2, size=8, steps=2),
    "fgsm": lambda model, images: fgsm(images, cross_entropy_score(model, 0)),
    "pgd": lambda model, images: pgd(images, cross_entropy_score(model, [0, 1]), steps=2),
    "sweep": lambda model, images: epsilon_sweep(model, images, [0, 1], [0, 4 / 255], steps=2),
    "transfer": lambda model, images: transfer_matrix([model, model], images, [0, 1], steps=1),
}
WITHOUT = {
    "occlusion": lambda model, images: occlusion_map(images, class_score(model, 0), window=3, stride=3),
    "any score": lambda model, images: occlusion_map(images, lambda x: model(x)[:, 0], window=3, stride=3),
    "deletion": lambda model, images: deletion_curve(images, probability(model, 0), images[:, 0], steps=3),
    "insertion": lambda model, images: insertion_curve(images, probability(model, 0), images[:, 0], steps=3),
    "gap": lambda model, images: completeness_gap(images, class_score(model, 0), images),
    "Grad-CAM": lambda model, images: grad_cam(model, images, "5", 2),
}
FUNCTIONS: dict[str, Callable] = WITH_GRADIENTS | WITHOUT


def residue(model: Model, images: torch.Tensor) -> list:
    """Everything that a function which differentiates could leave behind."""
    modules = list(model.network.modules())
    weights = [*model.network.parameters(), *model.network.buffers()]
    return [
        torch.overrides._get_current_function_mode_stack(),
        nn.Module.__call__,  # torch.fx replaces it while it traces
        (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        [(module.training, dict(vars(module)["_modules"])) for module in modules],
        [
            list(vars(module)[hooks].values())
            for module in modules
            for hooks in vars(module)
            if hooks.endswith("_hooks")
        ],
        [(value.requires_grad, value.grad, value._version, value.data_ptr()) for value in [*weights, images]],
    ]


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)


def results(model: Model, images: torch.Tensor) -> list:
    with warnings.catch_warnings(action="ignore"):  # that an attack of two steps did not reach its target
        return [str(function(model, images)) for name, function in FUNCTIONS.items() if name != "noise"]


def test_500_exceptions_leave_nothing_behind(model, images):
    before, expected = residue(model, images), results(model, images)
    dice, failed = random.Random(0), dict.fromkeys(FUNCTIONS, 0)
    for number in range(500):
        name = [*FUNCTIONS][number % len(FUNCTIONS)]
        direction = dice.choice(["forward", "backward"]) if name in WITH_GRADIENTS else "forward"
        Failing.plan["fail"] = f"{direction} {dice.randrange(3)}"
        with warnings.catch_warnings(action="ignore"), pytest.raises(RuntimeError, match="as planned"):
            FUNCTIONS[name](model, images)
        failed[name] += 1
        assert residue(model, images) == before, name
    Failing.plan["fail"] = None
    assert sum(failed.values()) == 500
    assert results(model, images) == expected


@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timer signals")
def test_500_interrupts_leave_nothing_behind(model, images):
    before, expected = residue(model, images), results(model, images)
    dice, interrupted = random.Random(0), []

    def interrupt(*_):
        interrupted.append(1)
        raise KeyboardInterrupt

    handler = signal.signal(signal.SIGALRM, interrupt)
    try:
        while len(interrupted) < 500:
            name = dice.choice([*FUNCTIONS])
            try:
                with warnings.catch_warnings(action="ignore"):
                    signal.setitimer(signal.ITIMER_REAL, dice.uniform(1e-6, 6e-3))
                    FUNCTIONS[name](model, images)
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                pass
            # What an interrupt in the last microsecond of a block leaves is swept by the next block.
            with relu_rule(model, "guided"):
                pass
            assert residue(model, images) == before, name
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        tqdm.set_lock(threading.RLock())  # an interrupt while a bar holds the old one leaves it locked
    assert results(model, images) == expected
