"""What maps (N, H, W) of importance say, in numbers: per pixel, inside of a box, in comparison with another map."""

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.errors import ArgumentError


def to_pixels(heat: Tensor, *, window: int, stride: int, size: int | tuple[int, int]) -> Tensor:
    """An occlusion map (N, h, w) for each pixel, (N, H, W): the mean over the windows that cover the pixel.

    Pixels that no window covers (at the right and lower edges, or between distant windows) take the nearest
    window's value.
    """
    require_whole(window=window, stride=stride)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    fitting = tuple((side - window) // stride + 1 for side in sides)
    if heat.ndim != 3 or tuple(heat.shape[1:]) != fitting:
        raise ArgumentError(
            "this map was not made with this window, stride and size",
            received=f"shape {tuple(heat.shape)}, expected (N, {', '.join(map(str, fitting))})",
            do="give the window and stride of occlusion_map(...), and image.shape[-2:] as size",
        )
    rows, columns = (_coverage(side, window, stride).to(heat) for side in sides)
    return rows @ heat @ columns.T


def drop_inside_outside(heat: Tensor, box: tuple[int, int, int, int]) -> tuple[Tensor, Tensor]:
    """The means of maps (N, H, W) inside and outside of a box (top, left, bottom, right) in pixels, each (N,)."""
    inside = _inside(heat, box)
    if inside.all():
        raise ArgumentError("nothing lies outside of this box", received=repr(box), do="choose a smaller box")
    return heat[:, inside].mean(dim=1), heat[:, ~inside].mean(dim=1)


def energy_in_box(heat: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """The share of the positive part of maps (N, H, W) inside of a box (top, left, bottom, right), (N,), in [0, 1].

    To be compared with the box's share of the picture, which a constant map reaches; 0 without positive values.
    """
    positive = heat.clamp_min(0)
    total = positive.flatten(1).sum(dim=1)
    return positive[:, _inside(heat, box)].sum(dim=1) / total.where(total > 0, 1)


def rank_agreement(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of two maps (N, H, W), shape (N,), in [-1, 1]: do they put the places in the same order?

    Equal values share their mean rank. A flat map puts nothing in order: 1 for equal maps, otherwise 0.
    """
    if a.shape != b.shape or a.ndim != 3:
        raise ArgumentError(
            "maps are compared place by place",
            received=f"shapes {tuple(a.shape)} and {tuple(b.shape)}",
            do="give two maps of the same shape (N, H, W); to_pixels(...) brings occlusion maps to the picture's size",
        )
    x, y = (_centered_ranks(heat) for heat in (a, b))
    spread = x.norm(dim=1) * y.norm(dim=1)
    equal = (a == b).flatten(1).all(dim=1).to(spread)
    return torch.where(spread > 0, (x * y).sum(dim=1) / spread, equal).to(a)


def require_whole(**numbers: int) -> None:
    """Raise `ArgumentError` for the first of the named numbers that is not a whole number from 1."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ArgumentError(f"{name} is a whole number from 1", received=repr(number), do=f"for example {name}=8")


def _coverage(side: int, window: int, stride: int) -> Tensor:
    """Which windows each pixel of a row averages over: (side, windows), rows sum to 1."""
    pixel = torch.arange(side)[:, None]
    start = torch.arange(0, side - window + 1, stride)
    covered = ((start <= pixel) & (pixel < start + window)).double()
    distance = (pixel - (start + (window - 1) / 2)).abs()
    nearest = F.one_hot(distance.argmin(dim=1), len(start)).double()
    weights = covered.where(covered.any(dim=1, keepdim=True), nearest)
    return weights / weights.sum(dim=1, keepdim=True)


def _inside(heat: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """A mask (H, W) of the box."""
    top, left, bottom, right = box
    height, width = heat.shape[1:]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise ArgumentError(
            "a box is (top, left, bottom, right) inside of the map",
            received=f"{box} for a map of {height} x {width}",
            do="bring the map to the picture's size with to_pixels(...)",
        )
    mask = torch.zeros(height, width, dtype=torch.bool, device=heat.device)
    mask[top:bottom, left:right] = True
    return mask


def _centered_ranks(heat: Tensor) -> Tensor:
    """The ranks of the values of each map, (N, HW), minus their mean; equal values share their mean rank."""
    ranks = []
    for values in heat.detach().flatten(1):
        _, place, count = values.unique(return_inverse=True, return_counts=True)
        ranks.append((count.cumsum(0) - (count - 1) / 2).double()[place])
    ranks = torch.stack(ranks)
    return ranks - ranks.mean(dim=1, keepdim=True)
