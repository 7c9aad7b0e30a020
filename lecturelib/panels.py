"""The panels of the lectures, made of the blocks in `widgets`: one function each, named after what it shows."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lecturelib.activations import patch_images, receptive_field, strongest_patches
from lecturelib.adversarial import amplify_difference, cross_entropy_score, pgd
from lecturelib.display import bars, boxes, grid, scatter, show
from lecturelib.layers import codes, nearest, tsne
from lecturelib.models import Model
from lecturelib.occlusion import occlude
from lecturelib.photos import Collection
from lecturelib.relu_rules import RULES, relu_rule
from lecturelib.saliency import input_gradient
from lecturelib.scores import class_score, neuron_score
from lecturelib.widgets import Panel, PhotoPicker, choice, panel, slider


def perplexity_panel(points: Tensor, labels: Tensor, names: Sequence[str]) -> Panel:
    """Lecture 01: t-SNE of points (N, D) for the perplexity that you choose."""

    @functools.lru_cache(maxsize=16)
    def embedded(perplexity: int) -> Tensor:
        return tsne(points, perplexity=perplexity)

    def draw(perplexity: int) -> None:
        show(
            scatter(embedded(perplexity), labels, names, title=f"t-SNE, perplexity {perplexity}"),
            alt=f"Scatter plot of {len(points)} points in {len(names)} colors, t-SNE with perplexity {perplexity}",
        )

    return panel(draw, perplexity=slider("Perplexity", 30, 2, min(100, len(points) - 1)))


def neighbours_panel(model: Model, gallery: Collection, names: Sequence[str]) -> Panel:
    """Lecture 01: the five nearest pictures of a gallery to a photo of your choice, by code and by pixels."""
    picker = PhotoPicker(names, size=gallery.images.shape[-1])
    gallery_codes = codes(model, gallery.images)

    def draw(photo: str) -> None:
        image = picker.image(photo)
        by_code = nearest(codes(model, image), gallery_codes)[0]
        by_pixels = nearest(image, gallery.images)[0]
        found = torch.cat([image, gallery[by_code], image, gallery[by_pixels]])
        titles = [
            title
            for kind, indices in (("by code", by_code), ("by pixels", by_pixels))
            for title in (f"{kind}:", *(gallery.names[gallery.labels[index]] for index in indices))
        ]
        show(
            found,
            titles,
            columns=6,
            height=1.5,
            alt=f"{photo} and its nearest pictures by code, then by pixels: {titles}",
        )

    return panel(draw, photo=picker)


def unit_panel(model: Model, photos: Collection, names: Sequence[str], layers: Sequence[str]) -> Panel:
    """Lecture 02: a channel on a photo of your choice: its map, what its strongest place sees, and its strongest
    patches.

    photos: where the strongest patches are looked for; one pass for each layer, when it is first chosen.
    """
    picker = PhotoPicker(names)
    channels = slider("Channel", 0, 0, 255)
    strongest = functools.lru_cache(maxsize=len(layers))(lambda layer: strongest_patches(model, layer, photos.images))

    def draw(photo: str, layer: str, channel: int) -> None:
        image, field = picker.image(photo), receptive_field(model, layer)
        maps = model.activation(image, layer)[0].cpu()
        channel = min(channel, len(maps) - 1)
        place = divmod(int(maps[channel].argmax()), maps.shape[2])
        box = field.box(*place)
        show(
            grid(maps[channel], title=f"{layer}, channel {channel} of {len(maps)}", height=2.6),
            alt=f"Map of channel {channel} of {layer} for {photo}",
        )
        show(boxes(image, [box], title="what its strongest place sees", height=2.6), alt=f"{photo} with a box at {box}")
        show(
            patch_images(photos.images, strongest(layer), field, channel),
            title="its strongest patches",
            height=0.9,
            columns=9,
            alt=f"The nine patches that excite channel {channel} of {layer} most",
        )

    return panel(draw, photo=picker, layer=choice("Layer", layers), channel=channels)


def classify_panel(model: Model, names: Sequence[str]) -> Panel:
    """The network's five best guesses for a photo of your choice."""
    picker = PhotoPicker(names)

    def draw(photo: str) -> None:
        image = picker.image(photo)
        guesses = dict(model.top(image)[0])
        show(image, title=photo, height=2.2, alt=f"The photo {photo}")
        show(
            bars(guesses, title=f"What {model.name} says", x_label="probability"),
            alt="Bars: " + ", ".join(f"{name} {value:.2f}" for name, value in guesses.items()),
        )

    return panel(draw, photo=picker)


def occluder_panel(model: Model, names: Sequence[str]) -> Panel:
    """Lecture 03: move a grey square over a photo; the bars of the class probabilities follow."""
    picker = PhotoPicker(names, size=96)

    def draw(photo: str, top: int, left: int, window: int) -> None:
        image = picker.image(photo)
        covered = occlude(image, top, left, window=window)
        probabilities = torch.cat([model.probabilities(image), model.probabilities(covered)]).detach().cpu()
        top_five = probabilities[0].topk(5).indices.tolist()
        show(
            torch.cat([image, covered]),
            ["the picture", "covered"],
            height=2.2,
            alt=f"{photo}, and with a square covered",
        )
        show(
            bars(
                {
                    f"{model.classes[index]}{note}": probabilities[row, index].item()
                    for index in top_five
                    for row, note in enumerate(("", ", covered"))
                },
                title="What the network says",
                x_label="probability",
            ),
            alt="Bars of the five likeliest classes, without and with the square",
        )

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

    def draw(photo: str, what: str, channel: int, rule: str) -> None:
        image = picker.image(photo)
        if what in layers:
            channel = min(channel, model.module(what).out_channels - 1)
            score, label = neuron_score(model, what, channel), f"{what}, channel {channel}, in the middle"
        else:
            label = model.top(image, k=1)[0][0][0] if what == class_of_answer else what
            score = class_score(model, label)
        with relu_rule(model, rule):
            gradient = input_gradient(image, score).cpu()
        colored = (0.5 + 0.5 * gradient / gradient.abs().flatten().quantile(0.997).clamp_min(1e-12)).clamp(0, 1)
        show(
            torch.cat([image, colored]),
            ["the picture", rule],
            title=label,
            alt=f"{photo} and its gradient, {rule}, of {label}",
        )

    return panel(
        draw,
        photo=picker,
        what=choice("Of", [class_of_answer, *layers, *sorted(model.classes, key=str.lower)]),
        channel=slider("Channel", 0, 0, 255),
        rule=choice("ReLU rule", RULES),
    )


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
        show(
            torch.cat([image, attacked, amplify_difference(image, attacked)]),
            [*answers, "10 x difference"],
            title=f"largest change {epsilon:g} of 255",
            alt=f"{photo}: {answers[0]}; attacked: {answers[1]}; and ten times the difference",
        )

    return panel(
        draw,
        photo=picker,
        target=choice("Target", [anything, *sorted(model.classes, key=str.lower)]),
        epsilon=slider("Epsilon / 255", 2.0, 0.0, 8.0, 0.25),
    )
