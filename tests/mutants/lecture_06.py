import torch
import torch.nn.functional as F

from mutants.bank import right, wrong


def _slope(model, x, read):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(read(model(leaf)), leaf)[0]


def _fool(model, x, target, lr, steps, scale=lambda g: g / g.norm(), read=None, sign=1, stop=True):
    x = x.clone()
    read = read or (lambda logits: logits[0, target])
    for _ in range(steps):
        if stop and model(x).argmax() == target:
            break
        x = x + sign * lr * scale(_slope(model, x, read))
    return x


@right("fool")
def while_not_fooled(model, x, target, lr, steps):
    done = 0
    while done < steps and model(x).argmax(dim=1).item() != target:
        g = _slope(model, x, lambda logits: logits[:, target].sum())
        x = x + lr * F.normalize(g.flatten(1)).view_as(g)
        done += 1
    return x


@right("fool")
def one_pass_per_step(model, x, target, lr, steps):
    x = x.detach().clone()
    for _ in range(steps):
        x.requires_grad_()
        logits = model(x)
        if logits.argmax() == target:
            return x.detach()
        logits[0, target].backward()
        x = (x + lr * x.grad / torch.linalg.vector_norm(x.grad)).detach()
    return x


@wrong("fool", "squared norm")
def divided_by_the_squared_norm(model, x, target, lr, steps):
    return _fool(model, x, target, lr, steps, scale=lambda g: g / (g**2).sum())


@wrong("fool", "not normalized")
def raw_gradient(model, x, target, lr, steps):
    return _fool(model, x, target, lr, steps, scale=lambda g: g)


@wrong("fool", "goes down")
def descends(model, x, target, lr, steps):
    return _fool(model, x, target, lr, steps, sign=-1)


@wrong("fool", "stop at the first success")
def does_not_stop(model, x, target, lr, steps):
    moved = _fool(model, x, target, lr, steps, stop=False)
    return x if model(x).argmax() == target else moved


@wrong("fool", "stays as it is")
def moves_what_is_fooled_already(model, x, target, lr, steps):
    x = _fool(model, x, target, lr, 1, stop=False)
    return _fool(model, x, target, lr, steps - 1)


@wrong("fool", "sign of the gradient")
def signs(model, x, target, lr, steps):
    return _fool(model, x, target, lr, steps, scale=torch.sign)


@wrong("fool", "cross-entropy")
def climbs_the_loss(model, x, target, lr, steps):
    return _fool(model, x, target, lr, steps, read=lambda z: F.cross_entropy(z, torch.tensor([target])))


@wrong("fool", "in place")
def moves_the_picture_itself(model, x, target, lr, steps):
    g = _slope(model, x, lambda logits: logits[0, target])
    x += lr * g / g.norm()
    return x


@right("fgsm")
def by_backward(model, x, y, eps):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), y, reduction="sum").backward()
    return torch.clamp(x + eps * torch.sign(leaf.grad), 0, 1)


@right("fgsm")
def down_the_log_probability(model, x, y, eps):
    g = _slope(model, x, lambda z: z.log_softmax(1).gather(1, y[:, None]).sum())
    return torch.minimum(torch.maximum(x - eps * g.sign(), torch.zeros(())), torch.ones(()))


def _fgsm(model, x, y, eps, scale=torch.sign, sign=1):
    return x + sign * eps * scale(_slope(model, x, lambda z: F.cross_entropy(z, y)))


@wrong("fgsm", "leaves [0, 1]")
def not_clipped(model, x, y, eps):
    return _fgsm(model, x, y, eps)


@wrong("fgsm", "wrong way")
def towards_the_class(model, x, y, eps):
    return _fgsm(model, x, y, eps, sign=-1).clamp(0, 1)


@wrong("fgsm", "sign")
def without_the_sign(model, x, y, eps):
    return _fgsm(model, x, y, eps, scale=lambda g: g).clamp(0, 1)


@wrong("fgsm", "[-1, 1]")
def clipped_in_the_wrong_space(model, x, y, eps):
    return _fgsm(model, x, y, eps).clamp(-1, 1)


@wrong("fgsm", "L2")
def step_of_a_length(model, x, y, eps):
    unit = lambda g: g / g.flatten(1).norm(dim=1)[:, None, None, None]
    return _fgsm(model, x, y, eps, scale=unit).clamp(0, 1)


@right("pgd")
def with_bounds(model, x, y, eps, lr, steps):
    low, high = (x - eps).clamp(0, 1), (x + eps).clamp(0, 1)
    z = x
    for _ in range(steps):
        z = torch.max(torch.min(z + lr * _slope(model, z, lambda l: F.cross_entropy(l, y)).sign(), high), low)
    return z


