"""Numbers about maps."""

import pytest
import torch
from scipy import stats

from lecturelib.errors import ArgumentError
from lecturelib.maps import drop_inside_outside, energy_in_box, rank_agreement, to_pixels


def by_hand(heat, window, stride, height, width):
    """The mean over the windows that cover each pixel, NaN where none does."""
    total, count = torch.zeros(len(heat), height, width), torch.zeros(height, width)
    for row in range(heat.shape[1]):
        for column in range(heat.shape[2]):
            place = (slice(row * stride, row * stride + window), slice(column * stride, column * stride + window))
            total[:, *place] += heat[:, row, column, None, None]
            count[place] += 1
    return total / count


@pytest.mark.parametrize(
    ("window", "stride", "height", "width"), [(5, 2, 19, 24), (4, 4, 17, 18), (3, 5, 23, 19), (9, 1, 9, 12)]
)
def test_a_pixel_gets_the_mean_over_the_windows_that_cover_it(window, stride, height, width):
    heat = torch.rand(2, (height - window) // stride + 1, (width - window) // stride + 1)
    pixels = to_pixels(heat, window=window, stride=stride, size=(height, width))
    expected = by_hand(heat, window, stride, height, width)
    assert pixels.isfinite().all()
    torch.testing.assert_close(torch.where(expected.isnan(), expected, pixels), expected, equal_nan=True)


def test_pixels_that_no_window_covers_take_the_nearest_window():
    pixels = to_pixels(torch.tensor([[[1.0, 2.0]]]), window=2, stride=4, size=(2, 8))
    torch.testing.assert_close(pixels[0], torch.tensor([1.0, 1, 1, 2, 2, 2, 2, 2]).repeat(2, 1))


def test_a_constant_map_stays_constant():
    torch.testing.assert_close(
        to_pixels(torch.full((1, 5, 5), 3.0), window=7, stride=3, size=20), torch.full((1, 20, 20), 3.0)
    )


@pytest.mark.parametrize("options", [{"size": 30}, {"stride": 0}, {"window": -1}, {"stride": 2}])
def test_a_map_of_another_window_or_size_is_refused(options):
    with pytest.raises(ArgumentError):
        to_pixels(torch.rand(1, 5, 5), **{"window": 7, "stride": 3, "size": 20, **options})


def test_a_box_by_hand():
    heat = torch.tensor([[[4.0, 2.0, 0.0], [-1.0, 1.0, -2.0]]])
    inside, outside = drop_inside_outside(heat, (0, 0, 1, 2))
    assert (inside.item(), outside.item()) == (3.0, -0.5)
    assert energy_in_box(heat, (0, 0, 1, 2)).item() == pytest.approx(6 / 7)
    assert energy_in_box(-torch.ones(1, 2, 3), (0, 0, 1, 2)).item() == 0


@pytest.mark.parametrize("box", [(0, 0, 3, 2), (1, 0, 1, 2), (-1, 0, 1, 2), (0, 2, 1, 1)])
def test_a_box_lies_inside_of_the_map(box):
    for ask in (drop_inside_outside, energy_in_box):
        with pytest.raises(ArgumentError, match="box"):
            ask(torch.rand(1, 2, 3), box)


def test_the_whole_map_has_no_outside():
    with pytest.raises(ArgumentError, match="outside"):
        drop_inside_outside(torch.rand(1, 2, 3), (0, 0, 2, 3))


def test_rank_agreement_is_spearmans_also_with_equal_values():
    a, b = torch.rand(4, 6, 7), torch.rand(4, 6, 7)
    b[1:3] = a[1:3] * 3 + b[1:3]
    a[2:] = (a[2:] * 5).round()
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(rank_agreement(a, b), torch.tensor(expected, dtype=torch.float32), rtol=0, atol=1e-6)


def test_maps_agree_with_themselves_and_a_flat_map_with_nothing_else():
    a = torch.rand(1, 5, 5)
    assert rank_agreement(a, a.exp()).item() == pytest.approx(1)
    assert rank_agreement(a, -a).item() == pytest.approx(-1)
    assert rank_agreement(a, torch.zeros(1, 5, 5)).item() == 0
    assert rank_agreement(torch.zeros(1, 5, 5), torch.zeros(1, 5, 5)).item() == 1


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ArgumentError, match="place by place"):
        rank_agreement(torch.rand(1, 5, 5), torch.rand(1, 5, 4))
