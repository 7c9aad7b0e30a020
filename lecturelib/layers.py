"""Lecture 01, the first and the last layer: filters as images; codes, their neighbours and their maps in two
dimensions."""

import math

import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from torch import Tensor, nn

from lecturelib.errors import ArgumentError, LayerNameError
from lecturelib.models import Model
from lecturelib.modes import recording


def first_filters(model: Model) -> Tensor:
    """The filters of the first convolution as images, shape (C, 3, H, W), each stretched to [0, 1] (Krizhevsky et
    al., 2012).

    The same offset and factor for the three colors of a filter, so that hues stay; zero weight is not always mid-grey.
    """
    first = next((module for module in model.network.modules() if isinstance(module, nn.Conv2d)), None)
    if first is None or first.in_channels != 3:
        raise LayerNameError("the first layer does not look at three colors", do="use a network for color images")
    return stretched(first.weight.detach().contiguous())


def stretched(weights: Tensor) -> Tensor:
    """Each of the N tensors brought linearly to [0, 1]; a constant one becomes 0.5."""
    flat = weights.flatten(1)
    low, high = flat.amin(dim=1), flat.amax(dim=1)
    shape = (-1, *[1] * (weights.ndim - 1))
    spread = (high - low).view(shape)
    return torch.where(spread > 0, (weights - low.view(shape)) / spread.clamp_min(1e-30), 0.5)


def template_scores(filters: Tensor, patches: Tensor, *, cosine: bool = False) -> Tensor:
    """Inner product of every filter (F, ...) with every patch (P, ...), shape (F, P); `cosine` divides by both
    lengths."""
    filters, patches = filters.flatten(1), patches.flatten(1)
    if cosine:
        filters, patches = (nn.functional.normalize(flat, dim=1) for flat in (filters, patches))
    return filters @ patches.T


def orientation_energy(filters: Tensor) -> Tensor:
    """For each filter (C, K, H, W), the share of its spectral energy in the two strongest of eight orientations, in
    [0, 1].

    1 for a grating; about 0.25 to 0.4 for noise. The energy is that of the 2-D Fourier transform without its mean.
    """
    height, width = filters.shape[-2:]
    energy = torch.fft.fft2(filters - filters.mean(dim=(-2, -1), keepdim=True)).abs().square().sum(dim=1)
    fy, fx = torch.meshgrid(torch.fft.fftfreq(height), torch.fft.fftfreq(width), indexing="ij")
    sector = ((torch.atan2(fy, fx) % math.pi) / math.pi * 8 + 0.5).long() % 8
    inside = (torch.hypot(fy, fx) > 0).flatten()  # no direction at frequency 0
    shares = torch.zeros(len(filters), 8).index_add_(1, sector.flatten()[inside], energy.flatten(1)[:, inside].float())
    return shares.topk(2, dim=1).values.sum(dim=1) / shares.sum(dim=1).clamp_min(1e-30)


def opponency(filters: Tensor) -> Tensor:
    """For each filter (C, 3, H, W), the share of its energy that is color, not grey: 0 for a grey filter, 1 for
    pure opponents."""
    color = filters - filters.mean(dim=1, keepdim=True)
    return color.square().flatten(1).sum(dim=1) / filters.square().flatten(1).sum(dim=1).clamp_min(1e-30)


def smoothness(filters: Tensor) -> Tensor:
    """For each filter (C, K, H, W), the correlation of neighboring weights: about 1 for a picture, about 0 for
    noise."""
    centered = filters - filters.mean(dim=(-2, -1), keepdim=True)
    across = (centered[..., 1:] * centered[..., :-1]).mean(dim=(-2, -1)).sum(dim=1)
    down = (centered[..., 1:, :] * centered[..., :-1, :]).mean(dim=(-2, -1)).sum(dim=1)
    power = centered.square().mean(dim=(-2, -1)).sum(dim=1)
    return (across + down) / 2 / power.clamp_min(1e-30)


@recording(False)
def codes(model: Model, images: Tensor, *, layer: str | None = None, batch: int = 64) -> Tensor:
    """The code of each image: what the layer in front of the classifier gives, shape (N, D); or `layer`, flattened."""
    layer = layer or model.code_layer
    return torch.cat([model.activation(part, layer).flatten(1).cpu() for part in images.split(batch)])


def nearest(queries: Tensor, gallery: Tensor, *, k: int = 5) -> Tensor:
    """The k nearest of the gallery (N, D) for each query (Q, D) by Euclidean distance: indices (Q, k), nearest first.

    A query that is in the gallery finds itself first.
    """
    if not 1 <= k <= len(gallery):
        raise ArgumentError("k counts members of the gallery", received=str(k), do=f"choose 1 ... {len(gallery)}")
    # The exact distances, not |a|^2 - 2ab + |b|^2, whose rounding hides small ones.
    distances = torch.cdist(queries.flatten(1), gallery.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    return distances.topk(k, dim=1, largest=False).indices


def purity(points: Tensor, labels: Tensor, *, k: int = 5) -> float:
    """The share of the k nearest neighbours, the point itself left out, that have its label; in [0, 1]."""
    neighbours = nearest(points, points, k=k + 1)[:, 1:]
    return (labels[neighbours] == labels[:, None]).float().mean().item()


def mirror_ranks(points: Tensor, mirrored: Tensor) -> Tensor:
    """For each image, the rank of its mirror image among all the others, shape (N,); 1 is the best.

    points and mirrored: codes (or pixels) of the images and of their mirror images, both (N, D).
    """
    points, mirrored = points.flatten(1), mirrored.flatten(1)
    own = (points - mirrored).norm(dim=1, keepdim=True)
    others = torch.cdist(points, points)
    others.fill_diagonal_(float("inf"))
    return (others < own).sum(dim=1) + 1


def pca(points: Tensor, dimensions: int = 2) -> tuple[Tensor, Tensor]:
    """Points (N, D) along their directions of largest variance, (N, dimensions), and the share of the variance of
    each."""
    fitted = PCA(dimensions, svd_solver="full").fit(points.flatten(1).double().numpy())
    projected = fitted.transform(points.flatten(1).double().numpy())
    return torch.from_numpy(projected).float(), torch.from_numpy(fitted.explained_variance_ratio_).float()


def tsne(points: Tensor, *, perplexity: float = 30, seed: int = 0) -> Tensor:
    """Points (N, D) in two dimensions, neighbours kept together (van der Maaten and Hinton, 2008), by scikit-learn.

    perplexity: about how many neighbours each point looks at; must be smaller than N. At most 50 principal
    components are used.
    """
    if not 1 <= perplexity < len(points):
        raise ArgumentError(
            "the perplexity counts neighbours", received=str(perplexity), do=f"choose 1 ... {len(points) - 1}"
        )
    reduced, _ = pca(points, min(50, *points.flatten(1).shape))
    embedding = TSNE(perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed).fit_transform(
        reduced.numpy()
    )
    return torch.from_numpy(embedding)


def trust(points: Tensor, embedding: Tensor, *, k: int = 5) -> float:
    """Trustworthiness in [0, 1]: how far neighbours in the embedding were neighbours before (Venna and Kaski, 2001)."""
    return float(trustworthiness(points.flatten(1).numpy(), embedding.numpy(), n_neighbors=k))