@right("pgd")
def with_a_change(model, x, y, eps, lr, steps):
    delta = torch.zeros_like(x)
    for _ in range(steps):
        g = _slope(model, x + delta, lambda l: -l.log_softmax(1)[range(len(y)), y].sum())
        delta = (delta + lr * g.sign()).clamp(-eps, eps)
        delta = (x + delta).clamp(0, 1) - x
    return x + delta


def _pgd(model, x, y, eps, lr, steps, ball=True, box=True, moving=False, fresh=False, sign=1):
    z = x.clone()
    for _ in range(steps):
        start = x if fresh else z
        step = start + sign * lr * _slope(model, start, lambda l: F.cross_entropy(l, y)).sign()
        center = z if moving else x
        z = center + (step - center).clamp(-eps, eps) if ball else step
        z = z.clamp(0, 1) if box else z
    return z


@wrong("pgd", "larger than eps")
def no_ball(model, x, y, eps, lr, steps):
    return _pgd(model, x, y, eps, lr, steps, ball=False)


@wrong("pgd", "leaves [0, 1]")
def no_box(model, x, y, eps, lr, steps):
    return _pgd(model, x, y, eps, lr, steps, box=False)


@wrong("pgd", "larger than eps")
def ball_that_moves_along(model, x, y, eps, lr, steps):
    return _pgd(model, x, y, eps, lr, steps, moving=True)


@wrong("pgd", "begins at x again")
def always_from_the_start(model, x, y, eps, lr, steps):
    return _pgd(model, x, y, eps, lr, steps, fresh=True)


@wrong("pgd", "wrong way")
def to_the_class(model, x, y, eps, lr, steps):
    return _pgd(model, x, y, eps, lr, steps, sign=-1)


@right("amplify_difference")
def by_lerp(x, x_adv, k):
    return torch.clamp(torch.full_like(x, 0.5) + (x_adv - x) * k, min=0, max=1)


@right("amplify_difference")
def in_numpy(x, x_adv, k):
    return (0.5 + k * (x_adv.numpy() - x.numpy())).clip(0, 1)


@wrong("amplify_difference", "leaves [0, 1]")
def difference_not_clipped(x, x_adv, k):
    return 0.5 + k * (x_adv - x)


@wrong("amplify_difference", "middle grey")
def no_grey(x, x_adv, k):
    return (k * (x_adv - x)).clamp(0, 1)


@wrong("amplify_difference", "sign")
def other_way_round(x, x_adv, k):
    return (0.5 + k * (x - x_adv)).clamp(0, 1)


@wrong("amplify_difference", "absolute")
def absolute_difference(x, x_adv, k):
    return (0.5 + k * (x_adv - x).abs()).clamp(0, 1)


@wrong("fool", "add up in .grad")
def gradients_never_emptied(model, x, target, lr, steps):
    x = x.clone().requires_grad_()
    for _ in range(steps):
        logits = model(x)[0]
        if logits.argmax() == target:
            break
        logits[target].backward()
        with torch.no_grad():
            x += lr * x.grad / x.grad.norm()
    return x.detach()


@wrong("fool", "not clipped")
def clips_the_picture(model, x, target, lr, steps):
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        logits = model(leaf)[0]
        if logits.argmax() == target:
            break
        (g,) = torch.autograd.grad(logits[target], leaf)
        x = (x + lr * g / g.norm()).clamp(0, 1)
    return x


@wrong("fool", "model's answer")
def away_from_the_answer(model, x, target, lr, steps):
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        logits = model(leaf)[0]
        if logits.argmax() == target:
            break
        (g,) = torch.autograd.grad(logits.max(), leaf)
        x = x - lr * g / g.norm()
    return x


@wrong("fool", "more than `steps` steps")
def as_long_as_it_takes(model, x, target, lr, steps):
    while model(x)[0].argmax() != target:
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(model(leaf)[0, target], leaf)
        x = x + lr * g / g.norm()
    return x


@wrong("fgsm", "no softmax before it")
def softmax_twice(model, x, y, eps):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf).softmax(1), y).backward()
    return (x + eps * leaf.grad.sign()).clamp(0, 1)


@wrong("fgsm", "down the score of y")
def down_the_score(model, x, y, eps):
    leaf = x.clone().requires_grad_()
    model(leaf)[range(len(y)), y].sum().backward()
    return (x - eps * leaf.grad.sign()).clamp(0, 1)


@wrong("pgd", "gradient at x")
def gradient_of_the_first_picture(model, x, y, eps, lr, steps):
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
    moved = x
    for _ in range(steps):
        moved = (x + (moved + lr * g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return moved
