import itertools

import torch

from mutants.bank import right, wrong


@right("gram")
def by_einsum(features):
    return torch.einsum("nchw,ndhw->ncd", features, features) / features[0, 0].numel()


@right("gram")
def position_by_position(features):
    n, c, h, w = features.shape
    total = torch.zeros(n, c, c)
    for i, j in itertools.product(range(h), range(w)):
        v = features[:, :, i, j]
        total += v[:, :, None] * v[:, None, :]
    return total / (h * w)


@wrong("gram", "grows with the picture")
def not_normalized(features):
    f = features.flatten(2)
    return f @ f.transpose(1, 2)


@wrong("gram", "C h w")
def normalized_by_all(features):
    n, c, h, w = features.shape
    f = features.view(n, c, h * w)
    return f @ f.transpose(1, 2) / (c * h * w)


@wrong("gram", "positions with positions")
def over_the_wrong_dimension(features):
    f = features.flatten(2)
    return f.transpose(1, 2) @ f / f.shape[2]


@wrong("gram", "covariance")
def centered(features):
    f = features.flatten(2)
    f = f - f.mean(2, keepdim=True)
    return f @ f.transpose(1, 2) / f.shape[2]


@wrong("gram", "channels got mixed")
def permuted_then_viewed(features):
    n, c, h, w = features.shape
    f = features.permute(0, 2, 3, 1).reshape(n, c, h * w)
    return f @ f.transpose(1, 2) / (h * w)


@wrong("gram", "shape")
def batch_and_channels_in_one(features):
    n, c, h, w = features.shape
    f = features.reshape(n * c, h * w)
    return f @ f.T / (h * w)


@wrong("gram", "number of channels")
def divided_by_channels(features):
    f = features.flatten(2)
    return f @ f.transpose(1, 2) / f.shape[1]


@wrong("gram", "images of the batch")
def one_matrix_for_the_batch(features):
    f = features.transpose(0, 1).flatten(1)
    return f @ f.T / f.shape[1]


@right("style_energy")
def by_traces(F, F0):
    c, m = F.shape
    G, G0 = F @ F.T, F0 @ F0.T
    return torch.linalg.matrix_norm(G - G0) ** 2 / (4 * c * c * m * m)


@right("style_energy")
def by_double_loop(F, F0):
    c, m = F.shape
    total = 0.0
    for a in range(c):
        for b in range(c):
            total += ((F[a] @ F[b]) - (F0[a] @ F0[b])).item() ** 2
    return total / (2 * c * m) ** 2


@wrong("style_energy", "1/4")
def quarter_missing(F, F0):
    c, m = F.shape
    return ((F @ F.T - F0 @ F0.T) ** 2).sum() / (c**2 * m**2)


@wrong("style_energy", "M is not squared")
def places_not_squared(F, F0):
    c, m = F.shape
    return ((F @ F.T - F0 @ F0.T) ** 2).sum() / (4 * c**2 * m)


@wrong("style_energy", "Gram matrices")
def features_compared(F, F0):
    c, m = F.shape
    return ((F - F0) ** 2).sum() / (4 * c**2 * m**2)


@wrong("style_energy", "mean over the entries")
def mean_for_sum(F, F0):
    c, m = F.shape
    return torch.nn.functional.mse_loss(F @ F.T, F0 @ F0.T) / (4 * c**2 * m**2)


@wrong("style_energy", "absolute differences")
def absolute_differences(F, F0):
    c, m = F.shape
    return (F @ F.T - F0 @ F0.T).abs().sum() / (4 * c**2 * m**2)


@right("min_error_cut")
def by_brute_force(error):
    h, w = error.shape
    best, paths = float("inf"), [[j] for j in range(w)]
    for _ in range(h - 1):
        paths = [[*p, j] for p in paths for j in range(max(p[-1] - 1, 0), min(p[-1] + 2, w))]
    for p in paths:
        cost = sum(error[i, j].item() for i, j in enumerate(p))
        if cost < best:
            best, found = cost, p
    return torch.tensor(found)


@right("min_error_cut")
def by_remembered_steps(error):
    h, w = error.shape
    cost, steps = error[0].tolist(), []
    for i in range(1, h):
        step = [min(range(max(j - 1, 0), min(j + 2, w)), key=lambda k: cost[k]) for j in range(w)]
        cost = [error[i, j].item() + cost[step[j]] for j in range(w)]
        steps.append(step)
    path = [min(range(w), key=lambda k: cost[k])]
    for step in reversed(steps):
        path.append(step[path[-1]])
    return path[::-1]


@wrong("min_error_cut", "each row's smallest")
def smallest_of_each_row(error):
    return error.argmin(dim=1)


@wrong("min_error_cut", "cheapest next step")
def greedy(error):
    path = [int(error[0].argmin())]
    for row in error[1:]:
        low = max(path[-1] - 1, 0)
        path.append(low + int(row[low : path[-1] + 2].argmin()))
    return path


@wrong("min_error_cut", "most expensive")
def most_expensive(error):
    return by_remembered_steps(-error)


@wrong("min_error_cut", "number for each column")
def across_instead_of_down(error):
    return by_remembered_steps(error.T)


@wrong("min_error_cut", "")
def upside_down(error):
    return by_remembered_steps(error)[::-1]


@wrong("min_error_cut", "raised")
def falls_over_the_edge(error):
    total = error.clone()
    for i in range(1, len(error)):
        for j in range(error.shape[1]):
            total[i, j] += min(total[i - 1, j - 1], total[i - 1, j], total[i - 1, j + 1])
    return total.argmin(dim=1)


@wrong("style_energy", "not divided by the number of positions")
def gram_of_the_first_exercise(features, target):
    C, M = features.shape
    return (features @ features.T / M - target @ target.T / M).square().sum() / (4 * C**2 * M**2)


@wrong("style_energy", "left to right")
def divisor_without_brackets(features, target):
    C, M = features.shape
    return (features @ features.T - target @ target.T).square().sum() / 4 * C**2 * M**2


@wrong("min_error_cut", "upside down")
def from_bottom_to_top(error):
    total, path = error.clone(), []
    for row in range(1, len(total)):
        for column in range(total.shape[1]):
            total[row, column] += total[row - 1, max(column - 1, 0) : column + 2].min()
    for row in range(len(total) - 1, -1, -1):
        low = max(path[-1] - 1, 0) if path else 0
        high = path[-1] + 2 if path else None
        path.append(low + int(total[row, low:high].argmin()))
    return path
