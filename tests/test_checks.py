"""The machinery of the checks: five verdicts, nothing of the student's is changed, and it never raises."""

import builtins
import os
import random
import sys
import threading
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from mutation_bank import BANK

from lecturelib.checks import EXERCISES, check, exercises, judge
from lecturelib.checks.cases import ARCHITECTURES, Case
from lecturelib.checks.comparing import compare
from lecturelib.checks.limits import TookTooLongError, time_limit
from lecturelib.checks.verdicts import NOT_ATTEMPTED, RAISED, RIGHT, TOO_LONG, WRONG, FindingError, Verdict

ONE = ("plain",)


def gram(features):
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]


def verdict(function, **options):
    return judge("gram", function, architectures=ONE, **options)


def stub(features): ...


def stub_of_the_notebook(features):
    # YOUR CODE HERE
    raise NotImplementedError()


def documented_stub(features):
    """What comes out."""
    pass


def test_every_lecture_has_three_to_five_exercises():
    lectures = [exercise.lecture for exercise in EXERCISES.values()]
    assert {lecture: lectures.count(lecture) for lecture in range(1, 12) if not 3 <= lectures.count(lecture) <= 5} == {}
    assert len(lectures) >= 40


def test_right():
    assert verdict(gram).kind == RIGHT
    assert str(verdict(gram)) == "gram: right."


@pytest.mark.parametrize("function", [stub, stub_of_the_notebook, documented_stub])
def test_a_stub_is_not_attempted(function):
    assert verdict(function).kind == NOT_ATTEMPTED


def test_a_constant_is_an_attempt():
    assert verdict(HOSTILE["a constant"]).kind == WRONG


def test_wrong_with_a_diagnosis():
    found = verdict(lambda features: gram(features) / features.shape[1])
    assert found.kind == WRONG
    assert "by h w" in found.text


def raises_on_its_second_line(features):
    places = features.shape[9]
    return features / places


def test_an_error_is_told_with_the_students_line():
    found = verdict(raises_on_its_second_line)
    assert found.kind == RAISED
    assert "IndexError" in found.text
    assert "places = features.shape[9]" in found.text


def endless(features):
    while True:
        pass


def endless_and_stubborn(features):
    while True:
        with suppress(Exception):
            time.sleep(0.001)


def waits_for_ever(features):
    threading.Event().wait()


@pytest.mark.parametrize("function", [endless, endless_and_stubborn, waits_for_ever])
def test_an_endless_loop_took_too_long(function):
    assert verdict(function, seconds=0.1).kind == TOO_LONG
    assert verdict(gram).kind == RIGHT


def test_the_limit_works_outside_of_the_main_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(verdict(endless, seconds=0.3)))
    thread.start()
    thread.join()
    assert found[0].kind == TOO_LONG


@pytest.mark.parametrize("threaded", [False, True])
def test_nothing_of_the_limit_is_left(threaded):
    def work():
        with pytest.raises(TookTooLongError), time_limit(0.05):
            endless(None)
        with time_limit(0.05):
            pass
        start = time.process_time()
        while time.process_time() < start + 0.4:
            pass
        done.append(True)

    done: list[bool] = []
    if threaded:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert done == [True]


def recursive(features):
    return recursive(features)


