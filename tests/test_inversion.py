"""Inversion of layers whose inverse is known, and measures against values that one can work out."""

import warnings
from math import inf, nan

import pytest
import torch
from torch import nn

from lecturelib.canvas import Code, Fourier, grey_noise
from lecturelib.errors import ArgumentError, ImageInputError, LayerNameError, LectureError, OptimizationError
from lecturelib.images import load_image
from lecturelib.inversion import (
    color_distance,
    edge_distance,
    inversion_loss,
    invert,
    layout_distance,
    psnr,
    relative_distance,
    relative_error,
    survival,
    texture_distance,
)
from lecturelib.models import Model, load_model
from lecturelib.optimize import minimize
from lecturelib.regularizers import total_variation

MEASURES = [color_distance, texture_distance, layout_distance, edge_distance]


def orthogonal_model() -> Model:
    """Blocks of 2 x 2 pixels, turned by an orthogonal matrix: a convolution that loses nothing."""
    conv = nn.Conv2d(3, 12, 2, stride=2, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.linalg.qr(torch.randn(12, 12))[0].view(12, 3, 2, 2))
    return load_model(nn.Sequential(conv), mean=(0, 0, 0), std=(1, 1, 1))


def small_model(dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU())
    return load_model(network.to(dtype))


def photo(name: str = "cat", size: int = 24) -> torch.Tensor:
    return load_image(name, size=size)


def test_a_layer_that_loses_nothing_is_inverted_exactly():
    image = photo(size=32)
    inverted = invert(orthogonal_model(), image, "0", tv=0.0)
    assert inverted.shape == image.shape
    assert psnr(inverted, image) > 40


def test_the_features_come_nearer_than_those_of_noise_and_of_the_mean_image():
    model, image = small_model(), photo()
    noise = grey_noise(24, std=0.2, generator=torch.Generator().manual_seed(0))
    mean = image.mean(dim=(2, 3), keepdim=True).expand_as(image)
    for layer in ("1", "4"):
        ours, *baselines = (relative_error(model, x, image, layer) for x in (invert(model, image, layer), noise, mean))
        assert all(ours < 0.1 * baseline for baseline in baselines)


def test_the_embedded_network_is_inverted_better_at_a_shallow_layer_than_at_a_deep_one():
    model, image = load_model("mini_vgg"), photo(size=48)
    layers = ["relu1_1", "relu3_1", "relu5_1"]
    inverted = invert(model, image, layers, steps=25)
    near, middle, far = psnr(inverted, image.expand_as(inverted)).tolist()
    assert near > 25
    assert near > middle + 2 > far + 4


def test_the_loss_is_its_formula():
    model, image, x = small_model(torch.float64), photo().double(), torch.rand(2, 3, 24, 24, dtype=torch.float64)
    features, target = model.activation(x, "4"), model.activation(image, "4")
    error = (features - target).square().sum(dim=(1, 2, 3)) / target.square().sum()
    slopes = (x[..., :-1, 1:] - x[..., :-1, :-1]) ** 2 + (x[..., 1:, :-1] - x[..., :-1, :-1]) ** 2
    rough, strong = (slopes**0.75).sum(dim=(1, 2, 3)), ((x - 0.5) ** 6).sum(dim=(1, 2, 3))
    torch.testing.assert_close(inversion_loss(model, image, "4")(x), error)
    loss = inversion_loss(model, image, "4", tv=0.3, beta=1.5, norm=0.2, alpha=6)
    torch.testing.assert_close(loss(x), error + 0.3 * rough + 0.2 * strong)
    torch.testing.assert_close(relative_error(model, x, image, "4"), error)


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
def test_the_gradient_of_the_loss_is_that_of_finite_differences(beta):
    model, image = small_model(torch.float64), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    loss = inversion_loss(model, image, "4", tv=1e-2, beta=beta, norm=0.1, alpha=3)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    for _ in range(10):
        direction, h = torch.randn_like(x), 1e-6
        with torch.no_grad():
            slopes = (loss(x + h * direction) - loss(x - h * direction)) / (2 * h)
        torch.testing.assert_close((gradient * direction).sum(dim=(1, 2, 3)), slopes, rtol=1e-5, atol=1e-7)


