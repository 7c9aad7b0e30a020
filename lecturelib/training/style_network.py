"""Train a network that paints in your styles, from any folder of photographs.

    python -m lecturelib.training.style_network --photographs PHOTOS --styles mosaic mine.jpg --folder runs/styles

Stop it when you like: `best.safetensors` in the folder is the best network so far and `preview.png` what it paints; the
same command goes on from the last checkpoint and ends with the same weights. On several processes or GPUs put
`torchrun --nproc-per-node=2 -m` in the place of `python -m`. With `--add NAME.safetensors` an existing network learns
one more style by its scales and shifts alone, everything else stays.
"""

import argparse
import copy
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from lecturelib.errors import ArgumentError
from lecturelib.faststyle import StyleNetwork, load_style_net, save_style_net, with_style
from lecturelib.images import encode_png, load_image
from lecturelib.models import load_model
from lecturelib.modes import recording
from lecturelib.training.checkpoints import load_checkpoint, replacing, save_checkpoint, settings_of
from lecturelib.training.photographs import PhotographFolder
from lecturelib.training.steps import draw, finishing_steps, join_processes, mixed_precision, warm_up_then_cosine
from lecturelib.training.style_loss import Recipe, StyleLoss

HELD_OUT = ("astronaut", "cat", "china", "coffee")  # packaged photographs, for the previews and for judging
LONGEST = 10.0  # gradients are cut to this length


@recording(True)
def train(
    recipe: Recipe,
    photographs: PhotographFolder,
    styles: list[Tensor],
    folder: str | os.PathLike,
    *,
    start: StyleNetwork | None = None,
    save_every: int = 200,
    stop_after: int | None = None,
    on_preview: Callable[[int, Tensor], object] | None = None,
    device: str | torch.device | None = None,
) -> StyleNetwork:
    """Train by `recipe`, from `folder/checkpoint.pt` where there is one. Returns the best network so far.

    styles: one picture (1, 3, H, W) for each name in `recipe.styles`.
    start: a network to begin with. Where it knows all styles but the last, only the last one's scales and shifts are
        trained.
    stop_after: save and end after this step. An interrupt saves and ends too, when its step is done.
    on_preview: called as on_preview(step, pictures) whenever the held-out photographs have been painted.

    The random numbers of a step depend on the recipe's seed and on the step alone, so a resumed run is the
    uninterrupted one; with instance norm, several processes give what one gives. Convolutions are in 16 bits where the
    device is made for it.
    """
    if len(styles) != len(recipe.styles):
        raise ArgumentError("each style has one picture", received=f"{len(styles)} for {len(recipe.styles)} names")
    device, rank, world = join_processes(recipe.batch, device)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(recipe, photographs.outside(folder), styles, start, device)
    run.restore(load_checkpoint(folder / "checkpoint.pt", settings=run.settings))
    parallel = DistributedDataParallel(run.network) if world > 1 else run.network
    try:
        with finishing_steps(world) as interrupted:
            for _step in _counted(run.step, recipe.steps, show=rank == 0):
                run.take(parallel, rank, world)
                due = not run.step % save_every or run.step == recipe.steps or interrupted()
                end = interrupted() or (stop_after is not None and run.step >= stop_after)
                pictures = run.judge(folder) if rank == 0 and due else None
                if rank == 0 and (due or end):
                    save_checkpoint(run.state(), folder / "checkpoint.pt")
                if on_preview and pictures is not None:
                    on_preview(run.step, pictures)
                if end:
                    tqdm.write(f"stopped at step {run.step} of {recipe.steps}; the same call goes on from there")
                    break
    except KeyboardInterrupt:
        tqdm.write(f"stopped at step {run.step} of {recipe.steps}; the same call goes on from its last checkpoint")
    finally:
        if world > 1:
            dist.destroy_process_group()
    best = folder / "best.safetensors"
    return load_style_net(best, device=device) if best.exists() else run.network