HOSTILE = {
    "exits": lambda features: sys.exit(3),
    "ends the process": lambda features: os._exit(3),
    "recursion": recursive,
    "memory": lambda features: torch.zeros(10**13),
    "generator": lambda features: (row for row in features),
    "its own argument's class": lambda features: type(features),
    "a constant": lambda features: 1.0,
    "an object without comparison": lambda features: object(),
    "a string": lambda features: "G",
    "None": lambda features: print("done"),
    "nan": lambda features: gram(features) * float("nan"),
    "empty": lambda features: torch.zeros(0),
    "ragged": lambda features: [[1], [2, 3]],
    "complex": lambda features: gram(features) + 1j,
    "values and indices": lambda features: gram(features).max(dim=2),
    "not implemented in torch": lambda features: torch.nn.functional.pad(features, (1,) * 8, mode="reflect"),
    "huge print": lambda features: print("x" * 10**6),
    "interrupt": lambda features: (_ for _ in ()).throw(KeyboardInterrupt),
    "too few arguments": lambda: None,
    "too many arguments": lambda features, more: None,
    "a class": type("Gram", (), {"__init__": lambda self, features: None}),
    "lies about equality": lambda features: type("Yes", (), {"__eq__": lambda *_: True, "__len__": lambda _: 3})(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_get_a_verdict_and_no_points(name, capfd):
    found = verdict(HOSTILE[name])
    assert not found.right
    assert len(str(found)) < 500
    assert capfd.readouterr().out == ""


def forks(features):
    child = os.fork()
    if child == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    return gram(features)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_process_that_the_answer_started_may_exit():
    assert verdict(forks).right


@pytest.mark.parametrize("value", [None, 3, "gram", torch.zeros(3)])
def test_what_is_no_function_is_wrong(value):
    assert verdict(value).kind == WRONG


@pytest.mark.parametrize(
    "convert",
    [
        lambda right: right.double(),
        lambda right: right.numpy(),
        lambda right: right.tolist(),
        lambda right: right.requires_grad_(),
        lambda right: right.transpose(1, 2).contiguous().transpose(1, 2),
        lambda right: list(right),
    ],
)
def test_right_by_another_type_is_right(convert):
    assert verdict(lambda features: convert(gram(features))).right


def changes_everything(features):
    torch.set_grad_enabled(False)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    print("noise", file=sys.stderr)
    return gram(features)


def test_a_check_leaves_the_students_world_as_it_was(capfd):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), os.getcwd()  # noqa: NPY002
    assert verdict(changes_everything).right
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate(), os.getcwd()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2:] == after[2:]
    assert torch.is_grad_enabled()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["gram", "dream_score", "saliency", "tv_beta"])
def test_the_modes_of_the_students_session_do_not_matter(name):
    solved = next(entry.function for entry in BANK if entry.exercise == name and entry.expected is None)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad():
            assert judge(name, solved).right
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def draws(features):
    return gram(features) * (1 + random.random() + np.random.rand())  # noqa: NPY002


def test_an_answer_that_draws_numbers_gets_the_same_verdict_again():
    assert str(verdict(draws)) == str(verdict(draws))


def test_an_error_of_torch_is_no_stub():
    found = verdict(HOSTILE["not implemented in torch"])
    assert found.kind == RAISED
    assert "pad" in found.text


def without_gradients(model, images, y):
    return torch.autograd.grad(model(images)[range(len(y)), y].sum(), images)[0].abs().amax(1)


def test_a_well_known_error_of_torch_is_explained():
    assert "begin with a copy of the input" in judge("saliency", without_gradients).text


def settings_changed(network, name, x):
    for layer in network:
        layer.inplace = False
    return torch.nn.Sequential(*network[: list(dict(network.named_children())).index(name) + 1])(x)


def layers_replaced(network, name, x):
    network.relu1 = torch.nn.ReLU()
    return x


@pytest.mark.parametrize(
    ("function", "words"), [(settings_changed, "setting of a layer"), (layers_replaced, "replaced")]
)
def test_a_change_of_the_network_is_found_and_named(function, words):
    assert words in judge("capture", function).text


def test_a_change_of_the_argument_is_found_and_named():
    def in_place(features):
        features -= 1
        return gram(features + 1)

    found = verdict(in_place)
    assert found.kind == WRONG
    assert "`features` in place" in found.text


