"""Divide every notebook into slides: the metadata for `jupyter nbconvert --to slides`, from the room that cells take.

A heading begins a slide. Cells follow on the same slide as long as there is room; the next one begins a slide below it,
with the text that leads to it: a small heading, or words that end in a colon.
Setup, exercises and their checks stay in the notebook only. Run by `make notebooks`, after the outputs are there.
"""

import base64
import io
import math
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 1360, 960  # of a slide, in pixels; the Makefile gives nbconvert the same
LETTERS = 110  # of a text, on one line
NOTEBOOK_ONLY = {"exercise", "check"}


def divide(notebook: NotebookNode) -> NotebookNode:
    """The notebook with `slideshow.slide_type` in the metadata of every cell; nothing else is changed."""
    filled, section = math.inf, ""
    for cell, room in zip(notebook.cells, map(sum, _heights(notebook.cells)), strict=True):
        heading = re.match(r"#{1,2} (.*)", cell.source) if cell.cell_type == "markdown" else None
        section = heading[1].strip() if heading else section
        if section == "Setup" or NOTEBOOK_ONLY & set(cell.metadata.get("tags", ())):
            kind = "skip"
        elif heading:
            kind, filled = "slide", height(cell)
        elif filled + room > HEIGHT:
            kind, filled = "subslide", height(cell)
        else:
            kind, filled = "-", filled + height(cell)
        cell.metadata["slideshow"] = {"slide_type": kind}
    return notebook


def _heights(cells: list[NotebookNode]) -> list[list[int]]:
    """For each cell, its height and those of the cells to which it leads."""
    found = []
    for cell in reversed(cells):
        leads = cell.cell_type == "markdown" and re.search(r"^###.*\Z|:\s*\Z", cell.source, flags=re.MULTILINE)
        found.append([height(cell), *(found[-1] if leads and found else [])])
    return found[::-1]


def height(cell: NotebookNode) -> int:
    """About how many pixels of a slide a cell takes, with its outputs."""
    if cell.cell_type == "markdown":
        return sum(_height_of_line(line) for line in cell.source.splitlines())
    return 30 + 22 * len(cell.source.splitlines()) + sum(map(_height_of_output, cell.get("outputs", ())))


def _height_of_line(line: str) -> int:
    if level := re.match(r"#+ ", line):
        return 110 - 20 * min(len(level[0]) - 1, 3)
    if re.match(r"\s*(\$\$|\\begin)", line):
        return 70
    return 34 * math.ceil(len(line) / LETTERS) if line.strip() else 10


def _height_of_output(output: NotebookNode) -> int:
    if output.output_type == "stream":
        return 10 + 22 * len(output.text.splitlines())
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return HEIGHT - 150  # a panel has a slide for itself
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            with Image.open(io.BytesIO(base64.b64decode(data[kind]))) as picture:
                return 20 + round(picture.height * min(1, WIDTH / picture.width))
    return 10 + 22 * len(str(data.get("text/plain", "")).splitlines())


def main(paths: list[str]) -> None:
    for path in map(Path, paths or sorted((ROOT / "notebooks").glob("*.ipynb"))):
        notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        nbformat.write(divide(notebook), path)


if __name__ == "__main__":
    main(sys.argv[1:])
