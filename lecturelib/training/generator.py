"""Train the generator that draws pictures of codes (Dosovitskiy and Brox, 2016; Nguyen et al., 2016).

    python -m lecturelib.training.generator --train PACK/tiny/train PACK/caltech/train --folder runs/fc6 --release data

Stop it when you like; the same command goes on from the last checkpoint and ends with the same weights. On several
processes or GPUs put `torchrun --nproc-per-node=2 -m` in the place of `python -m`.
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

from lecturelib.generators import fc6_generator
from lecturelib.models import Model, load_model
from lecturelib.modes import recording
from lecturelib.networks import fold_batch_norm
from lecturelib.training.checkpoints import load_checkpoint, save_checkpoint, settings_of
from lecturelib.training.photographs import Photographs, join, read_photographs
from lecturelib.training.steps import draw, finishing_steps, join_processes, mixed_precision, warm_up_then_cosine


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights. The four weights are those of the losses of `inversion_losses`, and of the
    discriminator, which comes in after `alone` of all steps; 0 leaves it out."""

    network: str = "mini_vgg"
    features: tuple[str, ...] = ("relu2_2", "relu3_2", "relu4_2")
    pixels: int = 64
    passes: float = 2.0
    batch: int = 16
    lr: float = 2e-3
    warm_up: float = 0.02
    image: float = 4.0
    feature: float = 1.0
    code: float = 0.5
    adversarial: float = 0.0
    alone: float = 0.5
    seed: int = 0


class _State:
    """What a checkpoint holds: both networks, their optimizers, and how far they are."""

    def __init__(self, recipe: Recipe, code: int, device: torch.device):
        torch.manual_seed(recipe.seed)
        self.generator = fc6_generator(code, pixels=recipe.pixels, batch_norm=True)
        self.critic = discriminator()
        for network in (self.generator, self.critic):
            network.to(device, memory_format=torch.channels_last)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=recipe.lr, betas=(0.5, 0.99))
            for network in (self.generator, self.critic)
        ]
        self.step, self.curve = 0, []

    def saved(self, settings: dict) -> dict:
        return {
            "settings": settings,
            "generator": self.generator.state_dict(),
            "critic": self.critic.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "curve": self.curve,
        }

    def restore(self, saved: dict) -> None:
        self.restore_networks(saved)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.curve = saved["step"], saved["curve"]

    def restore_networks(self, saved: dict) -> None:
        self.generator.load_state_dict(saved["generator"])
        self.critic.load_state_dict(saved["critic"])


@recording(True)
def train(
    recipe: Recipe,
    photographs: Photographs,
    run: str | os.PathLike,
    *,
    model: Model | None = None,
    start: str | os.PathLike | None = None,
    save_every: int = 100,
    stop_after: int | None = None,
) -> nn.Sequential | None:
    """Train by `recipe`; resumes from `run/checkpoint.pt`. Returns the generator in evaluation mode.

    The random numbers of a step depend on the recipe's seed and the step alone, therefore a resumed run is the
    uninterrupted run. `model` is the network to invert, by default the recipe's. `start` is the checkpoint of an
    earlier run whose weights this one begins with. After the step `stop_after`, or the one in which an interrupt
    comes, it saves and returns None; the same call goes on from there.
    """
    device, rank, world = join_processes(recipe.batch)
    run = Path(run)
    run.mkdir(parents=True, exist_ok=True)
    model = model or load_model(recipe.network, device=device)
    settings = {**settings_of(recipe), "photographs": len(photographs)}
    state = _State(recipe, code_length(model), device)
    if (saved := load_checkpoint(run / "checkpoint.pt", settings=settings)) is not None:
        state.restore(saved)
    elif start is not None:
        state.restore_networks(load_checkpoint(start))
    networks = [
        DistributedDataParallel(network) if world > 1 else network for network in (state.generator, state.critic)
    ]
    total = max(1, round(recipe.passes * len(photographs) / recipe.batch))
    bar = tqdm(total=total, initial=state.step, desc="generator", disable=rank > 0, mininterval=5)
    with finishing_steps(world) as interrupted:
        while state.step < total:
            for optimizer in state.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = recipe.lr * warm_up_then_cosine(state.step / total, recipe.warm_up)
            images = _mirrored(photographs, recipe, state.step)[rank::world].to(device)
            with_critic = recipe.adversarial > 0 and state.step >= recipe.alone * total
            losses = _step(networks, state.optimizers, model, images, recipe, with_critic)
            state.step += 1
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()}, refresh=False)
            if state.step % 50 == 0 or state.step == total:
                state.curve.append({"step": state.step, **{name: round(value, 4) for name, value in losses.items()}})
            end = interrupted() or (stop_after is not None and state.step >= stop_after)
            if rank == 0 and (state.step % save_every == 0 or state.step == total or end):
                save_checkpoint(state.saved(settings), run / "checkpoint.pt")
            if end:
                return None
    bar.close()
    if world > 1:
        for buffer in state.generator.buffers():  # every process has seen other photographs in its last batch
            dist.broadcast(buffer, src=0)
        dist.destroy_process_group()
    return state.generator.eval()


