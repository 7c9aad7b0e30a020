"""Gradients with respect to the picture, and what is made of them."""

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lecturelib.errors import ArgumentError, ImageInputError, LayerNameError, LectureError, ScoreError
from lecturelib.models import Model, load_model
from lecturelib.relu_rules import relu_rule
from lecturelib.saliency import (
    completeness_gap,
    grad_cam,
    gradient_times_input,
    input_gradient,
    integrated_gradients,
    saliency_map,
    smoothgrad,
)
from lecturelib.scores import class_score, log_probability, neuron_score

UNSCALED = {"mean": (0, 0, 0), "std": (1, 1, 1)}


def small_model(*, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64) -> Model:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return load_model(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 6 * 6, 5)).to(device, dtype))


def linear_model() -> tuple[Model, torch.Tensor]:
    """logits = W x, and W as (K, 3, 4, 4)."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).double()
    return load_model(network, **UNSCALED), network[1].weight.detach().view(3, 3, 4, 4)


class Classifier(nn.Module):
    """What captum differentiates: the normalization and the network of a model."""

    def __init__(self, model: Model):
        super().__init__()
        self.mean, self.std, self.network = model.mean, model.std, model.network

    def forward(self, images):
        return self.network((images - self.mean) / self.std)


@pytest.fixture
def image():
    return torch.rand(1, 3, 12, 12, dtype=torch.float64)


@pytest.fixture
def images():
    return torch.rand(3, 3, 12, 12, dtype=torch.float64)


@pytest.fixture
def model():
    return small_model()


METHODS = {
    "input_gradient": lambda model, images, classes: input_gradient(images, class_score(model, classes)),
    "saliency_map": lambda model, images, classes: saliency_map(images, class_score(model, classes)),
    "gradient_times_input": lambda model, images, classes: gradient_times_input(images, class_score(model, classes)),
    "smoothgrad": lambda model, images, classes: smoothgrad(
        images, log_probability(model, classes), samples=3, generator=torch.Generator().manual_seed(1)
    ),
    "integrated_gradients": lambda model, images, classes: integrated_gradients(
        images, log_probability(model, classes), steps=4
    ),
    "grad_cam": lambda model, images, classes: grad_cam(model, images, "4", classes),
}
each_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())


def test_the_saliency_of_a_linear_network_is_the_largest_weight_over_the_colors():
    model, weights = linear_model()
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    for k in range(3):
        expected = weights[k].abs().amax(dim=0).expand(2, 4, 4)
        torch.testing.assert_close(saliency_map(image, class_score(model, k)), expected, rtol=0, atol=0)


@pytest.mark.parametrize("make", [lambda m: class_score(m, 2), lambda m: neuron_score(m, "4", 3, 2, 4)])
def test_the_gradient_agrees_with_central_differences(model, image, make):
    score, step = make(model), 1e-6
    gradient = input_gradient(image, score).flatten()
    for pixel in torch.randperm(image.numel())[:20].tolist():
        up, down = image.clone(), image.clone()
        up.view(-1)[pixel] += step
        down.view(-1)[pixel] -= step
        assert gradient[pixel].item() == pytest.approx(((score(up) - score(down)) / (2 * step)).item(), abs=1e-8)


def test_the_gradient_agrees_with_captum(model, images):
    expected = captum.attr.Saliency(Classifier(model)).attribute(images.clone().requires_grad_(), target=1, abs=False)
    torch.testing.assert_close(input_gradient(images, class_score(model, 1)), expected, rtol=1e-12, atol=1e-14)


def test_the_gradient_of_a_neuron_is_zero_outside_of_its_receptive_field(model, image):
    gradient = input_gradient(image, neuron_score(model, "3", 0, 2, 3))
    inside = torch.zeros(12, 12, dtype=torch.bool)
    inside[1:9, 3:11] = True  # positions 1..3 and 2..4 of the pooled map, two pixels each, and one pixel around them
    assert (gradient[..., ~inside] == 0).all()
    assert (gradient[..., inside] != 0).double().mean() > 0.9


@each_method
def test_a_batch_equals_its_images_one_by_one(model, images, method):
    together = method(model, images, [0, 3, 1])
    alone = torch.cat([method(model, images[n : n + 1], [[0, 3, 1][n]]) for n in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


@each_method
def test_neither_the_image_nor_the_model_is_changed(model, images, method):
    images.requires_grad_()
    before, weights = images.detach().clone(), [value.clone() for value in model.network.parameters()]
    found = method(model, images, 0)
    assert torch.equal(images, before)
    assert images.grad is None
    assert images.requires_grad
    assert not found.requires_grad
    assert all(torch.equal(*pair) for pair in zip(model.network.parameters(), weights, strict=True))
    assert not any(value.requires_grad or value.grad is not None for value in model.network.parameters())
    assert not any(module._forward_hooks for module in model.network.modules())


@each_method
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_the_caller_has_switched_gradients_off(model, images, method, context):
    expected = method(model, images, 0)
    with context():
        found = method(model, images.clone(), 0)
    assert torch.equal(found, expected)


@each_method
def test_flat_networks_give_zeros(images, method):
    network = small_model().network
    for parameter in network.parameters():
        parameter.data = torch.zeros_like(parameter)
    assert (method(load_model(network), images, 0) == 0).all()


def test_one_picture_has_no_influence_on_the_next(model, images):
    other = torch.cat([images[:1], torch.rand(2, 3, 12, 12)])
    torch.testing.assert_close(
        saliency_map(images, class_score(model, 0))[0], saliency_map(other, class_score(model, 0))[0]
    )


def test_gradient_times_input_adds_up_to_a_linear_score():
    model, weights = linear_model()
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    found = gradient_times_input(image, class_score(model, 2))
    torch.testing.assert_close(found, weights[2] * image)
    bias = model.network[1].bias[2]
    torch.testing.assert_close(found.flatten(1).sum(dim=1), class_score(model, 2)(image) - bias)


def test_smoothgrad_without_noise_is_the_plain_gradient(model, images):
    score = class_score(model, 0)
    torch.testing.assert_close(smoothgrad(images, score, samples=3, sigma=0), input_gradient(images, score))


def test_smoothgrad_of_a_linear_network_is_its_weights():
    model, weights = linear_model()
    found = smoothgrad(torch.rand(1, 3, 4, 4, dtype=torch.float64), class_score(model, 1), samples=4, sigma=2.0)
    torch.testing.assert_close(found[0], weights[1])


def test_smoothgrad_is_the_mean_gradient_over_the_noisy_copies(model, images):
    score = class_score(model, 0)
    found = smoothgrad(images, score, samples=4, sigma=0.3, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    noises = [torch.randn(3, 12, 12, generator=generator, dtype=torch.float64) for _ in range(4)]
    gradients = []
    for noise in noises:
        noisy = (images + 0.3 * noise).requires_grad_()
        gradients.append(torch.autograd.grad(score(noisy).sum(), noisy)[0])
    torch.testing.assert_close(found, torch.stack(gradients).mean(dim=0), rtol=1e-10, atol=1e-12)


def test_the_spread_of_smoothgrad_falls_with_the_root_of_the_samples(image):
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 1)).double()
    score, generator = class_score(load_model(network), 0), torch.Generator().manual_seed(0)

    def spread(samples: int) -> float:
        runs = [smoothgrad(image, score, samples=samples, sigma=0.5, generator=generator) for _ in range(24)]
        return torch.stack(runs).std(dim=0).mean().item()

    assert spread(2) / spread(32) == pytest.approx(4, rel=0.25)


@pytest.mark.parametrize("count", [2, 40])
def test_no_more_than_one_copy_of_each_image_is_held_at_a_time(images, count):
    seen = []

    def score(noisy):
        seen.append(len(noisy))
        return noisy.square().flatten(1).sum(dim=1)

    smoothgrad(images, score, samples=count)
    integrated_gradients(images, score, steps=count)
    assert seen == [3] * 2 * count


@pytest.mark.parametrize("samples", [3, 5])
def test_only_a_few_copies_go_through_the_network_at_a_time(model, monkeypatch, images, samples):
    seen = []
    run = model.reader.logits
    monkeypatch.setattr(model.reader, "logits", lambda inputs: seen.append(len(inputs)) or run(inputs))
    monkeypatch.setattr("lecturelib.scores.LARGEST_MAP", 6 * 4 * 6 * 144)  # the first map: 6 channels of 12 x 12
    score, generators = class_score(model, [0, 3, 1]), [torch.Generator().manual_seed(0) for _ in range(2)]
    few = smoothgrad(images, score, samples=samples, generator=generators[0])
    assert seen == [6] * (samples // 2) + [3]
    single = smoothgrad(images, lambda x: score(x), samples=samples, generator=generators[1])
    torch.testing.assert_close(few, single, rtol=1e-10, atol=1e-12)


def test_integrated_gradients_of_a_linear_network_are_exact_with_one_step():
    model, weights = linear_model()
    image, baseline = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)
    found = integrated_gradients(image, class_score(model, 0), baseline=baseline, steps=1)
    torch.testing.assert_close(found, weights[0] * (image - baseline))


def test_integrated_gradients_of_a_square_are_the_square():
    image = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    found = integrated_gradients(image, lambda x: x.square().flatten(1).sum(dim=1), steps=3)
    torch.testing.assert_close(found, image.square())


@pytest.mark.parametrize("baseline", [0.0, 0.5, torch.full((1, 3, 12, 12), 0.2), torch.rand(3, 3, 12, 12)])
def test_integrated_gradients_agree_with_captum(model, images, baseline):
    reference = captum.attr.IntegratedGradients(Classifier(model))
    start = baseline.double() if isinstance(baseline, torch.Tensor) else baseline
    expected = reference.attribute(images, start, target=1, n_steps=20, method="riemann_middle")
    found = integrated_gradients(images, class_score(model, 1), baseline=baseline, steps=20)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)  # captum's steps are rounded to float32


def test_the_completeness_gap_is_what_is_missing(model, images):
    score = class_score(model, 1)
    rise = score(images) - score(torch.full_like(images, 0.5))
    nothing = torch.zeros_like(images)
    torch.testing.assert_close(completeness_gap(images, score, nothing, baseline=0.5), -rise)
    gaps = [
        completeness_gap(images, score, integrated_gradients(images, score, baseline=0.5, steps=steps), baseline=0.5)
        for steps in (2, 200)
    ]
    assert (gaps[1].abs() < 5e-3 * rise.abs()).all()
    assert gaps[1].abs().sum() < gaps[0].abs().sum() / 10


@pytest.mark.parametrize("layer", ["0", "1", "2", "4"])
def test_grad_cam_agrees_with_captum(model, images, layer):
    classifier = Classifier(model)
    reference = captum.attr.LayerGradCam(classifier, classifier.network.get_submodule(layer))
    expected = reference.attribute(images.clone().requires_grad_(), target=3, relu_attributions=True)
    expected = F.interpolate(expected, size=(12, 12), mode="bilinear")[:, 0].detach()
    torch.testing.assert_close(grad_cam(model, images, layer, 3), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks on ReLU")
def test_guided_gradient_times_grad_cam_agrees_with_captum(model, images):
    classifier = Classifier(model)
    reference = captum.attr.GuidedGradCam(classifier, classifier.network[3])
    expected = reference.attribute(images.clone().requires_grad_(), target=3, interpolate_mode="bilinear").detach()
    with relu_rule(model, "guided"):
        guided = input_gradient(images, class_score(model, 3))
    torch.testing.assert_close(guided * grad_cam(model, images, "3", 3)[:, None], expected, rtol=1e-10, atol=1e-12)


def test_grad_cam_of_average_pooled_maps_is_the_class_activation_map(images):
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)).double()
    model = load_model(network)
    maps = model.activation(images, "0")
    expected = torch.einsum("nchw,c->nhw", maps, network[3].weight[1].detach()).relu() / 100
    expected = F.interpolate(expected[:, None], size=(12, 12), mode="bilinear")[:, 0]
    torch.testing.assert_close(grad_cam(model, images, "0", 1), expected)


def test_grad_cam_records_no_graph_below_its_layer(images):
    layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)]
    network, seen = nn.Sequential(*layers).double(), []
    for layer in (network[0], network[4]):
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    grad_cam(load_model(network), images.requires_grad_(), "2", 0)
    assert seen == [False, True]


@pytest.mark.parametrize("together", [1, 2])
def test_grad_cam_reads_its_layer_a_few_images_at_a_time_and_the_rest_at_once(model, monkeypatch, images, together):
    expected, seen = grad_cam(model, images, "4", [0, 3, 1]), []
    for place in (0, 6):
        model.network[place].register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    monkeypatch.setattr("lecturelib.scores.LARGEST_MAP", together * 4 * 6 * 144)
    torch.testing.assert_close(grad_cam(model, images, "4", [0, 3, 1]), expected, rtol=1e-10, atol=1e-12)
    assert seen == {1: [1, 1, 1, 3], 2: [2, 1, 3]}[together]


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 4, 3).double(), nn.Linear(400, 2).double()

    def forward(self, images):
        return self.dense(F.relu_(self.conv(images)).flatten(1))


def test_grad_cam_reads_the_layer_before_an_operation_in_place(images):
    network = InPlace()
    plain = nn.Sequential(network.conv, nn.ReLU(), nn.Flatten(), network.dense)
    expected = grad_cam(load_model(plain), images, "0", 1)
    torch.testing.assert_close(grad_cam(load_model(network), images, "conv", 1), expected)


class Branching(InPlace):
    def forward(self, images):
        return super().forward(images) if images.sum() > -1e9 else None


class Detour(nn.Module):
    """A layer with a way around it, and the picture itself is used twice."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.dense = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 2)
        self.double()

    def forward(self, images):
        maps = self.conv1(images).relu()
        return self.dense((maps + self.conv2(maps) * images[:, :1, 1:-1, 1:-1]).relu().mean(dim=(2, 3)))


