import numpy as np
import pytest
import torch
from torch import nn

from lecturelib import load_model
from lecturelib.errors import ArgumentError, ClassNameError, ImageInputError, LayerNameError, ScoreError
from lecturelib.scores import (
    channel_score,
    class_score,
    direction_score,
    evaluate,
    firing_score,
    layer_score,
    log_probability,
    neuron_score,
    probability,
)


class Picture(nn.Module):
    """Its layer `map` is the picture itself, and its logits are the sums over the three colors."""

    def __init__(self):
        super().__init__()
        self.map, self.flat = nn.Identity(), nn.Identity()

    def forward(self, images):
        return self.flat(self.map(images).sum(dim=(2, 3)))


@pytest.fixture(scope="module")
def model():
    return load_model(Picture(), classes=["red", "green", "blue"], mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture(scope="module")
def deep():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
    )
    network.append(nn.Linear(16, 5))
    return load_model(network.double())


IMAGE = torch.arange(12.0).view(1, 3, 2, 2)  # the sums of the colors are 6, 22, 38


def test_scores_of_classes_by_hand(model):
    assert class_score(model, "green")(IMAGE).tolist() == [22.0]
    assert class_score(model, [2, "RED"])(torch.cat([IMAGE, IMAGE])).tolist() == [38.0, 6.0]
    small = torch.zeros(1, 3, 1, 1)
    small[0, 2] = 1.0
    e = torch.e
    torch.testing.assert_close(probability(model, "blue")(small), torch.tensor([e / (e + 2)]))
    torch.testing.assert_close(log_probability(model, "red")(small), -torch.tensor([e + 2]).log())


def test_scores_of_layers_by_hand(model):
    assert channel_score(model, "map", 1)(IMAGE).tolist() == [5.5]
    assert channel_score(model, "flat", 1)(IMAGE).tolist() == [22.0]
    assert firing_score(model, "map", 1)(IMAGE).tolist() == [5.5]
    assert firing_score(model, "map", 1)(IMAGE - 5).item() == pytest.approx((-0.1 + 0 + 1 + 2) / 4)
    assert firing_score(model, "flat", 1)(-IMAGE).item() == pytest.approx(-2.2)
    assert neuron_score(model, "map", 2, y=1, x=0)(IMAGE).tolist() == [10.0]
    assert neuron_score(model, "map", 2)(IMAGE).tolist() == [11.0]
    assert neuron_score(model, "map", 2, y=0)(IMAGE).tolist() == [9.0]
    assert neuron_score(model, "flat", 0)(IMAGE).tolist() == [6.0]
    assert layer_score(model, "map")(IMAGE).item() == pytest.approx(sum(i * i for i in range(12)) / 12 / 2)
    assert direction_score(model, "map", torch.tensor([1.0, 0, -2]))(IMAGE).tolist() == [1.5 - 2 * 9.5]


def test_a_direction_in_a_dense_layer_is_an_inner_product(model):
    assert direction_score(model, "flat", torch.tensor([1, 1, 0]))(IMAGE).tolist() == [28.0]


def scores(model):
    return {
        "class": class_score(model, 3),
        "log probability": log_probability(model, 1),
        "probability": probability(model, 0),
        "channel": channel_score(model, "0", 5),
        "firing": firing_score(model, "0", 5),
        "neuron": neuron_score(model, "2", 3, y=1, x=2),
        "layer": layer_score(model, "3"),
        "direction": direction_score(model, "1", torch.linspace(-1, 1, 6)),
    }


@pytest.mark.parametrize(
    "kind", ["class", "log probability", "probability", "channel", "firing", "neuron", "layer", "direction"]
)
def test_the_images_of_a_batch_do_not_influence_each_other(deep, kind):
    score = scores(deep)[kind]
    images = torch.rand(3, 3, 9, 8, dtype=torch.float64, requires_grad=True)
    values = evaluate(score, images)
    torch.testing.assert_close(values, torch.cat([score(images[n : n + 1]) for n in range(3)]))
    (together,) = torch.autograd.grad(values.sum(), images)
    singles = [torch.autograd.grad(score(images[n : n + 1]).sum(), images)[0][n] for n in range(3)]
    torch.testing.assert_close(together, torch.stack(singles))
    assert together.abs().sum() > 0


