"""How long a panel takes in a browser: from the release of a control to the new picture, decoded, in the page.

    python benchmarks/panels.py --moves 20 [02 04 ...]

A table with the median and the 95th percentile in milliseconds of every control, over all its moves; a pad is clicked,
and its time begins when the mouse goes down. For panels with a Run button: the time to the first preview, and the
previews per second after it. The lessons run in a JupyterLab of their own, with the cells that their panels need.
Chromium must be installed; its path may be given as CHROMIUM.
"""

import argparse
import random
import re
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from lab import Lab, launch, run_all, serve  # noqa: E402

# `done` resolves to the milliseconds from `begin` to the new picture, or to null when it stays for ten seconds.
WATCH = """control => {
    const panel = control.closest(".lecture-panel"), picture = panel.querySelector(".lecture-picture")
    const times = {begin: 0}
    panel.addEventListener("mousedown", () => { times.begin = performance.now() }, {capture: true, once: true})
    times.done = new Promise(resolve => {
        const watch = new MutationObserver(async () => {
            watch.disconnect()
            await Promise.all(Array.from(picture.querySelectorAll("img")).map(image => image.decode()))
            requestAnimationFrame(() => resolve(performance.now() - times.begin))
        })
        watch.observe(picture, {subtree: true, childList: true, characterData: true})
        setTimeout(() => resolve(null), 10000)
    })
    return times
}"""

MOVE = """(times, [control, value]) => {
    const field = control.querySelector("select, input")
    field.value = value
    times.begin = performance.now()
    for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind, {bubbles: true}))
    return times.done
}"""

# Resolves to the previews per second of the run that is at work, over four seconds or until it ends.
PREVIEWS = """panel => new Promise(resolve => {
    const picture = panel.querySelector(".lecture-picture"), times = []
    const watch = new MutationObserver(() => times.push(performance.now()))
    watch.observe(picture, {subtree: true, childList: true, characterData: true})
    setTimeout(() => {
        watch.disconnect()
        resolve(times.length < 3 ? 0 : 1000 * (times.length - 1) / (times[times.length - 1] - times[0]))
    }, 4000)
})"""

VALUES = """control => {
    const field = control.querySelector("select, input")
    if (field.type !== "number") return Array.from((field.list || field).options).map(option => option.value)
    const [low, high, step] = [field.min, field.max, field.step].map(Number)
    return Array.from({length: Math.round((high - low) / step) + 1}, (_, place) => String(low + place * step))
}"""


def measure(control: Locator, moves: int, chance: random.Random) -> list[float]:
    """Milliseconds of each move to a value that is not the present one; moves that change no pixel are left out."""
    values, times = control.evaluate(VALUES), []
    for _ in range(moves):
        present = control.locator("select, input").first.input_value()
        others = [value for value in values if value != present]
        if others:
            _rest(control)
            watched = control.evaluate_handle(WATCH)
            times.append(watched.evaluate(MOVE, [control.element_handle(), chance.choice(others)]))
    return [time for time in times if time is not None]


def point(pad: Locator, moves: int, chance: random.Random) -> list[float]:
    """Milliseconds of each click at a random place."""
    times = []
    for _ in range(moves):
        _rest(pad)
        watched, box = pad.evaluate_handle(WATCH), pad.locator("img").bounding_box()
        pad.page.mouse.click(
            *(box[low] + box[long] * chance.random() for low, long in (("x", "width"), ("y", "height")))
        )
        times.append(watched.evaluate("times => times.done"))
    return [time for time in times if time is not None]


def _rest(control: Locator) -> None:
    """Stop what is at work, whose previews would be taken for the answer."""
    panel = control.locator("xpath=ancestor::*[contains(@class, 'lecture-panel')]")
    stop = panel.locator("button", has_text="Stop")
    if stop.count() and stop.is_enabled():
        stop.click()
        expect(panel.locator(".lecture-state")).to_contain_text(re.compile("stopped|finished"))


def rows(page: Page, lesson: str, moves: int) -> None:
    chance = random.Random(0)
    for panel in page.locator(".lecture-panel").all():
        panel.scroll_into_view_if_needed()
        long = panel.locator("button", has_text="Resume").count() > 0
        moves_here = min(moves, 5) if long else moves
        for control in panel.locator(".widget-dropdown, .widget-hbox:has(> .widget-hslider)").all():
            label = control.locator("label").first.text_content().strip()
            row(lesson, label, measure(control, moves_here, chance), long)
        for pad in panel.locator(".lecture-pad").all():
            pad.scroll_into_view_if_needed()
            row(lesson, "(pad)", point(pad, moves_here, chance), long)
        if long:
            panel.locator("button", has_text="Run").click()
            print(f"{lesson:28s} {'Run':14s} {'previews/s':14s}     {panel.evaluate(PREVIEWS):7.1f}", flush=True)


def row(lesson: str, label: str, times: list[float], long: bool) -> None:
    if len(times) < 2:
        print(f"{lesson:28s} {label:14s} changes nothing here")
        return
    middle, late = statistics.median(times), statistics.quantiles(times, n=20, method="inclusive")[-1]
    what = "first preview" if long else "new picture"
    print(f"{lesson:28s} {label:14s} {what:14s} {len(times):3d} {middle:7.0f} {late:7.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lessons", nargs="*", help="numbers of lessons; all of them by default")
    parser.add_argument("--moves", type=int, default=20)
    parser.add_argument("--wait", type=float, default=20, help="seconds for what panels compute in the background")
    options = parser.parse_args()
    print(f"{'lesson':28s} {'control':14s} {'':14s}   n     p50     p95")
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder)) as lab, sync_playwright() as playwright:
        browser = launch(playwright)
        for path in sorted((lab.folder / "panels").glob("*.ipynb")):
            if not options.lessons or path.name[:2] in options.lessons:
                _lesson(lab, browser, path, options.moves, options.wait)
        browser.close()


def _lesson(lab: Lab, browser: Browser, path: Path, moves: int, wait: float) -> None:
    page, notebook = lab.open(browser, f"panels/{path.name}")
    run_all(page, notebook)
    page.wait_for_timeout(1000 * wait)
    rows(page, path.stem, moves)
    page.close()
    lab.end_kernels()


if __name__ == "__main__":
    main()