@pytest.mark.parametrize("layer", ["conv1", "conv2", "relu", "relu_1"])
def test_grad_cam_follows_the_ways_around_its_layer(images, layer):
    model = load_model(Detour(), **UNSCALED)
    leaf = images.clone().requires_grad_()
    first = model.network.conv1(leaf)
    rectified = first.relu()
    second = model.network.conv2(rectified)
    last = (rectified + second * leaf[:, :1, 1:-1, 1:-1]).relu()
    maps = {"conv1": first, "relu": rectified, "conv2": second, "relu_1": last}[layer]
    (gradient,) = torch.autograd.grad(model.network.dense(last.mean(dim=(2, 3)))[:, 1].sum(), maps)
    expected = (maps * gradient.mean(dim=(2, 3), keepdim=True)).sum(dim=1, keepdim=True).relu()
    expected = F.interpolate(expected, size=(12, 12), mode="bilinear")[:, 0].detach()
    torch.testing.assert_close(grad_cam(model, images, layer, 1), expected, rtol=1e-10, atol=1e-12)


def test_grad_cam_names_the_layers_that_it_cannot_use(model, images):
    with pytest.raises(LayerNameError, match="has none"):
        grad_cam(model, images, "6", 0)
    with pytest.raises(LayerNameError, match="Near it"):
        grad_cam(model, images, "conv9", 0)
    with pytest.raises(LayerNameError, match="not known"):
        grad_cam(load_model(Branching()), images, "conv", 0)


