"""The loop: planted optima, the best so far, interrupts, numbers that run away, and that nothing is left behind."""

import signal
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity
from torch.overrides import TorchFunctionMode

from lecturelib.canvas import Code, Fourier, Pixels, grey_noise
from lecturelib.errors import ArgumentError, LectureError, OptimizationError, ScoreError
from lecturelib.models import Model, load_model
from lecturelib.optimize import maximize, minimize
from lecturelib.regularizers import blur_every, clip_small_pixels, l2, total_variation
from lecturelib.scores import channel_score, class_score, probability
from lecturelib.transforms import compose, jitter, pad, random_scale

LRS = {"adam": 0.01, "sgd": 0.1, "normalized": 0.005, "sign": 0.002}


def linear(weight: torch.Tensor):
    return lambda images: ((images - 0.5) * weight).flatten(1).sum(dim=1)


def tiny_model(dtype: torch.dtype = torch.float32) -> Model:
    torch.manual_seed(3)
    layers = [nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 4)]
    return load_model(nn.Sequential(*layers).to(dtype))


def state_of(model: Model) -> list:
    modules = list(model.network.modules())
    tensors = [*model.network.parameters(), *model.network.buffers()]
    hooks = [len(module._forward_hooks) + len(module._backward_hooks) for module in modules]
    flags = [(module.training, getattr(module, "inplace", None)) for module in modules]
    needs = [(tensor.requires_grad, tensor.grad is None) for tensor in tensors]
    values = [hash(tensor.detach().numpy().tobytes()) for tensor in tensors]
    return [hooks, flags, needs, values, torch.is_grad_enabled(), torch.is_inference_mode_enabled()]


class Fault(TorchFunctionMode):
    """Raises `error` at the n-th call of torch."""

    def __init__(self, error: BaseException, at: float):
        super().__init__()
        self.error, self.at, self.calls = error, at, 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        if self.calls == self.at:
            raise self.error
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("rule", [*LRS, "lbfgs"])
def test_the_planted_optimum_is_found(rule):
    weight = torch.randn(1, 3, 12, 12)
    score = lambda images: linear(0.1 * weight)(images) - 0.5 * l2(images)  # noqa: E731
    found = maximize(grey_noise(12), score, steps=150, lr=LRS.get(rule, 1.0), step_rule=rule)
    assert cosine_similarity((found - 0.5).flatten(), weight.flatten(), dim=0) >= 0.99


@pytest.mark.parametrize("rule", ["sgd", "normalized"])  # Adam's steps have the signs of the filter, not its values
def test_the_best_picture_in_a_ball_is_the_filter_itself(rule):
    weight = torch.randn(1, 3, 12, 12)

    def into_the_ball(images, gradient, step):
        return 0.5 + (images - 0.5) * (1 / (images - 0.5).norm()).clamp(max=1)

    start = into_the_ball(grey_noise(12), None, 0)
    found = maximize(start, linear(weight), steps=80, lr=LRS[rule], step_rule=rule, after_step=into_the_ball)
    assert cosine_similarity((found - 0.5).flatten(), weight.flatten(), dim=0) >= 0.99


@pytest.mark.parametrize("canvas", [lambda: Fourier(12), lambda: Pixels(grey_noise(12))])
def test_a_target_is_found_on_every_canvas(canvas):
    target = 0.5 + 0.3 * torch.sin(torch.arange(12.0)).expand(1, 3, 12, 12)
    distance = lambda images: (images - target).square().flatten(1).sum(dim=1)  # noqa: E731
    found = minimize(canvas(), distance, steps=250, lr=0.05)
    assert (found - target).abs().max() < 0.03


def test_a_code_is_found_inside_its_bounds():
    generator = nn.Sequential(nn.Linear(4, 12, bias=False), nn.Unflatten(1, (3, 2, 2)), nn.Sigmoid())
    code = torch.tensor([[0.5, 0.1, 0.9, 3.0]])
    target = generator(code).detach()
    distance = lambda images: (images - target).square().flatten(1).sum(dim=1)  # noqa: E731
    canvas = Code(generator, torch.full((1, 4), 0.2), high=torch.full((4,), 1.0))
    minimize(canvas, distance, steps=300, lr=0.05)
    assert canvas.parameters()[0].max() <= 1
    random = [distance(generator(torch.rand(1, 4))) for _ in range(100)]
    assert distance(canvas.image()) < min(random)
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_climbing_beats_a_hundred_noise_pictures_of_equal_norm():
    model = load_model("mini_vgg", trained=False)
    score = channel_score(model, "conv2_1", [3, 7])
    found = maximize(grey_noise(24, count=2), score, steps=15, lr=0.02)
    length = (found - 0.5).flatten(1).norm(dim=1)
    noise = torch.randn(100, 2, *found.shape[1:])
    noise = 0.5 + noise / noise.flatten(2).norm(dim=2)[..., None, None, None] * length[:, None, None, None]
    with torch.no_grad():
        best = torch.stack([score(pair) for pair in noise]).amax(dim=0)
        assert (score(found) > best).all()


