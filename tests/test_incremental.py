"""Recomputing only what a window can reach gives the same numbers as the whole network."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lecturelib import incremental
from lecturelib.incremental import chain_to
from lecturelib.models import Model, load_model
from lecturelib.occlusion import occlusion_map
from lecturelib.scores import channel_score, class_score, log_probability, neuron_score, probability


def agree(score, image, **options) -> bool:
    """Whether the short way equals the plain one to 1e-4 of the map's spread; the plain one does not know the model."""
    assert chain_to(score.model, score.layer) is not None
    short = occlusion_map(image, score, drop=False, **options)
    plain = occlusion_map(image, lambda images: score(images), drop=False, **options)
    rounding = 1e-6 * plain.abs().amax()
    return short.shape == plain.shape and bool(
        (short - plain).abs().amax() <= 1e-4 * (plain.amax() - plain.amin()) + rounding
    )


@pytest.fixture(scope="module")
def mini_vgg() -> Model:
    return load_model("mini_vgg", trained=False, device="cpu")


@pytest.fixture(scope="module")
def mini_alexnet() -> Model:
    return load_model("mini_alexnet", trained=False, device="cpu")


@pytest.mark.parametrize("make", [class_score, log_probability, probability])
def test_the_embedded_networks_give_the_same_map_both_ways(mini_vgg, mini_alexnet, make):
    image = torch.rand(1, 3, 61, 72)
    for model in (mini_vgg, mini_alexnet):
        assert agree(make(model, 3), image, window=17, stride=11)


def test_alexnet_gives_the_same_map_both_ways():
    model = load_model("alexnet", trained=False, device="cpu")
    assert agree(class_score(model, 7), torch.rand(1, 3, 131, 150), window=40, stride=37)


def test_layers_in_the_middle_give_the_same_map_both_ways(mini_vgg, mini_alexnet):
    image = torch.rand(1, 3, 48, 57)
    assert agree(channel_score(mini_vgg, "relu3_1", 5), image, window=9, stride=13)
    assert agree(neuron_score(mini_vgg, "conv2_2", 5, 3, 4), image, window=9, stride=5)
    assert agree(channel_score(mini_alexnet, "fc6", 5), image, window=9, stride=13)
    assert agree(neuron_score(mini_alexnet, "pool2", 5), image, window=9, stride=13)


LAYERS = [
    lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1),
    lambda inputs, outputs: nn.Conv2d(inputs, outputs, (3, 2), stride=(1, 2)),
    lambda inputs, outputs: nn.Conv2d(inputs, outputs, 1, stride=3),
    lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=2, dilation=2, bias=False),
    lambda inputs, outputs: nn.MaxPool2d(3, stride=2, padding=1),
    lambda inputs, outputs: nn.MaxPool2d(2, ceil_mode=True),
    lambda inputs, outputs: nn.AvgPool2d((2, 1)),
    lambda inputs, outputs: nn.AvgPool2d(3, stride=2, padding=1),
    lambda inputs, outputs: nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
    lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding="same"),
    lambda inputs, outputs: nn.BatchNorm2d(inputs),
    lambda inputs, outputs: nn.Sigmoid(),
]


def random_chain(kinds: list[int], head: nn.Module) -> nn.Sequential:
    layers, channels = [nn.Conv2d(3, 4, 3, stride=2, padding=2), nn.ReLU()], 4
    for kind in kinds:
        layer = LAYERS[kind](channels, 5)
        layers.append(layer)
        channels = getattr(layer, "out_channels", channels)
    return nn.Sequential(*layers, nn.ReLU(), head, nn.Flatten(), nn.LazyLinear(3))


@settings(max_examples=60)
@given(
    kinds=st.lists(st.integers(0, len(LAYERS) - 1), max_size=3),
    height=st.integers(40, 53),
    width=st.integers(40, 53),
    window=st.integers(1, 40),
    stride=st.integers(4, 19),
    batch=st.integers(1, 4),
    pooled=st.booleans(),
)
def test_any_chain_window_and_size_gives_the_same_map_both_ways(kinds, height, width, window, stride, batch, pooled):
    network = random_chain(kinds, nn.AdaptiveAvgPool2d(2) if pooled else nn.Identity()).double().eval()
    image = torch.rand(1, 3, height, width, dtype=torch.float64)
    network(image)
    score = class_score(load_model(network), 0)
    assert chain_to(score.model, None) is not None
    short = occlusion_map(image, score, window=window, stride=stride, batch=batch)
    plain = occlusion_map(image, lambda images: score(images), window=window, stride=stride)
    torch.testing.assert_close(short, plain, rtol=0, atol=1e-12)


def test_a_network_written_with_functions_is_a_chain_too():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.dense = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

        def forward(self, images):
            values = F.relu(self.second(F.relu(self.first(images), inplace=True)))
            return self.dense(torch.flatten(F.adaptive_avg_pool2d(values, 1).relu(), 1))

    assert agree(class_score(load_model(Net()), 1), torch.rand(1, 3, 19, 23), window=5, stride=3)


def test_each_step_computes_less_than_the_whole_layer(mini_vgg, monkeypatch):
    sizes = []
    whole = incremental._recomputed

    def counted(local, inputs, blocks, size):
        changed = whole(local, inputs, blocks, size)
        sizes.append((changed.values.shape[2] * changed.values.shape[3], size[0] * size[1]))
        return changed

    monkeypatch.setattr(incremental, "_recomputed", counted)
    occlusion_map(torch.rand(1, 3, 96, 96), class_score(mini_vgg, 0), window=16, stride=40, batch=1)
    assert sum(part for part, _ in sizes) < 0.2 * sum(all_ for _, all_ in sizes)


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.same, self.dense = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, images):
        values = self.conv(images)
        return self.dense((values + self.same(values)).mean(dim=(2, 3)))


class Deciding(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        values = self.conv(images)
        return values.amax(dim=(2, 3)) if values.sum() > 0 else values.mean(dim=(2, 3))


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        return self.conv(input=images).mean(dim=(2, 3))


@pytest.mark.parametrize(
    "network", [Branching(), Deciding(), Keywords(), nn.Sequential(nn.Flatten(), nn.Linear(3 * 15 * 15, 2))]
)
def test_other_networks_take_the_plain_way_and_get_the_same_map(network):
    model = load_model(network, classes=["a", "b"])
    assert chain_to(model, None) is None
    image = torch.rand(2, 3, 15, 15)
    score = class_score(model, 0)
    both = occlusion_map(image, score, window=4, stride=3)
    one = occlusion_map(image[:1], lambda images: score(images), window=4, stride=3, batch=1)
    if not isinstance(network, Deciding):  # its answer hangs on the other pictures of the batch
        torch.testing.assert_close(both[:1], one)


def test_the_layers_before_a_branch_are_a_chain():
    model = load_model(Branching())
    assert chain_to(model, "conv") is not None
    assert agree(channel_score(model, "conv", 2), torch.rand(1, 3, 15, 15), window=4, stride=3)


def test_a_layer_that_is_a_group_takes_the_plain_way():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()), nn.Flatten(), nn.Linear(2 * 9, 2))
    assert chain_to(load_model(network), "0") is None
