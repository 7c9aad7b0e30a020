"""Grams by hand, by properties and against wrong ones; the published conventions; synthesis on a small network."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lecturelib.errors import ArgumentError, ImageInputError, LayerNameError, LectureError
from lecturelib.inversion import relative_distance
from lecturelib.models import Model, load_model
from lecturelib.quilting import patch_distances
from lecturelib.texture import (
    conventions,
    covariance,
    gram,
    gram_loss,
    synthesize,
)

LAYERS = ["1", "4"]


def small_model(dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))
    return load_model(network.to(dtype), mean=(0.5,) * 3, std=(0.25,) * 3)


def sample(side: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    stripes = torch.stack([(x / 2).sin(), (y / 3).cos(), ((x + y) / 4).sin()])[None]
    return 0.5 + 0.3 * stripes


def by_loops(features: torch.Tensor) -> torch.Tensor:
    """The mean of the outer products of all positions, one after the other."""
    count, channels, height, width = features.shape
    grams = features.new_zeros(count, channels, channels)
    for n in range(count):
        for y in range(height):
            for x in range(width):
                grams[n] += torch.outer(features[n, :, y, x], features[n, :, y, x]) / (height * width)
    return grams


def test_the_gram_of_two_channels_by_hand():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # the vectors (1, 3) and (2, -1)
    assert gram(features).tolist() == [[[2.5, 0.5], [0.5, 5.0]]]


def test_the_gram_is_the_mean_of_outer_products():
    features = torch.randn(2, 5, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(gram(features), by_loops(features), atol=1e-12, rtol=0)


def test_the_gram_forgets_where_features_are():
    features = torch.rand(1, 3, 4, 4)
    shuffled = features.flatten(2)[:, :, torch.randperm(16)].unflatten(2, (4, 4))
    torch.testing.assert_close(gram(features), gram(shuffled))
    assert not torch.allclose(features, shuffled)


def test_the_gram_is_symmetric_positive_and_quadratic():
    features = torch.randn(2, 6, 5, 5)
    found = gram(features)
    torch.testing.assert_close(found, found.mT)
    assert torch.linalg.eigvalsh(found).min() >= -1e-5
    torch.testing.assert_close(gram(3 * features), 9 * found)


def test_masks_that_add_up_give_grams_that_add_up():
    features, mask = torch.randn(2, 4, 5, 6), torch.rand(2, 5, 6)
    torch.testing.assert_close(gram(features, mask) + gram(features, 1 - mask), gram(features), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gram(features, torch.ones(5, 6)), gram(features))
    assert gram(features, torch.zeros(5, 6)).abs().max() == 0
    left = torch.zeros(5, 6)
    left[:, :2] = 1
    torch.testing.assert_close(gram(features, left), gram(features[..., :2]) * 2 / 6)


def test_the_gram_has_the_right_gradients_of_first_and_second_order():
    features = torch.randn(2, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gram, features) and torch.autograd.gradgradcheck(gram, features)


WRONG = {
    "not divided": lambda f: f.flatten(2) @ f.flatten(2).mT,
    "divided by C": lambda f: f.flatten(2) @ f.flatten(2).mT / f.shape[1],
    "divided by C M": lambda f: f.flatten(2) @ f.flatten(2).mT / f[0].numel(),
    "divided by H only": lambda f: f.flatten(2) @ f.flatten(2).mT / f.shape[2],
    "divided by M twice": lambda f: gram(f) / f[0, 0].numel(),
    "divided by N too": lambda f: gram(f) / len(f),
    "centered": covariance,
    "correlation": lambda f: torch.stack([torch.corrcoef(each) for each in f.flatten(2)]),
    "positions in place of channels": lambda f: f.flatten(2).mT @ f.flatten(2) / f.shape[1],
    "reshaped, not transposed": lambda f: f.flatten(2) @ f.flatten(2).view(len(f), -1, f.shape[1]) / f[0, 0].numel(),
    "the batch mixed": lambda f: gram(f).mean(dim=0, keepdim=True).expand(len(f), -1, -1),
    "the batch as channels": lambda f: f.flatten(0, 1).flatten(1) @ f.flatten(0, 1).flatten(1).T / f[0, 0].numel(),
    "one direction only": lambda f: torch.einsum("nchw,ndhw->nhcd", f, f).mean(dim=1),
    "of means": lambda f: f.mean(dim=(2, 3))[:, :, None] * f.mean(dim=(2, 3))[:, None],
    "the diagonal only": lambda f: gram(f) * torch.eye(f.shape[1]),
    "absolute": lambda f: gram(f.abs()),
}


def is_the_gram(candidate) -> bool:
    """What the tests above ask of `gram`, of any function."""
    for shape in ((2, 3, 4, 5), (1, 2, 1, 3), (3, 4, 2, 2)):
        features = torch.randn(shape)
        found = candidate(features)
        if found.shape != (shape[0], shape[1], shape[1]) or not torch.allclose(found, by_loops(features), atol=1e-5):
            return False
    return True


def test_wrong_grams_are_caught():
    assert is_the_gram(gram)
    assert len(WRONG) >= 12
    assert [name for name, wrong in WRONG.items() if is_the_gram(wrong)] == []


def test_the_covariance_is_that_of_torch():
    features = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = torch.stack([torch.cov(each, correction=0) for each in features.flatten(2)])
    torch.testing.assert_close(covariance(features), expected)
    torch.testing.assert_close(covariance(features + 7), expected)
    mean = features.mean(dim=(2, 3))
    torch.testing.assert_close(covariance(features) + mean[:, :, None] * mean[:, None], gram(features))


def test_the_published_conventions_are_computed_as_published():
    f, g = torch.randn(2, 1, 6, 4, 5, dtype=torch.float64)
    channels, positions = 6, 20
    full, other = (each[0].flatten(1) @ each[0].flatten(1).T for each in (f, g))
    found = {name: loss.item() for name, loss in conventions(gram(f), gram(g)).items()}
    gatys = ((full - other).square().sum() / (4 * channels**2 * positions**2)).item()
    divided = [each / (channels * positions) for each in (full, other)]
    expected = {
        "F F^T / M, sum": ((full - other) / positions).square().sum(),
        "F F^T, sum / (4 C^2 M^2)": gatys,
        "F F^T / (C M), sum": F.mse_loss(*divided, reduction="sum"),
        "F F^T / (C M), mean": F.mse_loss(*divided),
        "relative": (full - other).square().sum() / other.square().sum(),
    }
    assert found == pytest.approx({name: float(loss) for name, loss in expected.items()}, rel=1e-10)
    assert gatys == pytest.approx(found["F F^T / (C M), sum"] / 4, rel=1e-10)
    assert found["F F^T / (C M), mean"] == pytest.approx(gatys * 4 / channels**2, rel=1e-10)


def test_the_relative_distance_is_0_at_the_target_1_at_zero_and_free_of_scale():
    target = torch.randn(3, 4, 4)
    assert relative_distance(target, target).tolist() == [0, 0, 0]
    torch.testing.assert_close(relative_distance(torch.zeros(3, 4, 4), target), torch.ones(3))
    found = torch.randn(3, 4, 4)
    torch.testing.assert_close(relative_distance(5 * found, 5 * target), relative_distance(found, target))
    torch.testing.assert_close(relative_distance(found, torch.zeros(3, 4, 4)), found.square().sum(dim=(1, 2)))


def test_the_gram_loss_is_the_weighted_sum_over_the_layers():
    model, image, others = small_model(), sample(), torch.rand(3, 3, 20, 24)
    target, found = model.activations(image, LAYERS), model.activations(others, LAYERS)
    parts = [relative_distance(gram(found[layer]), gram(target[layer])) for layer in LAYERS]
    torch.testing.assert_close(gram_loss(model, image, LAYERS)(others), (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(gram_loss(model, image, LAYERS, weights=[3, 0.5])(others), 3 * parts[0] + parts[1] / 2)
    torch.testing.assert_close(gram_loss(model, image, LAYERS)(image), torch.zeros(1), atol=1e-10, rtol=0)


def test_the_loss_of_a_batch_is_that_of_its_images():
    loss, others = gram_loss(small_model(), sample(), LAYERS), torch.rand(4, 3, 20, 20)
    torch.testing.assert_close(loss(others), torch.cat([loss(each) for each in others.split(1)]))


def test_the_gradient_of_the_loss_is_right_in_float64():
    loss = gram_loss(small_model(torch.float64), sample(16).double(), LAYERS)
    image = torch.rand(1, 3, 12, 12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (image,), eps=1e-6, atol=1e-6, nondet_tol=1e-12)


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("rule", "fall"), [("lbfgs", 100), ("adam", 10)])
def test_the_loss_falls_far(rule, fall):
    model, image, losses = small_model(), sample(), []
    made = synthesize(
        model,
        image,
        LAYERS,
        scales=1,
        steps=80,
        step_rule=rule,
        generator=draw(),
        on_step=lambda step, images, loss: losses.append(loss.item()),
    )
    assert len(losses) == 81
    assert min(losses) < losses[0] / fall
    assert gram_loss(model, image, LAYERS)(made).item() == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.parametrize(("size", "shape"), [(None, (32, 32)), (70, (70, 70)), ((24, 65), (24, 65))])
def test_a_picture_of_any_size_has_the_texture_and_is_no_copy(size, shape):
    model, image = small_model(), sample()
    before = image.clone()
    made = synthesize(model, image, LAYERS, size=size, steps=20, scales=2, generator=draw())
    assert made.shape == (1, 3, *shape)
    assert made.min() >= 0
    assert made.max() <= 1
    assert not made.requires_grad
    loss = gram_loss(model, image, LAYERS)
    assert loss(made) < 0.05 * loss(torch.rand(1, 3, *shape))
    assert patch_distances(made, image, patch=12, stride=12).min() > 0.01
    assert torch.equal(image, before)


def test_the_scales_double_and_their_steps_count_on():
    seen = []
    synthesize(
        small_model(),
        sample(64),
        LAYERS,
        size=(64, 96),
        steps=2,
        scales=3,
        on_step=lambda step, images, losses: seen.append((step, tuple(images.shape[2:]), losses.item() > 0)),
    )
    sizes = [(16, 24), (32, 48), (64, 96)]
    assert seen == [(2 * place + step, size, True) for place, size in enumerate(sizes) for step in range(3)]


def test_a_small_sample_has_fewer_scales():
    sides = set()
    synthesize(
        small_model(), sample(), LAYERS, steps=1, scales=9, on_step=lambda step, images, _: sides.add(images.shape[2])
    )
    assert sides == {16, 32}


def test_the_generator_decides_and_gradients_may_be_off():
    model, image = small_model(), sample()
    with torch.no_grad():
        made = [synthesize(model, image, LAYERS, steps=3, generator=draw(seed)) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_several_samples_give_several_textures():
    model, samples = small_model(), torch.cat([sample(), 1 - 0.5 * sample()])
    made = synthesize(model, samples, LAYERS, steps=40, scales=1, generator=draw())
    losses = [gram_loss(model, each, LAYERS)(picture[None]) for each in samples.split(1) for picture in made]
    assert made.shape == samples.shape
    assert losses[0] < 0.2 * losses[1]
    assert losses[3] < 0.2 * losses[2]


def test_a_constant_sample_gives_its_color():
    color = torch.tensor([0.7, 0.4, 0.2]).view(1, 3, 1, 1)
    constant, layers = color.expand(1, 3, 24, 24), ["relu1_1", "relu2_1"]
    made = synthesize(load_model("mini_vgg"), constant, layers, steps=40, scales=1, generator=draw())
    assert (made - color).abs().mean() < 0.05


def test_an_interrupt_returns_the_best_so_far_at_the_asked_size():
    def interrupt(step, images, losses):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="Interrupted after 3 of 5 steps"):
        made = synthesize(small_model(), sample(64), LAYERS, size=80, steps=5, on_step=interrupt)
    assert made.shape == (1, 3, 80, 80)
    assert made.isfinite().all()


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda model: gram(torch.rand(3, 4, 4)), ArgumentError),
        (lambda model: gram(torch.rand(1, 3, 4, 4), torch.ones(2, 2)), ArgumentError),
        (lambda model: gram_loss(model, sample(), []), ArgumentError),
        (lambda model: gram_loss(model, sample(), "1"), ArgumentError),
        (lambda model: gram_loss(model, sample(), LAYERS, weights=[1]), ArgumentError),
        (lambda model: gram_loss(model, sample() * 255, LAYERS), ImageInputError),
        (lambda model: gram_loss(model, sample(), ["relu9_1"]), LayerNameError),
        (lambda model: synthesize(model, sample()[0], LAYERS), ImageInputError),
        (lambda model: synthesize(model, sample(), LAYERS, size=0), ArgumentError),
        (lambda model: synthesize(model, sample(), LAYERS, size=(3, 4, 5)), ArgumentError),
        (lambda model: synthesize(model, sample(), LAYERS, size=2.5), ArgumentError),
        (lambda model: synthesize(model, sample(), LAYERS, scales=0), ArgumentError),
        (lambda model: synthesize(model, sample(), LAYERS, steps=-1), ArgumentError),
        (lambda model: synthesize(model, sample(), LAYERS, step_rule="sign"), ArgumentError),
    ],
)
def test_wrong_arguments_are_refused_in_words(call, error):
    with pytest.raises(error) as caught:
        call(small_model())
    assert isinstance(caught.value, LectureError)
    assert "Received" in str(caught.value)