def test_the_relative_distance_is_0_when_equal_and_1_for_nothing_and_has_no_scale():
    target = torch.rand(3, 4, 5, 5)
    assert torch.equal(relative_distance(target, target), torch.zeros(3))
    torch.testing.assert_close(relative_distance(torch.zeros_like(target), target), torch.ones(3))
    values = torch.rand(3, 4, 5, 5)
    torch.testing.assert_close(relative_distance(1e6 * values, 1e6 * target), relative_distance(values, target))
    assert relative_distance(torch.zeros(1, 4), torch.zeros(1, 4)) == 0
    assert relative_distance(values[:, 0], target[:1, 0]).shape == (3,)


def test_images_of_a_batch_are_those_made_alone():
    model, images = small_model(), torch.cat([photo("cat"), photo("coffee")])
    together = invert(model, images, ["1", "4"], tv=[1e-3, 1e-5], steps=8)
    alone = [invert(model, images[n : n + 1], name, tv=tv, steps=8) for n, name, tv in ((0, "1", 1e-3), (1, "4", 1e-5))]
    assert torch.equal(together, torch.cat(alone))
    by_depth = invert(model, images[:1], ["1", "4"], tv=1e-3, steps=8)
    assert torch.equal(by_depth[:1], alone[0])
    by_weight = invert(model, images[1:], "4", tv=[1e-3, 1e-5], steps=8)
    assert torch.equal(by_weight[1:], alone[1])


def test_without_steps_the_start_comes_back():
    model, image, noise = small_model(), photo(), grey_noise(24)
    assert torch.equal(invert(model, image, "4", steps=0), torch.full_like(image, 0.5))
    assert torch.equal(invert(model, image, "4", steps=0, start=noise), noise)
    assert invert(model, image, ["1", "4"], steps=0, start=noise).shape == (2, 3, 24, 24)


def test_a_stronger_penalty_makes_smoother_and_less_faithful_pictures():
    model, image = small_model(), photo()
    inverted = invert(model, image, "4", tv=[0, 1e-3, 1e-2, 1e-1], steps=40)
    rough, error = total_variation(inverted), relative_error(model, inverted, image, "4")
    assert (rough.diff() < 0).all()
    assert (error.diff() > 0).all()


def test_the_norm_pulls_towards_grey():
    model, image = small_model(), photo()
    free, pulled = (invert(model, image, "4", norm=norm, alpha=2, steps=30) for norm in (0.0, 1.0))
    assert (pulled - 0.5).norm() < 0.5 * (free - 0.5).norm()


def test_pixels_and_codes_can_be_the_start():
    model, image = small_model(), photo()
    pixels = invert(model, image, "1", start=grey_noise(24), steps=30)
    assert relative_error(model, pixels, image, "1") < 0.05
    network = nn.Linear(3, 3 * 24 * 24).requires_grad_(False)
    made_by = Code(lambda codes: network(codes).sigmoid().view(-1, 3, 24, 24), torch.zeros(1, 3), low=-3)
    target = network(torch.tensor([[1.0, -2.0, 0.5]])).sigmoid().view(1, 3, 24, 24)
    assert psnr(invert(model, target, "1", tv=0.0, start=made_by, steps=60), target) > 40


def test_the_loss_can_be_descended_by_other_rules():
    model, images = small_model(), torch.cat([photo("cat"), photo("coffee")])
    loss = inversion_loss(model, images, "4")
    found = minimize(grey_noise(24, count=2), loss, steps=60, lr=0.02)
    assert (loss(found) < 0.1 * loss(torch.full_like(images, 0.5))).all()


