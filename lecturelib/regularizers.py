"""What keeps a picture that is made by optimization calm: penalties to subtract from a score, and changes after a step.

Where a formula of the papers says zero, they mean the mean color, because their pixels are normalized; here it is
middle
grey, 0.5. Changes after a step are functions of the images (N, 3, H, W), the gradient there, and the number of
steps taken.
"""

from collections.abc import Callable
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from lecturelib.errors import ArgumentError

GREY = 0.5
AfterStep = Callable[[Tensor, Tensor, int], Tensor]


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    """How much neighboring pixels differ, shape (N,): the TV-beta norm (Mahendran and Vedaldi, 2014).

    Sum over colors and positions of ((right - here)^2 + (below - here)^2)^(beta / 2), for the (H - 1) x (W - 1)
    positions
    that have both neighbors. The gradient is 0 where all three are equal.
    """
    if not 0 < beta < float("inf"):
        raise ArgumentError("beta is a positive number", received=beta, do="for example beta=2")
    here = images[..., :-1, :-1]
    squares = (images[..., :-1, 1:] - here).square() + (images[..., 1:, :-1] - here).square()
    if beta == 2:
        return squares.flatten(1).sum(dim=1)
    flat = squares <= torch.finfo(squares.dtype).tiny  # below beta = 2 the slope of the power is infinite at 0
    return squares.masked_fill(flat, 1).pow(beta / 2).masked_fill(flat, 0).flatten(1).sum(dim=1)


def l2(images: Tensor) -> Tensor:
    """The squared distance to middle grey, shape (N,): the sum of (x - 0.5)^2 (Simonyan et al., 2013)."""
    return (images - GREY).square().flatten(1).sum(dim=1)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with standard deviation `sigma` in pixels; the mirrored border keeps the mean of every channel."""
    if not 0 <= sigma < float("inf"):
        raise ArgumentError("the width of a blur is 0 or more pixels", received=sigma, do="for example sigma=0.5")
    if sigma < 0.05:  # the neighbors' share is below 1e-80
        return images
    for dim in (2, 3):
        images = _blur_along(images, sigma, dim)
    return images


def blur_every(k: int, *, sigma: float) -> AfterStep:
    """After every k-th step, blur (Yosinski et al., 2015)."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ArgumentError(
            "the blur comes every k-th step", received=repr(k), do="for example blur_every(4, sigma=0.5)"
        )
    blur(torch.zeros(1, 1, 1, 1), sigma)  # a wrong sigma is told here and not k steps later
    return lambda images, gradient, step: blur(images, sigma) if step % k == 0 else images


def clip_small_pixels(percentile: float) -> AfterStep:
    """Grey for the `percentile` percent of pixels that differ least from grey, by the norm over colors."""
    _require_percentile(percentile)
    return lambda images, gradient, step: _grey_below(images, (images - GREY).norm(dim=1), percentile)


def clip_small_gradients(percentile: float) -> AfterStep:
    """Grey for the `percentile` percent of pixels with the smallest gradient, by the norm over colors."""
    _require_percentile(percentile)
    return lambda images, gradient, step: _grey_below(images, gradient.norm(dim=1), percentile)


def clip_small_contributions(percentile: float) -> AfterStep:
    """Grey for the `percentile` percent of pixels that contribute least (Yosinski et al., 2015).

    A pixel contributes |sum over colors of (x - 0.5) * gradient|: about what the score loses when it turns grey.
    """
    _require_percentile(percentile)

    def clip(images: Tensor, gradient: Tensor, step: int) -> Tensor:
        return _grey_below(images, ((images - GREY) * gradient).sum(dim=1).abs(), percentile)

    return clip


def _grey_below(images: Tensor, sizes: Tensor, percentile: float) -> Tensor:
    """Grey for the pixels whose `sizes` (N, H, W) are below the percentile of their image."""
    pixels = sizes[0].numel()
    rank = min(round(percentile / 100 * pixels) + 1, pixels)
    limit = sizes.flatten(1).kthvalue(rank, dim=1).values  # torch.quantile refuses large batches
    return images.masked_fill((sizes < limit[:, None, None])[:, None], GREY)


def _blur_along(images: Tensor, sigma: float, dim: int) -> Tensor:
    length = images.shape[dim]
    radius = min(ceil(4 * sigma), length)
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
    # Mirrored with the border pixel itself (F.pad leaves it out): then each pixel gives away exactly what it loses.
    before, after = images.narrow(dim, 0, radius).flip(dim), images.narrow(dim, length - radius, radius).flip(dim)
    padded = torch.cat([before, images, after], dim=dim).movedim(dim, -1)
    blurred = F.conv1d(padded.reshape(-1, 1, padded.shape[-1]), weights.view(1, 1, -1))
    return blurred.view(*padded.shape[:-1], length).movedim(-1, dim)


def _require_percentile(percentile: float) -> None:
    if not 0 <= percentile <= 100:
        raise ArgumentError("a percentile lies between 0 and 100", received=percentile, do="for example 50")
