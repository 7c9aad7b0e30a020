"""Panels, made of plain ipywidgets: controls on top, the answer below.

A panel answers when a control is released, with the newest values: what a slow answer overtook is never computed. Long
work runs in a thread (`run_panel`). Errors appear in the panel, in words. `controls` has what one operates.
"""

import traceback
from collections.abc import Callable, Sequence
from typing import ClassVar

import ipywidgets as widgets
from IPython import get_ipython
from torch import Tensor

from lecturelib.controls import Pad
from lecturelib.errors import LectureError
from lecturelib.fragments import beside, only_stored, words
from lecturelib.jobs import Run

# Larger letters than JupyterLab's, for the back row. The hint: the front end gives a panel that class at once when its
# kernel stops or restarts, and when it opens a stored one.
_STYLE = """<style>
.lecture-panel { --jp-widgets-font-size: 16px; --jp-widgets-inline-height: 32px }
.lecture-hint { display: none }
.jupyter-widgets-disconnected > .lecture-hint { display: block; padding: 4px 10px; background: #f0e442 }
.lecture-hint b { font: bold 18px/1.3 sans-serif; color: #000 }
</style>"""
_HINT = "<b>The kernel of this panel has stopped. Run this cell again: Shift + Enter.</b>"


class Panel(widgets.VBox):
    """Controls, what they show, and a hint that a stopped kernel reveals. Where no widgets live, its last picture is
    shown."""

    def __init__(self, controls: dict[str, widgets.Widget], picture: widgets.HTML, runs: "_Runs | None" = None,
                 buttons: Sequence[widgets.Widget] = ()):  # fmt: skip
        pads = [control for control in controls.values() if isinstance(control, Pad)]
        self._pictures, self._runs = [*(pad.picture for pad in pads), picture], runs
        operated = [getattr(control, "sliders", control) for control in controls.values()]
        wrap = widgets.Layout(flex_flow="row wrap")
        rows = [widgets.HBox(operated, layout=wrap), *([widgets.HBox([*buttons], layout=wrap)] if buttons else [])]
        hint = widgets.HTML(_STYLE + _HINT)
        hint.add_class("lecture-hint")
        answer = widgets.HBox([*pads, picture], layout=widgets.Layout(grid_gap="20px", margin="6px 0"))
        super().__init__([hint, *rows, answer])
        self.add_class("lecture-panel")

    @property
    def html(self) -> str:
        """What it shows."""
        first, *more = (picture.value for picture in self._pictures)
        return beside(first, *more) if more else first

    def _repr_mimebundle_(self, **options) -> dict:
        return {**super()._repr_mimebundle_(**options), "text/html": only_stored(self.html)}

    def close(self) -> None:
        if self._runs:
            self._runs.end()
        super().close()


def panel(draw: Callable[..., str], **controls: widgets.Widget) -> Panel:
    """The controls and, below them, the HTML (see `fragments`) that `draw(**values)` gives for their values."""
    values, picture, answered_last = _values(controls), _picture(), {}

    def answer(*_) -> None:
        chosen = {name: control.value for name, control in values.items()}
        if "" in chosen.values() or chosen == answered_last:  # a field that is being emptied; nothing new
            return
        answered_last.update(chosen)
        try:
            picture.value = draw(**chosen)
        except LectureError as error:
            picture.value = words(str(error))
        except Exception:  # a panel has no cell to raise in
            picture.value = words("This did not work:\n" + traceback.format_exc(limit=-1))

    for control in values.values():
        control.observe(answer, names="value")
    answer()
    return Panel(controls, picture)


def run_panel(job: Callable[..., Tensor | str | None], *, first: float = 3.0, **controls: widgets.Widget) -> Panel:
    """Controls for long work, `job(run, **values)`, which shows its best so far, can be stopped, and goes on.

    The job runs in a thread and reports through `run` (see `jobs.Run`); the images (N, 3, H, W) or the HTML that it
    returns become the final picture. Every new value of a control, and the button Run, begin anew and end what ran
    before. Stop keeps the best so far, Resume goes on from there. The first run begins at once and rests after `first`
    seconds, so that the stored notebook has a picture.
    """
    values, picture = _values(controls), _picture()
    bar = widgets.FloatProgress(value=0.0, min=0.0, max=1.0, layout=widgets.Layout(width="120px"))
    text = widgets.Label(layout=widgets.Layout(min_width="260px"))
    text.add_class("lecture-state")
    names = {"Run": "play", "Stop": "stop", "Resume": "forward"}
    narrow = widgets.Layout(width="115px")
    buttons = {
        name: widgets.Button(description=name, icon=icon, tooltip=name, layout=narrow) for name, icon in names.items()
    }

    def tell(run: Run) -> None:
        failed = run.state == "failed"
        if failed or run.picture:  # the picture of the run before stays until the first one of this run
            picture.value = words(run.text) if failed else run.picture
        bar.value, text.value = run.fraction, "failed" if failed else run.text
        buttons["Stop"].disabled = run.state != "running"
        buttons["Resume"].disabled = run.state not in ("stopping", "resting")

    def start(*_) -> None:
        chosen = {name: control.value for name, control in values.items()}
        if "" not in chosen.values():  # not while a field is being emptied
            runs.start(Run(lambda run: job(run, **chosen), tell))

    runs = _Runs.of_this_cell()
    for control in values.values():
        control.observe(start, names="value")
    buttons["Run"].on_click(start)
    buttons["Stop"].on_click(lambda _: runs.newest.stop())
    buttons["Resume"].on_click(lambda _: runs.newest.resume())
    start()
    if not runs.newest.settles(first):
        runs.newest.stop()
        runs.newest.settles(2.0)
    return Panel(controls, picture, runs, [*buttons.values(), bar, text])


class _Runs:
    """The newest run of a panel; whatever is older has ended."""

    _made: ClassVar[list[tuple[str, str, "_Runs"]]] = []  # cell, execution of the cell, its runs

    def __init__(self):
        self.newest: Run | None = None

    @classmethod
    def of_this_cell(cls) -> "_Runs":
        """New runs; those of the panels that an earlier execution of this cell has made end."""
        cell, execution = _cell_and_execution()
        for made in [made for made in cls._made if made[0] == cell and made[1] != execution]:
            made[2].end()
            cls._made.remove(made)
        cls._made.append((cell, execution, cls()))
        return cls._made[-1][2]

    def start(self, run: Run) -> None:
        self.end()
        self.newest = run
        run.start()

    def end(self) -> None:
        if self.newest:
            self.newest.end()


def _cell_and_execution() -> tuple[str, str]:
    """What the front end calls the cell that is running, and a name of this execution; empty outside of a notebook."""
    shell = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    return parent.get("metadata", {}).get("cellId") or "", parent.get("header", {}).get("msg_id", "")


def _values(controls: dict[str, widgets.Widget]) -> dict[str, widgets.Widget]:
    return {name: getattr(control, "value_widget", control) for name, control in controls.items()}


def _picture() -> widgets.HTML:
    picture = widgets.HTML(layout=widgets.Layout(min_height="260px"))  # nothing below jumps while it is empty
    picture.add_class("lecture-picture")
    return picture
