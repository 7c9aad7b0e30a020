"""The blocks of panels, made of plain ipywidgets: controls on top, the answer below.

A panel answers when a control is released, with the newest values: what a slow answer overtook is never computed. Long
work runs in a thread (`run_panel`). Errors appear in the panel, in words. No other module imports ipywidgets.
"""

import traceback
from collections.abc import Callable, Sequence
from typing import ClassVar

import ipywidgets as widgets
from IPython import get_ipython
from torch import Tensor

from lecturelib.errors import LectureError
from lecturelib.fragments import words
from lecturelib.images import load_image
from lecturelib.jobs import Run

_LABEL = {"description_width": "110px"}
_HINT = "When nothing moves any more, the kernel has stopped: run this cell again (Shift + Enter)."


class Panel(widgets.VBox):
    """Controls, what they show, and a hint for a stopped kernel. Where no widgets live, its last picture is shown."""

    def __init__(self, rows: Sequence[widgets.Widget], picture: widgets.HTML, runs: "_Runs | None" = None):
        hint = widgets.HTML(f'<small style="opacity: 0.7">{_HINT}</small>')
        self._picture, self._runs = picture, runs
        super().__init__([*rows, picture, hint])
        self.add_class("lecture-panel")

    def _repr_mimebundle_(self, **options) -> dict:
        bundle = super()._repr_mimebundle_(**options)
        return {**bundle, "text/html": self._picture.value}

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
    return Panel([_row(controls)], picture)


def run_panel(job: Callable[..., Tensor | str | None], *, first: float = 3.0, **controls: widgets.Widget) -> Panel:
    """Controls for long work, `job(run, **values)`, which shows its best so far, can be stopped, and goes on.

    The job runs in a thread and reports through `run` (see `jobs.Run`); the images (N, 3, H, W) or the HTML that it
    returns become the final picture. Every new value of a control, and the button Run, begin anew and end what ran
    before. Stop keeps the best so far, Resume goes on from there. The first run begins at once and rests after `first`
    seconds, so that the stored notebook has a picture.
    """
    values, picture = _values(controls), _picture()
    bar = widgets.FloatProgress(value=0.0, min=0.0, max=1.0, layout=widgets.Layout(width="200px"))
    text = widgets.Label(layout=widgets.Layout(min_width="260px"))
    text.add_class("lecture-state")
    names = {"Run": "play", "Stop": "stop", "Resume": "forward"}
    buttons = {name: widgets.Button(description=name, icon=icon, tooltip=name) for name, icon in names.items()}

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
    return Panel([_row(controls), widgets.HBox([*buttons.values(), bar, text])], picture, runs)


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


def _row(controls: dict[str, widgets.Widget]) -> widgets.HBox:
    return widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))


def _picture() -> widgets.HTML:
    picture = widgets.HTML(layout=widgets.Layout(min_height="260px"))  # nothing below jumps while it is empty
    picture.add_class("lecture-picture")
    return picture


class LabeledSlider(widgets.HBox):
    """A number field, which has the label and takes typed values, and the slider for it, which has no name of its
    own."""

    def __init__(self, number: widgets.Widget, bar: widgets.Widget):
        self.value_widget = number
        super().__init__([number, bar])

    def reach(self, high: float) -> None:
        """From now on the slider ends at `high`; a larger value becomes that."""
        for part in self.children:
            part.max = high


def slider(label: str, value: float, low: float, high: float, step: float = 1) -> LabeledSlider:
    """A number between low and high; whole when value and step are."""
    whole = isinstance(value, int) and isinstance(step, int)
    options = {"min": low, "max": high, "step": step, "value": value}
    number = (widgets.BoundedIntText if whole else widgets.BoundedFloatText)(
        **options, description=label, style=_LABEL, layout=widgets.Layout(width="200px")
    )
    bar = (widgets.IntSlider if whole else widgets.FloatSlider)(
        **options, continuous_update=False, readout=False, layout=widgets.Layout(width="200px")
    )
    widgets.link((bar, "value"), (number, "value"))
    return LabeledSlider(number, bar)


def choice(label: str, options: Sequence, value=None) -> widgets.Dropdown:
    """One of several; typing its first letters finds it."""
    options = list(options)
    return widgets.Dropdown(
        options=options, value=options[0] if value is None else value, description=label, style=_LABEL
    )


def follow(control: widgets.Widget, action: Callable[[object], object]) -> widgets.Widget:
    """The control, whose value `action` is given now and whenever it is new: what else depends on it."""
    action(control.value)
    control.observe(lambda change: action(change["new"]), names="value")
    return control


def search(label: str, options: Sequence[str], value: str | None = None) -> widgets.Combobox:
    """One of many names, found by typing a part of it; an unknown one is refused by whoever uses it."""
    return widgets.Combobox(
        options=list(options),
        value=options[0] if value is None else value,
        placeholder="type a part of a name",
        description=label,
        continuous_update=False,
        style=_LABEL,
    )


class PhotoPicker(widgets.HBox):
    """A packaged photograph by name, or one of yours; `image(name)` is the chosen one, shape (1, 3, size, size)."""

    def __init__(self, names: Sequence[str], *, size: int = 128):
        self.size = size
        self.value_widget = choice("Photo", names)
        self.notice = widgets.HTML()
        self._uploads: dict[str, Tensor] = {}
        wide = {"tooltip": "JPEG, PNG or WebP", "layout": widgets.Layout(min_width="150px")}
        upload = widgets.FileUpload(accept=".jpg,.jpeg,.png,.webp", description="Your photo", multiple=False, **wide)
        upload.observe(self._receive, names="value")
        super().__init__([self.value_widget, upload, self.notice], layout=widgets.Layout(flex_flow="row wrap"))

    def image(self, name: str) -> Tensor:
        return self._uploads[name] if name in self._uploads else load_image(name, size=self.size)

    def _receive(self, change: dict) -> None:
        """A good photo becomes a choice and is chosen; a bad one leaves the last good choice as it is, with a
        notice."""
        if not change["new"]:
            return
        try:
            image = load_image(change["owner"], size=self.size)
        except LectureError as error:
            self.notice.value = words(str(error))
            return
        name = f"yours: {change['new'][0]['name']}"
        self.notice.value = ""
        self._uploads[name] = image
        self.value_widget.options = list(dict.fromkeys([*self.value_widget.options, name]))
        self.value_widget.value = name
