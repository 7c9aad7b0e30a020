"""Climbing where the top is known: planted filters, fixed points, gratings; and what every climb must leave alone."""

import contextlib
import math

import pytest
import torch
from torch import nn

from lecturelib.ascent import (
    YOSINSKI,
    Recipe,
    ascend,
    channel_pictures,
    class_pictures,
    deprocess,
    dissimilar,
    keras_pictures,
    maximize_code,
    spectral_centroid,
)
from lecturelib.canvas import Pixels, grey_noise
from lecturelib.errors import ArgumentError, ClassNameError
from lecturelib.generators import Generator
from lecturelib.models import Model, load_model
from lecturelib.optimize import maximize
from lecturelib.regularizers import total_variation
from lecturelib.saliency import input_gradient
from lecturelib.scores import channel_score, class_score
from lecturelib.step_rules import unit

SIDE = 8


def linear_model(weight: torch.Tensor, *, scale: float = 1.0) -> Model:
    """Logits = scale W x."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight), bias=False, dtype=weight.dtype))
    with torch.no_grad():
        network[1].weight.copy_(scale * weight)
    return load_model(network, mean=(0, 0, 0), std=(1, 1, 1))


def conv_model(seed: int = 0) -> Model:
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return load_model(nn.Sequential(*layers, nn.Linear(32, 4)), trained=False, seed=seed)


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(count: int = 1, side: int = SIDE, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.full((count, 3, side, side), 0.5, dtype=dtype)


def code_generator(sigma: torch.Tensor) -> Generator:
    """Three numbers -> a flat color."""

    class Flat(nn.Module):
        def forward(self, codes):
            return codes.sigmoid()[:, :, None, None].expand(-1, 3, 4, 4)

    return Generator(Flat(), sigma=sigma, mean=sigma, layer="2")


def test_a_planted_filter_in_a_ball_is_found():
    weight = torch.randn(1, 3 * SIDE**2, generator=drawn(0))
    score, radius = class_score(linear_model(weight), 0), 0.4

    def into_ball(images, gradient, step):
        return 0.5 + unit(images - 0.5) * (images - 0.5).flatten(1).norm(dim=1).clamp(max=radius).view(-1, 1, 1, 1)

    start = grey_noise(SIDE, std=0.05, generator=drawn(1))
    found = maximize(start, score, steps=200, lr=0.01, step_rule="normalized", after_step=into_ball, progress=False)
    change = (found - 0.5).flatten()
    assert change.norm() <= radius + 1e-5
    assert torch.cosine_similarity(change, weight[0], dim=0) >= 0.99


def test_with_a_penalty_the_top_is_the_filter_over_twice_the_weight():
    weight = 0.2 * torch.randn(1, 3 * SIDE**2, generator=drawn(0), dtype=torch.float64)
    score, top = class_score(linear_model(weight), 0), 0.5 + weight.view(1, 3, SIDE, SIDE) / (2 * 1.0)
    slope = input_gradient(top, lambda images: score(images) - (images - 0.5).square().flatten(1).sum(dim=1))
    torch.testing.assert_close(slope, torch.zeros_like(slope), atol=1e-12, rtol=0)
    found = ascend(grey(dtype=torch.float64), score, weight=1.0, steps=400, lr=2e-3, progress=False)
    torch.testing.assert_close(found, top, atol=5e-3, rtol=0)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_ascent_beats_a_hundred_noise_images_of_equal_norm(scale):
    model = linear_model(torch.randn(3, 3 * SIDE**2, generator=drawn(0)), scale=scale)
    score = class_score(model, 1)
    found = ascend(grey(), score, steps=20, lr=0.01, progress=False)
    length = (found - 0.5).norm()
    noise = torch.randn(100, 3, SIDE, SIDE, generator=drawn(3))
    noise = 0.5 + length * noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    with torch.no_grad():
        assert score(found) > score(noise).max()
    network = conv_model()
    score = channel_score(network, "2", 3)
    found = ascend(grey_noise(12, generator=drawn(0)), score, steps=20, lr=0.01, progress=False)
    noise = 0.5 + (found - 0.5).norm() * unit(torch.randn(100, 3, 12, 12, generator=drawn(1)))
    with torch.no_grad():
        assert score(found) > score(noise).max()


def test_seeds_agree_on_what_is_reached():
    """A score with one top."""
    score = class_score(linear_model(0.2 * torch.randn(1, 3 * SIDE**2, generator=drawn(9))), 0)
    reached = []
    for seed in range(4):
        found = ascend(grey_noise(SIDE, std=0.1, generator=drawn(seed)), score, weight=1.0, lr=5e-3, progress=False)
        reached.append((score(found) - (found - 0.5).square().sum()).item())
    assert max(reached) - min(reached) < 0.02 * max(reached)


def test_seeds_agree_on_what_sixteen_classes_reach_together():
    """The tops of one class differ by some percent; what a batch of classes reaches does not depend on the start."""
    model = load_model("mini_vgg", device="cpu")
    score = class_score(model, list(range(0, 160, 10)))
    reached = []
    for seed in range(3):
        start = grey_noise(32, count=16, generator=drawn(seed))
        reached.append(score(ascend(start, score, steps=40, progress=False)).mean().item())
    assert max(reached) - min(reached) < 0.02 * max(reached)


def test_parameters_arguments_and_modes_stay():
    model, start = conv_model(), grey_noise(12, count=2, generator=drawn(0))
    before, copy = {name: value.clone() for name, value in model.network.state_dict().items()}, start.clone()
    for recipe in [None, *YOSINSKI.values()]:
        ascend(start, channel_score(model, "2", [1, 2]), recipe=recipe, steps=3, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.network.state_dict().items())
    assert torch.equal(start, copy) and not start.requires_grad and start.grad is None
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.network.modules())


@pytest.mark.filterwarnings("ignore:Interrupted")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_faults_inside_the_network_leave_nothing(error, at):
    calls = []

    def fail(module, inputs):
        calls.append(len(inputs))
        if len(calls) == at:
            raise error

    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    network[0].register_forward_pre_hook(fail)  # a hook of the user's own, which stays
    model, generator = load_model(network), code_generator(torch.ones(3))
    score, start, quick = class_score(model, 1), grey_noise(12, generator=drawn(0)), {"steps": 6, "progress": False}
    before, hooks = (
        start.clone(),
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules()],
    )
    climbs = (
        lambda: ascend(start, score, **quick),
        lambda: class_pictures(model, [0, 2], size=24, **quick),
        lambda: channel_pictures(model, "0", [1, 3], size=12, **quick),
        lambda: keras_pictures(model, "0", [1], size=12, **quick),
        lambda: maximize_code(generator, score, **quick),
    )
    for climb in climbs:
        calls.clear()
        with contextlib.suppress(error):
            assert climb().isfinite().all()
        assert len(calls) >= at, "the fault was met"
        assert torch.is_grad_enabled()
        assert torch.equal(start, before)
        assert not any(module.training for module in model.network.modules())
        assert [
            len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.network.modules()
        ] == hooks
        assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())


def test_behind_dead_relus_it_warns_and_starts_from_noise():
    weight = torch.zeros(1, 3, 3, 3)
    weight[0, 0, 1, 1] = 1
    network = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight.copy_(weight)
        network[0].bias.fill_(-0.5 - 1e-3)  # alive only above middle grey
    score = class_score(load_model(network, classes=["red"], mean=(0, 0, 0), std=(1, 1, 1)), "red")
    with pytest.warns(UserWarning, match=r"gradient at the start is zero.*grey noise"):
        found = ascend(grey(), score, steps=20, progress=False)
    assert score(found) > score(grey()) == 0


def test_a_recipe_changes_a_picture_in_the_order_of_its_fields():
    images = torch.rand(2, 3, 6, 6, generator=drawn(0))
    gradient = torch.randn(2, 3, 6, 6, generator=drawn(1))
    assert torch.equal(Recipe().after_step()(images, gradient, 4), images)
    decayed = Recipe(decay=0.3).after_step()(images, gradient, 1)
    torch.testing.assert_close(decayed - 0.5, 0.7 * (images - 0.5))
    both = Recipe(decay=0.3, small_pixels=50).after_step()(images, gradient, 1)
    greyed = (both == 0.5).all(dim=1, keepdim=True).expand_as(both)
    assert greyed[:, 0].flatten(1).sum(dim=1).tolist() == [18, 18]
    assert torch.equal(both[~greyed], decayed[~greyed])
    by_gradient = (Recipe(small_gradients=50).after_step()(images, gradient, 1) == 0.5).all(dim=1)
    by_contribution = (Recipe(small_contributions=50).after_step()(images, gradient, 1) == 0.5).all(dim=1)
    assert not torch.equal(by_gradient, by_contribution)
    blurred = [Recipe(blur_sigma=1.0, blur_every=4).after_step()(images, gradient, step) for step in (3, 4)]
    assert torch.equal(blurred[0], images)
    assert (total_variation(blurred[1]) < total_variation(images)).all()
    with pytest.raises(ArgumentError, match="decay"):
        Recipe(decay=1.5).after_step()


def test_the_four_recipes_are_those_of_the_paper():
    numbers = [
        (one.decay, one.blur_sigma, one.blur_every if one.blur_sigma else 0, one.small_pixels, one.small_contributions)
        for one in YOSINSKI.values()
    ]
    assert numbers == [(0, 0.5, 4, 50, 0), (0.3, 0, 0, 20, 0), (1e-4, 1.0, 4, 0, 0), (0, 0.5, 4, 0, 90)]


def test_pictures_of_channels_are_repeatable_and_one_for_each():
    model = conv_model()
    pictures = channel_pictures(model, "2", [0, 5, 5], size=12, steps=6, generator=drawn(0), progress=False)
    assert pictures.shape == (3, 3, 12, 12) and pictures.min() >= 0 and pictures.max() <= 1
    again = channel_pictures(model, "2", [0, 5, 5], size=12, steps=6, generator=drawn(0), progress=False)
    assert torch.equal(pictures, again) and not torch.equal(pictures[1], pictures[2])
    score = channel_score(model, "2", [0, 5, 5])
    assert (score(pictures) > score(grey_noise(12, count=3, generator=drawn(0)))).all()


def test_pictures_of_convolutions_have_patterns():
    """The mean of a convolution's map knows of colors only; climbing it would end in flat tiles."""
    model = load_model("mini_vgg", device="cpu")
    pictures = channel_pictures(model, "conv2_2", range(8), size=40, steps=12, generator=drawn(0), progress=False)
    inside = pictures[..., 8:-8, 8:-8]  # the network sees zeros around a picture, and an edge there
    assert (inside.std(dim=(2, 3)).mean(dim=1) > 0.03).all()