def test_a_list_asks_something_else_of_each_image(deep):
    images = torch.rand(3, 3, 9, 8, dtype=torch.float64)
    listed, logits = class_score(deep, [4, 0, 2])(images), deep(images)
    assert torch.equal(listed, torch.stack([logits[0, 4], logits[1, 0], logits[2, 2]]))
    channels = channel_score(deep, "2", (3, 1, 1))(images)
    singles = [channel_score(deep, "2", c)(images[n : n + 1]) for n, c in enumerate((3, 1, 1))]
    torch.testing.assert_close(channels, torch.cat(singles))
    neurons = neuron_score(deep, "2", [0, 1, 2], y=0, x=0)(images)
    assert torch.equal(neurons, deep.activation(images, "2")[range(3), range(3), 0, 0])


def test_wrong_questions_are_answered_in_the_family_of_errors(deep):
    images = torch.rand(2, 3, 9, 8)
    for name in ("no such class", -1, 5, True, None, 1.5, ["0", "no such class"]):
        with pytest.raises(ClassNameError):
            class_score(deep, name)
    for channel in (-1, True, 1.5, None, "1"):
        with pytest.raises(ArgumentError):
            channel_score(deep, "0", channel)
    with pytest.raises(ArgumentError, match="0 ... 5"):
        channel_score(deep, "0", 6)(images)
    with pytest.raises(ArgumentError, match="3 names, 2 images"):
        class_score(deep, [0, 1, 2])(images)
    with pytest.raises(ArgumentError, match="y in 0 ... 6 and x in 0 ... 5"):
        neuron_score(deep, "0", 0, y=7, x=0)(images)
    with pytest.raises(LayerNameError, match="Near it"):
        layer_score(deep, "9")(images)
    with pytest.raises(LayerNameError, match="shape \\(6,\\)"):
        direction_score(deep, "1", torch.ones(5))(images)


@pytest.mark.parametrize(
    "score", [None, "class", lambda images: images, lambda images: images.sum(), lambda images: [1.0, 2.0]]
)
def test_a_score_must_give_one_number_per_image(score):
    with pytest.raises(ScoreError):
        evaluate(score, torch.rand(2, 3, 4, 4))


def test_channels_may_be_numbers_of_numpy_and_of_torch():
    model, images = load_model("mini_vgg", device="cpu"), torch.rand(1, 3, 32, 32)
    expected = channel_score(model, "relu1_1", 3)(images)
    for channel in (np.int64(3), torch.tensor(3), [np.int32(3)]):
        torch.testing.assert_close(channel_score(model, "relu1_1", channel)(images), expected)


def test_questions_about_nothing_are_told():
    model = load_model("mini_vgg", device="cpu")
    with pytest.raises(ArgumentError, match="Nothing is asked"):
        class_score(model, [])
    with pytest.raises(ArgumentError, match="no position"):
        neuron_score(model, "relu1_1", 0, y=1.5)(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("make", [class_score, log_probability, probability])
@pytest.mark.parametrize("classes", [2, [0, 4, 1, 1, 3]])
def test_many_images_go_through_the_network_a_few_at_a_time_and_nothing_else_changes(deep, monkeypatch, make, classes):
    images, above = torch.rand(5, 3, 9, 9, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    score, seen = make(deep, classes), []

    def asked() -> list[torch.Tensor]:
        leaf = images.clone().requires_grad_()
        halved = score(leaf / 2)
        with torch.no_grad():
            return [halved.detach(), score(images), *torch.autograd.grad(halved, leaf, above)]

    at_once = asked()
    monkeypatch.setattr("lecturelib.scores.LARGEST_MAP", 2 * 4 * 6 * 81)  # two maps of 6 channels, 9 x 9
    run = deep.reader.logits
    monkeypatch.setattr(deep.reader, "logits", lambda inputs: seen.append(len(inputs)) or run(inputs))
    for few, expected in zip(asked(), at_once, strict=True):
        torch.testing.assert_close(few, expected, rtol=1e-12, atol=1e-14)
    assert seen == [2, 2, 1, 2, 2, 1]


def test_a_list_of_the_wrong_length_is_named_for_many_images_too(deep, monkeypatch):
    monkeypatch.setattr("lecturelib.scores.LARGEST_MAP", 1)
    with pytest.raises(ArgumentError, match="3 names, 4 images"):
        class_score(deep, [0, 1, 2])(torch.rand(4, 3, 9, 9))


@pytest.mark.parametrize("wrong", [torch.rand(3, 9, 9), torch.tensor(1.0), "koala", None])
def test_what_is_no_image_is_named_by_the_model(deep, wrong):
    with pytest.raises(ImageInputError):
        class_score(deep, 0)(wrong)
