import hashlib
import json
import shutil

import pytest
import torch
from safetensors import safe_open

from lecturelib import assets, load_model
from lecturelib.assets import PHOTOGRAPHS, data_file, data_folder, photograph_file
from lecturelib.errors import WeightsError
from lecturelib.networks import EMBEDDED


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of data/ that the package reads instead of its own."""
    for name in ("manifest.json", "mini_vgg.safetensors"):
        shutil.copy(data_folder() / name, tmp_path)
    monkeypatch.setattr(assets, "data_folder", lambda: tmp_path)
    return tmp_path


def test_every_file_of_the_manifest_is_the_one_that_was_released():
    manifest = json.loads((data_folder() / "manifest.json").read_text(encoding="utf-8"))
    assert {f"{name}.safetensors" for name in EMBEDDED} <= manifest.keys()
    for name, digest in manifest.items():
        assert hashlib.sha256(data_file(name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("place", [0, 9, 5_000, -1])
def test_one_flipped_bit_anywhere_in_the_weights_is_found(copied, place):
    load_model("mini_vgg")
    content = bytearray((copied / "mini_vgg.safetensors").read_bytes())
    content[place] ^= 1
    (copied / "mini_vgg.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="data/mini_vgg.safetensors is not the file that was released"):
        load_model("mini_vgg")


def test_missing_truncated_and_unknown_files_are_refused(copied):
    weights = copied / "mini_vgg.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(WeightsError):
        data_file("mini_vgg.safetensors")
    weights.unlink()
    with pytest.raises(WeightsError, match="no file"):
        data_file("mini_vgg.safetensors")
    (copied / "other.bin").write_bytes(b"not in the manifest")
    with pytest.raises(WeightsError):
        data_file("other.bin")


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_networks_are_stored_in_16_bit_and_used_in_32(name):
    model = load_model(name)
    state = model.network.state_dict()
    with safe_open(data_file(f"{name}.safetensors"), framework="pt") as file:
        assert set(file.keys()) == set(state)
        for key in state:
            assert file.get_tensor(key).dtype == torch.float16 and state[key].dtype == torch.float32
            assert torch.equal(file.get_tensor(key).float(), state[key].cpu())


def test_every_photograph_is_where_its_package_keeps_it():
    assert PHOTOGRAPHS["cat"] == PHOTOGRAPHS["chelsea"]
    for name in PHOTOGRAPHS:
        assert photograph_file(name).stat().st_size > 1000, name
