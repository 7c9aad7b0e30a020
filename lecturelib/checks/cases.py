"""Fresh random inputs and networks for a check: another draw for every seed."""

import random
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from lecturelib.models import Model, load_model
from lecturelib.oracles import RandomCNN

ARCHITECTURES = ("plain", "wide", "strided")


class Case:
    """What one round of a check draws from: its own generator, and one of the `ARCHITECTURES`."""

    def __init__(self, name: str, architecture: str, seed: int):
        self.architecture = architecture
        self.generator = torch.Generator().manual_seed(zlib.crc32(f"{name} {architecture} {seed}".encode()))

    def randn(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def rand(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator)

    def integer(self, low: int, high: int) -> int:
        """A whole number, low <= number <= high."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def shuffled(self, count: int) -> Tensor:
        """The numbers 0 ... count - 1 in a random order."""
        return torch.randperm(count, generator=self.generator)

    def labels(self, count: int, classes: int) -> Tensor:
        return torch.randint(0, classes, (count,), generator=self.generator)

    def network(self, *, side: int = 8, classes: int = 5) -> nn.Sequential:
        """A random network of this round's architecture, as a plain chain that can be cut into parts."""
        options = {} if self.architecture == "plain" else {self.architecture: True}
        network = RandomCNN(self.generator, side=side, classes=classes, **options)
        return nn.Sequential(OrderedDict(network.named_children())).eval().requires_grad_(False)

    def model(self, network: nn.Module | None = None, **options: int) -> Model:
        """An oracle, or this round's random network, as a `Model` that does not normalize."""
        return as_model(self.network(**options) if network is None else network)


def as_model(network: nn.Module) -> Model:
    """A network as a `Model` that takes images as they are."""
    return load_model(network, mean=(0, 0, 0), std=(1, 1, 1))


@contextmanager
def own_world(seed: int) -> Iterator[None]:
    """Gradients in 32 bits, and seeds for whatever a student's code may draw from; afterwards all is as it was."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  some use the old generator
    dtype = torch.get_default_dtype()
    torch.random.default_generator.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.enable_grad(), torch.inference_mode(False):
            yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        random.setstate(before[2])
        torch.set_default_dtype(dtype)
