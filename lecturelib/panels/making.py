"""Lectures 05 and 07 to 11: panels that make pictures."""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lecturelib.activations import receptive_field
from lecturelib.ascent import robust
from lecturelib.canvas import Fourier, grey_noise
from lecturelib.colors import keep_colors, match_colors
from lecturelib.controls import Area, PhotoPicker, Place, choice, follow, place_pad, rectangle_pad, slider
from lecturelib.deepdream import balanced_score, dream, octave_sizes
from lecturelib.display import overlay
from lecturelib.faststyle import StyleNetwork
from lecturelib.fragments import beside, framed, tiles
from lecturelib.images import resize
from lecturelib.inversion import psnr
from lecturelib.jobs import Run
from lecturelib.models import Model
from lecturelib.optimize import maximize, minimize
from lecturelib.panels.looking import cell
from lecturelib.scores import firing_score, neuron_score
from lecturelib.style import RECIPES, Term, content_terms, loss_of, style_terms, variation_term, weighted
from lecturelib.texture import synthesize
from lecturelib.transforms import jitter
from lecturelib.widgets import Panel, panel, run_panel


def ascent_panel(model: Model, names: Sequence[str], layers: Sequence[str]) -> Panel:
    """Lecture 05, a microscope for neurons: choose a channel, or point at one place in its map, and watch its picture
    grow."""
    picker, channels, steps, size = PhotoPicker(names, size=96), slider("Channel", 7, 0, 7), 60, 96
    pad = place_pad(height=260, live=False)
    count = functools.lru_cache(maxsize=len(layers))(
        lambda layer: model.activation(picker.image(names[0]), layer).shape[1]
    )

    def job(run: Run, photo: str, layer: str, channel: int, what: str, place: Place) -> str:
        image = picker.image(photo)
        heat = model.activation(image, layer)[0, channel].detach().cpu()
        (y, x), one = cell(heat, place), what == "one neuron"
        score = neuron_score(model, layer, channel, y, x) if one else firing_score(model, layer, channel)
        box = receptive_field(model, layer).box(y, x)
        run.report(0)
        pad.show(overlay(image, heat[None]), f"Map of channel {channel}: point at it", alt=f"{layer} on {photo}")
        seen = tiles(
            framed(image, box) if one else image,
            [f"what ({y}, {x}) sees: {heat[y, x]:.2g}" if one else photo],
            alt=f"{photo}, of which {layer} makes the map",
            height=260,
        )

        def grown(images: Tensor, value: Tensor) -> str:
            title = f"what it likes best: {value.item():.2g}"
            return beside(seen, tiles(images, [title], alt=f"the picture of {layer}, channel {channel}", height=260))

        def see(step: int, images: Tensor, scores: Tensor) -> None:
            run.report(step / steps, lambda: grown(images, scores), text=f"step {step} of {steps}")

        canvas = Fourier(size, generator=torch.Generator().manual_seed(0), device=model.device)
        transform = jitter(1) if one else robust(0.9, 1.1)
        made = maximize(canvas, score, steps=steps, transform=transform, on_step=see, progress=False)
        return grown(made, score(made).detach())

    what = choice("Of", ["the whole channel", "one neuron"])
    pad.observe(lambda _: setattr(what, "index", 1), names="value")  # whoever points means it
    layer = follow(choice("Layer", layers, layers[-1]), lambda layer: channels.reach(count(layer) - 1))
    return run_panel(job, photo=picker, layer=layer, channel=channels, what=what, place=pad)


