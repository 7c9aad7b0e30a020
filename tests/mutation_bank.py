"""Judge every answer of the bank on all architectures and several seeds; `python tests/mutation_bank.py` writes the
table `docs/mutation_bank.md`."""

import importlib
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from mutants.bank import BANK, Entry

from lecturelib.checks import EXERCISES, judge
from lecturelib.checks.cases import ARCHITECTURES

ROOT = Path(__file__).parents[1]
SEEDS = range(5)

for _text in sorted((ROOT / "homework" / "text").glob("*.md")):
    for _code in re.findall(r"```python\n(.*?)```", _text.read_text(encoding="utf-8"), flags=re.DOTALL):
        _namespace = {"torch": torch, "F": F}
        exec(compile(_code, _text.name, "exec"), _namespace)
        _name = re.search(r"^def (\w+)", _code, flags=re.MULTILINE)[1]
        BANK.append(Entry(_name, _namespace[_name], None))

for _module in sorted(Path(__file__).with_name("mutants").glob("lecture_*.py")):
    importlib.import_module(f"mutants.{_module.stem}")


@dataclass(frozen=True)
class Result:
    """How often, of all rounds, an answer was accepted, and how often the diagnosis was the expected one."""

    entry: Entry
    rounds: int
    accepted: int
    diagnosed: int
    said: tuple[str, ...]


def run(entry: Entry, seeds=SEEDS) -> Result:
    verdicts = [
        judge(entry.exercise, entry.function, seed=seed, architectures=(architecture,), seconds=60)  # busy machines
        for seed in seeds
        for architecture in ARCHITECTURES
    ]
    accepted = sum(verdict.right for verdict in verdicts)
    said = [str(verdict) for verdict in verdicts if not verdict.right]
    diagnosed = sum(bool(entry.expected) and entry.expected in text for text in said)
    return Result(entry, len(verdicts), accepted, diagnosed, tuple(said))


def table(results: list[Result]) -> str:
    """The page of the documentation: a line per exercise, and a line per wrong answer."""
    lines = [
        "# What the checks find",
        "",
        "Answers as students write them, right and wrong, each judged on three architectures with five seeds. *Named*",
        "means that the diagnosis is the mistake that was made. `python tests/mutation_bank.py` makes this page;",
        "`tests/test_mutation_bank.py` proves it.",
        "",
        "| exercise | right answers | accepted | wrong answers | rejected | named |",
        "|---|---|---|---|---|---|",
    ]
    good = [result for result in results if result.entry.expected is None]
    bad = [result for result in results if result.entry.expected is not None]
    for name, exercise in sorted(EXERCISES.items(), key=lambda item: (item[1].lecture, item[0])):
        cells = [f"{exercise.lecture:02d} `{name}`", *_shares(name, good, bad)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"| **all** | {' | '.join(_shares(None, good, bad))} |", "", "## The wrong answers", ""]
    lines += ["| exercise | mistake | rejected | diagnosis |", "|---|---|---|---|"]
    for result in bad:
        said = _shortened(result)
        rejected = f"{result.rounds - result.accepted} of {result.rounds}"
        words = result.entry.name.replace("_", " ")
        lines.append(f"| `{result.entry.exercise}` | {words} | {rejected} | {said} |")
    return "\n".join(lines) + "\n"


def _shares(name: str | None, good: list[Result], bad: list[Result]) -> list[str]:
    good, bad = ([result for result in results if name in (None, result.entry.exercise)] for results in (good, bad))
    rounds = sum(result.rounds for result in bad) or 1
    rejected = sum(result.rounds - result.accepted for result in bad) / rounds
    named = sum(result.diagnosed for result in bad) / rounds
    accepted = sum(result.accepted for result in good) / (sum(result.rounds for result in good) or 1)
    return [str(len(good)), f"{accepted:.0%}", str(len(bad)), f"{rejected:.0%}", f"{named:.0%}"]


def _shortened(result: Result) -> str:
    """What was said in the first round that did not accept it, without the name of the exercise."""
    if not result.said:
        return "accepted"
    text = re.sub(r"^\w+: (wrong\. )?", "", result.said[0].split("\n")[0])
    text = re.sub(r" At \[.*| It is -?[\d.e+-]+, wanted.*", "", text)
    return text.replace("|", "\\|")


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    results = [run(entry, SEEDS if not names else range(1)) for entry in BANK if entry.exercise in (names or EXERCISES)]
    if not names:
        (ROOT / "docs" / "mutation_bank.md").write_text(table(results), encoding="utf-8")
    print(f"{len(results)} answers in {time.process_time():.0f} seconds of work")
    for result in results:
        right = result.entry.expected is None
        fine = result.accepted == (result.rounds if right else 0)
        if not fine or (not right and result.diagnosed < result.rounds and result.entry.expected):
            print(result.entry.exercise, result.entry.name, f"accepted {result.accepted}/{result.rounds}", end=" ")
            print(f"named {result.diagnosed}", *set(result.said), sep="\n    ")


if __name__ == "__main__":
    main(sys.argv[1:])
