"""Is the student's value the right one, and if not, which mistake gives just this value?"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from lecturelib.checks.verdicts import wrong

Value = object  # whatever can become a tensor, or a function without arguments that gives it


def compare(
    got: object,
    expected: Value,
    mistakes: Mapping[str, Value] | Callable[[], Mapping[str, Value]] = MappingProxyType({}),
    *,
    what: str = "the result",
    tolerance: float = 1e-3,
) -> None:
    """Nothing when `got` is right; otherwise `FindingError` with the first mistake that would give this value.

    mistakes: {diagnosis: value}, or a function that gives it and is called only when it is needed.
    tolerance: relative to the largest right value; whole numbers and truth values must agree exactly.
    """
    expected = _tensor(expected)
    value = as_tensor(got, expected.shape, what)
    if alike(value, expected, tolerance):
        return
    for sentence, mistake in (mistakes() if callable(mistakes) else mistakes).items():
        mistaken = _tensor_or_none(mistake)
        if mistaken is not None and alike(value, mistaken, tolerance):
            raise wrong(sentence)
    raise wrong(_difference(value, expected, what, tolerance))


def alike(value: Tensor, expected: Tensor, tolerance: float = 1e-3) -> bool:
    """Whether two tensors have one shape and, up to the tolerance, the same numbers."""
    if value.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return bool((value == expected).all())
    scale = expected.double().abs().nan_to_num().max().item() if expected.numel() else 0.0
    return torch.allclose(value.double(), expected.double(), rtol=tolerance, atol=tolerance * scale + 1e-9)


def as_tensor(got: object, shape: tuple[int, ...] | None = None, what: str = "the result") -> Tensor:
    """The student's value as a tensor on the CPU without history; numbers, lists and NumPy arrays are welcome."""
    if got is None:
        raise wrong("Your function returns None: is the `return` missing?")
    wanted = f"a tensor of shape {tuple(shape)}" if shape is not None and len(shape) else "a number"
    if hasattr(got, "values") and hasattr(got, "indices") and isinstance(got, tuple):
        raise wrong(
            "This is the pair (values, indices) that max, sort and topk give along a dimension: take one of them."
        )
    if isinstance(got, list | tuple) and any(isinstance(entry, Tensor) for entry in got):
        got = [entry.detach().cpu().tolist() if isinstance(entry, Tensor) else entry for entry in got]
    try:
        value = got.detach().cpu() if isinstance(got, Tensor) else torch.as_tensor(np.asarray(got))
    except (TypeError, ValueError, RuntimeError):
        raise wrong(f"{_first_upper(what)} is a {type(got).__name__}; wanted: {wanted}.") from None
    if value.is_complex():
        raise wrong(f"{_first_upper(what)} has complex numbers: take .real.")
    return value if value.dtype != torch.uint8 else value.int()


def require(fine: object, diagnosis: str) -> None:
    """`FindingError` with the diagnosis unless `fine`."""
    if not bool(fine):
        raise wrong(diagnosis)


def _tensor(value: Value) -> Tensor:
    value = value() if isinstance(value, Callable) and not isinstance(value, Tensor) else value
    return value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(value)


def _tensor_or_none(value: Value) -> Tensor | None:
    try:
        return _tensor(value)
    except Exception:  # the mistake cannot be made on this input
        return None


def _difference(value: Tensor, expected: Tensor, what: str, tolerance: float) -> str:
    """What can be said about a wrong value when it is no mistake that we know."""
    what = _first_upper(what)
    if value.shape != expected.shape:
        turned = value.ndim > 1 and value.transpose(-1, -2).shape == expected.shape
        hint = " (are rows and columns exchanged?)" if turned else ""
        return f"{what} has shape {tuple(value.shape)}; wanted: {tuple(expected.shape)}{hint}."
    if not expected.is_floating_point() or value.dtype == torch.bool:
        differ = (value != expected).flatten()
        return f"{what} differs at {int(differ.sum())} of {differ.numel()} places.{_example(value, expected, differ)}"
    value, expected = value.double(), expected.double()
    if not bool(value.isfinite().all()):
        return f"{what} has values that are not finite (nan or inf)."
    factor = (value * expected).sum() / expected.square().sum().clamp_min(1e-30)
    if expected.numel() > 1 and factor.abs() > 1e-3 and alike(value, factor * expected, tolerance):
        return (
            f"{what} has the wrong sign." if abs(factor + 1) < 0.01 else f"{what} is {factor:.4g} times the right one."
        )
    shift = (value - expected).mean()
    if expected.numel() > 1 and alike(value - shift, expected, tolerance):
        return f"{what} is everywhere {shift:+.4g} away from the right one."
    differ = (value - expected).abs().flatten() > tolerance * expected.abs().max() + 1e-9
    return f"{what} differs at {int(differ.sum())} of {differ.numel()} places.{_example(value, expected, differ)}"


def _example(value: Tensor, expected: Tensor, differ: Tensor) -> str:
    if not bool(differ.any()):
        return ""
    place = int(differ.int().argmax())
    index = [int(number) for number in np.unravel_index(place, expected.shape)]
    shown, wanted = value.flatten()[place].item(), expected.flatten()[place].item()
    numbers = f"{shown}, wanted {wanted}" if not expected.is_floating_point() else f"{shown:.4g}, wanted {wanted:.4g}"
    return f" At {index}: {numbers}." if index else f" It is {numbers}."


def _first_upper(words: str) -> str:
    return words[:1].upper() + words[1:]
