import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from lecturelib import load_image, load_model
from lecturelib.errors import ArgumentError, CheckpointError, ImageInputError
from lecturelib.faststyle import StyleNetwork, load_style_net
from lecturelib.training import steps, style_network
from lecturelib.training.checkpoints import load_checkpoint
from lecturelib.training.photographs import PhotographFolder
from lecturelib.training.style_loss import Recipe, StyleLoss
from lecturelib.training.style_network import train

ROOT = Path(__file__).parents[1]
LAYERS = ("relu1_1", "relu2_1")
SMALL = {"pixels": 32, "style_pixels": 48, "batch": 2, "width": 4, "blocks": 1, "style_layers": LAYERS}
SMALL |= {"content_layer": "relu2_1", "style_weight": 4.0}
RECIPE = Recipe(("mosaic", "swirl"), steps=6, **SMALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine photographs in two folders."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "more").mkdir()
    for number in range(9):
        picture = load_image(["cat", "coffee", "rocket"][number % 3], size=40 + number)
        pixels = (picture[0].permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(pixels).save(root / ("more" if number % 2 else "") / f"{number}.png")
    return root


@pytest.fixture(autouse=True)
def few_held_out(monkeypatch):
    monkeypatch.setattr(style_network, "HELD_OUT", ("cat",))


def pictures(recipe: Recipe = RECIPE) -> list[torch.Tensor]:
    return [load_image(name, size=recipe.style_pixels) for name in recipe.styles]


@pytest.fixture(scope="module")
def uninterrupted(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    train(RECIPE, PhotographFolder(folder), pictures(), run, save_every=3, device="cpu")
    return load_checkpoint(run / "checkpoint.pt")


def assert_same(state, expected):
    for name, value in expected["network"].items():
        assert torch.equal(state["network"][name], value), name


def test_sixteen_bits_train_as_well_as_thirty_two(folder, tmp_path, monkeypatch):
    """The same steps in both: convolutions give 16-bit numbers in one, the losses on the way agree."""
    recipe, losses = Recipe(("mosaic",), steps=20, **(SMALL | {"lr": 5e-3})), {}
    for sixteen_bits in (False, True):
        monkeypatch.setattr(steps, "bfloat16_is_fast", lambda device, wanted=sixteen_bits: wanted)
        run = style_network._Run(recipe, PhotographFolder(folder), pictures(recipe), None, torch.device("cpu"))
        dtypes = []
        run.network.paint.register_forward_hook(lambda module, inputs, output, seen=dtypes: seen.append(output.dtype))
        for _ in range(20):
            run.take(run.network, 0, 1)
        assert set(dtypes) == {torch.bfloat16 if sixteen_bits else torch.float32}
        assert all(parameter.dtype == torch.float32 for parameter in run.network.parameters())
        run.judge(tmp_path)
        losses[sixteen_bits] = run.curve[-1]["held_out"]
    assert losses[True] == pytest.approx(losses[False], rel=0.1)


def test_fifty_steps_on_one_photograph_halve_the_loss(folder, tmp_path):
    recipe = Recipe(("mosaic",), steps=50, **(SMALL | {"batch": 1, "lr": 5e-3, "style_weight": 20.0}))
    train(recipe, PhotographFolder(folder), pictures(recipe), tmp_path, save_every=1, device="cpu")
    held_out = [
        point["held_out"] for point in load_checkpoint(tmp_path / "checkpoint.pt")["curve"] if "held_out" in point
    ]
    assert min(held_out) < 0.5 * held_out[0]


@pytest.mark.parametrize("stops", [[3], [1, 4], [2, 3, 5]])
def test_a_resumed_training_ends_with_the_same_weights(folder, uninterrupted, tmp_path, stops):
    for stop in [*stops, None]:
        train(RECIPE, PhotographFolder(folder), pictures(), tmp_path, save_every=1, stop_after=stop, device="cpu")
    state = load_checkpoint(tmp_path / "checkpoint.pt")
    assert state["step"] == 6
    assert_same(state, uninterrupted)


def test_an_interrupt_keeps_the_best_network(folder, tmp_path):
    def interrupt(step, pictures):
        raise KeyboardInterrupt

    found = train(
        RECIPE, PhotographFolder(folder), pictures(), tmp_path, save_every=2, on_preview=interrupt, device="cpu"
    )
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 2
    assert found.names == ["mosaic", "swirl"] and (tmp_path / "preview.png").stat().st_size > 500
    painted = load_style_net(tmp_path / "best.safetensors", device="cpu")(load_image("cat", size=32), "swirl")
    torch.testing.assert_close(found(load_image("cat", size=32), "swirl"), painted)


def test_an_interrupt_within_a_step_keeps_all_steps_and_what_it_paints(folder, uninterrupted, tmp_path, monkeypatch):
    take = style_network._Run.take

    def interrupted(run, *args):
        if run.step == 2:
            signal.raise_signal(signal.SIGINT)
        take(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(style_network._Run, "take", interrupted)
        train(RECIPE, PhotographFolder(folder), pictures(), tmp_path, device="cpu")
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 3
    assert (tmp_path / "best.safetensors").exists() and (tmp_path / "preview.png").exists()
    train(RECIPE, PhotographFolder(folder), pictures(), tmp_path, save_every=1, device="cpu")
    assert_same(load_checkpoint(tmp_path / "checkpoint.pt"), uninterrupted)


CLASS = """
import sys
from lecturelib import load_image
from lecturelib.training import steps, style_network
from lecturelib.training.photographs import PhotographFolder
from lecturelib.training.style_network import Recipe, train
style_network.HELD_OUT = ("cat",)
if "float32" in sys.argv:
    steps.bfloat16_is_fast = lambda device: False
recipe = Recipe(("mosaic", "swirl"), steps=int(sys.argv[3]), **eval(sys.argv[4]))
pictures = [load_image(name, size=recipe.style_pixels) for name in recipe.styles]
train(recipe, PhotographFolder(sys.argv[1]), pictures, sys.argv[2], save_every=1, device="cpu")
"""


def start(folder, run, steps: int, *launcher: str, dtype: str = "any") -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = run.parent / "program.py"
    program.write_text(CLASS, encoding="utf-8")
    command = [sys.executable, *launcher, str(program), str(folder), str(run), str(steps), repr(SMALL), dtype]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def test_two_processes_give_what_one_gives(folder, tmp_path, monkeypatch):
    """In 32 bits: a sum of two halves, each rounded to 16 bits, is not the rounded sum."""
    monkeypatch.setattr(steps, "bfloat16_is_fast", lambda device: False)
    launcher = "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"
    process = start(folder, tmp_path / "two", 6, *launcher, dtype="float32")
    train(RECIPE, PhotographFolder(folder), pictures(), tmp_path / "one", save_every=6, device="cpu")
    assert process.wait() == 0, process.stderr.read()
    process.stderr.close()
    # Compared by their pictures: a bias in front of a norm has no effect, its gradient is rounding noise, which Adam
    # makes as large as any other.
    paintings = []
    for number in ("one", "two"):
        network = StyleNetwork(styles=2, width=4, blocks=1)
        network.load_state_dict(load_checkpoint(tmp_path / number / "checkpoint.pt")["network"])
        paintings.append(network(load_image("cat", size=32), 1).detach())
    torch.testing.assert_close(*paintings, atol=1 / 255, rtol=0)  # a step of 8 bits


def test_a_training_begins_with_the_weights_of_an_earlier_one(folder, tmp_path):
    torch.manual_seed(5)
    network = StyleNetwork(styles=2, width=4, blocks=1, names=["mosaic", "swirl"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = style_network._Run(RECIPE, PhotographFolder(folder), pictures(), network, torch.device("cpu"))
    assert_same({"network": run.network.state_dict()}, {"network": before})
    run.take(run.network, 0, 1)
    state = run.network.state_dict()
    assert all(not torch.equal(state[name], value) for name, value in before.items() if name.endswith("conv.weight"))
    assert_same({"network": network.state_dict()}, {"network": before})  # the caller's stays as it was
    for wrong in (("swirl", "mosaic"), ("mosaic", "swirl", "waves", "hatching")):
        with pytest.raises(ArgumentError, match="same styles, or of all but the last"):
            style_network._first_network(Recipe(wrong, **SMALL), network)


def test_a_style_is_added_by_its_own_rows_alone(folder, tmp_path):
    torch.manual_seed(0)
    network = StyleNetwork(styles=2, width=4, blocks=1, names=["mosaic", "swirl"])
    recipe = Recipe(("mosaic", "swirl", "waves"), steps=4, **SMALL)
    train(recipe, PhotographFolder(folder), pictures(recipe), tmp_path, start=network, save_every=2, device="cpu")
    state = load_checkpoint(tmp_path / "checkpoint.pt")["network"]
    changed = 0
    for name, value in network.state_dict().items():
        if name.endswith(("norm.weight", "norm.bias")):
            assert torch.equal(state[name][:2], value), name
            changed += int(not torch.equal(state[name][2], value.mean(dim=0)))
        else:
            assert torch.equal(state[name], value), name
    assert changed > 0


def test_broken_photographs_are_left_out_and_listed(folder, tmp_path):
    (tmp_path / "good.png").write_bytes((folder / "0.png").read_bytes())
    (tmp_path / "half.png").write_bytes((folder / "2.png").read_bytes()[:200])
    (tmp_path / "text.jpg").write_text("not a photograph")
    photographs = PhotographFolder(tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        crops = [photographs.crop(index, 16, torch.Generator().manual_seed(0)) for index in range(3)]
    assert len(photographs) == 3 and all(torch.equal(crop, crops[0]) for crop in crops)
    assert sorted(Path(name).name for name in photographs.skipped) == ["half.png", "text.jpg"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # told once
        photographs.crop(1, 16, torch.Generator().manual_seed(0))


def test_a_training_does_not_learn_from_its_own_preview(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "photos")
    for _ in range(2):  # the second call finds the preview of the first, and goes on
        run = tmp_path / "photos" / "runs" / "mine"
        train(RECIPE, PhotographFolder(tmp_path / "photos"), pictures(), run, stop_after=1, save_every=1, device="cpu")
    assert (run / "preview.png").exists() and len(PhotographFolder(tmp_path / "photos")) == 10
    assert len(PhotographFolder(tmp_path / "photos").outside(run)) == 9
    with pytest.raises(ArgumentError, match="folder of its own"):
        train(RECIPE, PhotographFolder(tmp_path / "photos"), pictures(), tmp_path / "photos", device="cpu")


def test_crops_are_squares_of_the_photograph_and_follow_the_generator(folder):
    photographs = PhotographFolder(folder)
    assert [file.name for file in photographs.files] == sorted(
        (f"{n}.png" for n in range(9)), key=lambda n: (int(n[0]) % 2, n)
    )
    crops = [photographs.crop(0, 24, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert crops[0].shape == (1, 3, 24, 24) and crops[0].min() >= 0 and crops[0].max() <= 1
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2])


def test_wrong_settings_are_told(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no")
    with pytest.raises(ArgumentError, match="no photographs"):
        PhotographFolder(tmp_path / "empty")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ImageInputError, match="No photograph can be read"):
        PhotographFolder(tmp_path / "broken").crop(0, 8, torch.Generator())
    with pytest.raises(ArgumentError, match="Each style has one picture"):
        train(RECIPE, PhotographFolder(folder), pictures()[:1], tmp_path / "run", device="cpu")
    train(RECIPE, PhotographFolder(folder), pictures(), tmp_path / "run", save_every=1, stop_after=1, device="cpu")
    other = Recipe(("mosaic", "swirl"), steps=6, **(SMALL | {"lr": 0.1}))
    with pytest.raises(CheckpointError, match="lr"):
        train(other, PhotographFolder(folder), pictures(), tmp_path / "run", device="cpu")


def test_the_command_trains_and_adds_a_style(folder, tmp_path):
    sizes = ["--pixels", "32", "--style-pixels", "48", "--batch", "2", "--steps", "2"]
    common = ["--photographs", str(folder), *sizes]
    style_network.main(
        [*common, "--width", "4", "--blocks", "1", "--styles", "mosaic", "--folder", str(tmp_path / "one")]
    )
    best = tmp_path / "one" / "best.safetensors"
    second = ["--styles", "waves", "--add", str(best), "--folder", str(tmp_path / "two")]
    style_network.main([*common, *second, "--release", str(tmp_path / "data"), "--name", "both"])
    facts = json.loads((tmp_path / "data" / "both.json").read_text(encoding="utf-8"))
    released = tmp_path / "data" / "both.safetensors"
    assert facts["sha256"] == hashlib.sha256(released.read_bytes()).hexdigest()
    assert facts["recipe"]["styles"] == ["mosaic", "waves"] and facts["recipe"]["steps"] == 2
    assert load_style_net(released, device="cpu").names == ["mosaic", "waves"]
    further = ["--width", "4", "--blocks", "1", "--styles", "mosaic", "waves", "--weights", str(released)]
    style_network.main([*common, *further, "--folder", str(tmp_path / "three")])
    assert (tmp_path / "three" / "preview.png").exists()


def test_a_blank_photograph_does_not_outweigh_the_others():
    loss = StyleLoss(load_model("mini_vgg", device="cpu"), RECIPE, pictures())
    painted = load_image("coffee", size=32)
    blank, usual = (loss(painted, image, torch.tensor([0])).item() for image in (torch.ones(1, 3, 32, 32), painted))
    assert blank < 10 * usual


def test_a_step_that_overflows_changes_nothing(folder, monkeypatch):
    monkeypatch.setattr(StyleLoss, "__call__", lambda self, painted, *others: painted.sum(dim=(1, 2, 3)) * float("inf"))
    run = style_network._Run(RECIPE, PhotographFolder(folder), pictures(), None, torch.device("cpu"))
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    run.take(run.network, 0, 1)
    assert all(torch.equal(value, before[name]) for name, value in run.network.state_dict().items())
