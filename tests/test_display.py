import base64
import io
import re

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from lecturelib import display, load_image
from lecturelib.display import as_output, bars, boxes, grid, overlay, scatter, show, thumbnails
from lecturelib.errors import ArgumentError, ImageInputError


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 12, 16, generator=torch.Generator().manual_seed(0))


def shown(monkeypatch, *arguments, **options) -> dict[str, str]:
    found = []
    monkeypatch.setattr(display, "display", lambda data, raw: found.append(data))
    assert show(*arguments, **options) is None
    return found[0]


def test_show_gives_html_with_the_alternative_text_and_the_bare_picture(monkeypatch):
    output = shown(monkeypatch, images(), ["one", "two"], title="Both", alt='Two "pictures" of <noise>')
    assert 'alt="Two &quot;pictures&quot; of &lt;noise&gt;"' in output["text/html"]
    (kind,) = (kind for kind in output if kind.startswith("image/"))
    inside = re.search(r"data:image/\w+;base64,([^\"]+)", output["text/html"]).group(1)
    bare, described = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(float)
        for data in (output[kind], inside)
    )
    assert bare.shape == described.shape and bare.std() > 10 and np.abs(bare - described).mean() < 10


def test_the_alternative_text_is_made_of_the_titles_by_default(monkeypatch):
    assert shown(monkeypatch, images(), ["one", "two"], title="Both")["text/plain"] == "Both. one, two"


def test_photographs_are_stored_as_jpeg_and_sharp_maps_as_png():
    drawing = as_output(grid(torch.rand(8, 12, 12)), "eight maps of noise")
    assert "image/png" in drawing and "image/jpeg" in as_output(grid(load_image("cat")), "a photograph")


def test_grid_shows_the_pixels_themselves():
    picture = torch.zeros(1, 3, 2, 2)
    picture[0, 0] = 1
    drawn = grid(picture).axes[0].get_images()[0].get_array()
    assert np.array_equal(drawn, np.tile([1.0, 0, 0], (2, 2, 1)))


def test_maps_share_one_scale_which_is_centered_on_zero_when_they_are_signed():
    figure = grid(torch.tensor([[[-1.0, 0.5]], [[3.0, 0.0]]]))
    drawn = [axis.get_images()[0] for axis in figure.axes[:2]]
    assert [image.get_clim() for image in drawn] == [(-3, 3), (-3, 3)] and drawn[0].get_cmap().name == display.SIGNED
    unsigned = grid(torch.tensor([[1.0, 4.0]])).axes[0].get_images()[0]
    assert unsigned.get_clim() == (1, 4) and unsigned.get_cmap().name == display.UNSIGNED


def test_many_pictures_are_the_tiles_of_one():
    pictures = torch.rand(14, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    (axis,) = grid(pictures, columns=4).axes
    drawn = torch.from_numpy(np.array(axis.get_images()[0].get_array())).permute(2, 0, 1)
    torch.testing.assert_close(drawn[:, 6:11, 8:15], pictures[5])  # row 1, column 1: gaps of one pixel
    assert drawn.shape == (3, 4 * 5 + 3, 4 * 7 + 3)
    assert (drawn[:, 5] == 1).all()
    maps = grid(torch.arange(13.0)[:, None, None].expand(13, 2, 2), columns=5)
    drawn = maps.axes[0].get_images()[0]
    assert drawn.get_clim() == (0, 12)
    assert drawn.get_array().mask[2].all()


def test_a_constant_map_is_drawn_and_a_map_with_nan_is_refused():
    grid(torch.full((1, 4, 4), 2.0))
    with pytest.raises(ArgumentError, match="not finite"):
        grid(torch.tensor([[float("nan"), 1.0]]))


@pytest.mark.parametrize("wrong", [torch.rand(1, 4, 4, 4), torch.rand(5), torch.rand(1, 1, 3, 4, 4)])
def test_wrong_shapes_are_refused_with_advice(wrong):
    with pytest.raises(ImageInputError, match="For the channels of a layer"):
        grid(wrong)


def test_an_image_out_of_range_is_refused_rather_than_hidden():
    with pytest.raises(ImageInputError, match=r"\[0, 1\]"):
        grid(images() * 2)


def test_overlay_is_an_image_and_colors_follow_the_map():
    heat = torch.zeros(1, 3, 4)
    heat[0, 0, 0], heat[0, 2, 3] = 1, -1
    mixed = overlay(torch.full((1, 3, 12, 16), 0.5), heat, strength=1)
    assert mixed.shape == (1, 3, 12, 16) and mixed.min() >= 0 and mixed.max() <= 1
    assert mixed[0, 0, 0, 0] > mixed[0, 2, 0, 0] and mixed[0, 2, -1, -1] > mixed[0, 0, -1, -1]  # red up, blue down
    torch.testing.assert_close(overlay(images(1), heat[:1], strength=0)[0, 0], images(1)[0].mean(dim=0))


def test_boxes_are_drawn_around_their_pixels():
    (patch,) = boxes(images(1), [(2, 3, 7, 9)]).axes[0].patches
    assert patch.get_xy() == (2.5, 1.5) and (patch.get_width(), patch.get_height()) == (6, 5)


def test_plots_carry_their_numbers():
    figure = bars({"a": 0.25, "b": 0.5}, title="t", x_label="x")
    assert [bar.get_width() for bar in figure.axes[0].patches] == [0.25, 0.5]
    points, labels = torch.rand(9, 2), torch.arange(9) % 3
    figure = scatter(points, labels, ["a", "b", "c"], title="t")
    assert sum(len(group.get_offsets()) for group in figure.axes[0].collections) == 9
    assert isinstance(thumbnails(points[:2], images(2), title="t"), Figure)


def test_drawing_changes_no_global_style_and_opens_no_window(monkeypatch):
    before = dict(matplotlib.rcParams)
    shown(monkeypatch, images())
    assert dict(matplotlib.rcParams) == before
