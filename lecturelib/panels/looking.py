"""Lectures 00 to 04 and 06: panels that look into a network."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lecturelib.activations import patch_images, receptive_field, strongest_patches
from lecturelib.adversarial import amplify_difference, cross_entropy_score, pgd
from lecturelib.ascent import channel_pictures
from lecturelib.controls import PhotoPicker, Place, choice, follow, place_pad, search, slider
from lecturelib.display import overlay, scatter
from lecturelib.fragments import bar_rows, beside, drawn, framed, heading, tiles
from lecturelib.images import resize
from lecturelib.jobs import beforehand
from lecturelib.layers import codes, nearest, stretched, tsne
from lecturelib.models import Model
from lecturelib.occlusion import occlude
from lecturelib.photos import Collection
from lecturelib.relu_rules import RULES, relu_rule
from lecturelib.saliency import input_gradient
from lecturelib.scores import class_score, log_probability, neuron_score
from lecturelib.widgets import Panel, panel


def classify_panel(model: Model, names: Sequence[str]) -> Panel:
    """The network's five best guesses for a photo of your choice."""
    picker = PhotoPicker(names)

    def draw(photo: str) -> str:
        image = picker.image(photo)
        guesses = dict(model.top(image)[0])
        return beside(tiles(image, [photo], alt="the photo"), heading(f"What {model.name} says") + bar_rows(guesses))

    return panel(draw, photo=picker)


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
    beforehand(lambda value: picture(perplexity=value), perplexities)  # by its name, as the panel calls it
    return shown


def neighbours_panel(model: Model, gallery: Collection, names: Sequence[str]) -> Panel:
    """Lecture 01: the five nearest pictures of a gallery to a photo of your choice, by code and by pixels."""
    picker = PhotoPicker(names, size=gallery.images.shape[-1])
    gallery_codes = codes(model, gallery.images)

    def draw(photo: str) -> str:
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
    """Lecture 02: all about one channel. On a photo of your choice: its map, what a place of it sees, and why it fires
    there; anywhere: its weights, the picture that it likes best, and its strongest patches.

    The place is the strongest of the map until you point at another one. photos: where the strongest patches are looked
    for; one pass for each layer, in the background.
    """
    picker, channels, pad = PhotoPicker(names), slider("Channel", 0, 0, 0), place_pad(height=300)
    strongest = functools.lru_cache(maxsize=len(layers))(lambda layer: strongest_patches(model, layer, photos.images))
    count = functools.lru_cache(maxsize=len(layers))(
        lambda layer: model.activation(picker.image(names[0]), layer).shape[1]
    )
    liked = functools.lru_cache(maxsize=256)(lambda layer, channel: _liked(model, layer, channel))

    def draw(photo: str, layer: str, channel: int, where: str, place: Place) -> str:
        image, field = picker.image(photo), receptive_field(model, layer)
        maps = model.activation(image, layer)[0].detach().cpu()
        heat = maps[channel]
        y, x = divmod(int(heat.argmax()), heat.shape[1]) if where == "the strongest" else cell(heat, place)
        with relu_rule(model, "guided"):
            gradient = input_gradient(image, neuron_score(model, layer, channel, y, x)).cpu()
        pad.show(overlay(image, heat[None]), f"Map of channel {channel}: point at it", alt=f"{layer} on {photo}",
                 at=middle(heat, y, x))  # fmt: skip
        patches = patch_images(photos.images, strongest(layer), field, channel)
        favorite = resize(liked(layer, channel), image.shape[2]).cpu()
        pictures = torch.cat([framed(image, field.box(y, x)), _colored(gradient), favorite])
        titles = [f"what ({y}, {x}) sees: {heat[y, x]:.2g}", "guided gradient of it", "what it likes best"]
        alt = f"channel {channel} of {layer}"
        return (
            heading(f"{layer}, channel {channel} of {len(maps)}")
            + tiles(pictures, titles, alt=f"{alt} for {photo}", height=160)
            + _weights(model, layer, channel, alt)
            + heading("The patches that excite it most")
            + tiles(patches, alt=f"excites {alt}", height=64)
        )

    layer = follow(choice("Layer", layers), lambda layer: channels.reach(count(layer) - 1))
    where = choice("Place", ["the strongest", "where I point"])
    pad.observe(lambda _: setattr(where, "index", 1), names="value")  # whoever points means it
    shown = panel(draw, photo=picker, layer=layer, channel=channels, where=where, place=pad)
    beforehand(strongest, layers)
    return shown


def _liked(model: Model, layer: str, channel: int) -> Tensor:
    """The picture that a channel likes best, (1, 3, 64, 64), in a tenth of a second."""
    seed = torch.Generator().manual_seed(0)
    before = _before_relu(model, layer)  # where a channel that is silent at the start can be climbed, too
    return channel_pictures(model, before, [channel], steps=16, lr=0.15, generator=seed, progress=False)


def _weights(model: Model, layer: str, channel: int, alt: str) -> str:
    """The filter of a channel: in colors in the first layer, otherwise one tile for each of the heaviest inputs."""
    convolution = model.module(_before_relu(model, layer))
    if not isinstance(convolution, nn.Conv2d):
        return ""
    weight = convolution.weight[channel].detach().cpu()
    if len(weight) == 3:
        return heading("Its weights") + tiles(stretched(weight[None]), alt=f"weights of {alt}", height=64, exact=True)
    heaviest = weight.flatten(1).norm(dim=1).topk(min(9, len(weight))).indices
    shown = (0.5 + 0.5 * weight[heaviest] / weight.abs().max().clamp_min(1e-12))[:, None].expand(-1, 3, -1, -1)
    text = f"Its weights for the {len(heaviest)} heaviest of {len(weight)} inputs (grey: 0)"
    return heading(text) + tiles(
        shown, [str(index) for index in heaviest.tolist()], alt=f"weights of {alt}", height=48, exact=True
    )


