"""Every lesson in a real browser: open it in JupyterLab, run it, move everything that can be moved."""

import io
import random
import time
from collections.abc import Callable, Iterator

import nbformat
import pytest
from lab import CHROMIUM, ROOT, Lab, launch, needed_by_panels, run_all, serve
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ERROR = '[data-mime-type="application/vnd.jupyter.error"]'
SCREENSHOTS = ROOT / "screenshots"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# nbval runs all cells of all lessons; here those, and of the others what their panels need.
WHOLE = ("00_start_here", "02_activations")
BUDGET = 0.25  # for lectures on a small computer

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the browser tests were left out")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serve(tmp_path_factory.mktemp("lab"), budget=BUDGET) as lab:
        yield lab


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def opened(lab: Lab, browser: Browser) -> Iterator[Callable[[str], tuple[Page, Locator]]]:
    """A function that opens a notebook by its path: the page, and the notebook's part of it."""
    pages, broken = [], []

    def open_notebook(name: str) -> tuple[Page, Locator]:
        page, notebook = lab.open(browser, name)
        pages.append(page)
        page.on("pageerror", lambda error: broken.append(str(error)))
        return page, notebook

    yield open_notebook
    for page in pages:
        page.close()
    lab.end_kernels()
    assert not broken


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_lesson_shows_its_panels_before_anything_runs(path, opened):
    _, notebook = opened(f"notebooks/{path.name}")
    expect(notebook.locator(ERROR)).to_have_count(0)
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        if "panel" in cell.metadata.get("tags", ()):
            expect(notebook.locator(".jp-CodeCell").nth(number).locator("img").first).to_be_visible()


@pytest.mark.parametrize("name", WHOLE)
def test_whole_lesson_runs(name, opened):
    page, notebook = opened(f"notebooks/{name}.ipynb")
    run_all(page, notebook)
    expect(notebook.locator(ERROR)).to_have_count(0)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_panels_answer_to_every_control(path, opened):
    page, notebook = opened(f"panels/{path.name}")
    run_all(page, notebook)
    panels = notebook.locator(".lecture-panel")
    expect(panels).not_to_have_count(0)
    for number, panel in enumerate(panels.all()):
        panel.scroll_into_view_if_needed()
        _require_names(panel)
        for control in _controls(panel):
            _move(panel, control)
        if panel.locator("button", has_text="Resume").count():
            _stop_and_resume(panel)
        if panel.locator("button", has_text="Your photo").count():
            _upload(page, panel)
        for width, height in ((1280, 1000), (1920, 1080)):
            page.set_viewport_size({"width": width, "height": height})
            panel.scroll_into_view_if_needed()
            _require_room(panel)
            SCREENSHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{path.stem}_{number}_{width}.png")
    if panels.count() > 1:
        _move_two_at_once(panels.nth(0), panels.nth(1))
    expect(notebook.locator(ERROR)).to_have_count(0)


def test_what_a_panel_needs_is_found_through_all_cells_and_nothing_else():
    sources = ["import torch as t", "a = t.ones(1)", "def f(x): return x + a", "slow = 1", "b = f(2)", "show(slow)"]
    cells = [new_code_cell(source) for source in [*sources, "panel(b)"]]
    cells[-1].metadata["tags"] = ["panel"]
    found = needed_by_panels(new_notebook(cells=[new_markdown_cell("# Why?"), *cells]))
    assert [cell.source for cell in found] == [sources[0], sources[1], sources[2], sources[4], "panel(b)"]


SLIDER, DROPDOWN, SEARCH = ".widget-hbox:has(> .widget-hslider)", ".widget-dropdown", ".widget-text:has(datalist)"


def _controls(panel: Locator) -> list[Locator]:
    """The sliders with their number fields, the dropdown lists, the search fields."""
    return [control for kind in (DROPDOWN, SEARCH, SLIDER) for control in panel.locator(kind).all()]


def _values(control: Locator) -> list[str]:
    """Both ends of a control and two states between them."""
    field = _field(control)
    if control.locator(".noUi-handle").count():
        low, high, step = (float(field.get_attribute(name)) for name in ("min", "max", "step"))
        places = range(round((high - low) / step) + 1)
        values = [f"{low + place * step:.6g}" for place in places]
    else:
        values = field.evaluate("field => Array.from((field.list || field).options).map(option => option.value)")
    drawn = random.Random(0).sample(values, min(2, len(values)))
    return list(dict.fromkeys([values[-1], *drawn, values[0]]))


def _field(control: Locator) -> Locator:
    return control.locator("input, select").first


