"""The generator's training: stopped runs end alike, the losses are what they say, the released file is the network."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.distributed.run import get_args_parser

from lecturelib import assets, load_model
from lecturelib.errors import ArgumentError, CheckpointError
from lecturelib.generators import fc6_generator, load_generator
from lecturelib.training import generator as training
from lecturelib.training.checkpoints import load_checkpoint
from lecturelib.training.generator import (
    Recipe,
    code_length,
    code_statistics,
    discriminator,
    inversion_losses,
    measured,
    train,
)
from lecturelib.training.photographs import Photographs
from lecturelib.training.steps import draw

ROOT = Path(__file__).parents[1]
RECIPE = Recipe(
    pixels=16, passes=2, batch=4, adversarial=0.05
)  # 12 photographs: 6 steps, the last 3 with discriminator


@pytest.fixture(scope="module")
def model():
    return load_model("mini_vgg", device="cpu")


def photographs(count: int = 12, size: int = 16) -> Photographs:
    images = torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0))
    return Photographs(images.byte(), torch.arange(count) % 3, ["a", "b", "c"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, model):
    run = tmp_path_factory.mktemp("run")
    return train(RECIPE, photographs(), run, model=model), load_checkpoint(run / "checkpoint.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs") / "train"
    for name in ("koala", "zebra"):
        (root / name).mkdir(parents=True)
        for number in range(4):
            pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def assert_same(found: dict, expected: dict):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(found[key], value), key
        elif isinstance(value, dict):
            assert_same(found[key], value)
        elif isinstance(value, list):
            assert_same(dict(enumerate(found[key])), dict(enumerate(value)))
        else:
            assert found[key] == value, key


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_a_run_that_was_stopped_ends_with_the_same_numbers_in_every_bit(tmp_path, model, uninterrupted, steps):
    assert train(RECIPE, photographs(), tmp_path, model=model, save_every=1, stop_after=steps) is None
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == steps
    train(RECIPE, photographs(), tmp_path, model=model)
    found = load_checkpoint(tmp_path / "checkpoint.pt")
    assert_same(found, uninterrupted[1])  # generator, discriminator, both optimizers, the curve
    assert found["step"] == 6 and list(found["curve"][-1])[-2:] == ["adversarial", "critic"]


def test_an_interrupt_waits_for_the_end_of_the_step_and_saves_it(tmp_path, model, uninterrupted, monkeypatch):
    step, calls = training._step, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return step(*args)

    monkeypatch.setattr(training, "_step", interrupted)
    assert train(RECIPE, photographs(), tmp_path, model=model) is None
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2
    train(RECIPE, photographs(), tmp_path, model=model)
    assert_same(load_checkpoint(tmp_path / "checkpoint.pt"), uninterrupted[1])


KILLED = """
import os, sys, time
import torch
from lecturelib.training.generator import Recipe, train
from lecturelib.training.photographs import Photographs
from lecturelib.training.steps import draw
images, labels, names = torch.load(sys.argv[1], weights_only=True)
saves, fsync = [], os.fsync
def slow(file):
    saves.append(file)
    if len(saves) == 3:
        print("saving", flush=True)
        time.sleep(600)
    fsync(file)
