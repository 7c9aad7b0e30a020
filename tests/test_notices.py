import pytest
import torch

from lecturelib.errors import OptimizationError
from lecturelib.notices import Best, tell_result, tell_stop, tell_unmoved


def start(count: int = 2) -> Best:
    return Best.of_start(torch.full((count, 3, 4, 4), 0.5))


def test_the_best_is_kept_for_each_image_by_itself():
    first = start().or_better(torch.full((2, 3, 4, 4), 0.1), torch.tensor([1.0, 5.0]), 1)
    second = first.or_better(torch.full((2, 3, 4, 4), 0.9), torch.tensor([2.0, 3.0]), 2)
    assert second.scores.tolist() == [2.0, 5.0]
    assert second.steps.tolist() == [2, 1]
    assert second.images[:, 0, 0, 0].tolist() == [pytest.approx(0.9), pytest.approx(0.1)]


def test_an_interrupt_says_after_how_many_steps_and_from_which_the_best_comes():
    best = start(1).or_better(torch.rand(1, 3, 4, 4), torch.tensor([1.0]), 7)
    with pytest.warns(UserWarning, match="after 9 of 20 steps.*from step 7"):
        tell_stop(KeyboardInterrupt(), best, 9, 20, 0.05)


def test_a_score_that_ran_away_before_anything_was_gained_is_an_error_with_a_cure():
    with pytest.raises(OptimizationError, match="Look at the score of the start"):
        tell_stop(ArithmeticError(), start(1), 0, 20, 0.05)
    gained = start(1).or_better(torch.rand(1, 3, 4, 4), torch.tensor([1.0]), 3)
    with pytest.warns(UserWarning, match=r"not a finite number.*below 0\.05"):
        tell_stop(ArithmeticError(), gained, 4, 20, 0.05)


def test_what_did_not_move_is_told_with_the_image_and_the_cause():
    best = start().or_better(torch.rand(2, 3, 4, 4), torch.tensor([1.0, -torch.inf]), 2)
    with pytest.warns(UserWarning, match="in images 1, because the gradient at the start is zero"):
        tell_unmoved(best, torch.tensor([False, True]))


def test_burnt_and_grey_results_are_told():
    first = torch.full((1, 3, 4, 4), 0.5)
    burnt = Best.of_start(first).or_better(torch.ones(1, 3, 4, 4) * torch.tensor([0.0, 1, 1, 0]), torch.ones(1), 1)
    with pytest.warns(UserWarning, match="burnt"):
        tell_result(first, burnt, last=burnt.images)
    grey = Best.of_start(torch.rand(1, 3, 4, 4)).or_better(first, torch.ones(1), 1)
    with pytest.warns(UserWarning, match="flat grey"):
        tell_result(torch.rand(1, 3, 4, 4), grey, last=first)
