"""The panels of the lectures, made of the blocks in `widgets`: one function each, named after what it shows."""

from lecturelib.panels.looking import (
    attack_panel,
    classify_panel,
    neighbours_panel,
    occluder_panel,
    perplexity_panel,
    saliency_panel,
    unit_panel,
)
from lecturelib.panels.making import (
    ascent_panel,
    blend_panel,
    dream_panel,
    inversion_panel,
    style_panel,
    texture_panel,
)

__all__ = [
    "ascent_panel",
    "attack_panel",
    "blend_panel",
    "classify_panel",
    "dream_panel",
    "inversion_panel",
    "neighbours_panel",
    "occluder_panel",
    "perplexity_panel",
    "saliency_panel",
    "style_panel",
    "texture_panel",
    "unit_panel",
]