os.fsync = slow
torch.set_num_threads(1)
recipe = Recipe(pixels=16, passes=2, batch=4, adversarial=0.05)
train(recipe, Photographs(images, labels, names), sys.argv[2], save_every=1)
"""


def test_a_process_killed_in_the_middle_of_saving_can_be_resumed(tmp_path, model, uninterrupted):
    pack, run = photographs(), tmp_path / "run"
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    torch.save((pack.images, pack.labels, pack.names), tmp_path / "photographs")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, tmp_path / "killed.py", tmp_path / "photographs", run]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout.readline() == b"saving\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert load_checkpoint(run / "checkpoint.pt")["step"] == 2
    train(RECIPE, photographs(), run, model=model)
    assert_same(load_checkpoint(run / "checkpoint.pt"), uninterrupted[1])


def test_training_changes_the_generator_and_not_the_network(tmp_path, model, uninterrupted):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    trained = train(RECIPE, photographs(), tmp_path, model=model, stop_after=None)
    assert_same(model.network.state_dict(), before)
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    assert_same(trained.state_dict(), uninterrupted[0].state_dict())


def test_a_few_steps_on_one_picture_make_it_likelier(tmp_path, model):
    one = Photographs(photographs(1).images.expand(4, -1, -1, -1).clone(), torch.zeros(4).long(), ["a"])
    recipe = Recipe(pixels=16, passes=60, batch=4, image=10.0, lr=3e-3)
    started = training._State(recipe, 512, torch.device("cpu")).generator.eval()
    trained = train(recipe, one, tmp_path, model=model)
    assert measured(model, trained, one)["image"] < 0.85 * measured(model, started, one)["image"]


def test_an_earlier_run_can_be_the_start(tmp_path, model):
    train(RECIPE, photographs(), tmp_path / "first", model=model, save_every=1, stop_after=2)
    start = tmp_path / "first" / "checkpoint.pt"
    train(RECIPE, photographs(), tmp_path / "second", model=model, start=start, save_every=1, stop_after=1)
    other = load_checkpoint(tmp_path / "second" / "checkpoint.pt")
    assert other["step"] == 1
    train(RECIPE, photographs(), tmp_path / "third", model=model, save_every=1, stop_after=1)
    fresh = load_checkpoint(tmp_path / "third" / "checkpoint.pt")
    assert not torch.equal(other["generator"]["fc.weight"], fresh["generator"]["fc.weight"])


def test_other_settings_are_not_continued(tmp_path, model):
    train(RECIPE, photographs(), tmp_path, model=model, save_every=1, stop_after=1)
    with pytest.raises(CheckpointError, match="feature: 1.0, now 2.0"):
        train(Recipe(pixels=16, passes=2, batch=4, adversarial=0.05, feature=2.0), photographs(), tmp_path, model=model)


def test_a_batch_that_does_not_divide_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ArgumentError, match="divide"):
        train(RECIPE, photographs(), tmp_path)


def test_the_losses_are_zero_at_the_photograph_and_one_for_features_of_nothing(model):
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    layers = ["relu2_2", "relu3_2", model.code_layer]
    wanted = model.activations(images, layers)
    same = inversion_losses(model, images, images, wanted)
    assert all(value == 0 for value in same.values()) and list(same) == ["image", "feature", "code"]
    far = inversion_losses(model, images, (images + 0.25), {layer: 2 * value for layer, value in wanted.items()})
    assert far["image"].item() == pytest.approx(0.25, abs=1e-6)
    assert far["feature"].item() == pytest.approx(2 * 0.25, rel=1e-5)  # ||a - 2a||^2 / ||2a||^2, two layers
    assert far["code"].item() == pytest.approx(0.25, rel=1e-5)


def test_statistics_of_the_codes_are_those_of_all_photographs(model):
    pack = photographs(70, size=32)
    sigma, mean = code_statistics(model, pack)
    codes = model.activation(pack.images.float() / 255, model.code_layer)
    torch.testing.assert_close(mean, codes.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sigma, codes.std(dim=0, correction=0), rtol=1e-3, atol=1e-4)
    assert code_length(model) == len(sigma) == 512


def test_the_discriminator_judges_patches():
    assert discriminator()(torch.rand(2, 3, 64, 64)).shape == (2, 1, 8, 8)


def test_mirrored_photographs_are_photographs_or_their_mirror_images():
    pack, mirrored = photographs(40), 0
    for step in range(5):
        images = training._mirrored(pack, Recipe(batch=8), step)
        indices, _ = draw(step, 40, batch=8, seed=0)
        originals = pack.images[indices].float() / 255
        turned = (images == originals.flip(3)).flatten(1).all(dim=1)
        assert ((images == originals).flatten(1).all(dim=1) | turned).all()
        mirrored += int(turned.sum())
    assert 10 < mirrored < 30


def test_the_command_trains_and_releases_a_generator_that_loads(folder, tmp_path, monkeypatch, model):
    run, data = tmp_path / "run", tmp_path / "data"
    command = ["generator", "--train", str(folder), "--val", str(folder), "--folder", str(run), "--release", str(data)]
    monkeypatch.setattr(sys, "argv", [*command, "--pixels", "16", "--passes", "1", "--batch", "4", "--alone", "1"])
    monkeypatch.setattr(training, "load_model", lambda name, device=None: model)
    training.main()
    facts = json.loads((data / "mini_vgg_fc6.json").read_text(encoding="utf-8"))
    assert facts["photographs"] == 8 and facts["recipe"]["pixels"] == 16 and facts["curve"][-1]["step"] == 2
    assert facts["measured"].keys() == {folder.parent.name}
    (data / "manifest.json").write_text(json.dumps({"mini_vgg_fc6.safetensors": facts["sha256"]}), encoding="utf-8")
    monkeypatch.setattr(assets, "data_folder", lambda: data)
    shipped = load_generator(device="cpu")
    assert shipped.layer == model.code_layer and shipped.sigma.shape == shipped.mean.shape == (512,)
    network = fc6_generator(512, pixels=16, batch_norm=True)
    network.load_state_dict(load_checkpoint(run / "checkpoint.pt")["generator"])
    codes = torch.rand(3, 512, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network.eval()(codes)
    torch.testing.assert_close(shipped(codes), expected, atol=5e-3, rtol=0)


def test_option_names_are_none_that_torchrun_swallows(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["generator", "--help"])
    with pytest.raises(SystemExit):
        training.main()
    options = capsys.readouterr().out.split("options:")[1]
    own = {word.split("=")[0].strip(",]") for word in options.split() if word.startswith("--")} - {"--help"}
    theirs = {option for action in get_args_parser()._actions for option in action.option_strings}
    assert {"--folder", "--passes"} <= own
    assert not {name for name in own for option in theirs if option.startswith(name)}
