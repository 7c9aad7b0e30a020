"""Covering parts of a picture, against answers by hand and captum."""

import captum.attr
import pytest
import torch
from torch import nn

from lecturelib.errors import ArgumentError, ImageInputError, LectureError, ScoreError
from lecturelib.models import load_model
from lecturelib.occlusion import (
    FILLS,
    area_under,
    deletion_curve,
    filling,
    insertion_curve,
    occlude,
    occlusion_map,
)
from lecturelib.scores import class_score, probability


def linear(weights: torch.Tensor):
    """The score sum w * x, for weights (3, H, W)."""
    return lambda images: (images * weights).flatten(1).sum(dim=1)


def additive(terms: torch.Tensor):
    """A score that each pixel adds its own number to, terms (H, W), as far as it is white."""
    return lambda images: (images.mean(dim=1) * terms).flatten(1).sum(dim=1)


@pytest.fixture(scope="module")
def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4),
    )  # fmt: skip


@pytest.fixture
def model(network):
    return load_model(network, mean=[0, 0, 0], std=[1, 1, 1])


@pytest.mark.parametrize("fill", [*FILLS, torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)])
def test_the_drop_of_a_linear_score_is_the_weighted_change_in_the_window(fill):
    image, weights = torch.rand(1, 3, 13, 17, dtype=torch.float64), torch.randn(3, 13, 17, dtype=torch.float64)
    drop = occlusion_map(image, linear(weights), window=4, stride=3, fill=fill)
    change = (weights * (image - filling(image, fill)))[0].sum(dim=0)
    by_hand = [[change[y : y + 4, x : x + 4].sum() for x in range(0, 14, 3)] for y in range(0, 10, 3)]
    torch.testing.assert_close(drop[0], torch.tensor(by_hand, dtype=torch.float64))


def test_a_constant_network_drops_nowhere():
    drop = occlusion_map(torch.rand(2, 3, 20, 20), lambda images: torch.full((len(images),), 3.0), window=5, stride=5)
    assert torch.equal(drop, torch.zeros(2, 4, 4))


def test_drop_and_score_add_up_to_the_score_of_the_picture(model):
    image, score = torch.rand(1, 3, 32, 32), class_score(model, 1)
    drop = occlusion_map(image, score, window=8, stride=6)
    left = occlusion_map(image, score, window=8, stride=6, drop=False)
    torch.testing.assert_close(drop + left, score(image).view(1, 1, 1).expand_as(left))


def test_each_entry_is_the_score_of_the_occluded_picture(model):
    image, score = torch.rand(1, 3, 32, 41), probability(model, 2)
    heat = occlusion_map(image, score, window=7, stride=6, fill="noise", drop=False)
    for row, column in [(0, 0), (2, 3), (4, 5)]:
        covered = occlude(image, row * 6, column * 6, window=7, fill="noise")
        torch.testing.assert_close(heat[:, row, column], score(covered))


