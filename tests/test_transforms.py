"""The transforms: what they do with a picture, where their random numbers come from, and that gradients pass."""

import pytest
import torch

from lecturelib.errors import ArgumentError
from lecturelib.transforms import compose, jitter, pad, random_rotate, random_scale

ALL = [jitter(3), random_scale(0.8, 1.2), random_rotate(20), pad(2), compose(jitter(2), pad(1), random_rotate(5))]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_jitter_only_moves_pixels():
    images = torch.rand(2, 3, 9, 7)
    shifts = set()
    for seed in range(60):
        moved = jitter(2)(images, seeded(seed))
        (found,) = [
            (down, right)
            for down in range(-2, 3)
            for right in range(-2, 3)
            if torch.equal(moved, images.roll((down, right), dims=(2, 3)))
        ]
        shifts.add(found)
    assert len(shifts) > 18  # of 25


def test_scaling_keeps_to_its_range():
    sides = {random_scale(0.5, 1.5)(torch.rand(1, 3, 40, 20), seeded(seed)).shape[2:] for seed in range(30)}
    assert all(20 <= height <= 60 and abs(height - 2 * width) <= 2 for height, width in sides)
    assert len(sides) > 10


def test_a_turn_by_nothing_is_nothing():
    images = torch.rand(2, 3, 8, 12)
    torch.testing.assert_close(random_rotate(0)(images, seeded()), images)


def test_a_turn_keeps_shapes_of_pictures_that_are_not_square():
    y, x = torch.meshgrid(torch.arange(60) - 29.5, torch.arange(100) - 49.5, indexing="ij")
    radius = (y**2 + x**2).sqrt()
    disk = (radius < 20).float().expand(1, 3, -1, -1)
    for seed in range(5):
        turned = random_rotate(90)(disk, seeded(seed))
        assert (turned - disk)[..., radius < 28].abs().mean() < 0.03


def test_a_turn_is_around_the_middle_and_in_degrees():
    images = torch.zeros(1, 3, 41, 41)
    images[..., 20, 35] = 1
    seen = set()
    for seed in range(10):
        y, x = divmod(int(random_rotate(30)(images, seeded(seed))[0, 0].argmax()), 41)
        angle = float(torch.atan2(torch.tensor(y - 20.0), torch.tensor(x - 20.0)).rad2deg())
        assert abs(angle) <= 32
        assert (y - 20) ** 2 + (x - 20) ** 2 == pytest.approx(15**2, rel=0.12)
        seen.add(round(angle))
    assert len(seen) > 4


def test_a_frame_is_grey():
    framed = pad(2)(torch.zeros(1, 3, 4, 5), None)
    assert framed.shape == (1, 3, 8, 9)
    assert framed.sum() == 0.5 * 3 * (8 * 9 - 4 * 5)


@pytest.mark.parametrize("transform", ALL)
def test_one_seed_is_one_change_and_torchs_own_numbers_are_not_used(transform):
    images = torch.rand(2, 3, 12, 12)
    before = torch.get_rng_state()
    assert torch.equal(transform(images, seeded(4)), transform(images, seeded(4)))
    assert torch.equal(torch.get_rng_state(), before)
    transform(images, None)


@pytest.mark.parametrize("transform", ALL)
def test_images_of_a_batch_are_changed_alike_and_gradients_pass(transform):
    images = torch.rand(2, 3, 12, 12, requires_grad=True)
    together = transform(images, seeded())
    torch.testing.assert_close(together[1:], transform(images[1:], seeded()))
    (gradient,) = torch.autograd.grad(together.sum(), images)
    assert (gradient != 0).float().mean() > 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: jitter(-1),
        lambda: jitter(1.5),
        lambda: random_scale(0, 1),
        lambda: random_scale(2, 1),
        lambda: random_rotate(-3),
        lambda: pad(True),
    ],
)
def test_impossible_changes_are_refused(make):
    with pytest.raises(ArgumentError, match="For example"):
        make()
