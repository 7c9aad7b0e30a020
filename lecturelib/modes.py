"""Whether PyTorch records gradients: switched for the length of a function, and back however the function ends."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def recording(on: bool) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: PyTorch records gradients in the function, or does not; afterwards it does as before.

    Inference mode is off in it, so that its results can be used anywhere. An interrupt (the stop button) that hits
    `torch.no_grad` in the microsecond of switching would leave a session without gradients: here the mode is put back
    once more, from outside of the switch.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def switched(*args: P.args, **kwargs: P.kwargs) -> R:
            before = torch.is_grad_enabled()
            try:
                with torch.inference_mode(False), torch.set_grad_enabled(on):
                    return function(*args, **kwargs)
            finally:
                torch.set_grad_enabled(before)

        return switched

    return decorate
