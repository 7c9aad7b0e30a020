"""The benchmarks still run: with tiny pictures, for what they print and not for how fast they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = {
    "ascent": ("--channels 1 --size 64 --steps 1 --rounds 1", "x our time"),
    "deepdream": ("--size 64 --steps 1 --rounds 1", "x our time"),
    "inversion": ("--size 32 --steps 1 --rounds 1", "x our time"),
    "style": ("--size 32 --rounds 1", "x our time"),
    "texture": ("--size 32 --steps 1 --rounds 1", "x our time"),
    "faststyle": ("--size 64 --rounds 1", "ratio"),
}


@pytest.mark.parametrize("name", TINY)
def test_benchmark_compares(name):
    options, wanted = TINY[name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / f"{name}.py"), *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(wanted) >= 2


@pytest.mark.parametrize("name", ["adversarial", "answers", "occlusion", "panels", "saliency"])
def test_benchmark_that_is_long_says_at_least_what_it_does(name):
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_no_benchmark_is_forgotten():
    known = {*TINY, "adversarial", "answers", "occlusion", "panels", "saliency"}
    assert {path.stem for path in (ROOT / "benchmarks").glob("*.py")} == known
