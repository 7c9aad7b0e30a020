"""Checks of lecture 08: what a layer still knows of the picture."""

import torch
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.oracles import OrthoConv


@exercise(8)
def tv_beta(answer: Answer, case: Case) -> None:
    """`tv_beta(x, beta)`: for each image the sum of (dx^2 + dy^2)^(beta/2) (Mahendran and Vedaldi, 2015), (N,)."""
    for images, beta in ((case.rand(2, 3, 6, 8), 1.5), (case.rand(2, 3, 7, 5), 2.0), (case.rand(1, 3, 5, 6), 1.0)):
        across, down = images.diff(dim=3)[:, :, :-1], images.diff(dim=2)[:, :, :, :-1]
        squares = across.square() + down.square()
        right = squares.pow(beta / 2).sum(dim=(1, 2, 3))
        colors = images.diff(dim=1)
        mistakes = {
            "The power is beta / 2, because the squares are squared already.": squares.pow(beta).sum(dim=(1, 2, 3)),
            "The power is missing.": squares.sum(dim=(1, 2, 3)),
            "You always took the root; wanted: the power beta / 2.": squares.sqrt().sum(dim=(1, 2, 3)),
            "You took the mean; wanted: the sum.": squares.pow(beta / 2).mean(dim=(1, 2, 3)),
            "You added up the batch: wanted one number for each image.": right.sum(),
            "You raised both differences to the power on their own; add the squares first.": (
                across.abs().pow(beta) + down.abs().pow(beta)
            ).sum(dim=(1, 2, 3)),
            "The last row and column differ: both differences live on the (H - 1) x (W - 1) grid.": (
                images.diff(dim=3).abs().pow(beta).sum(dim=(1, 2, 3))
                + images.diff(dim=2).abs().pow(beta).sum(dim=(1, 2, 3))
            ),
            "You compared colors or images: pixels are dimensions 2 and 3.": colors.abs().pow(beta).sum(dim=(1, 2, 3)),
            "The horizontal differences are missing.": down.abs().pow(beta).sum(dim=(1, 2, 3)),
            "The vertical differences are missing.": across.abs().pow(beta).sum(dim=(1, 2, 3)),
            "You added the differences without squares: steps up and down cancel.": (across + down)
            .abs()
            .pow(beta)
            .sum(dim=(1, 2, 3)),
        }
        compare(answer(images, beta), right, mistakes, what="the total variation", tolerance=2e-3)
    flat = torch.full((1, 3, 4, 4), 0.5)
    leaf = flat.clone().requires_grad_()
    value = answer(leaf, 1.0)
    if isinstance(value, Tensor) and value.requires_grad:
        (slope,) = torch.autograd.grad(value.sum(), leaf)
        require(slope.isfinite().all(), "On an even picture the gradient is nan: add 1e-8 before taking the power.")


@exercise(8)
def feature_loss(answer: Answer, case: Case) -> None:
    """`feature_loss(phi, phi0)`: ||phi - phi0||^2 / ||phi0||^2 for each image, shape (N,)."""
    shapes = ((2, 4, 3, 3), (3, 7))
    for shape in shapes:
        phi, target = case.randn(*shape), 2 * case.randn(*shape)
        gap, size = (phi - target).flatten(1), target.flatten(1)
        right = gap.square().sum(dim=1) / size.square().sum(dim=1)
        mistakes = {
            "The division by ||phi0||^2 is missing.": gap.square().sum(dim=1),
            "You took the mean of the squares; wanted: their sum, divided by ||phi0||^2.": gap.square().mean(dim=1),
            "You took norms; wanted: their squares.": right.sqrt(),
            "You divided by the norm; wanted: by its square.": gap.square().sum(dim=1) / size.norm(dim=1),
            "You divided by ||phi||^2; wanted: by that of the target phi0.": gap.square().sum(dim=1)
            / phi.flatten(1).square().sum(dim=1),
            "You added up the batch: wanted one number for each image.": gap.square().sum() / size.square().sum(),
            "You took the mean over the batch: wanted one number for each image.": right.mean(),
            "You took absolute differences; wanted: squares.": gap.abs().sum(dim=1) / size.abs().sum(dim=1),
        }
        compare(answer(phi, target), right, mistakes, what="the loss")


@exercise(8)
def invert(answer: Answer, case: Case) -> None:
    """`invert(model, layer, target, start, steps)`: a picture in [0, 1] whose activation is near the target."""
    image = 0.1 + 0.8 * case.rand(1, 3, 8, 8)
    network, layer = (OrthoConv(case.generator), "conv") if case.architecture == "plain" else (case.network(), "relu1")
    model = case.model(network)
    target, start = model.activation(image, layer), torch.full_like(image, 0.5)

    def error(picture: Tensor) -> float:
        return ((model.activation(picture, layer) - target).square().sum() / target.square().sum()).item()

    got = as_tensor(answer(model, layer, target, start, 100), image.shape, "the picture")
    require(got.shape == image.shape, f"The picture has shape {tuple(got.shape)}; wanted: {tuple(image.shape)}.")
    require(got.isfinite().all(), "The picture has values that are not finite.")
    inside = got.min() >= -1e-4 and got.max() <= 1 + 1e-4
    require(inside, f"The picture leaves [0, 1]: it reaches from {got.min():.3g} to {got.max():.3g}.")
    require((got - start).abs().max() > 1e-6, "Nothing moved: the picture is the start.")
    before, after = error(start), error(got)
    require(after < before * 1.001, "The distance grew: inversion goes down, against the gradient.")
    require(after < 0.5 * before, f"The distance fell from {before:.3g} to {after:.3g} only: take a larger step.")
    small = error(torch.rand(image.shape, generator=case.generator))
    require(after < small, "Noise comes nearer to the target than your picture.")
