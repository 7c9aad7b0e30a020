"""Checks of lecture 10: content and style, both as losses."""

import torch

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise
from lecturelib.checks.texture import gram_of

RGB_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@exercise(10)
def content_loss(answer: Answer, case: Case) -> None:
    """`content_loss(features, target)`: half the sum of the squared differences, for each image (Gatys), (N,)."""
    features, target = case.randn(2, 4, 5, 3), case.randn(2, 4, 5, 3)
    squares = (features - target).square()
    right = squares.sum(dim=(1, 2, 3)) / 2
    mistakes = {
        "The factor 1/2 is missing.": 2 * right,
        "You took the mean; wanted: half the sum.": squares.mean(dim=(1, 2, 3)),
        "You took half the mean; wanted: half the sum.": squares.mean(dim=(1, 2, 3)) / 2,
        "You added up the batch: wanted one number for each image.": right.sum(),
        "You took the mean over everything: wanted one number for each image.": squares.mean(),
        "You took absolute differences; wanted: squares.": (features - target).abs().sum(dim=(1, 2, 3)) / 2,
        "You took the norm; wanted: half its square.": squares.sum(dim=(1, 2, 3)).sqrt(),
        "You compared Gram matrices: that is style. Content compares position by position.": (
            (gram_of(features) - gram_of(target)).square().sum(dim=(1, 2)) / 2
        ),
    }
    compare(answer(features, target), right, mistakes, what="the loss")


@exercise(10)
def style_loss(answer: Answer, case: Case) -> None:
    """`style_loss(layers, targets, weights)`: sum over layers of w ||G - G0||^2 / ||G0||^2, for each image, (N,)."""
    layers = [case.randn(2, 3, 6, 6), case.randn(2, 5, 3, 4), case.randn(2, 4, 2, 2)]
    targets = [gram_of(1.5 * case.randn(1, layer.shape[1], 5, 7)) for layer in layers]
    weights = [1.0, 0.5, 2.0 + case.integer(0, 2)]
    gaps = [(gram_of(layer) - target).square().sum(dim=(1, 2)) for layer, target in zip(layers, targets, strict=True)]
    sizes = [target.square().sum() for target in targets]
    terms = [gap / size for gap, size in zip(gaps, sizes, strict=True)]
    right = sum(weight * term for weight, term in zip(weights, terms, strict=True))
    raw = [layer.flatten(2) @ layer.flatten(2).transpose(1, 2) for layer in layers]
    raws = [(g - t).square().sum(dim=(1, 2)) / s for g, t, s in zip(raw, targets, sizes, strict=True)]
    mistakes = {
        "The weights are missing.": sum(terms),
        "The weights belong outside of the square.": sum(
            weight**2 * term for weight, term in zip(weights, terms, strict=True)
        ),
        "Divide each layer's term by ||G0||^2.": sum(weight * gap for weight, gap in zip(weights, gaps, strict=True)),
        "You divided by ||G0||; wanted: by its square.": sum(
            w * gap / size.sqrt() for w, gap, size in zip(weights, gaps, sizes, strict=True)
        ),
        "You took the mean over the layers; wanted: their weighted sum.": right / 3,
        "You divided by the sum of the weights.": right / sum(weights),
        "Only the last layer counts: add the layers up.": weights[-1] * terms[-1],
        "Only the first layer counts: add the layers up.": weights[0] * terms[0],
        "You added up the batch: wanted one number for each image.": right.sum(),
        "The Gram matrix is divided by C h w; wanted: by the number of positions h w.": sum(
            w * (gram_of(layer) / layer.shape[1] - target).square().sum(dim=(1, 2)) / size
            for layer, target, w, size in zip(layers, targets, weights, sizes, strict=True)
        ),
        "You took the mean over the entries of G - G0; wanted: their sum, divided by ||G0||^2.": sum(
            w * term / target.numel() for w, term, target in zip(weights, terms, targets, strict=True)
        ),
        "The Gram matrix is not divided by the number of positions h w.": sum(
            w * term for w, term in zip(weights, raws, strict=True)
        ),
        "You took norms; wanted: their squares.": sum(w * t.sqrt() for w, t in zip(weights, terms, strict=True)),
    }
    compare(answer(layers, targets, weights), right, mistakes, what="the loss")


