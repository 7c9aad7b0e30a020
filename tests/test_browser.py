"""Every lesson in a real browser: open it in JupyterLab, run it, move everything that can be moved."""

import io
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from lab import CHROMIUM, ROOT, Lab, launch, needed_by_panels, require_no_error, run_all, serve, wait_until_idle
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, TimeoutError, expect, sync_playwright

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}}
SCREENSHOTS = ROOT / "screenshots"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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
def test_lesson_shows_its_stored_panels_then_runs_and_they_answer_to_every_control(path, opened):
    page, notebook = opened(f"notebooks/{path.name}")
    _require_stored_panels(path, notebook)
    run_all(page, notebook)
    panels = notebook.locator(".lecture-panel")
    for number, panel in enumerate(panels.all()):
        panel.scroll_into_view_if_needed()
        expect(panel.locator(".lecture-hint")).to_be_hidden()
        _require_names(panel)
        for control in _controls(panel):
            _move(panel, control)
        for pad in panel.locator(".lecture-pad").all():
            _drag(page, panel, pad)
        if panel.locator("button", has_text="Resume").count():
            _stop_and_resume(panel)
        for count, kind in enumerate(["photo", "style"], start=1):
            if panel.locator("button", has_text=f"Your {kind}").count():
                _upload(page, panel, kind, broken=count)
        for width, height in ((1280, 1000), (1920, 1080)):
            page.set_viewport_size({"width": width, "height": height})
            panel.scroll_into_view_if_needed()
            _require_room(panel)
            SCREENSHOTS.mkdir(exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"{path.stem}_{number}_{width}.png")
    if panels.count() > 1:
        _move_two_at_once(panels.nth(0), panels.nth(1))
    require_no_error(notebook)


INTERRUPTED = """from lecturelib import class_score, load_model, maximize, show
from lecturelib.ascent import grey_noise
from lecturelib.panels import classify_panel
model = load_model("mini_alexnet")
classify_panel(model, ["cat", "coffee"])
found = maximize(grey_noise(size=64), class_score(model, "koala"), steps=10**6, lr=0.05)
show(found, alt="what there was so far")
print("better by", (class_score(model, "koala")(found) > class_score(model, "koala")(grey_noise(size=64))).item())"""


def test_interrupting_a_cell_keeps_what_it_has_and_a_restart_tells_the_panels(lab, opened):
    cells = [new_code_cell(source) for source in INTERRUPTED.splitlines()]
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), lab.folder / "interrupted.ipynb")
    page, notebook = opened("interrupted.ipynb")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(notebook.locator(".jp-CodeCell").nth(5).get_by_text("/1000000")).to_be_visible()
    notebook.get_by_role("button", name="Interrupt the kernel").click()
    expect(notebook.get_by_alt_text("what there was so far")).to_be_visible()
    expect(notebook.get_by_text("better by True")).to_be_visible()
    require_no_error(notebook)
    hint = notebook.locator(".lecture-hint")
    expect(hint).to_be_hidden()
    notebook.locator('[data-jp-item-name="restart"]').click()
    page.locator(".jp-Dialog .jp-mod-accept").click()
    expect(hint).to_be_visible()
    expect(notebook.locator(".lecture-panel img").first).to_be_visible()
    wait_until_idle(page)  # a kernel that is just beginning cannot be ended


def test_what_a_panel_needs_is_found_through_all_cells_and_nothing_else():
    sources = ["import torch as t", "a = t.ones(1)", "def f(x): return x + a", "slow = 1", "b = f(2)", "show(slow)"]
    cells = [new_code_cell(source) for source in [*sources, "panel(b)"]]
    cells[-1].metadata["tags"] = ["panel"]
    found = needed_by_panels(new_notebook(cells=[new_markdown_cell("# Why?"), *cells]))
    assert [cell.source for cell in found] == [sources[0], sources[1], sources[2], sources[4], "panel(b)"]


def _require_stored_panels(path: Path, notebook: Locator) -> None:
    """Before anything runs, the picture of each panel is there and says what to do."""
    require_no_error(notebook)
    code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    for number, cell in enumerate(code):
        if "panel" in cell.metadata.get("tags", ()):
            stored = notebook.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea")
            expect(stored.locator("img").first).to_be_visible()
            expect(stored.get_by_text("run this cell")).to_be_visible()


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


def _answer(panel: Locator, before: str, seconds: float = 15, rest: float = 1.5) -> str:
    """What a panel shows next; the same as `before` when nothing comes, or the kernel has rested for a while."""
    end, working = time.monotonic() + seconds, time.monotonic()
    while (now := _picture(panel)) == before and time.monotonic() < min(end, working + rest):
        if panel.page.get_by_text("| Busy").count() or panel.locator("button:enabled", has_text="Stop").count():
            working = time.monotonic()
        time.sleep(0.02)
    return now


def _drag(page: Page, panel: Locator, pad: Locator) -> None:
    """Dragging on a picture moves its sliders to where the mouse is released, and the answer follows."""
    before, image = _picture(panel), pad.locator("img")
    pad.scroll_into_view_if_needed()  # not the image, which an answer may replace meanwhile
    box = image.bounding_box()
    places = [(box["x"] + part * box["width"], box["y"] + part * box["height"]) for part in (0.2, 0.4, 0.6, 0.7)]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
    percents = {"Down (%)": 70, "Right (%)": 70, "Top (%)": 20, "Left (%)": 20, "Bottom (%)": 70}
    for label, percent in percents.items():
        for field in panel.get_by_label(label).all():
            expect(field).to_have_value(re.compile(f"^({percent - 1}|{percent}|{percent + 1})$"))
    assert _answer(panel, before) != before


def _stop_and_resume(panel: Locator) -> None:
    """Stop keeps the picture and Resume goes on from it."""
    run, stop, resume = (panel.locator("button", has_text=name) for name in ("Run", "Stop", "Resume"))
    state = panel.locator(".lecture-state")
    for _ in range(20):  # the job may be done before the click arrives
        run.click()
        with suppress(TimeoutError):
            stop.click(timeout=2_000)
        expect(state).to_contain_text(re.compile("stopped|finished"))
        if "stopped" in state.inner_text():
            break
    expect(resume).to_be_enabled()
    kept = _picture(panel)
    time.sleep(0.3)
    assert _picture(panel) == kept, "it went on after Stop"
    resume.click()
    expect(state).not_to_contain_text("stopped")
    assert _answer(panel, kept) != kept, "Resume did not go on"
    if stop.is_enabled():
        stop.click()


def _upload(page: Page, panel: Locator, kind: str, *, broken: int) -> None:
    """A good picture is shown; a broken one, the panel's first or second, leaves it there and says why."""
    stream = io.BytesIO()
    Image.radial_gradient("L").convert("RGB").save(stream, "PNG")
    chosen, before = panel.get_by_label(kind.capitalize(), exact=True), _picture(panel)
    for name, data in (("good.png", stream.getvalue()), ("broken.png", stream.getvalue()[:500])):
        with page.expect_file_chooser() as chooser:
            panel.locator("button", has_text=f"Your {kind}").click()
        chooser.value.set_files({"name": name, "mimeType": "image/png", "buffer": data})
        if name == "good.png":
            assert _answer(panel, before) != before
            expect(chosen).to_have_value("yours: good.png")
    expect(panel.get_by_text("damaged")).to_have_count(broken)
    expect(chosen).to_have_value("yours: good.png")
    expect(panel.locator("img").first).to_be_visible()


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