def dream_panel(layers: Mapping[Model, Sequence[str]], names: Sequence[str]) -> Panel:
    """Lecture 07: the dream of a layer on a photo of your choice, size by size while it grows.

    layers: for each network those that one can choose.
    """
    picker, steps, models = PhotoPicker(names, size=160), 8, {model.name: model for model in layers}
    layer = choice("Layer", next(iter(layers.values())))

    def job(run: Run, photo: str, network: str, layer: str, octaves: int, ratio: float, strength: int) -> str:
        image = picker.image(photo)
        sizes = octave_sizes(*image.shape[2:], octaves, ratio)
        see = run.on_step(steps * len(sizes), alt=f"{photo}, while it is dreamt", keep="latest", height=320)
        dreamt = dream(
            image,
            balanced_score(models[network], layer),
            octaves=octaves,
            ratio=ratio,
            steps=steps,
            lr=strength / 1000,
            generator=torch.Generator().manual_seed(0),
            on_step=see,
        )
        return tiles(torch.cat([image, dreamt]), [photo, f"what {layer} sees in it"], alt="a dream", height=320)

    return run_panel(
        job,
        photo=picker,
        network=follow(choice("Network", models), lambda name: setattr(layer, "options", list(layers[models[name]]))),
        layer=layer,
        octaves=slider("Octaves", 3, 1, 5),
        ratio=slider("Ratio", 1.4, 1.2, 2.0, 0.1),
        strength=slider("Strength", 10, 1, 30),
    )


def inversion_panel(originals: Mapping[str, Tensor], inverted: Mapping[str, Tensor], layers: Sequence[str]) -> Panel:
    """Lecture 08: walk down the layers and see what is left of a photo. Everything was inverted before.

    originals: each photo (1, 3, H, W) by its name. inverted: what was made of it, (L, 3, H, W), one for each layer.
    """

    def draw(photo: str, depth: int) -> str:
        original, found = originals[photo], inverted[photo][depth - 1 : depth]
        titles = [photo, f"from {layers[depth - 1]}, {psnr(found, original).item():.0f} dB"]
        return tiles(torch.cat([original, found]), titles, alt=f"the {photo} photograph", height=300)

    return panel(draw, photo=choice("Photo", list(originals)), depth=slider("Depth", len(layers), 1, len(layers)))