def test_pictures_of_classes_are_recognized():
    model, names = load_model("mini_vgg"), ["monarch", "pizza"]
    pictures = class_pictures(model, names, size=48, steps=30, generator=drawn(0), progress=False)
    assert pictures.shape == (2, 3, 48, 48)
    assert [top[0][0] for top in model.top(pictures, k=1)] == names
    with pytest.raises(ClassNameError, match="Near it: monarch"):
        class_pictures(model, "monark", steps=1)


def test_dissimilar_pictures_of_one_unit_differ_more():
    model = conv_model()
    score = channel_score(model, "2", 3)
    start = grey_noise(12, count=3, generator=drawn(0))
    together = dissimilar(score, model, "0", weight=2.0)
    torch.testing.assert_close(dissimilar(score, model, "0", weight=0.0)(start), score(start))
    same = start[:1].expand(3, -1, -1, -1)
    torch.testing.assert_close(together(same), score(same) - 2.0)  # copies are wholly alike
    torch.testing.assert_close(together(start[:1]), score(start[:1]))  # nothing to be like
    pictures = [maximize(start, one, steps=20, lr=0.01, progress=False) for one in (score, together)]
    likeness = [(score(images) - dissimilar(score, model, "0", weight=1.0)(images)).mean() for images in pictures]
    assert likeness[1] < likeness[0]


