"""Textures put together from pieces: the cut against brute force, and that nothing is made up."""

import itertools

import pytest
import torch

from lecturelib.errors import ArgumentError, ImageInputError, LectureError
from lecturelib.quilting import grow, min_error_cut, patch_distances, quilt


def all_paths(height: int, width: int) -> torch.Tensor:
    """Every way from top to bottom that moves by one column at most, shape (P, height)."""
    paths = torch.arange(width)[:, None]
    for _ in range(height - 1):
        longer = [torch.cat([paths, paths[:, -1:] + move], dim=1) for move in (-1, 0, 1)]
        paths = torch.cat(longer)
        paths = paths[(paths[:, -1] >= 0) & (paths[:, -1] < width)]
    return paths


def assert_cut_is_best(error: torch.Tensor) -> None:
    rows, paths = torch.arange(len(error)), all_paths(*error.shape)
    path = min_error_cut(error)
    assert path.shape == (len(error),)
    assert (path.diff().abs() <= 1).all()
    torch.testing.assert_close(error[rows, path].sum(), error[rows, paths].sum(dim=1).min(), atol=1e-12, rtol=0)


def test_the_cut_is_that_of_brute_force():
    for height, width in 3 * list(itertools.product(range(1, 7), repeat=2)):
        assert_cut_is_best(torch.rand(height, width, dtype=torch.float64))
        assert_cut_is_best(torch.randint(0, 3, (height, width)).double())


def test_the_cut_is_that_of_brute_force_on_every_small_array_of_zeros_and_ones():
    for values in itertools.product((0.0, 1.0), repeat=8):
        assert_cut_is_best(torch.tensor(values).view(4, 2))


def test_the_cut_follows_a_valley():
    valley = torch.tensor([0, 1, 2, 2, 1, 2, 3])
    error = torch.ones(7, 5).scatter(1, valley[:, None], 0.0)
    assert min_error_cut(error).tolist() == valley.tolist()


def sample(height: int = 32, width: int = 40) -> torch.Tensor:
    """Stripes and noise in 8-bit colors: rows of all kinds, few equal pixels."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    wave = torch.stack([(x / 3).sin(), (y / 4).cos(), ((x + y) / 5).sin()])[None]
    return ((0.5 + 0.4 * wave + 0.05 * torch.rand(wave.shape)).clamp(0, 1) * 255).round() / 255


def triples(image: torch.Tensor) -> set[tuple[float, ...]]:
    return set(map(tuple, image[0].flatten(1).T.tolist()))


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


METHODS = {
    "quilt": lambda image, **options: quilt(image, patch=12, **options),
    "grow": lambda image, **options: grow(image, window=7, **options),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("size", [9, (20, 45)])
def test_every_pixel_stands_somewhere_in_the_sample(method, size):
    image = sample()
    before = image.clone()
    made = method(image, size=size, generator=draw())
    assert made.shape == (1, 3, *((size, size) if isinstance(size, int) else size))
    assert triples(made) <= triples(image)
    assert torch.equal(image, before)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_generator_decides(method):
    image = sample()
    first, again, other = (method(image, size=20, generator=draw(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_pattern_that_repeats_goes_on_without_a_fault(method):
    y, x = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    tile = torch.stack([((x // 2 + y // 3) % 2), (x % 4) / 3, (y % 6) / 5]).float()[
        None
    ]  # repeats every 6 rows, 4 columns
    made = method(tile, size=30, generator=draw())
    assert torch.equal(made[..., 6:, :], made[..., :-6, :])
    assert torch.equal(made[..., 4:], made[..., :-4])


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_constant_sample_stays_constant(method):
    grey = torch.full((1, 3, 16, 16), 0.25)
    assert torch.equal(method(grey, size=30), torch.full((1, 3, 30, 30), 0.25))


def seams(image: torch.Tensor, step: int) -> float:
    """The mean squared jump across the lines at which one patch ends and the next is whole."""
    jumps = (image[..., 1:] - image[..., :-1]).square()
    return jumps[..., step - 1 :: step].mean().item()


def test_seams_are_smaller_than_between_patches_at_random():
    image, patch, overlap = sample(64, 64), 16, 4
    step = patch - overlap
    at_random = torch.cat(
        [
            torch.cat([image[:, :, y : y + step, x : x + step] for y, x in row.tolist()], dim=3)
            for row in torch.randint(0, 64 - patch, (8, 8, 2))
        ],
        dim=2,
    )
    sewn = quilt(image, size=96, patch=patch, overlap=overlap, generator=draw())
    assert seams(sewn, step) < 0.3 * seams(at_random, step)


def test_the_cut_is_better_than_a_straight_edge():
    image = sample(64, 64)
    jump = (image[..., :32, 16:20] - image[..., :32, 40:44]).square().sum(dim=(0, 1))  # two patches that overlap by 4
    path = min_error_cut(jump)
    assert jump[torch.arange(32), path].sum() <= jump.sum(dim=0).min()


def test_patches_of_a_copy_have_distance_0_and_others_do_not():
    image = sample(40, 40)
    assert patch_distances(image[:, :, 5:30, 3:36], image, patch=8, stride=4).max() == 0
    changed = image.clone()
    changed[:, 0] = 1 - changed[:, 0]
    distances = patch_distances(changed, image, patch=8, stride=8)
    assert distances.shape == (25,)
    assert (distances > 0).all()


def test_the_distance_of_patches_is_a_root_mean_square():
    source = torch.zeros(1, 3, 8, 8)
    torch.testing.assert_close(patch_distances(torch.full((1, 3, 8, 8), 0.5), source, patch=4), torch.tensor([0.5]))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: quilt(sample(), size=20, patch=50), ImageInputError),
        (lambda: quilt(sample(), size=20, patch=8, overlap=8), ArgumentError),
        (lambda: quilt(sample(), size=20, patch=8, overlap=0), ArgumentError),
        (lambda: quilt(sample(), size=0), ArgumentError),
        (lambda: quilt(sample(), size=20.5), ArgumentError),
        (lambda: quilt(sample().expand(2, -1, -1, -1), size=20), ImageInputError),
        (lambda: grow(sample(), size=(3, 3, 3)), ArgumentError),
        (lambda: grow(sample(), size=20, window=8), ArgumentError),
        (lambda: grow(sample() * 255, size=20), ImageInputError),
        (lambda: min_error_cut(torch.zeros(3)), ArgumentError),
        (lambda: patch_distances(sample(), sample(8, 8), patch=16), ImageInputError),
    ],
)
def test_wrong_arguments_are_refused_in_words(call, error):
    with pytest.raises(error) as caught:
        call()
    assert isinstance(caught.value, LectureError)
    assert "Received" in str(caught.value)
