import threading
import time
from collections.abc import Callable

import pytest
import torch

from lecturelib.errors import ArgumentError
from lecturelib.jobs import KEEP, Run
from lecturelib.optimize import maximize, minimize


def wait_until(happened: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


def count_to(last: int, seconds: float = 0.002) -> Callable[[Run], torch.Tensor]:
    """A job that reports each number up to `last` and ends with a picture."""

    def job(run: Run) -> torch.Tensor:
        for number in range(last):
            time.sleep(seconds)
            run.report(number / last, torch.full((1, 3, 4, 4), number / last), alt=f"number {number}", text=str(number))
        return torch.ones(1, 3, 4, 4)

    return job


class Told:
    """What a run told: one (state, fraction, text, picture) for each change."""

    def __init__(self):
        self.changes: list[tuple[str, float, str, str]] = []

    def __call__(self, run: Run) -> None:
        self.changes.append((run.state, run.fraction, run.text, run.picture))

    def pictures(self) -> list[str]:
        return list(dict.fromkeys(change[3] for change in self.changes if change[3]))


def test_a_run_shows_pictures_on_the_way_and_its_result_at_the_end():
    told = Told()
    run = Run(count_to(300), told)
    run.start()
    assert run.settles(20)
    states, fractions = [change[0] for change in told.changes], [change[1] for change in told.changes]
    assert states == ["running"] * (len(states) - 1) + ["finished"]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert len(told.pictures()) >= 3 and "number 0" in told.pictures()[0]


def test_pictures_are_drawn_five_times_a_second_at_most():
    told = Told()
    run = Run(count_to(400), told)
    run.start()
    begin = time.monotonic()
    assert run.settles(20)
    assert len(told.pictures()) <= (time.monotonic() - begin) / 0.2 + 3


def test_pictures_that_are_not_shown_are_not_made():
    made = []

    def job(run: Run) -> None:
        for number in range(2000):
            run.report(number / 2000, lambda number=number: made.append(number) or f"<b>{number}</b>")

    run = Run(job, Told())
    run.start()
    assert run.settles(20) and 1 <= len(made) < 200 and run.picture == f"<b>{made[-1]}</b>"


def test_stop_rests_with_the_newest_picture_and_resume_goes_on_from_there():
    seen = []

    def job(run: Run) -> None:
        for number in range(100_000):
            time.sleep(0.001)
            seen.append(number)
            run.report(number / 100_000, torch.zeros(1, 3, 4, 4), alt=f"number {number}", text=f"at {number}")

    run = Run(job, Told())
    run.start()
    wait_until(lambda: len(seen) > 20)
    run.stop()
    assert run.settles(10) and run.state == "resting"
    rested = seen[-1]
    assert run.text == f"at {rested}, stopped" and f"number {rested}" in run.picture
    time.sleep(0.05)
    assert seen[-1] == rested, "it worked while it was resting"
    run.resume()
    wait_until(lambda: seen[-1] > rested + 5)
    assert seen == list(range(seen[-1] + 1)), "it began anew"
    run.end()
    wait_until(lambda: not run.is_alive())


@pytest.mark.parametrize("before", ["running", "resting"])
def test_an_ended_run_leaves_its_thread_and_tells_nothing_any_more(before):
    told, run = Told(), None
    run = Run(count_to(100_000), told)
    run.start()
    wait_until(lambda: run.fraction > 0)
    if before == "resting":
        run.stop()
        assert run.settles(10)
    run.end()
    count = len(told.changes)
    wait_until(lambda: not run.is_alive())
    assert len(told.changes) == count


@pytest.mark.filterwarnings("ignore:Interrupted")
def test_a_run_that_is_ended_in_the_midst_of_a_loop_leaves_the_loop_at_once():
    after = []

    def job(run: Run) -> None:
        maximize(
            torch.zeros(1, 3, 4, 4), mean, steps=100_000, step_rule="sgd", progress=False, on_step=run.on_step(100_000)
        )
        after.append("the loop took it for an interrupt")

    run = Run(job, Told())
    run.start()
    wait_until(lambda: run.fraction > 0)
    run.end()
    wait_until(lambda: not run.is_alive())
    assert not after


def mean(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).mean(dim=1)


@pytest.mark.parametrize(
    ("error", "text"), [(ArgumentError("no such thing"), "No such thing"), (KeyError("x"), "KeyError")]
)
def test_errors_of_the_job_are_told_in_words(error, text):
    def job(run: Run) -> None:
        raise error

    run = Run(job, Told())
    run.start()
    assert run.settles(10) and run.state == "failed" and text in run.text


def test_a_step_shows_the_best_so_far_of_each_picture():
    shown = []
    images = [torch.full((2, 3, 2, 2), value) for value in (0.1, 0.2, 0.3)]
    scores = [torch.tensor([1.0, 5.0]), torch.tensor([3.0, 4.0]), torch.tensor([2.0, 6.0])]
    for keep in KEEP:
        run = Run(lambda run: None, Told())
        run.report = lambda fraction, images, *_, **__: shown.append(images[:, 0, 0, 0].tolist())
        see = run.on_step(2, keep=keep)
        for step in range(3):
            see(step, images[step], scores[step])
    found = {keep: shown[3 * number : 3 * number + 3] for number, keep in enumerate(KEEP)}
    low, middle, high = (pytest.approx(value) for value in (0.1, 0.2, 0.3))
    assert found == {
        "largest": [[low, low], [middle, low], [middle, high]],
        "smallest": [[low, low], [low, middle], [low, middle]],
        "latest": [[low, low], [middle, middle], [high, high]],
    }


def test_steps_of_several_loops_count_together_also_when_the_size_changes():
    run, texts = Run(lambda run: None, Told()), []
    run.report = lambda fraction, *_, text, **__: texts.append((fraction, text))
    see = run.on_step(4)
    for size in (4, 6):
        for step in range(3):
            see(step, torch.zeros(1, 3, size, size), torch.zeros(1))
    assert [text for _, text in texts] == [f"step {done} of 4" for done in (0, 1, 2, 2, 3, 4)]
    assert [fraction for fraction, _ in texts] == [0, 0.25, 0.5, 0.5, 0.75, 1]


def test_a_loss_that_falls_is_followed_with_smallest():
    start = torch.linspace(0.4, 0.6, 48).view(1, 3, 4, 4)
    see_largest = []

    def job(run: Run) -> torch.Tensor:
        on_step = run.on_step(20, keep="smallest")
        return minimize(start, mean, steps=20, lr=0.01, step_rule="normalized", progress=False, on_step=on_step)

    run = Run(job, Told())
    run.report = lambda fraction, images, *_, **__: see_largest.append(float(images.mean()))
    run.start()
    assert run.settles(20) and run.state == "finished", run.text
    assert see_largest == sorted(see_largest, reverse=True) and see_largest[-1] < 0.5


def test_a_wrong_choice_of_what_to_keep_gets_help():
    with pytest.raises(ArgumentError, match="largest"):
        Run(lambda run: None, Told()).on_step(3, keep="best")


def test_many_runs_leave_no_thread_behind():
    before = threading.active_count()
    for _ in range(30):
        run = Run(count_to(100_000), Told())
        run.start()
        run.end()
    wait_until(lambda: threading.active_count() <= before)