def test_maximize_and_minimize_are_one_loop_with_two_signs():
    weight, start = torch.randn(1, 3, 6, 6), grey_noise(6)
    up = maximize(start, linear(weight), steps=9)
    down = minimize(start, lambda images: -linear(weight)(images), steps=9)
    assert torch.equal(up, down)


def test_losses_are_told_as_losses():
    told = []
    target = torch.full((1, 3, 4, 4), 0.7)
    distance = lambda images: (images - target).square().flatten(1).sum(dim=1)  # noqa: E731
    found = minimize(grey_noise(4), distance, steps=20, on_step=lambda step, images, losses: told.append(losses))
    assert len(told) == 21
    assert min(told) > 0
    torch.testing.assert_close(distance(found), torch.stack(told).amin(dim=0))


def test_no_steps_return_the_start():
    start = torch.rand(2, 3, 5, 5)
    assert torch.equal(maximize(start, linear(torch.randn(3, 5, 5)), steps=0), start)


def test_the_best_of_each_image_is_kept():
    weight = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    visits = []
    # Steps of one length that are too large: around its own top each image jumps to and fro.
    top = torch.tensor([0.4, 0.6]).view(2, 1, 1, 1)
    score = lambda images: -((images - top) * weight).square().flatten(1).sum(dim=1)  # noqa: E731
    keep = lambda step, images, scores: visits.append((images, scores))  # noqa: E731
    start = torch.rand(2, 3, 4, 4)
    found = maximize(start, score, steps=7, lr=0.13, step_rule="normalized", on_step=keep)
    scores = torch.stack([scores for _, scores in visits])
    best = scores.argmax(dim=0)
    assert ((best > 0) & (best < 7)).all()
    for n in range(2):
        assert torch.equal(found[n], visits[best[n]][0][n])


def test_under_a_transform_the_mean_of_the_last_looks_judges():
    luck = torch.tensor([0.0, 0.0, 3.0, 0.0, 2.0, 2.0, 2.0, 2.0, 0.0])
    visits, looks = [], iter(luck)

    def lucky(images, generator):
        return images + next(looks)

    start, lr = torch.tensor([0.0, 0.125]).repeat(1, 3, 2, 1), 1 / 64
    score = lambda images: images.flatten(1).mean(dim=1)  # noqa: E731
    keep = lambda step, images, scores: visits.append((images, scores.item()))  # noqa: E731
    found = maximize(start, score, steps=8, lr=lr, step_rule="normalized", transform=lucky, on_step=keep)
    seen = torch.tensor([scores for _, scores in visits])
    torch.testing.assert_close(seen, luck + start.mean() + lr * torch.arange(9))  # a look a step, and one at the end
    means = seen.cumsum(0) / torch.arange(1, 10)
    assert seen.argmax() == 2, "one lucky look ..."
    assert means.argmax() == 7
    assert torch.equal(found, visits[7][0]), "... does not win"


def test_under_a_transform_a_lucky_look_at_the_start_does_not_win_a_short_climb():
    looks = iter([5.0, 0.0, 0.0, 0.0])
    lucky = lambda images, generator: images + next(looks)  # noqa: E731
    score = lambda images: images.flatten(1).mean(dim=1)  # noqa: E731
    start = torch.tensor([0.0, 0.125]).repeat(1, 3, 2, 1)
    found = maximize(start, score, steps=3, lr=1 / 64, step_rule="normalized", transform=lucky)
    torch.testing.assert_close(found, start + 2 / 64)


def test_under_a_transform_a_dead_start_is_told_too():
    dead = lambda images: (images - 0.6).relu().flatten(1).sum(dim=1)  # noqa: E731
    with pytest.warns(UserWarning, match=r"Nothing moved.*grey_noise"):
        maximize(torch.full((1, 3, 4, 4), 0.5), dead, steps=3, transform=jitter(1))


