"""Small random changes of the images that a score sees at every step, so that what is found survives them.

A transform is a function of images (N, 3, H, W) and a generator of random numbers (None is torch's own). It draws one
change for the whole batch, and gradients flow through it.
"""

from collections.abc import Callable
from math import cos, radians, sin

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.errors import ArgumentError

Transform = Callable[[Tensor, torch.Generator | None], Tensor]


def jitter(pixels: int) -> Transform:
    """Shift by up to `pixels` in each direction; what leaves on one side enters on the other."""
    if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
        raise ArgumentError(
            "a shift is a whole number of pixels from 0", received=repr(pixels), do="for example jitter(8)"
        )

    def shift(images: Tensor, generator: torch.Generator | None) -> Tensor:
        down, right = (_whole(-pixels, pixels, generator) for _ in range(2))
        return images.roll((down, right), dims=(2, 3))

    return shift


def random_scale(low: float = 0.9, high: float = 1.1) -> Transform:
    """Resize by a factor between `low` and `high`, bilinearly."""
    if not 0 < low <= high < float("inf"):
        raise ArgumentError(
            "a scale is a positive range", received=f"{low} to {high}", do="for example random_scale(0.9, 1.1)"
        )

    def scale(images: Tensor, generator: torch.Generator | None) -> Tensor:
        factor = _uniform(low, high, generator)
        size = [max(1, round(side * factor)) for side in images.shape[2:]]
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)

    return scale


def random_rotate(degrees: float) -> Transform:
    """Turn around the middle by up to `degrees` in either direction; the corners are filled by reflection."""
    if not 0 <= degrees <= 180:
        raise ArgumentError(
            "an angle lies between 0 and 180 degrees", received=degrees, do="for example random_rotate(5)"
        )

    def rotate(images: Tensor, generator: torch.Generator | None) -> Tensor:
        angle = radians(_uniform(-degrees, degrees, generator))
        height, width = images.shape[2:]
        # `affine_grid` measures both sides in units of their own length, so a turn of a picture
        # that is not square is stretched.
        turn = [[cos(angle), -sin(angle) * height / width, 0], [sin(angle) * width / height, cos(angle), 0]]
        grid = F.affine_grid(images.new_tensor([turn]), [1, 3, height, width], align_corners=False)
        grid = grid.expand(len(images), -1, -1, -1)
        return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)

    return rotate


def pad(pixels: int, *, value: float = 0.5) -> Transform:
    """Put a frame of grey `value` around, `pixels` wide, so that edges of the picture become nothing special."""
    if isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0:
        raise ArgumentError(
            "a frame is a whole number of pixels from 0", received=repr(pixels), do="for example pad(8)"
        )
    return lambda images, generator: F.pad(images, [pixels] * 4, value=value)


def compose(*steps: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One after the other: several transforms as one, or several `after_step` functions as one."""

    def together(images: Tensor, *others) -> Tensor:
        for step in steps:
            images = step(images, *others)
        return images

    return together


def _whole(low: int, high: int, generator: torch.Generator | None) -> int:
    return int(torch.randint(low, high + 1, (), generator=generator, device=_device(generator)))


def _uniform(low: float, high: float, generator: torch.Generator | None) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, device=_device(generator)))


def _device(generator: torch.Generator | None) -> torch.device | str:
    return generator.device if generator else "cpu"
