"""Occlusion beside captum: processor time of one thread in one process, and how well the numbers agree.

    python benchmarks/occlusion.py [--quick] [alexnet] [vgg16]

Random weights from a fixed seed, one picture of 224 x 224 pixels, window 32, stride 8: 625 windows. captum gets the
same frozen `Model`, so that it profits from its memory layout too, and its best number of perturbations per evaluation
counts. With `--quick`, captum is timed on 49 of the windows, and its time for all of them is computed from that (each
costs it the same); ours always runs in full. Only ratios of one run mean anything. Exits with 1 when one is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from captum.attr import Occlusion
from torch import Tensor

from lecturelib.maps import to_pixels
from lecturelib.models import Model, load_model
from lecturelib.networks import MEAN
from lecturelib.occlusion import occlusion_map
from lecturelib.scores import class_score

SIZE, WINDOW, STRIDE, TARGET = 224, 32, 8, 7
BATCHES = {"alexnet": (1, 4, 16), "vgg16": (1, 2, 4)}
REQUIRED = {"alexnet": 2.2, "vgg16": 4.5}
AGREEMENT = 1e-4  # of the spread of the map
MEMORY = 300  # MB above the network


def compare(name: str, *, quick: bool) -> bool:
    """Print one table; whether everything that is required was reached."""
    model = load_model(name, trained=False, seed=0, device="cpu")
    image = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    score = class_score(model, TARGET)
    model(image)  # the first pass prepares the kernels
    (drop, ours), memory = measured(lambda: timed(lambda: occlusion_map(image, score, window=WINDOW, stride=STRIDE)))
    stride = WINDOW if quick else STRIDE
    mine = to_pixels(drop[:, :: stride // STRIDE, :: stride // STRIDE], window=WINDOW, stride=stride, size=SIZE)
    share = (drop.numel() + 1) / (((SIZE - WINDOW) // stride + 1) ** 2 + 1)  # captum runs the uncovered picture too
    theirs, error = {}, 0.0
    for batch in BATCHES[name]:
        pixels, seconds = timed(lambda batch=batch: by_captum(model, image, stride, batch))
        theirs[batch] = seconds * share
        error = max(error, ((pixels - mine).abs().amax() / (drop.amax() - drop.amin())).item())
    how = f"timed on {1 / share:.0%} of its work, multiplied" if quick else "in full"
    print(f"\n{name}: {drop.numel()} windows, processor seconds, captum {how}")
    print(f"  ours                {ours:8.1f} s   {memory}")
    for batch, seconds in theirs.items():
        print(f"  captum, batch {batch:<4}  {seconds:8.1f} s   {seconds / ours:5.2f} x ours")
    ratio = min(theirs.values()) / ours
    print(f"  against its best    {ratio:5.2f} x (required {REQUIRED[name]} x)")
    print(f"  largest difference  {error:.1e} of the map's spread (required {AGREEMENT:.0e})", flush=True)
    return ratio >= REQUIRED[name] and error <= AGREEMENT


def by_captum(model: Model, image: Tensor, stride: int, batch: int) -> Tensor:
    """captum's drops, averaged over the windows that cover a pixel, (1, H, W)."""
    drops = Occlusion(model).attribute(
        image,
        sliding_window_shapes=(3, WINDOW, WINDOW),
        strides=(3, stride, stride),
        baselines=torch.tensor(MEAN).view(1, 3, 1, 1).expand_as(image),
        target=TARGET,
        perturbations_per_eval=batch,
    )
    return drops[:, 0]


def timed(function: Callable[[], Tensor]) -> tuple[Tensor, float]:
    before = time.process_time()
    return function(), time.process_time() - before


def measured(function: Callable) -> tuple[object, str]:
    """The result, and the memory that was needed on the way (Linux only)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return function(), ""
    reset.write_text("5")  # the peak starts anew
    before = _kilobytes(status, "VmRSS")
    result = function()
    return result, f"{(_kilobytes(status, 'VmHWM') - before) / 1000:.0f} MB above the network (required {MEMORY} MB)"


def _kilobytes(status: Path, key: str) -> int:
    return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(key)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(REQUIRED), help=" or ".join(REQUIRED))
    parser.add_argument("--quick", action="store_true", help="time captum on 49 of the 625 windows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    reached = [compare(name, quick=options.quick) for name in options.networks]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