def test_the_verdict_depends_on_the_answer_only():
    def wrong(features):
        return gram(features) * 2

    texts = {str(judge("gram", wrong, seed=seed)) for seed in (1, 1, 2, 3)}
    assert len(texts) == 1
    assert str(judge("gram", gram)) == str(judge("gram", gram, seed=5, rounds=3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_cases_are_fresh_for_every_seed_and_equal_for_the_same(architecture):
    def draw(seed):
        return Case("gram", architecture, seed).rand(3)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


NOTEBOOK = "from lecturelib.checks import check\npoints = check('gram', points=2)"


def run_cell(**variables) -> dict:
    namespace = dict(variables)
    exec(NOTEBOOK, namespace)
    return namespace


def test_check_prints_the_verdict_and_gives_the_points(capsys):
    assert run_cell(gram=gram)["points"] == 2
    assert capsys.readouterr().out == "gram: right.\n2 of 2 points\n"
    assert run_cell(gram=lambda features: gram(features) / 7)["points"] == 0
    assert capsys.readouterr().out.endswith("0 of 2 points\n")


def talks(features):
    print("shape", tuple(features.shape))
    return gram(features)


def test_check_shows_the_first_lines_that_the_students_code_printed(capsys):
    assert run_cell(gram=talks)["points"] == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["gram: right.", "2 of 2 points", "Your code printed:"]
    assert lines[3].startswith("  shape (2, ")
    assert lines[-1] == "  ..."
    assert len(lines) == 7


def test_check_without_the_function_says_which_cell_to_run(capsys):
    assert run_cell()["points"] == 0
    assert "not attempted. There is no function `gram`" in capsys.readouterr().out


def test_check_does_not_mind_that_names_are_taken(capsys):
    taken = {"torch": 3, "print": None, "check": "mine", "F": None, "np": 0, "len": None}
    namespace = run_cell(gram=gram, **taken)
    assert namespace["points"] == 2
    assert {name: namespace[name] for name in taken if name != "check"} == {
        name: value for name, value in taken.items() if name != "check"
    }
    assert builtins.print is print


def test_check_of_an_unknown_exercise_names_the_nearest(capsys):
    assert check("grams") == 0
    assert "gram" in capsys.readouterr().out


def said(got, expected, mistakes=None) -> str:
    with pytest.raises(FindingError) as finding:
        compare(got, expected, mistakes or {})
    return finding.value.text


def test_comparison_names_the_mistake_that_gives_just_this_value():
    right = torch.arange(6.0).view(2, 3)
    compare(right + 1e-5, right)
    assert said(right * 2, right, {"Twice.": right * 2}) == "Twice."
    assert said(right * 2, right, lambda: {"Never.": lambda: 1 / 0, "Twice.": lambda: right * 2}) == "Twice."


def test_comparison_describes_what_it_does_not_know():
    right = torch.arange(6.0).view(2, 3)
    assert "3 times" in said(right * 3, right)
    assert "sign" in said(-right, right)
    assert "+1" in said(right + 1, right)
    assert "exchanged" in said(right.T, right)
    assert "not finite" in said(right / 0, right)
    assert "[1, 2]" in said(right + torch.eye(3)[2] * torch.tensor([[0.0], [4.0]]), right)


def test_twice_the_rounds_have_twice_the_time(monkeypatch):
    monkeypatch.setattr(exercises, "SECONDS", 3.0)
    given = []

    def judged(name, function, **options):
        given.append(options["seconds"])
        return Verdict(name, RIGHT, "")

    monkeypatch.setattr(exercises, "judge", judged)
    exec("check('gram'); check('gram', rounds=2)", {"gram": gram, "check": check})
    assert given == [3.0, 6.0]


@pytest.mark.parametrize("seed", range(0, 400, 8))
def test_no_gallery_has_two_neighbors_so_near_that_rounding_decides(seed):
    def knn_l2(queries, gallery, k):
        exact = torch.cdist(queries.double(), gallery.double())
        margin = exact.sort(dim=1).values.diff(dim=1)[:, :k].min().item()
        assert margin > 9e-5
        return exact.argsort(dim=1)[:, :k]

    assert judge("knn_l2", knn_l2, seed=seed).right
