import torch

from mutants.bank import right, wrong


@right("dream_score")
def half_the_inner_product(activation):
    return 0.5 * torch.dot(activation.flatten(), activation.flatten())


@right("dream_score")
def product_with_the_detached(activation):
    return (activation * activation.detach()).sum()


@wrong("dream_score", "1/2 is missing")
def sum_of_squares(activation):
    return (activation**2).sum()


@wrong("dream_score", "mean")
def mean_of_squares(activation):
    return (activation**2).mean()


@wrong("dream_score", "added up the activation")
def sum_of_activation(activation):
    return activation.sum()


@wrong("dream_score", "norm")
def the_norm(activation):
    return activation.norm()


@wrong("dream_score", "no history")
def a_plain_number(activation):
    return (activation**2).sum().item() / 2


@wrong("dream_score", "one number")
def not_summed(activation):
    return activation**2 / 2


@right("dream_step")
def with_an_if(image, g, lr):
    size = g.abs().mean()
    return image.clone() if size == 0 else torch.clamp(image + lr / size * g, 0, 1)


@right("dream_step")
def by_nan_to_num(image, g, lr):
    return (image + lr * torch.nan_to_num(g / g.abs().mean())).clamp(0, 1)


@wrong("dream_step", "nan")
def nan_at_zero(image, g, lr):
    return (image + lr * g / g.abs().mean()).clamp(0, 1)


@wrong("dream_step", "not normalized")
def raw_gradient(image, g, lr):
    return (image + lr * g).clamp(0, 1)


@wrong("dream_step", "L2 norm")
def by_the_norm(image, g, lr):
    return (image + lr * g / (g.norm() + 1e-12)).clamp(0, 1)


@wrong("dream_step", "standard deviation")
def by_the_deviation(image, g, lr):
    return (image + lr * g / (g.std() + 1e-12)).clamp(0, 1)


@wrong("dream_step", "goes down")
def downhill(image, g, lr):
    return (image - lr * g / (g.abs().mean() + 1e-12)).clamp(0, 1)


@wrong("dream_step", "leaves [0, 1]")
def unclipped(image, g, lr):
    return image + lr * g / (g.abs().mean() + 1e-12)


@right("jitter")
def by_cutting(image, dy, dx):
    rows = [(i - dy) % image.shape[2] for i in range(image.shape[2])]
    columns = [(j - dx) % image.shape[3] for j in range(image.shape[3])]
    return image[:, :, rows][:, :, :, columns]


@right("jitter")
def in_two_rolls(image, dy, dx):
    return image.roll(dy, 2).roll(dx, 3)


@wrong("jitter", "exchanged")
def axes_exchanged(image, dy, dx):
    return image.roll((dx, dy), (2, 3))


@wrong("jitter", "other way")
def other_way(image, dy, dx):
    return image.roll((-dy, -dx), (2, 3))


@wrong("jitter", "images or the colors")
def first_two_axes(image, dy, dx):
    return image.roll((dy, dx), (0, 1))


@wrong("jitter", "black")
def black_border(image, dy, dx):
    out, h, w = torch.zeros_like(image), image.shape[2], image.shape[3]
    top, left = max(dy, 0), max(dx, 0)
    out[:, :, top : h + min(dy, 0), left : w + min(dx, 0)] = image[
        :, :, top - dy : h + min(dy, 0) - dy, left - dx : w + min(dx, 0) - dx
    ]
    return out


@right("octave_sizes")
def from_the_back(h, w, n, ratio):
    sizes = []
    for _ in range(n):
        sizes.insert(0, (round(h), round(w)))
        h, w = h / ratio, w / ratio
    return sizes


@right("octave_sizes")
def rounding_down(h, w, n, ratio):
    return torch.tensor(
        [[int(h * ratio ** (k - n + 1)), int(w * ratio ** (k - n + 1))] for k in range(n - 1)] + [[h, w]]
    )


@wrong("octave_sizes", "wrong way round")
def largest_first(h, w, n, ratio):
    return [(round(h / ratio**k), round(w / ratio**k)) for k in range(n)]


@wrong("octave_sizes", "own size is missing")
def without_the_picture(h, w, n, ratio):
    return [(round(h / ratio**k), round(w / ratio**k)) for k in range(n, 0, -1)]


@wrong("octave_sizes", "One size too many")
def one_too_many(h, w, n, ratio):
    return [(round(h / ratio**k), round(w / ratio**k)) for k in range(n, -1, -1)]


@wrong("octave_sizes", "whole number")
def not_rounded(h, w, n, ratio):
    return [(h / ratio**k, w / ratio**k) for k in range(n - 1, -1, -1)]


@wrong("octave_sizes", "Rows and columns")
def width_first(h, w, n, ratio):
    return [(round(w / ratio**k), round(h / ratio**k)) for k in range(n - 1, -1, -1)]