@exercise(10)
def tv_shift(answer: Answer, case: Case) -> None:
    """`tv_shift(image)`: the squared differences to the right and to the lower neighbor, added up, (N,)."""
    for image in (case.rand(2, 3, 5, 7), torch.tensor([[0.0, 1.0]]).expand(1, 3, 1, 2)):
        down, across = image.diff(dim=2), image.diff(dim=3)
        right = down.square().sum(dim=(1, 2, 3)) + across.square().sum(dim=(1, 2, 3))
        around = [(image - image.roll(1, dims=axis)).square().sum(dim=(1, 2, 3)) for axis in (2, 3)]
        mistakes = {
            "You took the mean; wanted: the sum.": down.square().mean(dim=(1, 2, 3))
            + across.square().mean(dim=(1, 2, 3)),
            "You added up the batch: wanted one number for each image.": right.sum(),
            "roll() compares the last row with the first: leave that pair out.": around[0] + around[1],
            "The vertical differences are missing.": across.square().sum(dim=(1, 2, 3)),
            "The horizontal differences are missing.": down.square().sum(dim=(1, 2, 3)),
            "You took absolute values; wanted: squares.": down.abs().sum(dim=(1, 2, 3))
            + across.abs().sum(dim=(1, 2, 3)),
            "You compared images or colors: pixels are dimensions 2 and 3.": image.diff(dim=1)
            .square()
            .sum(dim=(1, 2, 3))
            + down.square().sum(dim=(1, 2, 3)),
            "You took the root.": right.sqrt(),
            "You left out differences of the last row and column: every pixel with a neighbor counts.": (
                down[..., :-1].square().sum(dim=(1, 2, 3)) + across[..., :-1, :].square().sum(dim=(1, 2, 3))
            ),
            "You took half the sum; wanted: the sum.": right / 2,
        }
        compare(answer(image), right, mistakes, what="the loss")


@exercise(10)
def keep_color(answer: Answer, case: Case) -> None:
    """`keep_color(content, styled)`: the styled picture's brightness Y with the content's colors I and Q."""
    content, styled = 0.4 + 0.2 * case.rand(2, 3, 5, 6), 0.4 + 0.2 * case.rand(2, 3, 5, 6)
    back = RGB_TO_YIQ.inverse()
    first, second = (torch.einsum("ij,njhw->nihw", RGB_TO_YIQ, image) for image in (content, styled))
    mixed = torch.cat([second[:, :1], first[:, 1:]], dim=1)
    mistakes = {
        "Exchanged: brightness comes from the styled picture, color from the content.": torch.einsum(
            "ij,njhw->nihw", back, torch.cat([first[:, :1], second[:, 1:]], dim=1)
        ),
        "This is still YIQ: go back to RGB.": mixed,
        "You turned back with the transpose; wanted: the inverse matrix.": torch.einsum(
            "ij,njhw->nihw", RGB_TO_YIQ.T, mixed
        ),
        "You multiplied by the transpose of the matrix: a pixel is a column, M @ pixel.": torch.einsum(
            "ij,njhw->nihw",
            back.T,
            torch.cat(
                [
                    torch.einsum("ji,njhw->nihw", RGB_TO_YIQ, styled)[:, :1],
                    torch.einsum("ji,njhw->nihw", RGB_TO_YIQ, content)[:, 1:],
                ],
                dim=1,
            ),
        ),
        "You exchanged the red channel: change to YIQ first.": torch.cat([styled[:, :1], content[:, 1:]], dim=1),
        "The brightness is the mean of the colors here; wanted: Y of YIQ.": content
        + (styled.mean(dim=1, keepdim=True) - content.mean(dim=1, keepdim=True)),
        "This is a grey picture: the colors of the content are missing.": second[:, :1].expand_as(styled),
    }
    compare(answer(content, styled), torch.einsum("ij,njhw->nihw", back, mixed), mistakes, what="the picture")


@exercise(10)
def masked_gram(answer: Answer, case: Case) -> None:
    """`masked_gram(features, mask)`: the mean outer product over the positions inside of the mask, (N, C, C)."""
    features = case.randn(2, 4, 5, 6)
    mask = (case.rand(2, 5, 6) > 0.4).float()
    mask[:, 0, :3] = torch.tensor([0.0, 1.0, 1.0])
    flat, inside = features.flatten(2), mask.flatten(1)
    weighted = flat * inside[:, None]
    product = weighted @ flat.transpose(1, 2)
    count = inside.sum(dim=1)[:, None, None]
    soft = 0.5 * mask + 0.25
    mistakes = {
        "Divide by the positions inside of the mask, not by all of them.": product / flat.shape[2],
        "The division by the number of positions inside is missing.": product,
        "The mask is ignored.": gram_of(features),
        "You masked the Gram matrix; wanted: the positions.": gram_of(features) * inside.mean(dim=1)[:, None, None],
        "The mask is the wrong way round: 1 is inside.": (flat * (1 - inside[:, None]))
        @ flat.transpose(1, 2)
        / (inside.shape[1] - count),
        "You divided by C times the positions.": product / count / features.shape[1],
        "All images got the first image's mask.": (flat * inside[:1, None]) @ flat.transpose(1, 2) / inside[:1].sum(),
    }
    compare(answer(features, mask), product / count, mistakes, what="the Gram matrix")
    weighed = (flat * soft.flatten(1)[:, None]) @ flat.transpose(1, 2) / soft.flatten(1).sum(dim=1)[:, None, None]
    squared = (flat * soft.flatten(1)[:, None].square()) @ flat.transpose(1, 2)
    twice = {
        "A soft mask counts twice in your result: multiply only one of the two factors by it.": squared
        / soft.flatten(1).sum(dim=1)[:, None, None],
        "You took the mask for true or false; values between weigh a position.": gram_of(features),
    }
    compare(answer(features, soft), weighed, twice, what="the Gram matrix under a soft mask")
    empty = as_tensor(answer(features, torch.zeros_like(mask)), product.shape)
    require(empty.isfinite().all(), "An empty mask gives nan: there the answer is 0.")
