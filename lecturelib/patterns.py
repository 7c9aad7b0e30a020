"""How large the patterns of pictures are, in numbers."""

from math import e

import torch
from torch import Tensor


def correlation_length(images: Tensor) -> Tensor:
    """How large the structures of images (N, 3, H, W) are, in pixels, shape (N,): where their autocorrelation, averaged
    over the directions and colors, has fallen to 1/e. About 0.6 for independent pixels; half a stripe's width or so.
    """
    centered = images - images.mean(dim=(-2, -1), keepdim=True)
    power = torch.fft.rfft2(centered).abs().square().sum(dim=1)
    likeness = torch.fft.irfft2(power, s=images.shape[-2:])
    rows, columns = (torch.fft.fftfreq(side, 1 / side, device=images.device) for side in images.shape[-2:])
    ring = torch.hypot(rows[:, None], columns).round().long().flatten()
    rings = int(min(images.shape[-2:])) // 2
    near = ring < rings
    sums = likeness.new_zeros(len(images), rings).index_add_(1, ring[near], likeness.flatten(1)[:, near])
    profile = sums / torch.bincount(ring[near], minlength=rings)
    flat = 1e-9 * images[0].numel()  # what rounding leaves of a constant image
    return torch.stack([_first_below(each / each[0].clamp_min(flat), 1 / e) for each in profile])


def _first_below(profile: Tensor, level: float) -> Tensor:
    """Where a profile first falls to `level`, between two places where needed; its length if it never does."""
    below = (profile <= level).nonzero()
    if len(below) == 0 or below[0] == 0:
        return profile.new_tensor(float(len(profile) if len(below) == 0 else 0))
    after = int(below[0])
    return after - 1 + (profile[after - 1] - level) / (profile[after - 1] - profile[after])