def test_under_a_transform_old_looks_are_forgotten():
    looks = iter([3.0] * 5 + [2.0] * 5 + [0.0] * 20 + [2.9] * 21)
    seen = lambda images, generator: images + next(looks)  # noqa: E731
    score = lambda images: images.flatten(1).mean(dim=1)  # noqa: E731
    start = torch.tensor([0.0, 0.125]).repeat(1, 3, 2, 1)
    found = maximize(start, score, steps=50, lr=1 / 64, step_rule="normalized", transform=seen)
    assert found.min() > 40 / 64


@pytest.mark.parametrize("rule", LRS)
def test_images_of_a_batch_do_not_meet(rule):
    model = tiny_model(torch.float64)
    start = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    draw = {"transform": jitter(2), "after_step": blur_every(3, sigma=0.5)}

    def climb(start, channels):
        generator = torch.Generator().manual_seed(5)
        score = channel_score(model, "1", channels)
        return maximize(start, score, steps=8, lr=LRS[rule], step_rule=rule, generator=generator, **draw)

    singles = [climb(start[n : n + 1], [n]) for n in range(3)]
    torch.testing.assert_close(climb(start, [0, 1, 2]), torch.cat(singles))


def test_seeds_reach_nearly_equal_scores():
    score = class_score(tiny_model(), 2)
    reached = []
    for seed in range(5):
        start = grey_noise(12, generator=torch.Generator().manual_seed(seed))
        reached.append(score(maximize(start, score, steps=25, lr=0.02)).item())
    assert max(reached) - min(reached) <= 0.1 * max(reached)


def test_one_seed_is_one_picture_and_torchs_own_numbers_are_not_used():
    before = torch.get_rng_state()
    transform = compose(jitter(2), random_scale(), pad(2))
    weight = torch.ones(1)
    runs = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(1)
        start = grey_noise(8, generator=generator)
        score = lambda images: (images.diff(dim=3) * weight).square().flatten(1).sum(dim=1)  # noqa: E731
        runs.append(maximize(start, score, steps=5, transform=transform, generator=generator))
    assert torch.equal(*runs)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_result_is_the_callers_own():
    start = torch.rand(1, 3, 8, 8)
    before = start.clone()
    seen = []
    canvas = Fourier(8)
    found = maximize(
        start, class_score(tiny_model(), 1), steps=3, on_step=lambda step, images, scores: seen.append(images)
    )
    assert torch.equal(start, before)
    assert not found.requires_grad
    assert len({image.data_ptr() for image in seen}) == 4
    maximize(canvas, class_score(tiny_model(), 1), steps=3)
    assert canvas.parameters()[0].grad is None


def test_changes_after_a_step_see_the_step_and_the_gradient():
    weight, seen = torch.randn(1, 3, 4, 4), []

    def look(images, gradient, step):
        seen.append(step)
        torch.testing.assert_close(gradient, weight)
        return images.copy_(weight.sigmoid() * step / 3)

    found = maximize(torch.full((1, 3, 4, 4), 0.5), linear(weight), steps=3, after_step=look)
    assert seen == [1, 2, 3]
    torch.testing.assert_close(found, weight.sigmoid())
    calm = maximize(grey_noise(8), linear(torch.randn(3, 8, 8)), steps=4, after_step=clip_small_pixels(50))
    assert (calm == 0.5).float().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("where", [torch.no_grad, torch.inference_mode])
def test_the_loop_works_where_gradients_are_off(where):
    model = tiny_model()
    with where():
        start = grey_noise(8)
        found = maximize(start, class_score(model, 0), steps=3)
        assert class_score(model, 0)(found) > class_score(model, 0)(start)


def test_an_interrupt_returns_the_best_and_says_when():
    weight, start = torch.randn(1, 3, 6, 6), grey_noise(6)
    whole = []
    maximize(start, linear(weight), steps=20, lr=0.01, on_step=lambda step, images, scores: whole.append(images))

    def interrupt(step, images, scores):
        if step == 13:
            raise KeyboardInterrupt

    with pytest.warns(UserWarning, match=r"Interrupted after 13 of 20 steps.*from step 13"):
        found = maximize(start, linear(weight), steps=20, lr=0.01, on_step=interrupt)
    assert torch.equal(found, whole[13])


