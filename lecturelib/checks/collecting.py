"""From whatever a student handed in to a notebook that can be graded. What was handed in is only read.

The notebook that is graded is the one that was handed out, with the student's answers put into it: so a cell that was
deleted, copied, moved or edited against the rules costs nothing but itself.
"""

import ast
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

_LARGEST = 20_000_000  # bytes of a notebook that are read
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)  # what ast.parse raises


@dataclass(frozen=True)
class Submission:
    """One student's row: the notebook to grade, None where there is none, and what has to be said about it."""

    student: str
    notebook: NotebookNode | None
    remarks: tuple[str, ...]


def collect(folder: Path, released: NotebookNode, name: str) -> list[Submission]:
    """One `Submission` for each entry of the folder, sorted: a student's folder, or a file named after a student.

    name: the notebook's name without its ending, for example "04_saliency".
    """
    found, taken = [], set()
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        student, remarks = _identity(entry.name if entry.is_dir() else entry.stem, taken)
        taken.add(student.lower())  # some file systems do not tell Kim from kim
        found.append(_submission(student, entry, released, name, remarks))
    return found


def merged(released: NotebookNode, handed_in: list[NotebookNode]) -> tuple[NotebookNode, list[str]]:
    """The released notebook with the student's answers, and remarks about what was missing, twice or changed.

    An answer is known by nbgrader's id or by the cell's id. Where no such cell defines the function, because ids were
    lost on the way or the answer stands in a cell of the student's own, it is known by the function. Whatever else the
    student added is kept in its place.
    """
    notebook, remarks = nbformat.from_dict(json.loads(json.dumps(released))), []
    ids = {cell.metadata.get("nbgrader", {}).get("grade_id"): cell for cell in notebook.cells} | {
        cell.id: cell for cell in notebook.cells
    }
    for first in (None, notebook.cells[0].id):  # what stands right behind the title belongs behind the setup
        ids.pop(first, None)
    taken = _put_answers(notebook, handed_in, ids, remarks)
    place = next(cell for cell in notebook.cells if cell.cell_type == "code")  # own cells come after the setup
    ours, extra = {cell.source.strip() for cell in released.cells} | {""}, []
    for cell in handed_in:
        known, new = _known(cell, ids), id(cell) not in taken and cell.source.strip() not in ours
        place = known or place
        if known is not None and new and _is_setup(known):
            remarks.append("the setup was changed: the changed cell runs after the released one")
        if new and (known is None or _is_setup(known)):
            extra.append((place, cell))
    for before, cell in reversed(extra):
        where = next(number for number, other in enumerate(notebook.cells) if other is before)
        make = nbformat.v4.new_code_cell if cell.get("cell_type") == "code" else nbformat.v4.new_markdown_cell
        notebook.cells.insert(where + 1, make(cell.source))
    return notebook, remarks


def _put_answers(notebook: NotebookNode, handed_in: list[NotebookNode], ids: dict, remarks: list[str]) -> set[int]:
    """Put the student's answers into the answer cells of the notebook; what `id` gives for the cells that were used."""
    code = [cell for cell in handed_in if cell.get("cell_type") == "code" and cell.source.strip()]
    taken: set[int] = set()
    for answer in [cell for cell in notebook.cells if _is_answer(cell)]:
        name, stub = next(iter(_functions(answer))), answer.source.strip()
        own = [cell for cell in code if _known(cell, ids) is answer]
        written = [cell for cell in own if cell.source.strip() != stub]
        if not any(name in _functions(cell) for cell in written):
            named = [cell for cell in code if _known(cell, ids) is None and name in _functions(cell)]
            written = [cell for cell in code if any(cell is other for other in (*written, *named))]
        defining = [cell for cell in written if name in _functions(cell)]
        if len(defining) > 1:
            remarks.append(f"{name}: {len(defining)} cells, the last one counts")
        if written:  # a cell with several functions is put where the first of them belongs
            answer.source = _joined([cell.source for cell in written if id(cell) not in taken])
        elif not own:
            remarks.append(f"{name}: the cell is missing")
        taken |= {id(cell) for cell in (*own, *written)}
    return taken


