"""The notebooks as they are stored: executed once from top to bottom, small, described, without a trace of a machine.

nbval executes the same files in the same run of pytest; here nothing is executed.
"""

import base64
import copy
import io
import json
import re
import statistics
import warnings
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SETUP_LINES, CELL_LINES, MEDIAN_LINES, MEGABYTES = 6, 20, 7, 1.5


class _Pictures(HTMLParser):
    """The `<img>` of a piece of HTML, each as its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attrs))


def problems(notebook: NotebookNode, folder: Path = FOLDER) -> list[str]:
    """Everything about a stored notebook that a reader would stumble over; empty when it is as it should be."""
    found = [*_form(notebook), *_template(notebook), *_links(notebook, folder)]
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            found += [f"cell {number}: {problem}" for output in cell.outputs for problem in _output(output)]
    for identity, model in _widgets(notebook).items():
        for output in model["state"].get("outputs", []):
            found += [f"panel {identity[:6]}: {problem}" for problem in _output(nbformat.from_dict(output))]
    return found


def _form(notebook: NotebookNode) -> list[str]:
    """The file format, the order of execution, the traces of a machine."""
    found = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            nbformat.validate(copy.deepcopy(notebook))  # a copy, because it adds ids that are missing
    except Exception as error:
        found.append(f"not a valid notebook: {error}")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    if "version" in notebook.metadata.get("language_info", {}):
        found.append("names the Python of one machine")
    code = _code(notebook)
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        found.append("not executed once from top to bottom")
    if any("execution" in cell.metadata for cell in notebook.cells):
        found.append("has records of timing")
    if notebook.nbformat_minor < 5:
        found.append("is of a format without cell ids")
    if len(json.dumps(notebook)) > MEGABYTES * 1e6:
        found.append(f"larger than {MEGABYTES} MB")
    return found


def _template(notebook: NotebookNode) -> list[str]:
    """The shape of a lesson: a title, a short setup, short cells, text around them."""
    found = []
    kinds = [cell.cell_type for cell in notebook.cells]
    if kinds[0] != "markdown" or not notebook.cells[0].source.startswith("# "):
        found.append("does not begin with its title")
    if kinds[-1] != "markdown":
        found.append("does not end with text")
    if re.search(r"code( code){2}", " ".join(kinds)):
        found.append("has more than two code cells without text between them")
    setup = sum(_lines(cell) for cell in _section(notebook, "Setup") if cell.cell_type == "code")
    if not 0 < setup <= SETUP_LINES:
        found.append(f"has {setup} lines of code under '## Setup'; 1 to {SETUP_LINES} are wanted")
    lengths = [_lines(cell) for cell in _code(notebook)]
    if max(lengths, default=0) > CELL_LINES:
        found.append(f"has a cell of {max(lengths)} lines")
    if statistics.median(lengths or [0]) > MEDIAN_LINES:
        found.append(f"has a median of {statistics.median(lengths)} lines per cell")
    return found


def _links(notebook: NotebookNode, folder: Path) -> list[str]:
    """Links of the text to files that are not there, and pictures in the text that are not described."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        found += ["a picture in the text without a description"] * cell.source.count("![](")
        found += _undescribed(cell.source)
        for target in re.findall(r"\]\(([^)\s]+)\)", cell.source):
            file, _, place = unquote(target).partition("#")
            if re.match(r"\w+:", target):
                continue
            reached = (folder / file).exists() if file else place.replace("-", " ") in _headings(notebook)
            if not reached:
                found.append(f"the link to {target} leads nowhere")
    return found


def _output(output: NotebookNode) -> list[str]:
    """Errors, warnings, paths of a machine, and pictures that show nothing or are not described."""
    if output.output_type == "error":
        return [f"raised {output.ename}"]
    if output.output_type == "stream":
        warned = output.name == "stderr" and re.search(r"Warning|Traceback", output.text)
        return _paths(output.text) + (["shows a warning"] if warned else [])
    html = output.data.get("text/html", "")
    found = _paths(output.data.get("text/plain", "")) + _paths(html) + _undescribed(html)
    pictures = [picture for kind, picture in output.data.items() if kind in {"image/png", "image/jpeg"}]
    if pictures and not _Pictures(html).found:
        found.append("a picture without a description: use show(..., alt=...)")
    pictures += re.findall(r"data:image/(?:png|jpeg|webp);base64,([A-Za-z0-9+/=\s]+)", html)
    for picture in pictures:
        levels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB"), dtype=float)
        if levels.std() < 2:
            found.append("a picture that shows nothing")
    return found


def _undescribed(html: str) -> list[str]:
    blank = [picture for picture in _Pictures(html).found if not (picture.get("alt") or "").strip()]
    return ["a picture without a description"] * len(blank)


def _paths(text: str) -> list[str]:
    text = re.sub(r"base64,[A-Za-z0-9+/=\s]+", "", text)
    folders = r"(?<![\w.:/])/(?:tmp|root|home|Users|work|farm|var|opt|usr|mnt)/[\w.]+|\b[A-Z]:\\\w+|site-packages"
    return [f"names {path!r}" for path in re.findall(folders, text)]


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _lines(cell: NotebookNode) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


def _headings(notebook: NotebookNode) -> list[str]:
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [heading.replace("-", " ") for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)]