def inversion_losses(model: Model, drawn: Tensor, images: Tensor, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """How far the `drawn` images are from the photographs `images`: in pixels, in features, and in their codes.

    wanted: what the layers of the model give for the photographs, the code last. The first number is the mean absolute
    difference; the others are squared distances relative to the squared length, ||a - b||^2 / ||b||^2.
    """
    found = model.activations(drawn, list(wanted))
    pairs = [(found[layer].float(), wanted[layer].float()) for layer in wanted]
    distances = [(here - there).square().sum() / there.square().sum() for here, there in pairs]
    return {"image": (drawn - images).abs().mean(), "feature": sum(distances[:-1]), "code": distances[-1]}


def discriminator() -> nn.Sequential:
    """Images (N, 3, H, W) -> one number for each patch: large for photographs, small for drawn ones."""
    layers, width = [], 3
    for outputs in (32, 64, 128):
        layers += [nn.Conv2d(width, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        width = outputs
    return nn.Sequential(*layers, nn.Conv2d(width, 1, 3, padding=1))


@recording(False)
def code_statistics(model: Model, photographs: Photographs, *, count: int = 4096) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of each number of the codes, shapes (D,), over `count` photographs evenly chosen."""
    chosen = torch.linspace(0, len(photographs) - 1, min(count, len(photographs))).long()
    parts = [
        model.activation(photographs.images[indices].float() / 255, model.code_layer) for indices in chosen.split(64)
    ]
    codes = torch.cat(parts).double()
    return codes.std(dim=0, correction=0).float().cpu(), codes.mean(dim=0).float().cpu()


@recording(False)
def measured(model: Model, generator: nn.Module, photographs: Photographs, *, count: int = 512) -> dict[str, float]:
    """Mean losses on photographs, `feature` and `code` as in training, and the share of equal answers of the network
    to photograph and reconstruction, in percent; beside them those of an all-grey picture."""
    chosen = torch.linspace(0, len(photographs) - 1, min(count, len(photographs))).long()
    totals: dict[str, float] = {}
    for indices in chosen.split(64):
        images = photographs.images[indices].float() / 255
        code = model.activation(images, model.code_layer)
        pictures = {"": generator(code).cpu(), "grey ": torch.full_like(images, 0.5)}
        for name, drawn in pictures.items():
            numbers = {
                "image": (drawn - images).abs().mean(),
                "code": (model.activation(drawn, model.code_layer) - code).square().sum() / code.square().sum(),
                "same answer": 100 * (model(drawn).argmax(dim=1) == model(images).argmax(dim=1)).float().mean(),
            }
            for key, value in numbers.items():
                totals[name + key] = totals.get(name + key, 0.0) + float(value) * len(indices) / len(chosen)
    return {key: round(value, 4) for key, value in totals.items()}


def release(
    recipe: Recipe,
    generator: nn.Sequential,
    model: Model,
    statistics: tuple[Tensor, Tensor],
    folder: str | os.PathLike,
    facts: dict,
) -> None:
    """Write the generator as shipped: batch norm folded, 16-bit safetensors, and a table of facts beside it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain = fold_batch_norm(copy.deepcopy(generator).cpu().eval())
    weights = {name: tensor.half().contiguous() for name, tensor in plain.state_dict().items()}
    weights["sigma"], weights["mean"] = (tensor.half().contiguous() for tensor in statistics)
    path = folder / f"{recipe.network}_fc6.safetensors"
    metadata = {"network": recipe.network, "layer": model.code_layer, "pixels": str(recipe.pixels)}
    save_file(weights, path, metadata=metadata)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"sha256": digest, "recipe": settings_of(recipe), **facts}
    path.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


@recording(False)
def code_length(model: Model) -> int:
    """The number of numbers in a code of the model."""
    return model.activation(torch.zeros(1, 3, 64, 64), model.code_layer).shape[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--train", nargs="+", required=True, metavar="SOURCE", help="ImageFolder or torchvision:NAME:DIR"
    )
    parser.add_argument("--val", nargs="*", default=[], metavar="SOURCE", help="other photographs, for measuring")
    parser.add_argument("--folder", required=True, help="folder for the checkpoint")
    parser.add_argument("--release", metavar="DIR", help="write weights, facts and curve there")
    parser.add_argument("--pixels", type=int, default=Recipe.pixels, help="side of the pictures: 32, 64 or 128")
    parser.add_argument("--passes", type=float, default=Recipe.passes, help="passes over the photographs")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--lr", type=float, default=Recipe.lr, help="largest learning rate")
    parser.add_argument("--adversarial", type=float, default=Recipe.adversarial, help="weight of the discriminator")
    parser.add_argument("--alone", type=float, default=Recipe.alone, help="share of the steps without discriminator")
    parser.add_argument("--weights", metavar="CHECKPOINT", help="begin with the weights of an earlier run")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photograph only, for a trial")
    arguments = parser.parse_args()
    chosen = {name: getattr(arguments, name) for name in ("pixels", "passes", "batch", "lr", "adversarial", "alone")}
    recipe = Recipe(**chosen)
    photographs = _read(arguments.train, recipe.pixels, arguments.every)
    generator = train(recipe, photographs, arguments.folder, start=arguments.weights)
    if arguments.release and int(os.environ.get("RANK", 0)) == 0:
        model = load_model(recipe.network)
        held_out = {Path(source).parent.name: _read([source], recipe.pixels, 1) for source in arguments.val}
        facts = {
            "photographs": len(photographs),
            "measured": {name: measured(model, generator, part) for name, part in held_out.items()},
            "curve": load_checkpoint(Path(arguments.folder) / "checkpoint.pt")["curve"],
        }
        release(recipe, generator, model, code_statistics(model, photographs), arguments.release, facts)
        print(time.strftime("%H:%M"), facts["measured"])


def _step(
    networks: list[nn.Module],
    optimizers: list[torch.optim.Optimizer],
    model: Model,
    images: Tensor,
    recipe: Recipe,
    with_critic: bool,
) -> dict[str, float]:
    """One step of the generator and, `with_critic`, one of the discriminator (hinge loss)."""
    generator, critic = networks
    generator.train()
    with mixed_precision(images.device):
        with torch.no_grad():
            wanted = model.activations(images, [*recipe.features, model.code_layer])
        drawn = generator(wanted[model.code_layer]).float()
        losses = inversion_losses(model, drawn, images, wanted)
    total = recipe.image * losses["image"] + recipe.feature * losses["feature"] + recipe.code * losses["code"]
    if with_critic:
        critic.requires_grad_(False)
        losses["adversarial"] = -_judged(critic, drawn).mean()
        total = total + recipe.adversarial * losses["adversarial"]
        critic.requires_grad_(True)
    optimizers[0].zero_grad()
    total.backward()
    optimizers[0].step()
    if with_critic:
        real, fake = _judged(critic, images), _judged(critic, drawn.detach())
        losses["critic"] = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
        optimizers[1].zero_grad()
        losses["critic"].backward()
        optimizers[1].step()
    return {name: value.item() for name, value in losses.items()}


def _judged(critic: nn.Module, images: Tensor) -> Tensor:
    with mixed_precision(images.device):
        return critic(images).float()


def _mirrored(photographs: Photographs, recipe: Recipe, step: int) -> Tensor:
    """The photographs of this step, half of them mirrored, shape (batch, 3, H, W) in [0, 1]. Never cut: a code has to
    say where things are."""
    indices, random = draw(step, len(photographs), batch=recipe.batch, seed=recipe.seed)
    images = photographs.images[indices].float() / 255
    mirror = torch.rand(len(images), generator=random) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(3), images)


def _read(sources: list[str], pixels: int, every: int) -> Photographs:
    parts = [read_photographs(source, size=pixels) for source in sources]
    whole = join(parts)
    return Photographs(whole.images[::every].clone(), whole.labels[::every], whole.names)


if __name__ == "__main__":
    main()