@pytest.mark.parametrize(
    "method", [input_gradient, saliency_map, gradient_times_input, smoothgrad, integrated_gradients]
)
def test_a_wrong_score_or_picture_says_so(model, image, method):
    with pytest.raises(ScoreError, match="one number per image"):
        method(image, model)
    with pytest.raises(ScoreError, match="one number per image"):
        method(image, lambda x: model(x).sum())
    with pytest.raises(ScoreError, match="no gradient"):
        method(image, lambda x: class_score(model, 0)(x.detach()))
    with pytest.raises(ScoreError, match="no gradient"):
        method(image, lambda x: torch.ones(len(x), requires_grad=True))
    with pytest.raises(ScoreError):
        method(image, "koala")
    score = class_score(model, 0)
    for wrong in (image[0], image * 255, torch.full_like(image, torch.nan), (image * 255).byte(), None):
        with pytest.raises(ImageInputError):
            method(wrong, score)
    with pytest.raises(LectureError):
        method(image, class_score(model, [0, 1]))


def test_wrong_options_say_so(model, image):
    score = class_score(model, 0)
    for options in ({"samples": 0}, {"samples": 2.5}, {"sigma": -0.1}, {"sigma": float("nan")}):
        with pytest.raises(ArgumentError):
            smoothgrad(image, score, **options)
    for options in ({"steps": 0}, {"baseline": torch.zeros(3, 12, 12)}, {"baseline": torch.zeros(2, 3, 12, 12)}):
        with pytest.raises(ArgumentError):
            integrated_gradients(image, score, **options)


def test_it_runs_on_the_device_of_the_model(device):
    images = torch.rand(2, 3, 12, 12)
    here, there = small_model(dtype=torch.float32), small_model(device=device, dtype=torch.float32)
    for method in METHODS.values():
        expected, found = method(here, images, [1, 4]), method(there, images.to(device), [1, 4])
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-6)
