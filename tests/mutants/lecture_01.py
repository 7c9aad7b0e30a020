import numpy as np
import torch
import torch.nn.functional as F

from mutants.bank import right, wrong


@right("stretch_filters")
def loop_over_filters(w):
    out = torch.zeros_like(w)
    for i, f in enumerate(w):
        out[i] = (f - f.min()) / max((f.max() - f.min()).item(), 1e-12)
    return out


@right("stretch_filters")
def numpy_filters(w):
    a = w.numpy()
    low, high = a.min(axis=(1, 2, 3), keepdims=True), a.max(axis=(1, 2, 3), keepdims=True)
    return (a - low) / np.maximum(high - low, 1e-12)


@wrong("stretch_filters", "one minimum and maximum")
def one_scale_for_all(w):
    return (w - w.min()) / (w.max() - w.min() + 1e-12)


@wrong("stretch_filters", "Each color")
def each_color_its_own(w):
    low, high = w.amin(dim=(2, 3), keepdim=True), w.amax(dim=(2, 3), keepdim=True)
    return (w - low) / (high - low + 1e-12)


@wrong("stretch_filters", "cut off")
def clamped(w):
    return (w / w.amax(dim=(1, 2, 3), keepdim=True)).clamp(0, 1)


@wrong("stretch_filters", "absolute")
def absolute_weights(w):
    return w.abs() / w.abs().amax(dim=(1, 2, 3), keepdim=True)


@wrong("stretch_filters", "nan")
def nan_for_constant_filters(w):
    low, high = w.amin(dim=(1, 2, 3), keepdim=True), w.amax(dim=(1, 2, 3), keepdim=True)
    return (w - low) / (high - low)


@wrong("stretch_filters", "in place")
def stretches_the_weights_themselves(w):
    w -= w.amin(dim=(1, 2, 3), keepdim=True)
    w /= w.amax(dim=(1, 2, 3), keepdim=True) + 1e-12
    return w


@right("template_scores")
def by_convolution(filters, patches):
    return F.conv2d(patches, filters)[:, :, 0, 0]


@right("template_scores")
def by_loops(filters, patches):
    return torch.tensor([[(f * p).sum().item() for f in filters] for p in patches])


@wrong("template_scores", "mean")
def mean_of_products(filters, patches):
    return (patches[:, None] * filters[None]).mean(dim=(2, 3, 4))


@wrong("template_scores", "exchanged")
def rows_and_columns_exchanged(filters, patches):
    return torch.einsum("kchw,nchw->kn", filters, patches)


@wrong("template_scores", "turned the filters")
def turned_like_in_mathematics(filters, patches):
    return F.conv2d(patches, filters.flip(2, 3)).flatten(1)


@wrong("template_scores", "cosine")
def cosines(filters, patches):
    return F.cosine_similarity(patches.flatten(1)[:, None], filters.flatten(1)[None], dim=2)


@wrong("template_scores", "shape")
def one_number_per_patch(filters, patches):
    return (patches.flatten(1) @ filters.flatten(1).T).sum(dim=1)


@right("knn_l2")
def by_cdist(queries, gallery, k):
    return torch.cdist(queries, gallery).topk(k, largest=False).indices


@right("knn_l2")
def by_squares_in_numpy(queries, gallery, k):
    q, g = queries.numpy().astype(float), gallery.numpy().astype(float)
    return np.argsort(((q[:, None] - g[None]) ** 2).sum(-1), axis=1)[:, :k]


@wrong("knn_l2", "farthest")
def farthest(queries, gallery, k):
    return torch.cdist(queries, gallery).topk(k).indices


@wrong("knn_l2", "absolute differences")
def by_l1(queries, gallery, k):
    return (queries[:, None] - gallery[None]).abs().sum(dim=2).topk(k, largest=False).indices


@wrong("knn_l2", "inner product")
def by_inner_product(queries, gallery, k):
    return (queries @ gallery.T).topk(k).indices


@wrong("knn_l2", "cosine")
def by_cosine(queries, gallery, k):
    return (F.normalize(queries) @ F.normalize(gallery).T).topk(k).indices


@wrong("knn_l2", "left out the nearest")
def without_the_first(queries, gallery, k):
    return torch.cdist(queries, gallery).argsort(dim=1)[:, 1 : k + 1]


@wrong("knn_l2", "not in order")
def in_no_order(queries, gallery, k):
    return torch.cdist(queries, gallery).topk(k, largest=False).indices.sort(dim=1).values


@wrong("knn_l2", "distances")
def the_distances(queries, gallery, k):
    return torch.cdist(queries, gallery).topk(k, largest=False).values


@right("pca_2d")
def by_eigh(X):
    Y = X - X.mean(0)
    values, vectors = torch.linalg.eigh(Y.T @ Y)
    return Y @ vectors[:, [-1, -2]]


@right("pca_2d")
def by_pca_lowrank(X):
    u, s, v = torch.pca_lowrank(X, q=min(X.shape), niter=20)
    return (X - X.mean(0)) @ v[:, :2]


@right("pca_2d")
def by_numpy_svd(X):
    Y = X.numpy() - X.numpy().mean(axis=0)
    u, s, vh = np.linalg.svd(Y, full_matrices=False)
    return u[:, :2] * s[:2]


@wrong("pca_2d", "Subtract the mean")
def not_centered(X):
    return X @ torch.linalg.svd(X, full_matrices=False)[2][:2].T


@wrong("pca_2d", "smallest variance")
def smallest_axes(X):
    Y = X - X.mean(0)
    return Y @ torch.linalg.eigh(Y.T @ Y)[1][:, :2]


@wrong("pca_2d", "exchanged")
def last_two_of_eigh_as_they_come(X):
    Y = X - X.mean(0)
    return Y @ torch.linalg.eigh(Y.T @ Y)[1][:, -2:]


@wrong("pca_2d", "whitening")
def whitened(X):
    u, s, vh = torch.linalg.svd(X - X.mean(0), full_matrices=False)
    return u[:, :2]


@wrong("pca_2d", "instead of its transpose")
def rows_for_columns(X):
    Y = X - X.mean(0)
    return Y @ torch.linalg.svd(Y, full_matrices=False)[2][:, :2]


@wrong("pca_2d", "scaled each feature")
def standardized(X):
    Y = (X - X.mean(0)) / X.std(0)
    return Y @ torch.linalg.svd(Y, full_matrices=False)[2][:2].T


@wrong("stretch_filters", "[-1, 1]")
def around_zero(w):
    low, high = w.amin((1, 2, 3), keepdim=True), w.amax((1, 2, 3), keepdim=True)
    return 2 * (w - low) / (high - low).clamp(min=1e-8) - 1


@wrong("knn_l2", "pair (values, indices)")
def distances_with_places(queries, gallery, k):
    return torch.cdist(queries, gallery).topk(k, largest=False)


@wrong("pca_2d", "each row's own mean")
def mean_of_the_wrong_axis(X):
    X = X - X.mean(1, keepdim=True)
    return X @ torch.linalg.svd(X, full_matrices=False)[2][:2].T
