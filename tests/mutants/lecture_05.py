import torch
import torch.nn.functional as F

from mutants.bank import right, wrong


def _slope(model, image, y, read=lambda logits: logits):
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(read(model(leaf))[0, y], leaf)[0]


@right("ascent_step")
def of_the_whole_objective(image, model, y, lam, lr):
    leaf = image.clone().requires_grad_()
    (model(leaf)[0, y] - lam * leaf.square().sum()).backward()
    return (leaf + lr * leaf.grad).detach()


@right("ascent_step")
def by_an_optimizer(image, model, y, lam, lr):
    leaf = image.clone().requires_grad_()
    optimizer = torch.optim.SGD([leaf], lr=lr, weight_decay=2 * lam)
    (-model(leaf)[0, y]).backward()
    optimizer.step()
    return leaf.detach()


@wrong("ascent_step", "goes down")
def descends(image, model, y, lam, lr):
    return image - lr * (_slope(model, image, y) - 2 * lam * image)


@wrong("ascent_step", "wrong sign")
def penalty_added(image, model, y, lam, lr):
    return image + lr * (_slope(model, image, y) + 2 * lam * image)


@wrong("ascent_step", "2 is missing")
def two_forgotten(image, model, y, lam, lr):
    return image + lr * (_slope(model, image, y) - lam * image)


@wrong("ascent_step", "penalty is missing")
def no_penalty(image, model, y, lam, lr):
    return image + lr * _slope(model, image, y)


@wrong("ascent_step", "probability")
def climbs_the_probability(image, model, y, lam, lr):
    return image + lr * (_slope(model, image, y, lambda logits: logits.softmax(1)) - 2 * lam * image)


@wrong("ascent_step", "log-probability")
def minimizes_the_cross_entropy(image, model, y, lam, lr):
    return image + lr * (_slope(model, image, y, lambda logits: logits.log_softmax(1)) - 2 * lam * image)


@wrong("ascent_step", "climbed the cross-entropy")
def climbs_the_cross_entropy(image, model, y, lam, lr):
    return image + lr * (-_slope(model, image, y, lambda logits: logits.log_softmax(1)) - 2 * lam * image)


@wrong("ascent_step", "weights")
def moves_the_network(image, model, y, lam, lr):
    for parameter in model.network.parameters():
        parameter += 0.01
    return image + lr * (_slope(model, image, y) - 2 * lam * image)


def _cut(image, strength, percent, largest=False):
    out = image.clone()
    count = round(strength[0].numel() * percent / 100)
    for n in range(len(image)):
        places = strength[n].flatten().topk(count, largest=largest).indices
        out[n].flatten(1)[:, places] = 0
    return out


@right("clip_small_pixels")
def by_topk(image, percent):
    return _cut(image, image.square().sum(1), percent)


@right("clip_small_pixels")
def by_sorting(image, percent):
    norm = image.norm(dim=1)
    rank = norm.flatten(1).argsort(1).argsort(1).view_as(norm)
    return torch.where(rank[:, None] < round(norm[0].numel() * percent / 100), torch.zeros(()), image)


@wrong("clip_small_pixels", "single colors")
def colors_on_their_own(image, percent):
    limit = torch.quantile(image.abs().flatten(1), percent / 100, dim=1)
    return image * (image.abs() >= limit[:, None, None, None])


@wrong("clip_small_pixels", "largest")
def largest_away(image, percent):
    return _cut(image, image.norm(dim=1), percent, largest=True)


@wrong("clip_small_pixels", "with their signs")
def signed_sum(image, percent):
    return _cut(image, image.sum(dim=1), percent)


@wrong("clip_small_pixels", "in each")
def one_limit_for_the_batch(image, percent):
    norm = image.norm(dim=1)
    return image * (norm >= torch.quantile(norm.flatten(), percent / 100))[:, None]


@wrong("clip_small_pixels", "should be black")
def share_kept_instead(image, percent):
    norm = image.norm(dim=1)
    limit = torch.quantile(norm.flatten(1), 1 - percent / 100, dim=1)
    return image * (norm >= limit[:, None, None])[:, None]


@right("clip_small_contribution")
def contribution_by_topk(image, g, percent):
    return _cut(image, torch.einsum("nchw,nchw->nhw", image, g).abs(), percent)


