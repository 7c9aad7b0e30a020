import json
import os
import pickle
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import get_args_parser

from lecturelib import assets, load_model
from lecturelib.errors import ArgumentError, CheckpointError
from lecturelib.networks import normalized
from lecturelib.training import classifier
from lecturelib.training.checkpoints import load_checkpoint, save_checkpoint
from lecturelib.training.classifier import Recipe, accuracies, train
from lecturelib.training.photographs import Photographs, join, random_batch, read_photographs
from lecturelib.training.steps import draw, warm_up_then_cosine

ROOT = Path(__file__).parents[1]
RECIPE = Recipe("mini_vgg", ((16, 2), (24, 1)), batch=4)  # 12 photographs: 6 and 3 steps


@dataclass(frozen=True)
class SmallBatches(Recipe):
    batch: int = 4


def photographs(count: int = 12, classes: int = 3) -> Photographs:
    images = torch.randint(0, 256, (count, 3, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Photographs(images, torch.arange(count) % classes, [f"class {n}" for n in range(classes)])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return train(RECIPE, photographs(), tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders as ImageFolder wants them: n01 is red, n02 green, n03 blue; each picture has its own brightness."""
    root = tmp_path_factory.mktemp("photographs")
    for color, name in enumerate(("n01", "n02", "n03_word")):
        (root / "train" / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.zeros((20, 30, 3), np.uint8)
            pixels[:, 5:25, color] = 100 + number  # the middle, 20 pixels wide
            Image.fromarray(pixels).save(root / "train" / name / f"{number}.png")
    (root / "classes.tsv").write_text("n01\tgoldfish, Carassius auratus\nn02\tkoala\n", encoding="utf-8")
    return root / "train"


def assert_same(network, expected):
    for name, value in expected.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


@pytest.mark.parametrize("steps", [1, 6, 8])
def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path, uninterrupted, steps):
    assert train(RECIPE, photographs(), tmp_path, save_every=1, stop_after=steps) is None
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == steps
    assert_same(train(RECIPE, photographs(), tmp_path), uninterrupted)
    assert_same(train(RECIPE, photographs(), tmp_path), uninterrupted)  # a finished run stays as it is


def on_call(number, action, function):
    """The function, with an action before its call of this number."""
    calls = count(1)

    def called(*args):
        if next(calls) == number:
            action()
        return function(*args)

    return called


def test_steps_after_the_last_checkpoint_are_made_again(tmp_path, monkeypatch, uninterrupted):
    def crash():
        raise MemoryError

    monkeypatch.setattr(classifier, "_step", on_call(6, crash, classifier._step))
    with pytest.raises(MemoryError):
        train(RECIPE, photographs(), tmp_path, save_every=3)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3
    assert_same(train(RECIPE, photographs(), tmp_path), uninterrupted)


def test_an_interrupt_waits_for_the_end_of_the_step_and_saves_it(tmp_path, monkeypatch, uninterrupted):
    interrupt = partial(signal.raise_signal, signal.SIGINT)
    monkeypatch.setattr(classifier, "_step", on_call(5, interrupt, classifier._step))
    assert train(RECIPE, photographs(), tmp_path, save_every=3) is None
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 5
    assert_same(train(RECIPE, photographs(), tmp_path), uninterrupted)


KILLED = """
import os, pickle, sys, time
from lecturelib.training.classifier import train
recipe, photographs, run = pickle.load(open(sys.argv[1], "rb"))
saves, fsync = [], os.fsync
def slow(file):
    saves.append(file)
    if len(saves) == 4:
        print("saving", flush=True)
        time.sleep(600)
    fsync(file)
os.fsync = slow
train(recipe, photographs, run, save_every=1)
"""


def test_a_process_killed_in_the_middle_of_saving_can_be_resumed(tmp_path, uninterrupted):
    run = tmp_path / "run"
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    (tmp_path / "arguments").write_bytes(pickle.dumps((RECIPE, photographs(), run)))
    command = [sys.executable, tmp_path / "killed.py", tmp_path / "arguments"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()) as process:
        assert process.stdout.readline() == b"saving\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(list(run.glob("checkpoint.pt.*.partial"))) == 1
    assert load_checkpoint(run / "checkpoint.pt")["step"] == 3
    assert_same(train(RECIPE, photographs(), run), uninterrupted)
    assert [path.name for path in run.iterdir()] == ["checkpoint.pt"]


WORKER = """
import os, pickle, sys
from pathlib import Path
import torch
from lecturelib.training.classifier import Recipe, train
from lecturelib.training.photographs import read_photographs
folder, run, passes = sys.argv[1:]
photographs = read_photographs(folder, size=20)
network = train(Recipe("mini_vgg", ((16, float(passes)),), batch=4), photographs, run, val={"all": photographs})
torch.save(network.state_dict(), Path(run) / f"rank{os.environ['RANK']}.pt")
"""


def test_two_processes_train_one_network_together(folder, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "worker.py"), str(folder), str(tmp_path), "1"]
    done = subprocess.run(command, env=environment(GLOO_SOCKET_IFNAME="lo"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 3 and all(torch.equal(state["network"][name], first[name]) for name in first)


def test_a_batch_that_does_not_divide_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ArgumentError, match="divide"):
        train(RECIPE, photographs(), tmp_path)


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    train(RECIPE, photographs(), tmp_path, save_every=1, stop_after=1)
    other = Recipe("mini_vgg", ((16, 2), (24, 1)), batch=6, seed=1)
    with pytest.raises(CheckpointError) as caught:
        train(other, photographs(), tmp_path)
    message = str(caught.value)
    assert "batch: 4, now 6" in message and "seed: 0, now 1" in message and "lr" not in message
    with pytest.raises(CheckpointError, match="photographs: 12, now 15"):
        train(RECIPE, photographs(15), tmp_path)


@pytest.mark.parametrize("size", [0, 1, 100, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, size):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint({"step": 1, "network": torch.rand(100)}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    assert path.exists()


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a checkpoint was executed')",)


def test_a_checkpoint_cannot_execute_code(tmp_path):
    torch.save({"settings": {}, "network": Hostile()}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "checkpoint.pt")


def test_a_checkpoint_is_saved_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    assert load_checkpoint(path) is None
    save_checkpoint({"step": 1}, path)

    def fails(*_):
        raise OSError("no space left")

    for place in ("replace", "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(os, place, fails)
            with pytest.raises(OSError, match="no space"):
                save_checkpoint({"step": 2}, path)
        assert torch.load(path, weights_only=True) == {"step": 1}
        assert load_checkpoint(path) == {"step": 1} and list(tmp_path.iterdir()) == [path]
    save_checkpoint({"step": 3}, path)
    assert load_checkpoint(path) == {"step": 3}


def test_photographs_are_read_as_squares_with_the_words_of_the_table(folder):
    found = read_photographs(str(folder), size=20)
    assert found.images.shape == (12, 3, 20, 20) and found.images.dtype == torch.uint8 and len(found) == 12
    assert found.names == ["goldfish", "koala", "n03 word"]
    assert found.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    for number in range(12):  # the middle of the picture has one color
        expected = torch.zeros(3, dtype=torch.uint8)
        expected[number // 4] = 100 + number % 4
        assert torch.equal(found.images[number], expected[:, None, None].expand(3, 20, 20))


def test_classes_can_be_left_out(folder):
    found = read_photographs(str(folder), size=20, skip=["n01"])
    assert found.names == ["koala", "n03 word"] and found.labels.tolist() == [0] * 4 + [1] * 4
    assert found.images[0, 1].eq(100).all()
    with pytest.raises(ArgumentError, match="no such folder"):
        read_photographs(str(folder / "nowhere"), size=10)


def test_classes_of_the_same_name_are_joined():
    images = torch.zeros(3, 3, 2, 2, dtype=torch.uint8)
    first = Photographs(images, torch.tensor([0, 1, 1]), ["koala", "Go-kart"])
    second = Photographs(images + 1, torch.tensor([2, 0, 1]), ["go-kart", "zebra", "Koala"])
    both = join([first, second])
    assert both.names == ["koala", "Go-kart", "zebra"]
    assert both.labels.tolist() == [0, 1, 1, 0, 1, 2]
    assert both.images[:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]


def test_resized_photographs_keep_their_labels_and_flat_colors():
    flat = Photographs(torch.full((2, 3, 20, 20), 77, dtype=torch.uint8), torch.tensor([1, 0]), ["a", "b"])
    small = flat.resized(7)
    assert small.images.shape == (2, 3, 7, 7) and small.images.eq(77).all() and small.labels.tolist() == [1, 0]
    assert flat.resized(20) is flat


def test_a_random_batch_depends_on_its_generator_alone():
    indices = torch.tensor([3, 3, 7, 0])
    first, again, other = (
        random_batch(photographs(), indices, size=16, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert first.shape == (4, 3, 16, 16) and first.min() >= 0 and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])  # the same photograph, cut differently


def test_about_half_of_a_random_batch_is_mirrored_and_crops_lie_inside():
    ramp = torch.linspace(0, 255, 28).round().byte().expand(1, 3, 28, 28)  # bright on the right
    batch = random_batch(
        Photographs(ramp.clone(), torch.zeros(1, dtype=torch.int64), ["ramp"]),
        torch.zeros(200, dtype=torch.int64),
        size=8,
        generator=torch.Generator().manual_seed(0),
    )
    mirrored = batch[..., 0].mean(dim=(1, 2)) > batch[..., -1].mean(dim=(1, 2))
    assert 70 < mirrored.sum() < 130
    steps = batch.diff(dim=3)
    assert ((steps >= -1e-6) | mirrored.view(-1, 1, 1, 1)).all() and (
        (steps <= 1e-6) | ~mirrored.view(-1, 1, 1, 1)
    ).all()


def test_the_learning_rate_rises_in_a_line_and_falls_to_zero():
    shares = [warm_up_then_cosine(step / 1000, 0.08) for step in range(1000)]
    assert 0 < shares[0] < 0.02 and max(shares) == 1 == shares[80] and shares[-1] < 1e-5
    torch.testing.assert_close(torch.tensor(shares[:80]).diff(), torch.full((79,), shares[1] - shares[0]))
    assert all(later < earlier for earlier, later in pairwise(shares[80:]))
    assert warm_up_then_cosine(0.54, 0.08) == pytest.approx(0.5)


@pytest.mark.parametrize(("batch", "count"), [(4, 12), (5, 12), (7, 3), (4, 13)])
def test_every_photograph_is_drawn_once_in_a_pass(batch, count):
    drawn = torch.cat([draw(step, count, batch=batch, seed=0)[0] for step in range(4 * count)])
    passes = drawn[: len(drawn) // count * count].view(-1, count)
    assert passes.sort(dim=1).values.eq(torch.arange(count)).all()
    assert count < 4 or not torch.equal(passes[0], passes[1])
    numbers = {torch.rand(1, generator=draw(step, count, batch=batch, seed=0)[1]).item() for step in range(20)}
    assert len(numbers) == 20


def test_stages_have_the_steps_of_their_passes():
    recipe = Recipe("mini_vgg", ((40, 16), (48, 0.5), (64, 0.001)), batch=128)
    assert recipe.stages(1280) == [(40, 160), (48, 5), (64, 1)]


def test_accuracies_are_percentages():
    class Brightest(torch.nn.Module):
        """Its logits are the means of the colors, so that red pictures are of class 0."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, inputs):
            return inputs.mean(dim=(2, 3)) * self.weight

    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    for number, color in enumerate((0, 1, 2, 2)):
        images[number, color] = 255
    val = {"colors": Photographs(images, torch.tensor([0, 1, 2, 0]), ["red", "green", "blue"])}
    assert normalized(images.float() / 255).argmax(dim=1).unique().numel() == 3
    assert accuracies(Brightest(), val, 8) == {"colors": [75.0, 100.0]}


def test_the_command_trains_and_releases_a_network_that_loads(folder, tmp_path, monkeypatch):
    run, data = tmp_path / "run", tmp_path / "data"
    command = ["classifier", "mini_vgg", "--train", str(folder), "--val", str(folder), "--folder", str(run)]
    command += ["--release", str(data), "--passes", "16:1", "--stored", "20"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(classifier, "Recipe", SmallBatches)
    classifier.main()
    facts = json.loads((data / "mini_vgg.json").read_text(encoding="utf-8"))
    assert facts["photographs"] == 12 and facts["classes"] == 3 and facts["recipe"]["passes"] == [[16, 1.0]]
    manifest = {"mini_vgg.safetensors": facts["sha256"]}
    (data / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    monkeypatch.setattr(assets, "data_folder", lambda: data)
    model = load_model("mini_vgg", device="cpu")
    assert model.classes == ["goldfish", "koala", "n03 word"]
    trained = load_checkpoint(run / "checkpoint.pt")
    network = classifier.EMBEDDED["mini_vgg"](3, batch_norm=True)
    network.load_state_dict(trained["network"])
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = network.eval()(normalized(images))
    torch.testing.assert_close(model(images), expected, atol=0.02 * expected.abs().max().item(), rtol=0.02)
    assert facts["accuracy"].keys() == {"16", "64", "96"} and [point["step"] for point in facts["curve"]] == [3]
    assert all(top5 == 100 for at_size in facts["accuracy"].values() for _, top5 in at_size.values())  # of 3 classes


def test_a_run_that_was_stopped_has_the_same_curve(tmp_path):
    recipe = Recipe("mini_vgg", ((16, 8),), batch=4)
    curves = []
    for name, stops in {"whole": [], "stopped": [20]}.items():
        for stop in [*stops, None]:
            val = {"all": photographs()}
            train(recipe, photographs(), tmp_path / name, val=val, save_every=2, stop_after=stop)
        curves.append(load_checkpoint(tmp_path / name / "checkpoint.pt")["curve"])
    assert curves[0] == curves[1] and [point["step"] for point in curves[0]] == [20, 24]


def test_a_run_can_begin_with_the_weights_of_another_and_says_so(uninterrupted, folder, tmp_path, monkeypatch):
    train(RECIPE, photographs(), tmp_path / "first")
    begun = Recipe("mini_vgg", ((16, 1),), before=RECIPE.passes, batch=4, lr=1e-9)
    found = train(begun, photographs(), tmp_path / "second", start=tmp_path / "first" / "checkpoint.pt")
    for (name, value), expected in zip(
        found.named_parameters(), dict(uninterrupted.named_parameters()).values(), strict=True
    ):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=0, msg=name)
    assert classifier._passes_of(tmp_path / "second" / "checkpoint.pt") == (*RECIPE.passes, (16, 1))
    with pytest.raises(ArgumentError, match="no checkpoint"):
        classifier._passes_of("nowhere/checkpoint.pt")


@pytest.mark.parametrize("module", ["classifier", "style_network"])
def test_torchrun_leaves_the_options_of_a_training_to_it(module):
    """torchrun takes any beginning of its own options' names, also behind the name of the program."""
    source = (ROOT / "lecturelib" / "training" / f"{module}.py").read_text(encoding="utf-8")
    options = re.findall(r'add_argument\(\s*"(--[\w-]+)"', source)
    assert len(options) > 4
    parsed = get_args_parser().parse_args(["-m", f"lecturelib.training.{module}", *options])
    assert parsed.training_script_args == options
