"""The panels of the lectures, made of the blocks in `widgets`: one function each, named after what it shows."""

import functools
from collections.abc import Mapping, Sequence
from threading import Thread

import torch
from torch import Tensor, nn

from lecturelib.activations import patch_images, receptive_field, strongest_patches
from lecturelib.adversarial import amplify_difference, cross_entropy_score, pgd
from lecturelib.ascent import robust
from lecturelib.canvas import Fourier
from lecturelib.deepdream import balanced_score, dream, octave_sizes
from lecturelib.display import overlay, scatter
from lecturelib.faststyle import StyleNetwork
from lecturelib.fragments import bar_rows, beside, drawn, framed, heading, tiles
from lecturelib.images import load_image, resize
from lecturelib.inversion import psnr
from lecturelib.jobs import Run
from lecturelib.layers import codes, nearest, tsne
from lecturelib.models import Model
from lecturelib.occlusion import occlude
from lecturelib.optimize import maximize, minimize
from lecturelib.photos import Collection
from lecturelib.relu_rules import RULES, relu_rule
from lecturelib.saliency import input_gradient
from lecturelib.scores import channel_score, class_score, neuron_score
from lecturelib.style import RECIPES, content_terms, loss_of, style_terms, variation_term, weighted
from lecturelib.texture import synthesize
from lecturelib.transforms import jitter
from lecturelib.widgets import Panel, PhotoPicker, choice, follow, panel, run_panel, search, slider


def perplexity_panel(points: Tensor, labels: Tensor, names: Sequence[str]) -> Panel:
    """Lecture 01: t-SNE of points (N, D) for the perplexity that you choose."""

    perplexities = [value for value in (30, 5, 2, 10, 50, 100) if value < len(points)]

    @functools.lru_cache
    def picture(perplexity: int) -> str:
        return drawn(
            scatter(tsne(points, perplexity=perplexity), labels, names, title=f"t-SNE, perplexity {perplexity}"),
            alt=f"Scatter plot of {len(points)} points in {len(names)} colors, t-SNE with perplexity {perplexity}",
        )

    shown = panel(picture, perplexity=choice("Perplexity", sorted(perplexities), perplexities[0]))
    Thread(target=lambda: list(map(picture, perplexities)), daemon=True).start()  # before they are asked for
    return shown


def neighbours_panel(model: Model, gallery: Collection, names: Sequence[str]) -> Panel:
    """Lecture 01: the five nearest pictures of a gallery to a photo of your choice, by code and by pixels."""
    picker = PhotoPicker(names, size=gallery.images.shape[-1])
    gallery_codes = codes(model, gallery.images)

    def draw(photo: str) -> None:
        image = picker.image(photo)
        by_code = nearest(codes(model, image), gallery_codes)[0]
        by_pixels = nearest(image, gallery.images)[0]
        parts = [tiles(image, [photo], alt="your photo", height=130)]
        for kind, indices in (("by code", by_code), ("by pixels", by_pixels)):
            titles = [gallery.names[gallery.labels[index]] for index in indices]
            near = tiles(gallery[indices], titles, alt=f"near {photo} {kind}", height=130)
            parts.append(heading(f"Nearest {kind}") + near)
        return "".join(parts)

    return panel(draw, photo=picker)


