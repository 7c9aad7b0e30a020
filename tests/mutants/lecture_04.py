import torch
import torch.nn.functional as F

from mutants.bank import right, wrong


@right("saliency")
def by_backward(model, X, y):
    leaf = X.clone().requires_grad_()
    model(leaf)[torch.arange(len(y)), y].sum().backward()
    return leaf.grad.abs().max(dim=1).values


@right("saliency")
def image_by_image(model, X, y):
    maps = []
    for x, label in zip(X, y):
        x = x[None].clone().requires_grad_()
        (g,) = torch.autograd.grad(model(x)[0, label], x)
        maps.append(g[0].abs().amax(0))
    return torch.stack(maps)


@wrong("saliency", "mean over the batch")
def mean_over_the_batch(model, X, y):
    X = X.clone().requires_grad_()
    model(X).gather(1, y[:, None]).mean().backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "absolute value is missing")
def no_absolute_value(model, X, y):
    X = X.clone().requires_grad_()
    model(X).gather(1, y[:, None]).sum().backward()
    return X.grad.amax(1)


@wrong("saliency", "before the maximum")
def absolute_value_too_late(model, X, y):
    X = X.clone().requires_grad_()
    model(X).gather(1, y[:, None]).sum().backward()
    return X.grad.amax(1).abs()


@wrong("saliency", "cross-entropy")
def cross_entropy(model, X, y):
    X = X.clone().requires_grad_()
    F.cross_entropy(model(X), y).backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "probability")
def after_the_softmax(model, X, y):
    X = X.clone().requires_grad_()
    model(X).softmax(1).gather(1, y[:, None]).sum().backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "all classes")
def all_classes(model, X, y):
    X = X.clone().requires_grad_()
    model(X).sum().backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "mean over the colors")
def mean_of_colors(model, X, y):
    X = X.clone().requires_grad_()
    model(X).gather(1, y[:, None]).sum().backward()
    return X.grad.abs().mean(1)


@wrong("saliency", "without keepdim")
def color_axis_kept(model, X, y):
    X = X.clone().requires_grad_()
    model(X).gather(1, y[:, None]).sum().backward()
    return X.grad.abs().amax(1, keepdim=True)


@wrong("saliency", "largest score")
def of_the_winner(model, X, y):
    X = X.clone().requires_grad_()
    model(X).max(1).values.sum().backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "in place")
def normalizes_the_batch_in_place(model, X, y):
    X -= X.mean()
    X.requires_grad_()
    model(X).gather(1, y[:, None]).sum().backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "return")
def no_return(model, X, y):
    X = X.clone().requires_grad_()
    model(X).gather(1, y[:, None]).sum().backward()
    X.grad.abs().amax(1)


@right("relu_backward")
def by_where(rule, f, R):
    zero = torch.zeros_like(R)
    result = R if rule == "deconvnet" else torch.where(f > 0, R, zero)
    return result if rule == "backprop" else torch.where(result > 0, result, zero)


@right("relu_backward")
def by_clamp_and_sign(rule, f, R):
    if rule != "backprop":
        R = R.clamp(min=0)
    return R if rule == "deconvnet" else R * f.relu().sign()


@wrong("relu_backward", "'guided' you gave what 'deconvnet'")
def guided_without_the_forward_mask(rule, f, R):
    return R * (f > 0) if rule == "backprop" else R.relu()


@wrong("relu_backward", "exactly 0")
def greater_or_equal(rule, f, R):
    if rule == "deconvnet":
        return R.relu()
    return R * (f >= 0) if rule == "backprop" else R.relu() * (f >= 0)


@wrong("relu_backward", "gave the mask")
def only_the_mask(rule, f, R):
    masks = {"backprop": f > 0, "deconvnet": R > 0, "guided": (f > 0) & (R > 0)}
    return (masks[rule] & (R != 0)).float()


@wrong("relu_backward", "multiplied by f")
def times_the_input(rule, f, R):
    masks = {"backprop": f > 0, "deconvnet": R > 0, "guided": (f > 0) & (R > 0)}
    return masks[rule] * R * f


@wrong("relu_backward", "in place")
def masks_the_gradient_in_place(rule, f, R):
    if rule != "deconvnet":
        R[f <= 0] = 0
    if rule != "backprop":
        R[R < 0] = 0
    return R


@right("smoothgrad")
def one_batch(model, x, y, n, sigma):
    noisy = (x + sigma * torch.randn(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].sum(), noisy)
    return g.mean(dim=0, keepdim=True)


@right("smoothgrad")
def list_and_stack(model, x, y, n, sigma):
    found = []
    for _ in range(n):
        z = x.clone() + torch.normal(0.0, 1.0, x.shape) * sigma
        z.requires_grad_()
        model(z)[0, y].backward()
        found.append(z.grad)
    return torch.stack(found).mean(0)


@wrong("smoothgrad", "added the n gradients")
def sum_of_gradients(model, x, y, n, sigma):
    noisy = (x + sigma * torch.randn(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].sum(), noisy)
    return g.sum(dim=0, keepdim=True)


@wrong("smoothgrad", "absolute values")
def mean_of_absolutes(model, x, y, n, sigma):
    noisy = (x + sigma * torch.randn(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].sum(), noisy)
    return g.abs().mean(dim=0, keepdim=True)


