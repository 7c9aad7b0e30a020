"""Checks of lecture 11: a network that paints at once."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lecturelib.checks.answers import Answer
from lecturelib.checks.cases import Case
from lecturelib.checks.comparing import as_tensor, compare, require
from lecturelib.checks.exercises import exercise


def _normalized(features: Tensor, epsilon: float, dims: tuple[int, ...] = (2, 3), *, unbiased: bool = False) -> Tensor:
    variance = features.var(dim=dims, keepdim=True, unbiased=unbiased)
    return (features - features.mean(dim=dims, keepdim=True)) / (variance + epsilon).sqrt()


@exercise(11)
def instance_norm(answer: Answer, case: Case) -> None:
    """`instance_norm(x, gamma, beta, eps)`: each channel of each image to mean beta and deviation gamma."""
    features = 2 * case.randn(3, 4, 3, 3) + case.randn(3, 4, 1, 1)
    gamma, beta, epsilon = 1 + case.rand(4), case.randn(4), 0.5

    def affine(values: Tensor) -> Tensor:
        return gamma[:, None, None] * values + beta[:, None, None]

    centered = features - features.mean(dim=(2, 3), keepdim=True)
    deviation = features.std(dim=(2, 3), keepdim=True, unbiased=False)
    mistakes = {
        "You normalized over the batch too (batch norm): each image has its own mean.": affine(
            _normalized(features, epsilon, (0, 2, 3))
        ),
        "You normalized over the channels too (layer norm): each channel has its own mean.": affine(
            _normalized(features, epsilon, (1, 2, 3))
        ),
        "You normalized over the channels: wanted: over the pixels, dimensions 2 and 3.": affine(
            _normalized(features, epsilon, (1,))
        ),
        "The variance is divided by n - 1; wanted: by n (unbiased=False).": affine(
            _normalized(features, epsilon, unbiased=True)
        ),
        "Add eps to the variance, under the root, not to the deviation.": affine(centered / (deviation + epsilon)),
        "Add eps to the variance, under the root, not to the deviation; and the variance is divided by n.": affine(
            centered / (features.std(dim=(2, 3), keepdim=True) + epsilon)
        ),
        "You divided by the variance; wanted: by its root.": affine(centered / (deviation.square() + epsilon)),
        "eps is missing.": affine(centered / deviation),
        "gamma and beta are missing.": _normalized(features, epsilon),
        "beta is missing.": gamma[:, None, None] * _normalized(features, epsilon),
        "gamma and beta are exchanged.": beta[:, None, None] * _normalized(features, epsilon) + gamma[:, None, None],
        "The mean is not subtracted.": affine(features / (deviation.square() + epsilon).sqrt()),
        "beta is added before the multiplication by gamma.": gamma[:, None, None]
        * (_normalized(features, epsilon) + beta[:, None, None]),
    }
    compare(answer(features, gamma, beta, epsilon), affine(_normalized(features, epsilon)), mistakes)


@exercise(11)
def conditional_instance_norm(answer: Answer, case: Case) -> None:
    """`conditional_instance_norm(x, gammas, betas, blend)`: instance norm with blended styles (Dumoulin et al., 2016).

    gammas and betas have shape (S, C), blend (S,) adds up to 1; eps is 1e-5.
    """
    features, gammas, betas = case.randn(2, 4, 5, 5), 1 + case.rand(3, 4), case.randn(3, 4)
    plain = _normalized(features, 1e-5)
    for blend in (torch.tensor([0.0, 1.0, 0.0]), F.normalize(0.1 + case.rand(3), p=1, dim=0)):
        gamma, beta = blend @ gammas, blend @ betas
        winner = int(blend.argmax())

        def styled(gamma: Tensor, beta: Tensor) -> Tensor:
            return gamma[:, None, None] * plain + beta[:, None, None]

        weights = blend.softmax(dim=0)
        mistakes = {
            "You used the strongest style only; wanted: the blend of all.": styled(gammas[winner], betas[winner]),
            "blend adds up to 1 already: no softmax.": styled(weights @ gammas, weights @ betas),
            "You used all styles to equal parts: blend is ignored.": styled(gammas.mean(dim=0), betas.mean(dim=0)),
            "Only gamma is blended; beta is the first style's.": styled(gamma, betas[0]),
            "Only beta is blended; gamma is the first style's.": styled(gammas[0], beta),
            "You divided by the number of styles.": styled(gamma / 3, beta / 3),
            "You added the styles up: blend is ignored.": styled(gammas.sum(dim=0), betas.sum(dim=0)),
            "You used the first style only: blend is ignored.": styled(gammas[0], betas[0]),
            "gamma and beta are exchanged.": styled(beta, gamma),
            "The features are not normalized first.": gamma[:, None, None] * features + beta[:, None, None],
            "You normalized over the batch too: each image has its own mean.": gamma[:, None, None]
            * _normalized(features, 1e-5, (0, 2, 3))
            + beta[:, None, None],
        }
        compare(answer(features, gammas, betas, blend), styled(gamma, beta), mistakes)


@exercise(11)
def same_conv(answer: Answer, case: Case) -> None:
    """`same_conv(x, weight, stride)`: a convolution with mirrored borders, k // 2 pixels on each side."""
    for kernel, stride in ((3, 1), (5, 2)):
        image, weight = case.randn(2, 3, 8, 8), case.randn(4, 3, kernel, kernel)
        half = kernel // 2

        def padded(mode: str, *, image: Tensor = image, weight: Tensor = weight, half=half, stride=stride) -> Tensor:
            return F.conv2d(F.pad(image, (half,) * 4, mode=mode), weight, stride=stride)

        mistakes = {
            "The border is filled with zeros: that draws dark frames. Mirror it (mode='reflect').": padded("constant"),
            "The border repeats the last pixel; wanted: mirrored (mode='reflect').": padded("replicate"),
            "The border wraps around to the other side; wanted: mirrored (mode='reflect').": padded("circular"),
            "There is no border: the picture shrinks.": F.conv2d(image, weight, stride=stride),
            "The stride is ignored.": F.conv2d(F.pad(image, (half,) * 4, mode="reflect"), weight),
            "The border is padded twice: no padding in conv2d after F.pad.": F.conv2d(
                F.pad(image, (half,) * 4, mode="reflect"), weight, stride=stride, padding=half
            ),
            "The border is k pixels wide; wanted: k // 2.": lambda image=image, weight=weight, k=kernel, s=stride: (
                F.conv2d(F.pad(image, (k,) * 4, mode="reflect"), weight, stride=s)
            ),
        }
        compare(answer(image, weight, stride), padded("reflect"), mistakes)