def _set(control: Locator, value: str) -> None:
    """As somebody would do who has only a keyboard."""
    field, handle = _field(control), control.locator(".noUi-handle")
    if handle.count() and value in (field.get_attribute("min"), field.get_attribute("max")):
        handle.press("Home" if value == field.get_attribute("min") else "End")
    elif field.evaluate("field => field.tagName") == "SELECT":
        field.select_option(value)
    else:
        field.fill(value)
        field.press("Enter")


def _move(panel: Locator, control: Locator) -> None:
    """Every state of a control; the picture must change on the way, unless there is only one state."""
    pictures, values, first = {_picture(panel)}, _values(control), _field(control).input_value()
    for value in values:
        before = _picture(panel)
        if _field(control).input_value() != value:
            _set(control, value)
            pictures.add(_answer(panel, before))
    name = _name(_field(control))
    assert len(pictures) > 1 or len(values) == 1, f"{name} changes nothing"
    if _field(control).input_value() != first:  # without style, for example, the size of the style changes nothing
        before = _picture(panel)
        _set(control, first)
        _answer(panel, before)
    if control.locator("datalist").count():
        before = _picture(panel)
        _set(control, "no such name")
        assert _answer(panel, before) != before and not panel.locator(".lecture-picture img").count()
        _set(control, values[0])
        expect(panel.locator(".lecture-picture img").first).to_be_visible()


def _picture(panel: Locator) -> str:
    """A number for what a panel shows."""
    hashed = "text => { let h = 0; for (const c of text) h = (31 * h + c.charCodeAt(0)) | 0; return h }"
    return panel.locator(".lecture-picture").evaluate(f"node => String(({hashed})(node.innerHTML))")


def _answer(panel: Locator, before: str, seconds: float = 15) -> str:
    """What a panel shows next; the same as `before` when nothing comes."""
    end = time.monotonic() + seconds
    while (now := _picture(panel)) == before and time.monotonic() < end:
        time.sleep(0.02)
    return now


def _stop_and_resume(panel: Locator) -> None:
    """Stop keeps the picture and Resume goes on from it."""
    run, stop, resume = (panel.locator("button", has_text=name) for name in ("Run", "Stop", "Resume"))
    run.click()
    stop.click()
    expect(resume).to_be_enabled()
    state = panel.locator(".lecture-state")
    expect(state).to_contain_text("stopped")
    kept = _picture(panel)
    time.sleep(0.3)
    assert _picture(panel) == kept, "it went on after Stop"
    resume.click()
    expect(state).not_to_contain_text("stopped")
    assert _answer(panel, kept) != kept, "Resume did not go on"
    if stop.is_enabled():
        stop.click()


def _upload(page: Page, panel: Locator) -> None:
    """A good photo is shown; a broken one leaves it there and says why."""
    stream = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(stream, "PNG")
    photo, before = panel.locator(DROPDOWN, has_text="Photo").locator("select"), _picture(panel)
    for name, data in (("good.png", stream.getvalue()), ("broken.png", stream.getvalue()[:500])):
        with page.expect_file_chooser() as chooser:
            panel.locator("button", has_text="Your photo").click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})
        if name == "good.png":
            assert _answer(panel, before) != before
            expect(photo).to_have_value("yours: good.png")
    expect(panel.get_by_text("damaged")).to_be_visible()
    expect(photo).to_have_value("yours: good.png")
    expect(panel.locator(".lecture-picture img").first).to_be_visible()


def _move_two_at_once(first: Locator, second: Locator) -> None:
    before = {panel: _picture(panel) for panel in (first, second)}
    for panel in before:
        control = _controls(panel)[0]
        value = _field(control).input_value()
        _set(control, next(other for other in _values(control) if other != value))
    for panel, picture in before.items():
        assert _answer(panel, picture) != picture


def _name(field: Locator) -> str:
    return field.evaluate(
        "node => (Array.from(node.labels || []).map(label => label.textContent).join('') || node.ariaLabel "
        "|| node.title || node.textContent).trim()"
    )


def _require_names(panel: Locator) -> None:
    """Whatever can be operated says what it is to those who cannot see it."""
    for field in panel.locator("input:not([type=file]), select, button").all():
        assert _name(field), f"no name: {field.evaluate('node => node.outerHTML')}"


def _require_room(panel: Locator) -> None:
    """Nothing is cut off: no label, no picture."""
    cut = panel.evaluate("""panel => {
        const right = panel.parentElement.getBoundingClientRect().right + 1
        const wide = Array.from(panel.querySelectorAll("*")).filter(
            node => node.getClientRects().length && node.getBoundingClientRect().right > right)
        const short = Array.from(panel.querySelectorAll("label, button, .widget-label:not(.widget-html *)")).filter(
            node => node.scrollWidth > node.clientWidth + 1)
        return [...wide, ...short].map(
            node => `${node.scrollWidth} of ${node.clientWidth}: ${node.outerHTML.slice(0, 300)}`)
    }""")
    assert cut == []