def unit_panel(model: Model, photos: Collection, names: Sequence[str], layers: Sequence[str]) -> Panel:
    """Lecture 02: a channel on a photo of your choice: its map, what its strongest place sees, and its strongest
    patches.

    photos: where the strongest patches are looked for; one pass for each layer, in the background.
    """
    picker, channels, strongest_place = PhotoPicker(names), slider("Channel", 0, 0, 0), "the strongest of the map"
    strongest = functools.lru_cache(maxsize=len(layers))(lambda layer: strongest_patches(model, layer, photos.images))
    count = functools.lru_cache(maxsize=len(layers))(
        lambda layer: model.activation(picker.image(names[0]), layer).shape[1]
    )

    def draw(photo: str, layer: str, channel: int, place: str, down: int, right: int) -> str:
        image, field = picker.image(photo), receptive_field(model, layer)
        maps = model.activation(image, layer)[0].detach().cpu()
        heat = maps[channel]
        y, x = divmod(int(heat.argmax()), heat.shape[1])
        if place != strongest_place:
            y, x = (len(heat) - 1) * down // 100, (heat.shape[1] - 1) * right // 100
        with relu_rule(model, "guided"):
            gradient = input_gradient(image, neuron_score(model, layer, channel, y, x)).cpu()
        patches = patch_images(photos.images, strongest(layer), field, channel)
        pictures = torch.cat([image, overlay(image, heat[None]), framed(image, field.box(y, x)), _colored(gradient)])
        titles = [photo, "map of the channel", f"what ({y}, {x}) sees: {heat[y, x]:.2g}", "guided gradient of it"]
        return (
            heading(f"{layer}, channel {channel} of {len(maps)}")
            + tiles(pictures, titles, alt=f"channel {channel} of {layer} for {photo}", height=190)
            + heading("The patches that excite it most")
            + tiles(patches, alt=f"excites channel {channel} of {layer}", height=72)
        )

    layer = follow(choice("Layer", layers), lambda layer: channels.reach(count(layer) - 1))
    place = choice("Place", [strongest_place, "yours: Down, Right"])
    down, right = slider("Down (%)", 50, 0, 100, 5), slider("Right (%)", 50, 0, 100, 5)
    for control in (down, right):  # whoever moves the place means it
        control.value_widget.observe(lambda _: setattr(place, "index", 1), names="value")
    shown = panel(draw, photo=picker, layer=layer, channel=channels, place=place, down=down, right=right)
    Thread(target=lambda: list(map(strongest, layers)), daemon=True).start()  # before they are asked for
    return shown


def classify_panel(model: Model, names: Sequence[str]) -> Panel:
    """The network's five best guesses for a photo of your choice."""
    picker = PhotoPicker(names)

    def draw(photo: str) -> None:
        image = picker.image(photo)
        guesses = dict(model.top(image)[0])
        return beside(tiles(image, [photo], alt="the photo"), heading(f"What {model.name} says") + bar_rows(guesses))

    return panel(draw, photo=picker)


def occluder_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 03: move a grey square over a photo; the bars of the class probabilities follow."""
    picker = PhotoPicker(names, size=96)

    def draw(photo: str, top: int, left: int, window: int) -> None:
        image = picker.image(photo)
        covered = occlude(image, top, left, window=window)
        probabilities = torch.cat([model.probabilities(image), model.probabilities(covered)]).detach().cpu()
        top_five = probabilities[0].topk(5).indices.tolist()
        guesses = {
            f"{model.classes[index]}{note}": probabilities[row, index].item()
            for index in top_five
            for row, note in enumerate(("", ", covered"))
        }
        pictures = tiles(
            torch.cat([image, covered]), [photo, "covered"], alt="with a grey square where covered", height=160
        )
        return beside(pictures, heading("What the network says") + bar_rows(guesses, width=140))

    return panel(
        draw,
        photo=picker,
        top=slider("Top", 20, 0, 80, 4),
        left=slider("Left", 36, 0, 80, 4),
        window=slider("Window", 24, 8, 64, 4),
    )


def saliency_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 04: the gradient of a class or of a neuron, under one of the three ReLU rules."""
    picker = PhotoPicker(names, size=96)
    class_of_answer = "(the network's answer)"
    layers = [layer for layer in model.layers if isinstance(model.module(layer), nn.Conv2d)]

    channels = slider("Channel", 0, 0, 0)

    def draw(photo: str, what: str, channel: int, rule: str) -> str:
        image = picker.image(photo)
        if what in layers:
            score, label = neuron_score(model, what, channel), f"{what}, channel {channel}, in the middle"
        else:
            label = model.top(image, k=1)[0][0][0] if what == class_of_answer else what
            score = class_score(model, label)
        with relu_rule(model, rule):
            gradient = input_gradient(image, score).cpu()
        pictures = torch.cat([image, _colored(gradient)])
        return heading(label) + tiles(pictures, [photo, rule], alt=f"gradient of {label}", height=280, exact=True)

    def reach(what: str) -> None:
        channels.reach(model.module(what).out_channels - 1 if what in layers else 0)

    return panel(
        draw,
        photo=picker,
        what=follow(search("Of", [class_of_answer, *layers, *sorted(model.classes, key=str.lower)]), reach),
        channel=channels,
        rule=choice("ReLU rule", RULES),
    )


