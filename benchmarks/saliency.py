"""Gradients of a class score beside captum, torchcam and grad-cam: processor time of one thread in one process.

    python benchmarks/saliency.py [--quick] [--rounds 3] [gradients] [class_maps] [averages]

VGG16 for saliency, guided backpropagation and Grad-CAM (relu5_3), ResNet-18 for SmoothGrad and integrated gradients;
random weights from a fixed seed. The peers get the plain network with the normalization in front, as their
documentation shows it. A peer that is not installed is skipped, in a line that says so (`pip install torchcam
grad-cam`). The contenders take turns and the best time counts; only ratios of one run mean anything. Memory is the
largest resident size on the way, above what was there before. With `--quick`, 2 pictures and 8 samples instead of 8
and 32: all of it needs 8 GB, for captum holds every sample at once. Exits with 1 when something
required is missed.

The numbers agree in float64, where each function and its peer are asked about the first picture. In float32 they differ
by about 1e-3 of the norm: of the 15 million ReLUs and pooling windows of VGG16 a few lie so near to a tie that rounding
decides, each differently in each order of summation, and one changed decision deep in the network changes the gradient
of a whole region. With the decisions of the float64 pass, both give its gradient up to 2e-6.
"""

import argparse
import copy
import importlib.util
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from captum.attr import GuidedBackprop, IntegratedGradients, NoiseTunnel, Saliency
from torch import Tensor, nn
from torch.nn import functional as F

from lecturelib.models import Model, load_model
from lecturelib.relu_rules import relu_rule
from lecturelib.saliency import grad_cam, input_gradient, integrated_gradients, saliency_map, smoothgrad
from lecturelib.scores import class_score

TARGET, LAYER, PATH = 7, "relu5_3", "network.features.29"
AGREEMENT = 1e-6  # of the norm, in float64
MEMORY = 400  # MB above the network
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
Contenders = dict[str, Callable[[], Tensor]]


class Classifier(nn.Module):
    """The network as the peers are given it: trainable, in PyTorch's usual memory layout, with the normalization."""

    def __init__(self, model: Model):
        super().__init__()
        self.mean, self.std = model.mean, model.std
        self.network = copy.deepcopy(model.network).to(memory_format=torch.contiguous_format).requires_grad_()

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


class Subject(NamedTuple):
    """Who is asked, and about which pictures: our model, the network as the peers want it, images."""

    model: Model
    plain: nn.Module
    images: Tensor

    def in_float64(self) -> "Subject":
        """The first picture, and the same networks with twice the digits."""
        network = copy.deepcopy(self.model.network).double()
        return Subject(load_model(network), copy.deepcopy(self.plain).double(), self.images[:1].double())


def compare(
    title: str,
    workload: Callable[[Subject], Contenders],
    subject: Subject,
    *,
    rounds: int,
    required: dict[str, float],
    exact: bool = True,
) -> bool:
    """Print one table, ours first; whether everything that is required was reached."""
    contenders = workload(subject)
    seconds, memory = dict.fromkeys(contenders, float("inf")), dict.fromkeys(contenders, 0.0)
    for _ in range(rounds):
        for name, function in contenders.items():
            before = _resident()
            started = time.process_time()
            function()
            seconds[name] = min(seconds[name], time.process_time() - started)
            memory[name] = max(memory[name], _peak() - before)
    results = {name: function().detach() for name, function in workload(subject.in_float64()).items()} if exact else {}
    ours = next(iter(contenders))
    reached = True
    print(f"\n{title}")
    for name in contenders:
        ratio, need = seconds[name] / seconds[ours], required.get(name)
        reached &= need is None or ratio >= need
        said = f"  (required {need} x)" if need else ""
        if exact and name != ours:
            difference = _difference(results[name], results[ours])
            reached &= difference <= AGREEMENT
            said += f"  differs in float64 by {difference:.0e} of the norm"
        print(f"  {name:32}{seconds[name]:8.2f} s {memory[name]:7.0f} MB {ratio:6.2f} x{said}", flush=True)
    return reached


def saliency(subject: Subject) -> Contenders:
    model, plain, images = subject
    return {
        "ours, saliency_map": lambda: saliency_map(images, class_score(model, TARGET)),
        "captum, Saliency": lambda: Saliency(plain).attribute(_leaf(images), target=TARGET).amax(dim=1),
    }


def guided(subject: Subject) -> Contenders:
    model, plain, images = subject

    def ours() -> Tensor:
        with relu_rule(model, "guided"):
            return input_gradient(images, class_score(model, TARGET))

    return {
        "ours, guided": ours,
        "captum, GuidedBackprop": lambda: GuidedBackprop(plain).attribute(_leaf(images), target=TARGET),
    }


def class_maps(subject: Subject) -> Contenders:
    model, plain, images = subject
    contenders: Contenders = {"ours, grad_cam": lambda: grad_cam(model, images, LAYER, TARGET)}
    if _installed("torchcam"):
        contenders["torchcam, GradCAM"] = lambda: _by_torchcam(plain, images)
    if _installed("pytorch_grad_cam", "grad-cam"):
        contenders["grad-cam, GradCAM"] = lambda: _by_grad_cam(plain, images)
    return contenders


def noise(samples: int, subject: Subject) -> Contenders:
    model, plain, images = subject
    return {
        "ours, smoothgrad": lambda: smoothgrad(images, class_score(model, TARGET), samples=samples),
        "captum, NoiseTunnel": lambda: _by_noise_tunnel(plain, images, samples),
        "captum, NoiseTunnel, 4 at once": lambda: _by_noise_tunnel(plain, images, samples, nt_samples_batch_size=4),
    }


