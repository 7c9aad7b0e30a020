"""What an optimizer may change: `Pixels` inside a box, `Fourier` coefficients, a generator's `Code`.

Each canvas owns its tensors, gives its parameters, shows them as images (N, 3, H, W), and puts them back into bounds
after a step. All tensors are contiguous, as L-BFGS wants them; a model rearranges its input itself.
"""

from collections.abc import Callable
from math import inf
from typing import Protocol

import torch
from torch import Tensor

from lecturelib.arrays import require_range
from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.modes import recording

# How the colors of photographs vary together. Rows: red, green, blue; columns, which vary independently:
# brightness, red against blue, magenta against green. The square root of the mean covariance over eight photographs
# of everyday things, scaled to a mean variance of 1 (tests/test_canvas.py derives it).
COLORS = (
    (0.9796, 0.4396, 0.0451),
    (0.9306, -0.0998, -0.1315),
    (0.8955, -0.3771, 0.0874),
)


class Canvas(Protocol):
    """What `maximize` and `minimize` work on."""

    def parameters(self) -> list[Tensor]:
        """The leaf tensors that an optimizer changes."""

    def image(self) -> Tensor:
        """The images (N, 3, H, W) in [0, 1] that the parameters stand for, differentiable."""

    def project(self) -> None:
        """Put the parameters back into their bounds."""


class Pixels:
    """The pixels of images (N, 3, H, W) themselves, in the box `low` <= pixels <= `high`.

    The bounds are numbers or tensors of the images' shape: the ball of an attack is a box too. With `low=-inf,
    high=inf`
    the pixels go where they want, and what comes out need not be an image any more.
    """

    def __init__(self, start: Tensor, *, low: float | Tensor = 0.0, high: float | Tensor = 1.0):
        _require_pixels(start)
        self.low, self.high = (torch.as_tensor(bound, dtype=start.dtype, device=start.device) for bound in (low, high))
        if not bool((self.low <= self.high).all()):
            raise ArgumentError("the box is empty", received="low > high or NaN", do="give bounds with low <= high")
        if self.low.ndim == self.high.ndim == 0 and self.low >= 0 and self.high <= 1:
            require_range(start)
        self._pixels = _leaf(start)
        self.project()

    def parameters(self) -> list[Tensor]:
        return [self._pixels]

    def image(self) -> Tensor:
        return self._pixels

    def project(self) -> None:
        _clamp(self._pixels, self.low, self.high)

    @recording(False)
    def replace(self, images: Tensor) -> None:
        """Show `images` instead, as far as the box allows."""
        self._pixels.copy_(images)
        self.project()