def test_an_interrupt_returns_the_best_so_far_and_leaves_nothing_behind():
    model, image, calls = small_model(), photo(), []

    class Interrupted(Model):
        def activation(self, images, layer):
            calls.append(layer)
            if len(calls) == 60:
                raise KeyboardInterrupt
            return model.activation(images, layer)

    interrupted = Interrupted(model.network, name="interrupted", classes=model.classes, layers={})
    before = [parameter.clone() for parameter in model.network.parameters()]
    with pytest.warns(UserWarning, match="Interrupted after|were not begun") as told:
        first, second, third = invert(interrupted, image, ["1", "4", "4"], steps=40).split(1)
    assert "Interrupted after" in str(told[0].message)
    assert "Images 2 to 2 were not begun" in str(told[1].message)
    assert relative_error(model, first, image, "1") < 0.01
    assert relative_error(model, second, image, "4") < relative_error(model, third, image, "4")
    assert torch.equal(third, torch.full_like(image, 0.5))
    for network in (model.network, interrupted.network):
        for parameter, value in zip(network.parameters(), before, strict=True):
            assert torch.equal(parameter, value)
            assert parameter.grad is None
            assert not parameter.requires_grad
        assert not any(module._forward_hooks for module in network.modules())


def test_nothing_that_was_given_changes():
    model, image, start = small_model(), photo(), grey_noise(24)
    copies = image.clone(), start.clone()
    invert(model, image, "1", start=start, steps=3)
    assert torch.equal(image, copies[0])
    assert torch.equal(start, copies[1])
    assert image.grad is None
    assert not image.requires_grad


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode])
def test_inversion_works_where_gradients_are_off(where):
    model = small_model()
    with where():
        image = photo()
        assert relative_error(model, invert(model, image, "4", steps=20), image, "4") < 0.1


def test_inversion_follows_the_device(device):
    model = load_model(small_model().network, device=device)
    for image in (photo(), photo().to(device)):
        inverted = invert(model, image, ["1", "4"], steps=20)
        assert inverted.device == image.device
        assert (relative_error(model, inverted[1:], image, "4") < 0.1).all()


def test_networks_of_torchvision_are_inverted_too():
    model, image = load_model("resnet18", trained=False, device="cpu"), photo(size=32)
    grey = torch.full_like(image, 0.5)
    inverted = invert(model, image, "layer1", steps=8)
    assert relative_error(model, inverted, image, "layer1") < 0.5 * relative_error(model, grey, image, "layer1")


def test_psnr_counts_in_decibel():
    image = torch.full((2, 3, 4, 4), 0.5)
    other = image + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(image, other), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)
    assert psnr(image, image).tolist() == [inf, inf]


@pytest.mark.parametrize("distance", MEASURES)
def test_every_distance_is_0_for_the_same_picture_and_in_its_range_for_others(distance):
    images = torch.cat([photo(name) for name in ("cat", "coffee", "astronaut")])
    torch.testing.assert_close(distance(images, images), torch.zeros(3), atol=1e-6, rtol=0)
    to_one = distance(images, images[:1])
    assert to_one.shape == (3,)
    assert (to_one[1:] > 0.05).all()
    assert (to_one <= 2).all()
    torch.testing.assert_close(to_one[1:2], distance(images[1:2], images[:1]))


