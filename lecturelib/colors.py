"""Keeping the colors of a picture that is painted in another style (Gatys et al., 2016 and 2017)."""

import torch
from torch import Tensor

from lecturelib.errors import ArgumentError
from lecturelib.images import require_image

# Brightness, then two axes of color, from red, green and blue: the analog American television of 1953.
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


def to_yiq(images: Tensor) -> Tensor:
    """Brightness Y in [0, 1] and the colors I and Q, around 0, of images (N, 3, H, W), in the same shape."""
    return torch.einsum("yc,nchw->nyhw", images.new_tensor(_YIQ), images)


def from_yiq(values: Tensor) -> Tensor:
    """The red, green and blue of `to_yiq`, which may lie outside [0, 1]."""
    back = torch.tensor(_YIQ, dtype=torch.float64).inverse()
    return torch.einsum("cy,nyhw->nchw", back.to(values), values)


def keep_colors(content: Tensor, styled: Tensor) -> Tensor:
    """The brightness of `styled` with the colors I, Q of `content`: images (N, 3, H, W), clipped to [0, 1].

    Afterwards nothing of the style's colors is left. The style's brightness is kept up to what clipping takes.
    """
    if content.shape[-2:] != styled.shape[-2:]:
        raise ArgumentError(
            "colors are kept position by position, so both pictures have one size",
            received=f"{tuple(content.shape[-2:])} and {tuple(styled.shape[-2:])}",
            do="resize(content, styled.shape[-2:])",
        )
    brightness, colors = to_yiq(require_image(styled))[:, :1], to_yiq(require_image(content))[:, 1:]
    colors = colors.expand(len(brightness), -1, -1, -1)
    return from_yiq(torch.cat([brightness, colors], dim=1)).clamp(0, 1)


def match_colors(style: Tensor, content: Tensor) -> Tensor:
    """The style picture (1, 3, h, w) in the palette of `content` (1, 3, H, W), clipped to [0, 1].

    x -> C^(1/2) S^(-1/2) (x - mean of style) + mean of content, with the covariances S and C of red, green and blue:
    before clipping, mean and covariance of the colors are those of the content (Gatys et al., 2017).
    """
    pixels, wanted = (require_image(image)[0].flatten(1).double() for image in (style, content))
    spread, spread_wanted = _covariance(pixels), _covariance(wanted)
    tiny = 1e-6 * torch.eye(3, dtype=pixels.dtype, device=pixels.device)  # a gray picture has spread in one direction
    change = _power(spread_wanted, 0.5) @ _power(spread + tiny, -0.5)
    matched = change @ (pixels - pixels.mean(dim=1, keepdim=True)) + wanted.mean(dim=1, keepdim=True)
    return matched.to(style).view_as(style[:1]).clamp(0, 1)


def _covariance(pixels: Tensor) -> Tensor:
    """How red, green and blue (3, M) vary together, shape (3, 3)."""
    centered = pixels - pixels.mean(dim=1, keepdim=True)
    return centered @ centered.mT / pixels.shape[1]


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric matrix without negative eigenvalues."""
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).pow(exponent)) @ vectors.mT
