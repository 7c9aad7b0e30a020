"""The canvases: boxes are kept, waves have closed forms, colors vary as in photographs."""

from math import inf, pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lecturelib.canvas import COLORS, Code, Fourier, Pixels, grey_noise
from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.images import load_image


def set_wave(canvas: Fourier, channel: int, row: int, column: int, amplitude: float) -> None:
    """All waves off except one, which is a cosine."""
    with torch.no_grad():
        (waves,) = canvas.parameters()
        waves.zero_()
        waves[0, channel, row, column, 0] = amplitude / canvas.scale[row, column]


def test_pixels_show_the_start_and_leave_it_alone():
    start = torch.rand(2, 3, 4, 5)
    before = start.clone()
    canvas = Pixels(start)
    assert torch.equal(canvas.image(), start)
    with torch.no_grad():
        canvas.parameters()[0].add_(2)
    canvas.project()
    assert torch.equal(canvas.image(), torch.ones_like(start))
    assert torch.equal(start, before)
    assert not start.requires_grad


def test_a_box_may_be_the_ball_of_an_attack():
    start = torch.rand(2, 3, 4, 4)
    canvas = Pixels(start, low=(start - 0.1).clamp(0, 1), high=(start + 0.1).clamp(0, 1))
    with torch.no_grad():
        canvas.parameters()[0].add_(torch.randn_like(start))
    canvas.project()
    assert (canvas.image() - start).abs().max() <= 0.1 + 1e-7
    assert canvas.image().min() >= 0
    assert canvas.image().max() <= 1


def test_a_box_without_walls_changes_nothing():
    canvas = Pixels(torch.full((1, 3, 2, 2), 1e9), low=-inf, high=inf)
    canvas.project()
    assert torch.equal(canvas.image(), torch.full((1, 3, 2, 2), 1e9))


def test_what_is_put_on_pixels_goes_into_the_box():
    canvas = Pixels(torch.zeros(1, 3, 2, 2))
    canvas.replace(torch.full((1, 3, 2, 2), 7.0))
    assert torch.equal(canvas.image(), torch.ones(1, 3, 2, 2))
    assert canvas.image().is_leaf


