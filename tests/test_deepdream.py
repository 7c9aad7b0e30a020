"""Dreams whose answer is known: by hand in float64, on networks of one layer, and what every dream has to keep."""

import warnings
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lecturelib.deepdream import (
    FADE,
    Bands,
    balanced_score,
    dream,
    guided_score,
    octave_sizes,
    zoom_dream,
)
from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.images import load_image
from lecturelib.models import Model, load_model
from lecturelib.optimize import Options, climb
from lecturelib.patterns import correlation_length
from lecturelib.scores import class_score, layer_score


def tiny_model(weight: torch.Tensor | None = None) -> Model:
    """One convolution and a ReLU in float64; the pixels are not normalized."""
    conv = nn.Conv2d(3, 4, 3, padding=1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.randn(4, 3, 3, 3) if weight is None else weight)
    layers = [conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return load_model(nn.Sequential(*layers), mean=(0, 0, 0), std=(1, 1, 1))


def photograph(height: int = 24, width: int = 36, count: int = 1) -> torch.Tensor:
    return 0.2 + 0.6 * torch.rand(count, 3, height, width, dtype=torch.float64)


class Fault(TorchFunctionMode):
    """An interrupt at the n-th call of torch."""

    def __init__(self, at: int):
        super().__init__()
        self.at, self.calls = at, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return function(*args, **(kwargs or {}))


def test_the_gradient_of_half_the_sum_of_squares_is_the_activation():
    activation = torch.randn(2, 5, 4, 4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(0.5 * activation.square().sum(), activation)
    torch.testing.assert_close(gradient, activation)


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (2, 3, 97, 133)])
def test_no_steps_give_back_the_image_bit_by_bit(shape):
    image = torch.rand(shape)
    model = load_model("mini_vgg", trained=False)
    assert torch.equal(dream(image, layer_score(model, "relu2_1"), steps=0), image)


def test_sizes_of_octaves_by_hand():
    assert octave_sizes(400, 600, 3, 2.0) == [(100, 150), (200, 300), (400, 600)]
    assert octave_sizes(300, 225, 4, 1.8) == [(51, 39), (93, 69), (167, 125), (300, 225)]
    assert octave_sizes(64, 64, 4, 2.0) == [(32, 32), (64, 64)]
    assert octave_sizes(20, 90, 5, 1.4) == [(20, 90)], "the full size is always there"


@pytest.mark.parametrize("ratio", [1.2, 1.4, 1.8, 2.5])
@pytest.mark.parametrize(("height", "width"), [(300, 300), (213, 480)])
def test_neighboring_sizes_have_the_ratio_to_within_a_pixel(height, width, ratio):
    sizes = octave_sizes(height, width, 6, ratio)
    assert sizes[-1] == (height, width) and sizes == sorted(sizes)
    for small, large in pairwise(sizes):
        assert all(abs(a * ratio - b) <= 0.5 * ratio + 0.5 for a, b in zip(small, large, strict=True))
    assert min(map(min, sizes)) >= 32


def test_a_dream_is_the_loop_of_the_lecture_with_the_lost_detail_put_back():
    image, score = photograph(70, 90), layer_score(tiny_model(), "1")

    def resized(images, size):
        return F.interpolate(images, size=size, mode="bilinear", antialias=True)

    sizes = [(36, 46), (50, 64), (70, 90)]
    x, shrunk = resized(image, sizes[0]), resized(image, sizes[0])
    for size in sizes:
        lost = resized(image, size) - resized(shrunk, size)
        x, shrunk = (resized(x, size) + lost).clamp(0, 1), resized(image, size)
        for _ in range(3):
            leaf = x.clone().requires_grad_()
            (g,) = torch.autograd.grad(score(leaf).sum(), leaf)
            x = (x + 0.004 * g / g.square().mean().sqrt()).clamp(0, 1)
    found = dream(image, score, octaves=3, steps=3, lr=0.004, jitter=0, bands=1)
    torch.testing.assert_close(found, x, atol=1e-12, rtol=0)


def test_every_band_moves_by_the_learning_rate_whatever_its_gradient():
    image, score = photograph(32, 48, count=2), layer_score(tiny_model(), "1")
    canvas = Bands(image, 4)
    assert torch.equal(canvas.image(), image)
    climb(canvas, score, Options(steps=1, lr=0.01, step_rule="normalized"))
    assert [tuple(picture.shape[2:]) for picture in canvas.parameters()] == [(32, 48), (16, 24), (8, 12), (4, 6)]
    for picture in canvas.parameters():
        change = picture.detach().square().mean(dim=(1, 2, 3)).sqrt()
        torch.testing.assert_close(change, torch.full_like(change, 0.01 * (1 - FADE)))


def test_a_long_dream_does_not_run_away_because_the_change_fades():
    canvas = Bands(photograph(), 3)
    climb(canvas, layer_score(tiny_model(), "1"), Options(steps=150, lr=0.01, step_rule="normalized"))
    assert max(picture.detach().square().mean().sqrt() for picture in canvas.parameters()) < 0.01 / FADE