def _before_relu(model: Model, layer: str) -> str:
    """The layer whose output goes into a ReLU; any other layer itself."""
    place = model.layers.index(layer)
    is_relu = place > 0 and isinstance(model.module(layer), nn.ReLU)
    return model.layers[place - 1] if is_relu else layer


def cell(heat: Tensor, place: Place) -> tuple[int, int]:
    """The position (y, x) of a map (h, w) at a place of the picture."""
    return tuple(min(int(part * size / 100), size - 1) for part, size in zip(place, heat.shape, strict=True))


def middle(heat: Tensor, y: int, x: int) -> Place:
    """The place of the picture where a position of a map (h, w) lies."""
    return 100 * (y + 0.5) / heat.shape[0], 100 * (x + 0.5) / heat.shape[1]


def occluder_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 03: drag a grey square over a photo; the bars of the class probabilities follow."""
    size = 96
    picker, pad = PhotoPicker(names, size=size), place_pad(height=340)

    def draw(photo: str, place: Place, window: int) -> str:
        image = picker.image(photo)
        top, left = (round(part * size / 100) - window // 2 for part in place)
        covered = occlude(image, top, left, window=window)
        probabilities = torch.cat([model.probabilities(image), model.probabilities(covered)]).detach().cpu()
        top_five = probabilities[0].topk(5).indices.tolist()
        guesses = {
            f"{model.classes[index]}{note}": probabilities[row, index].item()
            for index in top_five
            for row, note in enumerate(("", ", covered"))
        }
        pad.show(covered, "Drag the cover", alt=f"{photo} with a grey square")
        return heading(f"What {model.name} says") + bar_rows(guesses, width=200)

    return panel(draw, photo=picker, window=slider("Window", 24, 8, 64, 4), place=pad)


def saliency_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 04: the gradient of a class or of a neuron, under one of the three ReLU rules; point at the photo for a
    neuron there."""
    picker, pad = PhotoPicker(names, size=96), place_pad(height=280)
    class_of_answer = "(the network's answer)"
    layers = [layer for layer in model.layers if isinstance(model.module(layer), nn.Conv2d)]

    channels = slider("Channel", 0, 0, 0)

    def draw(photo: str, what: str, channel: int, rule: str, place: Place) -> str:
        image = picker.image(photo)
        if what in layers:
            y, x = cell(model.activation(image, what)[0, channel], place)
            score, label = neuron_score(model, what, channel, y, x), f"{what}, channel {channel} at ({y}, {x})"
        else:
            label = model.top(image, k=1)[0][0][0] if what == class_of_answer else what
            score = class_score(model, label)
        with relu_rule(model, rule):
            gradient = input_gradient(image, score).cpu()
        pad.show(image, "Point at it for a neuron there", alt=photo)
        return heading(label) + tiles(_colored(gradient), [rule], alt=f"gradient of {label}", height=280, exact=True)

    def reach(what: str) -> None:
        channels.reach(model.module(what).out_channels - 1 if what in layers else 0)

    def choose_a_neuron(_: dict) -> None:
        if what.value not in layers:
            what.value = layers[len(layers) // 2]

    what = follow(search("Of", [class_of_answer, *layers, *sorted(model.classes, key=str.lower)]), reach)
    pad.observe(choose_a_neuron, names="value")
    return panel(
        draw,
        photo=picker,
        what=what,
        channel=channels,
        rule=choice("ReLU rule", RULES),
        place=pad,
    )


def attack_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 06: the attacked picture for an epsilon and a target of your choice.

    The direction of a photo and target is computed once, and for the first target before it is asked for; moving
    epsilon only scales it.
    """
    picker = PhotoPicker(names, size=96)
    anything = "(anything else)"

    @functools.lru_cache(maxsize=64)
    def direction(photo: str, target: str) -> Tensor:
        image = picker.image(photo)
        if target == anything:
            score = cross_entropy_score(model, model.top(image, k=1)[0][0][0])
        else:
            score = log_probability(model, target)
        largest = 4 / 255  # in the middle of the slider: the direction serves smaller and larger changes
        return (pgd(image, score, epsilon=largest, lr=largest / 2, steps=5) - image) / largest

    def draw(photo: str, target: str, epsilon: float) -> str:
        image = picker.image(photo)
        attacked = (image + epsilon / 255 * direction(photo, target)).clamp(0, 1)
        answers = [f"{top[0][0]} {top[0][1]:.0%}" for top in model.top(torch.cat([image, attacked]), k=1)]
        pictures = torch.cat([image, attacked, amplify_difference(image, attacked)])
        return heading(f"Largest change {epsilon:g} of 255") + tiles(
            pictures, [*answers, "10 x difference"], alt=f"{photo} and the attack on it", height=250, exact=True
        )

    shown = panel(
        draw,
        photo=picker,
        target=search("Target", [anything, *sorted(model.classes, key=str.lower)]),
        epsilon=slider("Epsilon / 255", 2.0, 0.0, 8.0, 0.25),
    )
    beforehand(lambda photo: direction(photo, anything), names)
    return shown


def _colored(gradient: Tensor) -> Tensor:
    """A gradient as an image: grey where it is 0, and clipped at its largest values."""
    largest = gradient.abs().flatten().quantile(0.997).clamp_min(1e-12)
    return (0.5 + 0.5 * gradient / largest).clamp(0, 1)
