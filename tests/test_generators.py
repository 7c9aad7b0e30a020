"""The generator network, and the released one as far as its file is there."""

import pytest
import torch
from torch import nn

from lecturelib import assets
from lecturelib.ascent import maximize_code
from lecturelib.errors import LectureError, ModelNameError, WeightsError
from lecturelib.generators import SHIPPED, Generator, fc6_generator, load_generator
from lecturelib.models import load_model
from lecturelib.networks import fold_batch_norm
from lecturelib.photos import photo_crops
from lecturelib.scores import class_score


@pytest.fixture(scope="module")
def shipped() -> Generator:
    return load_generator(device="cpu")


@pytest.mark.parametrize("pixels", [16, 32, 64, 128])
def test_codes_become_images(pixels):
    network = fc6_generator(10, pixels=pixels)
    images = network(torch.rand(2, 10))
    assert images.shape == (2, 3, pixels, pixels) and images.min() > 0 and images.max() < 1


def test_folding_the_batch_norms_leaves_the_function():
    torch.manual_seed(0)
    network, codes = fc6_generator(20, pixels=16, batch_norm=True), torch.rand(8, 20)
    for _ in range(3):
        network.train()(codes)
    expected = network.eval()(codes)
    folded = fold_batch_norm(network)
    torch.testing.assert_close(folded(codes), expected, atol=1e-5, rtol=1e-5)
    assert folded.state_dict().keys() == fc6_generator(20, pixels=16).state_dict().keys()


def test_nothing_in_the_network_prefers_a_pixel_of_a_checkerboard():
    torch.manual_seed(0)
    network = fc6_generator(20, pixels=32)
    images = network(torch.rand(200, 20))[..., 8:24, 8:24]  # away from the border
    means = torch.stack([images[..., y::2, x::2].mean() for y in (0, 1) for x in (0, 1)])
    assert means.max() - means.min() < 1e-3


def test_random_codes_have_the_statistics_of_training_and_are_repeatable():
    sigma, mean = torch.tensor([0.1, 1.0, 0.0]), torch.tensor([5.0, 0.0, 2.0])
    generator = Generator(nn.Identity(), sigma=sigma, mean=mean, layer="relu6")
    codes = generator.random_codes(4000, torch.Generator().manual_seed(0))
    assert codes.shape == (4000, 3) and codes.min() >= 0 and codes[:, 2].eq(2).all()
    torch.testing.assert_close(codes[:, 0].mean(), torch.tensor(5.0), atol=0.01, rtol=0)
    torch.testing.assert_close(codes[:, 0].std(), torch.tensor(0.1), atol=0.01, rtol=0)
    assert torch.equal(codes, generator.random_codes(4000, torch.Generator().manual_seed(0)))


def test_a_wrong_name_is_answered_with_the_right_one():
    with pytest.raises(ModelNameError, match="mini_vgg_fc6"):
        load_generator("mini_vgg_fc7")


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    name = f"{SHIPPED[0]}.safetensors"
    (tmp_path / name).write_bytes(b"something else")
    (tmp_path / "manifest.json").write_text(f'{{"{name}": "{"0" * 64}"}}', encoding="utf-8")
    monkeypatch.setattr(assets, "data_folder", lambda: tmp_path)
    with pytest.raises(WeightsError, match="not the file that was released"):
        load_generator()


def test_the_shipped_generator_is_small_frozen_and_for_codes_of_its_network(shipped):
    size = assets.data_file("mini_vgg_fc6.safetensors").stat().st_size
    model = load_model("mini_vgg", device="cpu")
    assert size <= 5e6 and shipped.layer == model.code_layer
    assert not any(parameter.requires_grad for parameter in shipped.network.parameters())
    codes = model.activation(torch.rand(2, 3, 64, 64), shipped.layer)
    assert codes.shape[1:] == shipped.sigma.shape == shipped.mean.shape
    assert shipped(codes).is_contiguous() and shipped.sigma.min() >= 0 and shipped.mean.max() > 0


def test_the_shipped_generator_draws_pictures_that_are_nearer_than_those_of_other_codes(shipped):
    model = load_model("mini_vgg", device="cpu")
    photos = photo_crops(size=64, per_photo=6).images
    with torch.no_grad():
        codes = model.activation(photos, shipped.layer)
        pictures = shipped(codes)
        again = model.activation(pictures, shipped.layer)
    right = (pictures - photos).abs().mean()
    wrong = (pictures - photos.roll(6, dims=0)).abs().mean()
    assert right < 0.9 * wrong
    distance = ((again - codes).square().sum(dim=1) / codes.square().sum(dim=1)).mean()
    swapped = ((again - codes.roll(6, dims=0)).square().sum(dim=1) / codes.square().sum(dim=1)).mean()
    assert distance < 0.8 * swapped


def test_climbing_its_codes_beats_the_best_of_a_hundred_random_ones(shipped):
    model = load_model("mini_vgg", device="cpu")
    score = class_score(model, "pizza")
    found = maximize_code(shipped, score, steps=20, random=torch.Generator().manual_seed(0), progress=False)
    with torch.no_grad():
        random = score(shipped(shipped.random_codes(100, torch.Generator().manual_seed(1))))
    assert score(found) > random.max()


def test_errors_are_of_the_family():
    assert issubclass(ModelNameError, LectureError)