def test_octaves_make_the_same_pattern_at_several_sizes():
    def checks(images):
        rows, columns = (torch.arange(side) // 4 % 2 * 2.0 - 1 for side in images.shape[2:])
        return (images * (rows[:, None] * columns)).flatten(1).mean(dim=1)

    flat, options = torch.full((1, 3, 128, 128), 0.5), {"ratio": 2.0, "steps": 4, "lr": 0.02, "jitter": 0, "bands": 1}
    length = {n: correlation_length(dream(flat, checks, octaves=n, **options)).item() for n in (1, 3)}
    assert length[1] < 4
    assert length[3] > 1.8 * length[1]


def test_a_layer_of_the_trained_network_comes_to_see_more():
    model = load_model("mini_vgg")
    image, score = load_image("china", size=(64, 80)), layer_score(model, "relu4_1")
    dreamt = dream(image, score, octaves=2, steps=5)
    with torch.no_grad():
        assert score(dreamt) > 1.5 * score(image)
    assert (dreamt - image).abs().mean() < 0.2, "and it is still the photograph"


def test_a_dream_of_a_class_is_taken_for_it():
    model = load_model("mini_vgg")
    dreamt = dream(load_image("china", size=64), class_score(model, "monarch"), octaves=2, steps=8)
    assert model.top(dreamt)[0][0][0] == "monarch"


def test_the_balanced_score_is_the_mean_of_logarithms():
    model, image = tiny_model(), photograph(5, 6, count=2).requires_grad_()
    energy = model.activation(image, "1").square().mean(dim=(2, 3))
    expected = torch.stack([sum(0.5 / 4 * (e + 0.01 * row.mean()).log() for e in row) for row in energy])
    torch.testing.assert_close(balanced_score(model, "1")(image), expected)


def test_the_pull_of_a_balanced_score_is_divided_by_the_energy_of_the_channel():
    activation = torch.rand(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    colors = load_model(nn.Sequential(nn.Identity(), nn.Flatten()), mean=(0, 0, 0), std=(1, 1, 1), classes=["any"])
    colors.dtype = torch.float64
    (gradient,) = torch.autograd.grad(balanced_score(colors, "0")(activation).sum(), activation)
    energy = activation.square().mean(dim=(2, 3), keepdim=True)
    torch.testing.assert_close(gradient, activation / (energy + 0.01 * energy.mean()) / (3 * 20))


def test_no_loud_channel_wins_a_balanced_score():
    weight = torch.zeros(4, 3, 3, 3, dtype=torch.float64)
    weight[range(3), range(3), 1, 1] = 1  # each channel is a color, the last one sees nothing
    loud = weight * torch.tensor([6.0, 1, 1, 1], dtype=torch.float64)[:, None, None, None]
    image, alike = photograph(), {}
    for maker in (layer_score, balanced_score):
        gradients = []
        for kernel in (weight, loud):
            leaf = image.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(maker(tiny_model(kernel), "1")(leaf).sum(), leaf)
            gradients.append(gradient.flatten())
        alike[maker] = F.cosine_similarity(*gradients, dim=0).item()
    assert alike[balanced_score] > 0.98
    assert alike[layer_score] < 0.7


def test_a_layer_that_sees_nothing_has_a_finite_balanced_score():
    score = balanced_score(tiny_model(torch.zeros(4, 3, 3, 3)), "1")
    leaf = photograph().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf).sum(), leaf)
    assert gradient.isfinite().all()


