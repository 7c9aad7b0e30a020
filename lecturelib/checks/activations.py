"""Checks of lecture 02: what a layer gives, what it sees, which of its channels are silent or choosy."""

from functools import partial

import torch
from torch import Tensor, nn

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise


@exercise(2)
def capture(answer: Answer, case: Case) -> None:
    """`capture(network, name, x)`: what the layer of this name gives, although an in-place ReLU follows it."""
    network, image = _overwriting(case), case.rand(2, 3, 8, 8)
    before, wanted = image, {}
    for name, layer in network.named_children():
        entered, before = before, layer(before.clone())
        wanted[name] = entered, before.clone()
    for name in ("conv1", "conv2", "relu2"):
        entered, right = wanted[name]
        mistakes = {
            "The ReLU behind this layer works in place and has overwritten what you kept: keep a clone.": right.relu(),
            "This is what goes into the layer; wanted: what comes out of it.": entered,
            "This is the output of the whole network.": wanted["fc"][1],
        }
        leaf = image.clone().requires_grad_()
        got = answer(network, name, leaf)
        compare(got, right, mistakes, what=f"what {name!r} gives")
        require(
            isinstance(got, Tensor) and got.requires_grad,
            "The result has no history: no detach() and no no_grad(), or nobody can take its gradient.",
        )


def _overwriting(case: Case) -> nn.Sequential:
    """This round's network, with ReLUs that overwrite their input."""
    network = case.network()
    for module in network:
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return network


@exercise(2)
def receptive_field(answer: Answer, case: Case) -> None:
    """`receptive_field(layers)`: [(kernel, stride), ...] -> (size, stride), in pixels of the picture."""
    drawn = [(case.integer(2, 5), case.integer(1, 3)) for _ in range(case.integer(3, 4))]
    drawn[case.integer(0, 1)] = (case.integer(3, 5), 2)
    alexnet = [(11, 4), (3, 2), (5, 1), (3, 2), (3, 1), (3, 1), (3, 1)]
    for layers in ([(7, 2)], [(3, 2), (4, 1), (2, 3)], drawn, alexnet):
        sizes, strides = [1], [1]
        for kernel, stride in layers:
            sizes.append(sizes[-1] + (kernel - 1) * strides[-1])
            strides.append(strides[-1] * stride)
        right = torch.tensor([sizes[-1], strides[-1]])
        late = 1 + sum((kernel - 1) * jump for (kernel, _), jump in zip(layers, strides[1:], strict=True))
        whole = 1 + sum(kernel * jump for (kernel, _), jump in zip(layers, strides[:-1], strict=True))
        mistakes = {
            "A layer's own stride counts only for the layers behind it.": torch.tensor([late, strides[-1]]),
            "A kernel of k pixels adds k - 1 steps, not k.": torch.tensor([whole, strides[-1]]),
            "A kernel of k pixels adds k - 1 steps, not k; begin with 1.": torch.tensor([whole - 1, strides[-1]]),
            "The steps of earlier layers are missing: a later kernel walks in strides of all layers before it.": (
                torch.tensor([1 + sum(kernel - 1 for kernel, _ in layers), strides[-1]])
            ),
            "Begin with a field of 1 pixel.": torch.tensor([sizes[-1] - 1, strides[-1]]),
            "The size comes first, then the stride.": right.flip(0),
            "Strides multiply; you added them.": torch.tensor([sizes[-1], sum(stride for _, stride in layers)]),
            "The stride is that of the last layer only; wanted: the product of all.": torch.tensor(
                [sizes[-1], layers[-1][1]]
            ),
        }
        compare(answer(layers), right, mistakes, what="(size, stride)")


@exercise(2)
def dead_channels(answer: Answer, case: Case) -> None:
    """`dead_channels(activation)`: (N, C, h, w) after a ReLU -> (C,), True where nothing in the batch excites it."""
    activation = case.randn(4, 8, 3, 3).relu() + 0.01
    dead, half, alive = case.shuffled(8)[:6].split(2)
    activation[:, dead] = 0
    activation[0, half] = 0  # silent in one image only
    activation[:, alive, 0, 0] = 0  # silent at one position only
    right = torch.zeros(8, dtype=torch.bool)
    right[dead] = True
    by_image = (activation == 0).all(dim=3).all(dim=2)
    mistakes = {
        "You asked whether a channel is silent in one of the images; dead means silent in all.": by_image.any(dim=0),
        "You asked whether a channel is silent somewhere; dead means everywhere.": (activation == 0)
        .any(dim=3)
        .any(dim=2)
        .any(dim=0),
        "This is one answer for each image and channel; wanted: one for each channel.": by_image,
        "You looked at the first image only.": by_image[0],
        "True and False are exchanged: True marks the dead ones.": ~right,
        "These are the numbers of the dead channels; wanted: True or False for every channel.": right.nonzero()[:, 0],
        "You compared dimension 0: channels are dimension 1.": (activation == 0).flatten(1).all(dim=1),
    }
    compare(answer(activation), right, mistakes, what="the answer")


@exercise(2)
def selectivity(answer: Answer, case: Case) -> None:
    """`selectivity(codes, labels)`: for each channel (m - r) / (m + r), (C,) (Morcos et al., 2018)."""
    labels = torch.cat([torch.tensor([0] * 7 + [1] * 3 + [2] * 2 + [3]), case.labels(2, 4)])
    labels = labels[case.shuffled(len(labels))]
    codes = case.rand(len(labels), 6) + 0.1
    codes[:, 0] = (labels == 2).float()  # one class only
    codes[:, 1] = 1.0  # blind to the class
    codes[:, 2] = 0.0  # dead
    means = torch.stack([codes[labels == label].mean(dim=0) for label in range(4)])
    best = means.amax(dim=0)
    rest = (means.sum(dim=0) - best) / 3
    index = partial(_contrast, best)
    winner = means.argmax(dim=0)
    other_images = torch.stack([codes[labels != winner[c], c].mean() for c in range(6)])
    got = as_tensor(answer(codes, labels), best.shape)
    require(got.shape != best.shape or got.isfinite().all(), "A dead channel gives nan: there the answer is 0.")
    mistakes = {
        "r is the mean of the other classes' means; you took the mean over all other images.": index(other_images),
        "r leaves out the best class; you took all classes.": index(means.mean(dim=0)),
        "r is the mean of the K - 1 other classes; you divided by K.": index((means.sum(dim=0) - best) / 4),
        "r is the mean of the others; you took the second best.": index(means.sort(dim=0).values[-2]),
        "r is the mean of the others; you took the smallest.": index(means.amin(dim=0)),
        "Divide by m + r: without it the index grows with the activation.": best - rest,
        "You divided by m; wanted: by m + r.": (best - rest) / best.clamp_min(1e-12),
        "You took sums for the means: a frequent class then counts more.": _by_sums(codes, labels),
        "The sign is wrong: m - r, with m the best class.": -index(rest),
    }
    compare(got, index(rest), mistakes, what="the index")


def _contrast(best: Tensor, rest: Tensor) -> Tensor:
    return (best - rest) / (best + rest).clamp_min(1e-12)


def _by_sums(codes: Tensor, labels: Tensor) -> Tensor:
    sums = torch.stack([codes[labels == label].sum(dim=0) for label in range(4)])
    best = sums.amax(dim=0)
    return _contrast(best, (sums.sum(dim=0) - best) / 3)
