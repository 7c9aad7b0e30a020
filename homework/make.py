"""Make the notebooks of the homework from the texts in `text/`: `python homework/make.py`.

`source/` gets the instructor's notebooks, with solutions and hidden checks; `release/` gets what students receive. A
notebook that was released never changes: `released.json` keeps the hashes, and a corrected homework gets a new name.
For a class that is graded, `--course FOLDER --no-solutions` makes a course of your own without the worked solutions.
"""

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from nbgrader import preprocessors
from traitlets.config import Config, PyFileConfigLoader

HERE = Path(__file__).parent
PUBLIC, HIDDEN = 2, 1  # points of the check that a student runs, and of the one on other networks

HOW = """You write a function, run the cell below it, and are told whether it is right and, if not, which mistake it \
looks like. The check draws new networks and new inputs every time you run it. It never changes anything of yours.

- Replace `raise NotImplementedError()`. Do not rename the functions, and leave the cells with `check` as they are.
- `model` takes images (N, 3, H, W) in [0, 1] and gives logits (N, K), as everywhere in the course.
- Save this file under its own name and hand it in. No update of the course changes it."""

SETUP = """import torch
import torch.nn.functional as F"""

CHECK = """from lecturelib.checks import check

{}"""  # with its import, because a student may have a variable `check`

METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
    "language_info": {"name": "python"},
}


def source_notebook(name: str, text: str, *, hints: bool = True, solutions: bool = True) -> NotebookNode:
    """The instructor's notebook of a lecture, from its text; name: begins with the lecture's number."""
    head, *exercises = re.split(r"^## ", text, flags=re.MULTILINE)
    title, _, introduction = head.strip().partition("\n")
    (lesson,) = (path.name for path in HERE.parent.glob(f"notebooks/{name[:2]}_*.ipynb"))
    link = f"The lesson is [notebook {name[:2]}](../../../notebooks/{lesson})."
    cells = [
        _text("title", f"{title}\n\n{introduction.strip()} {link}\n\n{HOW}"),
        _code("setup", SETUP, locked=True),
    ]
    for exercise in exercises:
        cells += _exercise_cells(exercise, hints=hints, solutions=solutions)
    cells.append(_text("end", "Restart the kernel and run all cells once more before you hand this in."))
    return new_notebook(cells=cells, metadata=METADATA)


def _exercise_cells(text: str, *, hints: bool, solutions: bool) -> list[NotebookNode]:
    task, *told = re.split(r"^### ", text, flags=re.MULTILINE)
    statement, code = re.fullmatch(r"(.*?)```python\n(.*?)```\s*", task, flags=re.DOTALL).groups()
    name = re.search(r"^def (\w+)", code, flags=re.MULTILINE)[1]
    points = f"*{PUBLIC + HIDDEN} points: {PUBLIC} now, {HIDDEN} on other networks when the homework is graded.*"
    heading, _, words = statement.strip().partition("\n")
    cells = [
        _text(name, f"## {heading}\n\n{words.strip()}\n\n{points}"),
        _code(f"{name}-answer", code.strip(), solution=True),
        _code(f"{name}-check", CHECK.format(f'check("{name}", points={PUBLIC})'), points=PUBLIC),
    ]
    folded = [_folded(*hint.strip().split("\n", 1)) for hint in told] if hints else []
    if solutions:
        folded.append(_folded("A worked solution", f"```python\n{_solved(code)}\n```"))
    if folded:
        cells.append(_text(f"{name}-help", "\n\n".join(folded)))
    hidden = CHECK.format(f'check("{name}", points={HIDDEN}, seed={_seed(name)}, rounds=2)')
    asked = "# When your homework is graded, the same check runs here once more, on other networks and inputs.\n"
    cells.append(
        _code(f"{name}-graded", f"{asked}### BEGIN HIDDEN TESTS\n{hidden}\n### END HIDDEN TESTS", points=HIDDEN)
    )
    return cells


def released_notebook(source: NotebookNode, config: Config) -> NotebookNode:
    """What `nbgrader generate_assignment` makes of a source notebook, without a gradebook."""
    steps = (
        "LockCells ClearSolutions ClearOutput CheckCellMetadata ComputeChecksums ClearHiddenTests ClearMarkScheme "
        "ComputeChecksums CheckCellMetadata"
    )
    notebook = nbformat.from_dict(json.loads(json.dumps(source)))
    for step in steps.split():
        notebook, _ = getattr(preprocessors, step)(config=config).preprocess(notebook, {})
    return notebook


def make(course: Path, *, hints: bool = True, solutions: bool = True, names: list[str] | None = None) -> list[Path]:
    """Writes `source/` and `release/` of the course; gives what was written. Refuses to change what was released."""
    course.mkdir(parents=True, exist_ok=True)
    if course.resolve() != HERE.resolve():
        shutil.copy(HERE / "nbgrader_config.py", course)
    config = PyFileConfigLoader("nbgrader_config.py", path=str(course)).load_config()
    record = course / "released.json"
    hashes = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    files: dict[Path, str] = {}
    for path in sorted((HERE / "text").glob("*.md")):
        if names and path.stem not in names:
            continue
        source = source_notebook(path.stem, path.read_text(encoding="utf-8"), hints=hints, solutions=solutions)
        for folder, notebook in (("source", source), ("release", released_notebook(source, config))):
            files[course / folder / path.stem / f"{path.stem}.ipynb"] = nbformat.writes(notebook) + "\n"
    changed = [path for path, text in files.items() if hashes.get(path.stem, _hash(text)) != _hash(text)]
    changed = [path for path in changed if path.parts[-3] == "release"]
    if changed:
        raise SystemExit(
            f"{', '.join(path.stem for path in changed)}: was released, and students may have begun. "
            "Give the corrected text a new name, such as 04_saliency_b."
        )
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.parts[-3] == "release":
            hashes[path.stem] = _hash(text)
    record.write_text(json.dumps(hashes, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return list(files)


def _text(name: str, source: str) -> NotebookNode:
    return new_markdown_cell(source, id=name)


def _code(
    name: str, source: str, *, points: int | None = None, solution: bool = False, locked: bool = False
) -> NotebookNode:
    graded = points is not None
    nbgrader = {"schema_version": 3, "grade_id": name, "grade": graded, "solution": solution, "task": False}
    nbgrader |= {"locked": locked or graded} | ({"points": points} if graded else {})
    return new_code_cell(source, id=name, metadata={"nbgrader": nbgrader})


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body.strip()}\n\n</details>"


def _solved(code: str) -> str:
    return re.sub(r"^ *### (BEGIN|END) SOLUTION\n", "", code, flags=re.MULTILINE).strip()


def _seed(name: str) -> int:
    return int(hashlib.sha256(name.encode()).hexdigest()[:4], 16)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="only these, for example 04_saliency; all without a name")
    parser.add_argument("--course", type=Path, default=HERE, help="another folder for the course of your class")
    parser.add_argument("--no-hints", action="store_true", help="leave out the two hints of each exercise")
    parser.add_argument("--no-solutions", action="store_true", help="leave out the worked solutions")
    options = parser.parse_args()
    for path in make(
        options.course, hints=not options.no_hints, solutions=not options.no_solutions, names=options.names
    ):
        print(path)


if __name__ == "__main__":
    main()
