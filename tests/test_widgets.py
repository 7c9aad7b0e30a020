import io
from datetime import UTC, datetime

import ipywidgets
import pytest
from PIL import Image

from lecturelib.errors import ArgumentError
from lecturelib.widgets import PhotoPicker, choice, panel, slider


def controls(box: ipywidgets.Widget) -> dict[str, ipywidgets.Widget]:
    """The controls of a panel by their labels."""
    found = {}
    for child in getattr(box, "children", ()):
        if getattr(child, "description", "") and hasattr(child, "value"):
            found[child.description] = child
        found |= controls(child)
    return found


def an_upload(data: bytes, name: str = "mine.png") -> tuple[dict]:
    changed = datetime(2026, 1, 1, tzinfo=UTC)
    facts = {"name": name, "type": "image/png", "size": len(data), "last_modified": changed}
    return ({**facts, "content": memoryview(data)},)


def a_png(size: int = 40) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(stream, "PNG")
    return stream.getvalue()


def test_a_panel_draws_at_once_and_again_for_every_new_value():
    calls = []
    box = panel(lambda **values: calls.append(values), depth=slider("Depth", 2, 0, 9), kind=choice("Kind", ["x", "y"]))
    controls(box)["Depth"].value = 5
    controls(box)["Kind"].value = "y"
    assert calls == [{"depth": 2, "kind": "x"}, {"depth": 5, "kind": "x"}, {"depth": 5, "kind": "y"}]


def test_a_slider_waits_for_the_release_and_agrees_with_its_number_field():
    control = slider("Epsilon", 2.0, 0.0, 8.0, 0.25)
    bar, number = control.children
    assert bar.continuous_update is False and number.tooltip == "Epsilon"
    number.value = 4.5
    assert bar.value == 4.5
    bar.value = 1.25
    assert number.value == 1.25


@pytest.mark.parametrize("error", [ArgumentError("no such thing", do="choose another"), ZeroDivisionError("oops")])
def test_errors_appear_in_the_panel_in_words(error, capsys):
    def draw(value: int) -> None:
        raise error

    panel(draw, value=slider("Value", 1, 0, 3))
    printed = capsys.readouterr().out
    assert "No such thing" in printed if isinstance(error, ArgumentError) else "This did not work" in printed


def test_an_uploaded_photo_becomes_a_choice_and_is_chosen():
    picker = PhotoPicker(["cat", "coffee"], size=32)
    upload = next(child for child in picker.children if isinstance(child, ipywidgets.FileUpload))
    upload.value = an_upload(a_png())
    assert picker.value_widget.value == "yours: mine.png" and "cat" in picker.value_widget.options
    assert picker.image("yours: mine.png").shape == (1, 3, 32, 32) and picker.image("cat").shape == (1, 3, 32, 32)


def test_a_broken_upload_leaves_the_last_photo_and_says_why():
    picker = PhotoPicker(["cat", "coffee"])
    picker.value_widget.value = "coffee"
    upload = next(child for child in picker.children if isinstance(child, ipywidgets.FileUpload))
    upload.value = an_upload(a_png()[:60])
    assert picker.value_widget.value == "coffee" and picker.notice.value
    upload.value = an_upload(a_png(), "good.png")
    assert picker.value_widget.value == "yours: good.png" and picker.notice.value == ""
