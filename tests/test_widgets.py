import gc
import threading
import time
import tracemalloc
from collections.abc import Callable

import ipywidgets
import pytest
import torch

import lecturelib.widgets
from lecturelib.controls import choice, follow, place_pad, search, slider
from lecturelib.errors import ArgumentError
from lecturelib.fragments import tiles
from lecturelib.jobs import Run
from lecturelib.widgets import Panel, panel, run_panel


def controls(box: ipywidgets.Widget) -> dict[str, ipywidgets.Widget]:
    """The controls of a panel by their labels."""
    found = {}
    for child in getattr(box, "children", ()):
        if getattr(child, "description", "") and hasattr(child, "value"):
            found[child.description] = child
        found |= controls(child)
    return found


def button(box: Panel, name: str) -> ipywidgets.Button:
    return next(child for child in box.children[2].children if getattr(child, "description", "") == name)


def press(box: Panel, name: str) -> None:
    assert not button(box, name).disabled
    button(box, name).click()


def test_a_panel_draws_at_once_and_again_for_every_new_value():
    calls = []

    def draw(**values) -> str:
        calls.append(values)
        return f"<b>{values}</b>"

    box = panel(draw, depth=slider("Depth", 2, 0, 9), kind=choice("Kind", ["x", "y"]))
    controls(box)["Depth"].value = 5
    controls(box)["Kind"].value = "y"
    assert calls == [{"depth": 2, "kind": "x"}, {"depth": 5, "kind": "x"}, {"depth": 5, "kind": "y"}]
    assert box.html == f"<b>{calls[-1]}</b>"


def test_where_no_widgets_live_a_panel_is_its_last_picture_and_says_what_to_do():
    box = panel(lambda depth: f"<b>depth {depth}</b>", depth=slider("Depth", 2, 0, 9))
    controls(box)["Depth"].value = 3
    bundle = box._repr_mimebundle_()
    assert bundle["text/html"].startswith("<b>depth 3</b>") and "run this cell" in bundle["text/html"]
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == box.model_id
    assert "run this cell" not in box.html


def test_what_depends_on_a_control_is_changed_before_the_panel_answers_and_it_answers_once():
    answers, channels = [], slider("Channel", 6, 0, 7)
    layer = follow(choice("Layer", [8, 4]), lambda layer: channels.reach(layer - 1))
    box = panel(lambda layer, channel: answers.append((layer, channel)) or "", layer=layer, channel=channels)
    controls(box)["Channel"].value = 7
    controls(box)["Layer"].value = 4
    assert answers == [(8, 6), (8, 7), (4, 3)]
    assert {part.max for part in channels.children} == {3}


def test_a_pad_is_one_control_beside_the_answer_and_its_sliders_stand_with_the_others():
    answers, pad = [], place_pad()
    box = panel(lambda place: answers.append(place) or "answer", place=pad)
    pad.show(torch.zeros(1, 3, 8, 8), "Point here", alt="nothing")
    controls(box)["Down (%)"].value = 20
    assert answers == [(50, 50), (20, 50)]
    assert "Point here" in box.html and "answer" in box.html and box.children[1].children == (pad.sliders,)


def test_a_class_is_found_by_a_part_of_its_name_and_an_emptied_field_changes_nothing():
    answers = []
    box = panel(lambda name: answers.append(name) or "", name=search("Class", ["cat", "goldfish"]))
    field = controls(box)["Class"]
    assert field.options == ("cat", "goldfish") and field.continuous_update is False
    field.value = ""
    field.value = "goldfish"
    assert answers == ["cat", "goldfish"]


@pytest.mark.parametrize("error", [ArgumentError("no such thing", do="choose another"), ZeroDivisionError("oops")])
def test_errors_appear_in_the_panel_in_words_and_the_next_good_value_draws_again(error):
    def draw(value: int) -> str:
        if value == 1:
            raise error
        return "good"

    box = panel(draw, value=slider("Value", 1, 0, 3))
    told = box.html
    assert "No such thing" in told if isinstance(error, ArgumentError) else "This did not work" in told
    controls(box)["Value"].value = 2
    assert box.html == "good"