@pytest.mark.parametrize(("height", "width", "window", "stride"), [(20, 31, 5, 3), (20, 20, 20, 1), (19, 25, 4, 50)])
def test_the_map_has_one_entry_per_window_that_fits(height, width, window, stride):
    heat = occlusion_map(
        torch.rand(2, 3, height, width), additive(torch.rand(height, width)), window=window, stride=stride
    )
    assert heat.shape == (2, (height - window) // stride + 1, (width - window) // stride + 1)


@pytest.mark.parametrize("plain", [False, True])
def test_the_batch_size_does_not_matter(model, plain):
    image, score = torch.rand(1, 3, 36, 36), class_score(model, 0)
    ask = (lambda images: score(images)) if plain else score
    maps = [occlusion_map(image, ask, window=9, stride=5, batch=batch) for batch in (1, 4, 7, 100)]
    for heat in maps[1:]:
        torch.testing.assert_close(heat, maps[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("fill", FILLS)
def test_images_of_a_batch_are_asked_as_if_alone(model, plain, fill):
    images, score = torch.rand(3, 3, 36, 30), class_score(model, 0)
    ask = (lambda images: score(images)) if plain else score
    together = occlusion_map(images, ask, window=9, stride=7, fill=fill)
    alone = [occlusion_map(image[None], ask, window=9, stride=7, fill=fill) for image in images]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("plain", [False, True])
def test_a_score_may_name_one_class_per_image(model, plain):
    images, score = torch.rand(2, 3, 36, 36), class_score(model, [0, 3])
    ask = (lambda images: score(images)) if plain else score
    together = occlusion_map(images, ask, window=9, stride=9)
    alone = [occlusion_map(images[n : n + 1], class_score(model, [0, 3][n]), window=9, stride=9) for n in range(2)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_captum_gives_the_same_drops(network, model):
    image = torch.rand(1, 3, 35, 41)
    drop = occlusion_map(image, class_score(model, 2), window=11, stride=6, fill="grey")
    for row, column in [(0, 0), (1, 3), (4, 5)]:
        mask = torch.zeros(1, 1, 35, 41, dtype=torch.long)
        mask[..., row * 6 : row * 6 + 11, column * 6 : column * 6 + 11] = 1
        theirs = captum.attr.FeatureAblation(network).attribute(image, baselines=0.5, target=2, feature_mask=mask)
        torch.testing.assert_close(drop[0, row, column], theirs[0, 0, row * 6, column * 6], rtol=0, atol=1e-6)


def test_captums_occlusion_with_windows_side_by_side_is_the_same_map(network, model):
    image = torch.rand(1, 3, 36, 36)
    drop = occlusion_map(image, class_score(model, 2), window=9, stride=9, fill="grey")
    theirs = captum.attr.Occlusion(network).attribute(
        image, sliding_window_shapes=(3, 9, 9), strides=(3, 9, 9), baselines=0.5, target=2
    )
    torch.testing.assert_close(drop, theirs[:, 0, ::9, ::9], rtol=0, atol=1e-6)


def test_nothing_that_was_given_is_changed(model):
    image, order = torch.rand(1, 3, 32, 32), torch.rand(1, 32, 32)
    before, weights = image.clone(), [weight.clone() for weight in model.network.parameters()]
    for fill in FILLS:
        occlusion_map(image, class_score(model, 0), window=8, stride=8, fill=fill)
        occlude(image, 0, 0, window=8, fill=fill)
    deletion_curve(image, class_score(model, 0), order, steps=3)
    insertion_curve(image, class_score(model, 0), order, steps=3)
    assert torch.equal(image, before)
    assert not image.requires_grad
    assert all(torch.equal(old, new) for old, new in zip(weights, model.network.parameters(), strict=True))


def test_an_image_that_needs_gradients_is_welcome(model):
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert not occlusion_map(image, class_score(model, 0), window=8, stride=8, fill="blur").requires_grad
    assert image.grad is None


def test_only_the_window_is_covered_and_what_sticks_out_is_cut_off():
    image = torch.rand(1, 3, 10, 12)
    for top, left, rows, columns in [(2, 3, slice(2, 6), slice(3, 7)), (-2, 10, slice(0, 2), slice(10, 12))]:
        covered = occlude(image, top, left, window=4, fill="grey")
        inside = torch.zeros(10, 12, dtype=torch.bool)
        inside[rows, columns] = True
        assert (covered[:, :, inside] == 0.5).all()
        assert torch.equal(covered[:, :, ~inside], image[:, :, ~inside])


def test_fills_are_what_they_are_called():
    image = torch.rand(2, 3, 32, 48)
    assert torch.allclose(filling(image, "mean")[0, :, 5, 5], torch.tensor([0.485, 0.456, 0.406]))
    assert torch.equal(filling(image, "noise"), filling(image, "noise"))
    assert not torch.equal(filling(image, "noise"), filling(image, "noise", generator=torch.Generator().manual_seed(1)))
    blurred = filling(image, "blur")
    assert blurred.std() < 0.2 * image.std()
    torch.testing.assert_close(blurred.mean(dim=(2, 3)), image.mean(dim=(2, 3)))
    for fill in FILLS:
        assert filling(image, fill).shape == image.shape


def test_the_true_order_has_the_smallest_deletion_area_of_all():
    terms = torch.rand(8, 8)
    image, score = torch.ones(1, 3, 8, 8), additive(terms)
    best = area_under(deletion_curve(image, score, terms[None], steps=16))
    others = [torch.rand(1, 8, 8) for _ in range(200)]
    assert all(area_under(deletion_curve(image, score, other, steps=16)) >= best for other in others)
    inserted = [
        area_under(insertion_curve(image, score, order, steps=16, fill="grey")) for order in (terms[None], others[0])
    ]
    assert inserted[0] > inserted[1]


def test_curves_go_between_the_picture_and_the_filled_picture():
    image, terms = torch.rand(2, 3, 9, 7), torch.rand(9, 7)
    score, order = additive(terms), torch.rand(2, 9, 7)
    deletion = deletion_curve(image, score, order, steps=5, fill="grey")
    insertion = insertion_curve(image, score, order, steps=5, fill="grey")
    whole, filled = score(image), score(filling(image, "grey"))
    assert deletion.shape == insertion.shape == (2, 6)
    torch.testing.assert_close(deletion[:, 0], whole)
    torch.testing.assert_close(deletion[:, -1], filled)
    torch.testing.assert_close(insertion[:, 0], filled)
    torch.testing.assert_close(insertion[:, -1], whole)


def test_a_deletion_curve_by_hand():
    image, terms = torch.ones(1, 3, 2, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    black = torch.zeros(3, 1, 1)
    curve = deletion_curve(image, additive(terms), terms[None], steps=4, fill=black)
    torch.testing.assert_close(curve, torch.tensor([[10.0, 6, 3, 1, 0]]))
    torch.testing.assert_close(area_under(curve), torch.tensor([3.75]))


IMAGE = torch.rand(1, 3, 16, 16)
SCORE = linear(torch.rand(3, 16, 16))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"window": 17}, "larger than the picture"),
        ({"window": 0}, "window"),
        ({"window": 4.5}, "window"),
        ({"window": True}, "window"),
        ({"stride": 0}, "stride"),
        ({"stride": -8}, "stride"),
        ({"batch": 0}, "batch"),
        ({"fill": "gray"}, "mean, grey, blur, noise"),
        ({"fill": 0.5}, "mean, grey, blur, noise"),
        ({"fill": torch.rand(5, 3)}, "fit"),
        ({"fill": torch.full((3, 1, 1), 7.0)}, "between 0 and 1"),
    ],
)
def test_a_wrong_option_is_named(options, told):
    with pytest.raises(LectureError, match=told):
        occlusion_map(IMAGE, SCORE, **{"window": 4, "stride": 4, **options})


@pytest.mark.parametrize(
    "image", [torch.full((1, 3, 16, 16), torch.nan), torch.rand(3, 16, 16), torch.rand(1, 3, 16, 16) * 255, "cat"]
)
def test_what_is_no_image_is_refused(image):
    for ask in (occlusion_map, lambda image, score: deletion_curve(image, score, torch.rand(1, 16, 16))):
        with pytest.raises(ImageInputError):
            ask(image, SCORE)


@pytest.mark.parametrize("score", [lambda images: images.mean(), lambda images: images.mean(dim=(2, 3)), "koala"])
def test_what_is_no_score_is_refused(score):
    with pytest.raises(ScoreError):
        occlusion_map(IMAGE, score, window=4, stride=4)
    with pytest.raises(ScoreError):
        deletion_curve(IMAGE, score, torch.rand(1, 16, 16))


@pytest.mark.parametrize("order", [torch.rand(16, 16), torch.rand(1, 4, 4), torch.full((1, 16, 16), torch.nan), [1, 2]])
def test_an_order_needs_one_number_per_pixel(order):
    with pytest.raises(ArgumentError, match="order of the pixels"):
        deletion_curve(IMAGE, SCORE, order)


def test_a_curve_needs_a_step():
    with pytest.raises(ArgumentError, match="steps"):
        deletion_curve(IMAGE, SCORE, torch.rand(1, 16, 16), steps=0)
