"""Attacks against networks whose answers are known, and the sanity checks that every attack has to pass."""

import pytest
import torch
from torch import nn

from lecturelib import adversarial
from lecturelib.adversarial import (
    amplify_difference,
    cross_entropy_score,
    epsilon_sweep,
    fgsm,
    fool,
    fool_from_noise,
    pgd,
    round_to_8_bit,
    transfer_matrix,
)
from lecturelib.errors import (
    ArgumentError,
    ClassNameError,
    ImageInputError,
    LectureError,
    OptimizationError,
    ScoreError,
)
from lecturelib.images import load_image, save_image
from lecturelib.models import Model, load_model
from lecturelib.optimize import maximize
from lecturelib.scores import class_score, log_probability

SIDE = 6


def linear_model(weight: torch.Tensor) -> Model:
    """Logits = W x."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight), bias=False, dtype=weight.dtype))
    with torch.no_grad():
        network[1].weight.copy_(weight)
    return load_model(network, mean=(0, 0, 0), std=(1, 1, 1))


def margin(model: Model, other: int, label: int):
    return lambda images: model(images)[:, other] - model(images)[:, label]


def conv_model(seed: int = 0) -> Model:
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(48, 5))
    return load_model(network, trained=False, seed=seed)


def byte_images(count: int, side: int = 12) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, side, side)) / 255


def answers(model: Model, images: torch.Tensor) -> list[int]:
    with torch.no_grad():
        return model(images).argmax(dim=1).tolist()


@pytest.mark.parametrize("attack", [fgsm, pgd])
@pytest.mark.parametrize("epsilon", [0.5 / 255, 4 / 255, 0.1])
def test_the_margin_of_a_linear_model_falls_by_epsilon_times_the_one_norm(attack, epsilon):
    weight = torch.randn(2, 3 * SIDE * SIDE, dtype=torch.float64)
    model, images = linear_model(weight), 0.3 + 0.4 * torch.rand(4, 3, SIDE, SIDE, dtype=torch.float64)
    gain = margin(model, 1, 0)
    attacked = attack(images, gain, epsilon=epsilon)
    expected = epsilon * (weight[0] - weight[1]).abs().sum()
    torch.testing.assert_close(gain(attacked) - gain(images), expected.expand(4), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(attacked, images + epsilon * (weight[1] - weight[0]).sign().view(3, SIDE, SIDE))


def test_planted_adversarial_examples_are_all_found():
    weight = torch.randn(2, 3 * SIDE * SIDE, dtype=torch.float64)
    model, epsilon = linear_model(weight), 4 / 255
    difference = (weight[0] - weight[1]).view(3, SIDE, SIDE)
    reach = epsilon * difference.abs().sum()
    images = 0.3 + 0.4 * torch.rand(50, 3, SIDE, SIDE, dtype=torch.float64)
    # Every image is moved along the difference until its margin is a given share of what the ball can reach.
    margins = torch.linspace(0.05, 0.95, 50, dtype=torch.float64) * reach
    lack = margins - (images * difference).sum(dim=(1, 2, 3))
    images = images + lack[:, None, None, None] * difference / difference.square().sum()
    assert ((images > epsilon) & (images < 1 - epsilon)).all()
    assert answers(model, images) == [0] * 50
    for attack in (fgsm, pgd):
        assert answers(model, attack(images, cross_entropy_score(model, 0), epsilon=epsilon)) == [1] * 50
    assert answers(model, fool(model, images, 1, lr=0.05)) == [1] * 50


def test_the_first_fooling_step_has_the_length_of_the_learning_rate():
    model, images = conv_model(), 0.4 + 0.2 * torch.rand(3, 3, 12, 12)
    for lr in (0.01, 0.1, 0.5):
        with pytest.warns(UserWarning, match="Not fooled after 1 steps"):
            moved = fool(model, images, 4, confidence=0.999, lr=lr, steps=1)
        lengths = (moved - images).flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((3,), lr), atol=1e-5, rtol=0)
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(class_score(model, 4)(leaf).sum(), leaf)
        direction = torch.nn.functional.cosine_similarity((moved - images).flatten(1), gradient.flatten(1))
        torch.testing.assert_close(direction, torch.ones(3), atol=1e-4, rtol=0)


def test_fooling_reaches_its_target_stops_there_and_survives_a_file(tmp_path):
    model, images = conv_model(), byte_images(6)
    before = images.clone()
    targets = [(answer + 1) % 5 for answer in answers(model, images)]
    fooled = fool(model, images, targets, lr=0.2, steps=200)
    assert answers(model, fooled) == targets
    assert torch.equal(images, before)
    for n in range(6):
        path = save_image(fooled[n : n + 1], tmp_path / f"{n}.png")
        assert answers(model, load_image(str(path))) == targets[n : n + 1]
        single = fool(model, images[n : n + 1], targets[n], lr=0.2, steps=200)
        assert answers(model, single) == targets[n : n + 1]
        torch.testing.assert_close(single, fooled[n : n + 1], atol=1e-3, rtol=0)
    assert torch.equal(fool(model, fooled, targets), fooled)  # already there


def test_fooling_from_noise_is_confident():
    weight = 3 * torch.randn(4, 3 * 8 * 8)
    model = linear_model(weight)
    generator = torch.Generator().manual_seed(0)
    fooled = fool_from_noise(model, [0, 1, 2, 3], size=8, lr=0.3, generator=generator)
    assert fooled.shape == (4, 3, 8, 8)
    assert (model.probabilities(round_to_8_bit(fooled)).diagonal() >= 0.99).all()


def test_a_target_out_of_reach_is_told():
    model = linear_model(torch.zeros(2, 3 * SIDE * SIDE))
    image = torch.rand(2, 3, SIDE, SIDE)
    with pytest.warns(UserWarning, match="Not fooled after 3 steps: image 0, 1"):
        assert torch.equal(fool(model, image, 1, steps=3), image)


def test_an_interrupted_fooling_returns_the_pictures_so_far():
    model, images = conv_model(), byte_images(1)
    target, calls = (answers(model, images)[0] + 1) % 5, []

    class Interrupted(Model):
        def __call__(self, images):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return model(images)

    interrupted = Interrupted(model.network, name="interrupted", classes=model.classes, layers={})
    with pytest.warns(UserWarning, match="interrupted in step 4 of 100: image 0"):
        fooled = fool(interrupted, images, target, confidence=0.999, lr=0.01)
    assert class_score(model, target)(fooled) > class_score(model, target)(images)


def test_an_interrupt_before_the_first_step_is_told_too(monkeypatch):
    counted = iter([range, None])

    def interrupted(*arguments):
        if (real := next(counted)) is None:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(adversarial, "range", interrupted, raising=False)
    images = torch.rand(1, 3, 12, 12)
    with pytest.warns(UserWarning, match="interrupted in step 1 of 100: image 0"):
        assert torch.equal(fool(conv_model(), images, 1, confidence=0.999), images)


def test_without_room_nothing_changes():
    model, images = conv_model(), torch.rand(3, 3, 12, 12)
    for attack in (fgsm, pgd):
        attacked = attack(images, cross_entropy_score(model, 0), epsilon=0)
        assert torch.equal(attacked, images)
        assert attacked.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("epsilon", [1e-4, 0.5 / 255, 1 / 255, 8 / 255, 0.3, 1.0])
@pytest.mark.parametrize("lr", [None, 0.3, 1e9])
def test_every_step_stays_in_the_ball(epsilon, lr):
    model, images, seen = conv_model(), torch.rand(4, 3, 12, 12), []
    away = cross_entropy_score(model, 0)

    def watched(images):
        seen.append(images.detach().clone())
        return away(images)

    generator = torch.Generator().manual_seed(0)
    attacked = pgd(images, watched, epsilon=epsilon, lr=lr, steps=5, generator=generator)
    assert len(seen) == 6
    for place in [*seen, attacked]:
        assert (place - images).abs().max() <= epsilon + 1e-7
        assert place.min() >= 0
        assert place.max() <= 1


def test_many_steps_beat_one_and_larger_balls_are_never_worse():
    model, images = conv_model(), byte_images(30)
    away = cross_entropy_score(model, answers(model, images))
    before = away(images)
    for epsilon in (1 / 255, 4 / 255, 16 / 255):
        one, many = away(fgsm(images, away, epsilon=epsilon)), away(pgd(images, away, epsilon=epsilon))
        assert (one >= before).all()
        assert (many >= one - 1e-6).float().mean() >= 0.9
        assert many.mean() >= before.mean()
        before = away(images)


def test_the_sweep_rises_from_no_error_to_all_and_noise_of_that_size_does_not_fool():
    model, images = conv_model(), byte_images(20)
    labels = answers(model, images)
    epsilons = [0, 1 / 255, 4 / 255, 16 / 255, 1]
    one, many = epsilon_sweep(model, images, labels, epsilons, steps=1), epsilon_sweep(model, images, labels, epsilons)
    for shares in (one, many):
        assert shares[0] == 0
        assert (shares.diff() >= 0).all()
    assert many[-1] == 1
    assert many[3] >= one[3]
    signs = torch.randint(0, 2, (10, *images.shape)) * 2 - 1
    noisy = [(images + 4 / 255 * sign).clamp(0, 1) for sign in signs]
    fooled_by_noise = sum(
        answer != label for image in noisy for answer, label in zip(answers(model, image), labels, strict=True)
    )
    assert fooled_by_noise / 200 <= 0.1
    assert many[2] >= 5 * fooled_by_noise / 200


def test_targeted_attacks_climb_towards_a_class():
    model, images = conv_model(), byte_images(5)
    toward = log_probability(model, 3)
    assert (toward(pgd(images, toward, epsilon=8 / 255)) > toward(images)).all()
    assert answers(model, pgd(images, toward, epsilon=1.0, steps=50)) == [3] * 5


@pytest.mark.parametrize("attack", [fgsm, pgd])
def test_images_of_a_batch_are_attacked_alone(attack):
    weight = torch.randn(3, 3 * SIDE * SIDE, dtype=torch.float64)
    model, images = linear_model(weight), torch.rand(3, 3, SIDE, SIDE, dtype=torch.float64)
    together = attack(images, cross_entropy_score(model, [0, 1, 2]))
    singles = [attack(images[n : n + 1], cross_entropy_score(model, n)) for n in range(3)]
    assert torch.equal(together, torch.cat(singles))


def test_a_random_start_comes_from_its_generator():
    model, images = conv_model(), torch.rand(2, 3, 12, 12)
    before = torch.get_rng_state()
    away = cross_entropy_score(model, 0)
    runs = [pgd(images, away, steps=2, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("epsilon", [0, 1 / 255, 4 / 255, 0.02, 0.001])
def test_rounding_to_8_bits_stays_in_the_ball_and_is_what_a_file_keeps(epsilon, tmp_path):
    original = byte_images(1)
    image = (original + epsilon * (2 * torch.rand_like(original) - 1)).clamp(0, 1)
    rounded = round_to_8_bit(image, original, epsilon=epsilon)
    assert (rounded - original).abs().max() <= epsilon + 1e-7
    assert torch.equal(load_image(str(save_image(rounded, tmp_path / "rounded.png"))), rounded)
    assert (rounded - image).abs().max() <= max(epsilon, 0.5 / 255) + 1e-6


def test_attacks_on_8_bit_pictures_with_whole_steps_are_8_bit_pictures():
    model, images = conv_model(), byte_images(4)
    attacked = pgd(images, cross_entropy_score(model, 0), epsilon=4 / 255)
    torch.testing.assert_close(round_to_8_bit(attacked), attacked, atol=1e-6, rtol=0)


def test_the_amplified_difference_can_be_read_back():
    image, other = torch.rand(2, 3, 5, 5), torch.rand(2, 3, 5, 5)
    other = image + 0.04 * (other - 0.5)
    shown = amplify_difference(image, other, k=10)
    torch.testing.assert_close((shown - 0.5) / 10, other - image, atol=1e-6, rtol=0)
    assert torch.equal(amplify_difference(image, image), torch.full_like(image, 0.5))
    assert amplify_difference(torch.zeros_like(image), torch.ones_like(image)).max() == 1


def test_attacks_carry_over_less_than_they_work_at_home():
    models, images = [conv_model(seed) for seed in range(3)], byte_images(24)
    labels = answers(models[0], images)
    clean = torch.tensor([[a != b for a, b in zip(answers(m, images), labels, strict=True)] for m in models])
    without = transfer_matrix(models, images, labels, epsilon=0)
    torch.testing.assert_close(without, clean.float().mean(dim=1).expand(3, 3))
    matrix = transfer_matrix(models, images, labels, epsilon=16 / 255)
    assert ((matrix >= 0) & (matrix <= 1)).all()
    assert matrix[0, 0] > matrix[1:, 0].max()
    assert matrix.diagonal().mean() >= matrix[~torch.eye(3, dtype=torch.bool)].mean()


def test_the_embedded_class_names_are_understood_by_each_model():
    models = [load_model(name, trained=False) for name in ("mini_alexnet", "mini_vgg")]
    matrix = transfer_matrix(models, byte_images(2, side=32), ["koala", 4], epsilon=2 / 255, steps=1)
    assert matrix.shape == (2, 2)


def test_an_interrupt_ends_a_sweep():
    model, images, calls = conv_model(), byte_images(2), []
    labels = answers(model, images)

    class Interrupted(Model):
        def __call__(self, images):
            calls.append(1)
            if len(calls) == 5:
                raise KeyboardInterrupt
            return model(images)

    interrupted = Interrupted(model.network, name="interrupted", classes=model.classes, layers={})
    with pytest.warns(UserWarning, match="Interrupted"), pytest.raises(KeyboardInterrupt):
        epsilon_sweep(interrupted, images, labels, [0, 4 / 255, 8 / 255])
    assert len(calls) == 5


def test_an_attack_leaves_the_model_as_it_was():
    model, images = conv_model(), byte_images(2)
    values = [parameter.clone() for parameter in model.network.parameters()]
    before = images.clone()
    fool(model, images, 1, lr=0.5)
    pgd(images, cross_entropy_score(model, 0))
    for parameter, value in zip(model.network.parameters(), values, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.grad is None
        assert not parameter.requires_grad
    assert torch.equal(images, before)


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode])
def test_attacks_work_where_gradients_are_off(where):
    model = conv_model()
    with where():
        images = byte_images(2)
        away = cross_entropy_score(model, 0)
        assert (away(pgd(images, away)) > away(images)).all()
        assert answers(model, fool(model, images, 2, lr=0.3)) == [2, 2]


def test_a_network_without_finite_answers_is_told():
    model = linear_model(torch.full((2, 3 * SIDE * SIDE), float("nan")))
    image = torch.rand(1, 3, SIDE, SIDE)
    with pytest.raises(OptimizationError):
        fool(model, image, 1)
    with pytest.raises(OptimizationError):
        pgd(image, cross_entropy_score(model, 1))


@pytest.mark.parametrize(
    ("attack", "error"),
    [
        (lambda model, image: pgd(image, class_score(model, 0), epsilon=-1), ArgumentError),
        (lambda model, image: pgd(image, class_score(model, 0), epsilon=float("nan")), ArgumentError),
        (lambda model, image: fgsm(image, class_score(model, 0), epsilon="4/255"), ArgumentError),
        (lambda model, image: pgd(image, class_score(model, 0), lr=0), ArgumentError),
        (lambda model, image: pgd(image, class_score(model, 0), steps=-1), ArgumentError),
        (lambda model, image: pgd(image * 255, class_score(model, 0)), ImageInputError),
        (lambda model, image: pgd(image * float("nan"), class_score(model, 0)), ImageInputError),
        (lambda model, image: pgd(image[0], class_score(model, 0)), ImageInputError),
        (lambda model, image: pgd(image, lambda images: images.sum()), ScoreError),
        (lambda model, image: fool(model, image, "koala"), ClassNameError),
        (lambda model, image: fool(model, image, [0, 1]), ArgumentError),
        (lambda model, image: fool(model, image, 1, lr=0), ArgumentError),
        (lambda model, image: fool(model, image, 1, steps=1.5), ArgumentError),
        (lambda model, image: fool(model, image, 1, confidence=1), ArgumentError),
        (lambda model, image: fool(model, image * 2, 1), ImageInputError),
        (lambda model, image: epsilon_sweep(model, image, [0], [0.1, 0]), ArgumentError),
        (lambda model, image: epsilon_sweep(model, image, [0], []), ArgumentError),
        (lambda model, image: transfer_matrix([model], image, [7]), ClassNameError),
    ],
)
def test_impossible_attacks_are_named(attack, error):
    with pytest.raises(error) as caught:
        attack(conv_model(), torch.rand(1, 3, 12, 12))
    assert isinstance(caught.value, LectureError)


def test_a_ball_is_a_box_of_the_loop():
    model, images = conv_model(), byte_images(2)
    away = cross_entropy_score(model, 0)
    free = maximize(images, away, steps=10, lr=1 / 255, step_rule="sign")
    torch.testing.assert_close(free, pgd(images, away, epsilon=1.0, lr=1 / 255))


def test_attacks_follow_a_device(device):
    model = conv_model()
    moved = load_model(model.network, device=device)
    images = byte_images(2)
    for start in (images, images.to(device)):
        attacked = pgd(start, cross_entropy_score(moved, 0))
        assert attacked.device == start.device
        fooled = fool(moved, start, [1, 2], lr=0.3)
        assert fooled.device == start.device
        assert moved(fooled).argmax(dim=1).tolist() == [1, 2]
