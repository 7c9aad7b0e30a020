import threading
from datetime import UTC, datetime

import ipywidgets
import pytest
import torch

from lecturelib import load_image, load_model
from lecturelib.controls import Pad
from lecturelib.faststyle import StyleNetwork
from lecturelib.images import encode_png
from lecturelib.panels import (
    ascent_panel,
    attack_panel,
    blend_panel,
    classify_panel,
    dream_panel,
    inversion_panel,
    looking,
    neighbours_panel,
    occluder_panel,
    perplexity_panel,
    saliency_panel,
    style_panel,
    texture_panel,
    unit_panel,
)
from lecturelib.panels.looking import _liked, cell, middle
from lecturelib.panels.making import _rectangle
from lecturelib.photos import Collection


def controls(box: ipywidgets.Widget) -> dict[str, ipywidgets.Widget]:
    """The controls of a panel by their labels."""
    found = {}
    for child in getattr(box, "children", ()):
        if getattr(child, "description", "") and hasattr(child, "value"):
            found[child.description] = child
        found |= controls(child)
    return found


def photos(count: int = 12) -> Collection:
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return Collection(images, torch.arange(count) % 3, ["a", "b", "c"])


def test_every_panel_of_the_lectures_answers_to_every_control():
    model, few = load_model("mini_alexnet"), photos()
    points = torch.rand(30, 5, generator=torch.Generator().manual_seed(0))
    panels = {
        "classify": classify_panel(model, ["cat", "coffee"]),
        "perplexity": perplexity_panel(points, torch.arange(30) % 3, ["a", "b", "c"]),
        "neighbours": neighbours_panel(model, few, ["cat", "coffee"]),
        "unit": unit_panel(model, few, ["cat", "coffee"], ["relu2", "relu5"]),
        "occluder": occluder_panel(model, ["cat", "coffee"]),
        "saliency": saliency_panel(load_model("mini_vgg"), ["cat", "coffee"]),
        "attack": attack_panel(model, ["cat", "coffee"]),
    }
    controls(panels["saliency"])["Of"].value = "conv2_1"
    for name, box in panels.items():
        for label, control in controls(box).items():
            if label == "Your photo":
                continue
            before, value = box.html, control.value
            if hasattr(control, "options"):
                control.value = next(option for option in reversed(control.options) if option != control.value)
            else:
                control.value = control.min if control.value != control.min else control.max
            assert box.html != before, f"{name}: {label} changed nothing"
            assert "did not work" not in box.html, f"{name}: {label}: {box.html}"
            control.value = value


def test_the_channels_of_a_panel_reach_as_far_as_its_layer():
    box = unit_panel(load_model("mini_alexnet"), photos(), ["cat"], ["relu1", "relu5"])
    channel = controls(box)["Channel"]
    assert channel.max == 63
    controls(box)["Layer"].value = "relu5"
    assert channel.max == 127
    channel.value = 127
    assert "channel 127 of 128" in box.html
    controls(box)["Layer"].value = "relu1"
    assert "channel 63 of 64" in box.html


def test_each_perplexity_is_computed_once_and_before_it_is_asked_for(monkeypatch):
    asked = []

    def quick(points, *, perplexity):
        asked.append(perplexity)
        return points[:, :2]

    monkeypatch.setattr(looking, "tsne", quick)
    box = perplexity_panel(torch.rand(40, 3), torch.arange(40) % 2, ["a", "b"])
    for thread in threading.enumerate():
        if thread.name == "beforehand":
            thread.join()
    for value in controls(box)["Perplexity"].options:
        controls(box)["Perplexity"].value = value
    assert sorted(asked) == [2, 5, 10, 30]


def test_the_unit_card_shows_the_weights_and_what_the_channel_likes_best():
    model = load_model("mini_alexnet")
    box = unit_panel(model, photos(), ["cat"], ["relu1", "relu5", "pool5"])
    assert "what it likes best" in box.html and "Its weights<" in box.html
    controls(box)["Layer"].value = "relu5"
    weight = model.module("conv5").weight
    heaviest = weight[0].flatten(1).norm(dim=1).argmax().item()
    assert f"heaviest of {weight.shape[1]} inputs" in box.html and f"{heaviest}: weights of channel 0" in box.html
    controls(box)["Layer"].value = "pool5"
    assert "Its weights" not in box.html, "a pooling layer has none"


