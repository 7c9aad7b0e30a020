import statistics

import torch
import torch.nn.functional as F

from mutants.bank import right, wrong


@right("instance_norm")
def by_the_library(x, gamma, beta, eps):
    return F.instance_norm(x, weight=gamma, bias=beta, eps=eps)


@right("instance_norm")
def channel_by_channel(x, gamma, beta, eps):
    out = torch.empty_like(x)
    for n in range(len(x)):
        for c in range(x.shape[1]):
            z = x[n, c] - x[n, c].mean()
            out[n, c] = gamma[c] * z * torch.rsqrt((z**2).mean() + eps) + beta[c]
    return out


def _norm(x, dims=(2, 3), eps=1e-5, unbiased=False):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, unbiased=unbiased, keepdim=True) + eps).sqrt()


def _styled(z, gamma, beta):
    return z * gamma[:, None, None] + beta[:, None, None]


@wrong("instance_norm", "batch norm")
def batch_norm(x, gamma, beta, eps):
    return F.batch_norm(x, None, None, gamma, beta, training=True, eps=eps)


@wrong("instance_norm", "layer norm")
def layer_norm(x, gamma, beta, eps):
    return _styled(_norm(x, (1, 2, 3), eps), gamma, beta)


@wrong("instance_norm", "n - 1")
def unbiased_variance(x, gamma, beta, eps):
    return _styled(_norm(x, eps=eps, unbiased=True), gamma, beta)


@wrong("instance_norm", "under the root")
def eps_outside_the_root(x, gamma, beta, eps):
    z = x - x.mean((2, 3), keepdim=True)
    return _styled(z / (x.std((2, 3), unbiased=False, keepdim=True) + eps), gamma, beta)


@wrong("instance_norm", "gamma and beta are missing")
def not_affine(x, gamma, beta, eps):
    return _norm(x, eps=eps)


@wrong("instance_norm", "by its root")
def divided_by_the_variance(x, gamma, beta, eps):
    z = x - x.mean((2, 3), keepdim=True)
    return _styled(z / (x.var((2, 3), unbiased=False, keepdim=True) + eps), gamma, beta)


@right("conditional_instance_norm")
def by_the_library_blended(x, gammas, betas, blend):
    return F.instance_norm(x, weight=(blend[:, None] * gammas).sum(0), bias=(blend[:, None] * betas).sum(0))


@right("conditional_instance_norm")
def blend_of_results(x, gammas, betas, blend):
    return sum(b * F.instance_norm(x, weight=g, bias=s) for b, g, s in zip(blend, gammas, betas))


@wrong("conditional_instance_norm", "strongest style")
def winner_takes_all(x, gammas, betas, blend):
    return _styled(_norm(x), gammas[blend.argmax()], betas[blend.argmax()])


@wrong("conditional_instance_norm", "softmax")
def softmax_of_the_blend(x, gammas, betas, blend):
    return _styled(_norm(x), blend.softmax(0) @ gammas, blend.softmax(0) @ betas)


@wrong("conditional_instance_norm", "equal parts")
def all_styles_equally(x, gammas, betas, blend):
    return _styled(_norm(x), gammas.mean(0), betas.mean(0))


@wrong("conditional_instance_norm", "not normalized")
def no_normalization(x, gammas, betas, blend):
    return _styled(x, blend @ gammas, blend @ betas)


@right("same_conv")
def by_a_module(x, weight, stride):
    d, c, k, _ = weight.shape
    layer = torch.nn.Conv2d(c, d, k, stride, padding=k // 2, padding_mode="reflect", bias=False)
    layer.weight.data = weight
    return layer(x)


@right("same_conv")
def by_unfold(x, weight, stride):
    k = weight.shape[-1]
    padded = torch.nn.ReflectionPad2d(k // 2)(x)
    columns = F.unfold(padded, k, stride=stride)
    side = (padded.shape[2] - k) // stride + 1
    return (weight.flatten(1) @ columns).unflatten(2, (side, -1))


@wrong("same_conv", "zeros")
def zero_padding(x, weight, stride):
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


@wrong("same_conv", "no border")
def no_padding(x, weight, stride):
    return F.conv2d(x, weight, stride=stride)


@wrong("same_conv", "repeats the last pixel")
def replicated(x, weight, stride):
    half = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (half,) * 4, mode="replicate"), weight, stride=stride)


@wrong("same_conv", "padded twice")
def padded_twice(x, weight, stride):
    half = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (half,) * 4, mode="reflect"), weight, stride=stride, padding=half)


def _times(function, repeats, clock, warm=True):
    if warm:
        function()
    times = []
    for _ in range(repeats):
        before = clock()
        function()
        times.append(clock() - before)
    return times


@right("speedup")
def by_statistics(slow, fast, repeats, clock):
    return statistics.median(_times(slow, repeats, clock)) / statistics.median(_times(fast, repeats, clock))


@right("speedup")
def by_tensors(slow, fast, repeats, clock):
    a, b = (torch.tensor(_times(f, repeats, clock), dtype=torch.float64).median() for f in (slow, fast))
    return a / b


@wrong("speedup", "mean")
def by_means(slow, fast, repeats, clock):
    return sum(_times(slow, repeats, clock)) / sum(_times(fast, repeats, clock))


@wrong("speedup", "upside down")
def fast_by_slow(slow, fast, repeats, clock):
    return statistics.median(_times(fast, repeats, clock)) / statistics.median(_times(slow, repeats, clock))


@wrong("speedup", "warm")
def not_warmed_up(slow, fast, repeats, clock):
    a, b = (statistics.median(_times(f, repeats + 1, clock, warm=False)) for f in (slow, fast))
    return a / b


@wrong("speedup", "one call only")
def one_call(slow, fast, repeats, clock):
    return _times(slow, 1, clock, warm=False)[0] / _times(fast, 1, clock, warm=False)[0]


@wrong("same_conv", "your code raised an error")
def two_sides_only(x, weight, stride):
    half = weight.shape[-1] // 2
    return F.conv2d(F.pad(x, (half, half), mode="reflect"), weight, stride=stride)


@wrong("speedup", "warm-up is missing")
def measured_cold(slow, fast, repeats, clock):
    medians = []
    for function in (slow, fast):
        times = []
        for _ in range(repeats):
            start = clock()
            function()
            times.append(clock() - start)
        medians.append(sorted(times)[len(times) // 2])
    return medians[0] / medians[1]
