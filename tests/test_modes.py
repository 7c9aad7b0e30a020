"""Gradients are switched for a function's time, whatever ends it."""

import pytest
import torch

from lecturelib.modes import recording


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_mode_holds_in_the_function_and_the_callers_mode_is_back_after_it(on, outside):
    @recording(on)
    def modes() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    with outside():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        assert modes() == (on, False)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


@pytest.mark.parametrize("method", ["__enter__", "__exit__"])
@pytest.mark.parametrize("switch", [torch.set_grad_enabled, torch.inference_mode])
@pytest.mark.parametrize(("on", "outside"), [(True, torch.no_grad), (False, torch.enable_grad)])
def test_an_interrupt_inside_of_pytorchs_own_switch_leaves_the_callers_mode(monkeypatch, on, outside, switch, method):
    reached = []

    def interrupted(self, *_):
        reached.append(self)  # kept: the switch would put the mode back when it is thrown away
        raise KeyboardInterrupt

    monkeypatch.setattr(switch, method, interrupted)
    with outside():
        with pytest.raises(KeyboardInterrupt):
            recording(on)(lambda: None)()
        assert torch.is_grad_enabled() is not on
        assert len(reached) == 1
        reached.clear()


def test_arguments_results_errors_and_the_docstring_pass_through():
    @recording(False)
    def divided(a: int, *, by: int) -> float:
        """a over by."""
        return a / by

    assert divided(3, by=2) == 1.5
    assert divided.__doc__ == "a over by."
    with pytest.raises(ZeroDivisionError):
        divided(3, by=0)
