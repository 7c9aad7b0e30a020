"""Arrays and tensors of numbers become images, and only where their shape, type and range leave no doubt."""

import numpy as np
import torch
from torch import Tensor

from lecturelib.errors import ImageInputError

_TOLERANCE = 1e-6  # rounding may leave [0, 1] by this much
_WHITE = {"uint8": 255, "uint16": 65535, "bool": 1}


def from_tensor(tensor: Tensor) -> Tensor:
    """An image (N, 3, H, W) from a tensor (H, W), (C, H, W) or (N, C, H, W), C = 1 or 3; a copy on the same device."""
    _require_colors(tuple(tensor.shape), first=True)
    white = _white(str(tensor.dtype).removeprefix("torch."))
    image = tensor.detach().to(torch.float32) / white
    return _from_values(image.reshape((1,) * (4 - image.ndim) + image.shape))


def from_array(array: np.ndarray) -> Tensor:
    """An image (N, 3, H, W) from an array (H, W), (H, W, C) or (N, H, W, C), C = 1, 3 or 4; a copy."""
    _require_colors(array.shape, first=False)
    white = _white(str(array.dtype.newbyteorder("=")))
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite and is refused as that
        image = torch.from_numpy(np.array(array, dtype=np.float32, order="C")) / white
    image = image[..., None] if image.ndim == 2 else image
    image = image[None] if image.ndim == 3 else image
    return _from_values(image.permute(0, 3, 1, 2))


def require_range(image: Tensor) -> None:
    """Raise `ImageInputError` when a value is outside [0, 1] by more than rounding."""
    low, high = (value.item() for value in image.detach().aminmax())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # so written, NaN fails too
        raise ImageInputError(
            "floating-point values of an image lie between 0 and 1",
            received=f"values from {low:g} to {high:g}",
            do="if they mean 0 to 255, divide by 255; if they mean 0 to 1, use .clip(0, 1)",
        )


def _from_values(image: Tensor) -> Tensor:
    """Grey, RGB or RGBA values (N, C, H, W) as a new image (N, 3, H, W)."""
    require_range(image)
    if image.shape[1] == 4:
        color, alpha = image[:, :3], image[:, 3:]
        image = color * alpha + (1 - alpha)
    return image.clamp(0, 1).expand(-1, 3, -1, -1).contiguous()  # clamp copies


def _white(dtype: str) -> int:
    """The number that means white in values of this type."""
    if dtype.startswith(("float", "bfloat")):
        return 1
    if dtype not in _WHITE:
        raise ImageInputError(
            "values of this type do not say whether white is 255 or 1",
            received=dtype,
            do="if 255, give array.astype(np.uint8) or tensor.byte(); if 1, array.astype(np.float32) or tensor.float()",
        )
    return _WHITE[dtype]


def _require_colors(shape: tuple[int, ...], *, first: bool) -> None:
    if first:
        name, read, other, channels, turn = "tensor", "(C, H, W)", "(H, W, C)", (1, 3), "permute(2, 0, 1)"
    else:
        name, read, other, channels, turn = "array", "(H, W, C)", "(C, H, W)", (1, 3, 4), "transpose(1, 2, 0)"
    both = len(shape) == 3 and shape[0] == shape[2] == 3
    fits = len(shape) == 2 or (len(shape) in (3, 4) and shape[-3 if first else -1] in channels)
    if 0 in shape or both or not fits:
        if both:
            do = f"if it is {read}, give {name}[None]; if it is {other}, give {name}.{turn}[None]"
        else:
            do = f"if it is {other}, give {name}.{turn}; if it has other channels, choose 1 or 3 of them"
        raise ImageInputError(
            f"the {name} is read as (H, W), {read} or a batch of these, C one of {channels}",
            received=f"shape {shape}" + (f", which could be {read} or {other}" if both else ""),
            do=do,
        )