@pytest.mark.parametrize(("layer", "channel"), [("2", 3), ("5", 7)])  # channel 3 of layer 2 is silent at the start
def test_the_picture_of_a_channel_excites_it_more_than_any_noise(layer, channel):
    model = load_model("mini_alexnet")
    pictures = torch.cat([_liked(model, f"relu{layer}", channel), photos(50).images])
    excited = model.activation(pictures, f"conv{layer}")[:, channel].mean(dim=(1, 2))
    assert excited.argmax() == 0


def test_one_points_at_the_place_of_the_neuron_whose_gradient_is_shown():
    box = saliency_panel(load_model("mini_vgg"), ["cat"])
    controls(box)["Down (%)"].value = 20
    assert controls(box)["Of"].value == "conv3_2", "who points means a neuron"
    controls(box)["Of"].value = "conv2_1"
    controls(box)["Down (%)"].value, controls(box)["Right (%)"].value = 0, 100
    assert "conv2_1, channel 0 at (0, 47)" in box.html
    corner = box.html
    controls(box)["Down (%)"].value = 99
    assert "at (47, 47)" in box.html and box.html != corner


def test_an_unknown_class_is_answered_in_words_with_the_nearest_names():
    box = attack_panel(load_model("mini_alexnet"), ["cat"])
    controls(box)["Target"].value = "goldfich"
    assert "goldfish" in box.html and "<img" not in box.html


def test_the_depth_of_an_inversion_names_its_layer_and_what_is_left():
    originals = {"cat": torch.zeros(1, 3, 16, 16), "coffee": torch.ones(1, 3, 16, 16)}
    off = torch.tensor([0.01, 0.1]).view(2, 1, 1, 1).expand(2, 3, 16, 16)
    inverted = {"cat": off, "coffee": off}
    box = inversion_panel(originals, inverted, ["relu1_1", "relu5_1"])
    assert "from relu5_1, 20 dB" in box.html
    controls(box)["Depth"].value = 1
    assert "from relu1_1, 40 dB" in box.html
    controls(box)["Photo"].value = "coffee"
    assert "coffee" in box.html


def test_the_picture_of_a_neuron_grows_beside_its_map():
    box = ascent_panel(load_model("mini_vgg"), ["cat", "coffee"], ["relu1_1", "relu2_2"])
    controls(box)["Layer"].value = "relu1_1"
    assert controls(box)["Channel"].max == 31
    controls(box)["Of"].value = "one neuron"
    runs = box._runs.newest
    assert runs.settles(120) and runs.state == "finished", runs.text
    for words in ("what (48, 48) sees:", "Map of channel 7", "what it likes best"):
        assert words in box.html, box.html[:300]
    box.close()


def test_a_texture_grows_from_a_piece_of_a_picture():
    box = texture_panel(load_model("mini_vgg"), ["brick", "waves"], ["relu1_1", "relu2_1"])
    for label, value in (("Deepest layer", "relu1_1"), ("Piece, pixels", 32), ("Photo", "waves")):
        controls(box)[label].value = value
    runs = box._runs.newest
    assert runs.settles(120) and runs.state == "finished", runs.text
    assert "Grams up to relu1_1" in box.html and "a piece of waves" in box.html
    box.close()


def test_a_dream_is_seen_while_it_grows_and_beside_its_photograph():
    box = dream_panel({load_model("mini_vgg"): ["relu1_1", "relu2_2"]}, ["cat", "coffee"])
    controls(box)["Octaves"].value = 1
    controls(box)["Strength"].value = 20
    run = box._runs.newest
    assert run.settles(120) and run.state == "finished", run.text
    assert box.html.count("<img") == 2 and "what relu1_1 sees in it" in box.html
    box.close()


def test_a_dream_has_the_layers_of_its_network_and_the_ratio_of_its_sizes():
    box = dream_panel({load_model("mini_vgg"): ["relu1_1"], load_model("mini_alexnet"): ["relu2"]}, ["cat"])
    pictures = set()
    for label, value in (("Octaves", 2), ("Ratio", 2.0), ("Network", "mini_alexnet")):
        controls(box)[label].value = value
        run = box._runs.newest
        assert run.settles(120) and run.state == "finished", run.text
        pictures.add(box.html)
    assert len(pictures) == 3 and "what relu2 sees in it" in box.html
    box.close()


