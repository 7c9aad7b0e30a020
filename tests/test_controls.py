import io
from datetime import UTC, datetime

import ipywidgets
import pytest
import torch
from PIL import Image

from lecturelib.controls import Pad, PhotoPicker, place_pad, rectangle_pad, slider


def an_upload(data: bytes, name: str = "mine.png") -> tuple[dict]:
    changed = datetime(2026, 1, 1, tzinfo=UTC)
    facts = {"name": name, "type": "image/png", "size": len(data), "last_modified": changed}
    return ({**facts, "content": memoryview(data)},)


def a_png(size: int = 40) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (size, size), (200, 30, 30)).save(stream, "PNG")
    return stream.getvalue()


def mouse(pad: Pad, kind: str, x: float, y: float) -> None:
    """What the browser tells of the mouse."""
    if kind == "move":
        pad._mouse.set_trait("xy", [x, y])
    else:
        pad._mouse._handle_mouse_msg(None, {"type": kind, "relativeX": x, "relativeY": y}, [])


def seen_values(pad: Pad) -> list[tuple]:
    values = []
    pad.observe(lambda change: values.append(change["new"]), names="value")
    return values


def test_a_slider_waits_for_the_release_and_agrees_with_its_labeled_number_field():
    number, bar = slider("Epsilon", 2.0, 0.0, 8.0, 0.25).children
    assert bar.continuous_update is False and number.description == "Epsilon"
    number.value = 4.5
    assert bar.value == 4.5
    bar.value = 1.25
    assert number.value == 1.25


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


def test_dragging_on_a_pad_moves_its_value_once_for_each_place_and_its_sliders_with_it():
    pad = place_pad(height=200)
    values = seen_values(pad)
    mouse(pad, "move", 10, 10)
    assert values == [], "nothing is pressed"
    mouse(pad, "mousedown", 20, 100)
    mouse(pad, "move", 60, 50)
    mouse(pad, "mouseup", 80, 40)
    mouse(pad, "move", 100, 100)
    mouse(pad, "mouseup", 100, 100)
    assert values == [(50, 10), (25, 30), (20, 40)]
    assert [slider.children[1].value for slider in pad.sliders.children] == [20, 40]


def test_a_drag_that_leaves_the_pad_ends_at_its_edge():
    pad = place_pad(height=200)
    values = seen_values(pad)
    mouse(pad, "mousedown", 100, 0)
    mouse(pad, "mouseleave", 250, -30)
    mouse(pad, "move", 100, 100)
    assert values == [(0, 50), (0, 100)]


def test_a_slider_of_a_pad_is_as_good_as_the_mouse():
    pad = place_pad()
    pad.sliders.children[0].value_widget.value = 7
    assert pad.value == (7, 50)


def test_a_rectangle_is_dragged_from_any_corner_is_seen_at_once_and_counts_when_it_is_released():
    pad = rectangle_pad(height=100)
    pad.show(torch.zeros(1, 3, 8, 8), "photo", alt="black")
    values, before = seen_values(pad), pad.picture.value
    mouse(pad, "mousedown", 80, 70)
    mouse(pad, "move", 20, 10)
    assert values == [] and "width: 60px; height: 60px" in pad.picture.value != before
    mouse(pad, "mouseup", 30, 20)
    assert values == [(20, 30, 70, 80)]


@pytest.mark.parametrize("make", [place_pad, rectangle_pad])
def test_a_pad_that_was_given_a_picture_shows_where_its_value_is(make):
    pad = make(height=100)
    assert pad.picture.value == ""
    pad.show(torch.zeros(1, 3, 8, 8), "photo", alt="black")
    before = pad.picture.value
    pad.sliders.children[0].value_widget.value = 90
    assert pad.picture.value != before
    assert before.count("<img") == 1 and 'alt="photo: black"' in before