@pytest.mark.parametrize(
    "canvas",
    [
        lambda: Pixels(torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)),
        lambda: Pixels(torch.rand(2, 8, 8, 3).permute(0, 3, 1, 2)),
        lambda: Pixels(torch.rand(1, 3, 8, 8).expand(4, -1, -1, -1)),
        lambda: Fourier((6, 7), count=2),
        lambda: Code(lambda code: code.view(2, 3, 2, 2), torch.rand(12, 2).t()),
    ],
)
def test_parameters_are_contiguous_leaves(canvas):
    for parameter in canvas().parameters():
        assert parameter.is_contiguous()
        assert parameter.is_leaf
        assert parameter.requires_grad


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode])
def test_a_canvas_can_be_made_where_gradients_are_off(where):
    with where():
        start = torch.rand(1, 3, 4, 4)
        canvases = Pixels(start), Fourier(4), Code(lambda code: code, start)
    for canvas in canvases:
        (gradient,) = torch.autograd.grad(canvas.image().sum(), canvas.parameters())
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("size", [(8, 8), (6, 9), (9, 6), (1, 5), (16, 1)])
def test_one_coefficient_is_one_cosine(size):
    height, width = size
    row, column = min(1, height - 1), min(2, width // 2)
    canvas = Fourier(size)
    set_wave(canvas, 1, row, column, 3.0)
    y, x = torch.arange(height)[:, None], torch.arange(width)[None, :]
    own_mirror = (2 * row % height == 0) and (2 * column % width == 0)
    mirrored = column > 0 and 2 * column != width  # then the other half plane holds the same wave again
    size_of_wave = (2 if mirrored else 1) * 3.0 / (height * width) ** 0.5
    wave = size_of_wave * torch.cos(2 * pi * (row * y / height + column * x / width))
    waves = canvas.waves()[0]
    if mirrored or own_mirror:
        torch.testing.assert_close(waves[1], wave, atol=1e-5, rtol=1e-5)
    assert waves[0].abs().max() == 0


def test_no_waves_are_middle_grey():
    canvas = Fourier(8, std=0)
    assert torch.equal(canvas.image(), torch.full((1, 3, 8, 8), 0.5))


def test_waves_have_the_asked_spread_and_fall_with_the_frequency():
    canvas = Fourier(64, count=40, std=0.3, generator=torch.Generator().manual_seed(1))
    waves = canvas.waves().detach()
    assert waves.std().item() == pytest.approx(0.3, rel=0.05)
    power = torch.fft.fft2(waves).abs().square().mean(dim=(0, 1))
    assert (power[0, 2] / power[0, 16]).item() == pytest.approx(8**2, rel=0.3)  # amplitude 1/f, so power 1/f^2


def test_brightness_is_the_first_channel_of_waves():
    canvas = Fourier(8)
    set_wave(canvas, 0, 0, 1, 5.0)
    color = canvas.image().logit()[0]
    expected = torch.tensor(COLORS)[:, 0, None, None] * canvas.waves()[0, 0]
    torch.testing.assert_close(color, expected, atol=1e-4, rtol=1e-4)


def test_colors_can_be_left_apart():
    canvas = Fourier(8, std=1, colors=torch.eye(3))
    torch.testing.assert_close(canvas.image(), canvas.waves().sigmoid())


def test_the_mixture_of_colors_is_that_of_photographs():
    names = ("astronaut", "cat", "china", "coffee", "flower", "grace_hopper", "motorcycle_left", "rocket")
    covariance = sum(torch.cov(load_image(name)[0].double().flatten(1)) for name in names) / len(names)
    mixture = torch.tensor(COLORS, dtype=torch.float64)
    torch.testing.assert_close(mixture @ mixture.T, 3 * covariance / covariance.trace(), atol=2e-4, rtol=0)
    independent = mixture.T @ mixture
    torch.testing.assert_close(independent, independent.diag().diag(), atol=2e-4, rtol=0)


def test_waves_that_are_too_fine_to_be_seen_are_left_out():
    canvas = Fourier((24, 32), std=1, finest=0.26, generator=torch.Generator().manual_seed(0))
    whole = Fourier((24, 32), std=1, generator=torch.Generator().manual_seed(0))
    frequency = torch.hypot(torch.fft.fftfreq(24)[:, None], torch.fft.rfftfreq(32))
    kept, all_waves = (torch.fft.rfft2(each.waves()) for each in (canvas, whole))
    expected = torch.where(frequency <= 0.26, all_waves, 0)
    torch.testing.assert_close(kept, expected, atol=1e-4, rtol=0)
    assert expected.abs().max() > 1 and all_waves[:, :, frequency > 0.26].abs().max() > 0.1
    (gradient,) = torch.autograd.grad(canvas.image().square().sum(), canvas.parameters())
    assert not gradient[:, :, frequency > 0.26].any()


def test_one_seed_is_one_picture():
    first, again, other = (Fourier(16, generator=torch.Generator().manual_seed(seed)).image() for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_code_has_gradients_and_stays_in_its_bounds():
    generator = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 2, 2)), nn.Sigmoid())
    start, high = torch.rand(5, 4), torch.tensor([0.1, 0.5, 1.0, 2.0])
    canvas = Code(generator, start, high=high)
    assert canvas.image().shape == (5, 3, 2, 2)
    (gradient,) = torch.autograd.grad(canvas.image().sum(), canvas.parameters())
    assert gradient.shape == (5, 4)
    assert all(parameter.grad is None for parameter in generator.parameters())
    with torch.no_grad():
        canvas.parameters()[0].add_(10 * torch.randn(5, 4))
    canvas.project()
    assert ((canvas.parameters()[0] >= 0) & (canvas.parameters()[0] <= high)).all()


@given(side=st.integers(1, 40), count=st.integers(1, 3), std=st.floats(0, 5), seed=st.integers(0, 99))
def test_grey_noise_is_an_image(side, count, std, seed):
    noise = grey_noise((side, side + 1), count=count, std=std, generator=torch.Generator().manual_seed(seed))
    assert noise.shape == (count, 3, side, side + 1)
    assert noise.min() >= 0
    assert noise.max() <= 1


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Pixels(torch.rand(3, 4, 4)), ImageInputError, "shape"),
        (lambda: Pixels(torch.rand(1, 4, 4, 4)), ImageInputError, "shape"),
        (lambda: Pixels(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)), ImageInputError, "uint8"),
        (lambda: Pixels("cat"), ImageInputError, "str"),
        (lambda: Pixels(torch.full((1, 3, 4, 4), 255.0)), ImageInputError, "255"),
        (lambda: Pixels(torch.full((1, 3, 4, 4), float("nan"))), ImageInputError, "NaN"),
        (lambda: Pixels(torch.rand(1, 3, 4, 4), low=1, high=0), ArgumentError, "box"),
        (lambda: Fourier(0), ArgumentError, "size"),
        (lambda: Fourier(8, finest=0), ArgumentError, "finest"),
        (lambda: Fourier((4, 4, 4)), ArgumentError, "size"),
        (lambda: grey_noise(2.5), ArgumentError, "size"),
        (lambda: Code(nn.Identity(), torch.zeros(4)), ArgumentError, "code"),
        (lambda: Code(nn.Identity(), torch.zeros(2, 4)).image(), ArgumentError, "generator"),
    ],
)
def test_a_wrong_start_is_named(make, error, words):
    with pytest.raises(error, match=words):
        make()
