"""Large pictures in parts: a score whose gradient is computed tile by tile, in the memory of one tile."""

import torch
from torch import Tensor

from lecturelib.errors import ArgumentError
from lecturelib.scores import Score


def tiled_score(score: Score, *, tile: int = 256, generator: torch.Generator | None = None) -> Score:
    """`score` of a picture in parts: the mean over tiles of at most `tile` pixels a side, weighted by their areas.

    The gradient is computed tile by tile, so the memory is that of one tile, however large the picture. Each time the
    tiles lie elsewhere, drawn with `generator`, so that over many steps no seam remains.
    """
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 16:
        raise ArgumentError("a tile has a whole number of pixels from 16", received=repr(tile), do="for example 256")

    def in_parts(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        device = generator.device if generator else "cpu"
        shift = torch.randint(0, tile, (2,), generator=generator, device=device).tolist()
        shifted = images.detach().roll(shift, dims=(2, 3))
        scores, gradient = 0, torch.zeros_like(shifted)
        wanted = torch.is_grad_enabled() and images.requires_grad
        for rows in torch.arange(height).tensor_split(-(-height // tile)):
            for columns in torch.arange(width).tensor_split(-(-width // tile)):
                place = (..., slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
                part = shifted[place].clone().requires_grad_(wanted)
                value = score(part) * (len(rows) * len(columns) / (height * width))
                if wanted:
                    (gradient[place],) = torch.autograd.grad(value.sum(), part)
                scores = scores + value.detach()
        return _Known.apply(images, scores, gradient.roll([-pixels for pixels in shift], dims=(2, 3)))

    return in_parts


class _Known(torch.autograd.Function):
    """Scores (N,) of images whose gradient is known already."""

    @staticmethod
    def forward(context, images: Tensor, scores: Tensor, gradient: Tensor) -> Tensor:
        context.save_for_backward(gradient)
        return scores

    @staticmethod
    def backward(context, outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = context.saved_tensors
        return outer[:, None, None, None].to(gradient) * gradient, None, None
