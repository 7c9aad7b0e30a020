import pytest
import torch

from lecturelib.patterns import correlation_length
from lecturelib.regularizers import blur


def test_a_wider_stripe_has_a_longer_correlation():
    x = torch.arange(128.0).expand(1, 3, 128, 128)
    lengths = [correlation_length(0.5 + 0.5 * (2 * torch.pi * x / period).sin()).item() for period in (8, 16, 32)]
    # Averaged over the directions, the autocorrelation of a wave is the Bessel function J0(2 pi r / period).
    assert lengths == pytest.approx([0.279 * 8, 0.279 * 16, 0.279 * 32], rel=0.12)
    across = correlation_length((0.5 + 0.5 * (2 * torch.pi * x / 16).sin()).mT.contiguous())
    assert across.item() == pytest.approx(lengths[1], rel=1e-4)


def test_the_correlation_of_noise_ends_at_the_pixel_and_constants_have_none():
    images = torch.cat([torch.rand(1, 3, 64, 64), torch.full((1, 3, 64, 64), 0.3)])
    noise, constant = correlation_length(images).tolist()
    assert 0.5 < noise < 0.75
    assert constant == 0


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_the_correlation_length_of_blurred_noise_is_twice_the_blur(sigma):
    noise = torch.rand(1, 3, 256, 256, dtype=torch.float64)
    # The autocorrelation of noise after a Gaussian blur is exp(-r^2 / (4 sigma^2)).
    assert correlation_length(blur(noise, sigma)).item() == pytest.approx(2 * sigma, rel=0.12)


def test_correlation_lengths_of_a_batch_and_of_a_flat_picture():
    noise = torch.rand(1, 3, 128, 128)
    images = torch.cat([blur(noise, 2.0), torch.full_like(noise, 0.3), noise])
    lengths = correlation_length(images)
    assert lengths.shape == (3,) and lengths[1] == 0
    torch.testing.assert_close(lengths[0], correlation_length(images[:1])[0])
    assert lengths[2] < 1
