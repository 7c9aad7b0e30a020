"""PGD-10 on an untrained ResNet-18, beside torchattacks and foolbox where they are installed.

    python benchmarks/adversarial.py --images 16 --size 224 --rounds 3

The contenders take turns in one process, on one thread; the median of their processor seconds is compared. Each line
also says whether the ball was kept and what loss was reached. The peers are no dependencies of the course:
`pip install torchattacks foolbox` into an environment of their own.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from lecturelib.adversarial import cross_entropy_score, pgd
from lecturelib.models import Model, load_model

EPSILON, LR, STEPS = 8 / 255, 2 / 255, 10


class Plain(nn.Module):
    """What the peers want: torchvision's network in evaluation mode, with the normalization inside."""

    def __init__(self, model: Model):
        super().__init__()
        self.network, self.mean, self.std = models.resnet18(), model.mean, model.std
        self.network.load_state_dict(model.network.state_dict())
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


def contenders(model: Model, labels: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """The attacks by name; a line tells which peers are missing."""
    attacks = {"lecturelib": lambda images: _ours(model, images, labels)}
    if importlib.util.find_spec("torchattacks"):
        import torchattacks

        theirs = torchattacks.PGD(Plain(model), eps=EPSILON, alpha=LR, steps=STEPS, random_start=False)
        attacks["torchattacks"] = lambda images: theirs(images, labels)
    else:
        print("torchattacks is not installed: skipped")
    if importlib.util.find_spec("foolbox"):
        import foolbox

        wrapped = foolbox.PyTorchModel(Plain(model), bounds=(0, 1), device="cpu")
        attack = foolbox.attacks.LinfPGD(abs_stepsize=LR, steps=STEPS, random_start=False)
        attacks["foolbox"] = lambda images: attack(wrapped, images, labels, epsilons=EPSILON)[1]
    else:
        print("foolbox is not installed: skipped")
    return attacks


def _ours(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    return pgd(images, cross_entropy_score(model, labels.tolist()), epsilon=EPSILON, lr=LR, steps=STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model("resnet18", trained=False, device="cpu")
    images = torch.rand(options.images, 3, options.size, options.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(dim=1)
    attacks = contenders(model, labels)
    seconds, results = {name: [] for name in attacks}, {}
    for _ in range(options.rounds):
        for name, attack in attacks.items():
            begin = time.process_time()
            results[name] = attack(images)
            seconds[name].append(time.process_time() - begin)
    ours = statistics.median(seconds["lecturelib"])
    for name, result in results.items():
        with torch.no_grad():
            loss = F.cross_entropy(model(result), labels).item()
        change = (result - images).abs().max().item()
        ratio = statistics.median(seconds[name]) / ours
        print(f"{name:14s} {ratio:5.2f} x our time; largest change {255 * change:.4f}/255; loss reached {loss:.4f}")


if __name__ == "__main__":
    main()