def test_an_interrupt_at_any_call_returns_the_best_and_leaves_nothing():
    model, start = tiny_model(), torch.rand(2, 3, 8, 8)
    score, before, image = class_score(model, 1), state_of(model), start.clone()
    climb = lambda: maximize(start, score, steps=2, transform=pad(1), after_step=blur_every(2, sigma=1))  # noqa: E731
    with Fault(KeyboardInterrupt(), at=float("inf")) as count:
        climb()
    first = score(start)
    returned = 0
    for at in range(1, count.calls + 1, 2):
        with warnings.catch_warnings(record=True), Fault(KeyboardInterrupt(), at=at) as fault:
            warnings.simplefilter("always")
            try:
                found = climb()
            except KeyboardInterrupt:  # before the first look at the score, or after the last
                found = None
        assert fault.calls >= at
        assert state_of(model) == before
        assert torch.equal(start, image)
        if found is not None:
            returned += 1
            assert (score(found) >= first).all()
    assert returned > 0.6 * (count.calls / 2)  # every second call was interrupted


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
# Python drops an interrupt that arrives inside a destructor.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_interrupts_at_random_times_leave_nothing():
    model, start = tiny_model(), torch.rand(1, 3, 8, 8)
    score, before, image = class_score(model, 1), state_of(model), start.clone()
    generator = torch.Generator().manual_seed(0)
    maximize(start, score, steps=2)  # torch.optim loads a lot when it is used first
    handler = signal.signal(signal.SIGALRM, signal.default_int_handler)
    returned = 0
    try:
        for _ in range(60):
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                try:
                    signal.setitimer(signal.ITIMER_REAL, 1e-4 + 0.01 * float(torch.rand((), generator=generator)))
                    found = maximize(start, score, steps=500)
                    returned += 1
                    assert (score(found) >= score(start)).all()
                except KeyboardInterrupt:  # before the loop, or after it
                    pass
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
            assert state_of(model) == before
            assert torch.equal(start, image)
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert returned >= 40


@pytest.mark.filterwarnings("ignore:More than half")
def test_an_exception_anywhere_leaves_nothing():
    model, start = tiny_model(), torch.rand(2, 3, 8, 8)
    score, before, image = class_score(model, 1), state_of(model), start.clone()
    climb = lambda rule: maximize(start, score, steps=2, lr=0.1, step_rule=rule)  # noqa: E731
    for rule in [*LRS, "lbfgs"]:
        with Fault(ZeroDivisionError(), at=float("inf")) as count:
            climb(rule)
        for at in range(1, count.calls + 1, 7):
            with Fault(ZeroDivisionError(), at=at), pytest.raises(ZeroDivisionError):
                climb(rule)
            assert state_of(model) == before
            assert torch.equal(start, image)


def test_out_of_memory_returns_the_best():
    weight = torch.randn(1, 3, 4, 4)

    def exhaust(step, images, scores):
        if step == 5:
            raise torch.OutOfMemoryError("no more")

    with pytest.warns(UserWarning, match=r"At step 5 of 9 the memory ran out.*smaller"):
        found = maximize(grey_noise(4), linear(weight), steps=9, on_step=exhaust)
    assert linear(weight)(found) > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_at_the_start_is_an_error(value):
    with pytest.raises(OptimizationError, match="step 0 of 10"):
        maximize(grey_noise(4), lambda images: images.flatten(1).sum(dim=1) * value, steps=10)


def test_a_gradient_that_is_not_finite_is_an_error():
    root = lambda images: (images - 0.5).sqrt().flatten(1).sum(dim=1)  # noqa: E731
    with pytest.raises(OptimizationError, match="not a finite number"):
        maximize(torch.full((1, 3, 4, 4), 0.5), root, steps=10)


def test_numbers_that_run_away_return_the_best_before():
    weight, calls = torch.rand(1, 3, 4, 4), []

    def score(images):
        calls.append(1)
        return linear(weight)(images) * (float("nan") if len(calls) > 6 else 1)

    with pytest.warns(UserWarning, match=r"At step 6 of 10 .*from step 5.*learning rate below 0.01"):
        found = maximize(grey_noise(4), score, steps=10, lr=0.01)
    assert linear(weight)(found) > 0


def test_a_climb_without_walls_that_explodes_is_told():
    steep = lambda images: images.pow(8).flatten(1).sum(dim=1)  # noqa: E731
    canvas = Pixels(torch.rand(1, 3, 4, 4), low=-float("inf"), high=float("inf"))
    with pytest.warns(UserWarning, match="not a finite number"):
        maximize(canvas, steep, steps=50, lr=1, step_rule="sgd")


