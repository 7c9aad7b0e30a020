"""What every test runs under: offline, one thread, a known seed, a device as a parameter."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; the kernels of the notebooks inherit it
os.environ.pop("MPLBACKEND", None)  # or the kernels would show no figures

import hypothesis
import matplotlib
import pytest
import torch
from offline import refuse_connections

hypothesis.settings.register_profile("gate", deadline=None, derandomize=True, database=None)


class Offline:
    """The guard of `offline` around every test and every cell of a notebook, with the list of what was refused."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="lecturelib-tests-")
        self.record = Path(self.folder.name) / "refused"
        self.record.touch()
        refuse_connections(self.record)
        self._guard_kernels()

    def refused(self) -> list[str]:
        """The addresses that were asked for since the last call."""
        addresses = self.record.read_text(encoding="utf-8").split()
        self.record.write_text("", encoding="utf-8")
        return addresses

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        self.refused()
        outcome = yield
        if addresses := self.refused():
            pytest.fail(f"{item.name} asked other machines: {', '.join(addresses)}", pytrace=False)
        return outcome

    def _guard_kernels(self) -> None:
        # IPython runs the files in `startup` first. Its folder is our own also so that no student's settings matter.
        startup = Path(self.folder.name) / "ipython" / "profile_default" / "startup"
        startup.mkdir(parents=True)
        guard = Path(__file__).with_name("offline.py")
        lines = f"import runpy\nrunpy.run_path({str(guard)!r})['refuse_connections']({str(self.record)!r})\ndel runpy\n"
        (startup / "offline.py").write_text(lines, encoding="utf-8")
        os.environ["IPYTHONDIR"] = str(startup.parents[1])


OFFLINE = pytest.StashKey[Offline]()


def pytest_configure(config: pytest.Config) -> None:
    matplotlib.use("agg")
    torch.set_num_threads(1)
    hypothesis.settings.load_profile("gate")
    config.stash[OFFLINE] = Offline()
    config.pluginmanager.register(config.stash[OFFLINE], "offline")


@pytest.fixture
def refused(request: pytest.FixtureRequest):
    """A function that gives the addresses refused so far and forgives them, for tests of what happens offline."""
    return request.config.stash[OFFLINE].refused


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The CPU, and a GPU in full float32 where there is one."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    before = torch.backends.fp32_precision
    torch.backends.fp32_precision = "ieee"
    yield torch.device(request.param)
    torch.backends.fp32_precision = before


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers in every run, whatever ran before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def gradients() -> Iterator[None]:
    """A test that leaves gradients switched off fails itself, not those after it."""
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on, "the test left PyTorch without gradients"
