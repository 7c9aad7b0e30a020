"""The homework from text to grades: what students receive, what they hand in, what comes out of grading."""

import csv
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell

from lecturelib.checks import EXERCISES, grade
from lecturelib.checks.collecting import collect, merged
from lecturelib.errors import ArgumentError

COURSE = Path(__file__).parents[1] / "homework"
NAMES = sorted(path.stem for path in (COURSE / "text").glob("*.md"))
STUB = "# YOUR CODE HERE / 여기에 코드를 쓰세요\n    raise NotImplementedError()"


def _module(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = _module(COURSE / "make.py")


def notebook_of(folder: str, name: str, course: Path = COURSE):
    return nbformat.read(course / folder / name / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)


def code_of(notebook) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def points_of(notebook, capsys) -> tuple[float, str]:
    """The points that the checks of a notebook give when its cells are run here, and what they print."""
    namespace, points = {}, 0.0
    for source in code_of(notebook):
        points += eval_last(source, namespace) or 0
    return points, capsys.readouterr().out


def eval_last(source: str, namespace: dict):
    lines = [line for line in source.split("\n") if not line.startswith("#")]
    if not lines:  # a hidden check, which is not handed out
        return None
    *lines, last = lines
    if not last.startswith("check("):
        exec(source, namespace)
        return None
    exec("\n".join(lines), namespace)
    return eval(last, namespace)


def test_every_lecture_has_its_homework_and_every_exercise_its_place():
    assert {int(name[:2]) for name in NAMES} == set(range(1, 12))
    asked = [re.findall(r"^def (\w+)", "\n".join(code_of(notebook_of("source", name))), flags=re.M) for name in NAMES]
    for name, exercises in zip(NAMES, asked, strict=True):
        assert 3 <= len(exercises) <= 5
        assert {EXERCISES[exercise].lecture for exercise in exercises} == {int(name[:2])}
    assert {exercise for exercises in asked for exercise in exercises} == EXERCISES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_solutions_get_all_points(name, capsys):
    notebook = notebook_of("source", name)
    total = sum(cell.metadata.get("nbgrader", {}).get("points", 0) for cell in notebook.cells)
    points, printed = points_of(notebook, capsys)
    assert points == total == 3 * printed.count(": right.") / 2, printed


@pytest.mark.parametrize("name", NAMES)
def test_what_is_handed_out_gets_no_points_and_runs(name, capsys):
    notebook = notebook_of("release", name)
    points, printed = points_of(notebook, capsys)
    assert points == 0
    assert printed.count("not attempted") == sum(source.count("NotImplementedError") for source in code_of(notebook))
    imported = set(re.findall(r"^(?:import|from) (\w+)", "\n".join(code_of(notebook)), flags=re.M))
    assert imported == {"torch", "lecturelib"}


def test_committed_notebooks_are_what_the_texts_make(tmp_path):
    for path in make.make(tmp_path):
        assert path.read_bytes() == (COURSE / path.relative_to(tmp_path)).read_bytes(), f"{path.stem}: homework/make.py"
    assert (tmp_path / "released.json").read_text() == (COURSE / "released.json").read_text()


def test_what_was_released_never_changes(tmp_path):
    hashes = json.loads((COURSE / "released.json").read_text(encoding="utf-8"))
    for name in NAMES:
        text = (COURSE / "release" / name / f"{name}.ipynb").read_text(encoding="utf-8")
        assert make._hash(text) == hashes[name], f"{name} was released: give the corrected homework a new name"
    make.make(tmp_path, names=["09_texture"])
    before = (tmp_path / "release/09_texture/09_texture.ipynb").read_bytes()
    with pytest.raises(SystemExit, match="was released"):
        make.make(tmp_path, names=["09_texture"], solutions=False)
    assert (tmp_path / "release/09_texture/09_texture.ipynb").read_bytes() == before


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=someone", "-c", "user.email=someone@example.org")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.mark.parametrize("rule", ["plain git pull", "nbgitpuller"])
def test_an_update_of_the_course_keeps_what_a_student_wrote(rule, tmp_path, monkeypatch):
    course, student, name = tmp_path / "course", tmp_path / "student", "09_texture"
    for folder in ("text", "source", "release"):
        shutil.copytree(COURSE / folder, course / "homework" / folder)
    (course / "notebooks").mkdir()
    (course / "notebooks" / f"{name}.ipynb").write_text("{}")
    for file in ("nbgrader_config.py", "released.json"):
        shutil.copy(COURSE / file, course / "homework")
    _git(course, "init", "-q", "-b", "main")
    _git(course, "add", ".")
    _git(course, "commit", "-q", "-m", "course")
    _git(tmp_path, "clone", "-q", "course", "student")
    mine = student / "homework" / "release" / name / f"{name}.ipynb"
    nbformat.write(_answered(name, (RIGHT_GRAM, None, None)), mine)
    written = mine.read_bytes()

    monkeypatch.setattr(make, "HERE", course / "homework")
    text = course / "homework" / "text" / f"{name}.md"
    corrected = text.read_text(encoding="utf-8").replace("one position", "one place")
    text.write_text(corrected, encoding="utf-8")
    with pytest.raises(SystemExit, match="was released"):
        make.make(course / "homework", names=[name])
    text.rename(text.with_name(f"{name}_b.md"))
    make.make(course / "homework", names=[f"{name}_b"])
    _git(course, "add", ".")
    _git(course, "commit", "-q", "-m", "corrected")

    if rule == "nbgitpuller":  # commits everything, then merges, and the student's side wins
        _git(student, "commit", "-q", "--all", "-m", "automatic")
    _git(student, "pull", "-q", "--no-rebase", "--strategy-option", "ours")
    assert mine.read_bytes() == written
    new = nbformat.read(student / "homework" / "release" / f"{name}_b" / f"{name}_b.ipynb", as_version=4)
    assert "one place" in str(new)
    assert "notebooks/09_texture.ipynb" in new.cells[0].source


def test_nothing_leaks_into_what_a_graded_class_receives(tmp_path):
    make.make(tmp_path, hints=False, solutions=False)
    for name in NAMES:
        text = json.dumps(nbformat.read(tmp_path / "release" / name / f"{name}.ipynb", as_version=4)["cells"])
        assert not re.search(r"SOLUTION|HIDDEN|seed=|details", text)
        for source in code_of(notebook_of("source", name)):
            for solution in re.findall(r"BEGIN SOLUTION\n(.*?)\n *### END", source, flags=re.S):
                longest = max(solution.splitlines(), key=len).strip()
                assert json.dumps(longest)[1:-1] not in text, f"{name}: {longest}"


def answer(name: str, body: str = "return 1", **options):
    return new_code_cell(f"def {name}(features):\n    {body}", **options)


def test_answers_are_found_by_the_ids_or_by_their_functions():
    released = notebook_of("release", "09_texture")
    for cell in (
        answer("gram", id="gram-answer"),
        answer("gram", metadata={"nbgrader": {"grade_id": "gram-answer"}}),
        answer("gram"),
        new_code_cell("def gram(features:\n    return (((", id="gram-answer"),
    ):
        notebook, remarks = merged(released, [cell])
        assert [part.source for part in notebook.cells if part.id == "gram-answer"] == [cell.source]
        assert remarks == ["style_energy: the cell is missing", "min_error_cut: the cell is missing"]
    assert "raise NotImplementedError" in released.cells[3].source, "the released notebook is not changed"


def test_checks_cannot_be_edited_and_own_cells_keep_their_place():
    released = notebook_of("release", "09_texture")
    mine = new_code_cell("def helper(x):\n    return x")
    edited = new_code_cell("6", id="gram-check")
    notebook, _ = merged(released, [mine, answer("gram"), edited, answer("gram", "return 2")])
    sources = code_of(notebook)
    assert 'check("gram", points=2)' in sources[3] and "6" not in sources
    assert sources[1:3] == [mine.source, "def gram(features):\n    return 2"]


GRAM, ENERGY, CUT = (f"def {name}(x):\n    return {name!r}" for name in ("gram", "style_energy", "min_error_cut"))
HELPER = "def helper(x):\n    return x"


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        # a helper in the answer's cell, the answer in a cell below it
        ([new_code_cell(HELPER, id="gram-answer"), new_code_cell(GRAM)], [f"{HELPER}\n\n\n{GRAM}", None, None]),
        # no ids, and a helper above the answer
        ([new_code_cell(f"{HELPER}\n\n{GRAM}")], [f"{HELPER}\n\n{GRAM}", None, None]),
        # all answers in one cell; the others were deleted
        ([new_code_cell(f"{GRAM}\n{ENERGY}\n{CUT}")], [f"{GRAM}\n{ENERGY}\n{CUT}", "", ""]),
        # an answer, and something to play with behind its check
        (
            [new_code_cell(GRAM, id="gram-answer"), new_code_cell("6", id="gram-check"), answer("gram")],
            [GRAM, None, None],
        ),
    ],
)
def test_an_answer_counts_wherever_it_works_in_the_students_notebook(cells, wanted):
    released = notebook_of("release", "09_texture")
    notebook, _ = merged(released, cells)
    for name, source in zip(("gram", "style_energy", "min_error_cut"), wanted, strict=True):
        (found,) = (cell.source for cell in notebook.cells if cell.id == f"{name}-answer")
        (stub,) = (cell.source for cell in released.cells if cell.id == f"{name}-answer")
        assert found == (stub if source is None else source), name
    namespace = {}
    behind = next(number for number, cell in enumerate(notebook.cells) if cell.id == "gram-check")
    for cell in notebook.cells[:behind]:
        if cell.cell_type == "code" and "lecturelib" not in cell.source:
            exec(cell.source, namespace)
    assert namespace["gram"](1) == "gram"


