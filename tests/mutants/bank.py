"""Right and wrong answers to the exercises, as students write them: `@right` and `@wrong` put them into the bank."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """An answer to an exercise. expected: words of the diagnosis; "" where none is known; None for a right answer."""

    exercise: str
    function: Callable
    expected: str | None

    @property
    def name(self) -> str:
        return self.function.__name__


BANK: list[Entry] = []


def right(exercise: str) -> Callable:
    return _entry(exercise, None)


def wrong(exercise: str, expected: str = "") -> Callable:
    return _entry(exercise, expected)


def _entry(exercise: str, expected: str | None) -> Callable:
    def put(function: Callable) -> Callable:
        BANK.append(Entry(exercise, function, expected))
        return function

    return put
