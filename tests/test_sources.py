"""Names, paths and uploads lead to the bytes of a picture, or to help."""

from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lecturelib import assets, downloads
from lecturelib.errors import DownloadError, ImageInputError
from lecturelib.images import encode_png, load_image
from lecturelib.sources import kind_of, packaged_names

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "holiday in Zürich 사진.png"
    Image.fromarray(PIXELS).save(path)
    return path


@pytest.fixture
def content(picture):
    return picture.read_bytes()


def is_picture(image):
    return np.array_equal(image[0].permute(1, 2, 0).mul(255).round().numpy(), PIXELS)


@pytest.mark.parametrize("name", sorted(assets.PHOTOGRAPHS))
def test_packaged_photographs_load(name):
    image = load_image(name, size=16)
    assert image.shape == (1, 3, 16, 16)
    assert image.std() > 0.01


def test_style_pictures_load_by_name(tmp_path, monkeypatch, content):
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles" / "swirl.png").write_bytes(content)
    monkeypatch.setattr(assets, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(assets, "data_file", lambda name: tmp_path / name)
    assert is_picture(load_image("swirl"))
    assert packaged_names() == [*assets.PHOTOGRAPHS, "swirl"]
    with pytest.raises(ImageInputError, match="Near it: swirl"):
        load_image("swirls")


def test_an_unknown_name_gets_the_nearest_packaged_ones():
    with pytest.raises(ImageInputError, match=r"Received: 'astronout'.\nNear it: astronaut, \w+, \w+"):
        load_image("astronout")


def test_paths_of_every_spelling_load(picture, monkeypatch):
    monkeypatch.setenv("HOME", str(picture.parent))
    monkeypatch.setenv("USERPROFILE", str(picture.parent))
    for path in (picture, str(picture), f"~/{picture.name}"):
        assert is_picture(load_image(path))
    monkeypatch.chdir(picture.parent)
    assert is_picture(load_image(picture.name))


def test_a_packaged_name_wins_over_a_file_and_a_path_over_a_name(tmp_path, monkeypatch, content):
    (tmp_path / "cat").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert not is_picture(load_image("cat"))
    assert is_picture(load_image("./cat"))


@pytest.mark.parametrize("wrong", ["sunest.jpg", "sunset.png", "sunset.jpg ", "sub\\..\\sunset.jpg"])
def test_a_missing_file_gets_the_nearest_three_of_its_folder(tmp_path, wrong):
    for name in ("sunset.jpg", "sunrise.jpg", "notes.txt", "a.csv", "zzz"):
        (tmp_path / name).touch()
    (tmp_path / "sub").mkdir()
    with pytest.raises(ImageInputError, match=r"no such file") as caught:
        load_image(str(tmp_path / wrong))
    listed = str(caught.value).split("folder: ")[1].rstrip(".").split(", ")
    assert listed[0] == "sunset.jpg"
    assert len(listed) == 3


def test_folders_are_refused_with_their_files(tmp_path):
    with pytest.raises(ImageInputError, match=r"(?s)folder, not a picture.*no files"):
        load_image(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageInputError, match="files in that folder: a.png|Files in that folder: a.png"):
        load_image(str(tmp_path))
    with pytest.raises(ImageInputError, match="no such folder"):
        load_image(tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize("name", ["", " ", "a\0b.png", "x" * 5000, "~nobody-of-this-name/a.png", "C:\\cat.jpg", "x/y"])
def test_strange_names_are_refused_with_three_lines(name):
    with pytest.raises(ImageInputError) as caught:
        load_image(name)
    assert len(str(caught.value).split("\n")) == 3
    assert len(str(caught.value)) < 400


def test_a_file_without_permission_is_refused(picture, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(ImageInputError, match="Permission denied"):
        load_image(picture)


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "film.jpg"
    with path.open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(ImageInputError, match=r"film.jpg, 10000 MB"):
        load_image(path)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_load_and_stay(content, kind):
    data = kind(content)
    assert is_picture(load_image(data))
    assert bytes(data) == content


def test_an_address_is_fetched(content, monkeypatch):
    asked = []
    monkeypatch.setattr(downloads, "fetch", lambda url: asked.append(url) or content)
    assert is_picture(load_image("https://pictures.example/a.png"))
    assert is_picture(load_image(" HTTP://pictures.example/b.png\n"))
    assert asked == ["https://pictures.example/a.png", "HTTP://pictures.example/b.png"]
    monkeypatch.setattr(downloads, "fetch", lambda url: b"<!DOCTYPE html><p>")
    with pytest.raises(ImageInputError, match=r"(?s)pictures.example/c.png.*HTML page"):
        load_image("https://pictures.example/c.png")


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://pictures.example/a", "data:image/png;base64,iVBORw0KGgo="]
)
def test_other_schemes_are_refused(url):
    with pytest.raises(DownloadError, match="Only http"):
        load_image(url)


def test_uploads_of_both_generations_load(content):
    eight = ({"name": "a.png", "type": "image/png", "size": 1, "content": memoryview(content), "last_modified": 0},)
    seven = {"a.png": {"metadata": {"name": "a.png", "size": 1}, "content": content}}
    for value in (eight, seven, eight[0]):
        assert is_picture(load_image(value))
        assert is_picture(load_image(SimpleNamespace(value=value)))


def test_the_real_widget_loads(content):
    widget = pytest.importorskip("ipywidgets").FileUpload()
    with pytest.raises(ImageInputError, match="Choose one file"):
        load_image(widget)
    widget.value = (
        {"name": "a.png", "type": "", "size": 1, "content": memoryview(content), "last_modified": datetime.now()},
    )
    assert is_picture(load_image(widget))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ((), "Choose one file"),
        ({}, "Choose one file"),
        (({"name": "a", "content": b"x"}, {"name": "b", "content": b"y"}), "Received: 2 files"),
        (({"name": "a.png", "content": b"", "size": 12_000_000},), "arrived empty"),
        ({"a.png": {"metadata": {"name": "a.png"}, "content": b""}}, "arrived empty"),
        (({"name": "a.png", "content": b"MZ-a program", "type": "image/png"},), "a.png is not a picture"),
        ((1,), "not the value of an upload"),
        (({"name": "a.png"},), "not the value of an upload"),
        (({"name": "a.png", "content": "text"},), "not the value of an upload"),
        ({"a.png": 3}, "not the value of an upload"),
    ],
)
def test_uploads_without_one_picture_are_refused(value, message):
    with pytest.raises(ImageInputError, match=message):
        load_image(SimpleNamespace(value=value))


