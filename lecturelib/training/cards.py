"""Write the model cards from the facts that a release leaves beside its weights.

python -m lecturelib.training.cards data docs
"""

import json
import sys
from pathlib import Path

from lecturelib.display import curves
from lecturelib.networks import EMBEDDED

_HEAD = """# Model cards

Written by `python -m lecturelib.training.cards data docs` from `data/*.json`; do not edit by hand.

**Data.** 115 classes of Tiny ImageNet (57,500 photographs of 64 x 64 pixels; Stanford CS231n, from ImageNet) and 100
classes of Caltech-101 (5,190 photographs less the class Faces_easy; Li, Andreeto, Ranzato and Perona, CC BY 4.0),
Caltech's listed twice in every pass. Classes of the same name in both are one. None of the photographs is part of
this repository.

**Terms.** ImageNet's photographs may be used for non-commercial research and education; use the weights for that.

**Recipe.** SGD with Nesterov momentum 0.9, batch 128, largest learning rate 0.08 unless the card says otherwise, 8 %
warm-up then a cosine to 0, weight decay 5e-4 (not on biases and batch norms), label smoothing 0.1; random crops of 35
to 100 % of the area, mirrored, with changed brightness, contrast and saturation; small pictures first. All
photographs are kept at 64 pixels, at least in the last passes: where Caltech's were sharper than Tiny ImageNet's, the
network learned to tell the collections apart by their sharpness, and took every sharp photograph for one of Caltech's.
Batch norms are folded into the layers and the weights stored in 16 bits.

**Limits.** Small networks, trained for an hour on one processor core each: they know {classes} classes and are often
wrong, most of all about people and things that they never saw. They are made for looking at, not for deciding
anything.

**Accuracy** is that of the network before folding and rounding, in percent, top-1 / top-5 among all {classes}
classes, on photographs that were not used in training.
"""


def main(data: str, docs: str) -> None:
    facts = {name: json.loads((Path(data) / f"{name}.json").read_text(encoding="utf-8")) for name in EMBEDDED}
    parts = [_HEAD.format(classes=next(iter(facts.values()))["classes"])]
    for name, card in facts.items():
        parts.append(_card(name, card))
        figure = curves(
            {"training loss": [point["loss"] for point in card["curve"] if "loss" in point]},
            x=[point["step"] for point in card["curve"] if "loss" in point],
            title=f"{name}: loss while training",
            x_label="step",
            y_label="cross-entropy with label smoothing",
        )
        figure.savefig(Path(docs) / f"{name}_curve.png", dpi=80)
    for name, card in (("four_styles", _painter_card), ("mini_vgg_fc6", _generator_card)):
        parts.append(card(name, json.loads((Path(data) / f"{name}.json").read_text(encoding="utf-8"))))
    (Path(docs) / "model_cards.md").write_text("\n".join(parts), encoding="utf-8")


def _card(name: str, card: dict) -> str:
    passes = ", ".join(f"{count:g} at {size} pixels" for size, count in card["recipe"]["before"])
    last = ", ".join(f"{count:g} at {size} pixels" for size, count in card["recipe"]["passes"])
    last += f" with a largest learning rate of {card['recipe']['lr']:g}"
    passes = f"{passes}; then, begun anew from these weights, {last}" if passes else last
    collections = list(next(iter(card["accuracy"].values())))
    rows = [
        f"| {size} | " + " | ".join(f"{top1:.1f} / {top5:.1f}" for top1, top5 in measured.values()) + " |"
        for size, measured in card["accuracy"].items()
    ]
    history = [
        f"| {point['step']} | {point['pixels']} | "
        + " | ".join(f"{top1:.1f} / {top5:.1f}" for top1, top5 in point["val"].values())
        + " |"
        for point in card["curve"]
        if "val" in point
    ]
    return "\n".join(
        [
            f"\n## {name}\n",
            f"SHA-256 `{card['sha256']}`; {card['classes']} classes.",
            f"Passes over {card['photographs']} photographs: {passes}.\n",
            f"| pixels | {' | '.join(collections)} |",
            "|---" * (len(collections) + 1) + "|",
            *rows,
            f"\n![The loss of {name} falls while it is trained]({name}_curve.png)\n",
            f"| step | pixels | {' | '.join(collections)} |",
            "|---" * (len(collections) + 2) + "|",
            *history,
            "",
        ]
    )


def _painter_card(name: str, card: dict) -> str:
    recipe = card["recipe"]
    before = "".join(
        f" Begun with the weights of {run['steps']} steps at {run['pixels']} pixels with style weight"
        f" {run['style_weight']:g}."
        for run in card.get("earlier_runs", ())
    )
    history = [f"| {point['step']} | {point['held_out']:.3f} |" for point in card["curve"] if "held_out" in point]
    return "\n".join(
        [
            f"\n## {name}\n",
            f"SHA-256 `{card['sha256']}`. Paints in the styles {', '.join(recipe['styles'])}, which we drew"
            f" ourselves.\n",
            f"Trained for {recipe['steps']} steps of {recipe['batch']} crops of {recipe['pixels']} pixels from"
            f" {recipe['photographs']} photographs (Caltech-101, and 500 of ImageNet's; the same terms as"
            f" above), style"
            f" pictures at {recipe['style_pixels']} pixels; Adam with a largest learning rate of"
            f" {recipe['lr']:g}, cosine"
            f" to 0; content {recipe['content_layer']}, style {', '.join(recipe['style_layers'])} of"
            f" {recipe['network']}, style weight {recipe['style_weight']:g}.{before} Held out: the loss on four"
            " packaged photographs.\n",
            "| step | held-out loss |\n|---|---|",
            *history[4::5],
            "",
        ]
    )


def _generator_card(name: str, card: dict) -> str:
    rows = [
        f"| {where} | {found['image']:.3f} ({found['grey image']:.3f}) | {found['code']:.2f}"
        f" ({found['grey code']:.2f}) |"
        f" {found['same answer']:.0f} % |"
        for where, found in card["measured"].items()
    ]
    recipe, steps = card["recipe"], card["curve"][-1]["step"]
    passes = steps * recipe["batch"] / card["photographs"]
    critic = f"a discriminator, weight {recipe['adversarial']:g}, after {recipe['alone']:.0%} of the steps"
    return "\n".join(
        [
            f"\n## {name}\n",
            f"SHA-256 `{card['sha256']}`. Draws a picture of {recipe['pixels']} pixels from the fc6 code of"
            f" {recipe['network']}. {steps} steps of {recipe['batch']} photographs ({passes:.1f} passes over"
            f" {card['photographs']}); Adam with a largest learning rate of {recipe['lr']:g}, cosine to 0; weights of"
            f" the losses: image {recipe['image']:g}, features {recipe['feature']:g}, code {recipe['code']:g};"
            f" {critic if recipe['adversarial'] else 'no discriminator'}."
            + "".join(
                f" Begun with the weights of {run['steps']} steps without that, learning rate {run['lr']:g}."
                for run in card.get("earlier_runs", ())
            )
            + "\n",
            "| photographs that were held out | mean absolute error of the image (of a grey one) | relative"
            " error of the"
            " code (of a grey one's) | the network answers as for the photograph |\n|---|---|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
