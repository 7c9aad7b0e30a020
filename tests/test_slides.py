"""The notebooks as decks: `make slides`, and the metadata that divides them."""

import base64
import copy
import io
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SLIDES = runpy.run_path(str(ROOT / "docs" / "slides.py"))
divide, height = SLIDES["divide"], SLIDES["height"]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def kinds(notebook: NotebookNode) -> list[str]:
    return [cell.metadata.slideshow.slide_type for cell in notebook.cells]


def a_figure(pixels: int) -> NotebookNode:
    stream = io.BytesIO()
    Image.new("RGB", (100, pixels)).save(stream, "PNG")
    data = {"image/png": base64.b64encode(stream.getvalue()).decode(), "text/plain": "figure"}
    return new_code_cell("show(image)", outputs=[new_output("display_data", data)])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_lesson_is_divided_into_slides_as_the_rule_says(path):
    stored = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    assert stored == divide(copy.deepcopy(stored)), "run python docs/slides.py"
    assert kinds(stored)[0] == "slide" and kinds(stored).count("slide") >= 4


def test_headings_begin_slides_and_what_no_longer_fits_goes_below():
    cells = [new_markdown_cell("# Why?"), new_markdown_cell("## Look"), a_figure(400), new_markdown_cell("See."),
             a_figure(400), a_figure(800), new_markdown_cell("## More")]  # fmt: skip
    assert kinds(divide(new_notebook(cells=cells))) == ["slide", "slide", "-", "-", "subslide", "subslide", "slide"]


@pytest.mark.parametrize("words", ["### A question", "What do we see?\n\nLook:", "### A question\n\nLook at this:"])
def test_what_leads_to_a_cell_goes_with_it(words):
    cells = [new_markdown_cell("## Look"), a_figure(600), new_markdown_cell(words), a_figure(400)]
    assert kinds(divide(new_notebook(cells=cells))) == ["slide", "-", "subslide", "-"]
    cells[2] = new_markdown_cell("### A question\n\nIt was answered above.")
    assert kinds(divide(new_notebook(cells=cells))) == ["slide", "-", "-", "subslide"]


def test_setup_and_answers_stay_in_the_notebook():
    check = new_code_cell("assert mine == 3", metadata={"tags": ["check"]})
    cells = [new_markdown_cell("# Why?"), new_markdown_cell("## Setup"), new_code_cell("import torch"),
             new_markdown_cell("## Exercises"), check, new_markdown_cell("Done.")]  # fmt: skip
    assert kinds(divide(new_notebook(cells=cells))) == ["slide", "skip", "skip", "slide", "skip", "-"]


def test_only_the_metadata_of_the_slides_is_changed_and_twice_is_once():
    notebook = new_notebook(cells=[new_markdown_cell("# Why?"), a_figure(50)])
    divided = divide(copy.deepcopy(notebook))
    assert divide(copy.deepcopy(divided)) == divided
    for cell in divided.cells:
        del cell.metadata["slideshow"]
    assert divided == notebook


def test_more_text_code_and_pictures_need_more_room():
    short, long = new_markdown_cell("A word."), new_markdown_cell("word " * 100)
    assert height(short) < height(new_markdown_cell("## A word.")) < height(long)
    assert height(new_code_cell("a = 1\n" * 10)) - height(new_code_cell("a = 1")) > 100
    assert height(a_figure(500)) - height(a_figure(100)) == 400
    printed = new_code_cell("", outputs=[new_output("stream", text="line\n" * 10)])
    assert height(printed) > height(new_code_cell("")) + 100


def test_a_deck_is_made_offline_with_every_slide_and_its_pictures(tmp_path):
    recipe = re.search(r"nbconvert (--to slides .*) --output-dir", MAKEFILE, flags=re.DOTALL)[1]
    options = [*shlex.split(recipe.replace("\\\n", " ")), f"--output-dir={tmp_path}"]
    command = [sys.executable, "-m", "nbconvert", *options, str(NOTEBOOKS[0])]
    subprocess.run(command, check=True, capture_output=True)
    source = divide(nbformat.read(NOTEBOOKS[0], as_version=4))
    (deck,) = tmp_path.glob("*.slides.html")
    html = deck.read_text(encoding="utf-8")
    assert html.count("<section>") >= kinds(source).count("slide") + kinds(source).count("subslide")
    missing = [place for place in re.findall(r'src="([^":]+)"', html) if not (ROOT / "runs" / place).resolve().exists()]
    assert "data:image/" in html and missing == []
    assert '<script type="application/vnd.jupyter.widget-view+json">' not in html
