"""Take the picture that stands for each notebook out of its stored output: docs/gallery/<number>.jpg.

A notebook marks the cell with the tag `gallery`. Run by `make notebooks`, for README, notebook 00 and the
notebooks' heads.
"""

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).parents[1]


def picture_of(notebook: nbformat.NotebookNode) -> bytes | None:
    """The first picture in the output of the cell tagged `gallery`."""
    for cell in notebook.cells:
        if "gallery" in cell.metadata.get("tags", ()):
            for output in cell.outputs:
                for kind in ("image/png", "image/jpeg"):
                    if kind in output.get("data", {}):
                        return base64.b64decode(output.data[kind])
    return None


def main() -> None:
    folder = Path(__file__).with_name("gallery")
    folder.mkdir(exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("[01]*.ipynb")):
        if picture := picture_of(nbformat.read(path, as_version=4)):
            image = Image.open(io.BytesIO(picture)).convert("RGB")
            image.save(folder / f"{path.name[:2]}.jpg", quality=85, optimize=True)


if __name__ == "__main__":
    main()