def integral(steps: int, subject: Subject) -> Contenders:
    model, plain, images = subject
    return {
        "ours, integrated_gradients": lambda: integrated_gradients(images, class_score(model, TARGET), steps=steps),
        "captum, IntegratedGradients": lambda: _by_integration(plain, images, steps),
        "captum, 4 pictures at once": lambda: _by_integration(plain, images, steps, internal_batch_size=4),
    }


def on_vgg16(images: Tensor, parts: list[str], rounds: int) -> bool:
    subject, title = _subject("vgg16", images), f"VGG16, {len(images)} pictures of {images.shape[2]} px"
    reached = []
    if "gradients" in parts:
        required = {"captum, Saliency": 1.0, "captum, GuidedBackprop": 1.0}
        reached.append(compare(f"{title}: saliency", saliency, subject, rounds=rounds, required=required))
        reached.append(compare(f"{title}: guided", guided, subject, rounds=rounds, required=required))
    if "class_maps" in parts:
        # The peers stretch their maps to [0, 1] and enlarge them each in its own way: compared in time only.
        required = {"torchcam, GradCAM": 1.2, "grad-cam, GradCAM": 3.5}
        table = compare(
            f"{title}: Grad-CAM of {LAYER}", class_maps, subject, rounds=rounds, required=required, exact=False
        )
        reached.append(table)
    return all(reached)


def on_resnet18(images: Tensor, samples: int, rounds: int) -> bool:
    subject, title = (
        _subject("resnet18", images),
        f"ResNet-18, {len(images)} pictures of {images.shape[2]} px x {samples}",
    )
    required = {"captum, NoiseTunnel": 1.3, "captum, IntegratedGradients": 1.3}
    # Each draws its own noise: compared in time only.
    first = compare(
        f"{title}: SmoothGrad", partial(noise, samples), subject, rounds=rounds, required=required, exact=False
    )
    second = compare(
        f"{title}: integrated gradients", partial(integral, samples), subject, rounds=rounds, required=required
    )
    return first and second and _constant_memory(images, class_score(subject.model, TARGET), samples)


def _subject(name: str, images: Tensor) -> Subject:
    model = load_model(name, trained=False, seed=0, device="cpu")
    subject = Subject(model, Classifier(model), images)
    for function in saliency(subject._replace(images=images[:1])).values():
        function()  # the first pass prepares the kernels
    return subject


def _constant_memory(images: Tensor, score: Callable, samples: int) -> bool:
    """SmoothGrad's peak with few and with many samples, above the network."""
    peaks = []
    for count in (2, samples):
        before = _resident()
        smoothgrad(images, score, samples=count)
        peaks.append(_peak() - before)
    print(f"  smoothgrad: {peaks[0]:.0f} MB with 2 samples, {peaks[1]:.0f} MB with {samples} (required {MEMORY} MB)")
    return max(peaks) <= MEMORY


def _by_torchcam(plain: nn.Module, images: Tensor) -> Tensor:
    from torchcam.methods import GradCAM

    with GradCAM(plain, PATH) as extractor:
        (maps,) = extractor([TARGET] * len(images), plain(_leaf(images)))
    return F.interpolate(maps[:, None], size=images.shape[2:], mode="bilinear")[:, 0]


def _by_grad_cam(plain: nn.Module, images: Tensor) -> Tensor:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with GradCAM(model=plain, target_layers=[plain.get_submodule(PATH)]) as cam:
        return torch.from_numpy(cam(input_tensor=images, targets=[ClassifierOutputTarget(TARGET)] * len(images)))


def _by_noise_tunnel(plain: nn.Module, images: Tensor, samples: int, **options) -> Tensor:
    tunnel = NoiseTunnel(Saliency(plain))
    return tunnel.attribute(
        _leaf(images), nt_type="smoothgrad", nt_samples=samples, stdevs=0.15, target=TARGET, abs=False, **options
    )


def _by_integration(plain: nn.Module, images: Tensor, steps: int, **options) -> Tensor:
    return IntegratedGradients(plain).attribute(
        images, torch.zeros_like(images), target=TARGET, n_steps=steps, method="riemann_middle", **options
    )


def _leaf(images: Tensor) -> Tensor:
    return images.clone().requires_grad_()


def _difference(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def _installed(module: str, package: str | None = None) -> bool:
    found = importlib.util.find_spec(module) is not None
    if not found:
        print(f"\n{package or module} is not installed: skipped")
    return found


def _resident() -> float:
    """Resident memory in MB; the peak starts anew (Linux only, 0 elsewhere)."""
    if RESET.exists():
        RESET.write_text("5")
    return _megabytes("VmRSS")


def _peak() -> float:
    return _megabytes("VmHWM")


def _megabytes(key: str) -> float:
    if not STATUS.exists():
        return 0.0
    return int(next(line.split()[1] for line in STATUS.read_text().splitlines() if line.startswith(key))) / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ["gradients", "class_maps", "averages"]
    parser.add_argument("parts", nargs="*", default=parts, help=" or ".join(parts))
    parser.add_argument("--quick", action="store_true", help="2 pictures, 8 samples")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    options = parser.parse_args()
    torch.set_num_threads(1)
    count, samples = (2, 8) if options.quick else (8, 32)
    images = torch.rand(count, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    reached = []
    if "gradients" in options.parts or "class_maps" in options.parts:
        reached.append(on_vgg16(images, options.parts, options.rounds))
    if "averages" in options.parts:
        reached.append(on_resnet18(images, samples, options.rounds))
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
