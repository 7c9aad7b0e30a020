"""Training photographs: as one array of bytes, from which batches are cut, or read from a folder one by one."""

import copy
import csv
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets
from torchvision.transforms import v2
from tqdm.auto import tqdm

from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.images import load_image, resize

_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}


@dataclass
class Photographs:
    """Square photographs (N, 3, S, S) as bytes, their labels (N,), and the K class names."""

    images: Tensor
    labels: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.labels)

    def resized(self, size: int) -> "Photographs":
        """The same photographs at `size` pixels, made smaller with antialiasing, some at a time to spare memory."""
        if size == self.images.shape[-1]:
            return self
        parts = [
            F.interpolate(part.float(), size=(size, size), mode="bilinear", antialias=True).round().byte()
            for part in self.images.split(1024)
        ]
        return Photographs(torch.cat(parts), self.labels, self.names)


def read_photographs(source: str, *, size: int, skip: Sequence[str] = ()) -> Photographs:
    """Read `source` as squares of `size` pixels: the middle of each photograph.

    source: a folder with one subfolder per class (torchvision's ImageFolder), or `torchvision:NAME:FOLDER`, which
        downloads the dataset NAME (for example Imagenette, Caltech101) into FOLDER. A table `classes.tsv` in or above
        the folder translates folder names to words.
    skip: folder names of classes to leave out.
    """
    if source.startswith("torchvision:"):
        _, name, root = source.split(":", 2)
        dataset = getattr(datasets, name)(root, download=True)
        names = list(getattr(dataset, "classes", None) or dataset.categories)
    elif Path(source).is_dir():
        dataset = datasets.ImageFolder(source)
        names = dataset.classes
    else:
        raise ArgumentError(
            "there is no such folder of photographs", received=source, do="give a folder with one subfolder per class"
        )
    square = v2.Compose([v2.RGB(), v2.Resize(size), v2.CenterCrop(size), v2.PILToTensor()])
    kept = [index for index, name in enumerate(names) if name not in skip]
    position = {index: place for place, index in enumerate(kept)}
    images, labels = [], []
    for photograph, label in tqdm(dataset, desc=f"reading {source}", mininterval=5):
        label = label[0] if isinstance(label, (list, tuple)) else label
        if label in position:
            images.append(square(photograph))
            labels.append(position[label])
    words = _class_words(Path(source))
    return Photographs(
        torch.stack(images),
        torch.tensor(labels),
        [words.get(names[index], names[index].replace("_", " ")) for index in kept],
    )


def join(parts: Sequence[Photographs]) -> Photographs:
    """Several collections as one, with the classes of all of them; classes of the same name become one class."""
    position: dict[str, int] = {}
    names: list[str] = []
    labels = []
    for part in parts:
        for name in part.names:
            if name.lower() not in position:
                position[name.lower()] = len(names)
                names.append(name)
        labels.append(torch.tensor([position[name.lower()] for name in part.names])[part.labels])
    return Photographs(torch.cat([part.images for part in parts]), torch.cat(labels), names)


def random_batch(photographs: Photographs, indices: Tensor, *, size: int, generator: torch.Generator) -> Tensor:
    """Random resized crops, mirrored and with changed colors, shape (N, 3, size, size) in [0, 1].

    Crops keep 35 to 100 % of the area at aspect ratios 3/4 to 4/3 (Szegedy et al., 2014); one affine map per
    photograph does crop, resize and mirror at once.
    """
    count = len(indices)
    images = photographs.images[indices].float().div_(255)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(count, generator=generator) * (high - low) + low

    area, aspect = uniform(0.35, 1.0), uniform(-log(4 / 3), log(4 / 3)).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirror = (torch.rand(count, generator=generator) < 0.5).float() * -2 + 1
    affine = torch.zeros(count, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = width * mirror, height
    affine[:, 0, 2], affine[:, 1, 2] = uniform(-1, 1) * (1 - width), uniform(-1, 1) * (1 - height)
    grid = F.affine_grid(affine, [count, 3, size, size], align_corners=False)
    images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)

    brightness, contrast, saturation = (uniform(0.7, 1.3).view(-1, 1, 1, 1) for _ in range(3))
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * saturation
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean * brightness).clamp_(0, 1)


def _class_words(folder: Path) -> dict[str, str]:
    """The table `classes.tsv` beside the class folders, or one folder higher: folder name -> first English name."""
    for table in (folder / "classes.tsv", folder.parent / "classes.tsv"):
        if table.exists():
            with table.open(encoding="utf-8", newline="") as file:
                return {row[0]: row[1].split(",")[0] for row in csv.reader(file, delimiter="\t")}
    return {}


class PhotographFolder:
    """The pictures in a folder and its subfolders, read when they are asked for; `skipped` lists what is broken."""

    def __init__(self, folder: str | os.PathLike):
        top = Path(folder).expanduser()
        self.files = sorted(file for file in top.rglob("[!.]*") if file.suffix.lower() in _ENDINGS)
        self.skipped: list[str] = []
        if not self.files:
            raise ArgumentError(
                "there are no photographs in this folder",
                received=folder,
                do="give a folder of JPEG, PNG or WebP files",
            )

    def __len__(self) -> int:
        return len(self.files)

    def outside(self, folder: str | os.PathLike) -> "PhotographFolder":
        """The same without the pictures inside `folder`, where a training keeps its own."""
        kept, hidden = copy.copy(self), Path(folder).expanduser().resolve()
        kept.files = [file for file in self.files if hidden not in file.resolve().parents]
        if not kept.files:
            raise ArgumentError(
                "a training keeps its results in a folder of its own, without photographs",
                received=folder,
                do="for example --folder runs/mine",
            )
        return kept

    def crop(self, index: int, size: int, generator: torch.Generator) -> Tensor:
        """A random square (1, 3, size, size) of 50 to 100 % of the photograph's shorter side, mirrored half the time.

        In the place of a broken photograph the next one that can be read.
        """
        share, down, right, mirrored = torch.rand(4, generator=generator).tolist()
        image = self._readable(index)
        side = max(1, round((0.5 + 0.5 * share) * min(image.shape[2:])))
        top, left = (round(place * (whole - side)) for place, whole in zip((down, right), image.shape[2:], strict=True))
        square = resize(image[:, :, top : top + side, left : left + side], size)
        return square.flip(3) if mirrored < 0.5 else square

    def _readable(self, index: int) -> Tensor:
        for ahead in range(len(self)):
            file = self.files[(index + ahead) % len(self)]
            try:
                return load_image(file)
            except (ImageInputError, OSError):
                if str(file) not in self.skipped:
                    self.skipped.append(str(file))
                    warnings.warn(f"{file.name} cannot be read and is left out", stacklevel=2)
        raise ImageInputError(
            "no photograph can be read", received=f"{len(self)} broken files", do="export them as JPEG"
        )
