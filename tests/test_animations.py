"""Animations as files: what was written is read again by another way."""

import gc
import importlib.util

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from lecturelib import animations
from lecturelib.animations import save_animation, show_animation
from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.images import to_array


def ramp(frames: int = 5) -> torch.Tensor:
    """Flat colors that change from frame to frame: no file format loses much of them."""
    levels = torch.linspace(0, 1, frames).view(-1, 1, 1, 1)
    return torch.cat([levels, 1 - levels, torch.full_like(levels, 0.5)], dim=1).expand(-1, -1, 32, 48)


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_frames_come_back_from_the_file(tmp_path, ending):
    frames = ramp()
    path = save_animation(frames, tmp_path / f"flight.{ending}", fps=10)
    with Image.open(path) as file:
        assert file.info["loop"] == 0
        found = np.stack([np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(file)])
        assert file.info["duration"] == 100
    assert found.shape == (5, 32, 48, 3)
    assert np.abs(found.astype(int) - to_array(frames)).mean() < 4


def test_a_file_that_exists_is_never_touched(tmp_path):
    first = save_animation(ramp(), tmp_path / "flight.gif")
    before = first.read_bytes()
    second = save_animation(1 - ramp(), tmp_path / "flight.gif")
    assert second.name == "flight-2.gif" and second.read_bytes() != before
    assert first.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["flight-2.gif", "flight.gif"]


def test_half_a_file_does_not_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(animations, "_encoded", lambda *arguments: object())
    with pytest.raises(TypeError):
        save_animation(ramp(), tmp_path / "flight.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_film_without_its_package_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ArgumentError, match="pip install imageio-ffmpeg"):
        save_animation(ramp(), tmp_path / "flight.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # imageio-ffmpeg, where it reads quickly
def test_a_film_has_all_frames(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = save_animation(ramp(12)[..., :31, :47], tmp_path / "flight.mp4")
    found = imageio.imread(path, plugin="FFMPEG")
    assert found.shape == (12, 30, 46, 3)
    gc.collect()  # here, or another test is blamed


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("flight.avi", {}, ".gif"),
        ("nowhere/flight.gif", {}, "folder"),
        ("flight.gif", {"fps": 0}, "fps"),
        ("flight.gif", {"fps": float("nan")}, "fps"),
        ("flight.gif", {"fps": 1000}, "fps"),
    ],
)
def test_wrong_arguments_are_named_and_write_nothing(tmp_path, name, options, words):
    with pytest.raises(ArgumentError, match=words):
        save_animation(ramp(), tmp_path / name, **options)
    with pytest.raises(ImageInputError):
        save_animation(ramp()[0], tmp_path / "flight.gif")
    assert list(tmp_path.iterdir()) == []


def test_an_animation_in_a_notebook_is_described(monkeypatch):
    shown = []
    monkeypatch.setattr(animations, "display", lambda data, raw: shown.append(data))
    show_animation(ramp(), alt="from green to 'red' & \"blue\"")
    (data,) = shown
    assert 'alt="from green to &#x27;red&#x27; &amp; &quot;blue&quot;"' in data["text/html"]
    assert "data:image/webp;base64," in data["text/html"] and data["text/plain"].startswith("from green")