def test_pointing_at_a_map_chooses_the_place_that_is_explained():
    box = unit_panel(load_model("mini_alexnet"), photos(), ["cat"], ["relu5"])
    assert controls(box)["Place"].value == "the strongest"
    controls(box)["Down (%)"].value = 100
    controls(box)["Right (%)"].value = 0
    last = load_model("mini_alexnet").activation(load_image("cat", size=128), "relu5").shape[2] - 1
    assert controls(box)["Place"].value == "where I point" and f"what ({last}, 0) sees" in box.html
    heat = torch.zeros(4, 8)
    for place in ((0, 0), (1, 5), (3, 7)):
        assert cell(heat, middle(heat, *place)) == place


def test_the_middle_of_the_cover_is_where_the_mouse_is():
    box = occluder_panel(load_model("mini_alexnet"), ["cat"])
    untouched = load_image("cat", size=96)
    controls(box)["Window"].value = 8
    controls(box)["Down (%)"].value, controls(box)["Right (%)"].value = 50, 25
    shown = next(child for child in box.children[-1].children if isinstance(child, Pad))._shown[0]
    rows, columns = torch.where((shown != untouched).any(dim=1)[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (44, 51, 20, 27)


def test_a_dragged_rectangle_gets_a_second_style():
    assert _rectangle(10, (20, 30, 70, 80)).nonzero().tolist() == [[y, x] for y in range(2, 7) for x in range(3, 8)]
    torch.testing.assert_close(_rectangle(10, (70, 80, 20, 30)), _rectangle(10, (20, 30, 70, 80)))
    box = style_box()
    assert controls(box)["Second style"].value == "(none)"
    controls(box)["Top (%)"].value = 50
    assert "cat in swirl and mosaic" in painted(box) and controls(box)["Second style"].value == "mosaic"
    box.close()


def style_box(steps: int = 1):
    return style_panel(load_model("mini_vgg"), ["cat"], ["swirl", "mosaic"], steps=steps)


def painted(box) -> str:
    """What the newest run of a panel has painted."""
    run = box._runs.newest
    assert run.settles(120) and run.state == "finished", run.text
    return box.html


def test_every_choice_of_the_style_panel_paints_something_else():
    box = style_box()
    expected = {
        "Start": ["content", "noise", "style"],
        "Content layer": ["relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu4_1"],
        "Colors": ["the style's", "brightness only", "style recolored"],
    }
    for label, options in expected.items():
        control = controls(box)[label]
        assert list(control.options) == options
        first, pictures = control.value, []
        for option in options:
            control.value = option
            pictures.append(painted(box))
        assert len(set(pictures)) == len(options), label
        control.value = first
    box.close()


def test_a_style_of_yours_is_painted_in_and_offered_as_second_style():
    box = style_box()
    before, second = painted(box), controls(box)["Second style"]
    second.value = "mosaic"
    upload, now = controls(box)["Your style"], datetime.now(tz=UTC)
    data = encode_png(load_image("waves", size=64))
    upload.value = (
        {"name": "mine.png", "type": "image/png", "size": len(data), "content": memoryview(data)}
        | {"last_modified": now},
    )
    assert controls(box)["Style"].value == "yours: mine.png" and second.value == "mosaic"
    second.value = "(none)"
    assert "cat in yours: mine.png" in painted(box) != before
    second.value = "yours: mine.png"
    assert "cat in yours: mine.png and yours: mine.png" in painted(box)
    box.close()


def test_the_corners_of_a_blend_are_the_pure_styles():
    painter = StyleNetwork(styles=4, width=4, blocks=1, names=["a", "b", "c", "d"])
    box = blend_panel(painter, ["cat"])
    for down, right, name in ((0, 0, "a"), (0, 100, "b"), (100, 0, "c"), (100, 100, "d")):
        controls(box)["Down (%)"].value, controls(box)["Right (%)"].value = down, right
        assert f">100% {name}<" in box.html
    controls(box)["Down (%)"].value = 50
    assert "50% b, 50% d" in box.html
