"""Files and PIL images become upright RGB in [0, 1]; what is saved is never overwritten."""

import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lecturelib import images
from lecturelib.errors import ArgumentError, ImageInputError
from lecturelib.images import encode_png, load_image, require_image, resize, save_image, to_array

CORNERS = np.zeros((4, 6, 3), np.uint8)  # red, green, blue, white, clockwise from the upper left
CORNERS[:2, :3], CORNERS[:2, 3:], CORNERS[2:, 3:], CORNERS[2:, :3] = (
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
)


def file_of(picture, form="PNG", **options):
    file = BytesIO()
    picture.save(file, format=form, **options)
    return file.getvalue()


def pixels(image):
    """One image as nested lists (H, W, 3) of 0 to 255."""
    return image[0].permute(1, 2, 0).mul(255).round().int().tolist()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_file(width, height, *, depth=8, color=2, rows=b"", extra=b""):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def busy():
    """A picture with detail everywhere, so that a missing part shows."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8))


def test_the_normal_form_is_float32_contiguous_and_exact():
    image = load_image(file_of(Image.fromarray(CORNERS)))
    assert image.dtype == torch.float32
    assert image.shape == (1, 3, 4, 6)
    assert image.is_contiguous()
    assert pixels(image) == CORNERS.tolist()


MODES = {
    "1": ("1", [0, 255], [(0, 0, 0), (255, 255, 255)]),
    "L": ("L", [0, 100], [(0, 0, 0), (100, 100, 100)]),
    "LA": ("LA", [(100, 255), (7, 0)], [(100, 100, 100), (255, 255, 255)]),
    "RGB": ("RGB", [(1, 2, 3), (250, 0, 9)], [(1, 2, 3), (250, 0, 9)]),
    "RGBA": ("RGBA", [(1, 2, 3, 255), (255, 0, 255, 0)], [(1, 2, 3), (255, 255, 255)]),
    "half": ("RGBA", [(0, 0, 0, 51), (255, 0, 0, 153)], [(204, 204, 204), (255, 102, 102)]),
    "RGBa": ("RGBa", [(51, 0, 0, 51), (0, 0, 0, 0)], [(255, 204, 204), (255, 255, 255)]),
    "I;16": ("I;16", [0, 13107], [(0, 0, 0), (51, 51, 51)]),
    "I;16B": ("I;16B", [65535, 13107], [(255, 255, 255), (51, 51, 51)]),
    "CMYK": ("CMYK", [(0, 0, 0, 0), (255, 0, 0, 0)], [(255, 255, 255), (0, 255, 255)]),
    "YCbCr": ("YCbCr", [(0, 128, 128), (90, 128, 128)], [(0, 0, 0), (90, 90, 90)]),
    "HSV": ("HSV", [(0, 0, 80), (0, 255, 255)], [(80, 80, 80), (255, 0, 0)]),
}


@pytest.mark.parametrize("name", MODES)
def test_pil_images_of_every_mode_become_rgb_on_white(name):
    mode, values, colors = MODES[name]
    picture = Image.new(mode, (2, 1))
    for column, value in enumerate(values):
        picture.putpixel((column, 0), value)
    before = picture.tobytes()
    image = load_image(picture)
    assert pixels(image) == [[list(color) for color in colors]]
    image.fill_(0)
    assert picture.tobytes() == before
    assert picture.mode == mode


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_files_of_every_mode_agree_with_the_picture_in_memory(mode):
    picture = Image.fromarray(CORNERS).convert("L" if mode == "I;16" else mode).convert(mode)
    torch.testing.assert_close(load_image(file_of(picture)), load_image(picture), rtol=0, atol=0)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_hidden_colors_of_transparent_pixels_stay_hidden(form):
    magenta = Image.new("RGBA", (8, 8), (255, 0, 255, 0))
    assert load_image(file_of(magenta, form, lossless=True)).min() == 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0]), bytes([255, 102])])
def test_palettes_with_transparency_are_laid_on_white(transparency):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 255, 0, 255])
    picture.putpixel((1, 0), 1)
    seen = [255, 153, 255] if transparency == bytes([255, 102]) else [255, 255, 255]
    assert pixels(load_image(file_of(picture, transparency=transparency))) == [[[10, 20, 30], seen]]
    assert pixels(load_image(file_of(picture))) == [[[10, 20, 30], [255, 0, 255]]]


@pytest.mark.parametrize(("mode", "value"), [("L", 7), ("RGB", (7, 8, 9)), ("1", 0)])
def test_a_single_transparent_color_becomes_white(mode, value):
    picture = Image.new(mode, (2, 1), value)
    picture.putpixel((1, 0), 0 if mode == "L" else (0, 0, 0) if mode == "RGB" else 255)
    shown = load_image(file_of(picture, transparency=value))
    assert pixels(shown)[0][0] == [255, 255, 255]
    assert pixels(shown)[0][1] == ([255] * 3 if mode == "1" else [0] * 3)


def test_16_bit_files_use_their_full_range():
    rows = b"\0" + struct.pack(">4H", 0, 1, 30000, 65535)
    image = load_image(png_file(4, 1, depth=16, color=0, rows=rows))
    torch.testing.assert_close(image[0, 0, 0], torch.tensor([0, 1, 30000, 65535]) / 65535)
    hidden = load_image(png_file(4, 1, depth=16, color=0, rows=rows, extra=chunk(b"tRNS", struct.pack(">H", 30000))))
    torch.testing.assert_close(hidden[0, 0, 0], torch.tensor([0, 1, 65535, 65535]) / 65535)
    color = load_image(png_file(1, 1, depth=16, color=2, rows=b"\0" + struct.pack(">3H", 0, 32896, 65535)))
    assert pixels(color) == [[[0, 128, 255]]]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_32_bit_pictures_are_refused_with_advice(mode):
    with pytest.raises(ImageInputError, match=r"(?s)without a stated range.*np.array"):
        load_image(Image.new(mode, (3, 3)))


def test_cmyk_and_grey_jpeg_files_load():
    inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.allclose(pixels(load_image(file_of(inks, "JPEG"))), (255, 0, 0), atol=3)
    assert np.allclose(pixels(load_image(file_of(Image.new("L", (16, 16), 77), "JPEG"))), 77, atol=1)


def test_ycck_jpeg_files_load():
    inks = file_of(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG")
    marker = inks.index(b"Adobe") + 11  # 0: CMYK as it is; 2: its first three inks as YCbCr
    assert inks[marker] == 0
    ycck = inks[:marker] + b"\x02" + inks[marker + 1 :]
    # Y = Cb = Cr = 255 is (255, 120, 255) in R, G, B, which stand for the inks: no red, 255 - 120 green, no blue.
    assert np.allclose(pixels(load_image(ycck))[8][8], (0, 135, 0), atol=3)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(orientation, form):
    upright = np.kron(CORNERS, np.ones((8, 8, 1), np.uint8))
    stored = {  # what a camera stores so that the orientation makes it upright
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    data = file_of(picture, form, exif=exif, **({} if form == "PNG" else {"quality": 100}))
    found = load_image(data)
    assert found.shape == (1, 3, 32, 48)
    centers = np.array(pixels(found))[8::16, 12::24]
    assert np.abs(centers - upright[8::16, 12::24]).max() < 40
    torch.testing.assert_close(load_image(Image.open(BytesIO(data))), found)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\0\1\1\x12\0\2\0\0\0\4ab",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0",
    ],
)
def test_broken_exif_is_ignored(exif):
    data = file_of(Image.fromarray(CORNERS), "WEBP", lossless=True, exif=exif)
    assert pixels(load_image(data)) == CORNERS.tolist()
    assert load_image(file_of(Image.fromarray(CORNERS), "JPEG", exif=exif)).shape == (1, 3, 4, 6)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(form):
    frames = [Image.new("RGB", (5, 4), color) for color in ("red", "blue", "lime")]
    data = file_of(frames[0], form, save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(load_image(data)) == [[[255, 0, 0]] * 5] * 4


@pytest.mark.parametrize(
    ("form", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
def test_a_truncated_file_is_an_error_and_never_half_a_picture(busy, tmp_path, form, options):
    whole = file_of(busy, form, **options)
    end = len(whole) - (12 if form == "PNG" else 0)  # the last 12 bytes of a PNG file only say that it ends
    for length in np.linspace(12, end - 1, 25).astype(int):
        path = tmp_path / f"{length}.jpg"
        path.write_bytes(whole[:length])
        with pytest.raises(ImageInputError, match=rf"{length}.jpg is damaged or incomplete") as caught:
            load_image(path)
        assert len(str(caught.value).split("\n")) == 3
        assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_truncated_pil_image_is_an_error(busy, form):
    whole = file_of(busy, form)
    with pytest.raises(ImageInputError, match="The PIL image is damaged or incomplete"):
        load_image(Image.open(BytesIO(whole[: len(whole) * 2 // 3])))


def test_a_flipped_bit_in_a_png_file_is_found(busy):
    whole = file_of(busy)
    for position in np.linspace(8, len(whole) - 13, 40).astype(int):
        broken = bytearray(whole)
        broken[position] ^= 4
        with pytest.raises(ImageInputError):
            load_image(bytes(broken))


@settings(max_examples=60)
@given(st.data())
def test_mutated_files_are_images_or_image_input_errors(data):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8))
    broken = bytearray(file_of(picture, data.draw(st.sampled_from(["PNG", "JPEG", "WEBP"]))))
    for position in data.draw(st.lists(st.integers(3, len(broken) - 1), min_size=1, max_size=6)):
        broken[position] = data.draw(st.integers(0, 255))
    try:
        image = load_image(bytes(broken))
    except ImageInputError:
        return
    require_image(image)


@pytest.mark.parametrize("side", [7072, 9500, 15_000, 60_000])
def test_decompression_bombs_are_refused_from_their_header(side, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageInputError, match="more than 50 million pixels"):
        load_image(png_file(side, side))


def test_a_large_pil_image_is_refused(monkeypatch):
    monkeypatch.setattr(images, "LARGEST", 100)
    with pytest.raises(ImageInputError, match="more than"):
        load_image(Image.new("L", (101, 1)))
    assert load_image(Image.new("L", (100, 1))).shape == (1, 3, 1, 100)


def test_formats_are_not_guessed_by_other_decoders(busy):
    for form in ("GIF", "TIFF", "BMP", "PPM", "ICO"):
        with pytest.raises(ImageInputError, match="not a picture in JPEG, PNG or WebP"):
            load_image(file_of(busy, form))


def test_the_state_of_warnings_is_left_as_it_was(busy):
    before = list(warnings.filters)
    load_image(file_of(busy))
    assert warnings.filters == before


def test_size_cuts_the_middle_square():
    array = np.zeros((4, 10, 3), np.uint8)
    array[:, 3:7] = 255
    assert load_image(array, size=4).min() == 1
    assert load_image(array.transpose(1, 0, 2), size=4).min() == 1


def test_size_with_two_numbers_covers_and_cuts():
    ramp = torch.linspace(0, 1, 60).expand(1, 3, 40, 60)
    found = load_image(ramp, size=(20, 20))
    assert found.shape == (1, 3, 20, 20)
    torch.testing.assert_close(found[0, 0, 0], ramp[0, 0, 0, 10:50].unflatten(0, (20, 2)).mean(1), atol=5e-3, rtol=0)
    torch.testing.assert_close(load_image(ramp, size=(40, 60)), ramp)
    assert load_image(ramp, size=(7, 90)).shape == (1, 3, 7, 90)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4000), (4000, 1), (3, 2)])
def test_the_thinnest_pictures_can_be_resized(height, width):
    array = np.full((height, width), 0.25, np.float32)
    torch.testing.assert_close(load_image(array, size=32), torch.full((1, 3, 32, 32), 0.25))


@settings(max_examples=40)
@given(st.tuples(*[st.integers(1, 40)] * 4))
def test_resized_images_stay_images_and_keep_grey(sides):
    height, width, new_height, new_width = sides
    image = torch.rand(2, 3, height, width)
    found = require_image(resize(image, (new_height, new_width)))
    assert found.shape == (2, 3, new_height, new_width)
    torch.testing.assert_close(
        resize(torch.full_like(image, 0.3), (new_height, new_width)), torch.full_like(found, 0.3)
    )


def test_resizing_agrees_with_pillow():
    array = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    expected = np.asarray(Image.fromarray(array).resize((20, 20), Image.Resampling.BILINEAR), np.float32)
    found = load_image(array, size=20)[0].permute(1, 2, 0) * 255
    assert np.abs(found.numpy() - expected).max() < 1.01


def test_resizing_is_differentiable():
    image = torch.rand(1, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: resize(x, (3, 4)), image)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, (3,), (3, 0), (1, 2, 3), "64", (10_000, 10_000), 10**9])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ArgumentError, match="size"):
        load_image(CORNERS, size=size)


def test_require_image_returns_the_same_object():
    for image in (torch.rand(2, 3, 4, 5), torch.rand(1, 3, 1, 1, dtype=torch.float64), torch.rand(1, 3, 2, 2) + 5e-7):
        assert require_image(image.clamp(max=1 + 5e-7)) is not None
        assert require_image(image := image.clamp(0, 1)) is image


@pytest.mark.parametrize(
    "wrong",
    [
        CORNERS,
        "cat",
        None,
        torch.rand(3, 4, 5),
        torch.rand(1, 1, 4, 5),
        torch.rand(0, 3, 4, 5),
        torch.zeros(1, 3, 4, 5, dtype=torch.uint8),
        torch.full((1, 3, 4, 5), 1.00001),
        torch.full((1, 3, 4, 5), -0.1),
        torch.full((1, 3, 4, 5), float("nan")),
        torch.full((1, 3, 4, 5), float("inf")),
    ],
    ids=lambda wrong: f"{type(wrong).__name__}-{getattr(wrong, 'shape', '')}",
)
def test_require_image_refuses_everything_else(wrong):
    with pytest.raises(ImageInputError, match=r"\nReceived: "):
        require_image(wrong)


def test_require_image_finds_one_bad_value():
    image = torch.rand(1, 3, 30, 30)
    image[0, 1, 7, 9] = float("nan")
    with pytest.raises(ImageInputError):
        require_image(image)


def test_require_image_knows_the_smallest_side():
    assert require_image(torch.rand(1, 3, 8, 9), smallest=8) is not None
    with pytest.raises(ImageInputError, match=r"(?s)at least 9 pixels.*8 x 9"):
        require_image(torch.rand(1, 3, 8, 9), smallest=9)


def test_to_array_rounds_and_png_files_return_the_same_levels():
    image = torch.arange(256).reshape(1, 1, 16, 16).expand(1, 3, 16, 16) / 255
    assert to_array(image)[0, :, :, 0].ravel().tolist() == list(range(256))
    torch.testing.assert_close(load_image(encode_png(image)), image, rtol=0, atol=0)
    batch = to_array(torch.rand(2, 3, 4, 5, requires_grad=True))
    assert (batch.shape, batch.dtype) == ((2, 4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a.jpeg", "JPEG"), ("사진.webp", "WEBP")]
)
def test_pictures_are_saved_by_their_ending(tmp_path, name, kind):
    image = resize(torch.rand(1, 3, 4, 4), 64)
    path = save_image(image, str(tmp_path / name))
    assert path == tmp_path / name
    with Image.open(path) as written:
        assert written.format == kind
    assert (load_image(path) - image).abs().mean() < (0.0021 if kind == "PNG" else 0.02)


def test_saving_numbers_and_never_overwrites(tmp_path):
    shades = [torch.full((1, 3, 2, 2), level / 255) for level in range(5)]
    paths = [save_image(shade, tmp_path / "cat.png") for shade in shades]
    assert [path.name for path in paths] == ["cat.png", "cat-2.png", "cat-3.png", "cat-4.png", "cat-5.png"]
    for path, shade in zip(paths, shades, strict=True):
        torch.testing.assert_close(load_image(path), shade, rtol=0, atol=0)
    assert len(list(tmp_path.iterdir())) == 5


def test_saving_at_the_same_time_loses_nothing(tmp_path):
    shades = [torch.full((1, 3, 2, 2), level / 255) for level in range(40)]
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda shade: save_image(shade, tmp_path / "cat.png"), shades))
    assert len(set(paths)) == len(list(tmp_path.iterdir())) == 40
    for path, shade in zip(paths, shades, strict=True):
        torch.testing.assert_close(load_image(path), shade, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch, where, error):
    kept = save_image(torch.zeros(1, 3, 2, 2), tmp_path / "cat.png")

    def fail(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        with pytest.raises(ArgumentError if isinstance(error, OSError) else KeyboardInterrupt):
            save_image(torch.ones(1, 3, 2, 2), tmp_path / "cat.png")
    assert list(tmp_path.iterdir()) == [kept]
    assert load_image(kept).max() == 0


def test_saving_refuses_what_it_cannot_do(tmp_path):
    image = torch.rand(1, 3, 4, 4)
    for name in ("a.gif", "a", "a.png.txt"):
        with pytest.raises(ArgumentError, match=r"\.png, \.jpg or \.webp"):
            save_image(image, tmp_path / name)
    with pytest.raises(ArgumentError, match="folder does not exist"):
        save_image(image, tmp_path / "nowhere" / "a.png")
    with pytest.raises(ImageInputError, match=r"(?s)2 images.*image\[:1\]"):
        save_image(image.repeat(2, 1, 1, 1), tmp_path / "a.png")
    with pytest.raises(ImageInputError):
        save_image(image * 255, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
