"""Collections of labeled pictures: crops of the packaged photographs, digits, a folder of yours, torchvision's data."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from tqdm.auto import tqdm

from lecturelib.errors import ArgumentError, DownloadError, ImageInputError, nearest
from lecturelib.images import load_image, resize

# One name per scene: "chelsea" is "cat" again, and "motorcycle_right" shows what "motorcycle_left" shows.
COLOR = (
    "astronaut",
    "cat",
    "china",
    "coffee",
    "flower",
    "grace_hopper",
    "hubble_deep_field",
    "immunohistochemistry",
    "motorcycle_left",
    "retina",
    "rocket",
)
GREY = ("camera", "clock_motion", "coins", "moon", "page", "text")
TEXTURES = ("brick", "grass", "gravel")  # grey too, and everywhere alike

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"}
_TORCHVISION = {  # name: (folder inside root, options)
    "Caltech101": ("caltech101/101_ObjectCategories", {}),
    "Imagenette": ("imagenette2-160", {"split": "val", "size": "160px"}),
    "MNIST": ("MNIST/raw", {"train": False}),
}


@dataclass
class Collection:
    """Images (N, 3, S, S) in [0, 1]; labels (N,), the places of their classes in `names`; names of unreadable files.

    `photos[indices]` are the images at `indices` (a number, a list, a slice, a tensor of any shape), always
    (n, 3, S, S).
    """

    images: Tensor
    labels: Tensor
    names: list[str]
    skipped: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: int | slice | Sequence[int] | Tensor) -> Tensor:
        return self.images[indices].reshape(-1, *self.images.shape[1:])


def photograph_names(first: str | None = None) -> list[str]:
    """The names of the packaged photographs for `load_image`, one per scene: `COLOR`, then `GREY`, then `TEXTURES`;
    one of them comes first when it is named."""
    names = [*COLOR, *GREY, *TEXTURES]
    return names if first is None else [first, *(name for name in names if name != first)]


def photo_crops(
    names: Sequence[str] | None = None, *, size: int = 64, per_photo: int = 60, relight: bool = False, seed: int = 0
) -> Collection:
    """`per_photo` random squares of each packaged photograph; the label says which photograph.

    A square's side is a quarter to a half of the photograph's shorter side, so that squares of one photograph show
    different parts of one thing. Neighbors in pixels find those again that have one color all over (`moon`, `rocket`)
    and fail at `grass`, `text` or `motorcycle_left`, which codes tell apart.
    names: by default all of `photograph_names()`.
    relight: change contrast and brightness of every crop at random. Without this, even an untrained network knows
        a photograph again by its colors; with it, what the network has learned counts.
    seed: of all that is random here; the places are the same with and without `relight`.
    """
    names = photograph_names() if names is None else list(names)
    _require_positive(per_photo=per_photo, size=size)
    generator = torch.Generator().manual_seed(seed)

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    crops = []
    for name in names:
        photograph = load_image(name)
        height, width = photograph.shape[2:]
        for _ in range(per_photo):
            side = between(min(height, width) // 4, min(height, width) // 2)
            top, left = between(0, height - side), between(0, width - side)
            crops.append(resize(photograph[:, :, top : top + side, left : left + side], size))
    images = torch.cat(crops)
    if relight:
        contrast, brightness = torch.rand(2, len(images), 1, 1, 1, generator=generator)
        images = 0.5 + (images - 0.5) * (0.5 + 0.7 * contrast) + 0.5 * (brightness - 0.5)
    return Collection(images.clamp(0, 1), torch.arange(len(names)).repeat_interleave(per_photo), names)


def digits() -> Collection:
    """The 1,797 handwritten digits of scikit-learn, images (1797, 3, 8, 8): white on black, ten classes."""
    found = load_digits()
    images = torch.from_numpy(found.images).float().div(16)
    return Collection(images[:, None].repeat(1, 3, 1, 1), torch.from_numpy(found.target).long(), list("0123456789"))


def folder(path: str | Path, *, size: int = 64, limit: int | None = None) -> Collection:
    """The middle squares of the pictures in a folder; each of its subfolders is one class.

    Pictures directly inside are a class of the folder's name. Pictures that cannot be read are left out, with one
    warning, and named in `skipped`.
    limit: read so many pictures at most, evenly spread over the sorted names.
    """
    top = Path(path).expanduser()
    if not top.is_dir():
        raise ArgumentError("there is no such folder", received=path, do="give a folder that holds pictures")
    files = sorted(file for file in top.rglob("[!.]*") if file.suffix.lower() in _ENDINGS and file.is_file())
    if not files:
        raise ArgumentError(
            "there are no pictures in this folder", received=path, do="put JPEG, PNG or WebP files there"
        )
    classes = [file.relative_to(top).parts[0] if file.parent != top else top.resolve().name for file in files]
    names = sorted(set(classes))
    return _read(
        lambda index: (files[index], names.index(classes[index])),
        files=[str(file.relative_to(top)) for file in files],
        names=names,
        size=size,
        limit=limit,
    )


def torchvision_photos(
    name: str, root: str | Path, *, size: int = 64, limit: int | None = 1000, download: bool = False
) -> Collection:
    """A dataset that torchvision can fetch, middle squares: "Imagenette" (val), "Caltech101" or "MNIST" (test).

    root: the folder that holds, or will hold, the downloaded files.
    limit: read so many pictures at most, evenly spread over the dataset.
    download: fetch it first where it is missing (Imagenette 94 MB, Caltech101 137 MB, MNIST 12 MB).
    """
    if name not in _TORCHVISION:
        raise ArgumentError(
            "there is no such dataset here", received=name, do=f"try {nearest(name, list(_TORCHVISION))[0]}"
        )
    inside, options = _TORCHVISION[name]
    from torchvision import datasets  # here, because its import takes as long as torch's

    place = Path(root).expanduser()
    offline = "offline, photo_crops(), digits() and folder(...) work"
    if not download and not (place / inside).is_dir():
        raise DownloadError(f"{name} is not here yet", received=place, do=f"give download=True once, online; {offline}")
    try:
        dataset = getattr(datasets, name)(place, download=download, **options)
    except Exception as error:  # the network, the disk and damaged files fail in many ways
        raise DownloadError(
            f"{name} could not be {'fetched' if download else 'read'}",
            received=str(error).partition(os.linesep)[0],
            do=f"remove {place / inside} if it exists, and give download=True online; {offline}",
        ) from error
    classes = dataset.categories if name == "Caltech101" else dataset.classes
    return _read(
        dataset.__getitem__,
        files=[f"{name}[{index}]" for index in range(len(dataset))],
        names=[entry[0] if isinstance(entry, tuple) else entry.partition(" - ")[0] for entry in classes],
        size=size,
        limit=limit,
    )


def _read(
    item: Callable[[int], tuple[object, int]], *, files: list[str], names: list[str], size: int, limit: int | None
) -> Collection:
    """The pictures item(0), item(1), ... with their labels; `files` are what to call them."""
    _require_positive(size=size, limit=1 if limit is None else limit)
    count = min(len(files), limit or len(files))
    images, labels, skipped = [], [], []
    for index in tqdm([part * len(files) // count for part in range(count)], desc="reading pictures", delay=1):
        try:
            source, label = item(index)
            images.append(load_image(source, size=size))
            labels.append(label)
        except (ImageInputError, OSError):  # torchvision opens some pictures itself
            skipped.append(files[index])
    some = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
    if not images:
        raise ImageInputError(f"none of {count} pictures can be read", received=some, do="export them as JPEG")
    if skipped:
        warnings.warn(f"{len(skipped)} of {count} pictures cannot be read and are left out: {some}", stacklevel=3)
    return Collection(torch.cat(images), torch.tensor(labels), names, skipped)


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if type(number) is not int or number < 1:
            raise ArgumentError(f"{name} is a whole number above 0", received=repr(number), do=f"for example {name}=64")
