"""Grade a folder of submissions: `python -m lecturelib.checks.grade 04_saliency --submissions FOLDER --to GRADED`.

GRADED becomes a course of nbgrader with its gradebook, `grades.csv`, `feedback/` and `report.csv`, in which every
student has a row with the reason for every point that is missing. FOLDER is only read.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook

from lecturelib.checks.collecting import Submission, collect
from lecturelib.errors import ArgumentError

CONFIG = "nbgrader_config.py"


def grade(name: str, *, submissions: Path, course: Path, to: Path) -> Path:
    """Grades every submission to the homework `name` of the course; gives the path of the report."""
    _require_apart(submissions, to)
    if not (course / "source" / name).is_dir():
        raise ArgumentError(
            f"there is no homework {name}",
            received=f"no folder {course / 'source' / name}",
            do=f"there are {', '.join(sorted(path.name for path in (course / 'source').glob('*')))}",
        )
    to.mkdir(parents=True, exist_ok=True)
    shutil.copy(course / CONFIG, to / CONFIG)
    shutil.rmtree(to / "source" / name, ignore_errors=True)
    shutil.copytree(course / "source" / name, to / "source" / name)
    nbgrader(to, "generate_assignment", name, "--force")
    released = nbformat.read(to / "release" / name / f"{name}.ipynb", as_version=4)
    rows = collect(submissions, released, name)
    for old in (to / "submitted").glob(f"*/{name}"):
        shutil.rmtree(old)
    for row in rows:
        if row.notebook is not None:
            folder = to / "submitted" / row.student / name
            folder.mkdir(parents=True)
            nbformat.write(row.notebook, folder / f"{name}.ipynb")
    with Gradebook(f"sqlite:///{(to / 'gradebook.db').resolve()}") as gradebook:
        for row in rows:
            gradebook.update_or_create_student(row.student)
        _forget(to, name, gradebook, {row.student for row in rows if row.notebook is not None})
    log = ""
    if any(row.notebook is not None for row in rows):
        log = nbgrader(to, "autograde", name, "--force", tolerant=True)
        nbgrader(to, "generate_feedback", name, "--force", tolerant=True)
    (to / "autograde.log").write_text(log, encoding="utf-8")
    nbgrader(to, "export", "--to", "grades.csv", f"--assignment=['{name}']")
    return _write_report(to, name, rows)


def _require_apart(submissions: Path, to: Path) -> None:
    """What was handed in must not lie where results are written, nor the other way round."""
    if not submissions.is_dir():
        raise ArgumentError(
            "there is no folder of submissions", received=submissions, do="name the folder with one folder per student"
        )
    inbox, results = submissions.resolve(), to.resolve()
    if inbox == results or inbox in results.parents or results in inbox.parents:
        raise ArgumentError(
            "the submissions and the results need folders apart from each other",
            received=f"{submissions} and {to}",
            do="choose another folder for the results: --to",
        )


def _forget(to: Path, name: str, gradebook: Gradebook, students: set[str]) -> None:
    """Drop what an earlier grading gave to those who have no notebook now."""
    for submission in gradebook.assignment_submissions(name):
        if submission.student.id not in students:
            gradebook.remove_submission(name, submission.student.id)
    for folder in (to / "autograded", to / "feedback"):
        for old in folder.glob(f"*/{name}"):
            if old.parent.name not in students:
                shutil.rmtree(old)


def nbgrader(course: Path, *arguments: str, tolerant: bool = False) -> str:
    """What one command of nbgrader prints, run in the folder of the course."""
    # nbgrader starts `alembic` by its bare name: the folder of this Python has to be on the path.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(
        command,
        cwd=course,
        env=os.environ | {"PATH": path},
        text=True,
        encoding="utf-8",
        errors="replace",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if done.returncode and not tolerant:
        raise RuntimeError(f"nbgrader {arguments[0]} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def _write_report(course: Path, name: str, rows: list[Submission]) -> Path:
    """`report.csv`: student, score, and in words what cost points; safe to open in a spreadsheet."""
    with (course / "grades.csv").open(encoding="utf-8") as file:
        scores = {row["student_id"]: (row["score"], row["max_score"]) for row in csv.DictReader(file)}
    report = course / "report.csv"
    with report.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(["student", "score", "of", "remarks", "verdicts"])
        for row in rows:
            graded = course / "autograded" / row.student / name / f"{name}.ipynb"
            verdicts = _verdicts(graded) if row.notebook is not None else []
            remarks = list(row.remarks)
            if row.notebook is not None and not graded.exists():
                remarks.append("nbgrader could not grade it: see autograde.log")
            cells = [row.student, *scores.get(row.student, ("0.0", "")), "; ".join(remarks), "\n".join(verdicts)]
            table.writerow([_harmless(cell) for cell in cells])
    return report


def _verdicts(graded: Path) -> list[str]:
    """The verdict of each check that did not give its points, as the student would see it."""
    if not graded.exists():
        return []
    found, raised = [], []
    for cell in nbformat.read(graded, as_version=4).cells:
        if cell.cell_type == "code" and not cell.metadata.get("nbgrader", {}).get("grade"):
            raised += [f"above: {each.ename}: {each.evalue}" for each in cell.outputs if each.output_type == "error"]
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("grade"):
            before, raised = raised, []
            shown = [output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result"]
            if shown and float(shown[0]) > 0:
                continue
            texts = [output.text.strip() for output in cell.outputs if output.output_type == "stream"]
            errors = [output.evalue for output in cell.outputs if output.output_type == "error"]
            said = "; ".join([*texts, *errors, *before])[:400].replace("\n", " ")
            found.append(f"{cell.metadata.nbgrader.grade_id}: {said}")
    return found


def _harmless(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m lecturelib.checks.grade", description=__doc__.splitlines()[0])
    parser.add_argument("name", help="the homework, for example 04_saliency")
    parser.add_argument("--submissions", type=Path, required=True, help="a folder with one folder per student")
    parser.add_argument("--to", type=Path, required=True, help="a folder for the results")
    parser.add_argument("--course", type=Path, default=Path("homework"), help="where source/ and the configuration are")
    options = parser.parse_args(arguments)
    try:
        report = grade(options.name, submissions=options.submissions, course=options.course, to=options.to)
    except ArgumentError as error:
        parser.exit(2, f"{error}\n")
    print(f"Graded. The reasons: {report}; the grades: {report.with_name('grades.csv')}")


if __name__ == "__main__":
    main()
