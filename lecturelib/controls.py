"""What one operates in a panel: sliders, lists, search fields, photo pickers, and pads: pictures to point at."""

from collections.abc import Callable, Sequence

import ipywidgets as widgets
from ipyevents import Event
from torch import Tensor
from traitlets import Tuple

from lecturelib.errors import LectureError
from lecturelib.fragments import marked, words
from lecturelib.images import load_image

_LABEL = {"description_width": "115px"}
Place = tuple[float, float]  # down and right, in percent of a picture
Area = tuple[float, float, float, float]  # top, left, bottom and right, in percent of a picture


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
        **options, description=label, style=_LABEL, layout=widgets.Layout(width="205px")
    )
    bar = (widgets.IntSlider if whole else widgets.FloatSlider)(
        **options, continuous_update=False, readout=False, layout=widgets.Layout(width="170px")
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
    """A packaged picture by name, or one of yours; `image(name)` is the chosen one, shape (1, 3, size, size)."""

    def __init__(self, names: Sequence[str], *, size: int = 128, label: str = "Photo"):
        self.size = size
        self.value_widget = choice(label, names)
        self.notice = widgets.HTML()
        self._uploads: dict[str, Tensor] = {}
        wide = {"tooltip": "JPEG, PNG or WebP", "layout": widgets.Layout(min_width="190px")}
        yours = f"Your {label.lower()}"
        upload = widgets.FileUpload(accept=".jpg,.jpeg,.png,.webp", description=yours, multiple=False, **wide)
        upload.observe(self._receive, names="value")
        super().__init__([self.value_widget, upload, self.notice], layout=widgets.Layout(flex_flow="row wrap"))

    def image(self, name: str) -> Tensor:
        return self._uploads[name] if name in self._uploads else load_image(name, size=self.size)

    def share(self, control: widgets.Dropdown) -> None:
        """Offer pictures of yours in another list, too, which keeps its first option and its value."""

        def offer(change: dict) -> None:
            value = control.value
            control.options = [control.options[0], *change["new"]]
            control.value = value

        self.value_widget.observe(offer, names="options")

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


class Pad(widgets.VBox):
    """A picture on which one points or drags. Its sliders say the same to those who have no mouse.

    value: those of all sliders, in percent; it changes once for all of them. `show` gives the pad its picture.
    """

    value = Tuple()

    def __init__(
        self,
        sliders: Sequence[LabeledSlider],
        values_of: Callable[[Place, Place], tuple[float, ...]],
        *,
        height: int,
        live: bool,
    ):
        """values_of: what a drag means, by its first and its last place. live: the value changes while the mouse is
        dragged, and not only when it is released."""
        self.sliders = widgets.HBox(list(sliders), layout=widgets.Layout(flex_flow="row wrap"))
        self._numbers = [each.value_widget for each in sliders]
        self._values_of, self._live, self._height = values_of, live, height
        self._begin: Place | None = None  # where the mouse went down
        self._shown: tuple = ()
        self.picture = widgets.HTML(layout=widgets.Layout(min_width=f"{height}px", margin="0"))
        self.picture.add_class("lecture-pad")
        super().__init__([self.picture], layout=widgets.Layout(flex="0 0 auto"))
        self._read()
        self.observe(lambda change: self._mark(change["new"]), names="value")
        for number in self._numbers:
            number.observe(self._read, names="value")
        # The place of the mouse comes as a state: while one answer is computed, only its newest value waits.
        events = ["mousedown", "mouseup", "mouseleave"]
        self._mouse = Event(source=self.picture, watched_events=events, xy_coordinate_system="relative", wait=30)
        self._mouse.prevent_default_action = True  # the browser would drag the picture away
        self._mouse.on_dom_event(self._press)
        self._mouse.observe(self._move, names="xy")

    def show(self, image: Tensor, title: str, *, alt: str, at: tuple[float, ...] | None = None) -> None:
        """The image (1, 3, H, W), with a mark at the value, or at another place."""
        self._shown = (image, title, alt)
        self._mark(at or self.value)

    def _press(self, event: dict) -> None:
        place = self._place(event["relativeX"], event["relativeY"])
        if event["type"] == "mousedown":
            self._begin = place
        if self._begin is not None:
            self._drag(place, last=event["type"] != "mousedown")
        if event["type"] != "mousedown":
            self._begin = None

    def _move(self, change: dict) -> None:
        if self._begin is not None and change["new"]:
            self._drag(self._place(*change["new"]), last=False)

    def _place(self, x: float, y: float) -> Place:
        return tuple(min(max(100 * length / self._height, 0), 100) for length in (y, x))

    def _drag(self, place: Place, *, last: bool) -> None:
        values = self._values_of(self._begin, place)
        if not (self._live or last):
            self._mark(values)
            return
        with self.hold_trait_notifications():  # one change for all of them
            for number, value in zip(self._numbers, values, strict=True):
                number.value = round(value)

    def _read(self, *_) -> None:
        self.value = tuple(number.value for number in self._numbers)

    def _mark(self, values: tuple[float, ...]) -> None:
        if self._shown:
            image, title, alt = self._shown
            self.picture.value = marked(image, title, values, alt=alt, height=self._height)


def place_pad(*, height: int = 260, live: bool = True) -> Pad:
    """A place, (down, right) in percent."""
    sliders = slider("Down (%)", 50, 0, 100), slider("Right (%)", 50, 0, 100)
    return Pad(sliders, lambda begin, end: end, height=height, live=live)


def rectangle_pad(*, height: int = 260) -> Pad:
    """A rectangle, (top, left, bottom, right) in percent; one drags from one corner to the opposite one."""
    sliders = [slider(f"{side} (%)", value, 0, 100) for side, value in
               (("Top", 0), ("Left", 50), ("Bottom", 100), ("Right", 100))]  # fmt: skip
    corners = lambda begin, end: (*map(min, begin, end), *map(max, begin, end))  # noqa: E731
    return Pad(sliders, corners, height=height, live=False)