def test_colors_and_textures_do_not_depend_on_places_and_layout_and_edges_do():
    image = photo(size=48)
    mirrored, turned = image.flip(3), image.flip(2).flip(3)
    shuffled = image.flatten(2)[..., torch.randperm(48 * 48)].view_as(image)
    assert color_distance(shuffled, image) == 0
    assert texture_distance(shuffled, image) > 0.3
    assert color_distance(mirrored, image) == 0
    torch.testing.assert_close(texture_distance(turned, image), torch.zeros(1), atol=0.1, rtol=0)
    assert min(layout_distance(mirrored, image), edge_distance(mirrored, image)) > 0.3
    darker, grey = 0.5 * image + 0.1, image.mean(dim=1, keepdim=True).expand_as(image)
    assert color_distance(darker, image) > 0.3
    torch.testing.assert_close(layout_distance(darker, image), torch.zeros(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(edge_distance(grey, image), torch.zeros(1), atol=1e-5, rtol=0)


def test_histograms_count_what_one_can_count():
    red, blue = torch.zeros(2, 1, 3, 4, 4)
    red[:, 0], blue[:, 2] = 1, 1
    assert color_distance(red, blue) == 1
    assert color_distance(torch.cat([red, blue], dim=3), red) == 0.5
    ramp = torch.linspace(0, 0.9, 10).expand(1, 3, 10, 10)
    assert texture_distance(ramp, ramp.mT) == 1
    assert texture_distance(ramp.flip(3), ramp) == 0  # the same direction, walked the other way
    assert texture_distance(torch.zeros_like(ramp), ramp) == 1
    assert texture_distance(0.5 * ramp, ramp) == 1  # half as strong
    assert layout_distance(ramp, 1 - ramp) == pytest.approx(2, abs=1e-6)
    assert edge_distance(torch.zeros_like(ramp), ramp) == 1


def test_survival_is_1_for_the_original_and_0_for_another_photograph():
    images = torch.cat([photo(name) for name in ("cat", "coffee", "astronaut", "flower")])
    for distance in MEASURES:
        torch.testing.assert_close(survival(distance, images, images), torch.ones(4), atol=1e-5, rtol=0)
        as_others = [survival(distance, images.roll(places, dims=0), images) for places in (1, 2, 3)]
        torch.testing.assert_close(torch.stack(as_others).mean(dim=0), torch.zeros(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda model, image: invert(model, image, "relu9"), LayerNameError, "relu9"),
        (lambda model, image: invert(model, image[0], "1"), ImageInputError, r"image\[:1\]"),
        (lambda model, image: invert(model, 255 * image, "1"), ImageInputError, "255"),
        (lambda model, image: invert(model, image, "1", tv=-1), ArgumentError, "tv"),
        (lambda model, image: invert(model, image, "1", tv=[0.1, nan]), ArgumentError, "tv"),
        (lambda model, image: invert(model, image, "1", tv="much"), ArgumentError, "tv"),
        (lambda model, image: invert(model, image, "1", norm=-1), ArgumentError, "norm"),
        (lambda model, image: invert(model, image, "1", alpha=0.5), ArgumentError, "alpha"),
        (lambda model, image: invert(model, image, "1", beta=0), ArgumentError, "beta"),
        (lambda model, image: invert(model, image, "1", steps=-1), ArgumentError, "steps"),
        (lambda model, image: invert(model, image, ["1", "4"], tv=[0.0] * 3), ArgumentError, "2 layers, 3 weights"),
        (lambda model, image: invert(model, image, []), ArgumentError, "0 layers"),
        (lambda model, image: invert(model, image, "1", start=image.repeat(2, 1, 1, 1)), ArgumentError, "2 starts"),
        (lambda model, image: survival(color_distance, image, image), ArgumentError, "several originals"),
        (lambda model, image: invert(model, image, ["1", "4"], start=Fourier(24)), ArgumentError, "a single image"),
    ],
)
def test_a_wrong_argument_is_told(wrong, error, words):
    with pytest.raises(error, match=words) as caught:
        wrong(small_model(), photo())
    assert isinstance(caught.value, LectureError)


def test_numbers_that_run_away_are_told():
    network = nn.Sequential(nn.Conv2d(3, 4, 3))
    nn.init.constant_(network[0].weight, nan)
    with warnings.catch_warnings(), pytest.raises(OptimizationError):
        invert(load_model(network), photo(), "0")
