"""Train one of the embedded networks.

    python -m lecturelib.training.classifier mini_vgg --train PACK/tiny/train PACK/caltech/train \\
        --val PACK/tiny/val PACK/caltech/val --folder runs/mini_vgg

Stop it when you like; the same command goes on from the last checkpoint and ends with the same weights. On several
processes or GPUs put `torchrun --nproc-per-node=2 -m` in the place of `python -m`. The released network
is written to `--release` at the end, with its card and its curve.
"""

import argparse
import copy
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from lecturelib.errors import ArgumentError
from lecturelib.modes import recording
from lecturelib.networks import EMBEDDED, fold_batch_norm, normalized
from lecturelib.training.checkpoints import load_checkpoint, save_checkpoint, settings_of
from lecturelib.training.photographs import Photographs, join, random_batch, read_photographs
from lecturelib.training.steps import draw, finishing_steps, join_processes, mixed_precision, warm_up_then_cosine


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. `passes` lists (pixels, passes over the photographs), small pictures
    first; `before` the passes of the earlier runs whose weights this one starts from."""

    network: str
    passes: tuple[tuple[int, float], ...]
    before: tuple[tuple[int, float], ...] = ()
    batch: int = 128
    lr: float = 0.08
    warm_up: float = 0.08
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    seed: int = 0

    def stages(self, photographs: int) -> list[tuple[int, int]]:
        """(pixels, number of steps) of each stage."""
        return [(size, max(1, round(passes * photographs / self.batch))) for size, passes in self.passes]


@recording(True)
def train(
    recipe: Recipe,
    photographs: Photographs,
    run: str | os.PathLike,
    *,
    start: str | os.PathLike | None = None,
    val: dict[str, Photographs] | None = None,
    save_every: int = 100,
    stop_after: int | None = None,
) -> nn.Sequential | None:
    """Train by `recipe`; resumes from `run/checkpoint.pt`. Returns the network in evaluation mode.

    The random numbers of a step depend on the recipe's seed and the step alone, therefore a resumed run is the
    uninterrupted run. With several processes, each takes its share of every batch. `start` is the checkpoint of
    an earlier run whose weights this run begins with. After the step `stop_after`, or the one in which an interrupt
    comes, it saves and returns None; the same call goes on from there.
    """
    device, rank, world = join_processes(recipe.batch)
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    settings = {**settings_of(recipe), "names": photographs.names, "photographs": len(photographs)}

    torch.manual_seed(recipe.seed)
    network = EMBEDDED[recipe.network](len(photographs.names), batch_norm=True)
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = _optimizer(network, recipe)
    stages = recipe.stages(len(photographs))
    total = sum(steps for _, steps in stages)
    done, earlier, curve = 0, 0, []
    if (state := load_checkpoint(run / "checkpoint.pt", settings=settings)) is not None:
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done, earlier, curve = state["step"], state["earlier"], state["curve"]
    elif start is not None:
        state = load_checkpoint(start)
        network.load_state_dict(state["network"])
        earlier, curve = state["earlier"] + state["step"], state["curve"]
    parallel = DistributedDataParallel(network) if world > 1 else network

    def save() -> None:
        if rank == 0:
            save_checkpoint(
                {
                    "settings": settings,
                    "network": network.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": done,
                    "earlier": earlier,
                    "curve": curve,
                },
                run / "checkpoint.pt",
            )

    bar = tqdm(total=total, initial=done, desc=recipe.network, disable=rank > 0, mininterval=5)
    first = 0
    with finishing_steps(world) as interrupted:
        for size, steps in stages:
            if done < first + steps:
                # A little larger than the crops, so that most crops shrink a bit and none is sampled too coarsely.
                stored = photographs.resized(min(photographs.images.shape[-1], round(1.2 * size)))
            while done < first + steps:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * warm_up_then_cosine(done / total, recipe.warm_up)
                indices, generator = draw(done, len(photographs), batch=recipe.batch, seed=recipe.seed)
                images = random_batch(stored, indices, size=size, generator=generator)[rank::world]
                labels = stored.labels[indices][rank::world]
                loss = _step(parallel, optimizer, images.to(device), labels.to(device), recipe)
                done += 1
                bar.update()
                bar.set_postfix(pixels=size, loss=f"{loss:.3f}", refresh=False)
                if done % 50 == 0:
                    curve.append({"step": earlier + done, "pixels": size, "loss": round(loss, 4)})
                if val and rank == 0 and (not done % (10 * save_every) or done == first + steps):
                    curve.append({"step": earlier + done, "pixels": size, "val": accuracies(network, val, size)})
                    tqdm.write(f"{time.strftime('%H:%M')} step {done} of {total}: {curve[-1]['val']}")
                end = interrupted() or (stop_after is not None and done >= stop_after)
                if done % save_every == 0 or done == total or end:
                    save()
                if end:
                    return None
            first += steps
    bar.close()
    if world > 1:
        for buffer in network.buffers():  # every process has seen other photographs in its last batch
            dist.broadcast(buffer, src=0)
        dist.destroy_process_group()
    return network.eval()


@recording(False)
def accuracies(network: nn.Module, val: dict[str, Photographs], size: int) -> dict[str, list[float]]:
    """Top-1 and top-5 accuracy in percent on each collection, at `size` pixels."""
    device = next(network.parameters()).device
    network.eval()
    found = {}
    for name, photographs in val.items():
        photographs = photographs.resized(size)
        hits = torch.zeros(2)
        for images, labels in zip(photographs.images.split(256), photographs.labels.split(256), strict=True):
            logits = network(normalized(images.to(device).float() / 255))
            top = logits.topk(min(5, len(photographs.names))).indices.cpu() == labels[:, None]
            hits += torch.stack([top[:, 0].sum(), top.any(dim=1).sum()])
        found[name] = [round(100 * float(hit) / len(photographs), 2) for hit in hits]
    return found


def release(recipe: Recipe, network: nn.Module, names: list[str], folder: str | os.PathLike, facts: dict) -> None:
    """Write `network` as shipped: batch norm folded, 16-bit safetensors, and a table of facts beside it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = fold_batch_norm(copy.deepcopy(network).cpu().eval())
    weights = {name: tensor.half().contiguous() for name, tensor in plain.state_dict().items()}
    path = folder / f"{recipe.network}.safetensors"
    save_file(weights, path, metadata={"network": recipe.network, "classes": json.dumps(names)})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"sha256": digest, "recipe": settings_of(recipe), "classes": len(names), **facts}
    (folder / f"{recipe.network}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", choices=sorted(EMBEDDED))
    parser.add_argument(
        "--train", nargs="+", required=True, metavar="SOURCE", help="ImageFolder or torchvision:NAME:DIR"
    )
    parser.add_argument("--val", nargs="*", default=[], metavar="SOURCE", help="the same classes, for measuring")
    parser.add_argument("--skip", nargs="*", default=[], metavar="CLASS", help="class folders to leave out")
    parser.add_argument("--folder", required=True, help="folder for the checkpoint and the photographs' cache")
    parser.add_argument("--release", metavar="DIR", help="write weights, facts and curve there")
    parser.add_argument("--passes", nargs="+", metavar="PIXELS:PASSES", default=["40:16", "48:10", "64:8", "96:6"])
    parser.add_argument("--lr", type=float, default=Recipe.lr, help="largest learning rate")
    parser.add_argument("--weights", metavar="CHECKPOINT", help="begin with the weights of an earlier run")
    parser.add_argument(
        "--stored",
        type=int,
        default=64,
        help="pixels at which photographs are kept in memory; not more than the smallest have, or the network learns "
        "to tell collections apart by their sharpness",
    )
    parser.add_argument("--stop-after", type=int, help="stop at this step, for tests")
    arguments = parser.parse_args()

    stages = tuple(
        (int(size), float(passes)) for size, _, passes in (stage.partition(":") for stage in arguments.passes)
    )
    recipe = Recipe(arguments.network, stages, before=_passes_of(arguments.weights), lr=arguments.lr)
    photographs = join([read_photographs(s, size=arguments.stored, skip=arguments.skip) for s in arguments.train])
    val = {}
    for source in arguments.val:
        part = read_photographs(source, size=arguments.stored, skip=arguments.skip)
        val[Path(source).parent.name] = _with_labels_of(part, photographs.names)
    network = train(
        recipe, photographs, arguments.folder, start=arguments.weights, val=val, stop_after=arguments.stop_after
    )
    if network is not None and arguments.release and int(os.environ.get("RANK", 0)) == 0:
        curve = load_checkpoint(Path(arguments.folder) / "checkpoint.pt")["curve"]
        largest = stages[-1][0]
        facts = {
            "photographs": len(photographs),
            "accuracy": {size: accuracies(network, val, size) for size in sorted({64, 96, largest})},
            "curve": curve,
        }
        release(recipe, network, photographs.names, arguments.release, facts)


