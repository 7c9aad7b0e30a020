"""The checks of the homework: one for each exercise, on networks and inputs that are drawn anew every time.

A check calls the student's function and compares with what must come out in closed form, or has a property that only
the right answer has. When the value is wrong, it is compared with what the well-known mistakes would give.
"""

from lecturelib.checks import (  # noqa: F401  importing a lecture's module registers its exercises
    activations,
    adversarial,
    ascent,
    deepdream,
    faststyle,
    inversion,
    layers,
    occlusion,
    saliency,
    style,
    texture,
)
from lecturelib.checks.exercises import EXERCISES, Exercise, check, judge
from lecturelib.checks.verdicts import Verdict

__all__ = ["EXERCISES", "Exercise", "Verdict", "check", "judge"]
