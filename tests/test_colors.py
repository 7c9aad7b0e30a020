import pytest
import torch

from lecturelib import load_image
from lecturelib.colors import from_yiq, keep_colors, match_colors, to_yiq
from lecturelib.errors import ArgumentError, ImageInputError


def pale(seed: int, height: int = 12, width: int = 16) -> torch.Tensor:
    """Random colors near grey, far from where clipping begins."""
    return 0.4 + 0.2 * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def test_grey_has_brightness_and_no_color():
    found = to_yiq(torch.full((1, 3, 1, 1), 0.3))
    torch.testing.assert_close(found.flatten(), torch.tensor([0.3, 0.0, 0.0]), atol=1e-6, rtol=0)


def test_yiq_of_red_is_the_first_column_and_the_way_back_is_exact():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(to_yiq(red).flatten(), torch.tensor([0.299, 0.595716, 0.211456]))
    images = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(from_yiq(to_yiq(images)), images, atol=1e-12, rtol=0)


def test_kept_colors_are_the_contents_and_the_brightness_is_the_styled_pictures():
    content, styled = pale(1), pale(2)
    kept = to_yiq(keep_colors(content, styled))
    torch.testing.assert_close(kept[:, :1], to_yiq(styled)[:, :1], atol=1e-4, rtol=0)
    torch.testing.assert_close(kept[:, 1:], to_yiq(content)[:, 1:], atol=1e-4, rtol=0)


def test_kept_colors_stay_in_the_range_of_images_and_leave_the_arguments_as_they_were():
    content, styled = torch.rand(1, 3, 8, 8), torch.rand(3, 3, 8, 8)
    before = content.clone(), styled.clone()
    kept = keep_colors(content, styled)
    assert kept.shape == styled.shape and kept.min() >= 0 and kept.max() <= 1
    assert torch.equal(content, before[0]) and torch.equal(styled, before[1])


def test_a_picture_with_its_own_colors_stays_itself():
    image = pale(3)
    torch.testing.assert_close(keep_colors(image, image), image, atol=1e-5, rtol=0)
    torch.testing.assert_close(match_colors(image, image), image, atol=1e-3, rtol=0)


def test_colors_of_pictures_of_different_size_are_refused():
    with pytest.raises(ArgumentError, match="one size"):
        keep_colors(pale(1), pale(2, height=9))


def test_matched_colors_have_mean_and_covariance_of_the_content():
    style, content = pale(4).double(), pale(5, 9, 9).double()
    matched, wanted = match_colors(style, content)[0].flatten(1), content[0].flatten(1)
    torch.testing.assert_close(matched.mean(dim=1), wanted.mean(dim=1), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cov(matched, correction=0), torch.cov(wanted, correction=0), atol=1e-6, rtol=1e-3)


def test_matching_keeps_the_size_of_the_style_and_works_for_grey_pictures():
    style, grey = load_image("swirl", size=32), load_image("camera", size=24)
    assert match_colors(style, grey).shape == style.shape
    spread = match_colors(style, grey)
    assert (spread.amax(dim=1) - spread.amin(dim=1)).mean() < 0.05, "a grey palette has no colors"
    assert match_colors(grey, style).isfinite().all()


def test_what_is_no_image_is_refused():
    with pytest.raises(ImageInputError):
        match_colors(torch.rand(3, 8, 8), pale(1))
    with pytest.raises(ImageInputError):
        keep_colors(pale(1) * 255, pale(2))
