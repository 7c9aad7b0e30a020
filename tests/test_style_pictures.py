import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.spatial import cKDTree

from lecturelib import assets
from lecturelib.errors import ArgumentError
from lecturelib.images import load_image
from lecturelib.style_pictures import STYLES, _cells, _noise, draw, main


@pytest.fixture(scope="module")
def small():
    return {name: draw(name, size=96) for name in STYLES}


def test_there_are_six_styles_and_each_has_its_file():
    assert set(STYLES) == {"swirl", "mosaic", "hatching", "waves", "watercolor", "stained_glass"}
    assert {path.stem for path in assets.data_file("styles/swirl.png").parent.glob("*.png")} == set(STYLES)


@pytest.mark.parametrize("name", STYLES)
def test_the_committed_picture_is_what_the_code_draws(name):
    drawn = torch.from_numpy(draw(name)).permute(2, 0, 1).float()
    committed = load_image(name)[0]
    off = (drawn - committed).abs()
    # Another numpy may round a pixel at an edge differently; one level of 85 is 0.012.
    assert (off > 0.02).float().mean() < 1e-3
    assert off.mean() < 1e-3


@pytest.mark.parametrize("name", STYLES)
def test_a_picture_is_finite_in_range_full_of_contrast_and_small_as_a_file(name, small):
    picture = small[name]
    assert picture.shape == (96, 96, 3)
    assert np.isfinite(picture).all()
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert picture.std() > 0.15
    assert assets.data_file(f"styles/{name}.png").stat().st_size < 300_000


@pytest.mark.parametrize("name", STYLES)
def test_the_seed_decides_everything(name):
    first, again, other = (draw(name, size=16, seed=seed) for seed in (0, 0, 1))
    assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.01


@pytest.mark.parametrize("name", STYLES)
def test_a_smaller_drawing_is_the_same_picture(name, small):
    shrunk = load_image(name, size=96)[0].permute(1, 2, 0).numpy()
    coarse = [picture.reshape(12, 8, 12, 8, 3).mean(axis=(1, 3)) for picture in (shrunk, small[name])]
    assert np.corrcoef(coarse[0].ravel(), coarse[1].ravel())[0, 1] > 0.95
    assert_allclose(coarse[0].mean(axis=(0, 1)), coarse[1].mean(axis=(0, 1)), atol=0.03)


def test_styles_differ_in_their_colors(small):
    means = np.array([picture.mean(axis=(0, 1)) for picture in small.values()])
    distance, _ = cKDTree(means).query(means, k=2)
    assert distance[:, 1].min() > 0.05


def test_the_border_between_two_cells_is_their_bisector():
    x, y = np.array([[0.1, 0.4, 0.9]]), np.array([[0.5, 0.5, 0.2]])
    index, edge = _cells(x, y, np.array([[0.0, 0.5], [1.0, 0.5]]))
    assert_array_equal(index, [[0, 0, 1]])
    assert_allclose(edge, [[0.4, 0.1, 0.4]])


def test_noise_has_the_stated_deviation_and_repeats():
    y, x = np.mgrid[:200, :200] / 200
    noise = _noise(x, y, np.random.default_rng(0), 50)
    assert abs(noise.mean()) < 0.1
    assert abs(noise.std() - 1.3) < 0.1
    assert_allclose(_noise(x + 1, y - 2, np.random.default_rng(0), 50), noise, atol=1e-9)


def test_the_command_writes_every_picture(tmp_path, monkeypatch):
    monkeypatch.setattr("lecturelib.style_pictures.draw", lambda name: np.full((16, 16, 3), 0.2))
    main([str(tmp_path / "new" / "styles")])
    written = sorted((tmp_path / "new" / "styles").iterdir())
    assert [path.name for path in written] == sorted(f"{name}.png" for name in STYLES)
    torch.testing.assert_close(load_image(written[0]), torch.full((1, 3, 16, 16), 0.2))


def test_a_wrong_name_or_size_helps():
    with pytest.raises(ArgumentError, match=r"(?s)swirrl.*Try swirl"):
        draw("swirrl")
    with pytest.raises(ArgumentError, match="size=8"):
        draw("swirl", size=8)
