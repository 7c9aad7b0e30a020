"""How a training is stopped: it finishes its step."""

import signal
import threading

import pytest

from lecturelib.training.steps import finishing_steps


def test_the_first_interrupt_is_an_answer_and_the_second_one_ends_everything():
    before = signal.getsignal(signal.SIGINT)
    with finishing_steps() as interrupted:
        assert not interrupted()
        signal.raise_signal(signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_where_it_cannot_wait_for_the_end_of_a_step_an_interrupt_is_as_ever():
    found = []

    def work():
        with finishing_steps() as interrupted:
            found.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
    with pytest.raises(KeyboardInterrupt), finishing_steps(world=2):
        signal.raise_signal(signal.SIGINT)
