"""Pictures that move: frames (F, 3, H, W) as GIF or MP4 files, and in a notebook."""

import base64
import html
import importlib.util
import tempfile
from numbers import Real
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
from IPython.display import display
from torch import Tensor

from lecturelib.errors import ArgumentError
from lecturelib.images import to_array


def save_animation(frames: Tensor, path: str | Path, *, fps: float = 12) -> Path:
    """Write frames (F, 3, H, W) as .gif, .webp or .mp4, by the ending of `path`, and return the path that was written.

    A file that exists is never touched: `name-2.gif`, `name-3.gif`, ... are taken instead. MP4 needs the package
    imageio-ffmpeg; the others come with the course.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".gif", ".webp", ".mp4"):
        raise ArgumentError("animations are saved as .gif, .webp or .mp4", received=path.name, do="choose one of these")
    if not path.parent.is_dir():
        raise ArgumentError(
            "the folder does not exist", received=path.parent, do="make it first, or save beside the notebook"
        )
    data = _encoded(frames, path.suffix.lower(), fps)
    number, target = 1, path
    while True:
        try:
            file = target.open("xb")
            break
        except FileExistsError:
            number += 1
            target = path.with_name(f"{path.stem}-{number}{path.suffix}")
        except OSError as error:
            raise ArgumentError(
                "the animation cannot be written there", received=error.strerror, do="choose another folder"
            ) from None
    try:
        with file:
            file.write(data)
    except BaseException:  # half a file is worse than none
        target.unlink()
        raise
    return target


def show_animation(frames: Tensor, *, alt: str, fps: float = 12, height: int = 260) -> None:
    """Play frames (F, 3, H, W) in the notebook, over and over; alt: what is to be seen, for those who cannot see it."""
    source = base64.b64encode(_encoded(frames, ".webp", fps)).decode()
    picture = f'<img alt="{html.escape(alt, quote=True)}" height="{height}" src="data:image/webp;base64,{source}">'
    display({"text/html": f'<figure style="margin:0">{picture}</figure>', "text/plain": alt}, raw=True)


def _encoded(frames: Tensor, ending: str, fps: float) -> bytes:
    arrays = to_array(frames)
    if isinstance(fps, bool) or not isinstance(fps, Real) or not 0 < fps <= 60:
        raise ArgumentError("frames per second lie above 0 and up to 60", received=repr(fps), do="for example fps=12")
    if ending == ".mp4":
        return _mp4(arrays, fps)
    options = {"quality": 75} if ending == ".webp" else {}
    return imageio.imwrite(
        "<bytes>", arrays, extension=ending, plugin="pillow", duration=round(1000 / fps), loop=0, **options
    )


def _mp4(arrays: np.ndarray, fps: float) -> bytes:
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ArgumentError(
            "films in MP4 need the package imageio-ffmpeg",
            received="an installation without it",
            do="run `pip install imageio-ffmpeg`, or save as .gif, which works everywhere",
        )
    even = arrays[
        :, : arrays.shape[1] // 2 * 2, : arrays.shape[2] // 2 * 2
    ]  # the color format of MP4 halves both sides
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        imageio.imwrite(path, even, plugin="FFMPEG", fps=fps, codec="libx264", macro_block_size=2)
        return path.read_bytes()
