"""What every training of the course shares: its processes, how it is stopped, its random numbers, its learning rate."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch
import torch.distributed as dist
from torch import Tensor

from lecturelib.errors import ArgumentError


def join_processes(batch: int, device: str | torch.device | None = None) -> tuple[torch.device, int, int]:
    """(device, rank, number of processes) of this process; meets the others where torchrun started several.

    Raises `ArgumentError` where `batch` pictures cannot be shared out evenly.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    if batch % world:
        raise ArgumentError("the batch must divide by the number of processes", received=f"{batch} / {world}")
    if device is None:
        cuda = torch.cuda.is_available()
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    device = torch.device(device)
    if world > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device, rank, world


@contextmanager
def finishing_steps(world: int = 1) -> Iterator[Callable[[], bool]]:
    """Inside, an interrupt (Ctrl-C, the stop button) lets a training finish its step: the function that is given says
    from then on that it is time to save and end. A second interrupt ends everything at once.

    world: the number of processes. Several must stop at the same step, so that there, as in threads, interrupts are as
    ever.
    """
    asked: list[int] = []

    def note(number: int, _: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    if world > 1 or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether `device` multiplies 16-bit floats natively; elsewhere mixed precision costs time instead of saving it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def mixed_precision(device: torch.device) -> torch.autocast:
    """Inside it layers compute in bfloat16 where that is fast. Weights, losses and steps stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bfloat16_is_fast(device))


def draw(step: int, count: int, *, batch: int, seed: int) -> tuple[Tensor, torch.Generator]:
    """The examples of a step among `count`, each once in a pass, and the random numbers for their crops.

    They depend on the seed and on the step alone, so a resumed training is the uninterrupted one.
    """
    position = step * batch + torch.arange(batch)
    this_pass = int(position[0]) // count
    orders = [_shuffled(seed, this_pass + ahead, count) for ahead in range(2 + batch // count)]
    indices = torch.cat(orders)[position - this_pass * count]
    return indices, torch.Generator().manual_seed((seed + 1) * 1_000_003 + step)


def warm_up_then_cosine(progress: float, warm_up: float) -> float:
    """The share of the learning rate at `progress` in [0, 1]: a linear rise, then half a cosine down to zero."""
    if progress < warm_up:
        return (progress + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


@lru_cache(maxsize=4)
def _shuffled(seed: int, number: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 100_003 + number))