@right("clip_small_contribution")
def contribution_by_kthvalue(image, g, percent):
    c = (image * g).sum(1).abs()
    limit = c.flatten(1).kthvalue(max(round(c[0].numel() * percent / 100), 1), dim=1).values
    return image * (c > limit[:, None, None])[:, None]


@wrong("clip_small_contribution", "outside of the sum")
def absolute_inside(image, g, percent):
    return _cut(image, (image * g).abs().sum(1), percent)


@wrong("clip_small_contribution", "absolute value is missing")
def no_absolute(image, g, percent):
    return _cut(image, (image * g).sum(1), percent)


@wrong("clip_small_contribution", "norm of the gradient")
def small_gradient(image, g, percent):
    return _cut(image, g.norm(dim=1), percent)


@wrong("clip_small_contribution", "norm of the pixels")
def small_pixels_again(image, g, percent):
    return _cut(image, image.norm(dim=1), percent)


@right("maximize")
def climb_with_backward(model, y, start, steps, lr):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        x.grad = None
        model(x)[:, y].sum().backward()
        with torch.no_grad():
            x += lr * F.normalize(x.grad.flatten(1)).view_as(x)
            x.clamp_(0, 1)
    return x.detach()


@right("maximize")
def keeps_the_best(model, y, start, steps, lr):
    image = best = start
    top = -float("inf")
    for _ in range(steps + 1):
        leaf = image.clone().requires_grad_()
        score = model(leaf)[0, y]
        if score.item() > top:
            top, best = score.item(), image
        (g,) = torch.autograd.grad(score, leaf)
        image = (image + lr * g / (g.norm() + 1e-9)).clamp(0, 1)
    return best


def _climb(model, y, start, steps, lr, read=lambda logits: logits, sign=1, clip=True):
    image = start.clone()
    for _ in range(steps):
        g = _slope(model, image, y, read)
        image = image + sign * lr * g / (g.norm() + 1e-12)
        image = image.clamp(0, 1) if clip else image
    return image


@wrong("maximize", "probability, which is flat")
def climbs_a_flat_probability(model, y, start, steps, lr):
    image = start.clone()
    for _ in range(steps):
        g = _slope(model, image, y, lambda logits: logits.softmax(1))
        image = (image + lr * g).clamp(0, 1)
    return image


@wrong("maximize", "steps go down")
def goes_down(model, y, start, steps, lr):
    return _climb(model, y, start, steps, lr, sign=-1)


@wrong("maximize", "leaves [0, 1]")
def never_clips(model, y, start, steps, lr):
    return _climb(model, y, start, 20 * steps, lr, clip=False)


@wrong("maximize", "begins at `start` again")
def gradient_of_the_start_again_and_again(model, y, start, steps, lr):
    for _ in range(steps):
        image = _climb(model, y, start, 1, lr)
    return image


@wrong("maximize", "in place")
def moves_the_start(model, y, start, steps, lr):
    for _ in range(steps):
        g = _slope(model, start, y)
        start += lr * g / (g.norm() + 1e-12)
        start.clamp_(0, 1)
    return start


@wrong("maximize", "add up in .grad")
def gradients_never_emptied(model, y, start, steps, lr):
    x = start.clone().requires_grad_()
    for _ in range(steps):
        model(x)[0, y].backward()
        with torch.no_grad():
            x += lr * x.grad / x.grad.norm()
            x.clamp_(0, 1)
    return x.detach()


@wrong("maximize", "not divided by its norm")
def steps_as_long_as_the_gradient(model, y, start, steps, lr):
    image = start.clone()
    for _ in range(steps):
        image = (image + lr * _slope(model, image, y)).clamp(0, 1)
    return image


@wrong("maximize", "sign of the gradient")
def steps_of_signs(model, y, start, steps, lr):
    image = start.clone()
    for _ in range(steps):
        image = (image + lr * _slope(model, image, y).sign()).clamp(0, 1)
    return image


@wrong("maximize")
def begins_at_noise(model, y, start, steps, lr):
    return _climb(model, y, torch.rand_like(start), steps, lr)


@wrong("ascent_step", "does not clip")
def clips_the_step(image, model, y, lam, lr):
    x = image.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(x)[0, y] - lam * x.square().sum(), x)
    return (image + lr * g).clamp(0, 1)
