"""Checks of lecture 03: cover a part of the picture and see how much the score falls."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.models import Model
from lecturelib.oracles import AdditiveNet, LinearNet


@exercise(3)
def occlude(answer: Answer, case: Case) -> None:
    """`occlude(image, top, left, size, fill)`: the images with a square of one value, cut off at the borders."""
    images, fill = case.rand(2, 3, 7, 9), 0.1 + 0.2 * case.integer(0, 3)
    size = case.integer(2, 3)
    for top, left in ((1, 3), (5, 8), (-1, 2), (3, -1)):
        mistakes = {
            "Top and left are exchanged.": partial(_covered, images, left, top, size, fill),
            "A negative start counts from the other end in Python: use max(top, 0) and max(left, 0).": partial(
                _wrapped, images, top, left, size, fill
            ),
            "The square is one pixel too small.": partial(_covered, images, top, left, size - 1, fill),
            "The square is one pixel too large.": partial(_covered, images, top, left, size + 1, fill),
            "The square is filled with 0, whatever `fill` is.": partial(_covered, images, top, left, size, 0.0),
            "Only the first color is covered.": partial(_one_color, images, top, left, size, fill),
            "Only the first image of the batch is covered.": partial(_one_image, images, top, left, size, fill),
            "You kept the square and covered the rest.": partial(_inverse, images, top, left, size, fill),
            "A square that begins outside of the picture is moved inside; wanted: only its part inside.": partial(
                _covered, images, max(top, 0), max(left, 0), size, fill
            ),
        }
        compare(answer(images, top, left, size, fill), _covered(images, top, left, size, fill), mistakes)


def _covered(images: Tensor, top: int, left: int, size: int, fill: float) -> Tensor:
    images = images.clone()
    images[:, :, max(top, 0) : max(top + size, 0), max(left, 0) : max(left + size, 0)] = fill
    return images


def _one_color(images: Tensor, *window: float) -> Tensor:
    return torch.cat([_covered(images, *window)[:, :1], images[:, 1:]], dim=1)


def _one_image(images: Tensor, *window: float) -> Tensor:
    return torch.cat([_covered(images[:1], *window), images[1:]])


def _inverse(images: Tensor, top: int, left: int, size: int, fill: float) -> Tensor:
    marked = _covered(torch.zeros_like(images), top, left, size, 1.0)
    return torch.where(marked == 1, images, torch.tensor(fill))


def _wrapped(images: Tensor, top: int, left: int, size: int, fill: float) -> Tensor:
    images = images.clone()
    images[:, :, top : top + size, left : left + size] = fill
    return images


@exercise(3)
def occlusion_map(answer: Answer, case: Case) -> None:
    """`occlusion_map(model, x, y, size, stride, fill)`: by how much the score falls, shape (h, w)."""
    chance, log_chance = (partial(function, dim=1) for function in (torch.softmax, torch.log_softmax))
    size, stride, fill, label = case.integer(3, 4), 2, 0.5, case.integer(0, 4)  # windows that overlap
    for network in (LinearNet(case.generator, side=8), case.network()):
        model, image = case.model(network), case.rand(1, 3, 8, 8)
        drop = partial(_drops, model, image, label, size, stride)
        right = drop(fill)
        mistakes = {
            "The sign is wrong: the drop is the score before minus the score with the cover.": -right,
            "This is the score under the cover; wanted: by how much it falls.": partial(drop, fill, before=False),
            "You took the probability; wanted: the score before the softmax.": partial(drop, fill, read=chance),
            "You took the log-probability; wanted: the score before the softmax.": partial(drop, fill, read=log_chance),
            "You took the score of the strongest class; wanted: that of class y.": partial(
                _drops, model, image, int(model(image).argmax()), size, stride, fill
            ),
            "You filled with 0, whatever `fill` is.": partial(drop, 0.0),
            "Rows and columns are exchanged.": right.T,
            "You covered more and more: begin every time with a fresh copy of the picture.": partial(
                drop, fill, fresh=False
            ),
            "You took the absolute value: where the score rises the drop is negative.": right.abs(),
            "You took the absolute value of the drop in probability.": (
                lambda drop=drop: drop(fill, read=chance).abs()
            ),
            "The last row and column are missing: floor((H - size) / stride) + 1 places.": right[:-1, :-1],
        }
        got = answer(model, image, label, size, stride, fill)
        compare(got, right, mistakes, what="the map")


@torch.no_grad()
def _drops(
    model: Model,
    image: Tensor,
    label: int,
    size: int,
    stride: int,
    fill: float,
    *,
    read: Callable[[Tensor], Tensor] = lambda logits: logits,
    before: bool = True,
    fresh: bool = True,
) -> Tensor:
    def score(images: Tensor) -> Tensor:
        return read(model(images))[:, label]

    places = range(0, image.shape[2] - size + 1, stride)
    covers, current = [], image
    for top in places:
        for left in places:
            current = _covered(image if fresh else current, top, left, size, fill)
            covers.append(current)
    scores = score(torch.cat(covers)).view(len(places), len(places))
    return score(image) - scores if before else scores


@exercise(3)
def to_pixels(answer: Answer, case: Case) -> None:
    """`to_pixels(heat, size, stride, height, width)`: for each pixel the mean over the windows that cover it."""
    height, width, size, stride = case.integer(7, 9), case.integer(10, 12), 3, 2
    heat = case.randn((height - size) // stride + 1, (width - size) // stride + 1)
    total, count, first, last = (torch.zeros(height, width) for _ in range(4))
    for i, j in torch.cartesian_prod(torch.arange(heat.shape[0]), torch.arange(heat.shape[1])).tolist():
        window = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
        first[window] = torch.where(count[window] == 0, heat[i, j], first[window])
        last[window] = heat[i, j]
        total[window] += heat[i, j]
        count[window] += 1
    right = total / count.clamp(min=1)
    stretched = torch.nn.functional.interpolate(heat[None, None], size=(height, width))[0, 0]
    mistakes = {
        "You added the windows up; where they overlap, take their mean.": total,
        "Where windows overlap the last one won; wanted: their mean.": last,
        "You stretched the map; wanted: each value in its own window.": stretched,
        "Where windows overlap the first one won; wanted: their mean.": first,
        "You divided by size x size; wanted: by the number of windows over the pixel.": total / size**2,
        "Where windows overlap you took the largest.": _largest(heat, size, stride, height, width),
    }
    got = as_tensor(answer(heat, size, stride, height, width), right.shape)
    require(got.isfinite().all(), "Pixels that no window covers are nan: there the answer is 0.")
    compare(got, right, mistakes, what="the map")


def _largest(heat: Tensor, size: int, stride: int, height: int, width: int) -> Tensor:
    found = torch.full((height, width), -torch.inf)
    for i in range(heat.shape[0]):
        for j in range(heat.shape[1]):
            window = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
            found[window] = found[window].clamp(min=heat[i, j].item())
    return found.nan_to_num(neginf=0)


@exercise(3)
def deletion_curve(answer: Answer, case: Case) -> None:
    """`deletion_curve(model, x, y, order, fill)`: scores after 0, 1, ... pixels were replaced, (n + 1,)."""
    network = AdditiveNet(case.generator) if case.architecture == "plain" else case.network(side=6)
    model, image, label, fill = case.model(network), case.rand(1, 3, 6, 6), case.integer(0, 3), 0.25
    order = case.shuffled(36)[:10]
    right = _deleted(model, image, label, order, fill)
    alone = torch.stack([_deleted(model, image, label, order[i : i + 1], fill)[1] for i in range(10)])
    mistakes = {
        "The score of the whole picture, before anything is deleted, is missing at the beginning.": right[1:],
        "The end is missing: after all n pixels there is one more score, n + 1 in all.": right[:-1],
        "You began every time with the whole picture; deleted pixels stay deleted.": torch.cat([right[:1], alone]),
        "You went through the order backwards.": partial(_deleted, model, image, label, order.flip(0), fill),
        "You took the probability; wanted: the score before the softmax.": partial(
            _deleted, model, image, label, order, fill, chance=True
        ),
        "You filled with 0, whatever `fill` is.": partial(_deleted, model, image, label, order, 0.0),
        "These are the drops; wanted: the scores.": right[0] - right,
        "You divided by the first score; wanted: the scores themselves.": right / right[0],
        "Rows and columns are exchanged: pixel p lies in row p // W and column p % W.": partial(
            _deleted, model, image, label, order % 6 * 6 + order // 6, fill
        ),
        "Only the first color is deleted.": partial(_deleted, model, image, label, order, fill, colors=1),
    }
    compare(answer(model, image, label, order, fill), right, mistakes, what="the curve")


@torch.no_grad()
def _deleted(
    model: Model, image: Tensor, label: int, order: Tensor, fill: float, *, chance: bool = False, colors: int = 3
) -> Tensor:
    stages = [image.flatten(2)]
    for pixel in order:
        stage = stages[-1].clone()
        stage[:, :colors, pixel] = fill
        stages.append(stage)
    logits = model(torch.cat(stages).unflatten(2, image.shape[2:]))
    return (logits.softmax(dim=1) if chance else logits)[:, label]
