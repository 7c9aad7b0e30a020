"""A student's function, called so that nothing it does reaches further than its result."""

import copy
import dis
import io
import linecache
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from inspect import Parameter, signature
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from lecturelib.checks.limits import TookTooLongError
from lecturelib.checks.verdicts import NOT_ATTEMPTED, RAISED, FindingError, wrong
from lecturelib.models import Model

_NOTHING = {"RESUME", "RETURN_VALUE", "POP_TOP", "NOP", "CACHE"}
_PRINTED = 2000  # characters of what the student's code prints that are kept
_MEANINGS = {  # part of an error of torch: what it means here
    "does not require grad and does not have a grad_fn": "The number has no history: begin with a copy of the input, "
    "x.clone().requires_grad_(), and calculate with that.",
    "a leaf Variable that requires grad is being used in an in-place operation": "Change it inside of "
    "`with torch.no_grad():`, or make a new tensor.",
}


class Answer:
    """Calls a student's function with copies of the arguments and looks whether it left them, and the network, alone.

    Raises `FindingError` for the student's errors; `TookTooLongError` and the user's interrupt pass.
    """

    def __init__(self, function: Callable, printed: io.StringIO):
        self.function, self.printed = function, printed
        code = getattr(function, "__code__", None)
        if code is not None and all(_does_nothing(step) for step in dis.get_instructions(code)):
            raise FindingError(NOT_ATTEMPTED, "Write the function and run its cell, then run this one again.")

    def __call__(self, *arguments: object) -> object:
        given = [_copied(argument) for argument in arguments]
        before = [_state(argument) for argument in arguments]
        try:
            with _contained(self.printed):
                result = self.function(*given)
        except (TookTooLongError, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, NotImplementedError) and not error.args:  # torch's own ones say what is missing
                raise FindingError(NOT_ATTEMPTED, "Replace `raise NotImplementedError()` by your code.") from None
            raise FindingError(RAISED, _told(error, self.function)) from None
        for place, (argument, state) in enumerate(zip(given, before, strict=True)):
            _require_as_before(self._name(place), argument, state)
        return result

    def _name(self, place: int) -> str:
        kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        try:
            names = [name for name, known in signature(self.function).parameters.items() if known.kind in kinds]
        except (TypeError, ValueError):
            names = []
        return f"`{names[place]}`" if place < len(names) else f"argument {place + 1}"


def _does_nothing(step: dis.Instruction) -> bool:
    return step.opname in _NOTHING or (step.opname in {"LOAD_CONST", "RETURN_CONST"} and step.argval is None)


class Printed(io.StringIO):
    """Keeps the beginning of what is printed."""

    def write(self, text: str) -> int:
        room = _PRINTED - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)


@contextmanager
def _contained(printed: io.StringIO) -> Iterator[None]:
    """Prints, warnings, the mode of autograd and `os._exit` end here."""
    process, leave = os.getpid(), os._exit

    def exit_(status: int) -> None:
        if os.getpid() == process:
            raise SystemExit(status)  # this process still has to give the verdict
        leave(status)  # a fork, such as a worker of a DataLoader, may go

    with (
        redirect_stdout(printed),
        redirect_stderr(printed),
        warnings.catch_warnings(),
        torch.enable_grad(),
        torch.inference_mode(False),
        patch.object(os, "_exit", exit_),
    ):
        warnings.simplefilter("ignore")
        yield


def _copied(argument: object) -> object:
    """A copy of everything but networks, which are looked at afterwards, and generators, which must go on."""
    if isinstance(argument, Tensor):
        return argument.clone(memory_format=torch.contiguous_format)  # so that view() works
    if isinstance(argument, list | tuple):
        return type(argument)(_copied(entry) for entry in argument)
    if isinstance(argument, dict):
        return {key: _copied(value) for key, value in argument.items()}
    return copy.copy(argument) if isinstance(argument, np.ndarray) else argument


def _state(argument: object) -> object:
    """What must be the same after the call."""
    if isinstance(argument, Model):
        argument = argument.network
    if isinstance(argument, nn.Module):
        modules, parameters = list(argument.modules()), list(argument.parameters())
        return {
            "replaced layers of the network": modules,
            "left hooks behind: keep what register_..._hook returns and call its remove()": [
                (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
                for module in modules
            ],
            "changed the weights of the network": [value.detach().clone() for value in argument.state_dict().values()],
            "switched the network between training and evaluation": [module.training for module in modules],
            "changed requires_grad of the weights": [parameter.requires_grad for parameter in parameters],
            "changed a setting of a layer, such as inplace or stride": [_settings(module) for module in modules],
        }
    return _copied(argument) if isinstance(argument, Tensor | np.ndarray | list | tuple | dict) else None


def _settings(module: nn.Module) -> dict[str, object]:
    known = bool | int | float | str | tuple
    return {name: value for name, value in vars(module).items() if name[0] != "_" and isinstance(value, known)}


def _require_as_before(name: str, argument: object, before: object) -> None:
    if isinstance(argument, Model | nn.Module):
        now = _state(argument)
        for deed, value in before.items():
            if not _same(value, now[deed]):
                raise wrong(f"Your function {deed}.")
    elif before is not None and not _same(before, argument):
        raise wrong(f"Your function changed {name} in place: begin with a copy, for example x = x.clone().")


def _same(one: object, other: object) -> bool:
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and one.shape == other.shape and one.dtype == other.dtype
        return alike and torch.equal(one.nan_to_num(), other.detach().nan_to_num())
    if isinstance(one, list | tuple):
        alike = isinstance(other, list | tuple) and len(one) == len(other)
        return alike and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and _same([*one.values()], [*other.values()])
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return one is other or one == other


def _told(error: BaseException, function: Callable) -> str:
    """The error and the last line of the student's own code on the way to it."""
    kind = type(error).__name__
    text = " ".join(str(error).split())
    message = f"{kind}: {text[:140]}{' ...' * (len(text) > 140)}" if text else kind
    message += next((f". {meaning}" for part, meaning in _MEANINGS.items() if part in text), "")
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    own = [(frame, line) for frame, line in _frames(error) if frame.f_code.co_filename == file]
    if not own:
        return message
    frame, line = own[-1]
    source = linecache.getline(file, line, frame.f_globals).strip()
    return f"{message}\n  line {line} of your cell: {source}" if source else f"{message}\n  in line {line} of your cell"


def _frames(error: BaseException) -> list:
    return [] if error.__traceback__ is None else list(traceback.walk_tb(error.__traceback__))