@exercise(11)
def speedup(answer: Answer, case: Case) -> None:
    """`speedup(slow, fast, repeats, clock)`: the ratio of the median times, after one call each to warm up."""
    unit = 1 + case.rand(1).item()
    clock = _Clock()
    slow = _Work(clock, [500, 20, 24, 200, 22, 21], unit)
    fast = _Work(clock, [300, 4, 5, 4, 50, 4], unit)
    got = as_tensor(answer(slow, fast, 5, clock), ()).double()
    require(got.numel() == 1, "The result is one number.")
    require(slow.calls and fast.calls, "Call slow() and fast().")
    mistakes = {
        "You took the mean: one slow run spoils it. Wanted: the median.": 287 / 67,
        "The first call warms up and does not count.": 23 / 4.5,
        "The warm-up is missing: call slow() and fast() once before you measure.": 24 / 5,
        "You took the mean of all calls, also of the first, which warms up.": 787 / 367,
        "The ratio is upside down: slow / fast.": 4 / 22,
        "You took the fastest run; wanted: the median.": 20 / 4,
        "You took the slowest run; wanted: the median.": 200 / 50,
        "You timed one call only, the first; wanted: the median of several.": 500 / 300,
    }
    right = torch.tensor(22 / 4, dtype=torch.float64)
    several = {said: torch.tensor(ratio, dtype=torch.float64) for said, ratio in mistakes.items()}
    compare(got.reshape(()), right, several, what="the ratio")
    fits = slow.calls == 6 and fast.calls == 6
    require(fits, f"One call to warm up and 5 that count make 6; slow() was called {slow.calls} times.")


class _Clock:
    """A clock that goes on only while there is `_Work`."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class _Work:
    """A function that takes the given times, one after the other, on the clock of the check."""

    def __init__(self, clock: _Clock, times: list[float], unit: float):
        self.clock, self.times, self.unit, self.calls = clock, times, unit, 0

    def __call__(self) -> None:
        self.clock.now += self.unit * self.times[self.calls % len(self.times)]
        self.calls += 1
