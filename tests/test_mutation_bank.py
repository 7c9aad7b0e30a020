"""The bank of right and wrong answers: what the checks accept, what they reject, and whether they name the mistake."""

from collections import Counter
from pathlib import Path

import pytest
from mutants.bank import BANK
from mutation_bank import run, table

from lecturelib.checks import EXERCISES

PAGE = Path(__file__).parents[1] / "docs" / "mutation_bank.md"


@pytest.fixture(scope="module")
def results():
    return [run(entry) for entry in BANK]


def test_bank_has_right_and_wrong_answers_for_every_exercise():
    right = Counter(entry.exercise for entry in BANK if entry.expected is None)
    wrong = Counter(entry.exercise for entry in BANK if entry.expected is not None)
    assert right.keys() == wrong.keys() == EXERCISES.keys()
    assert min(right.values()) >= 3, "the worked solution and two other ways"
    assert min(wrong.values()) >= 3
    assert wrong.total() >= 60


def test_every_right_answer_is_accepted_on_every_architecture_with_every_seed(results):
    refused = [result for result in results if result.entry.expected is None and result.accepted < result.rounds]
    assert [(result.entry.exercise, result.entry.name, result.said[0]) for result in refused] == []


def test_nearly_every_wrong_answer_is_rejected(results):
    bad = [result for result in results if result.entry.expected is not None]
    accepted = sum(result.accepted for result in bad)
    assert accepted <= 0.05 * sum(result.rounds for result in bad)
    assert [result.entry.name for result in bad if result.accepted == result.rounds] == []


def test_most_mistakes_are_named(results):
    bad = [result for result in results if result.entry.expected is not None]
    assert sum(result.diagnosed for result in bad) >= 0.8 * sum(result.rounds for result in bad)
    for name in EXERCISES:
        own = [result for result in bad if result.entry.exercise == name]
        assert sum(result.diagnosed for result in own) >= 0.5 * sum(result.rounds for result in own), name


def test_verdicts_are_short(results):
    long = [text for result in results for text in result.said if len(text) > 330 or text.count("\n") > 1]
    assert long == []


def test_the_page_in_the_documentation_is_the_table_of_this_bank(results):
    assert PAGE.read_text(encoding="utf-8") == table(results), "run: python tests/mutation_bank.py"