def test_a_changed_setup_and_notes_are_kept():
    released = notebook_of("release", "09_texture")
    setup = next(cell for cell in released.cells if cell.cell_type == "code")
    mine = new_code_cell(f"import numpy as np\n{setup.source}", id=setup.id)
    notebook, remarks = merged(released, [mine, new_markdown_cell("I took the mean."), new_code_cell(setup.source)])
    assert code_of(notebook)[:2] == [setup.source, mine.source], "and an unchanged copy is left out"
    assert "the setup was changed: the changed cell runs after the released one" in remarks
    assert "I took the mean." in [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert code_of(notebook)[2] == code_of(released)[1]


@pytest.mark.parametrize("to", ["inbox", "inbox/graded", "."])
def test_results_are_not_written_over_what_was_handed_in(tmp_path, to):
    (tmp_path / "inbox" / "kim").mkdir(parents=True)
    with pytest.raises(ArgumentError, match="apart"):
        grade.grade("09_texture", submissions=tmp_path / "inbox", course=COURSE, to=tmp_path / to)
    assert [path.name for path in tmp_path.rglob("*")] == ["inbox", "kim"]


def test_a_wrong_name_or_folder_is_told_in_words(tmp_path, capsys):
    for arguments, words in ((["09_textur"], "09_texture"), (["09_texture", "--submissions", "nowhere"], "nowhere")):
        with pytest.raises(SystemExit):
            grade.main([*arguments[:1], "--submissions", str(tmp_path), "--to", f"{tmp_path}-to", *arguments[1:]])
        assert words in capsys.readouterr().err


def test_collecting_reads_whatever_was_handed_in(tmp_path):
    inbox = tmp_path / "inbox"
    good = nbformat.writes(notebook_of("release", "09_texture"))
    files = {
        "with-bom/09_texture.ipynb": "\ufeff" + good,
        "renamed/My homework.ipynb": good,
        "two/09_texture.ipynb": good,
        "two/old/copy.ipynb": good,
        "not-json/09_texture.ipynb": "PK",
        "wrong-format/09_texture.ipynb": '{"cells": 3}',
        "list/09_texture.ipynb": "[1, 2]",
        "other/04_saliency.ipynb": nbformat.writes(notebook_of("release", "04_saliency")),
        "+cmd|'x'!A1.ipynb": good,
        "two.ipynb": good,
        "TWO/09_texture.ipynb": good,
        "odd-ids/09_texture.ipynb": good.replace('"grade_id": "gram-answer"', '"grade_id": ["gram"]'),
        "lists-for-ids/09_texture.ipynb": good.replace('"id": "gram-answer"', '"id": ["gram"]'),
        "zipped.zip": "PK",
        "zip-inside/homework.zip": "PK",
        "many/09_texture.ipynb": good,
        "../outside/09_texture.ipynb": good,
    }
    for file, text in files.items():
        (inbox / file).parent.mkdir(parents=True, exist_ok=True)
        (inbox / file).write_text(text, encoding="utf-8")
    (inbox / "nothing").mkdir()
    (inbox / "link").mkdir()
    os.symlink(tmp_path / "outside" / "09_texture.ipynb", inbox / "link" / "09_texture.ipynb")
    os.symlink(tmp_path / "outside", inbox / "linked")
    for number in range(60):
        (inbox / "many" / f"{number}.ipynb").write_text("{}")
    (inbox / "huge").mkdir()
    (inbox / "huge" / "09_texture.ipynb").write_bytes(b" " * 21_000_000)
    rows = {row.student: row for row in collect(inbox, notebook_of("release", "09_texture"), "09_texture")}
    graded = {student for student, row in rows.items() if row.notebook is not None}
    assert graded == {"with-bom", "renamed", "TWO", "two_2", "two_2_2", "cmd__x__A1", "odd-ids", "many"}
    assert len(rows) == len(list(inbox.iterdir())) == 19
    for student, words in {
        "renamed": "renamed to My homework",
        "two_2": "handed in as 'two'; 2 notebooks, graded: 09_texture.ipynb",
        "two_2_2": "handed in as 'two'",
        "zipped": "only zipped.zip",
        "zip-inside": "only homework.zip",
        "link": "no notebook was handed in",
        "linked": "a link",
        "huge": "larger than",
        "many": "graded: 09_texture.ipynb",
    }.items():
        assert words in "; ".join(rows[student].remarks), student
    assert all(row.remarks for student, row in rows.items() if student not in {"with-bom", "TWO", "odd-ids"})


ENDLESS = "while True:\n        pass"
DEAF = """import signal
    for name in (signal.SIGINT, signal.SIGPROF, signal.SIGALRM):
        signal.signal(name, signal.SIG_IGN)
    while True:
        pass"""
RIGHT_GRAM = "f = features.reshape(*features.shape[:2], -1)\n    return torch.einsum('ncp,ndp->ncd', f, f) / f.shape[2]"
RIGHT_ENERGY = (
    "c, m = features.shape\n    return ((features @ features.T - target @ target.T) ** 2).sum() / (2 * c * m) ** 2"
)
ANSWERS = {  # student -> bodies of gram, style_energy, min_error_cut; None leaves the stub
    "half": (RIGHT_GRAM, RIGHT_ENERGY, None),
    "empty": (None, None, None),
    "wrong": ("f = features.flatten(2)\n    return f @ f.transpose(1, 2)", "return 0.0", "return error.argmin(dim=1)"),
    "endless": (RIGHT_GRAM, ENDLESS, None),
    "deaf": (DEAF, RIGHT_ENERGY, None),
    "crashing": ("import os\n    os.kill(os.getpid(), 9)", RIGHT_ENERGY, "raise KeyError('row')"),
    "syntax": ("return (((", RIGHT_ENERGY, None),
    "hungry": ("return torch.zeros(10**11)", RIGHT_ENERGY, "print('x' * 10**7)\n    return bytearray(10**11)"),
}
EXPECTED = {"half": 6, "empty": 0, "wrong": 0, "endless": 3, "deaf": 3, "crashing": 3, "syntax": 3, "hungry": 3}
EXPECTED |= {"renamed": 9, "deleted": 6, "loud": 3, "forger": 0, "nothing": 0, "broken": 0, "HYPERLINK__x": 9}


def _answered(name: str, bodies) -> nbformat.NotebookNode:
    notebook = notebook_of("release", name)
    if bodies == "solutions":
        solved = {cell.id: cell.source for cell in notebook_of("source", name).cells}
        for cell in notebook.cells:
            if cell.metadata.get("nbgrader", {}).get("solution"):
                cell.source = solved[cell.id]
        return notebook
    cells = [cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    for cell, body in zip(cells, bodies, strict=True):
        if body is not None:
            assert STUB in cell.source
            cell.source = cell.source.replace(STUB, body)
    return notebook


def hand_in(folder: Path, name: str) -> None:
    """A simulated class: one folder for each student, and one file."""

    def save(notebook, student: str, file: str = f"{name}.ipynb") -> None:
        (folder / student / name).mkdir(parents=True)
        nbformat.write(notebook, folder / student / name / file)

    for student, bodies in ANSWERS.items():
        save(_answered(name, bodies), student)
    perfect = _answered(name, "solutions")
    nbformat.write(perfect, folder / '=HYPERLINK("x").ipynb')
    stripped = json.loads(nbformat.writes(perfect))
    for cell in stripped["cells"]:
        cell["metadata"] = {}
        del cell["id"]
    stripped["nbformat_minor"] = 4
    save(nbformat.from_dict(stripped), "renamed", "Homework 9 (final).ipynb")
    deleted = _answered(name, "solutions")
    deleted.cells = [cell for cell in deleted.cells if cell.id not in {"gram-answer", "style_energy-check", "setup"}]
    save(deleted, "deleted")
    loud = _answered(name, (RIGHT_GRAM, None, None))
    loud.cells.insert(2, nbformat.v4.new_code_cell("while True:\n    print('no' * 1000)"))
    save(loud, "loud")
    forger = _answered(name, (None, None, None))
    forger.cells.insert(2, nbformat.v4.new_code_cell("import sys\nsys.displayhook = lambda value: None\ncheck = print"))
    for cell in forger.cells:
        if cell.metadata.get("nbgrader", {}).get("grade"):
            cell.source = "3"
    save(forger, "forger")
    (folder / "nothing").mkdir()
    (folder / "broken").mkdir()
    (folder / "broken" / f"{name}.ipynb").write_bytes(b"PK\x03\x04 no notebook")


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder, to = tmp_path_factory.mktemp("inbox"), tmp_path_factory.mktemp("graded")
    name = "09_texture"
    hand_in(folder, name)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    course = tmp_path_factory.mktemp("course")
    make.make(course, solutions=False, names=[name])
    config = course / "nbgrader_config.py"
    config.write_text(config.read_text().replace("cell_seconds = 30", "cell_seconds = 4"))
    grade.grade(name, submissions=folder, course=course, to=to)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    released = f"release/{name}/{name}.ipynb"
    assert (to / released).read_text(encoding="utf-8").strip() == (course / released).read_text("utf-8").strip()
    return to


def scores(graded: Path) -> dict[str, float]:
    with (graded / "grades.csv").open(encoding="utf-8") as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


def test_the_simulated_class_gets_the_scores_it_deserves(graded):
    assert scores(graded) == EXPECTED


def report(graded: Path) -> dict[str, dict[str, str]]:
    with (graded / "report.csv").open(encoding="utf-8-sig", newline="") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_the_report_gives_the_reason_for_every_missing_point(graded):
    rows = report(graded)
    assert rows.keys() == EXPECTED.keys()
    assert {student: float(row["score"]) for student, row in rows.items()} == EXPECTED
    for student, row in rows.items():
        assert EXPECTED[student] == 9 or row["remarks"] + row["verdicts"], student
    said = {student: row["remarks"] + " " + row["verdicts"] for student, row in rows.items()}
    for student, words in {
        "wrong": "grows with the picture",
        "deaf": "could not be interrupted",
        "crashing": "ended the Python process",
        "syntax": "above: SyntaxError",
        "renamed": "renamed to Homework 9",
        "deleted": "gram: the cell is missing",
        "broken": "not a notebook",
        "nothing": "no notebook",
        "forger": "not attempted",
        "HYPERLINK__x": "handed in as",
    }.items():
        assert words in said[student], (student, said[student])


def test_feedback_has_the_diagnosis(graded):
    page = (graded / "feedback/wrong/09_texture/09_texture.html").read_text(encoding="utf-8")
    assert "grows with the picture" in page


def test_grading_again_gives_the_same_scores(graded, tmp_path):
    inbox = tmp_path / "inbox"
    for student in ("half", "wrong"):
        (inbox / student).mkdir(parents=True)
        submitted = graded / "submitted" / student / "09_texture" / "09_texture.ipynb"
        (inbox / student / "09_texture.ipynb").write_bytes(submitted.read_bytes())
    grade.grade("09_texture", submissions=inbox, course=graded, to=tmp_path / "again")
    first, again = report(graded), report(tmp_path / "again")
    assert {student: (row["score"], row["verdicts"]) for student, row in again.items()} == {
        student: (first[student]["score"], first[student]["verdicts"]) for student in again
    }
    (inbox / "half" / "09_texture.ipynb").write_text("broken")
    shutil.rmtree(inbox / "wrong")
    grade.grade("09_texture", submissions=inbox, course=graded, to=tmp_path / "again")
    last = report(tmp_path / "again")
    assert float(first["half"]["score"]) > 0 == float(last["half"]["score"]) and last.keys() == {"half"}
    for folder in ("submitted", "autograded", "feedback"):
        assert not list((tmp_path / "again" / folder).glob("*/09_texture"))