def test_the_guided_score_compares_every_place_with_every_place_of_the_guide():
    model, image, guide = tiny_model(), photograph(4, 5, count=2), photograph(3, 6)
    places = model.activation(guide, "1")[0].flatten(1).T
    expected = []
    for features in model.activation(image, "1").flatten(2):
        best = [max(float(here @ there / there.norm()) for there in places) for here in features.T]
        expected.append(sum(best) / len(best))
    found = guided_score(model, "1", guide)(image).detach()
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_a_generator_repeats_a_dream_and_the_image_stays_as_it_is():
    image, score = photograph(), layer_score(tiny_model(), "1")
    before = image.clone()
    first, again, other = (dream(image, score, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(image, before) and not first.requires_grad


def test_a_batch_dreams_what_each_image_dreams():
    images, score = photograph(count=3), layer_score(tiny_model(), "1")
    together = dream(images, score, jitter=0, steps=4)
    single = torch.cat([dream(image[None], score, jitter=0, steps=4) for image in images])
    torch.testing.assert_close(together, single)


def test_a_dream_works_where_gradients_are_off():
    image, score = photograph(), layer_score(tiny_model(), "1")
    expected = dream(image, score, jitter=0, steps=3)
    with torch.inference_mode():
        torch.testing.assert_close(dream(image, score, jitter=0, steps=3), expected)


def test_on_step_sees_the_sizes_one_after_the_other():
    seen = []
    image = photograph(64, 96)
    dream(
        image,
        layer_score(tiny_model(), "1"),
        octaves=2,
        ratio=2.0,
        steps=3,
        on_step=lambda step, images, scores: seen.append((step, tuple(images.shape[2:]))),
    )
    assert seen == [(step, size) for size in [(32, 48), (64, 96)] for step in range(4)]


def test_an_interrupt_returns_the_dream_so_far_at_full_size():
    image, calls = photograph(64, 64), 0
    plain = layer_score(tiny_model(), "1")

    def score(images):
        nonlocal calls
        calls += 1
        if calls == 12:  # seven belong to the first size
            raise KeyboardInterrupt
        return plain(images)

    with pytest.warns(UserWarning, match="Interrupted after 4 of 6 steps"):
        found = dream(image, score, octaves=2, ratio=2.0, steps=3 + 3, jitter=0)
    assert found.shape == image.shape and not torch.equal(found, image)


def test_interrupts_anywhere_leave_an_image_and_no_residue():
    model, image = tiny_model(), photograph(40, 48)
    score = layer_score(model, "1")

    def run():
        return dream(image, score, octaves=2, ratio=1.2, steps=2, generator=torch.Generator().manual_seed(0))

    expected, counter = run(), Fault(-1)
    with counter:
        run()
    returned = 0
    for at in range(1, counter.calls, 7):
        with warnings.catch_warnings(), Fault(at):
            warnings.simplefilter("ignore")
            try:
                found = run()
            except KeyboardInterrupt:
                continue
        returned += 1
        assert found.shape == image.shape and found.min() >= 0 and found.max() <= 1
    assert returned > 0.8 * counter.calls / 7
    assert torch.equal(run(), expected)
    assert not any(module._forward_hooks for module in model.network.modules())


def test_a_flight_begins_with_the_photograph_and_keeps_its_colors():
    image = load_image("china", size=(40, 56)).double()
    flight = zoom_dream(image, layer_score(tiny_model(), "1"), frames=4, steps=2)
    assert flight.shape == (4, 3, 40, 56)
    assert torch.equal(flight[:1], image)
    means = flight.mean(dim=(2, 3))
    assert (means - means[0]).abs().max() < 0.02
    assert (flight.std(dim=(2, 3)) / flight[0].std(dim=(1, 2)) - 1).abs().max() < 0.1


def test_a_flight_without_zoom_and_steps_stays_where_it_is():
    image = photograph()
    flight = zoom_dream(image, layer_score(tiny_model(), "1"), frames=3, zoom=1.0, steps=0)
    torch.testing.assert_close(flight, image.expand_as(flight))


def test_a_flight_enlarges_the_middle():
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 40), torch.linspace(-1, 1, 60), indexing="ij")
    image = (0.5 + 0.2 * rows + 0.2 * columns).expand(1, 3, 40, 60).double()
    second = zoom_dream(image, layer_score(tiny_model(), "1"), frames=2, zoom=1.25, steps=0)[1]
    # Half the width of a ramp has 1 / 1.25 of its slope; the colors are then stretched back to the photograph's.
    slope = (second[0, 20, 50] - second[0, 20, 10]) / (image[0, 0, 20, 50] - image[0, 0, 20, 10])
    assert slope == pytest.approx(1.0, abs=0.05)


def test_an_interrupted_flight_returns_its_frames():
    plain, calls = layer_score(tiny_model(), "1"), 0

    def score(images):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return plain(images)

    with pytest.warns(UserWarning, match="Interrupted"):
        flight = zoom_dream(photograph(), score, frames=9, octaves=1, steps=2)
    assert 2 <= len(flight) < 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"octaves": 0}, "octaves=4"),
        ({"octaves": 2.5}, "octaves=4"),
        ({"ratio": 1.0}, "above 1"),
        ({"ratio": float("nan")}, "above 1"),
        ({"steps": -1}, "steps"),
        ({"lr": 0.0}, "learning rate"),
        ({"jitter": -3}, "jitter"),
        ({"bands": 0}, "bands"),
        ({"bands": True}, "bands"),
    ],
)
def test_a_wrong_number_is_named(options, words):
    with pytest.raises(ArgumentError, match=words):
        dream(photograph(), layer_score(tiny_model(), "1"), **options)


@pytest.mark.parametrize("options", [{"frames": 0}, {"frames": 2.0}, {"zoom": 0.5}, {"zoom": "2"}])
def test_a_wrong_flight_is_named(options):
    with pytest.raises(ArgumentError, match=next(iter(options))):
        zoom_dream(photograph(), layer_score(tiny_model(), "1"), **options)
    with pytest.raises(ArgumentError, match="one image"):
        zoom_dream(photograph(count=2), layer_score(tiny_model(), "1"))


def test_something_else_than_an_image_is_refused():
    with pytest.raises(ImageInputError):
        dream(photograph()[0], layer_score(tiny_model(), "1"))
    with pytest.raises(ImageInputError):
        guided_score(tiny_model(), "1", 300 * photograph())


def test_a_dream_on_a_device(device):
    model = load_model("mini_vgg", trained=False, device=device)
    image = torch.rand(1, 3, 40, 40, device=device)
    dreamt = dream(image, balanced_score(model, "relu2_1"), steps=2)
    assert dreamt.device == image.device and not torch.equal(dreamt, image)
