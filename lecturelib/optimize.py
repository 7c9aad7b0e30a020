"""One loop with two signs: `maximize` a score, `minimize` a loss, over images or over what images are made of."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import inf
from numbers import Real
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from lecturelib.canvas import Canvas, Pixels
from lecturelib.errors import ArgumentError, ScoreError
from lecturelib.modes import recording
from lecturelib.notices import Best, tell_result, tell_stop, tell_unmoved
from lecturelib.regularizers import AfterStep
from lecturelib.scores import Score, evaluate
from lecturelib.step_rules import STEP_RULES, Look, View
from lecturelib.transforms import Transform

OnStep = Callable[[int, Tensor, Tensor], object]
LOOKS = 10  # under a transform, about so many of them judge together
_DETACHED = "do not detach the images or use no_grad in it, and compute with tensors only"


def maximize(
    start: Tensor | Canvas,
    score: Score,
    *,
    steps: int = 200,
    lr: float = 0.05,
    step_rule: str = "adam",
    transform: Transform | None = None,
    after_step: AfterStep | None = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """Images (N, 3, H, W) with a large score, found by climbing from `start`: for each image the best one on the way.

    start: images, whose pixels are then changed within [0, 1], or a canvas (`Pixels`, `Fourier`, `Code`).
    step_rule: what follows from the gradient g of each image: "adam"; "sgd": lr g; "normalized": lr g / sqrt(mean g^2),
        so that lr is the typical change of a value; "sign": lr sign(g), for attacks; "lbfgs": a step towards the top of
        a quadratic model, with lr about 1, which couples the images of a batch.
    transform: what the score sees at each step (`jitter`, ...), drawn with `generator`.
    after_step: a change of the pixels after each step (`blur_every`, ...): f(images, gradient, step) -> images.
    on_step: called as on_step(step, images, scores) before each step and at the end, for curves and previews.

    The best is judged by the score. With a transform one look is a matter of luck, so the mean of the last looks
    judges, about ten of them; it costs no pass of its own, and until there are so many the newest is the best. An
    interrupt returns the best so far and says from which step. So does a number that is no longer finite; if nothing
    was gained before, it raises `OptimizationError`. Warnings tell when nothing moved, and when the result is grey or
    burnt.
    """
    options = Options(steps, lr, step_rule, transform, after_step, generator, on_step, progress)
    return climb(start, score, options).images


def minimize(
    start: Tensor | Canvas,
    loss: Score,
    *,
    steps: int = 200,
    lr: float = 0.05,
    step_rule: str = "adam",
    transform: Transform | None = None,
    after_step: AfterStep | None = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
    progress: bool = True,
) -> Tensor:
    """Images (N, 3, H, W) with a small loss: `maximize` with the other sign. `on_step` is given losses."""
    told = None if on_step is None else lambda step, images, scores: on_step(step, images, -scores)
    options = Options(steps, lr, step_rule, transform, after_step, generator, told, progress)
    return climb(start, lambda images: -evaluate(loss, images), options).images


class Options(NamedTuple):
    """The options of `maximize`, for functions of the course that climb several times."""

    steps: int = 200
    lr: float = 0.05
    step_rule: str = "adam"
    transform: Transform | None = None
    after_step: AfterStep | None = None
    generator: torch.Generator | None = None
    on_step: OnStep | None = None
    progress: bool = True


class Climb(NamedTuple):
    """How a climb ended: the best images, and what stopped it early (`KeyboardInterrupt`, ...), if anything did."""

    images: Tensor
    stop: BaseException | None


class _NotFiniteError(ArithmeticError):
    """A score or a gradient is NaN or infinite."""


@recording(True)
def climb(start: Tensor | Canvas, score: Score, options: Options) -> Climb:
    """`maximize`, for callers that have more to do and must know whether the loop was interrupted."""
    _require_options(start, options)
    canvas = Pixels(start) if isinstance(start, Tensor) else start
    first = canvas.image().detach().clone()
    best, judged, step, flat, stop = Best.of_start(first), None, 0, None, None
    try:
        look = _looker(canvas, score, options)
        take_step = _stepper(canvas, look, options)
        with _bar(options) as bar:
            for step in range(options.steps):
                view = look()
                if flat is None:
                    flat = torch.stack([(g == 0).flatten(1).all(dim=1) for g in view.gradients]).all(dim=0)
                judged = _judged(judged, view.scores, step, options)
                best = best.or_better(
                    view.images, judged, step, anyway=~flat if _too_few_looks(step, options) else None
                )
                if options.on_step:
                    options.on_step(step, view.images.clone(), view.scores)
                take_step(view, step + 1)
                if bar:
                    bar.update()
            step = options.steps
            images, scores = _last_look(canvas, score, options)
            best = best.or_better(images, _judged(judged, scores, step, options), step)
    except (KeyboardInterrupt, torch.OutOfMemoryError, _NotFiniteError) as error:
        stop = error
        tell_stop(error, best, step, options.steps, options.lr)
    else:
        if options.steps:
            tell_unmoved(best, flat)
        if options.steps and not _is_ball(canvas):
            tell_result(first, best, last=canvas.image().detach())
    finally:
        for parameter in canvas.parameters():
            parameter.grad = None
    return Climb(best.images, stop)


def _bar(options: Options) -> AbstractContextManager[tqdm | None]:
    # Even a bar that is switched off takes the lock of all bars, which an interrupt in that moment leaves locked.
    return tqdm(total=options.steps, delay=0.5, leave=False) if options.progress else nullcontext()


def _judged(before: Tensor | None, scores: Tensor, step: int, options: Options) -> Tensor:
    """What judges the images of this step: their scores, or under a transform a running mean of the scores so far."""
    if options.transform is None or before is None:
        return scores
    return before + (scores - before) / min(step + 1, LOOKS)


def _too_few_looks(step: int, options: Options) -> bool:
    """Whether the mean says too little yet: then a lucky look at the start would win against all that follow."""
    return options.transform is not None and step < min(LOOKS, options.steps)


def _last_look(canvas: Canvas, score: Score, options: Options) -> tuple[Tensor, Tensor]:
    """The images after the last step and their scores."""
    with torch.no_grad():
        images = canvas.image().detach()
        scores = evaluate(score, _seen(images, options))
    if not bool(scores.isfinite().all()):
        raise _NotFiniteError
    if options.on_step:
        options.on_step(options.steps, images.clone(), scores)
    return images, scores


def _seen(images: Tensor, options: Options) -> Tensor:
    """What the score is given of the images."""
    return images if options.transform is None else options.transform(images, options.generator)


def _looker(canvas: Canvas, score: Score, options: Options) -> Look:
    def look() -> View:
        images = canvas.image()
        scores = evaluate(score, _seen(images, options))
        if not scores.requires_grad:
            raise ScoreError("the score does not depend on the images, so it cannot be climbed", do=_DETACHED)
        gradients = torch.autograd.grad(scores.sum(), canvas.parameters(), allow_unused=True, materialize_grads=True)
        if not bool(torch.stack([value.isfinite().all().to(images.device) for value in (scores, *gradients)]).all()):
            raise _NotFiniteError
        return View(images.detach(), scores.detach(), [gradient.contiguous() for gradient in gradients])

    return _remembering(look, canvas.parameters()) if options.step_rule == "lbfgs" else look


def _remembering(look: Look, parameters: list[Tensor]) -> Look:
    """`look` that answers from memory while the parameters stay: L-BFGS begins each step where its search has ended."""
    place, view = None, None

    def remembering() -> View:
        nonlocal place, view
        if place is None or not all(map(torch.equal, place, parameters)):
            place, view = None, look()
            place = [parameter.detach().clone() for parameter in parameters]
        return view

    return remembering


def _stepper(canvas: Canvas, look: Look, options: Options) -> Callable[[View, int], None]:
    """A function that takes one step from where `view` was seen."""
    change = STEP_RULES[options.step_rule](canvas.parameters(), options.lr, look)

    def take_step(view: View, step: int) -> None:
        change(view.gradients)
        canvas.project()
        if options.after_step:
            with torch.no_grad():
                canvas.replace(options.after_step(canvas.image().detach().clone(), view.gradients[0], step))

    return take_step


def _is_ball(canvas: Canvas) -> bool:
    """Whether the pixels stay in a box of their own, in which small changes are what is wanted."""
    return isinstance(canvas, Pixels) and canvas.low.ndim + canvas.high.ndim > 0


def _require_options(start: Tensor | Canvas, options: Options) -> None:
    steps, lr = options.steps, options.lr
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ArgumentError("steps is a whole number from 0", received=repr(steps), do="for example steps=200")
    if isinstance(lr, bool) or not isinstance(lr, Real) or not 0 < lr < inf:
        raise ArgumentError("a learning rate is a positive number", received=repr(lr), do="for example lr=0.05")
    if options.step_rule not in STEP_RULES:
        raise ArgumentError(
            "there is no such step rule", received=repr(options.step_rule), do=f"choose one of {', '.join(STEP_RULES)}"
        )
    if options.step_rule == "lbfgs" and options.transform:
        raise ArgumentError(
            "L-BFGS needs a score that stays the same", received="a transform", do='use step_rule="adam"'
        )
    if options.after_step and not isinstance(start, Tensor | Pixels):
        raise ArgumentError(
            "after_step changes pixels", received=type(start).__name__, do="climb from images, or leave it out"
        )
