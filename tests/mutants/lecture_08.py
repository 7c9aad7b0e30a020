import torch

from mutants.bank import right, wrong


@right("tv_beta")
def by_diff(x, beta):
    dx, dy = x.diff(dim=3)[:, :, :-1, :], x.diff(dim=2)[:, :, :, :-1]
    return (dx.square() + dy.square() + 1e-9).pow(beta / 2).flatten(1).sum(1)


@right("tv_beta")
def by_padding(x, beta):
    corner = x[..., :-1, :-1]
    squares = (x[..., :-1, 1:] - corner) ** 2 + (x[..., 1:, :-1] - corner) ** 2
    return torch.stack([s.clamp(min=1e-9).sqrt().pow(beta).sum() for s in squares])


def _differences(x):
    return x[:, :, :-1, 1:] - x[:, :, :-1, :-1], x[:, :, 1:, :-1] - x[:, :, :-1, :-1]


@wrong("tv_beta", "beta / 2")
def power_not_halved(x, beta):
    dx, dy = _differences(x)
    return (dx**2 + dy**2 + 1e-8).pow(beta).sum(dim=(1, 2, 3))


@wrong("tv_beta", "sum")
def mean_for_sum(x, beta):
    dx, dy = _differences(x)
    return (dx**2 + dy**2 + 1e-8).pow(beta / 2).mean(dim=(1, 2, 3))


@wrong("tv_beta", "batch")
def one_number_for_the_batch(x, beta):
    dx, dy = _differences(x)
    return (dx**2 + dy**2 + 1e-8).pow(beta / 2).sum()


@wrong("tv_beta", "nan")
def root_at_zero(x, beta):
    dx, dy = _differences(x)
    return (dx**2 + dy**2).pow(beta / 2).sum(dim=(1, 2, 3))


@wrong("tv_beta", "on their own")
def powers_before_the_sum(x, beta):
    dx, dy = _differences(x)
    return (dx.abs().pow(beta) + dy.abs().pow(beta)).sum(dim=(1, 2, 3))


@wrong("tv_beta", "colors")
def wrong_axes(x, beta):
    return ((x[:, 1:] - x[:, :-1]) ** 2 + 1e-12).pow(beta / 2).sum(dim=(1, 2, 3))


@right("feature_loss")
def by_norms(phi, phi0):
    return ((phi - phi0).flatten(1).norm(dim=1) / phi0.flatten(1).norm(dim=1)) ** 2


@right("feature_loss")
def image_by_image(phi, phi0):
    return torch.stack([(a - b).pow(2).sum() / b.pow(2).sum() for a, b in zip(phi, phi0)])


@wrong("feature_loss", "division")
def absolute_distance(phi, phi0):
    return (phi - phi0).flatten(1).square().sum(1)


@wrong("feature_loss", "mean of the squares")
def mean_square(phi, phi0):
    return (phi - phi0).flatten(1).square().mean(1)


@wrong("feature_loss", "squares")
def without_squares(phi, phi0):
    return (phi - phi0).flatten(1).norm(dim=1) / phi0.flatten(1).norm(dim=1)


@wrong("feature_loss", "target phi0")
def divided_by_the_wrong_one(phi, phi0):
    return (phi - phi0).flatten(1).square().sum(1) / phi.flatten(1).square().sum(1)


@wrong("feature_loss", "batch")
def batch_added_up(phi, phi0):
    return (phi - phi0).square().sum() / phi0.square().sum()


def _invert(model, layer, target, start, steps, lr=0.05, sign=1, clip=True):
    x = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (sign * (model.activation(x, layer) - target).square().sum()).backward()
        optimizer.step()
        if clip:
            x.data.clamp_(0, 1)
    return x.detach()


@right("invert")
def with_adam(model, layer, target, start, steps):
    return _invert(model, layer, target, start, steps, lr=0.03)


@right("invert")
def behind_a_sigmoid(model, layer, target, start, steps):
    z = torch.logit(start.clone()).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        (model.activation(torch.sigmoid(z), layer) - target).square().sum().backward()
        optimizer.step()
    return torch.sigmoid(z).detach()


@wrong("invert", "distance grew")
def upwards(model, layer, target, start, steps):
    return _invert(model, layer, target, start, steps, sign=-1)


@wrong("invert", "Nothing moved")
def never_steps(model, layer, target, start, steps):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        (model.activation(x, layer) - target).square().sum().backward()
    return x.detach()


@wrong("invert", "larger step")
def much_too_slow(model, layer, target, start, steps):
    return _invert(model, layer, target, start, steps, lr=1e-4)


@wrong("invert", "leaves [0, 1]")
def outside(model, layer, target, start, steps):
    return _invert(model, layer, target, start, steps, clip=False) * 1.5 - 0.25


@wrong("invert", "in place")
def optimizes_the_start(model, layer, target, start, steps):
    start.requires_grad_()
    optimizer = torch.optim.Adam([start], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (model.activation(start, layer) - target).square().sum().backward()
        optimizer.step()
        start.data.clamp_(0, 1)
    return start