@pytest.mark.parametrize("source", [None, 3, 0.5, [[0.1, 0.2]], {1, 2}, object(), SimpleNamespace(value=3), load_image])
def test_other_things_are_refused_with_what_is_possible(source):
    with pytest.raises(ImageInputError, match=r"path.*array or a tensor"):
        load_image(source)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isom", "video"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"\xef\xbb\xbf\n<!DOCTYPE HTML><svg>", "HTML page"),
        (b"<html lang='en'>", "HTML page"),
        (b"%PDF-1.7\n", "PDF"),
        (b"GIF89a\x01\0\x01\0", "GIF"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"MM\0*\0\0\0\x08", "TIFF"),
        (b"PK\x03\x04\x14\0", "zip"),
        (b"BM\x36\0", "BMP"),
        ("name,größe\n사진,3\n".encode(), "text"),
        (("가" * 1000).encode(), "text"),
        (bytes(range(128, 256)), "unknown kind"),
        (bytes(100), "unknown kind"),
        (b"", "empty file"),
    ],
)
def test_what_is_not_a_picture_is_named(tmp_path, data, kind):
    assert kind_of(data) == kind
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(
        ImageInputError, match=rf"photo.jpg is not a picture in JPEG, PNG or WebP.\nReceived: {kind}, \d+"
    ):
        load_image(path)


def test_heic_and_avif_say_how_to_convert():
    with pytest.raises(ImageInputError, match=r"(?s)iPhone.*JPEG"):
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0")
    with pytest.raises(ImageInputError, match="Export it as JPEG"):
        load_image(b"\0\0\0\x18ftypavif\0\0\0\0")


def test_a_wrong_ending_does_not_matter(tmp_path):
    (tmp_path / "really_png.jpg").write_bytes(encode_png(load_image(PIXELS)))
    assert is_picture(load_image(tmp_path / "really_png.jpg"))