class Fourier:
    """Images as waves in decorrelated colors (Olah et al., 2017): every step reaches all frequencies and colors alike.

    `size` is the side in pixels or (height, width). The waves w start at random, with standard deviation `std` and
    amplitudes that fall with the frequency as f^-decay, as in photographs; the image is sigmoid(colors @ w). `colors`
    mixes red, green and blue from the three channels of waves: `torch.eye(3)` leaves them apart. `finest` is the
    highest frequency there is, in waves per pixel: what a network cannot see, it should not draw.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 128,
        *,
        count: int = 1,
        std: float = 0.05,
        decay: float = 1.0,
        finest: float = 1.0,
        colors: Tensor | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str = "cpu",
    ):
        self.size = _sides(size)
        if not finest > 0:
            raise ArgumentError(
                "the finest wave has a frequency above 0", received=finest, do="for example finest=0.25"
            )
        height, width = self.size
        noise = _randn((count, 3, height, width // 2 + 1, 2), generator) * (std / 2**0.5)
        with torch.inference_mode(False):
            self.colors = (torch.tensor(COLORS) if colors is None else colors).to(device)
            self.scale = _amplitudes(height, width, decay, finest).to(device)
            self._waves = _leaf(noise.to(device))

    def parameters(self) -> list[Tensor]:
        return [self._waves]

    def waves(self) -> Tensor:
        """The sum of the waves before colors are mixed, shape (N, 3, H, W), unbounded."""
        spectrum = torch.view_as_complex(self._waves) * self.scale
        return torch.fft.irfft2(spectrum, s=self.size, norm="ortho")

    def image(self) -> Tensor:
        return torch.einsum("rc,nchw->nrhw", self.colors, self.waves()).sigmoid()

    def project(self) -> None:
        """Waves have no bounds; the sigmoid keeps the image in [0, 1]."""


class Code:
    """The input of a generator network, whose output are the images (Nguyen et al., 2016: DGN-AM).

    `generator` takes codes (N, D) to images (N, 3, H, W) in [0, 1] and stays as it is; `start` is the first code. The
    bounds are numbers or tensors of shape (D,): a code that the generator has seen in training lies between 0 and about
    three standard deviations.
    """

    def __init__(
        self,
        generator: Callable[[Tensor], Tensor],
        start: Tensor,
        *,
        low: float | Tensor = 0.0,
        high: float | Tensor = inf,
    ):
        if not isinstance(start, Tensor) or not start.is_floating_point() or start.ndim < 2:
            raise ArgumentError(
                "a code is a float tensor (N, D)",
                received=_described(start),
                do="for example model.activation(image, model.code_layer)",
            )
        self.generator = generator
        self.low, self.high = (torch.as_tensor(bound, dtype=start.dtype, device=start.device) for bound in (low, high))
        self._code = _leaf(start)
        self.project()

    def parameters(self) -> list[Tensor]:
        return [self._code]

    def image(self) -> Tensor:
        images = self.generator(self._code)
        if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[:2] != (len(self._code), 3):
            raise ArgumentError(
                "the generator does not give one image (3, H, W) per code",
                received=_described(images),
                do=f"return images of shape ({len(self._code)}, 3, H, W) in [0, 1]",
            )
        return images

    def project(self) -> None:
        _clamp(self._code, self.low, self.high)


def grey_noise(
    size: int | tuple[int, int] = 128,
    *,
    count: int = 1,
    std: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Images (count, 3, H, W) of middle grey with a little Gaussian noise: a start that prefers nothing.

    `size` is the side in pixels or (height, width). Noise, because behind dead ReLUs a flat start has no gradient.
    """
    return (0.5 + std * _randn((count, 3, *_sides(size)), generator)).clamp(0, 1)


@recording(False)
def _leaf(values: Tensor) -> Tensor:
    """A copy that is contiguous, at least float32, and wants a gradient; also where gradients are switched off."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    return torch.empty(values.shape, dtype=dtype, device=values.device).copy_(values.detach()).requires_grad_()


@recording(False)
def _clamp(values: Tensor, low: Tensor, high: Tensor) -> None:
    values.clamp_(min=low.to(values.dtype), max=high.to(values.dtype))


def _require_pixels(start: Tensor) -> None:
    floats = isinstance(start, Tensor) and start.is_floating_point() and start.numel() > 0
    if not floats or start.ndim != 4 or start.shape[1] != 3:
        raise ImageInputError(
            "a start is a float tensor of images (N, 3, H, W)",
            received=_described(start),
            do='load_image("cat") or grey_noise() makes one',
        )
    if not bool(start.isfinite().all()):
        raise ImageInputError(
            "the start has values that are not finite", received="NaN or infinity", do="start elsewhere"
        )


def _described(value: object) -> str:
    return f"{value.dtype}, shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    whole = isinstance(sides, tuple | list) and all(type(side) is int and side > 0 for side in sides)
    if not whole or len(sides) != 2:
        raise ArgumentError(
            "a size is a whole number of pixels or (height, width)", received=repr(size), do="for example size=128"
        )
    return tuple(sides)


def _randn(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device if generator else "cpu").cpu()


def _amplitudes(height: int, width: int, decay: float, finest: float) -> Tensor:
    """f^-decay for each frequency f of `rfft2` up to `finest`, else 0, shape (H, W // 2 + 1).

    The mean square is 1 over the full plane of frequencies, with those that are left out.
    """
    rows = torch.fft.fftfreq(height)[:, None]

    def frequency(columns: Tensor) -> Tensor:
        return (rows**2 + columns**2).sqrt()

    def amplitude(columns: Tensor) -> Tensor:
        lowest = 1 / max(height, width)  # the constant has no frequency of its own
        return frequency(columns).clamp_min(lowest) ** -decay

    half, full = torch.fft.rfftfreq(width), torch.fft.fftfreq(width)
    amplitudes = amplitude(half) / amplitude(full).square().mean().sqrt()
    return amplitudes.masked_fill(frequency(half) > finest, 0)
