"""Checks of lecture 01: the weights of the first layer, the codes of the last one."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise


@exercise(1)
def stretch_filters(answer: Answer, case: Case) -> None:
    """`stretch_filters(w)`: each filter (N, 3, h, w) brought to [0, 1], its smallest value 0, its largest 1."""
    drawn = case.randn(4, 3, 3, 5) * (1 + 3 * case.rand(4, 1, 1, 1)) + case.randn(4, 3, 1, 1)
    for weights in (case.network().conv1.weight.detach(), drawn):
        low, high = weights.amin(dim=(1, 2, 3), keepdim=True), weights.amax(dim=(1, 2, 3), keepdim=True)
        by_color = weights.amin(dim=(2, 3), keepdim=True), weights.amax(dim=(2, 3), keepdim=True)
        mistakes = {
            "All filters share one minimum and maximum; wanted: each filter its own.": (weights - weights.min())
            / (weights.max() - weights.min()),
            "Each color has its own minimum and maximum: that changes the hue. Wanted: one for each filter.": (
                weights - by_color[0]
            )
            / (by_color[1] - by_color[0]),
            "You divided by the maximum; wanted: by maximum minus minimum.": (weights - low) / high,
            "You stretched to [-1, 1]; wanted: [0, 1].": 2 * (weights - low) / (high - low) - 1,
            "You brought each filter to mean 0 and deviation 1; wanted: the smallest to 0, the largest to 1.": (
                weights - weights.mean(dim=(1, 2, 3), keepdim=True)
            )
            / weights.std(dim=(1, 2, 3), keepdim=True),
            "You did not subtract the minimum.": weights / high,
            "Negative weights were cut off; wanted: the smallest becomes 0.": (weights / high).clamp(0, 1),
            "You took the absolute value: negative weights look like positive ones.": weights.abs()
            / weights.abs().amax(dim=(1, 2, 3), keepdim=True),
            "The result is upside down: the largest weight became 0.": (high - weights) / (high - low),
        }
        compare(answer(weights), (weights - low) / (high - low), mistakes, what="the picture")
    flat = as_tensor(answer(torch.full((1, 3, 2, 2), 0.3)))
    require(flat.isfinite().all(), "A filter whose weights are all equal gives nan: guard the division by 0.")


@exercise(1)
def template_scores(answer: Answer, case: Case) -> None:
    """`template_scores(filters, patches)`: the inner product of every patch with every filter, shape (N, K)."""
    filters, patches = case.randn(4, 3, 3, 5), case.randn(6, 3, 3, 5)
    right = patches.flatten(1) @ filters.flatten(1).T
    turned = patches.flatten(1) @ filters.flip(2, 3).flatten(1).T
    cosine = F.normalize(patches.flatten(1)) @ F.normalize(filters.flatten(1)).T
    mistakes = {
        "Rows are the patches, columns the filters; yours are exchanged.": right.T,
        "You took the mean; wanted: the sum of the products.": right / filters[0].numel(),
        "You turned the filters round: that is the convolution of mathematics. Networks do not turn them.": turned,
        "You divided by the norms: that is the cosine.": cosine,
        "You used only the first color.": patches[:, 0].flatten(1) @ filters[:, 0].flatten(1).T,
        "You added the values of patch and filter; wanted: the sum of their products.": (
            patches.sum(dim=(1, 2, 3))[:, None] + filters.sum(dim=(1, 2, 3))
        ),
        "You multiplied the sums; wanted: the sum of the products.": patches.sum(dim=(1, 2, 3))[:, None]
        * filters.sum(dim=(1, 2, 3)),
        "These are distances; wanted: inner products.": torch.cdist(patches.flatten(1), filters.flatten(1)),
    }
    compare(answer(filters, patches), right, mistakes, what="the table of scores")
    diagonal = (2 * torch.eye(3)).expand(1, 1, 3, 3)
    slide = torch.tensor(
        [
            [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
            [[0, 0, 0], [0, 0, 0], [3, 3, 3]],
            [[3, 0, 0], [0, 3, 0], [0, 0, 3]],
            [[0, 0, 0], [1, 2, 1], [3, 1, 1]],
        ]
    )
    wanted = torch.tensor([[6.0], [6.0], [18.0], [6.0]])
    compare(answer(diagonal, slide[:, None].float()), wanted, what="the scores of the lecture's four patches")


@exercise(1)
def knn_l2(answer: Answer, case: Case) -> None:
    """`knn_l2(queries, gallery, k)`: the k nearest rows of the gallery for each query, nearest first, shape (Q, k)."""
    size = case.integer(4, 9)
    for spread in (1.0, 0.1):  # the second gallery lies on one side: norms matter
        gap = 0.0
        while gap < 1e-4:  # no two neighbors so near to a tie that rounding decides
            gallery = spread * case.randn(30, size) * (0.3 + case.rand(30, 1)) + case.randn(size)
            queries, k = gallery[:4] + 0.3 * spread * case.randn(4, size), case.integer(3, 6)
            distance = torch.cdist(queries, gallery)
            gap = distance.sort(dim=1).values.diff(dim=1)[:, :k].min().item()
        order = distance.argsort(dim=1)
        mistakes = {
            "These are the farthest; wanted: the nearest.": order.flip(1)[:, :k],
            "You left out the nearest: no query lies in the gallery.": order[:, 1 : k + 1],
            "The neighbors are right, but not in order: the nearest comes first.": order[:, :k].flip(1),
            "You took the sum of absolute differences (L1); wanted: L2.": lambda a=queries, b=gallery, k=k: torch.cdist(
                a, b, p=1
            ).argsort(dim=1)[:, :k],
            "You took the largest inner product: a long vector then looks near. Wanted: L2.": (
                (queries @ gallery.T).argsort(dim=1, descending=True)[:, :k]
            ),
            "You took the cosine; wanted: the L2 distance.": (
                (F.normalize(queries) @ F.normalize(gallery).T).argsort(dim=1, descending=True)[:, :k]
            ),
            "These are the distances; wanted: the numbers of the rows.": distance.sort(dim=1).values[:, :k],
            "You searched the queries for the gallery's neighbors.": lambda d=distance, k=k: d.argsort(dim=0)[:k].T,
            "These are all rows in order; wanted: the first k.": order,
        }
        got = as_tensor(answer(queries, gallery, k), (4, k))
        sets = got.shape == (4, k) and bool((got.sort(dim=1).values == order[:, :k].sort(dim=1).values).all())
        right = bool((got == order[:, :k]).all()) if got.shape == (4, k) else False
        reverse = sets and torch.equal(got, order[:, :k].flip(1))
        require(right or not sets or reverse, "The neighbors are right, but not in order: the nearest comes first.")
        compare(got, order[:, :k], mistakes, what="the table of neighbors")


@exercise(1)
def pca_2d(answer: Answer, case: Case) -> None:
    """`pca_2d(X)`: the rows of X (N, D) on their two principal axes, shape (N, 2); the signs are free."""
    scale = torch.tensor([5.0, 3.0, 1.5, 0.7, 0.3])
    rotation, _ = torch.linalg.qr(case.randn(5, 5))
    points = (case.randn(25, 5) * scale) @ rotation.T + 12 * F.normalize(case.randn(5), dim=0)
    centered = points - points.mean(dim=0)
    left, _, axes = torch.linalg.svd(centered, full_matrices=False)
    right = centered @ axes[:2].T
    raw_axes = torch.linalg.svd(points, full_matrices=False)[2]
    standard = centered / centered.std(dim=0)
    by_row = points - points.mean(dim=1, keepdim=True)
    mistakes = {
        "Subtract the mean of the rows first: without it the first axis points to the mean.": points @ raw_axes[:2].T,
        "You subtracted each row's own mean; wanted: the mean of all rows, dimension 0.": by_row
        @ torch.linalg.svd(by_row, full_matrices=False)[2][:2].T,
        "The axes are right, but the mean was not subtracted from the points.": points @ axes[:2].T,
        "These are the axes of the smallest variance; wanted: of the largest.": centered @ axes[-2:].flip(0).T,
        "These are the axes of the smallest variance; wanted: of the largest (eigh sorts upwards).": (
            centered @ axes[-2:].T
        ),
        "The two axes are exchanged: the one with the larger variance comes first.": right.flip(1),
        "You divided by the singular values: that is whitening.": left[:, :2],
        "You scaled each feature to variance 1 first: these are other axes.": standard
        @ torch.linalg.svd(standard, full_matrices=False)[2][:2].T,
        "You multiplied by V instead of its transpose: the rows of Vh are the axes.": centered @ axes[:, :2],
        "These are the axes; wanted: the points on them.": axes[:2],
        "These are the axes; wanted: the points on them, shape (N, 2).": axes[:2].T,
        "You kept the first two features; wanted: two directions of all features.": centered[:, :2],
    }
    got = _same_signs(as_tensor(answer(points), right.shape), right)
    compare(got, right, {said: _same_signs(value, got) for said, value in mistakes.items()}, what="the result")


def _same_signs(points: Tensor, other: Tensor) -> Tensor:
    """The points with the signs of each column as they fit the other ones best."""
    if points.shape != other.shape or not points.is_floating_point():
        return points
    sides = (points * other.to(points)).sum(dim=0).sign()
    return points * torch.where(sides == 0, torch.ones_like(sides), sides)