def _colored(gradient: Tensor) -> Tensor:
    """A gradient as an image: grey where it is 0, and clipped at its largest values."""
    largest = gradient.abs().flatten().quantile(0.997).clamp_min(1e-12)
    return (0.5 + 0.5 * gradient / largest).clamp(0, 1)


def attack_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 06: the attacked picture for an epsilon and a target of your choice.

    The direction of a photo and target is computed once; moving epsilon only scales it.
    """
    picker = PhotoPicker(names, size=96)
    anything = "(anything else)"

    @functools.lru_cache(maxsize=8)
    def direction(photo: str, target: str) -> Tensor:
        image = picker.image(photo)
        answer = model.top(image, k=1)[0][0][0]
        score = cross_entropy_score(model, answer) if target == anything else class_score(model, target)
        largest = 8 / 255
        return (pgd(image, score, epsilon=largest, steps=10) - image) / largest

    def draw(photo: str, target: str, epsilon: float) -> None:
        image = picker.image(photo)
        attacked = (image + epsilon / 255 * direction(photo, target)).clamp(0, 1)
        answers = [f"{top[0][0]} {top[0][1]:.0%}" for top in model.top(torch.cat([image, attacked]), k=1)]
        pictures = torch.cat([image, attacked, amplify_difference(image, attacked)])
        return heading(f"Largest change {epsilon:g} of 255") + tiles(
            pictures, [*answers, "10 x difference"], alt=f"{photo} and the attack on it", height=250, exact=True
        )

    return panel(
        draw,
        photo=picker,
        target=search("Target", [anything, *sorted(model.classes, key=str.lower)]),
        epsilon=slider("Epsilon / 255", 2.0, 0.0, 8.0, 0.25),
    )


def blend_panel(painter: StyleNetwork, names: Sequence[str]) -> Panel:
    """Lecture 11: your photo, painted in a blend of the first four styles, one in each corner of a square."""
    picker = PhotoPicker(names, size=192)
    corners = painter.names[:4]

    @torch.inference_mode()
    def draw(photo: str, right: float, down: float) -> str:
        weights = [(1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down]
        image = picker.image(photo).to(next(painter.parameters()).device)
        blend = weights + [0.0] * (len(painter.names) - len(weights))
        told = ", ".join(f"{weight:.0%} {name}" for name, weight in zip(corners, weights, strict=True) if weight)
        return tiles(
            torch.cat([image, painter(image, blend)]), [photo, told], alt=f"{photo}, painted: {told}", height=300
        )

    return panel(
        draw,
        photo=picker,
        right=slider("To the right", 0.5, 0.0, 1.0, 0.05),
        down=slider("Down", 0.0, 0.0, 1.0, 0.05),
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


def ascent_panel(model: Model, names: Sequence[str], layers: Sequence[str]) -> Panel:
    """Lecture 05, a microscope for neurons: choose a channel, or one place in its map, and watch its picture grow."""
    picker, channels, steps, size = PhotoPicker(names, size=96), slider("Channel", 7, 0, 7), 60, 96
    count = functools.lru_cache(maxsize=len(layers))(
        lambda layer: model.activation(picker.image(names[0]), layer).shape[1]
    )

    def job(run: Run, photo: str, layer: str, channel: int, what: str, down: int, right: int) -> str:
        image = picker.image(photo)
        heat = model.activation(image, layer)[0, channel].detach().cpu()
        y, x = (len(heat) - 1) * down // 100, (heat.shape[1] - 1) * right // 100
        one = what == "one neuron"
        score = neuron_score(model, layer, channel, y, x) if one else channel_score(model, layer, channel)
        where = framed(image, receptive_field(model, layer).box(y, x)) if one else image
        context = tiles(
            torch.cat([where, overlay(image, heat[None])]),
            [f"{photo}: {heat[y, x]:.2g} at ({y}, {x})" if one else photo, f"map of channel {channel}"],
            alt=f"channel {channel} of {layer} on {photo}",
            height=150,
        )

        def grown(images: Tensor, value: Tensor) -> str:
            title = f"what it likes best: {value.item():.2g}"
            return beside(context, tiles(images, [title], alt=f"the picture of {layer}, channel {channel}", height=300))

        def see(step: int, images: Tensor, scores: Tensor) -> None:
            run.report(step / steps, lambda: grown(images, scores), text=f"step {step} of {steps}")

        canvas = Fourier(size, generator=torch.Generator().manual_seed(0), device=model.device)
        transform = jitter(1) if one else robust(0.9, 1.1)
        made = maximize(canvas, score, steps=steps, transform=transform, on_step=see, progress=False)
        return grown(made, score(made).detach())

    layer = follow(choice("Layer", layers, layers[-1]), lambda layer: channels.reach(count(layer) - 1))
    return run_panel(
        job,
        photo=picker,
        layer=layer,
        channel=channels,
        what=choice("Of", ["the whole channel", "one neuron"]),
        down=slider("Down (%)", 50, 0, 100, 5),
        right=slider("Right (%)", 50, 0, 100, 5),
    )


def dream_panel(model: Model, names: Sequence[str], layers: Sequence[str]) -> Panel:
    """Lecture 07: the dream of a layer on a photo of your choice, size by size while it grows."""
    picker, steps = PhotoPicker(names, size=160), 8

    def job(run: Run, photo: str, layer: str, octaves: int, strength: int) -> str:
        image = picker.image(photo)
        sizes = octave_sizes(*image.shape[2:], octaves)
        see = run.on_step(steps * len(sizes), alt=f"{photo}, while it is dreamt", keep="latest", height=320)
        dreamt = dream(
            image,
            balanced_score(model, layer),
            octaves=octaves,
            steps=steps,
            lr=strength / 1000,
            generator=torch.Generator().manual_seed(0),
            on_step=see,
        )
        return tiles(torch.cat([image, dreamt]), [photo, f"what {layer} sees in it"], alt="a dream", height=320)

    return run_panel(
        job,
        photo=picker,
        layer=choice("Layer", layers),
        octaves=slider("Octaves", 3, 1, 5),
        strength=slider("Strength", 10, 1, 30),
    )


def style_panel(model: Model, names: Sequence[str], styles: Sequence[str], *, steps: int = 40) -> Panel:
    """Lecture 10: a photo in the style of your choice, painted while you look; a second style fills a rectangle.

    The model is one with a recipe. The rectangle is given in percent of the picture.
    """
    picker, recipe, alone = PhotoPicker(names, size=96), RECIPES[model.name], "(none)"

    def job(run: Run, photo: str, style: str, beta: float, tv: float, scale: int, second: str, **edges: int) -> Tensor:
        content, first = picker.image(photo), load_image(style, size=scale)
        mask = _rectangle(content.shape[-1], **edges) if second != alone else None
        terms = style_terms(model, first, recipe.style, mask=None if mask is None else 1 - mask)
        if mask is not None:
            terms += style_terms(model, load_image(second, size=scale), recipe.style, mask=mask)
        terms = content_terms(model, content, recipe.content) + weighted(terms, beta)
        sources, titles = torch.cat([content, load_image(style, size=96)]), [photo, style, "painted"]

        def see(step: int, images: Tensor, losses: Tensor) -> None:
            run.report(step / steps, torch.cat([sources, images.cpu()]), titles, text=f"step {step} of {steps}")

        loss = loss_of(model, terms + weighted([variation_term()], tv))
        painted = minimize(content, loss, steps=steps, lr=1.0, step_rule="lbfgs", on_step=see, progress=False)
        return torch.cat([sources, painted.cpu()])

    return run_panel(
        job,
        photo=picker,
        style=choice("Style", styles),
        beta=slider("Beta", 60.0, 0.0, 300.0, 5.0),
        tv=slider("Smoothness", 15.0, 0.0, 150.0, 5.0),
        scale=slider("Style size", 160, 48, 320, 16),
        second=choice("Second style", [alone, *styles]),
        left=slider("Left (%)", 50, 0, 100, 5),
        right=slider("Right (%)", 100, 0, 100, 5),
        top=slider("Top (%)", 0, 0, 100, 5),
        bottom=slider("Bottom (%)", 100, 0, 100, 5),
    )


def _rectangle(size: int, *, left: int, right: int, top: int, bottom: int) -> Tensor:
    """A mask (size, size) of ones inside the rectangle, given in percent; its edges may come in any order."""
    mask = torch.zeros(size, size)
    rows, columns = (slice(*sorted(size * edge // 100 for edge in pair)) for pair in ((top, bottom), (left, right)))
    mask[rows, columns] = 1
    return mask
