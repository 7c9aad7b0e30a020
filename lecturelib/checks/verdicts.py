"""What a check can say about an answer: one of five verdicts, with a sentence for the student."""

from dataclasses import dataclass

NOT_ATTEMPTED = "not attempted"
RIGHT = "right"
WRONG = "wrong"
RAISED = "your code raised an error"
TOO_LONG = "took too long"
KINDS = (NOT_ATTEMPTED, RIGHT, WRONG, RAISED, TOO_LONG)


@dataclass(frozen=True)
class Verdict:
    """The verdict on one exercise: its kind, one of `KINDS`, what it says, and what the student's code printed."""

    exercise: str
    kind: str
    text: str = ""
    printed: str = ""

    @property
    def right(self) -> bool:
        return self.kind == RIGHT

    def __str__(self) -> str:
        return f"{self.exercise}: {self.kind}. {self.text}".rstrip()


class FindingError(Exception):
    """Ends a check: the verdict is found. Only the machinery of the checks raises and catches it."""

    def __init__(self, kind: str, text: str = ""):
        super().__init__(text)
        self.kind, self.text = kind, text


def wrong(diagnosis: str) -> FindingError:
    """To be raised when the answer is wrong, with what the student probably did."""
    return FindingError(WRONG, diagnosis)
