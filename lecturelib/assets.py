"""Files that come with the course and with its dependencies: where they are and that they are whole."""

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from lecturelib.errors import WeightsError

_SKIMAGE = {
    name: f"skimage/data/{name}.{ending}"
    for ending, names in {
        "png": "astronaut brick camera chelsea clock_motion coffee coins grass gravel moon motorcycle_left "
        "motorcycle_right page text",
        "jpg": "hubble_deep_field retina rocket",
    }.items()
    for name in names.split()
}
PHOTOGRAPHS = {
    **_SKIMAGE,
    "cat": "skimage/data/chelsea.png",
    "china": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
    "grace_hopper": "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "immunohistochemistry": "skimage/data/ihc.png",
}


def data_file(name: str) -> Path:
    """The path of `data/<name>`, once its SHA-256 agrees with `data/manifest.json`."""
    path = data_folder() / name
    expected = json.loads((data_folder() / "manifest.json").read_text(encoding="utf-8")).get(name)
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no file"
    if expected is None or found != expected:
        raise WeightsError(
            f"data/{name} is not the file that was released",
            received=f"SHA-256 {found[:12]}",
            do="install the course anew",
        )
    return path


def photograph_file(name: str) -> Path:
    """The path of a photograph in `PHOTOGRAPHS`, inside the package that brings it."""
    package, _, inside = PHOTOGRAPHS[name].partition("/")
    return Path(find_spec(package).origin).parent / inside


@cache
def data_folder() -> Path:
    """`data/` inside the installed package; in a checkout, beside the package."""
    package = Path(__file__).parent
    return package / "data" if (package / "data").is_dir() else package.parent / "data"
