"""Long work for a panel: a thread that shows its best so far while it works, rests when it is stopped, goes on where it
stopped, and ends when something newer begins."""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from torch import Tensor

from lecturelib.errors import ArgumentError, LectureError
from lecturelib.fragments import tiles
from lecturelib.notices import Best
from lecturelib.optimize import OnStep

Pictures = Tensor | str
_BETWEEN_PICTURES = 0.2  # seconds; more pictures than five a second only cost time
KEEP = ("largest", "smallest", "latest")


def beforehand(function: Callable[[object], object], arguments: Sequence) -> None:
    """Call a function that remembers its answers for all these arguments, in a thread that ends with the program."""

    def work() -> None:
        for argument in arguments:
            if threading.main_thread().is_alive():
                function(argument)

    threading.Thread(target=work, name="beforehand").start()


class Run:
    """One run of `job(run)` in a thread of its own. The job calls `report`, or climbs with `on_step`: only there it can
    be stopped.

    state: "new", "running", "stopping", "resting", "finished" or "failed". fraction: how much is done, from 0 to 1.
    text: where it is, or what went wrong. picture: the last one, as HTML. `tell(run)` is called after every change of
    these, in the thread that changed them; never again once `end` has returned.
    """

    def __init__(self, job: Callable[["Run"], object], tell: Callable[["Run"], object]):
        self.state, self.fraction, self.text, self.picture = "new", 0.0, "", ""
        self._job, self._tell = job, tell
        self._lock = threading.Condition(threading.RLock())
        self._ended = False
        self._due = 0.0
        self._look: dict = {"titles": None, "alt": "picture", "height": 300}
        self._thread = threading.Thread(target=self._work, daemon=True, name="panel")

    def start(self) -> None:
        self._change(state="running", text="starting")
        self._thread.start()

    def stop(self) -> None:
        """Rest at the next report, with what there is so far."""
        with self._lock:
            if self.state == "running":
                self._change(state="stopping", text=f"{self.text}, stopping")

    def resume(self) -> None:
        """Go on where it stopped."""
        with self._lock:
            if self.state in ("stopping", "resting"):
                self._change(state="running", text=self.text.removesuffix(", stopping").removesuffix(", stopped"))

    def end(self) -> None:
        """Tell nothing any more, and leave the job at its next report."""
        with self._lock:
            self._ended = True
            self._lock.notify_all()

    def settles(self, seconds: float) -> bool:
        """Whether it rests, or has come to its end, within these seconds."""
        with self._lock:
            return self._lock.wait_for(lambda: self.state in ("resting", "finished", "failed"), seconds)

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def report(
        self,
        fraction: float,
        images: Pictures | Callable[[], Pictures] | None = None,
        titles: Sequence[str] | None = None,
        *,
        alt: str = "picture",
        text: str = "",
        height: int = 300,
    ) -> None:
        """Say how far the job is, and show images (N, 3, H, W) or HTML, or what a function gives when it is called.

        Call it often: most calls return at once, and only those that draw call the function. A run that was stopped
        waits in here until it goes on; one that was ended never comes back.
        """
        stopping = self.state == "stopping"
        if self._ended:
            raise _EndedError
        if time.monotonic() < self._due and not stopping:
            return
        self._look = {"titles": titles, "alt": alt, "height": height}
        picture = self.picture if images is None else self._html(images)
        self._due = time.monotonic() + _BETWEEN_PICTURES
        self._change(fraction=min(max(fraction, 0.0), 1.0), text=text or f"{fraction:.0%}", picture=picture)
        if stopping:
            self._rest()

    def on_step(
        self,
        steps: int,
        *,
        titles: Sequence[str] | None = None,
        alt: str = "the picture so far",
        keep: str = "largest",
        height: int = 300,
    ) -> OnStep:
        """What `maximize(..., on_step=...)` calls: reports the step and shows the images so far.

        steps: of all loops together that are given this function. keep: which images are shown, for each of a batch:
        those of the "largest" score so far, of the "smallest" (for `minimize`), or the "latest". height: of an image on
        the screen, in pixels, as that of the result: then nothing jumps at the end.
        """
        if keep not in KEEP:
            raise ArgumentError("there is no such choice", received=repr(keep), do=f"choose one of {', '.join(KEEP)}")
        best, before, last = None, 0, 0
        sign = -1 if keep == "smallest" else 1

        def see(step: int, images: Tensor, scores: Tensor) -> None:
            nonlocal best, before, last
            if step < last:  # the next loop
                best, before = None, before + last
            last = step
            if keep != "latest":
                if best is None or best.images.shape != images.shape:
                    best = Best.of_start(images)
                best = best.or_better(images, sign * scores, step)
                images = best.images
            done = min(before + step, steps)
            self.report(done / max(steps, 1), images, titles, alt=alt, text=f"step {done} of {steps}", height=height)

        return see

    def _work(self) -> None:
        started = time.monotonic()
        try:
            result = self._job(self)
            picture = self.picture if result is None else self._html(result)
            seconds = time.monotonic() - started
            self._change(state="finished", fraction=1.0, picture=picture, text=f"finished after {seconds:.1f} s")
        except _EndedError:
            pass
        except LectureError as error:
            self._fail(str(error))
        except Exception:  # a thread has no cell to raise in
            self._fail("This did not work:\n" + traceback.format_exc(limit=-1))

    def _fail(self, text: str) -> None:
        with suppress(_EndedError):
            self._change(state="failed", text=text)

    def _rest(self) -> None:
        with self._lock:
            if self.state == "stopping":
                self._change(state="resting", text=f"{self.text}, stopped")
            while self.state == "resting" and not self._ended:
                self._lock.wait()
            if self._ended:
                raise _EndedError

    def _change(self, **changes) -> None:
        with self._lock:
            if self._ended:
                raise _EndedError
            vars(self).update(changes)
            self._tell(self)
            self._lock.notify_all()

    def _html(self, pictures: Pictures | Callable[[], Pictures]) -> str:
        pictures = pictures() if callable(pictures) else pictures
        return pictures if isinstance(pictures, str) else tiles(pictures, **self._look)


class _EndedError(BaseException):
    """Nobody waits for this job any more. Not an `Exception`, so that no job and no loop catches it."""