def test_a_dead_start_is_told_with_its_cure():
    dead = lambda images: (images - 0.6).relu().flatten(1).sum(dim=1)  # noqa: E731
    start = torch.full((2, 3, 4, 4), 0.5)
    start[1] = torch.rand(3, 4, 4)
    with pytest.warns(UserWarning, match=r"Nothing moved in images 0, .*grey_noise"):
        found = maximize(start, dead, steps=3, lr=0.01)
    assert torch.equal(found[0], start[0])


def test_a_saturated_probability_is_told_with_its_cure():
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        network[1].weight.mul_(1e5)
    model = load_model(network)
    start = torch.rand(1, 3, 4, 4)
    label = model(start).argmax().item()
    with pytest.warns(UserWarning, match="climb class_score"):
        maximize(start, probability(model, label), steps=3)


def test_steps_that_only_lose_are_told():
    hill = lambda images: -(images - 0.5).square().flatten(1).sum(dim=1)  # noqa: E731
    start = torch.full((1, 3, 4, 4), 0.501)
    with pytest.warns(UserWarning, match="No step was better than the start.*smaller"):
        found = maximize(start, hill, steps=2, lr=0.4)
    assert torch.equal(found, start)


def test_steps_too_small_to_see_are_told():
    with pytest.warns(UserWarning, match="too small to be seen.*larger learning rate"):
        maximize(grey_noise(4), linear(torch.randn(3, 4, 4)), steps=2, lr=1e-5)


def test_burnt_colors_are_told():
    with pytest.warns(UserWarning, match="colors are burnt"):
        maximize(grey_noise(4), linear(torch.randn(3, 4, 4)), steps=5, lr=1e9)


def test_a_grey_result_is_told():
    with pytest.warns(UserWarning, match="flat grey"):
        maximize(grey_noise(8), lambda images: -l2(images), steps=150, lr=0.005)


def test_inside_the_ball_of_an_attack_saturation_is_no_news():
    start = torch.full((1, 3, 4, 4), 0.5)
    ball = Pixels(start, low=start - 0.5, high=start + 0.5)
    maximize(ball, linear(torch.randn(3, 4, 4)), steps=5, lr=1e9)


@pytest.mark.parametrize("rule", [*LRS, "lbfgs"])
@pytest.mark.parametrize("lr", [1e-9, 1e-3, 1.0, 1e9])
@pytest.mark.parametrize("weight", [0.0, -1.0, 1e12])
def test_any_learning_rate_and_weight_end_in_an_image_or_in_words(rule, lr, weight):
    score = lambda images: linear(torch.ones(3, 4, 4))(images) - weight * total_variation(images)  # noqa: E731
    start = grey_noise(4)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            found = maximize(start, score, steps=4, lr=lr, step_rule=rule)
        except OptimizationError as error:
            assert "learning rate" in str(error)
            return
    assert ((found >= 0) & (found <= 1)).all()
    assert told or not torch.equal(found, start)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": -1}, "steps"),
        ({"steps": 1.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"lr": 0}, "learning rate"),
        ({"lr": -1}, "learning rate"),
        ({"lr": float("nan")}, "learning rate"),
        ({"lr": "fast"}, "learning rate"),
        ({"step_rule": "adamw"}, "adam, sgd"),
        ({"step_rule": "lbfgs", "transform": jitter(1)}, "transform"),
    ],
)
def test_impossible_options_are_named(change, words):
    with pytest.raises(ArgumentError, match=words):
        maximize(grey_noise(4), linear(torch.ones(3, 4, 4)), **change)


@pytest.mark.parametrize(
    "score",
    [
        lambda images: images.sum(),
        lambda images: images.mean(dim=(2, 3)),
        lambda images: 3.0,
        lambda images: images.detach().flatten(1).sum(dim=1),
        lambda images: torch.zeros(len(images)),
        "koala",
    ],
)
def test_a_score_that_cannot_be_climbed_is_named(score):
    with pytest.raises(ScoreError):
        maximize(grey_noise(4), score, steps=3)


def test_only_pixels_can_be_changed_after_a_step():
    with pytest.raises(LectureError, match="Fourier"):
        maximize(Fourier(4), linear(torch.ones(3, 4, 4)), after_step=blur_every(2, sigma=1))


def test_the_loop_follows_a_device(device):
    start = grey_noise(8).to(device)
    weight = torch.randn(1, 3, 8, 8, device=device)
    found = maximize(start, linear(weight), steps=3, transform=jitter(1))
    assert found.device.type == device.type
    assert (linear(weight)(found) > linear(weight)(start)).all()
