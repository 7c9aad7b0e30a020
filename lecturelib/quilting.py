"""Lecture 09, before there were networks: textures put together from pieces of the sample, by nearest neighbors.

Both methods only copy: each pixel that comes out stands somewhere in the sample.
"""

from collections.abc import Sequence
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.images import require_image

Size = int | tuple[int, int]


def min_error_cut(error: Tensor) -> Tensor:
    """The path from top to bottom of `error` (H, W) with the smallest sum: its column in each row, shape (H,).

    From row to row it moves by one column at most (Efros and Freeman, 2001). Dynamic programming: the cheapest way to a
    place is its own error and the cheapest of the three ways that end above it.
    """
    if error.ndim != 2 or error.numel() == 0:
        raise ArgumentError("an error is a map (H, W)", received=tuple(error.shape), do="give one map, not a batch")
    costs = [error[0]]
    for row in error[1:]:
        costs.append(row + _neighbors(costs[-1]).amin(dim=0))
    path = [int(costs[-1].argmin())]
    for cost in reversed(costs[:-1]):
        path.append(path[-1] - 1 + int(_neighbors(cost)[:, path[-1]].argmin()))
    return torch.tensor(path[::-1])


def quilt(
    image: Tensor,
    *,
    size: Size,
    patch: int = 24,
    overlap: int | None = None,
    tolerance: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A picture (1, 3, h, w) sewn from patches of `image` (1, 3, H, W) (Efros and Freeman, 2001).

    Row by row, a patch is drawn among those that agree with what is there already, where they overlap, and is cut along
    the path on which both differ least.
    patch: side of the patches; about that of the largest thing that repeats. overlap: patch // 6 by default.
    tolerance: patches count as equally good up to this share above the smallest error.
    """
    overlap = max(1, patch // 6) if overlap is None else overlap
    height, width = _require(image, size, patch)
    if not 0 < overlap < patch:
        raise ArgumentError("patches overlap by less than their side", received=f"{overlap} of {patch} pixels")
    step = patch - overlap
    down, across = (1 + max(0, ceil((side - patch) / step)) for side in (height, width))
    canvas = image.new_zeros(1, 3, patch + (down - 1) * step, patch + (across - 1) * step)
    for top in range(0, down * step, step):
        for left in range(0, across * step, step):
            there = canvas[:, :, top : top + patch, left : left + patch]
            known = torch.zeros(patch, patch, device=image.device)
            known[: overlap if top else 0] = 1
            known[:, : overlap if left else 0] = 1
            y, x = _draw(_distances(image, there, known), tolerance, generator)
            new = image[:, :, y : y + patch, x : x + patch]
            keep = _kept((new - there).square().sum(dim=(0, 1)), overlap, above=top > 0, beside=left > 0)
            canvas[:, :, top : top + patch, left : left + patch] = torch.where(keep, there, new)
    return canvas[:, :, :height, :width].clone()


def grow(
    image: Tensor,
    *,
    size: Size,
    window: int = 11,
    tolerance: float = 0.1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A picture (1, 3, h, w) grown pixel by pixel from a seed of `image` (1, 3, H, W) (Efros and Leung, 1999).

    Each pixel, on rings around the seed, is drawn among those of the sample whose surroundings agree with what is there
    already; near ones count more, by a Gaussian of standard deviation window / 6.4.
    window: side of the surroundings, odd. tolerance: as in `quilt`, 0.1 in the paper.
    """
    height, width = _require(image, size, window)
    if window % 2 == 0 or window < 3:
        raise ArgumentError("a window has a middle", received=f"window={window}", do="give an odd number from 3")
    half, device = window // 2, image.device
    patches = F.unfold(image, window)[0].T.contiguous()
    squares = patches.square().view(-1, 3, window**2).sum(dim=1)
    centers = image[0, :, half : image.shape[2] - half, half : image.shape[3] - half].flatten(1)
    nearness = _gaussian(window).to(image)
    canvas = F.pad(image.new_zeros(3, height, width), (half,) * 4)
    known = canvas.new_zeros(canvas.shape[1:])
    for y, x in _rings(height, width):
        here = (slice(y, y + window), slice(x, x + window))
        weight = (nearness * known[here]).flatten()
        ours = canvas[(slice(None), *here)].flatten(1)
        errors = squares @ weight - 2 * patches @ (weight * ours).flatten() + (weight * ours.square()).sum()
        pick = _chosen(errors / weight.sum().clamp_min(1e-12), tolerance, generator)
        canvas[:, y + half, x + half] = centers[:, pick]
        known[y + half, x + half] = 1
    return canvas[None, :, half : half + height, half : half + width].contiguous().to(device)


def patch_distances(image: Tensor, source: Tensor, *, patch: int = 16, stride: int = 8) -> Tensor:
    """How far patches of `image` are from the most similar patch of `source`, root mean square of values, shape (P,).

    0 for a copy. The patches of `image` are taken every `stride` pixels, those of `source` everywhere.
    """
    for picture in (image, source):
        _require(picture, patch, patch)
    ours, theirs = (
        F.unfold(picture, patch, stride=step)[0].T for picture, step in ((image, stride), (source.to(image), 1))
    )
    nearest = torch.cdist(ours, theirs).argmin(dim=1)
    return (ours - theirs[nearest]).square().mean(dim=1).sqrt()  # not from cdist, whose rounding hides a 0


def _neighbors(row: Tensor) -> Tensor:
    """What stands left of, at and right of each place, shape (3, W); infinite outside."""
    wide = F.pad(row, (1, 1), value=torch.inf)
    return torch.stack([wide[:-2], wide[1:-1], wide[2:]])


def _kept(error: Tensor, overlap: int, *, above: bool, beside: bool) -> Tensor:
    """Where the pixels that are there stay, (P, P): above and left of the cuts through the overlaps."""
    keep = torch.zeros_like(error, dtype=torch.bool)
    places = torch.arange(overlap, device=error.device)
    if beside:
        keep[:, :overlap] |= places < min_error_cut(error[:, :overlap])[:, None].to(error.device)
    if above:
        keep[:overlap] |= (places < min_error_cut(error[:overlap].T)[:, None].to(error.device)).T
    return keep


def _distances(image: Tensor, there: Tensor, known: Tensor) -> Tensor:
    """Squared distance of each patch of the image to `there` (1, 3, P, P) where it is known, shape (H-P+1, W-P+1)."""
    mask = known.to(image).expand(1, 3, -1, -1)
    cross = F.conv2d(image, there * mask)
    return (F.conv2d(image.square(), mask) - 2 * cross + (there.square() * mask).sum())[0, 0]


def _draw(errors: Tensor, tolerance: float, generator: torch.Generator | None) -> tuple[int, int]:
    return divmod(_chosen(errors.flatten(), tolerance, generator), errors.shape[1])


def _chosen(errors: Tensor, tolerance: float, generator: torch.Generator | None) -> int:
    """One of the places whose error is near the second smallest, drawn at random.

    The smallest is often 0, at what stands next in the sample, and alone it would be copied on and on.
    """
    second = errors.topk(min(2, len(errors)), largest=False).values[-1]
    good = (errors <= (1 + tolerance) * second + 1e-5 * max(1.0, float(errors.max()))).nonzero().flatten()
    return int(good[torch.randint(len(good), (), generator=generator)])


def _gaussian(window: int) -> Tensor:
    places = torch.arange(window) - window // 2
    row = torch.exp(-(places**2) / (2 * (window / 6.4) ** 2))
    return row[:, None] * row


def _rings(height: int, width: int) -> list[tuple[int, int]]:
    """All places (y, x) on square rings around the middle, once around each ring."""
    y, x = torch.meshgrid(torch.arange(height) - height // 2, torch.arange(width) - width // 2, indexing="ij")
    turn = torch.atan2(y.float(), x.float())
    order = (torch.maximum(y.abs(), x.abs()) * 10 + turn).flatten().argsort(stable=True)
    return [divmod(place, width) for place in order.tolist()]


def _require(image: Tensor, size: Size, window: int) -> tuple[int, int]:
    """Height and width of the picture to make; one sample that holds the window, or an error that says so."""
    if len(require_image(image, smallest=window)) != 1:
        raise ImageInputError("a sample is one image", received=f"{len(image)} images", do="choose one: image[:1]")
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ArgumentError("a size is a whole number of pixels or (height, width)", received=repr(size), do="say 128")
    return sides