def texture_panel(model: Model, names: Sequence[str], layers: Sequence[str]) -> Panel:
    """Lecture 09: a texture of 128 pixels, made before your eyes from a piece of a photo that you choose.

    layers: from shallow to deep; you choose the deepest whose Gram, with those before it, is matched.
    """
    picker, scales, steps = PhotoPicker(names, size=256), 3, 50

    def job(run: Run, photo: str, part: int, deepest: str) -> str:
        middle = slice(128 - part // 2, 128 + part // 2)
        sample = resize(picker.image(photo)[:, :, middle, middle], 64)
        chosen = layers[: layers.index(deepest) + 1]
        on_step = run.on_step(scales * steps, keep="smallest", alt=f"the texture of {photo} so far")
        made = synthesize(model, sample, chosen, size=128, steps=steps, scales=scales, on_step=on_step, progress=False)
        texture = tiles(made, [f"Grams up to {deepest}"], alt=f"a new texture after {photo}", height=300)
        return beside(tiles(sample, ["sample"], alt=f"a piece of {photo}", height=150), texture)

    return run_panel(
        job,
        photo=picker,
        part=slider("Piece, pixels", 96, 32, 256, 16),
        deepest=choice("Deepest layer", layers, layers[-1]),
    )


def style_panel(model: Model, names: Sequence[str], styles: Sequence[str], *, steps: int = 40) -> Panel:
    """Lecture 10: a photo in the style of your choice, painted while you look; a second style fills a rectangle, which
    you drag.

    The model is one with a recipe.
    """
    picker, looks = PhotoPicker(names, size=96), PhotoPicker(styles, size=320, label="Style")
    recipe, pad = RECIPES[model.name], rectangle_pad(height=260)
    second = choice("Second style", ["(none)", *styles])
    layers = [layer for layer in model.layers if layer in {*recipe.content, *recipe.style}]

    def job(run: Run, photo: str, style: str, second: str, start: str, layer: str, colors: str, beta: float, tv: float,
            scale: int, area: Area) -> str:  # fmt: skip
        content, chosen = picker.image(photo), [style] if second == "(none)" else [style, second]
        run.report(0)
        pad.show(content, "Drag a rectangle", alt=photo)
        samples = [resize(looks.image(name), scale).clamp(0, 1) for name in chosen]
        if colors == "style recolored":
            samples = [match_colors(sample, content) for sample in samples]
        thumbnails = torch.cat([resize(sample, 96) for sample in samples])
        sources = tiles(thumbnails, chosen, alt="a style", height=120)
        terms = content_terms(model, content, [layer]) + weighted([variation_term()], tv)
        terms += weighted(_divided(model, samples, _rectangle(96, area)), beta)

        def painting(images: Tensor) -> str:
            images = keep_colors(content, images) if colors == "brightness only" else images
            return beside(tiles(images, ["painted"], alt=f"{photo} in {' and '.join(chosen)}", height=260), sources)

        def see(step: int, images: Tensor, losses: Tensor) -> None:
            run.report(step / steps, lambda: painting(images), text=f"step {step} of {steps}")

        noise = grey_noise(96, std=0.2, generator=torch.Generator().manual_seed(0))
        first, loss = {"content": content, "noise": noise, "style": thumbnails[:1]}[start], loss_of(model, terms)
        return painting(minimize(first, loss, steps=steps, lr=1.0, step_rule="lbfgs", on_step=see, progress=False))

    looks.share(second)
    pad.observe(lambda _: setattr(second, "index", second.index or len(styles)), names="value")  # who drags means it
    return run_panel(
        job,
        photo=picker,
        style=looks,
        second=second,
        start=choice("Start", ["content", "noise", "style"]),
        layer=choice("Content layer", layers, next(iter(recipe.content))),
        colors=choice("Colors", ["the style's", "brightness only", "style recolored"]),
        beta=slider("Beta", 60.0, 0.0, 300.0, 5.0),
        tv=slider("Smoothness", 15.0, 0.0, 150.0, 5.0),
        scale=slider("Style size", 160, 48, 320, 16),
        area=pad,
    )


def _divided(model: Model, samples: Sequence[Tensor], inside: Tensor) -> list[Term]:
    """The terms of one style everywhere; or of two, the second where the mask `inside` (H, W) is 1."""
    masks = [None] if len(samples) == 1 else [1 - inside, inside]
    layers = RECIPES[model.name].style
    both = zip(samples, masks, strict=True)
    return [term for sample, mask in both for term in style_terms(model, sample, layers, mask=mask)]


def _rectangle(size: int, area: Area) -> Tensor:
    """A mask (size, size) of ones inside the rectangle; its edges may come in any order."""
    top, left, bottom, right = (round(size * edge / 100) for edge in area)
    mask = torch.zeros(size, size)
    mask[min(top, bottom) : max(top, bottom), min(left, right) : max(left, right)] = 1
    return mask


def blend_panel(painter: StyleNetwork, names: Sequence[str]) -> Panel:
    """Lecture 11: your photo, painted in a blend of the first four styles, one in each corner of a square."""
    picker, pad, corners = PhotoPicker(names, size=192), place_pad(height=300), painter.names[:4]
    device = next(painter.parameters()).device
    rest = [0.0] * (len(painter.names) - len(corners))

    @functools.lru_cache(maxsize=8)
    @torch.inference_mode()
    def square(photo: str) -> Tensor:
        """The photo in one style at each corner, and one passes into the other."""
        small = resize(picker.image(photo), 96).to(device)
        pure = [painter(small, [float(name == corner) for name in painter.names]) for corner in corners]
        ramp = torch.linspace(0, 1, small.shape[-1], device=device).mul(6).sub(2.5).clamp(0, 1)
        across = [pure[row].lerp(pure[row + 1], ramp) for row in (0, 2)]
        return across[0].lerp(across[1], ramp[:, None])

    @torch.inference_mode()
    def draw(photo: str, place: Place) -> str:
        down, right = (part / 100 for part in place)
        weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
        image = picker.image(photo).to(device)
        told = ", ".join(f"{weight:.0%} {name}" for name, weight in zip(corners, weights, strict=True) if weight)
        pad.show(square(photo), "Drag to blend", alt=f"{photo} in the styles {', '.join(corners)}")
        painted = tiles(painter(image, weights + rest), [told], alt=f"{photo}, painted", height=340)
        return beside(painted, tiles(image, [photo], alt="the photo", height=170))

    return panel(draw, photo=picker, place=pad)