def _optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay for filters only, not for biases and batch norms."""
    filters = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in network.parameters() if parameter.ndim <= 1]
    groups = [{"params": filters, "weight_decay": recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=0.9, nesterov=True)


def _step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, recipe: Recipe
) -> float:
    network.train()
    with mixed_precision(images.device):
        logits = network(normalized(images).contiguous(memory_format=torch.channels_last))
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=recipe.label_smoothing)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _with_labels_of(photographs: Photographs, names: list[str]) -> Photographs:
    """The same photographs with labels that count in `names`."""
    position = {name.lower(): index for index, name in enumerate(names)}
    translated = torch.tensor([position[name.lower()] for name in photographs.names])
    return Photographs(photographs.images, translated[photographs.labels], names)


def _passes_of(checkpoint: str | None) -> tuple[tuple[int, float], ...]:
    """All passes that the weights of an earlier run have seen."""
    if checkpoint is None:
        return ()
    if not Path(checkpoint).exists():
        raise ArgumentError("there is no checkpoint to start from", received=checkpoint, do="give RUN/checkpoint.pt")
    settings = load_checkpoint(checkpoint)["settings"]
    return tuple(tuple(stage) for stage in [*settings.get("before", []), *settings["passes"]])


if __name__ == "__main__":
    main()
