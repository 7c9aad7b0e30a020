"""How an optimization ended, in words: interrupted, run away, not moved, grey or burnt, with the likely cure."""

import warnings
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from lecturelib.errors import OptimizationError

_VISIBLE = 0.5 / 255  # a smaller change disappears when the picture is shown or saved


class Best(NamedTuple):
    """For each image the best so far: images (N, 3, H, W), scores (N,), and the steps (N,) after which it was seen."""

    images: Tensor
    scores: Tensor
    steps: Tensor

    @classmethod
    def of_start(cls, images: Tensor) -> "Best":
        return cls(images, images.new_full((len(images),), -inf), images.new_zeros(len(images), dtype=torch.long))

    def or_better(self, images: Tensor, scores: Tensor, step: int, *, anyway: Tensor | None = None) -> "Best":
        """With those of `images` that score higher; a new object, so that an interrupt finds the old or the new one.

        anyway: which images win whatever they score, a mask (N,).
        """
        scores = scores.detach().to(self.scores)
        won = scores > self.scores
        if anyway is not None:
            won = won | anyway.to(won.device)
        return Best(
            torch.where(won[:, None, None, None], images, self.images),
            torch.where(won, scores, self.scores),
            self.steps.masked_fill(won, step),
        )


def tell_stop(error: BaseException, best: Best, step: int, steps: int, lr: float) -> None:
    """Why the loop stopped at `step`; raises `OptimizationError` if it ran away before anything was gained."""
    if isinstance(error, KeyboardInterrupt):
        _tell(f"Interrupted after {step} of {steps} steps; the best so far is returned ({_seen(best)}).")
        return
    if isinstance(error, torch.OutOfMemoryError):
        what, do = "the memory ran out", "make the picture smaller, or fewer pictures at once"
    else:
        what = "the score or its gradient is not a finite number"
        seen = bool(best.scores.isfinite().all())
        do = f"try a learning rate below {lr:g}" if seen else "look at the score of the start: score(image)"
    if not bool(best.steps.any()):
        received = f"step {step} of {steps}, before anything was gained"
        raise OptimizationError(what, received=received, do=do) from error
    _tell(f"At step {step} of {steps} {what}; the best so far is returned ({_seen(best)}). To go on, {do}.")


def tell_unmoved(best: Best, flat: Tensor) -> None:
    """That the start is the best that was seen; flat: for each image, whether the gradient was zero there."""
    stayed = best.steps == 0
    flat = flat.to(stayed.device) & stayed
    if bool(flat.any()):
        _tell(
            f"Nothing moved{_which(flat)}, because the gradient at the start is zero: behind dead ReLUs or a saturated "
            "probability no direction leads up. Start from grey_noise(), or climb class_score(...)."
        )
    elif bool(stayed.any()):
        _tell(f"No step was better than the start{_which(stayed)}, which is returned. Try a smaller learning rate.")


def tell_result(first: Tensor, best: Best, *, last: Tensor) -> None:
    """What does not look right after a complete loop; first, last: the images before and after all steps."""
    moved = best.steps > 0
    still = (last - first).abs().flatten(1).amax(dim=1) < _VISIBLE
    if bool((still & moved).any()):
        _tell(f"The change is too small to be seen{_which(still & moved)}. Try a larger learning rate or more steps.")
    burnt = _share_at_ends(best.images) - _share_at_ends(first) > 0.5
    if bool(burnt.any()):
        _tell(
            f"More than half of the values became 0 or 1{_which(burnt)} ({_seen(best)}): the colors are burnt. "
            "Try a smaller learning rate, fewer steps, or a penalty such as l2."
        )
    grey = best.images.flatten(1).std(dim=1) < _VISIBLE
    if bool((grey & moved).any()):
        _tell(f"The result is one flat grey{_which(grey & moved)} ({_seen(best)}). Try weaker penalties.")


def _share_at_ends(images: Tensor) -> Tensor:
    return ((images <= 0) | (images >= 1)).flatten(1).float().mean(dim=1)


def _seen(best: Best) -> str:
    low, high = int(best.steps.min()), int(best.steps.max())
    return f"from step {low}" if low == high else f"from steps {low} to {high}"


def _which(chosen: Tensor) -> str:
    """Which images of a batch are meant; nothing for a single image."""
    if len(chosen) == 1:
        return ""
    return f" in images {', '.join(map(str, chosen.nonzero().flatten().tolist()))}"


def _tell(text: str) -> None:
    warnings.warn(text, stacklevel=6)  # the line of the student that called maximize or minimize
