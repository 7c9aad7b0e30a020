"""Checkpoints of savers and trainings that are killed at random moments. Children are forked: imports cost once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lecturelib import load_image, save_image
from lecturelib.training.checkpoints import load_checkpoint, replacing, save_checkpoint

ROOT = Path(__file__).parents[1]

KILLING = """
import json, os, random, signal, sys, time, traceback
from pathlib import Path

import torch
torch.set_num_threads(1)

def killed(work, seconds, after=1):
    '''Run work(tell) in a child, kill it a while `after` so many tellings: (how it ended, what it told).'''
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(lambda number: os.write(write, number.to_bytes(8, "big")))
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.close(write)  # so that reading ends with the child
    told = b""
    while len(told) < 8 * after and (more := os.read(read, 8)):
        told += more
    end = time.monotonic() + seconds
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < end:
        time.sleep(0.0005)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        ended = os.waitpid(child, 0)
    while more := os.read(read, 4096):
        told += more
    os.close(read)
    return ended[1], [int.from_bytes(told[at : at + 8], "big") for at in range(0, len(told), 8)]
"""

SAVERS = (
    KILLING
    + """
from lecturelib.training.checkpoints import load_checkpoint, save_checkpoint
path, save, chance = Path(sys.argv[1]), {"ours": save_checkpoint, "plain": torch.save}[sys.argv[2]], random.Random(0)
step, strays = 0, 0

def save_on_and_on(tell):
    number = step
    while True:
        number += 1
        save({"settings": {}, "step": number, "weights": torch.full((50_000,), float(number))}, path)
        tell(number)

for kill in range(200):
    _, told = killed(save_on_and_on, chance.uniform(0, 0.01))
    strays += len(list(path.parent.glob("*.partial")))
    state = load_checkpoint(path, settings={})
    assert max(told) <= state["step"] <= max(told) + 1, (told, state["step"])
    assert (state["weights"] == state["step"]).all()
    assert os.listdir(path.parent) == [path.name]
    step = state["step"]
print(json.dumps({"kills": kill + 1, "strays": strays, "saves": step}))
"""
)

TRAININGS = (
    KILLING
    + """
from lecturelib import load_image
from lecturelib.training import style_network
from lecturelib.training.checkpoints import load_checkpoint
from lecturelib.training.photographs import PhotographFolder
folder, chance = Path(sys.argv[1]), random.Random(0)
style_network.HELD_OUT = ("cat",)
sizes = {"pixels": 32, "style_pixels": 48, "batch": 2, "width": 4, "blocks": 1}
layers = {"style_layers": ("relu1_1", "relu2_1"), "content_layer": "relu2_1"}
recipe = style_network.Recipe(("mosaic", "swirl"), steps=40, **sizes, **layers)
styles = [load_image(name, size=48) for name in recipe.styles]

def training(run, save_every):
    def work(tell):
        told = lambda step, pictures: tell(step)
        photographs = PhotographFolder(folder / "photographs")
        style_network.train(recipe, photographs, styles, run, save_every=save_every, on_preview=told, device="cpu")
    return work

killed(training(folder / "uninterrupted", 40), 60)
kills = 0
for _ in range(40):
    status, told = killed(training(folder / "run", 1), chance.uniform(0, 0.05), chance.randint(1, 12))
    state = load_checkpoint(folder / "run" / "checkpoint.pt")
    assert not told or max(told) <= state["step"], (told, state["step"])
    kills += status == signal.SIGKILL
    if state["step"] == recipe.steps:
        break
expected = load_checkpoint(folder / "uninterrupted" / "checkpoint.pt")
same = all(torch.equal(state["network"][name], value) for name, value in expected["network"].items())
print(json.dumps({"kills": kills, "same": same, "step": state["step"]}))
"""
)


def run(program: str, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_hundred_kills_while_saving_lose_nothing(tmp_path):
    result = run(SAVERS, tmp_path / "checkpoint.pt", "ours")
    assert result.returncode == 0, result.stderr
    counts = json.loads(result.stdout)
    assert counts["kills"] == 200 and counts["strays"] > 20, "many kills must fall into the middle of a save"


def test_kills_destroy_what_is_saved_in_place(tmp_path):
    """The control: the same kills find the fault of a plain `torch.save`."""
    result = run(SAVERS, tmp_path / "checkpoint.pt", "plain")
    assert result.returncode != 0 and "CheckpointError" in result.stderr


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path):
    (tmp_path / "photographs").mkdir()
    for number, name in enumerate(["cat", "coffee", "rocket"]):
        save_image(load_image(name, size=40), tmp_path / "photographs" / f"{number}.png")
    result = run(TRAININGS, tmp_path)
    assert result.returncode == 0, result.stderr
    ended = json.loads(result.stdout)
    assert ended["kills"] >= 3 and ended["step"] == 40 and ended["same"], ended


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 1}, path)

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half a file")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert load_checkpoint(path) == {"step": 1} and os.listdir(tmp_path) == [path.name]


def test_who_only_reads_does_not_disturb_a_training_that_saves(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"settings": {}, "step": torch.tensor(1)}, path)
    with replacing(path) as temporary:
        temporary.write_bytes(path.read_bytes())
        assert load_checkpoint(path)["step"] == 1
        assert temporary.exists()
    (tmp_path / "best.safetensors.1.partial").touch()
    load_checkpoint(path, settings={})
    assert os.listdir(tmp_path) == [path.name]
