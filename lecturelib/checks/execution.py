"""How a submission is executed while it is graded: in a process of its own, and one bad cell costs only itself.

`Execute` takes the place of nbgrader's preprocessor of that name (see `homework/nbgrader_config.py`). nbgrader's own
waits for ever for a cell that cannot be interrupted, loses the whole submission when its kernel dies, keeps all output,
and gives full points to a check that shows nothing.
"""

import os
import tempfile
import time
from pathlib import Path
from queue import Empty

import psutil
from jupyter_client import KernelManager
from nbformat import NotebookNode
from nbformat.v4 import new_output, output_from_msg
from nbgrader.preprocessors import NbGraderPreprocessor
from nbgrader.utils import is_grade
from traitlets import Integer

_PACKAGE = str(Path(__file__).parents[2])  # a kernel that starts in another folder finds the same lecturelib
_GRACE = 3  # seconds of work that an interrupted cell has to come to its end
_PATIENCE = 6  # times a limit, by the clock: waiting without working ends too
_KEPT = {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "IPYTHONDIR", "SYSTEMROOT", "OMP_NUM_THREADS"}

_LIMITS = """
try:
    import resource
    for kind, most in (("DATA", {memory}), ("FSIZE", {memory} // 20), ("CORE", 0)):
        resource.setrlimit(getattr(resource, "RLIMIT_" + kind), (most, most))
    del resource, kind, most
except ImportError:  # Windows has no such limits
    pass
"""


class Execute(NbGraderPreprocessor):
    """Runs the code cells of a submission in order; what a cell may cost is bounded."""

    cell_seconds = Integer(30, help="Seconds of the processor that one cell may take; six times by the clock.").tag(
        config=True
    )
    notebook_seconds = Integer(1800, help="Seconds by the clock for the whole notebook.").tag(config=True)
    memory_megabytes = Integer(4096, help="Memory of the kernel; not on Windows and macOS.").tag(config=True)
    output_characters = Integer(50_000, help="Output of a cell that is kept; ten times as much stops it.").tag(
        config=True
    )

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        """The notebook with outputs; a cell that was stopped, or killed its kernel, has an error in them."""
        end, kernel, finished = time.monotonic() + self.notebook_seconds, None, []
        with tempfile.TemporaryDirectory() as folder:
            try:
                for number, cell in enumerate((cell for cell in nb.cells if cell.cell_type == "code"), start=1):
                    if time.monotonic() > end:
                        problem = f"The notebook took longer than {self.notebook_seconds} seconds"
                        cell.outputs = [_error("NotebookTimeout", problem)]
                        continue
                    kernel = kernel or self._started(folder, finished)
                    cell.outputs, alive = kernel.run(cell.source, self.cell_seconds, self.output_characters)
                    cell.execution_count = number
                    if is_grade(cell):
                        _require_points(cell)
                    elif alive:
                        finished.append(cell.source)
                    if not alive:
                        kernel = kernel.close()
            finally:
                if kernel is not None:
                    kernel.close()
        return nb, resources

    def _started(self, folder: str, finished: list[str]) -> "Kernel":
        """A new kernel in which the cells that came to an end, the graded ones left out, have been run again."""
        while True:
            kernel = Kernel(folder)
            kernel.run(_LIMITS.format(memory=self.memory_megabytes * 2**20), 30, 1000)
            lost = next((source for source in finished if not kernel.run(source, self.cell_seconds, 1000)[1]), None)
            if lost is None:
                return kernel
            finished.remove(lost)
            kernel.close()


class Kernel:
    """A Python process that runs cells, in a folder, without the variables of our own environment."""

    def __init__(self, folder: str):
        kept = {name: value for name, value in os.environ.items() if name.upper() in _KEPT}
        self.manager = KernelManager(kernel_name="python3")
        kept["PYTHONPATH"] = os.pathsep.join([_PACKAGE, kept.get("PYTHONPATH", "")])
        self.manager.start_kernel(cwd=folder, env=kept | {"CUDA_VISIBLE_DEVICES": ""})
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=600)
        self.process = psutil.Process(self.manager.provisioner.pid)
        self.run("import torch, lecturelib.checks", 300, 1000)  # its time is not counted against the student

    def run(self, source: str, seconds: float, characters: int) -> tuple[list[NotebookNode], bool]:
        """The outputs of the code, and whether the kernel can go on."""
        asked = self.client.execute(source, allow_stdin=False, stop_on_error=False)
        outputs, size, stopped = [], 0, ""
        work, end = self._work() + seconds, time.monotonic() + _PATIENCE * seconds
        while True:
            try:
                message = self.client.get_iopub_msg(timeout=0.25)
            except Empty:
                message = None
                if not self.manager.is_alive():
                    return [*outputs, _error("DeadKernel", "The cell ended the Python process")], False
            if time.monotonic() > end or self._work() > work:
                if stopped:
                    return [*outputs, _error("Hung", f"{stopped}, and it could not be interrupted")], False
                stopped = f"Stopped: more than {seconds:g} seconds of work"
                work, end = self._work() + _GRACE, time.monotonic() + _PATIENCE * _GRACE
                self.manager.interrupt_kernel()
            if message is None or message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return [*outputs, *([_error("Stopped", stopped)] if stopped else [])], True
            if kind in {"stream", "display_data", "execute_result", "error"}:
                size += len(str(content))
                if size <= characters:
                    outputs.append(output_from_msg(message))
                elif size > 10 * characters and not stopped:
                    stopped = "Stopped: too much output"
                    work, end = self._work() + _GRACE, time.monotonic() + _PATIENCE * _GRACE
                    self.manager.interrupt_kernel()

    def _work(self) -> float:
        """Seconds that the processor has worked for the kernel."""
        try:
            times = self.process.cpu_times()
        except psutil.Error:
            return 0.0
        return times.user + times.system

    def close(self) -> None:
        """Ends the process and those that it started."""
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def _require_points(cell: NotebookNode) -> None:
    """A check has to show its points, none or all: what shows nothing, or something else, gets an error, hence 0."""
    cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    shown = [output.data.get("text/plain", "") for output in cell.outputs if output.output_type == "execute_result"]
    try:
        valid = len(shown) == 1 and float(shown[0]) in {0.0, float(cell.metadata.nbgrader["points"])}
    except ValueError:
        valid = False
    if not valid:
        cell.outputs = [output for output in cell.outputs if output.output_type != "execute_result"]
        cell.outputs.append(_error("NoVerdict", "The check did not come to a verdict"))


def _error(name: str, text: str) -> NotebookNode:
    return new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
