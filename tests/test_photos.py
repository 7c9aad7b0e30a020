import struct

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from lecturelib import assets, photos
from lecturelib.errors import ArgumentError, DownloadError, ImageInputError
from lecturelib.images import load_image
from lecturelib.photos import (
    COLOR,
    GREY,
    TEXTURES,
    Collection,
    digits,
    folder,
    photo_crops,
    photograph_names,
    torchvision_photos,
)

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(path, color, *, size=(20, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)
    return path


@pytest.fixture(scope="module")
def crops():
    return photo_crops(size=16, per_photo=5)


# Collection


def test_a_collection_gives_images_whatever_the_index():
    images = torch.arange(5.0).view(5, 1, 1, 1).expand(5, 3, 2, 2) / 5
    collection = Collection(images, torch.tensor([0, 0, 1, 1, 1]), ["cat", "dog"])
    assert len(collection) == 5
    for indices, expected in [
        (3, [3]),
        (-1, [4]),
        ([4, 0], [4, 0]),
        (slice(1, 3), [1, 2]),
        (torch.tensor(2), [2]),
        (torch.tensor([[2, 1], [0, 4]]), [2, 1, 0, 4]),
        (collection.labels == 1, [2, 3, 4]),
    ]:
        torch.testing.assert_close(collection[indices], images[expected])
    assert collection[torch.tensor([], dtype=torch.long)].shape == (0, 3, 2, 2)
    with pytest.raises(IndexError):
        collection[5]


# Packaged photographs


def test_every_packaged_scene_has_one_name():
    names = photograph_names()
    assert len(set(names)) == len(names) == 20
    assert set(assets.PHOTOGRAPHS) - set(names) == {"chelsea", "motorcycle_right"}
    assert assets.photograph_file("cat") == assets.photograph_file("chelsea")
    assert photograph_names(first="coffee")[:2] == ["coffee", names[0]] and len(photograph_names(first="coffee")) == 20


def test_color_photographs_have_colors_and_the_others_have_none():
    for name in photograph_names():
        spread = load_image(name, size=64).std(dim=1).mean()
        assert (spread > 0.005) == (name in COLOR), name
        assert (spread < 1e-6) == (name in GREY + TEXTURES), name


def test_crops_are_images_with_the_label_of_their_photograph(crops):
    assert crops.images.shape == (100, 3, 16, 16)
    assert crops.images.dtype == torch.float32
    assert crops.labels.dtype == torch.int64
    assert crops.images.min() >= 0
    assert crops.images.max() <= 1
    assert crops.names == photograph_names()
    assert torch.bincount(crops.labels).tolist() == [5] * 20


def test_the_label_is_the_photograph_from_which_a_crop_was_cut(monkeypatch):
    colors = {"red": RED, "green": GREEN, "blue": BLUE}
    monkeypatch.setattr(photos, "load_image", lambda name: load_image(Image.new("RGB", (50, 40), colors[name])))
    found = photo_crops(["blue", "red", "green"], size=8, per_photo=4)
    expected = torch.tensor([colors[found.names[label]] for label in found.labels]).view(12, 3, 1, 1) / 255
    torch.testing.assert_close(found.images, expected.expand(12, 3, 8, 8))


def test_a_crop_is_a_square_of_the_photograph_a_quarter_to_a_half_of_its_side_and_not_mirrored(monkeypatch):
    # Red grows rightwards by 1 per 200 pixels and green downwards: a crop's slope is its side.
    y, x = np.mgrid[:100, :200] / 200
    slopes = load_image(np.stack([x, y, 0 * x], axis=-1))
    monkeypatch.setattr(photos, "load_image", lambda name: slopes)
    found = photo_crops(["slopes"], size=10, per_photo=200).images
    inner = found[:, :, 2:8, 2:8]  # antialiasing bends the outermost pixels
    rightwards = (inner[:, 0, :, -1] - inner[:, 0, :, 0]).mean(dim=1) / 5 * 10 * 200
    downwards = (inner[:, 1, -1] - inner[:, 1, 0]).mean(dim=1) / 5 * 10 * 200
    torch.testing.assert_close(rightwards, downwards, atol=0.05, rtol=0)
    assert 24.9 < rightwards.min() < 27
    assert 48 < rightwards.max() < 50.1
    left = inner[:, 0].mean(dim=(1, 2)) * 200 - rightwards / 2  # places reach from edge to edge
    assert left.min() < 5
    assert left.max() > 140


def test_a_crop_that_needs_no_resizing_is_found_pixel_by_pixel_in_its_photograph(monkeypatch):
    noise = {name: torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(len(name))) for name in ("a", "bb")}
    monkeypatch.setattr(photos, "load_image", noise.get)
    found = photo_crops(list(noise), size=5, per_photo=80)  # sides are 5 to 10
    windows = torch.stack([image[0].unfold(1, 5, 1).unfold(2, 5, 1) for image in noise.values()])
    exact = (windows.movedim(1, 3)[None] - found.images[:, None, None, None]).abs().amax(dim=(4, 5, 6)) < 1e-6
    crop, photograph, _, _ = exact.nonzero().unbind(dim=1)
    assert len(crop) >= 6
    assert torch.equal(photograph, found.labels[crop])


