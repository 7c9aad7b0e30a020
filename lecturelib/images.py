"""Picture files, web addresses, uploads and arrays become images: float32 RGB (N, 3, H, W) in [0, 1], upright."""

import os
import secrets
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, WebPImagePlugin  # noqa: F401  (Pillow does not load WebP by itself when formats are named)
from torch import Tensor
from torch.nn import functional as F

from lecturelib.arrays import from_array, from_tensor, require_range
from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.sources import kind_of, read_source

LARGEST = 50_000_000  # pixels
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def load_image(source: object, *, size: int | tuple[int, int] | None = None) -> Tensor:
    """Any picture as an image: float32 RGB (N, 3, H, W) in [0, 1], upright, transparent parts on white.

    `source` is the name of a packaged picture ("cat"), a path, an http(s) address, the bytes of a file, a FileUpload
    widget or its value, a PIL image, an array (colors last) or a tensor (colors first). Arrays and tensors are
    copied and hold uint8, uint16 or bool over their full range, or floats in [0, 1]. `size` is as in `resize`.
    """
    if isinstance(source, Tensor):
        image = from_tensor(source)
    elif isinstance(source, np.ndarray):
        image = from_array(source)
    elif isinstance(source, Image.Image):
        image = _from_pil(source, "the PIL image")
    else:
        image = _decode(*read_source(source))
    return image if size is None else resize(image, size).clamp(0, 1)


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """The largest middle part of the images (N, 3, H, W) with the shape of `size`, at that size.

    `size` is the side of a square or (height, width), in pixels. Bilinear with antialiasing; differentiable.
    """
    height, width = _height_and_width(size)
    old_height, old_width = image.shape[2:]
    scale = max(height / old_height, width / old_width)
    # Cut before resizing: a strip of 1 x 4000 pixels would first become 224 x 896,000.
    cut_height = min(old_height, max(1, round(height / scale)))
    cut_width = min(old_width, max(1, round(width / scale)))
    top, left = (old_height - cut_height) // 2, (old_width - cut_width) // 2
    middle = image[:, :, top : top + cut_height, left : left + cut_width]
    return F.interpolate(middle, size=(height, width), mode="bilinear", antialias=True)


def require_image(image: Tensor, *, smallest: int = 1) -> Tensor:
    """`image` itself if it is floating (N, 3, H, W) in [0, 1] with H, W >= `smallest`; `ImageInputError` otherwise."""
    if not isinstance(image, Tensor):
        raise ImageInputError(
            "an image is a tensor (N, 3, H, W)",
            received=type(image).__name__,
            do="load_image(...) makes an image of it",
        )
    if image.ndim != 4 or image.shape[1] != 3 or image.numel() == 0 or not image.is_floating_point():
        raise ImageInputError(
            "an image has the shape (N, 3, H, W) and floating-point values",
            received=f"shape {tuple(image.shape)}, {image.dtype}",
            do="load_image(...) makes an image of it; one picture of a batch is image[:1], not image[0]",
        )
    if min(image.shape[2:]) < smallest:
        raise ImageInputError(
            f"the picture is too small; both sides must have at least {smallest} pixels",
            received=f"{image.shape[2]} x {image.shape[3]}",
            do=f"load it larger: load_image(..., size={smallest})",
        )
    require_range(image)
    return image


def to_array(image: Tensor) -> np.ndarray:
    """Images (N, 3, H, W) as uint8 (N, H, W, 3), rounded."""
    levels = (require_image(image).detach() * 255).round().clamp(0, 255).byte()
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def encode_png(image: Tensor) -> bytes:
    """One image (1, 3, H, W) as the bytes of a PNG file."""
    return _encode(image, "PNG")


