"""What a painter network is trained for (Johnson, Alahi and Fei-Fei, 2016): its recipe, and its loss."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lecturelib.inversion import relative_distance
from lecturelib.models import Model
from lecturelib.regularizers import total_variation
from lecturelib.texture import gram
from lecturelib.training.steps import mixed_precision


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights.

    pixels: the side of the crops that are painted; style_pixels: the side at which the style pictures are looked at, so
    the width of strokes. The loss of a picture is its mean squared feature error in `content_layer` (in units of the
    style pictures' mean squared feature), plus `style_weight` times the mean relative Gram error of `style_layers`,
    plus `tv_weight` times the total variation per pixel.
    """

    styles: tuple[str, ...]
    steps: int = 8000
    pixels: int = 128
    style_pixels: int = 256
    batch: int = 4
    lr: float = 2e-3
    width: int = 16
    blocks: int = 5
    network: str = "mini_vgg"
    content_layer: str = "relu3_1"
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    style_weight: float = 20.0
    tv_weight: float = 0.1
    seed: int = 0


class StyleLoss:
    """What a painter network is trained for: the photograph's content, a style picture's Grams, little noise."""

    def __init__(self, model: Model, recipe: Recipe, styles: list[Tensor]):
        self.model, self.recipe = model, recipe
        self.layers = list(dict.fromkeys([*recipe.style_layers, recipe.content_layer]))
        with torch.no_grad():
            found = [self._features(image, self.layers) for image in styles]
        # One scale for all photographs: relative to itself, the error of a nearly blank one would outweigh all others.
        self.scale = torch.stack([each[recipe.content_layer].square().mean() for each in found]).mean()
        self.grams = {layer: torch.cat([gram(each[layer]) for each in found]) for layer in recipe.style_layers}

    def __call__(self, painted: Tensor, photographs: Tensor, styles: Tensor) -> Tensor:
        """One number for each picture, shape (N,); `styles` (N,) are the numbers of the wanted styles."""
        recipe = self.recipe
        with torch.no_grad():
            content = self._features(photographs, [recipe.content_layer])[recipe.content_layer]
        found = self._features(painted, self.layers)
        style = [relative_distance(gram(found[layer]), grams[styles]) for layer, grams in self.grams.items()]
        noise = total_variation(painted) / painted[0, 0].numel()
        return (
            (found[recipe.content_layer] - content).square().flatten(1).mean(dim=1) / self.scale
            + recipe.style_weight * torch.stack(style).mean(dim=0)
            + recipe.tv_weight * noise
        )

    def _features(self, images: Tensor, layers: list[str]) -> dict[str, Tensor]:
        """What the layers give, in 32 bits: sums over thousands of positions are too coarse in 16."""
        with mixed_precision(self.model.device):
            found = self.model.activations(images, layers)
        return {layer: features.float() for layer, features in found.items()}
