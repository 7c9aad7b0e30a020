"""Processor milliseconds that a panel takes for an answer, without a browser and whatever else the machine does.

    python benchmarks/answers.py --moves 40

The median and the 95th percentile over random moves of all controls; `panels.py` measures what a browser adds.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator

import ipywidgets
import torch

from lecturelib import load_model
from lecturelib.faststyle import load_style_net
from lecturelib.panels import (
    attack_panel,
    blend_panel,
    classify_panel,
    inversion_panel,
    neighbours_panel,
    occluder_panel,
    saliency_panel,
    unit_panel,
)
from lecturelib.photos import photo_crops, photograph_names
from lecturelib.widgets import Panel


def panels() -> dict[str, Callable[[], Panel]]:
    alexnet, vgg, names = load_model("mini_alexnet"), load_model("mini_vgg"), photograph_names()
    crops, layers = photo_crops(size=96, per_photo=10), [f"relu{number}" for number in range(1, 6)]
    images = {name: torch.rand(5, 3, 128, 128) for name in names[:4]}
    return {
        "00 classes": lambda: classify_panel(alexnet, names),
        "01 neighbours": lambda: neighbours_panel(alexnet, crops, names),
        "02 unit card": lambda: unit_panel(alexnet, crops, names, layers),
        "03 cover": lambda: occluder_panel(alexnet, names),
        "04 gradients": lambda: saliency_panel(vgg, names),
        "06 attack": lambda: attack_panel(alexnet, names),
        "08 depth": lambda: inversion_panel({name: some[:1] for name, some in images.items()}, images, list("abcde")),
        "11 blend": lambda: blend_panel(load_style_net("four_styles"), names),
    }


def fields(box: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """The labeled controls of a panel that have several values."""
    for child in getattr(box, "children", ()):
        if getattr(child, "description", "") and (hasattr(child, "options") or hasattr(child, "max")):
            yield child
        yield from fields(child)


def move(field: ipywidgets.Widget, chance: random.Random) -> float:
    """Processor milliseconds of this thread for another value."""
    if hasattr(field, "options"):
        value = chance.choice([option for option in field.options if option != field.value] or [field.value])
    else:
        value = field.min + field.step * chance.randint(0, round((field.max - field.min) / field.step))
    begin = time.thread_time()
    field.value = value
    return 1000 * (time.thread_time() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=40)
    moves, chance = parser.parse_args().moves, random.Random(0)
    torch.set_num_threads(1)
    for name, make in panels().items():
        box = make()
        times = [move(chance.choice(list(fields(box))), chance) for _ in range(moves)]
        late = statistics.quantiles(times, n=20, method="inclusive")[-1]
        print(f"{name:14s} {statistics.median(times):6.0f} {late:6.0f}", flush=True)


if __name__ == "__main__":
    main()