class _Run:
    """The state of a training: the network, its optimizer, the number of steps taken, the losses on the way."""

    def __init__(
        self,
        recipe: Recipe,
        photographs: PhotographFolder,
        styles: list[Tensor],
        start: StyleNetwork | None,
        device: torch.device,
    ):
        self.recipe, self.photographs, self.device = recipe, photographs, device
        self.only_last = start is not None and len(start.names) < len(recipe.styles)
        self.settings = {**settings_of(recipe), "photographs": len(photographs), "adds_a_style": self.only_last}
        torch.manual_seed(recipe.seed)
        network = _first_network(recipe, start)
        self.network = network.to(device, memory_format=torch.channels_last)
        trained = self.network.style_parameters() if self.only_last else list(self.network.parameters())
        self.network.requires_grad_(requires_grad=False)
        for parameter in trained:
            parameter.requires_grad_()
        self.optimizer = torch.optim.Adam(trained, lr=recipe.lr)
        self.loss = StyleLoss(load_model(recipe.network, device=device), recipe, styles)
        self.held_out = torch.cat([load_image(name, size=recipe.pixels) for name in HELD_OUT]).to(device)
        self.step, self.curve, self.best = 0, [], float("inf")

    def restore(self, state: dict | None) -> None:
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.curve, self.best = state["step"], state["curve"], state["best"]

    def state(self) -> dict:
        return {
            "settings": self.settings,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "curve": self.curve,
            "best": self.best,
        }

    def take(self, parallel: nn.Module, rank: int, world: int) -> None:
        """One step on this process' share of a batch; the pictures of a batch take the styles in turn."""
        recipe = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.lr * warm_up_then_cosine(self.step / recipe.steps, 0.02)
        indices, generator = draw(self.step, len(self.photographs), batch=recipe.batch, seed=recipe.seed)
        crops = [self.photographs.crop(index, recipe.pixels, generator) for index in indices.tolist()]
        images = torch.cat(crops)[rank::world].to(self.device)
        count = len(recipe.styles)
        numbers = (self.step * recipe.batch + torch.arange(recipe.batch)) % count
        numbers = torch.full_like(numbers, count - 1) if self.only_last else numbers
        numbers = numbers[rank::world].to(self.device)
        with mixed_precision(self.device):
            painted = parallel(images, F.one_hot(numbers, count).float())
        losses = self.loss(painted.float(), images, numbers)
        self.optimizer.zero_grad()
        losses.mean().backward()
        if self.only_last:
            for parameter in self.network.style_parameters():
                parameter.grad[:-1] = 0
        length = nn.utils.clip_grad_norm_(self.network.parameters(), LONGEST)
        if length.isfinite():  # a photograph that overflows changes nothing
            self.optimizer.step()
        self.step += 1
        if self.step % 25 == 0:
            self.curve.append({"step": self.step, "loss": round(losses.mean().item(), 4)})

    @torch.no_grad()
    def judge(self, folder: Path) -> Tensor:
        """Paint the held-out photographs in every style; keep the network when their loss is the smallest so far."""
        rows, losses = [], []
        for number in [len(self.recipe.styles) - 1] if self.only_last else range(len(self.recipe.styles)):
            painted = self.network(self.held_out, number)
            losses.append(self.loss(painted, self.held_out, torch.full((len(painted),), number)).mean().item())
            rows.append(torch.cat(list(painted.cpu()), dim=2))
        loss = sum(losses) / len(losses)
        self.curve.append({"step": self.step, "held_out": round(loss, 4)})
        pictures = torch.cat(rows, dim=1)[None]
        with replacing(folder / "preview.png") as partial:
            partial.write_bytes(encode_png(pictures))
        if loss < self.best:
            self.best = loss
            with replacing(folder / "best.safetensors") as partial:
                save_style_net(self.network, partial)
        return pictures


def release(folder: str | os.PathLike, name: str, data: str | os.PathLike) -> None:
    """Copy the best network of a training to `data` under a name, with a table of facts beside it."""
    state, best = load_checkpoint(Path(folder) / "checkpoint.pt"), Path(folder) / "best.safetensors"
    Path(data).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(best, Path(data) / f"{name}.safetensors")
    facts = {
        "sha256": hashlib.sha256(best.read_bytes()).hexdigest(),
        "recipe": state["settings"],
        "best_held_out": state["best"],
        "curve": state["curve"],
    }
    (Path(data) / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", required=True, help="a folder of photographs, with or without subfolders")
    parser.add_argument("--styles", nargs="+", required=True, help="names of style pictures, or files of yours")
    parser.add_argument("--folder", required=True, help="where checkpoint, best network and preview are kept")
    before = parser.add_mutually_exclusive_group()
    before.add_argument("--add", metavar="NETWORK", help="a network that learns one more style")
    before.add_argument("--weights", metavar="NETWORK", help="begin with this network of the same styles")
    parser.add_argument("--release", metavar="DIR", help="copy the best network there, with its facts")
    parser.add_argument("--name", default="painter", help="of the released network")
    parser.add_argument("--stop-after", type=int, help="end at this step; the same command goes on")
    for name in (
        "steps",
        "pixels",
        "style_pixels",
        "batch",
        "width",
        "blocks",
        "seed",
        "lr",
        "style_weight",
        "tv_weight",
    ):
        default = getattr(Recipe, name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    parser.add_argument("--network", default=Recipe.network)
    chosen = parser.parse_args(arguments)
    names = tuple(Path(style).stem for style in chosen.styles)
    begun = chosen.add or chosen.weights
    start = load_style_net(begun, device="cpu") if begun else None
    if chosen.add:
        if len(names) != 1:
            raise ArgumentError("one style is added at a time", received=f"{len(names)} styles")
        names = (*start.names, *names)
    same = {name: getattr(chosen, name) for name in asdict(Recipe(())) if hasattr(chosen, name) and name != "styles"}
    if start is not None:
        same |= {"width": start.width, "blocks": len(start.blocks)}
    recipe = Recipe(names, **same)
    pictures = [load_image(style, size=recipe.style_pixels) for style in chosen.styles]
    # The styles that a network has already are not trained: any picture holds their place.
    pictures = pictures * (len(names) - len(pictures)) + pictures if chosen.add else pictures
    photographs = PhotographFolder(chosen.photographs)
    train(recipe, photographs, pictures, chosen.folder, start=start, stop_after=chosen.stop_after)
    if chosen.release and int(os.environ.get("RANK", 0)) == 0:
        release(chosen.folder, chosen.name, chosen.release)
    if photographs.skipped:
        print("left out:", ", ".join(photographs.skipped))


def _counted(first: int, last: int, *, show: bool) -> Iterator[int]:
    with tqdm(total=last, initial=first, desc="painting", disable=not show, mininterval=2, leave=False) as bar:
        for step in range(first, last):
            yield step
            bar.update()


def _first_network(recipe: Recipe, start: StyleNetwork | None) -> StyleNetwork:
    if start is None:
        return StyleNetwork(styles=len(recipe.styles), width=recipe.width, blocks=recipe.blocks, names=recipe.styles)
    if tuple(start.names) == recipe.styles:
        return copy.deepcopy(start)
    if tuple(start.names) != recipe.styles[:-1]:
        raise ArgumentError(
            "a training begins with a network of the same styles, or of all but the last",
            received=f"{', '.join(start.names)} for {', '.join(recipe.styles)}",
            do="name its styles in its order",
        )
    return with_style(start, recipe.styles[-1])


if __name__ == "__main__":
    main()