def _joined(sources: list[str]) -> str:
    """One cell of several, without those of which a later one defines everything anew, or which cannot be read."""
    kept: list[str] = []
    later: set[str] = set()
    for source in reversed(sources):
        try:
            body = ast.parse(source).body
        except _UNREADABLE:
            if kept:
                continue
            return source
        if not (kept and all(isinstance(node, ast.FunctionDef) and node.name in later for node in body)):
            kept.insert(0, source)
            later |= {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return "\n\n\n".join(kept)


def _submission(student: str, entry: Path, released: NotebookNode, name: str, remarks: list[str]) -> Submission:
    if entry.is_symlink():
        return Submission(student, None, (*remarks, "a link, which is not followed"))
    files = [path for path in sorted(entry.rglob("*")) if _is_own(path, entry)] if entry.is_dir() else [entry]
    notebooks = sorted((path for path in files if path.suffix == ".ipynb"), key=lambda path: path.stem != name)
    candidates, problems = [], []
    for path in notebooks[:50]:
        try:
            candidates.append((path, _cells(path)))
        except ValueError as error:
            problems.append(f"{path.name[:60]}: {error}")
    if not candidates:
        others = ", ".join(path.name[:60] for path in files[:3])
        reason = "; ".join(problems) or "no notebook was handed in" + (f", only {others}" if others else "")
        return Submission(student, None, (*remarks, reason))
    ids = {cell.id for cell in released.cells if _is_answer(cell)}
    own = {name for cell in released.cells if _is_answer(cell) for name in _functions(cell)}

    def fit(candidate: tuple[Path, list[NotebookNode]]) -> tuple:
        path, cells = candidate
        hits = sum(cell.get("id") in ids or bool(own & _functions(cell).keys()) for cell in cells)
        return (path.stem == name and hits > 0, hits, path.stat().st_mtime, path.name)

    path, cells = max(candidates, key=fit)
    if not fit((path, cells))[1]:
        return Submission(student, None, (*remarks, *problems, f"{path.name[:60]} is not this homework"))
    if entry.is_dir() and path.stem != name:
        remarks.append(f"the file was renamed to {path.name[:60]}")
    if len(notebooks) > 1:
        remarks.append(f"{len(notebooks)} notebooks, graded: {path.relative_to(entry).as_posix()[-60:]}")
    notebook, found = merged(released, cells)
    return Submission(student, notebook, (*remarks, *problems, *found))


def _cells(path: Path) -> list[NotebookNode]:
    """The cells of a notebook; ValueError with the reason when it is none."""
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"larger than {_LARGEST // 1_000_000} MB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ids that are missing or double are dealt with here
            notebook = nbformat.reads(path.read_bytes().decode("utf-8-sig"), as_version=4)
        cells = list(notebook.cells)
        for cell in cells:
            cell.source = "".join(cell.source)
            cell.metadata = cell.get("metadata", {})
            nbgrader = cell.metadata.get("nbgrader", {})
            nbgrader["grade_id"], cell["id"] = str(nbgrader.get("grade_id", "")), str(cell.get("id", ""))
    except Exception as error:  # nbformat has many ways to stumble
        raise ValueError(f"not a notebook ({type(error).__name__})") from None
    return cells


def _is_own(path: Path, folder: Path) -> bool:
    """Whether a file really lies in the folder: no link leads out of it."""
    inside = path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink()
    return inside and path.is_file() and ".ipynb_checkpoints" not in path.parts


def _identity(name: str, taken: set[str]) -> tuple[str, list[str]]:
    """A student's name as nbgrader, a file system and a table can bear it."""
    student = re.sub(r"[^\w.@-]", "_", name).strip("._-@")[:60] or "student"
    while student.lower() in taken:
        student += "_2"
    return student, [] if student == name else [f"handed in as {ascii(name)[:80]}"]


def _known(cell: NotebookNode, ids: dict[str, NotebookNode]) -> NotebookNode | None:
    return ids.get(cell.metadata.get("nbgrader", {}).get("grade_id")) or ids.get(cell.get("id"))


def _is_answer(cell: NotebookNode) -> bool:
    return cell.metadata.get("nbgrader", {}).get("solution", False)


def _is_setup(cell: NotebookNode) -> bool:
    """Whether a released cell is code that students are not asked to write: neither an answer nor a check."""
    return cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("grade") and not _is_answer(cell)


def _functions(cell: NotebookNode) -> dict[str, None]:
    """The names of the functions that a cell defines, in their order."""
    if cell.get("cell_type") != "code":
        return {}
    try:
        body = ast.parse(cell.source).body
    except _UNREADABLE:
        return dict.fromkeys(re.findall(r"^def\s+(\w+)", cell.source, flags=re.MULTILINE))
    return dict.fromkeys(node.name for node in body if isinstance(node, ast.FunctionDef))
