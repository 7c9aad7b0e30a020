"""A score in tiles: the same numbers, one tile of memory, no seams."""

import weakref

import pytest
import torch
from torch import nn

from lecturelib.errors import ArgumentError
from lecturelib.models import load_model
from lecturelib.optimize import maximize
from lecturelib.scores import layer_score
from lecturelib.tiling import tiled_score


def per_pixel(images: torch.Tensor) -> torch.Tensor:
    """A score for which tiles make no difference."""
    return images.pow(3).flatten(1).mean(dim=1)


def conv_score():
    torch.manual_seed(0)
    return layer_score(load_model(nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.ReLU(), nn.Flatten())), "1")


class Kept:
    """The most elements that were kept at once for the way back."""

    def __enter__(self) -> "Kept":
        self.now = self.most = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda holder: holder.tensor)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: torch.Tensor):
        holder = type("Holder", (), {"tensor": tensor, "__weakref__": None})()
        self.now += tensor.numel()
        self.most = max(self.most, self.now)
        weakref.finalize(holder, self._let_go, tensor.numel())
        return holder

    def _let_go(self, count: int) -> None:
        self.now -= count


@pytest.mark.parametrize("tile", [16, 33, 64, 500])
def test_tiles_of_a_score_without_neighborhood_are_the_whole(tile):
    images = torch.rand(2, 3, 50, 71, dtype=torch.float64, requires_grad=True)
    whole, parts = per_pixel(images), tiled_score(per_pixel, tile=tile)(images)
    torch.testing.assert_close(parts, whole)
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    gradients = [torch.autograd.grad((scores * weights).sum(), images)[0] for scores in (whole, parts)]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_over_many_steps_the_seams_even_out():
    score, images = conv_score(), torch.rand(1, 3, 64, 64, requires_grad=True)
    tiled = tiled_score(score, tile=32, generator=torch.Generator().manual_seed(0))
    (whole,) = torch.autograd.grad(score(images).sum(), images)
    rounds = [torch.autograd.grad(tiled(images).sum(), images)[0] for _ in range(60)]
    one, mean = (((g - whole)[..., 4:-4, 4:-4].norm() / whole.norm()).item() for g in (rounds[0], sum(rounds) / 60))
    assert mean < 0.5 * one
    error = (sum(rounds) / 60 - whole).abs().mean(dim=(0, 1))[4:-4, 4:-4]
    assert error.mean(dim=0).max() < 3 * error.mean(), "and no column keeps a seam"


def test_only_one_tile_is_kept_for_the_way_back():
    score, images = conv_score(), torch.rand(1, 3, 160, 160, requires_grad=True)
    kept = {}
    for name, asked in (("whole", score), ("tiled", tiled_score(score, tile=32))):
        with Kept() as memory:
            value = asked(images).sum()
        torch.autograd.grad(value, images)
        kept[name] = memory.most
    assert kept["tiled"] <= images.numel() + 1024 * (3 + 2 * 4) + 100, "the gradient, and what a tile needs"


def test_a_loop_climbs_it_and_judges_it_without_gradients():
    score = conv_score()
    start = 0.4 + 0.2 * torch.rand(1, 3, 40, 40)
    found = maximize(start, tiled_score(score, tile=24), steps=10, lr=0.02)
    with torch.no_grad():
        assert score(found) > 1.2 * score(start)
        assert not tiled_score(score, tile=24)(start).requires_grad


@pytest.mark.parametrize("tile", [0, 15, 64.0, True])
def test_a_wrong_tile_is_named(tile):
    with pytest.raises(ArgumentError, match="tile"):
        tiled_score(per_pixel, tile=tile)