def test_a_code_climbs_inside_its_bounds():
    generator, seen = code_generator(torch.tensor([1.0, 0.5, 0.0])), []

    def red_less_green(images):
        seen.append(images.detach())
        return images[:, 0].mean(dim=(1, 2)) - images[:, 1].mean(dim=(1, 2))

    found = maximize_code(generator, red_less_green, count=5, steps=60, lr=0.2, random=drawn(0), progress=False)
    best = torch.tensor([3.0, 0.0, 0.0]).sigmoid()  # three deviations of red, none of green
    torch.testing.assert_close(found, best.view(1, 3, 1, 1).expand(5, 3, 4, 4), atol=1e-4, rtol=0)
    low, high = torch.zeros(3).sigmoid(), torch.tensor([3.0, 1.5, 0.0]).sigmoid()
    for images in seen:
        colors = images.amax(dim=(2, 3))
        assert (colors >= low - 1e-6).all() and (colors <= high + 1e-6).all()
    with torch.no_grad():
        random = red_less_green(generator(generator.random_codes(100, drawn(1))))
    assert (red_less_green(found) > random.max() - 1e-6).all()


def test_the_weight_of_a_code_counts_in_deviations():
    generator = code_generator(torch.tensor([2.0, 0.5, 1.0]))
    start = torch.tensor([[1.0, 0.4, 0.7]])

    def linear(images):
        return torch.logit(images[:, 0, 0, 0].double()).float()  # the first number of the code

    found = maximize_code(generator, linear, start=start, weight=0.5, steps=400, lr=0.02, progress=False)
    # 2 z - z^2 / 2 has its top at z = 2, which is 4 in the code's own numbers
    assert torch.logit(found[0, 0, 0, 0]).item() == pytest.approx(4.0, abs=0.05)
    assert start.tolist() == torch.tensor([[1.0, 0.4, 0.7]]).tolist()


