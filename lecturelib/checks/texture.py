"""Checks of lecture 09: what a texture is, and where to cut it."""

import torch
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise


def gram_of(features: Tensor) -> Tensor:
    """The mean outer product of the columns, shape (N, C, C)."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


@exercise(9)
def gram(answer: Answer, case: Case) -> None:
    """`gram(features)`: (N, C, h, w) -> (N, C, C), the mean over the positions."""
    count, channels, height, width = 2, case.integer(3, 6), case.integer(4, 6), case.integer(7, 9)
    for features in (case.model(side=8).activation(case.rand(2, 3, 8, 8), "relu1"), case.randn(2, channels, 5, 7)):
        count, channels, height, width = features.shape
        flat, right = features.flatten(2), gram_of(features)
        centered = flat - flat.mean(dim=2, keepdim=True)
        mixed = features.permute(0, 2, 3, 1).reshape(count, channels, -1)
        mistakes = {
            "Divide by the number of positions h w: this grows with the picture.": right * height * width,
            "You divided by C h w; wanted: by h w, so that this is the mean over the positions.": right / channels,
            "You divided by the number of channels; wanted: by the number of positions h w.": (
                right * height * width / channels
            ),
            "You compared positions with positions; wanted: channels with channels, shape (N, C, C).": (
                lambda flat=flat, count=channels: flat.transpose(1, 2) @ flat / count
            ),
            "You compared positions with positions; wanted: channels with channels, (N, C, C).": (
                lambda flat=flat: flat.transpose(1, 2) @ flat / flat.shape[2]
            ),
            "You subtracted the mean: that is the covariance.": centered @ centered.transpose(1, 2) / height / width,
            "You mixed the images of the batch: each has its own Gram matrix.": (
                lambda flat=flat, right=right: right.mean(dim=0, keepdim=True).expand_as(right)
            ),
            "You mixed the images of the batch: each has its own Gram matrix, shape (N, C, C).": right.mean(dim=0),
            "You added the images of the batch up: each has its own Gram matrix, shape (N, C, C).": right.sum(dim=0),
            "The channels got mixed: after permute, a reshape to (N, C, h w) cuts across them.": (
                mixed @ mixed.transpose(1, 2) / height / width
            ),
            "You divided by the number of images.": right / count,
            "You normalized the channels: these are cosines.": (
                torch.nn.functional.normalize(flat, dim=2) @ torch.nn.functional.normalize(flat, dim=2).transpose(1, 2)
            ),
        }
        compare(answer(features), right, mistakes, what="the Gram matrix")


@exercise(9)
def style_energy(answer: Answer, case: Case) -> None:
    """`style_energy(F, F0)`: Gatys' E = sum (G - G0)^2 / (4 C^2 M^2) with G = F F^T, for one layer; a number."""
    channels, places = case.integer(3, 5), case.integer(6, 9)
    features, target = case.randn(channels, places), case.randn(channels, places)
    squares = (features @ features.T - target @ target.T).square().sum()
    right = squares / (4 * channels**2 * places**2)
    mistakes = {
        "The factor 1/4 is missing.": 4 * right,
        "The 2 of 1/4 is squared already: divide by 4, not by 2.": 2 * right,
        "Here G = F F^T is not divided by the number of positions M.": right / places**2,
        "Python divides from left to right: put brackets around 4 C^2 M^2.": squares / 4 * channels**2 * places**2,
        "M is not squared.": right * places,
        "C is not squared.": right * channels,
        "Neither C nor M is squared.": right * channels * places,
        "You compared the features; wanted: their Gram matrices.": (features - target).square().sum()
        / (4 * channels**2 * places**2),
        "You took the mean over the entries; wanted: their sum.": right / channels**2,
        "This is the mean over the entries (mse_loss); wanted: the sum, divided by 4 C^2 M^2.": squares / channels**2,
        "The division by 4 C^2 M^2 is missing.": squares,
        "You took the root: wanted the sum of squares.": squares.sqrt() / (4 * channels**2 * places**2),
        "You compared positions: wanted G = F F^T, not F^T F.": (features.T @ features - target.T @ target)
        .square()
        .sum()
        / (4 * channels**2 * places**2),
        "You took absolute differences; wanted: squares.": (features @ features.T - target @ target.T).abs().sum()
        / (4 * channels**2 * places**2),
    }
    compare(answer(features, target), right, mistakes, what="the energy")


@exercise(9)
def min_error_cut(answer: Answer, case: Case) -> None:
    """`min_error_cut(error)`: (H, W) -> for each row a column, the cheapest way down (Efros and Freeman, 2001)."""
    tricky = torch.tensor([[0.1, 0.5, 0.5], [0.9, 0.9, 0.0], [0.9, 0.9, 0.0]])  # greed and jumps go wrong
    for error in (case.rand(case.integer(5, 7), 4), tricky, case.rand(5, 1)):
        path = as_tensor(answer(error), (error.shape[0],), "the cut").long()
        across = path.shape == error.shape[1:] != error.shape[:1]
        require(not across, "The cut has a number for each column; wanted: a column for each row, from top to bottom.")
        require(path.shape == error.shape[:1], f"The cut names {tuple(path.shape)} columns; wanted: one for each row.")
        require(bool(((path >= 0) & (path < error.shape[1])).all()), "The cut leaves the array.")
        steps = path.diff().abs()
        jumps = bool((error.argmin(dim=1) == path).all()) and bool((steps > 1).any())
        require(not jumps, "You took each row's smallest error; the cut may move by one column at most per row.")
        require(bool((steps <= 1).all()), "The cut moves by more than one column from a row to the next.")
        cost, best, worst = _cost(error, path), _cheapest(error), -_cheapest(-error)
        require(abs(cost - worst) > 1e-5 or abs(cost - best) < 1e-5, "This is the most expensive way.")
        turned = cost > best + 1e-5 and abs(_cost(error, path.flip(0)) - best) < 1e-5
        require(not turned, "The cut is upside down: the first column belongs to the top row.")
        greedy = cost > best + 1e-5 and path.tolist() == _greedy(error)
        require(not greedy, "You always took the cheapest next step; look ahead: add the errors up row by row first.")
        require(cost <= best + 1e-5, f"There is a cheaper way: it costs {best:.3f}, yours {cost:.3f}.")


def _cost(error: Tensor, path: Tensor) -> float:
    return error.gather(1, path[:, None]).sum().item()


def _cheapest(error: Tensor) -> float:
    total = error[0]
    for row in error[1:]:
        padded = torch.nn.functional.pad(total, (1, 1), value=float("inf"))
        total = row + torch.stack([padded[:-2], padded[1:-1], padded[2:]]).amin(dim=0)
    return total.min().item()


def _greedy(error: Tensor) -> list[int]:
    path = [int(error[0].argmin())]
    for row in error[1:]:
        low = max(path[-1] - 1, 0)
        path.append(low + int(row[low : path[-1] + 2].argmin()))
    return path