@wrong("smoothgrad", "same in all n copies")
def one_noise_for_all(model, x, y, n, sigma):
    noisy = (x + sigma * torch.randn_like(x)).repeat(n, 1, 1, 1).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].sum(), noisy)
    return g.mean(dim=0, keepdim=True)


@wrong("smoothgrad", "mean other than 0")
def uniform_noise(model, x, y, n, sigma):
    noisy = (x + sigma * torch.rand(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].sum(), noisy)
    return g.mean(dim=0, keepdim=True)


@wrong("smoothgrad", "Without noise")
def forgot_the_noise(model, x, y, n, sigma):
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(model(x)[0, y], x)
    return g


@wrong("smoothgrad", "standard deviation")
def variance_for_deviation(model, x, y, n, sigma):
    noisy = (x + sigma**2 * torch.randn(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].sum(), noisy)
    return g.mean(dim=0, keepdim=True)


@wrong("smoothgrad", "probability")
def of_the_probability(model, x, y, n, sigma):
    noisy = (x + sigma * torch.randn(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy).softmax(1)[:, y].sum(), noisy)
    return g.mean(dim=0, keepdim=True)


class GuidedReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, f):
        ctx.save_for_backward(f)
        return f.clamp(min=0)

    @staticmethod
    def backward(ctx, R):
        (f,) = ctx.saved_tensors
        return R.clamp(min=0) * (f > 0)


@right("guided_backprop")
def by_an_own_function(network, x, y):
    z = leaf = x.clone().requires_grad_()
    for layer in network:
        z = GuidedReLU.apply(z) if isinstance(layer, torch.nn.ReLU) else layer(z)
    z[0, y].backward()
    return leaf.grad


@right("guided_backprop")
def by_tensor_hooks(network, x, y):
    z = leaf = x.clone().requires_grad_()
    for layer in network:
        if isinstance(layer, torch.nn.ReLU):
            z = layer(z) if not z.requires_grad else torch.relu(_guarded(z))
        else:
            z = layer(z)
    (g,) = torch.autograd.grad(z[0, y], leaf)
    return g


def _guarded(z):
    z = z * 1.0
    z.register_hook(lambda R: R.clamp(min=0))
    return z


@wrong("guided_backprop", "plain gradient")
def plain_gradient(network, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network(x)[0, y], x)[0]


@wrong("guided_backprop", "hooks behind")
def hooks_left(network, x, y):
    for module in network:
        if isinstance(module, torch.nn.ReLU):
            module.register_full_backward_hook(lambda m, i, o: (i[0].clamp(min=0),))
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network(x)[0, y], x)[0]


@wrong("guided_backprop", "deconvnet")
def mask_of_the_forward_pass_missing(network, x, y):
    hook = lambda m, i, o: (o[0].clamp(min=0),)
    handles = [m.register_full_backward_hook(hook) for m in network if isinstance(m, torch.nn.ReLU)]
    x = x.clone().requires_grad_()
    g = torch.autograd.grad(network(x)[0, y], x)[0]
    for handle in handles:
        handle.remove()
    return g


@wrong("guided_backprop", "clipped the plain gradient")
def clipped_at_the_image(network, x, y):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network(x)[0, y], x)[0].clamp(min=0)


@wrong("saliency", "for every image the scores of all classes in y")
def columns_for_entries(model, X, y):
    X = X.clone().requires_grad_()
    model(X)[:, y].sum().backward()
    return X.grad.abs().amax(1)


@wrong("saliency", "largest value")
def stretched_to_one(model, X, y):
    X = X.clone().requires_grad_()
    model(X)[range(len(y)), y].sum().backward()
    found = X.grad.abs().amax(1)
    return found / found.amax((1, 2), keepdim=True)


@wrong("saliency", "pair (values, indices)")
def maximum_with_its_places(model, X, y):
    X = X.clone().requires_grad_()
    model(X)[range(len(y)), y].sum().backward()
    return X.grad.abs().max(1)


@wrong("saliency", "x.clone().requires_grad_()")
def without_requires_grad(model, X, y):
    model(X)[range(len(y)), y].sum().backward()
    return X.grad.abs().amax(1)


@wrong("smoothgrad", "mean of the noisy pictures")
def one_gradient_of_the_mean_picture(model, x, y, n, sigma):
    noisy = x + sigma * torch.randn(n, *x.shape[1:])
    mean = noisy.mean(0, keepdim=True).requires_grad_()
    return torch.autograd.grad(model(mean)[0, y], mean)[0]


@wrong("smoothgrad", "divided by n twice")
def mean_of_scores_and_of_gradients(model, x, y, n, sigma):
    noisy = (x + sigma * torch.randn(n, *x.shape[1:])).requires_grad_()
    (g,) = torch.autograd.grad(model(noisy)[:, y].mean(), noisy)
    return g.mean(0, keepdim=True)


@wrong("guided_backprop", "replaced layers")
def other_relus_put_in(network, x, y):
    class Guided(torch.nn.Module):
        def forward(self, f):
            return GuidedReLU.apply(f)

    for name, layer in list(network.named_children()):
        if isinstance(layer, torch.nn.ReLU):
            setattr(network, name, Guided())
    x = x.clone().requires_grad_()
    return torch.autograd.grad(network(x)[0, y], x)[0]
