"""Penalties against closed forms; blur and clips by what they keep and what they change."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lecturelib.errors import ArgumentError
from lecturelib.regularizers import (
    blur,
    blur_every,
    clip_small_contributions,
    clip_small_gradients,
    clip_small_pixels,
    l2,
    total_variation,
)
from lecturelib.transforms import compose

BETAS = [0.5, 1.0, 1.5, 2.0, 3.0]


@pytest.mark.parametrize("beta", BETAS)
def test_total_variation_of_an_edge_has_a_closed_form(beta):
    image = torch.zeros(1, 3, 7, 6, dtype=torch.float64)
    image[..., 3:] = 0.4
    assert total_variation(image, beta).item() == pytest.approx(3 * 6 * 0.4**beta)


@pytest.mark.parametrize("beta", BETAS)
def test_total_variation_of_a_ramp_has_a_closed_form(beta):
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="ij")
    image = (0.03 * y + 0.04 * x).double().expand(2, 3, -1, -1)
    expected = torch.full((2,), 3 * 4 * 3 * 0.05**beta, dtype=torch.float64)
    torch.testing.assert_close(total_variation(image, beta), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("beta", BETAS)
def test_total_variation_of_one_color_is_zero_with_a_finite_gradient(beta):
    image = torch.full((2, 3, 5, 5), 0.3, requires_grad=True)
    value = total_variation(image, beta)
    (gradient,) = torch.autograd.grad(value.sum(), image)
    assert torch.equal(value, torch.zeros(2))
    assert torch.equal(gradient, torch.zeros_like(image))


@pytest.mark.parametrize("beta", [1.0, 1.5, 2.0, 3.0])
def test_total_variation_has_the_right_gradient(beta):
    image = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda image: total_variation(image, beta), image)


@given(
    beta=st.floats(0.3, 4), factor=st.floats(-3, 3).filter(lambda factor: abs(factor) > 1e-3), seed=st.integers(0, 99)
)
def test_total_variation_scales_with_the_power_beta(beta, factor, seed):
    image = torch.rand(1, 3, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    scaled, expected = total_variation(factor * image, beta), abs(factor) ** beta * total_variation(image, beta)
    torch.testing.assert_close(scaled, expected)


def test_total_variation_with_beta_two_are_the_squared_differences():
    image = torch.rand(3, 3, 6, 5, dtype=torch.float64)
    right, below = image[..., :-1, 1:] - image[..., :-1, :-1], image[..., 1:, :-1] - image[..., :-1, :-1]
    torch.testing.assert_close(total_variation(image), (right**2 + below**2).sum(dim=(1, 2, 3)))


def test_l2_is_the_squared_distance_to_grey():
    image = torch.full((2, 3, 4, 5), 0.5)
    image[1, 0, 0, 0] = 0.8
    torch.testing.assert_close(l2(image), torch.tensor([0.0, 0.09]))


@given(sigma=st.floats(0, 8), height=st.integers(1, 20), width=st.integers(1, 20), seed=st.integers(0, 99))
def test_blur_keeps_the_mean_and_calms(sigma, height, width, seed):
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed))
    blurred = blur(image, sigma)
    assert blurred.shape == image.shape
    torch.testing.assert_close(blurred.mean(dim=(2, 3)), image.mean(dim=(2, 3)), atol=1e-5, rtol=0)
    assert (total_variation(blurred) <= total_variation(image) + 1e-5).all()


def test_more_blur_is_calmer_and_no_blur_is_nothing():
    image = torch.rand(1, 3, 24, 24)
    rough = torch.stack([total_variation(blur(image, sigma)) for sigma in (0, 0.3, 0.5, 1, 2, 4)])
    assert (rough.diff(dim=0) < 0).all()
    assert torch.equal(blur(image, 0), image)
    torch.testing.assert_close(blur(image, 0.06), image)


def test_blur_makes_a_gaussian_of_a_point():
    image = torch.zeros(1, 3, 41, 41, dtype=torch.float64)
    image[..., 20, 20] = 1
    spread = torch.arange(-20, 21, dtype=torch.float64)
    marginal = blur(image, 2.0)[0, 0].sum(dim=0)
    assert (marginal * spread**2).sum().item() == pytest.approx(4, rel=1e-2)
    expected = torch.exp(-(spread**2) / 8)
    torch.testing.assert_close(marginal, expected / expected.sum(), atol=1e-4, rtol=0)


def test_blur_comes_every_k_steps():
    image = torch.rand(1, 3, 8, 8)
    change = blur_every(3, sigma=1)
    changed = [not torch.equal(change(image, image, step), image) for step in range(1, 8)]
    assert changed == [False, False, True, False, False, True, False]


@pytest.mark.parametrize("make", [clip_small_pixels, clip_small_gradients, clip_small_contributions])
@pytest.mark.parametrize("percentile", [0, 1, 33, 50, 90, 100])
def test_a_clip_turns_its_share_of_pixels_grey_in_all_colors(make, percentile):
    image, gradient = torch.rand(2, 3, 9, 11), torch.randn(2, 3, 9, 11)
    clipped = make(percentile)(image, gradient, 1)
    grey = (clipped == 0.5).all(dim=1)
    assert ((grey.sum(dim=(1, 2)) - percentile / 100 * 99).abs() <= 1).all()
    assert torch.equal(clipped[:, :, ~grey[0]][0], image[:, :, ~grey[0]][0])
    assert torch.equal(make(percentile)(clipped, gradient, 1), clipped)


def test_the_clips_differ_in_what_they_call_small():
    image, gradient = torch.full((1, 3, 1, 3), 0.5), torch.zeros(1, 3, 1, 3)
    image[0, 0, 0], gradient[0, 0, 0] = torch.tensor([0.6, 0.7, 0.9]), torch.tensor([3.0, 2.0, 0.5])
    clipped = {clip: int((clip(34)(image, gradient, 1)[0, 0, 0] == 0.5).nonzero()) for clip in CLIPS}
    assert clipped == {clip_small_pixels: 0, clip_small_gradients: 2, clip_small_contributions: 2}
    image[0, 0, 0, 2], gradient[0, 0, 0, 2] = 1, 1.5
    contributions = clip_small_contributions(34)(image, gradient, 1)  # 0.3, 0.4, 0.75
    assert (contributions[0, 0, 0] == 0.5).tolist() == [True, False, False]


CLIPS = (clip_small_pixels, clip_small_gradients, clip_small_contributions)


def test_several_changes_come_in_their_order():
    image, gradient = torch.rand(1, 3, 8, 8), torch.randn(1, 3, 8, 8)
    both = compose(blur_every(1, sigma=1), clip_small_pixels(50))(image, gradient, 1)
    assert torch.equal(both, clip_small_pixels(50)(blur(image, 1), gradient, 1))


@pytest.mark.parametrize("change", [clip_small_pixels(50), clip_small_gradients(50), blur_every(1, sigma=1)])
def test_images_of_a_batch_do_not_meet(change):
    image, gradient = torch.rand(3, 3, 8, 8), torch.randn(3, 3, 8, 8)
    singles = [change(image[n : n + 1], gradient[n : n + 1], 1) for n in range(3)]
    torch.testing.assert_close(change(image, gradient, 1), torch.cat(singles))


@pytest.mark.parametrize(
    "make",
    [
        lambda: total_variation(torch.rand(1, 3, 4, 4), 0),
        lambda: blur(torch.rand(1, 3, 4, 4), -1),
        lambda: blur_every(0, sigma=1),
        lambda: blur_every(4, sigma=float("nan")),
        lambda: clip_small_pixels(101),
        lambda: clip_small_gradients(-1),
        lambda: clip_small_contributions(float("nan")),
    ],
)
def test_impossible_numbers_are_refused(make):
    with pytest.raises(ArgumentError, match="For example"):
        make()
