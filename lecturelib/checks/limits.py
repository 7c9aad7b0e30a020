"""A limit of time for code in this process: an endless loop in Python ends with `TookTooLongError`.

What counts is the time of the processor, so that a right answer is not refused on a busy machine; what waits without
working is stopped by the clock, at six times the limit. The alarm rings again every fifth of a second, so that code
which catches everything is interrupted again. What no limit inside a process can stop is one call that never comes back
from C, and `while True:` around `except:`; in a notebook the kernel has to be restarted then, in grading the kernel is
killed (`lecturelib.checks.execution`).
"""

import ctypes
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_AGAIN = 0.2  # seconds from one ring of the alarm to the next
_PATIENCE = 6  # times the limit, by the clock


class TookTooLongError(BaseException):
    """The time is up. No `Exception`, so that a student's `except Exception` does not swallow it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises `TookTooLongError` inside the block when it takes longer, in any thread and on any system."""
    main = threading.current_thread() is threading.main_thread()
    limit = _by_signal if main and hasattr(signal, "setitimer") else _by_watchman
    with limit(seconds):
        yield


@contextmanager
def _by_signal(seconds: float) -> Iterator[None]:
    """The system's alarm, which also ends a sleep."""
    armed = True

    def ring(*_: object) -> None:
        if armed:
            raise TookTooLongError

    alarms = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, _PATIENCE * seconds))
    before = [signal.signal(name, ring) for name, _, _ in alarms]
    for _, timer, wait in alarms:
        signal.setitimer(timer, wait, _AGAIN)
    try:
        yield
    finally:
        armed = False
        for (name, timer, _), handler in zip(alarms, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(name, handler)


@contextmanager
def _by_watchman(seconds: float) -> Iterator[None]:
    """A second thread, for Windows and for kernels that run cells outside of the main thread."""
    watched, done, lock = threading.get_ident(), threading.Event(), threading.Lock()
    work, clock = time.process_time() + seconds, time.monotonic() + _PATIENCE * seconds

    def watch() -> None:
        while not done.wait(_AGAIN):
            with lock:
                if not done.is_set() and (time.process_time() > work or time.monotonic() > clock):
                    _raise_in(watched, TookTooLongError)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        with suppress(TookTooLongError):
            with lock:
                done.set()
            _raise_in(watched, None)  # takes back a ring that has not been heard


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error) if error else None)