def save_image(image: Tensor, path: str | Path) -> Path:
    """Write one image as PNG, JPEG or WebP, by the ending of `path`, and return the path that was written.

    A file that exists is never touched: `name-2.png`, `name-3.png`, ... are taken instead. A file that is
    interrupted while it is written does not appear.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in _FORMATS:
        raise ArgumentError("pictures are saved as .png, .jpg or .webp", received=path.name, do="choose one of these")
    if not path.parent.is_dir():
        raise ArgumentError(
            "the folder does not exist", received=path.parent, do="make it first, or save beside the notebook"
        )
    data = _encode(image, _FORMATS[path.suffix.lower()])
    part = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return _move_to_free_name(part, path)
    except OSError as error:
        raise ArgumentError(
            "the picture cannot be written there", received=error.strerror, do="choose another folder"
        ) from None
    finally:
        part.unlink(missing_ok=True)


def _move_to_free_name(part: Path, path: Path) -> Path:
    number, target = 1, path
    while True:
        try:
            target.open("xb").close()  # claims the name; hard links would do it too, but not on every file system
            break
        except FileExistsError:
            number += 1
            target = path.with_name(f"{path.stem}-{number}{path.suffix}")
    try:
        return part.replace(target)
    except BaseException:
        target.unlink()
        raise


def _encode(image: Tensor, form: str) -> bytes:
    array = to_array(image)
    if len(array) != 1:
        raise ImageInputError("one picture at a time", received=f"{len(array)} images", do="choose one: image[:1]")
    file = BytesIO()
    Image.fromarray(array[0]).save(file, format=form, quality=95)
    return file.getvalue()


def _height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (size, size) if isinstance(size, int) else size
    whole = isinstance(sides, tuple | list) and len(sides) == 2 and all(type(s) is int and s > 0 for s in sides)
    if not whole or sides[0] * sides[1] > LARGEST:
        raise ArgumentError(
            "a size is a whole number of pixels or (height, width)", received=repr(size), do="for example size=224"
        )
    return tuple(sides)


def _decode(data: bytes, name: str) -> Tensor:
    kind = kind_of(data)
    if kind not in _FORMATS.values():
        how = "on an iPhone: Settings, Camera, Formats, Most Compatible; or " if kind == "HEIC" else ""
        raise ImageInputError(
            f"{name} is not a picture in JPEG, PNG or WebP",
            received=f"{kind}, {len(data)} bytes",
            do=f"{how}export it as JPEG",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of broken EXIF data, and of sizes above Pillow's limit: ours is lower
            Image.open(BytesIO(data), formats=[kind]).verify()  # the checksums of a PNG file
            picture = Image.open(BytesIO(data), formats=[kind])
    except Image.DecompressionBombError:
        raise _too_large(name) from None
    except Exception as error:  # decoders fail at broken bytes in many ways
        raise _damaged(name, error) from None
    return _from_pil(picture, name)


def _from_pil(picture: Image.Image, name: str) -> Tensor:
    if picture.width * picture.height > LARGEST:
        raise _too_large(name)
    try:
        picture.load()
    except Exception as error:  # as in `_decode`
        raise _damaged(name, error) from None
    picture = _upright(picture)
    if picture.mode.startswith("I;16"):
        values = np.array(picture)
        values[values == picture.info.get("transparency")] = 65535
        return from_array(values[None, ..., None])
    if picture.mode in ("I", "F"):
        raise ImageInputError(
            f"{name} has 32-bit values without a stated range",
            received=f"mode {picture.mode}",
            do="give an array in [0, 1]: np.array(picture) divided by the value that means white",
        )
    return from_array(np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))[None])


def _upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF orientation says; as it is when the EXIF data is broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ImageOps.exif_transpose(picture)
        except Exception:  # as in `_decode`
            return picture


def _too_large(name: str) -> ImageInputError:
    return ImageInputError(f"{name} has more than {LARGEST // 10**6} million pixels", do="export it smaller")


def _damaged(name: str, error: Exception) -> ImageInputError:
    return ImageInputError(
        f"{name} is damaged or incomplete", received=str(error).partition(" <_io")[0], do="copy or download it again"
    )
