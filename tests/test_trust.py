"""Controls: does a map say anything about the network?"""

import pytest
import torch
from scipy import stats
from torch import nn

from lecturelib.errors import ArgumentError
from lecturelib.maps import rank_agreement
from lecturelib.models import Model, load_model
from lecturelib.saliency import saliency_map
from lecturelib.scores import class_score
from lecturelib.trust import (
    METHODS,
    edge_detector,
    label_swap_similarity,
    last_maps,
    pointing_game,
    random_map,
    randomization_cascade,
    structural_similarity,
    trust_table,
    with_rule,
)

CLASSES = ["cat", "dog", "koala"]
BOX = (4, 4, 12, 12)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
    ]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 6 * 6, 3))
    for value in (network[1].weight.data, network[1].bias.data, network[1].running_mean):
        value.uniform_(0.5, 1.5)
    return load_model(network, classes=CLASSES)


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16)


def edges(model, image, name):
    return edge_detector(image)


def noise(model, image, name):
    return random_map(image)


def gradient(model, image, name):
    return saliency_map(image, class_score(model, name))


@pytest.mark.parametrize("similarity", [rank_agreement, structural_similarity])
def test_an_edge_detector_scores_one_throughout_the_cascade(model, images, similarity):
    found = randomization_cascade(model, images, "cat", edges, similarity=similarity)
    assert list(found.values()) == pytest.approx([1, 1, 1, 1])


@pytest.mark.parametrize("similarity", [rank_agreement, structural_similarity])
def test_a_random_map_scores_one_and_then_nothing(model, images, similarity):
    first, *others = randomization_cascade(model, images, "cat", noise, similarity=similarity).values()
    assert first == pytest.approx(1)
    assert max(map(abs, others)) < 0.2


def test_the_cascade_goes_from_the_last_layer_to_the_first(model, images):
    assert list(randomization_cascade(model, images, "cat", gradient)) == ["trained", "7", "4", "0"]
    assert list(randomization_cascade(model, images, "cat", gradient, stages=2)) == ["trained", "7", "0"]
    assert list(randomization_cascade(model, images, "cat", gradient, stages=1)) == ["trained", "7"]


def test_the_cascade_randomizes_all_layers_from_the_last_to_the_named_one(model, images):
    changed = []

    def method(private, image, name):
        pairs = zip(private.network.parameters(), model.network.parameters(), strict=True)
        changed.append([not torch.equal(*pair) for pair in pairs])
        return edge_detector(image)

    randomization_cascade(model, images, "cat", method)
    assert [sum(stage) for stage in changed] == [0, 2, 4, 8]
    assert changed[2] == [False] * 4 + [True] * 4


def test_the_cascade_leaves_the_model_bit_identical(model, images):
    before = {key: value.clone() for key, value in model.network.state_dict().items()}
    for method in METHODS.values():
        randomization_cascade(model, images, "cat", method)
    assert all(torch.equal(value, before[key]) for key, value in model.network.state_dict().items())


def test_the_cascade_survives_a_method_that_fails(model, images):
    before = model(images)

    def method(private, image, name):
        if private is not model:
            raise KeyboardInterrupt
        return edge_detector(image)

    with pytest.raises(KeyboardInterrupt):
        randomization_cascade(model, images, "cat", method)
    assert torch.equal(model(images), before)


