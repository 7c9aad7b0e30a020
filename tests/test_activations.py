import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lecturelib import load_model
from lecturelib.activations import (
    cut,
    dead_channels,
    find_channel,
    patch_images,
    receptive_field,
    strongest_patches,
)
from lecturelib.errors import ArgumentError, LayerNameError


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride", "first_center"),
    [
        ("alexnet", "conv1", 11, 4, 3.5),
        ("alexnet", "conv5", 163, 16, 15.5),
        ("alexnet", "pool5", 195, 32, 31.5),
        ("squeezenet1_1", "conv1", 3, 2, 1.5),
        ("squeezenet1_1", "fire4", 47, 8, 7.5),
        ("squeezenet1_1", "fire9", 207, 16, 15.5),
        ("mini_vgg", "conv1_1", 3, 1, 0.5),
    ],
)
def test_receptive_fields_of_the_papers(name, layer, size, stride, first_center):
    field = receptive_field(load_model(name, trained=name.startswith("mini")), layer)
    assert (field.size, field.stride, field.first_center) == (size, stride, first_center)


def test_receptive_fields_of_vgg16():
    vgg = load_model("vgg16", trained=False)
    sizes = {"relu2_2": (14, 2), "relu3_3": (40, 4), "relu4_3": (92, 8), "relu5_1": (132, 16), "relu5_3": (196, 16)}
    found = {layer: receptive_field(vgg, layer) for layer in sizes}
    assert {layer: (field.size, field.stride) for layer, field in found.items()} == sizes


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2)), min_size=1, max_size=4))
def test_the_field_is_where_a_network_of_positive_weights_has_gradients(layers):
    modules = [nn.Conv2d(3 if place == 0 else 1, 1, *layer) for place, layer in enumerate(layers)]
    for module in modules:
        nn.init.constant_(module.weight, 0.5)
    model = load_model(nn.Sequential(*modules), classes=["one"])
    field = receptive_field(model, str(len(layers) - 1))
    image = torch.rand(1, 3, 96, 96, dtype=torch.float64, requires_grad=True)
    output = model.activation(image, str(len(layers) - 1))
    y, x = output.shape[2] // 2, output.shape[3] // 2
    (gradient,) = torch.autograd.grad(output[0, 0, y, x], image)
    touched = gradient[0].sum(dim=0).nonzero()
    top, left, bottom, right = field.box(y, x)
    inside = (max(top, 0), max(left, 0), min(bottom, 96), min(right, 96))
    low, high = touched.amin(dim=0), touched.amax(dim=0) + 1
    stride_gaps = any(stride > kernel for kernel, stride, _ in layers)
    if stride_gaps:  # then the outermost pixels may lie in a gap
        assert (low[0] >= inside[0]) and (high[0] <= inside[2])
    else:
        assert (*low.tolist(), *high.tolist()) == inside


def test_the_field_of_a_residual_network_covers_its_longest_way():
    assert receptive_field(load_model("resnet18", trained=False), "layer1").size == 43


def test_layers_that_see_everything_have_no_field():
    with pytest.raises(LayerNameError, match="global pooling"):
        receptive_field(load_model("mini_alexnet"), "fc6")
    with pytest.raises(LayerNameError, match="global pooling"):
        receptive_field(load_model("resnet18", trained=False), "avgpool")


def test_noise_outside_of_the_box_leaves_a_neuron_alone_and_inside_it_does_not():
    model = load_model("mini_vgg")
    generator = torch.Generator().manual_seed(0)
    image, noise = torch.rand(2, 3, 96, 96, generator=generator).split(1)
    top, left, bottom, right = receptive_field(model, "relu3_2").box(11, 12)
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., top:bottom, left:right] = 1
    before, outside, inside = (
        model.activation(each, "conv3_2")[0, :, 11, 12]
        for each in (image, image * mask + noise * (1 - mask), image * (1 - mask) + noise * mask)
    )
    torch.testing.assert_close(outside, before, atol=1e-4, rtol=1e-4)
    assert (inside - before).abs().max() > 1e-2


def test_strongest_patches_equal_brute_force_for_every_batch_size():
    model = load_model("mini_alexnet")
    photos = torch.rand(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = strongest_patches(model, "relu2", photos, k=4, batch=5)
    maps = model.activation(photos, "relu2")
    for channel in (0, 17, 100):
        maxima, places = maps[:, channel].flatten(1).max(dim=1)
        values, images = maxima.sort(descending=True)
        torch.testing.assert_close(found.values[channel], values[:4], atol=1e-4, rtol=1e-4)
        if (values[:5].diff() < -1e-4).all():
            assert found.images[channel].tolist() == images[:4].tolist()
            place = divmod(int(places[images[0]]), maps.shape[3])
            assert tuple(found.positions[channel, 0].tolist()) == place


def test_strongest_patches_refuse_what_cannot_be():
    model = load_model("mini_alexnet")
    with pytest.raises(ArgumentError, match=r"Choose 1 \.\.\. 2"):
        strongest_patches(model, "relu2", torch.rand(2, 3, 64, 64), k=3)
    with pytest.raises(LayerNameError, match="no map"):
        strongest_patches(model, "fc6", torch.rand(2, 3, 64, 64), k=1)


def test_cut_takes_the_box_and_fills_what_lies_over_the_border():
    photo = torch.arange(48.0).view(1, 3, 4, 4) / 48
    assert torch.equal(cut(photo, (1, 2, 3, 4)), photo[:, :, 1:3, 2:4])
    over = cut(photo, (-1, -2, 2, 2))
    assert over.shape == (1, 3, 3, 4) and (over[:, :, 0] == 0.5).all() and (over[:, :, :, :2] == 0.5).all()
    assert torch.equal(over[:, :, 1:, 2:], photo[:, :, :2, :2])
    assert cut(photo, (1, 1, 3, 3), size=8).shape == (1, 3, 8, 8)


def test_patch_images_show_what_the_channel_saw():
    model = load_model("mini_alexnet")
    photos = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found, field = strongest_patches(model, "conv1", photos, k=2), receptive_field(model, "conv1")
    number, (y, x) = int(found.images[3, 0]), found.positions[3, 0].tolist()
    shown = patch_images(photos, found, field, 3, size=field.size)
    torch.testing.assert_close(shown[:1], cut(photos[number : number + 1], field.box(y, x)))


def test_find_channel_finds_the_planted_one():
    activation = torch.rand(1, 6, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.1
    activation[0, 4, 2:6, 1:4] += 1
    channel, correlation = find_channel(activation, (16, 8, 48, 32), height=64, width=64)
    assert channel == 4 and correlation[4] > 0.95 and correlation.abs().max() <= 1 + 1e-6
    assert find_channel(torch.ones(1, 2, 8, 8), (0, 0, 8, 8), height=64, width=64)[1].tolist() == [0, 0]


def test_dead_channels_are_exactly_those_with_a_bias_of_minus_a_million():
    convolution = nn.Conv2d(3, 5, 3)
    nn.init.constant_(convolution.bias, 10.0)
    with torch.no_grad():
        convolution.bias[[1, 3]] = -1e6
    activation = torch.relu(convolution(torch.rand(4, 3, 8, 8)))
    assert dead_channels(activation).tolist() == [1, 3]