def wait_until(happened: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def a_long_panel(*, last: int = 100_000, first: float = 0.0) -> tuple[Panel, list[tuple[int, int]]]:
    """A panel whose job counts; the (depth, number) that it has come to."""
    reached = []

    def job(run: Run, depth: int) -> torch.Tensor:
        for number in range(last):
            time.sleep(0.001)
            reached.append((depth, number))
            run.report(number / last, torch.zeros(1, 3, 4, 4), alt=f"depth {depth}, number {number}", text=f"{number}")
        return torch.ones(1, 3, 4, 4)

    return run_panel(job, first=first, depth=slider("Depth", 2, 0, 9)), reached


def test_a_long_panel_shows_its_result_and_can_run_again():
    box, reached = a_long_panel(last=20, first=10)
    assert reached == [(2, number) for number in range(20)] and "<img" in box.html
    assert button(box, "Stop").disabled and button(box, "Resume").disabled
    press(box, "Run")
    wait_until(lambda: len(reached) == 40)


def test_a_long_panel_that_is_not_ready_rests_with_a_picture_for_the_stored_notebook():
    box, reached = a_long_panel(first=0.2)
    assert "depth 2" in box.html and not button(box, "Resume").disabled
    count = len(reached)
    time.sleep(0.05)
    assert len(reached) == count, "it works while nobody looks"
    box.close()


def test_the_picture_of_the_run_before_stays_until_the_next_one_has_something_to_show():
    begins, go = threading.Event(), threading.Event()

    def job(run: Run, depth: int) -> torch.Tensor:
        if depth == 3:
            begins.set()
            assert go.wait(10)
        return torch.full((1, 3, 4, 4), depth / 10)

    box = run_panel(job, first=5.0, depth=slider("Depth", 2, 0, 9))
    before = box.html
    controls(box)["Depth"].value = 3
    assert begins.wait(10) and box.html == before and "<img" in before
    go.set()
    wait_until(lambda: box.html != before)


def test_stop_keeps_the_picture_and_resume_goes_on_until_a_new_value_begins_anew():
    box, reached = a_long_panel()
    press(box, "Resume")
    wait_until(lambda: len(reached) > 20)
    press(box, "Stop")
    wait_until(lambda: "stopped" in box.children[2].children[-1].value)
    last = reached[-1][1]
    assert f"number {last}" in box.html and button(box, "Stop").disabled
    press(box, "Resume")
    wait_until(lambda: reached[-1][1] > last)
    controls(box)["Depth"].value = 7
    wait_until(lambda: reached[-1][0] == 7)
    assert next(number for depth, number in reached if depth == 7) == 0
    time.sleep(0.02)
    assert reached[-1][0] == 7, "the older run is still at work"
    box.close()


def test_fifty_new_values_leave_one_run_at_work_and_closing_leaves_none():
    before = threading.active_count()
    box, reached = a_long_panel()
    for value in range(50):
        controls(box)["Depth"].value = value % 10
    wait_until(lambda: reached and reached[-1][0] == 9)
    wait_until(lambda: threading.active_count() <= before + 1)
    box.close()
    wait_until(lambda: threading.active_count() <= before)


def test_running_the_cell_again_ends_what_the_earlier_panels_were_doing_and_only_that(monkeypatch):
    where = ["one cell", "first execution"]
    monkeypatch.setattr(lecturelib.widgets, "_cell_and_execution", lambda: tuple(where))
    earlier, twin = a_long_panel()[0], a_long_panel()[0]
    assert earlier._runs.newest.is_alive() and twin._runs.newest.is_alive()
    where[:] = ["another cell", "second execution"]
    other = a_long_panel()[0]
    where[:] = ["one cell", "third execution"]
    again = a_long_panel()[0]
    for box in (earlier, twin):
        wait_until(lambda box=box: not box._runs.newest.is_alive())
    assert other._runs.newest.is_alive() and again._runs.newest.is_alive()
    other.close()
    again.close()


def test_errors_of_a_long_job_appear_in_words_and_run_tries_again():
    attempts = []

    def job(run: Run, depth: int) -> torch.Tensor:
        attempts.append(depth)
        if len(attempts) == 1:
            raise ArgumentError("no such thing", do="press Run")
        return torch.zeros(1, 3, 4, 4)

    box = run_panel(job, first=5.0, depth=slider("Depth", 2, 0, 9))
    assert "No such thing" in box.html
    press(box, "Run")
    wait_until(lambda: "<img" in box.html)


def test_memory_stays_flat_over_200_events():
    def draw(depth: int) -> str:
        return tiles(torch.rand(1, 3, 64, 64), alt=f"depth {depth}")

    quick, (long, _) = panel(draw, depth=slider("Depth", 0, 0, 250)), a_long_panel(last=3, first=5.0)

    def grown(events: range) -> float:
        for value in events:
            controls(quick)["Depth"].value = value
            controls(long)["Depth"].value = value % 10
        assert long._runs.newest.settles(10)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = grown(range(1, 21))
        assert grown(range(21, 221)) - before < 300_000
    finally:
        tracemalloc.stop()
    long.close()