def test_the_cascade_is_the_same_for_the_same_seed(model, images):
    runs = [randomization_cascade(model, images, "cat", gradient, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_the_cascade_keeps_the_names_of_the_papers(images):
    model = load_model("mini_vgg", trained=False, device="cpu")
    found = randomization_cascade(
        model, images, 0, lambda model, image, name: model.activation(image, "relu1_1").sum(1)
    )
    assert list(found)[:3] == ["trained", "fc8", "fc6"]
    assert list(found.values())[:-1] == pytest.approx([1] * (len(found) - 1))
    assert found["conv1_1"] < 0.99


def test_a_map_of_the_picture_does_not_change_with_the_label(model, images):
    assert label_swap_similarity(model, images, "cat", "dog", edges) == pytest.approx(1)
    assert label_swap_similarity(model, images, "cat", "cat", gradient) == pytest.approx(1)
    assert label_swap_similarity(model, images, "cat", "dog", gradient) < 0.9


def test_the_similarity_of_labels_is_spearmans(model, images):
    maps = [gradient(model, images, name).flatten(1) for name in ("cat", "koala")]
    expected = sum(stats.spearmanr(a, b).statistic for a, b in zip(*maps, strict=True)) / 2
    assert label_swap_similarity(model, images, "cat", "koala", gradient) == pytest.approx(expected, abs=1e-6)


def test_structural_similarity_ignores_brightness_and_contrast():
    maps = torch.rand(2, 9, 9)
    torch.testing.assert_close(structural_similarity(maps, 3 * maps + 1), torch.ones(2, dtype=torch.float64))
    assert (structural_similarity(maps, 1 - maps) < 0).all()
    assert structural_similarity(torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)).item() == 1


def test_the_edge_detector_sees_the_edge_and_nothing_else():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    expected = torch.zeros(8)
    expected[3:5] = 4
    torch.testing.assert_close(edge_detector(image), expected.expand(1, 8, 8))
    torch.testing.assert_close(edge_detector(image.mT), expected[:, None].expand(1, 8, 8))


def test_the_random_map_comes_from_its_generator(images):
    maps = [random_map(images, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert maps[0].shape == (2, 16, 16)
    assert torch.equal(maps[0], maps[1])
    assert not torch.equal(maps[0], maps[2])


def test_the_pointing_game_looks_at_the_peak_only():
    maps = torch.zeros(4, 10, 10)
    for n, (row, column) in enumerate([(2, 3), (5, 6), (6, 6), (5, 7)]):
        maps[n, row, column] = 1
    assert pointing_game(maps, (2, 3, 6, 7)).tolist() == [True, True, False, False]


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (5, 5, 3, 8), (-1, 0, 5, 5), (0, 0, 11, 5)])
def test_the_pointing_game_refuses_a_box_outside_of_the_picture(box):
    with pytest.raises(ArgumentError, match="box"):
        pointing_game(torch.zeros(1, 10, 10), box)


def test_a_number_of_stages_below_one_is_refused(model, images):
    with pytest.raises(ArgumentError, match="stages"):
        randomization_cascade(model, images, "cat", edges, stages=0)


def test_every_method_gives_a_map_of_the_picture(model, images):
    for method in METHODS.values():
        found = method(model, images, "cat")
        assert found.shape == (2, 16, 16)
        assert found.isfinite().all()
    assert last_maps(model) == "4"


def test_the_rules_as_methods_are_not_the_gradient(model, images):
    torch.testing.assert_close(with_rule("backprop")(model, images, 0), gradient(model, images, 0))
    assert not torch.equal(with_rule("guided")(model, images, 0), gradient(model, images, 0))


@pytest.fixture
def bright_center() -> Model:
    """Class 1 is the mean of the 8 x 8 pixels in the middle: the right map is known."""
    network = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2, bias=False))
    network[0].weight.data.fill_(1.0)
    network[3].weight.data.zero_()
    network[3].weight.data[1].view(16, 16)[4:12, 4:12] = 0.1
    return load_model(network, classes=["dark", "bright"], mean=(0, 0, 0), std=(1, 1, 1))


def test_the_table_tells_the_right_map_from_the_controls(bright_center):
    image = torch.full((1, 3, 16, 16), 0.4)
    image[..., 4:12, 4:12] = 0.6 + 0.1 * torch.rand(8, 8)
    image[..., :2, :] = 1  # the sharpest edge is not the object's
    methods = {"planted": gradient, "edge detector": edges, "random map": noise}
    table = trust_table(bright_center, image, "bright", other="dark", box=BOX, methods=methods)
    assert [row["method"] for row in table] == list(methods)
    planted, detector, random_ = table
    assert planted["passes"][:4] == ["weights", "class", "pointing", "deletion"]
    assert planted["deletion"] < random_["deletion"]
    assert detector["weights"] == pytest.approx(1)
    assert detector["class"] == pytest.approx(1)
    assert not {"weights", "class", "pointing"} & set(detector["passes"])
    assert random_["passes"][:2] == ["weights", "class"]


def test_an_edge_detector_wins_the_pointing_game_where_the_object_has_the_sharpest_edge(bright_center):
    image = torch.zeros(1, 3, 16, 16)
    image[..., 6:10, 6:10] = 1
    (row,) = trust_table(bright_center, image, "bright", other="dark", box=BOX, methods={"edge detector": edges})
    assert row["pointing"] == 1
    assert "weights" not in row["passes"]
