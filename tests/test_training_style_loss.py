"""The loss of a painter: its three parts by hand, in 32 bits and in 16."""

import dataclasses

import pytest
import torch

from lecturelib import load_image, load_model
from lecturelib.inversion import relative_distance
from lecturelib.regularizers import total_variation
from lecturelib.texture import gram
from lecturelib.training import steps
from lecturelib.training.style_loss import Recipe, StyleLoss

LAYERS = ("relu1_1", "relu2_1")
RECIPE = Recipe(("mosaic", "swirl"), content_layer="relu2_1", style_layers=LAYERS, style_weight=4.0)
STYLES = [load_image(name, size=48) for name in RECIPE.styles]


@pytest.mark.parametrize(("sixteen_bits", "rtol"), [(False, 1e-5), (True, 0.02)])
def test_the_loss_is_content_and_style_and_noise(monkeypatch, sixteen_bits, rtol):
    monkeypatch.setattr(steps, "bfloat16_is_fast", lambda device: sixteen_bits)
    model = load_model("mini_vgg", device="cpu")
    loss = StyleLoss(model, RECIPE, STYLES)
    painted, photograph = load_image("coffee", size=32), load_image("cat", size=32)
    style = [
        relative_distance(gram(model.activation(painted, layer)), gram(model.activation(STYLES[1], layer)))
        for layer in LAYERS
    ]
    scale = torch.stack([model.activation(picture, "relu2_1").square().mean() for picture in STYLES]).mean()
    gap = model.activation(painted, "relu2_1") - model.activation(photograph, "relu2_1")
    content = gap.square().mean() / scale
    expected = content + RECIPE.style_weight * sum(style) / 2 + RECIPE.tv_weight * total_variation(painted) / 32**2
    found = loss(painted, photograph, torch.tensor([1]))
    torch.testing.assert_close(found, expected.reshape(1), rtol=rtol, atol=0)
    assert torch.allclose(found, expected, rtol=1e-5) is not sixteen_bits


def test_a_style_picture_has_no_style_error_of_its_own():
    recipe = dataclasses.replace(RECIPE, tv_weight=0.0)
    loss = StyleLoss(load_model("mini_vgg", device="cpu"), recipe, STYLES)
    own, other = (loss(STYLES[0], STYLES[0], torch.tensor([number])).item() for number in (0, 1))
    assert own < 1e-8 < 0.1 < other