def test_the_keras_steps_are_those_of_the_listing():
    model, score = conv_model(), None
    found = keras_pictures(model, "2", [3, 6], size=12, steps=5, generator=drawn(0), progress=False)
    images = (torch.rand(2, 3, 12, 12, generator=drawn(0)) * 20 + 128).double()
    precise = load_model(model.network.double(), mean=model.mean.flatten().tolist(), std=model.std.flatten().tolist())
    score, values = channel_score(precise, "2", [3, 6]), []
    for _ in range(6):
        leaf = (images / 255).requires_grad_()
        values.append(score(leaf))
        (g,) = torch.autograd.grad(values[-1].sum(), leaf)
        images = images + g / (g.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + 1e-12)
        best = leaf.detach()
    torch.testing.assert_close(found.double(), best, atol=2e-4, rtol=0)
    assert (values[-1] > values[0]).all()
    model.network.float()


def test_deprocess_has_the_moments_of_the_listing_and_does_nothing_twice():
    images = 40 + 300 * torch.randn(2, 3, 16, 16, generator=drawn(0))
    shown = deprocess(images)
    assert shown.min() >= 0 and shown.max() <= 1
    torch.testing.assert_close(shown.mean(dim=(1, 2, 3)), torch.full((2,), 0.5), atol=1e-3, rtol=0)
    torch.testing.assert_close(shown.flatten(1).std(dim=1), torch.full((2,), 0.1), atol=2e-3, rtol=0)
    torch.testing.assert_close(deprocess(shown), shown, atol=2e-3, rtol=0)
    torch.testing.assert_close(deprocess(images / 7 - 3), shown, atol=1e-4, rtol=0)
    assert deprocess(torch.full((1, 3, 4, 4), 9.0)).eq(0.5).all()


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 24), (15, 21)])
def test_the_spectral_centroid_of_a_grating_is_its_frequency(height, width):
    x, y = torch.arange(width), torch.arange(height)[:, None]
    for cycles in (1, 3, 5):
        wave = 0.5 + 0.3 * torch.cos(2 * math.pi * cycles * x / width).expand(height, width)
        images = torch.stack([wave, wave, wave])[None]
        torch.testing.assert_close(spectral_centroid(images), torch.tensor([cycles / width]), atol=1e-5, rtol=1e-4)
    diagonal = torch.cos(2 * math.pi * (3 * x / width + 4 * y / height))[None, None]
    expected = torch.tensor([math.hypot(3 / width, 4 / height)])
    torch.testing.assert_close(spectral_centroid(diagonal), expected, atol=1e-5, rtol=1e-4)
    assert spectral_centroid(torch.full((2, 3, height, width), 0.7)).tolist() == pytest.approx([0, 0], abs=0.5)


def test_the_spectral_centroid_weighs_by_energy_of_the_whole_plane():
    images = torch.rand(3, 3, 12, 10, generator=drawn(0), dtype=torch.float64)
    energy = torch.fft.fft2(images - images.mean(dim=(2, 3), keepdim=True)).abs().square().sum(dim=1)
    fy, fx = torch.meshgrid(torch.fft.fftfreq(12), torch.fft.fftfreq(10), indexing="ij")
    expected = (energy * (fy**2 + fx**2).sqrt()).sum(dim=(1, 2)) / energy.sum(dim=(1, 2))
    torch.testing.assert_close(spectral_centroid(images), expected)
    box = Pixels(images.float())
    assert (spectral_centroid(box.image().detach()) > 0.2).all()  # noise is fine


@pytest.mark.parametrize("weight", [-1.0, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(ArgumentError, match="0 or more"):
        ascend(grey(), class_score(linear_model(torch.randn(1, 3 * SIDE**2)), 0), weight=weight)
