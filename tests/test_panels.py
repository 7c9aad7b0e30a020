import ipywidgets
import pytest
import torch

from lecturelib import load_model, panels
from lecturelib.panels import (
    attack_panel,
    classify_panel,
    neighbours_panel,
    occluder_panel,
    perplexity_panel,
    saliency_panel,
    unit_panel,
)
from lecturelib.photos import Collection


@pytest.fixture
def shown(monkeypatch):
    """Every alternative text that a panel shows, in place of the browser's output."""
    texts = []
    monkeypatch.setattr(panels, "show", lambda *arguments, alt, **options: texts.append(alt))
    return texts


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


def test_every_panel_of_the_lectures_answers_to_every_control(shown):
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
    for name, box in panels.items():
        for label, control in controls(box).items():
            if label == "Your photo":
                continue
            before = len(shown)
            if isinstance(control, ipywidgets.Dropdown):
                control.value = control.options[-1]
            else:
                control.value = control.max if control.value != control.max else control.min
            assert len(shown) > before, f"{name}: {label} changed nothing"


def test_a_channel_beyond_the_layer_is_its_last_one(shown):
    box = unit_panel(load_model("mini_alexnet"), photos(), ["cat"], ["relu5"])
    controls(box)["Channel"].value = 9_999
    assert "channel 127" in shown[-1]