def test_the_seed_decides_the_crops_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    first, again, other = (photo_crops(["cat", "coins"], size=16, per_photo=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(again.images, first.images)
    assert not torch.equal(other.images, first.images)


def test_relit_crops_show_the_same_places_with_other_contrast_and_brightness():
    plain, relit = (photo_crops(["cat", "coins"], size=16, per_photo=20, relight=relight) for relight in (False, True))
    assert torch.equal(relit.labels, plain.labels)
    assert relit.images.min() >= 0
    assert relit.images.max() <= 1
    slopes = []
    for old, new in zip(plain.images, relit.images, strict=True):
        free = (new > 0) & (new < 1)  # not cut off at black or white
        slope, shift = np.polyfit(old[free].numpy(), new[free].numpy(), 1)
        torch.testing.assert_close(new[free], old[free] * slope + shift, atol=1e-3, rtol=0)
        slopes.append(slope)
    assert 0.49 < min(slopes) < 0.65
    assert 1.05 < max(slopes) < 1.21


def test_there_are_more_than_a_thousand_crops_by_default():
    crops = photo_crops()
    assert crops.images.shape == (1200, 3, 64, 64)
    assert torch.bincount(crops.labels).tolist() == [60] * 20


# Digits


def test_digits_are_scikit_learns_in_the_range_of_images():
    found, original = digits(), load_digits()
    assert found.images.shape == (1797, 3, 8, 8)
    assert found.images.dtype == torch.float32
    assert found.images.min() == 0
    assert found.images.max() == 1
    assert [found.names[label] for label in found.labels[:12]] == list("012345678901")
    np.testing.assert_array_equal(found.images[:, 1].flatten(1).numpy() * 16, original.data)
    np.testing.assert_array_equal(found.labels.numpy(), original.target)


# A folder


def test_subfolders_are_classes(tmp_path):
    picture(tmp_path / "dog" / "b.png", BLUE)
    picture(tmp_path / "cat" / "deep" / "a.PNG", RED)
    picture(tmp_path / "cat" / "c.png", GREEN)
    (tmp_path / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "cat" / "._c.png").write_bytes(b"left by another system")
    found = folder(tmp_path, size=8)
    assert found.names == ["cat", "dog"]
    assert found.skipped == []
    assert found.labels.tolist() == [0, 0, 1]
    assert found.labels.dtype == torch.int64
    expected = torch.tensor([GREEN, RED, BLUE]).view(3, 3, 1, 1) / 255
    torch.testing.assert_close(found.images, expected.expand(3, 3, 8, 8))


def test_a_flat_folder_is_one_class_of_its_name(tmp_path):
    for name in ("b", "a"):
        picture(tmp_path / "holiday" / f"{name}.png", RED if name == "a" else BLUE)
    found = folder(str(tmp_path / "holiday"), size=4)
    assert found.names == ["holiday"]
    assert found.labels.tolist() == [0, 0]
    torch.testing.assert_close(found.images[:, 0, 0, 0], torch.tensor([1.0, 0.0]))


def test_a_picture_is_cut_to_its_middle_square(tmp_path):
    stripes = np.zeros((4, 12, 3), dtype=np.uint8)
    stripes[:, 4:8] = RED
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    torch.testing.assert_close(
        folder(tmp_path, size=4).images, torch.tensor(RED).view(1, 3, 1, 1).expand(1, 3, 4, 4) / 255
    )


def test_broken_pictures_are_skipped_named_and_told_once(tmp_path):
    picture(tmp_path / "x" / "good.png", RED)
    whole = picture(tmp_path / "x" / "whole.jpg", BLUE, size=(200, 200)).read_bytes()
    (tmp_path / "x" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "page.jpg").write_text("<html>not found</html>")
    (tmp_path / "y" / "empty.png").write_bytes(b"")
    (tmp_path / "y" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.warns(UserWarning, match=r"4 of 6 pictures cannot be read.*half\.jpg") as told:
        found = folder(tmp_path, size=8)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert [name.replace("\\", "/") for name in found.skipped] == [
        "x/half.jpg",
        "y/empty.png",
        "y/page.jpg",
        "y/phone.heic",
    ]
    assert found.names == ["x", "y"]
    assert found.labels.tolist() == [0, 0]
    assert len(found.images) == len(found) == 2


def test_a_limit_is_spread_over_the_classes(tmp_path):
    for index in range(6):
        picture(tmp_path / "ab"[index // 3] / f"{index}.png", (0, 0, 51 * index))
    found = folder(tmp_path, size=4, limit=4)
    torch.testing.assert_close(found.images[:, 2, 0, 0], torch.tensor([0.0, 0.2, 0.6, 0.8]))
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert len(folder(tmp_path, size=4, limit=100)) == 6


def test_a_folder_without_readable_pictures_is_an_error_of_ours(tmp_path):
    with pytest.raises(ArgumentError, match="no such folder"):
        folder(tmp_path / "missing")
    with pytest.raises(ArgumentError, match="no pictures in this folder"):
        folder(tmp_path)
    (tmp_path / "one.jpg").write_bytes(b"broken")
    with pytest.raises(ImageInputError, match=r"(?s)None of 1 .*one\.jpg"):
        folder(tmp_path)


# torchvision


def test_caltech101_is_read_as_torchvision_lays_it_out(tmp_path):
    for name, color in (("BACKGROUND_Google", GREEN), ("wrench", RED), ("anchor", BLUE)):
        picture(tmp_path / "caltech101" / "101_ObjectCategories" / name / "image_0001.jpg", color)
    found = torchvision_photos("Caltech101", tmp_path, size=8)
    assert found.names == ["anchor", "wrench"]
    assert found.labels.tolist() == [0, 1]
    torch.testing.assert_close(found.images[:, 0].mean(dim=(1, 2)), torch.tensor([0.0, 1.0]), atol=0.02, rtol=0)


def test_imagenette_is_read_as_torchvision_lays_it_out(tmp_path):
    place = tmp_path / "imagenette2-160" / "val"
    picture(place / "n03425413" / "a.JPEG", RED)
    picture(place / "n01440764" / "b.JPEG", BLUE)
    (place / "n01440764" / "c.JPEG").write_bytes(b"broken")
    with pytest.warns(UserWarning, match=r"1 of 3 .*Imagenette\[1\]"):
        found = torchvision_photos("Imagenette", tmp_path, size=8)
    assert found.names == ["tench", "gas pump"]
    assert found.labels.tolist() == [0, 1]
    assert found.skipped == ["Imagenette[1]"]
    assert found.images[1, 0].min() > 0.9 > 0.1 > found.images[0, 0].max()


def write_mnist(root, *, count):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    pixels = np.arange(count, dtype=np.uint8).repeat(28 * 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, count) + bytes(i % 10 for i in range(count))
        )
    return raw


def test_mnist_is_read_as_torchvision_lays_it_out(tmp_path):
    write_mnist(tmp_path, count=12)
    found = torchvision_photos("MNIST", tmp_path, size=28, limit=6)
    assert found.images.shape == (6, 3, 28, 28)
    assert found.names == list("0123456789")
    assert found.labels.tolist() == [0, 2, 4, 6, 8, 0]
    torch.testing.assert_close(found.images[:, 2, 5, 5] * 255, torch.tensor([0.0, 2, 4, 6, 8, 10]))


def test_a_damaged_dataset_is_a_download_error(tmp_path):
    raw = write_mnist(tmp_path, count=12)
    (raw / "t10k-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 12, 28, 28) + b"short")
    with pytest.raises(DownloadError, match="MNIST could not be read"):
        torchvision_photos("MNIST", tmp_path)


@pytest.mark.parametrize("name", ["Caltech101", "Imagenette", "MNIST"])
def test_a_missing_dataset_says_what_works_offline_and_leaves_no_folder(name, tmp_path):
    with pytest.raises(DownloadError, match=r"(?s)download=True once.*photo_crops\(\).*digits\(\).*folder"):
        torchvision_photos(name, tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["Caltech101", "Imagenette", "MNIST"])
def test_a_download_without_network_is_a_download_error(name, tmp_path, monkeypatch):
    def no_network(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("socket.socket.connect", no_network)
    with pytest.raises(DownloadError, match=r"(?s)could not be fetched.*offline, photo_crops\(\)"):
        torchvision_photos(name, tmp_path, download=True)


def test_wrong_arguments_help(tmp_path):
    picture(tmp_path / "a.png", RED)
    with pytest.raises(ArgumentError, match="Try Imagenette"):
        torchvision_photos("imagenet", tmp_path)
    for call in (
        lambda: photo_crops(per_photo=0),
        lambda: photo_crops(size=1.5),
        lambda: folder(tmp_path, size=0),
        lambda: folder(tmp_path, limit=0),
        lambda: folder(tmp_path, limit=True),
    ):
        with pytest.raises(ArgumentError, match="whole number above 0"):
            call()
    with pytest.raises(ImageInputError, match="cat"):
        photo_crops(["katt"])
