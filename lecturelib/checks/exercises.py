"""The exercises by name, and the two ways to have an answer judged: `judge` and, in a notebook, `check`."""

import itertools
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from lecturelib.checks.answers import Answer, Printed
from lecturelib.checks.cases import ARCHITECTURES, Case, own_world
from lecturelib.checks.limits import TookTooLongError, time_limit
from lecturelib.checks.verdicts import NOT_ATTEMPTED, RIGHT, TOO_LONG, WRONG, FindingError, Verdict
from lecturelib.errors import nearest

SECONDS = 10.0  # of the processor, that an answer may take in one check
_SHOWN = 3  # lines of what the student's code printed

Round = Callable[[Answer, Case], None]  # raises `FindingError` unless the answer is right


@dataclass(frozen=True)
class Exercise:
    """The name of the function that the student writes, its lecture, and the check of one round."""

    name: str
    lecture: int
    round: Round


EXERCISES: dict[str, Exercise] = {}
_asked: Counter[str] = Counter()


def exercise(lecture: int) -> Callable[[Round], Round]:
    """Makes the decorated function the check of the exercise that has its name."""

    def register(round_: Round) -> Round:
        EXERCISES[round_.__name__] = Exercise(round_.__name__, lecture, round_)
        return round_

    return register


def judge(
    name: str,
    function: object,
    *,
    seed: int = 0,
    rounds: int = 1,
    architectures: tuple[str, ...] = ARCHITECTURES,
    seconds: float = SECONDS,
) -> Verdict:
    """The verdict on a function. It never raises, and the same function with the same seed gets the same verdict.

    rounds: how many times fresh inputs are drawn for each of the architectures.
    """
    printed = Printed()
    verdict = _judged(name, function, printed, seed, rounds, architectures, seconds)
    return replace(verdict, printed=printed.getvalue())


def check(name: str, points: float = 1, *, seed: int | None = None, rounds: int = 1) -> float:
    """Judges the notebook's function of this name, prints the verdict, and gives the points: all of them or 0.

    Inputs are drawn anew with every call; the first call in a fresh kernel always draws the same, so that grading
    twice gives one result.
    """
    if name not in EXERCISES:
        print(f"There is no exercise {name!r}. Near it: {', '.join(nearest(str(name), list(EXERCISES)))}.")
        return 0
    _asked[name] += 1
    namespace = sys._getframe(1).f_globals
    if name not in namespace:
        verdict = Verdict(name, NOT_ATTEMPTED, f"There is no function `{name}`: run the cell that defines it.")
    else:
        verdict = judge(
            name, namespace[name], seed=_asked[name] if seed is None else seed, rounds=rounds, seconds=rounds * SECONDS
        )
    gained = points if verdict.right else 0
    print(f"{verdict}\n{gained:g} of {points:g} points")
    if lines := [line for line in verdict.printed.splitlines() if line.strip()]:
        print(
            "Your code printed:", *(line[:100] for line in lines[:_SHOWN]), *["..."] * (len(lines) > _SHOWN), sep="\n  "
        )
    return gained


def _judged(
    name: str,
    function: object,
    printed: Printed,
    seed: int,
    rounds: int,
    architectures: tuple[str, ...],
    seconds: float,
) -> Verdict:
    try:
        with own_world(seed), time_limit(seconds):
            if not callable(function):
                raise FindingError(WRONG, f"`{name}` is not a function but of type {type(function).__name__}.")
            answer = Answer(function, printed)
            for number, architecture in itertools.product(range(rounds), architectures):
                EXERCISES[name].round(answer, Case(name, architecture, 1000 * seed + number))
        return Verdict(name, RIGHT)
    except FindingError as finding:
        return Verdict(name, finding.kind, finding.text)
    except TookTooLongError:
        return Verdict(
            name,
            TOO_LONG,
            f"Stopped after {seconds:g} seconds of work, or six times that of waiting. Is there a loop without an end?",
        )
    except KeyboardInterrupt:
        return Verdict(name, TOO_LONG, "You stopped it.")
    except BaseException as error:  # a value so odd that our own code stumbles over it
        return Verdict(name, WRONG, f"The result could not be judged ({type(error).__name__}: {str(error)[:100]}).")
