import base64
import io
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from lecturelib.display import curves
from lecturelib.errors import ImageInputError
from lecturelib.fragments import bar_rows, beside, drawn, framed, heading, marked, tiles, words
from lecturelib.images import load_image


class _Elements(HTMLParser):
    """The elements of a piece of HTML, each as its name and attributes, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.found, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def pictures(html: str) -> list[dict]:
    return [attributes for tag, attributes in _Elements(html).found if tag == "img"]


def levels(picture: dict) -> np.ndarray:
    data = base64.b64decode(picture["src"].split("base64,")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_tiles_are_the_images_themselves_with_titles_and_descriptions():
    images = torch.rand(2, 3, 8, 16, generator=torch.Generator().manual_seed(0))
    html = tiles(images, ["first", "<b> & co"], alt="noise", height=100, exact=True)
    first, second = pictures(html)
    assert np.array_equal(levels(first), (images[0] * 255).round().byte().permute(1, 2, 0).numpy())
    assert first["alt"] == "first: noise" and second["alt"] == "<b> & co: noise"
    assert (first["width"], first["height"]) == ("200", "100"), "the place is kept free before the picture is there"
    assert "<b> & co" in _Elements(html).text


def test_photographs_travel_in_a_fraction_of_the_data_and_look_the_same():
    photo = load_image("coffee", size=128)
    small, exact = (tiles(photo, alt="coffee", exact=exact) for exact in (False, True))
    assert len(small) < 0.5 * len(exact)
    change = levels(pictures(small)[0]).astype(int) - levels(pictures(exact)[0])
    assert np.abs(change).mean() < 4


def test_tiles_clip_what_lies_outside_and_refuse_what_is_no_image():
    assert levels(pictures(tiles(torch.full((1, 3, 2, 2), 1.2), alt="white"))[0]).min() == 255
    with pytest.raises(ImageInputError, match=r"\(N, 3, H, W\)"):
        tiles(torch.zeros(3, 8, 8), alt="one image without its first axis")


def test_bars_are_as_long_as_their_values():
    html = bar_rows({"cat": 0.5, "dog": 0.25, "cow": 3.0, "owl": -1.0}, width=200)
    widths = [attributes["style"] for tag, attributes in _Elements(html).found if "background: #" in str(attributes)]
    assert [style.split("px")[0].split()[-1] for style in widths] == ["100", "50", "200", "0"]
    text = " ".join(_Elements(html).text)
    assert "cat" in text and "0.250" in text


def test_text_is_never_taken_for_html():
    for html in (heading("<script>"), words("<script>"), bar_rows({"<script>": 1.0})):
        assert "script" not in [tag for tag, _ in _Elements(html).found]
        assert "<script>" in _Elements(html).text


def test_a_figure_becomes_one_described_picture():
    (picture,) = pictures(drawn(curves({"a": [1, 2, 3]}, title="t", x_label="x", y_label="y"), alt='it "rises"'))
    assert picture["alt"] == 'it "rises"' and levels(picture).std() > 5


def test_parts_stand_beside_each_other_in_their_order():
    html = beside(heading("left"), heading("right"))
    assert html.index("left") < html.index("right") and html.startswith('<div style="display: flex')


@pytest.mark.parametrize(
    ("box", "inside", "count"),
    [((2, 2, 8, 10), (5, 5), 48 - 8), ((-5, -5, 50, 50), (8, 8), 16 * 24 - 12 * 20), ((0, 0, 3, 3), (8, 8), 9)],
)
def test_a_frame_is_two_pixels_wide_inside_the_box_and_cut_at_the_border(box, inside, count):
    image = torch.full((1, 3, 16, 24), 0.5)
    changed = (framed(image, box) != image).any(dim=1)[0]
    assert int(changed.sum()) == count and not changed[inside]


@pytest.mark.parametrize(
    ("at", "size", "corner"),
    [((50, 25), "width: 16px; height: 16px", "margin: -108px 0 92px 42px"),
     ((10, 20, 60, 90), "width: 140px; height: 100px", "margin: -180px 0 80px 40px"),
     ((60, 90, 10, 20), "width: 140px; height: 100px", "margin: -180px 0 80px 40px")],
)  # fmt: skip
def test_a_mark_lies_on_the_image_where_it_belongs_and_moves_nothing_below(at, size, corner):
    html = marked(torch.zeros(1, 3, 4, 4), "<b>", at, alt="black", height=200)
    assert size in html and corner in html and "&lt;b&gt;" in html
    above, below = -int(corner.split("px")[0].split("-")[1]), int(corner.split()[3].removesuffix("px"))
    assert above + below + int(size.split()[-1].removesuffix("px")) == 0
