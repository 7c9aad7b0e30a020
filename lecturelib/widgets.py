"""The blocks of panels, made of plain ipywidgets: controls on top, the answer below.

A panel answers when a control is released, with the newest values: what a slow answer overtook is never computed.
Errors appear in the panel, in words. No other module imports ipywidgets.
"""

import traceback
from collections.abc import Callable, Sequence

import ipywidgets as widgets
from torch import Tensor

from lecturelib.errors import LectureError
from lecturelib.images import load_image

Panel = widgets.VBox

_LABEL = {"description_width": "110px"}


def panel(draw: Callable[..., None], **controls: widgets.Widget) -> Panel:
    """The controls and, below them, whatever `draw(**values)` shows for their values."""

    def answer(**values) -> None:
        try:
            draw(**values)
        except LectureError as error:
            print(error)
        except Exception:  # a panel has no cell to raise in
            print("This did not work:", traceback.format_exc(limit=-1), sep="\n")

    values = {name: getattr(control, "value_widget", control) for name, control in controls.items()}
    output = widgets.interactive_output(answer, values)
    output.layout.min_height = "260px"  # nothing below jumps while a new picture replaces the old one
    rows = [widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap")), output]
    return Panel(rows)


class _Labeled(widgets.HBox):
    """A slider with a number field beside it: the field has an accessible name and takes typed values."""

    def __init__(self, slider: widgets.Widget, number: widgets.Widget):
        self.value_widget = slider
        super().__init__([slider, number])


def slider(label: str, value: float, low: float, high: float, step: float = 1) -> widgets.HBox:
    """A number between low and high; whole when value and step are."""
    whole = isinstance(value, int) and isinstance(step, int)
    options = {"min": low, "max": high, "step": step, "value": value}
    bar = (widgets.IntSlider if whole else widgets.FloatSlider)(
        **options, description=label, continuous_update=False, readout=False, style=_LABEL
    )
    number = (widgets.BoundedIntText if whole else widgets.BoundedFloatText)(
        **options, description="", tooltip=label, layout=widgets.Layout(width="80px")
    )
    widgets.link((bar, "value"), (number, "value"))
    return _Labeled(bar, number)


def choice(label: str, options: Sequence, value=None) -> widgets.Dropdown:
    """One of several; typing its first letters finds it."""
    options = list(options)
    return widgets.Dropdown(
        options=options, value=options[0] if value is None else value, description=label, style=_LABEL
    )


class PhotoPicker(widgets.HBox):
    """A packaged photograph by name, or one of yours; `image(name)` is the chosen one, shape (1, 3, size, size)."""

    def __init__(self, names: Sequence[str], *, size: int = 128):
        self.size = size
        self.value_widget = choice("Photo", names)
        self.notice = widgets.Label()
        self._uploads: dict[str, Tensor] = {}
        upload = widgets.FileUpload(accept=".jpg,.jpeg,.png,.webp", description="Your photo", multiple=False)
        upload.observe(self._receive, names="value")
        super().__init__([self.value_widget, upload, self.notice])

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
            self.notice.value = " ".join(str(error).split("\n"))
            return
        name = f"yours: {change['new'][0]['name']}"
        self.notice.value = ""
        self._uploads[name] = image
        self.value_widget.options = list(dict.fromkeys([*self.value_widget.options, name]))
        self.value_widget.value = name
