"""One family of errors. Every message says what was wrong, what was received and what to do.

The subclasses are also `ValueError`s, so that code which knows nothing of this course can catch them.
"""

from difflib import get_close_matches


class LectureError(ValueError):
    """Something a user of the course can put right."""

    def __init__(self, what: str, *, received: object = None, do: str | None = None):
        lines = [_capitalized(what) + "."]
        if received is not None:
            lines.append(f"Received: {received}.")
        if do is not None:
            lines.append(_capitalized(do) + ".")
        super().__init__("\n".join(lines))


class ImageInputError(LectureError):
    """This is not a picture we can use."""


class ModelNameError(LectureError):
    """There is no network of this name."""


class LayerNameError(LectureError):
    """The network has no layer of this name, or the layer cannot do what was asked."""


class ClassNameError(LectureError):
    """The network knows no such class, or several."""


class ScoreError(LectureError):
    """A score must give one number per image."""


class ArgumentError(LectureError):
    """A number or a choice is outside what is possible."""


class OptimizationError(LectureError):
    """The numbers of an optimization ran away before anything was gained."""


class DownloadError(LectureError):
    """Something could not be fetched."""


class WeightsError(LectureError):
    """A file of weights is damaged or belongs to another network."""


class CheckpointError(LectureError):
    """A checkpoint cannot be continued."""


def _capitalized(sentence: str) -> str:
    """With a capital first letter, unless it begins with a name such as mini_vgg or load_image(...)."""
    first = sentence.split(" ", 1)[0].rstrip(",;:")
    return sentence[:1].upper() + sentence[1:] if first.isalpha() else sentence


def nearest(name: str, names: list[str], *, count: int = 3) -> list[str]:
    """Those of `names` that look most like `name`, best first."""
    spelled = {}
    for candidate in names:
        spelled.setdefault(candidate.lower(), candidate)
    return [spelled[match] for match in get_close_matches(name.lower(), list(spelled), n=count, cutoff=0)]
