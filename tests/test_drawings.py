import pytest
import torch

from lecturelib import load_model
from lecturelib.drawings import elephant
from lecturelib.errors import ArgumentError


@pytest.mark.parametrize("size", [32, 96, 130])
def test_a_drawing_is_an_image_of_the_size_that_was_asked_for(size):
    image = elephant(size=size)
    assert image.shape == (1, 3, size, size)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < 0.3
    assert 0.6 < image.max() <= 1


def test_it_is_the_same_for_the_same_seed_and_without_texture_for_all():
    assert torch.equal(elephant(seed=3), elephant(seed=3))
    assert not torch.equal(elephant(seed=3), elephant(seed=4))
    assert torch.equal(elephant(texture=0, seed=3), elephant(texture=0, seed=4))


def test_sky_skin_grass_and_ivory_lie_where_they_belong():
    plain = elephant(size=100, texture=0)[0]
    red, green, blue = plain[:, 5, 90]
    assert blue > green > red
    red, green, blue = plain[:, 95, 50]
    assert red > green > blue
    body, tusk = plain[:, 45, 60], plain[:, 57, 17]
    assert body.max() - body.min() < 0.1
    assert tusk.min() > body.max() + 0.2


@pytest.mark.parametrize("name", ["mini_alexnet", "mini_vgg"])
def test_the_embedded_networks_take_it_for_an_elephant(name):
    model = load_model(name)
    images = torch.cat([elephant(texture=texture) for texture in (0.5, 1.0, 1.5, 2.0)])
    elephants = [model.class_index(each) for each in ("African elephant", "elephant")]
    both = model.probabilities(images)[:, elephants].sum(dim=1)
    assert both.max() > 20 * 2 / len(model.classes)


def test_a_drawing_needs_a_size():
    with pytest.raises(ArgumentError, match="size"):
        elephant(size=0)
