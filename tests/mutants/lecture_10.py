import torch
import torch.nn.functional as F

from mutants.bank import right, wrong

M = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@right("content_loss")
def by_mse(features, target):
    return torch.stack([0.5 * F.mse_loss(a, b, reduction="sum") for a, b in zip(features, target)])


@right("content_loss")
def by_norms(features, target):
    return (features - target).flatten(1).norm(dim=1) ** 2 / 2


@wrong("content_loss", "1/2")
def half_forgotten(features, target):
    return ((features - target) ** 2).sum(dim=(1, 2, 3))


@wrong("content_loss", "mean")
def mean_square(features, target):
    return ((features - target) ** 2).mean(dim=(1, 2, 3))


@wrong("content_loss", "one number for each image")
def one_number(features, target):
    return 0.5 * ((features - target) ** 2).sum()


@wrong("content_loss", "absolute")
def absolute(features, target):
    return 0.5 * (features - target).abs().sum(dim=(1, 2, 3))


def _gram(f):
    f = f.flatten(2)
    return f @ f.transpose(1, 2) / f.shape[2]


@right("style_loss")
def by_list(layers, targets, weights):
    terms = [w * ((_gram(f) - t) ** 2).sum((1, 2)) / (t**2).sum() for f, t, w in zip(layers, targets, weights)]
    return torch.stack(terms).sum(0)


@right("style_loss")
def image_by_image(layers, targets, weights):
    out = []
    for n in range(len(layers[0])):
        total = 0.0
        for f, t, w in zip(layers, targets, weights):
            G = sum(torch.outer(v, v) for v in f[n].flatten(1).T) / f[n, 0].numel()
            total += w * (G - t[0]).norm().item() ** 2 / t[0].norm().item() ** 2
        out.append(total)
    return out


@wrong("style_loss", "weights are missing")
def no_weights(layers, targets, weights):
    return sum(((_gram(f) - t) ** 2).sum((1, 2)) / (t**2).sum() for f, t in zip(layers, targets))


@wrong("style_loss", "Divide each layer")
def not_relative(layers, targets, weights):
    return sum(w * ((_gram(f) - t) ** 2).sum((1, 2)) for f, t, w in zip(layers, targets, weights))


@wrong("style_loss", "number of positions")
def gram_not_normalized(layers, targets, weights):
    return sum(
        w * ((_gram(f) * f[0, 0].numel() - t) ** 2).sum((1, 2)) / (t**2).sum()
        for f, t, w in zip(layers, targets, weights)
    )


@wrong("style_loss", "last layer")
def overwritten_in_the_loop(layers, targets, weights):
    for f, t, w in zip(layers, targets, weights):
        total = w * ((_gram(f) - t) ** 2).sum((1, 2)) / (t**2).sum()
    return total


@wrong("style_loss", "mean over the layers")
def averaged(layers, targets, weights):
    return by_list(layers, targets, weights) / len(layers)


@right("tv_shift")
def by_diff(image):
    return image.diff(dim=2).pow(2).flatten(1).sum(1) + image.diff(dim=3).pow(2).flatten(1).sum(1)


@right("tv_shift")
def by_convolution(image):
    n, c, h, w = image.shape
    flat = image.reshape(n * c, 1, h, w)
    across = (F.conv2d(flat, torch.tensor([[[[-1.0, 1.0]]]])) ** 2).reshape(n, -1).sum(1)
    down = image[:, :, 1:].sub(image[:, :, :-1]).square().reshape(n, -1).sum(1)
    return across + down


@wrong("tv_shift", "roll")
def by_roll(image):
    return sum((image - image.roll(1, axis)).square().sum(dim=(1, 2, 3)) for axis in (2, 3))


@wrong("tv_shift", "mean")
def by_means(image):
    return image.diff(dim=2).square().mean(dim=(1, 2, 3)) + image.diff(dim=3).square().mean(dim=(1, 2, 3))


@wrong("tv_shift", "vertical")
def only_across(image):
    return image.diff(dim=3).square().sum(dim=(1, 2, 3))


@wrong("tv_shift", "colors")
def over_the_colors(image):
    return image.diff(dim=1).square().sum(dim=(1, 2, 3)) + image.diff(dim=2).square().sum(dim=(1, 2, 3))


@right("keep_color")
def by_luminance(content, styled):
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    y, z = (content * weights).sum(1), (styled * weights).sum(1)
    one = torch.linalg.solve(M, torch.tensor([1.0, 0.0, 0.0]))  # one more Y, in RGB
    return content + (z - y)[:, None] * one[:, None, None]


@right("keep_color")
def pixels_as_rows(content, styled):
    a, b = content.movedim(1, -1) @ M.T, styled.movedim(1, -1) @ M.T
    a = torch.cat([b[..., :1], a[..., 1:]], dim=-1)
    return (a @ torch.linalg.inv(M).T).movedim(-1, 1)


def _yiq(x):
    return torch.einsum("ij,njhw->nihw", M, x)


def _rgb(x):
    return torch.einsum("ij,njhw->nihw", M.inverse(), x)


@wrong("keep_color", "Exchanged")
def colors_of_the_style(content, styled):
    return _rgb(torch.cat([_yiq(content)[:, :1], _yiq(styled)[:, 1:]], 1))


@wrong("keep_color", "still YIQ")
def not_back(content, styled):
    return torch.cat([_yiq(styled)[:, :1], _yiq(content)[:, 1:]], 1)


@wrong("keep_color", "red channel")
def red_for_brightness(content, styled):
    return torch.cat([styled[:, :1], content[:, 1:]], 1)


@wrong("keep_color", "in place")
def changes_the_content(content, styled):
    content += (styled - content).mean(1, keepdim=True)
    return content


@right("masked_gram")
def by_einsum(features, mask):
    total = mask.sum(dim=(1, 2)).clamp(min=1e-8)
    return torch.einsum("nahw,nbhw,nhw->nab", features, features, mask) / total[:, None, None]


@right("masked_gram")
def with_roots(features, mask):
    f = (features * mask.sqrt()[:, None]).flatten(2)
    total = mask.flatten(1).sum(1)
    return torch.nan_to_num(f @ f.mT / total[:, None, None])


def _masked(features, mask):
    f, m = features.flatten(2), mask.flatten(1)
    return (f * m[:, None]) @ f.mT, m.sum(1).clamp(min=1e-8)[:, None, None]


@wrong("masked_gram", "not by all")
def divided_by_all(features, mask):
    return _masked(features, mask)[0] / mask[0].numel()


@wrong("masked_gram", "counts twice")
def masked_twice(features, mask):
    return _gram(features * mask[:, None]) * mask[0].numel() / _masked(features, mask)[1]


@wrong("masked_gram", "ignored")
def mask_ignored(features, mask):
    return _gram(features)


@wrong("masked_gram", "nan")
def nan_for_an_empty_mask(features, mask):
    return _masked(features, mask)[0] / mask.sum(dim=(1, 2))[:, None, None]


@wrong("style_loss", "C h w")
def gram_over_all_numbers(layers, targets, weights):
    total = 0
    for features, target, weight in zip(layers, targets, weights):
        flat = features.flatten(2)
        gram = flat @ flat.transpose(1, 2) / features[0].numel()
        total = total + weight * (gram - target).square().sum((1, 2)) / target.square().sum()
    return total


@wrong("tv_shift", "last row and column")
def on_the_smaller_grid(image):
    here = image[:, :, :-1, :-1]
    across, down = image[:, :, :-1, 1:] - here, image[:, :, 1:, :-1] - here
    return (across.square() + down.square()).sum((1, 2, 3))