def _section(notebook: NotebookNode, title: str) -> list[NotebookNode]:
    """The cells from the heading `title` up to the next heading."""
    cells, inside = [], False
    for cell in notebook.cells:
        if heading := re.match(r"#+ (.*)", cell.source if cell.cell_type == "markdown" else ""):
            inside = heading[1].strip() == title
        if inside:
            cells.append(cell)
    return cells


def _widgets(notebook: NotebookNode) -> dict:
    stored = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {})
    return stored.get("state", {})


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stored_as_a_reader_wants_it(path):
    assert problems(nbformat.read(path, as_version=nbformat.NO_CONVERT)) == []


def test_notebooks_are_numbered_by_their_lectures_from_00():
    numbers = [int(path.stem[:2]) for path in NOTEBOOKS]
    assert numbers[:1] == [0]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) <= 11


def _picture(levels: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(levels.astype(np.uint8)).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def _lesson() -> NotebookNode:
    """A small notebook in which nothing is wrong."""
    ramp = np.linspace(0, 255, 64).reshape(8, 8)
    picture = {"image/png": _picture(ramp), "text/html": '<img alt="a ramp">', "text/plain": "picture: a ramp"}
    cells = [
        new_markdown_cell("# What is a ramp?"),
        new_markdown_cell("## Setup"),
        new_code_cell("import lecturelib", execution_count=1),
        new_markdown_cell("## Look\nSee [the setup](#Setup)."),
        new_code_cell("show(ramp)", execution_count=2, outputs=[new_output("display_data", picture)]),
        new_markdown_cell("It rises."),
    ]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


FAULTS = {
    "raised ValueError": lambda lesson: lesson.cells[2].outputs.append(
        new_output("error", ename="ValueError", evalue="", traceback=[])
    ),
    "shows a warning": lambda lesson: lesson.cells[2].outputs.append(
        new_output("stream", name="stderr", text="UserWarning: old")
    ),
    "names '/usr/ada'": lambda lesson: lesson.cells[2].outputs.append(
        new_output("stream", name="stdout", text="saved as /usr/ada/ramp.png")
    ),
    "not executed once": lambda lesson: lesson.cells[4].update(execution_count=7),
    "records of timing": lambda lesson: lesson.cells[4].metadata.update(execution={"iopub.execute_input": "now"}),
    "Python of one machine": lambda lesson: lesson.metadata.language_info.update(version="3.11.7"),
    "not a valid notebook": lambda lesson: lesson.cells[0].pop("id"),
    "format without cell ids": lambda lesson: lesson.update(nbformat_minor=4),
    "kernel is not python3": lambda lesson: lesson.metadata.kernelspec.update(name="conda-env"),
    "larger than": lambda lesson: lesson.cells[0].update(source="# " + "a" * 1_600_000),
    "cell of 21 lines": lambda lesson: lesson.cells[4].update(source="x = 1\n" * 21),
    "median": lambda lesson: [cell.update(source="x = 1\n" * 8) for cell in _code(lesson)],
    "lines of code under '## Setup'": lambda lesson: lesson.cells[2].update(source="x = 1\n" * 7),
    "without text between": lambda lesson: (
        lesson.cells.insert(3, copy.deepcopy(lesson.cells[2])) or lesson.cells.pop(4)
    ),
    "begin with its title": lambda lesson: lesson.cells[0].update(source="A ramp"),
    "end with text": lambda lesson: lesson.cells.pop(),
    "leads nowhere": lambda lesson: lesson.cells[0].update(source="# Next: [ramp](99_ramp.ipynb)"),
    "#Nowhere leads nowhere": lambda lesson: lesson.cells[0].update(source="# See [ramp](#Nowhere)"),
    "picture in the text without": lambda lesson: lesson.cells[0].update(source="# A ramp ![](https://a.b/c.png)"),
    "picture without a description": lambda lesson: (
        lesson.cells[4].outputs[0].data.update({"text/html": "<img alt=''>"})
    ),
    "use show": lambda lesson: lesson.cells[4].outputs[0].data.pop("text/html"),
    "shows nothing": lambda lesson: (
        lesson.cells[4].outputs[0].data.update({"image/png": _picture(np.full((8, 8), 127))})
    ),
    "panel 123456: raised": lambda lesson: lesson.metadata.update(
        widgets={
            "application/vnd.jupyter.widget-state+json": {
                "state": {"123456789": {"state": {"outputs": [new_output("error", ename="KeyError", evalue="")]}}}
            }
        }
    ),
}


def test_checks_pass_a_lesson_without_faults():
    assert problems(_lesson()) == []


@pytest.mark.parametrize("expected", FAULTS)
def test_checks_find(expected):
    lesson = copy.deepcopy(_lesson())
    FAULTS[expected](lesson)
    assert expected in "; ".join(problems(lesson))
