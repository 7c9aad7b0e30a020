import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torchvision import models
from torchvision.models import vgg

from lecturelib import load_image, load_model
from lecturelib.errors import ArgumentError, ImageInputError, LayerNameError
from lecturelib.models import Model
from lecturelib.optimize import minimize
from lecturelib.regularizers import total_variation
from lecturelib.style import (
    RECIPES,
    Term,
    average_pooled,
    content_loss,
    content_terms,
    contributions,
    loss_of,
    shift_variation,
    step_cost,
    style_loss,
    style_terms,
    transfer_style,
    transfer_terms,
    variation_term,
    weighted,
)
from lecturelib.texture import gram, gram_loss
from lecturelib.torchvision_networks import paper_layers

LAYERS = ["relu1_1", "relu2_1"]


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini_vgg", device="cpu")


def picture(seed: int = 0, size: int = 32) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def smooth_model() -> Model:
    """A network in double precision without corners, for finite differences."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(4, 5, 3), nn.Tanh())
    return load_model(nn.Sequential(*network, nn.Flatten(), nn.Linear(20, 2)).double())


def narrow_vgg19() -> Model:
    """VGG-19 with an eighth of the channels and a small classifier."""
    widths = [8, 8, "M", 16, 16, "M", *[32] * 4, "M", *[64] * 4, "M", *[64] * 4, "M"]
    network = models.VGG(vgg.make_layers(widths), num_classes=2, init_weights=False)
    network.classifier = nn.Sequential(nn.Linear(64 * 49, 2))
    return Model(network, name="vgg19", classes=["a", "b"], layers=paper_layers("vgg19", network))


def test_recipes_name_layers_of_their_network_and_share_one_among_them(model):
    for network in (model, narrow_vgg19()):
        recipe = RECIPES[network.name]
        assert {*recipe.content, *recipe.style} <= {*network.layers}
        assert len(recipe.content) == 1 and sum(recipe.style.values()) == pytest.approx(1)


def test_losses_of_a_picture_with_itself_are_zero_and_others_are_positive(model):
    image, other = picture(0), picture(1)
    for loss in (content_loss(model, image, LAYERS), style_loss(model, image, LAYERS)):
        assert loss(image).shape == (1,)
        assert loss(image) == 0
        assert (loss(torch.cat([image, other]))[1] > 0.001).item()


def test_content_loss_is_the_mean_relative_distance_of_the_layers(model):
    image, other = picture(0), picture(1)
    wanted = sum(
        ((model.activation(other, layer) - target).square().sum() / target.square().sum())
        for layer, target in model.activations(image, LAYERS).items()
    )
    torch.testing.assert_close(content_loss(model, image, LAYERS)(other), wanted[None] / 2)


def test_style_loss_is_the_gram_loss_of_the_texture_lecture(model):
    image, others = picture(0, size=40), torch.cat([picture(1), picture(2)])
    torch.testing.assert_close(style_loss(model, image, LAYERS)(others), gram_loss(model, image, LAYERS)(others))


def test_style_forgets_where_things_are_and_content_does_not(model):
    image = picture(0)
    flipped = image.roll((8, 8), dims=(2, 3))
    layers = ["conv1_1"]
    assert style_loss(model, image, layers)(flipped) < 0.02 * content_loss(model, image, layers)(flipped)


def test_layers_may_have_weights_of_their_own(model):
    image, other = picture(0), picture(1)
    single = {layer: style_loss(model, image, [layer])(other) for layer in LAYERS}
    both = style_loss(model, image, {"relu1_1": 3.0, "relu2_1": 0.5})(other)
    torch.testing.assert_close(both, 3 * single["relu1_1"] + 0.5 * single["relu2_1"])


def test_losses_are_linear_in_their_weights(model):
    terms, other = content_terms(model, picture(0), LAYERS), picture(1)
    torch.testing.assert_close(loss_of(model, weighted(terms, 7))(other), 7 * loss_of(model, terms)(other))
    torch.testing.assert_close(
        loss_of(model, weighted(terms, [0.0, 2.0]))(other.expand(2, -1, -1, -1)),
        torch.tensor([0.0, 2.0]) * loss_of(model, terms)(other),
    )


def test_gradients_agree_with_finite_differences():
    small = smooth_model()
    image, other = picture(0, 8).double(), picture(1, 8).double()
    mask = torch.linspace(0, 1, 64).reshape(8, 8).double()
    terms = content_terms(small, image, ["3"]) + style_terms(small, image, ["0", "1"], mask=mask) + [variation_term()]
    loss = loss_of(small, terms)
    assert torch.autograd.gradcheck(loss, other.requires_grad_(), eps=1e-6, atol=1e-8, rtol=1e-5)


def test_one_black_and_one_white_pixel_vary_by_one_in_every_color():
    assert shift_variation(torch.tensor([[[[0.0, 1.0]]]])) == 1
    assert shift_variation(torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2)) == 3
    assert shift_variation(torch.tensor([[0.0], [1.0]]).expand(2, 3, 2, 1)).tolist() == [3, 3]


def test_shift_variation_is_the_definition_by_two_shifted_pictures():
    image = picture(0).double()
    right, below = image[..., :, :-1], image[..., :-1, :]
    shifted = ((image[..., :, 1:] - right) ** 2).sum() + ((image[..., 1:, :] - below) ** 2).sum()
    torch.testing.assert_close(shift_variation(image), shifted[None])
    by_hand = sum(
        (image[0, c, y, x] - image[0, c, y + down, x + across]) ** 2
        for c in range(3)
        for down, across in ((0, 1), (1, 0))
        for y in range(32 - down)
        for x in range(32 - across)
    )
    torch.testing.assert_close(shift_variation(image), by_hand[None])


def differences(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def added(*parts: torch.Tensor) -> torch.Tensor:
    return sum(part.flatten(1).sum(dim=1) for part in parts)


WRONG = {
    "absolute differences": lambda x: added(*(d.abs() for d in differences(x))),
    "the length of the differences": lambda x: added(*(d**2 for d in differences(x))).sqrt(),
    "to the right only": lambda x: added(differences(x)[0] ** 2),
    "down only": lambda x: added(differences(x)[1] ** 2),
    "without the last row and column": total_variation,
    "without squares": lambda x: added(*differences(x)),
    "squared after the sum": lambda x: added(*differences(x)) ** 2,
    "each neighbor from both sides": lambda x: 2 * added(*(d**2 for d in differences(x))),
    "half": lambda x: added(*(d**2 for d in differences(x))) / 2,
    "a mean": lambda x: sum((d**2).flatten(1).mean(dim=1) for d in differences(x)),
    "over the whole batch": lambda x: sum((d**2).sum() for d in differences(x)).expand(len(x)),
    "the mean over the batch": lambda x: added(*(d**2 for d in differences(x))).mean().expand(len(x)),
    "the first color only": lambda x: added(*(d[:, :1] ** 2 for d in differences(x))),
    "the border joined to the other side": lambda x: added(*((x - x.roll(1, dim)) ** 2 for dim in (2, 3))),
    "two pixels apart": lambda x: added((x[..., 2:] - x[..., :-2]) ** 2, (x[..., 2:, :] - x[..., :-2, :]) ** 2),
    "between colors": lambda x: added((x[:, 1:] - x[:, :-1]) ** 2, *(d**2 for d in differences(x))),
    "diagonal": lambda x: added((x[..., 1:, 1:] - x[..., :-1, :-1]) ** 2),
    "the distance to grey": lambda x: added((x - 0.5) ** 2),
}


def is_the_variation(candidate) -> bool:
    """What the tests above ask of `shift_variation`, of any function."""
    for shape in ((1, 3, 4, 5), (3, 3, 5, 4), (2, 1, 6, 6)):
        images = torch.rand(shape, dtype=torch.float64)
        expected = torch.zeros(len(images), dtype=torch.float64)
        for n, c, y, x in torch.cartesian_prod(*map(torch.arange, shape)).tolist():
            here = images[n, c, y, x]
            expected[n] += (images[n, c, y, x + 1] - here) ** 2 if x + 1 < shape[3] else 0
            expected[n] += (images[n, c, y + 1, x] - here) ** 2 if y + 1 < shape[2] else 0
        found = candidate(images)
        if found.shape != expected.shape or not torch.allclose(found, expected):
            return False
    return True


def test_wrong_variations_are_caught():
    assert is_the_variation(shift_variation)
    assert len(WRONG) >= 12
    assert [name for name, wrong in WRONG.items() if is_the_variation(wrong)] == []


def test_the_term_of_variation_counts_per_pixel():
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(1, 3, 32, 32)
    torch.testing.assert_close(variation_term().distance(stripes), torch.tensor([3 * 31 / 32]))


def test_masks_add_up_and_a_mask_of_ones_changes_nothing(model):
    features = model.activation(picture(0), "relu2_1")
    masks = torch.softmax(torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(0)), dim=0)
    parts = sum(gram(features, mask) for mask in masks)
    torch.testing.assert_close(parts, gram(features), atol=1e-5, rtol=1e-5)
    other, everywhere = picture(1), torch.ones(32, 32)
    plain = loss_of(model, style_terms(model, picture(0), LAYERS))
    masked = loss_of(model, style_terms(model, picture(0), LAYERS, mask=everywhere))
    torch.testing.assert_close(masked(other), plain(other))


def test_a_masked_style_does_not_look_outside_its_mask(model):
    mask = torch.zeros(32, 32)
    mask[:, :16] = 1
    loss = loss_of(model, style_terms(model, picture(0), ["conv1_1"], mask=mask))
    image, right_changed, left_changed = picture(1), picture(1), picture(1)
    right_changed[..., 17:] = 0  # the first filters see one pixel to each side
    left_changed[..., :15] = 0
    torch.testing.assert_close(loss(image), loss(right_changed), rtol=1e-5, atol=0)
    assert not torch.allclose(loss(image), loss(left_changed), rtol=1e-2)


def test_a_region_that_has_the_style_has_no_style_loss(model):
    tile = picture(0)
    mask = torch.zeros(32, 64)
    mask[:, :32] = 1
    beside = torch.cat([tile, torch.zeros_like(tile)], dim=3)
    inside, outside = (style_terms(model, tile, ["conv1_1"], mask=m) for m in (mask, 1 - mask))
    assert loss_of(model, inside)(beside) < 0.1 < 0.3 < loss_of(model, outside)(beside)


def test_an_empty_mask_asks_for_nothing(model):
    loss = loss_of(model, style_terms(model, picture(0), LAYERS, mask=torch.zeros(32, 32)))
    assert loss(picture(1)) == 0


def test_two_styles_are_the_sum_of_their_terms(model):
    first, second, other = picture(0), picture(1), picture(2)
    terms = weighted(style_terms(model, first, LAYERS), 0.3) + weighted(style_terms(model, second, LAYERS), 0.7)
    wanted = 0.3 * style_loss(model, first, LAYERS)(other) + 0.7 * style_loss(model, second, LAYERS)(other)
    torch.testing.assert_close(loss_of(model, terms)(other), wanted)
    torch.testing.assert_close(sum(contributions(model, other, terms).values()), wanted)


def test_contributions_add_up_to_the_loss_and_have_the_layers_names(model):
    terms = transfer_terms(model, content=picture(0), style=picture(1))
    others = torch.cat([picture(2), picture(3)])
    parts = contributions(model, others, terms)
    recipe = RECIPES["mini_vgg"]
    wanted = [f"content {layer}" for layer in recipe.content] + [f"style {layer}" for layer in recipe.style]
    assert list(parts) == [*wanted, "variation"]
    torch.testing.assert_close(sum(parts.values()), loss_of(model, terms)(others))


def test_all_terms_are_read_in_one_pass(model, monkeypatch):
    loss = loss_of(model, transfer_terms(model, content=picture(0), style=picture(1)))
    passes = []
    activations = Model.activations
    monkeypatch.setattr(Model, "activations", lambda self, *read: passes.append(read) or activations(self, *read))
    loss(picture(2))
    assert len(passes) == 1


def test_with_beta_zero_the_content_comes_back(model):
    content = load_image("astronaut", size=32)
    with pytest.warns(UserWarning, match="Nothing moved"):
        result = transfer_style(model, content=content, style=picture(1), beta=0, tv=0, steps=5)
    torch.testing.assert_close(result, content, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("rule", "steps", "share"), [("lbfgs", 12, 0.25), ("adam", 25, 0.5)])
def test_the_loss_falls_and_the_arguments_stay_as_they_were(model, rule, steps, share):
    content, style = load_image("astronaut", size=32), load_image("swirl", size=48)
    before, seen = (content.clone(), style.clone()), []
    result = transfer_style(
        model, content=content, style=style, steps=steps, step_rule=rule, on_step=lambda s, i, loss: seen.append(loss)
    )
    loss = loss_of(model, transfer_terms(model, content=content, style=style))
    assert result.shape == content.shape and result.min() >= 0 and result.max() <= 1
    assert loss(result) < share * loss(content)
    torch.testing.assert_close(loss(result), torch.stack(seen).min(dim=0).values, rtol=1e-4, atol=0)
    assert torch.equal(content, before[0]) and torch.equal(style, before[1])


def test_more_weight_on_the_style_brings_more_style_and_less_content(model):
    content, style = load_image("astronaut", size=32), load_image("mosaic", size=48)
    betas = [1.0, 6.0, 36.0, 216.0]
    results = transfer_style(model, content=content, style=style, beta=betas, tv=0, steps=50, step_rule="adam")
    recipe = RECIPES["mini_vgg"]
    styles = style_loss(model, style, recipe.style)(results).tolist()
    contents = content_loss(model, content, recipe.content)(results).tolist()
    assert len(results) == 4
    assert spearmanr(betas, styles).statistic <= -0.9
    assert spearmanr(betas, contents).statistic >= 0.9


def test_a_batch_of_weights_is_what_each_weight_gives_alone(model):
    content, style = load_image("cat", size=32), load_image("waves", size=32)
    both = transfer_style(model, content=content, style=style, beta=[5.0, 50.0], steps=3, step_rule="adam")
    for row, beta in enumerate((5.0, 50.0)):
        alone = transfer_style(model, content=content, style=style, beta=beta, steps=3, step_rule="adam")
        torch.testing.assert_close(both[row : row + 1], alone, atol=1e-3, rtol=0)


def test_it_begins_where_it_is_told(model):
    content, style, start = picture(0), picture(1), picture(2)
    torch.testing.assert_close(transfer_style(model, content=content, style=style, steps=0), content)
    torch.testing.assert_close(transfer_style(model, content=content, style=style, start=start, steps=0), start)


def test_an_interrupt_returns_the_best_so_far_and_leaves_nothing_behind(model):
    content, style = load_image("astronaut", size=32), load_image("swirl", size=32)

    def stop(step, images, losses):
        if step == 4:
            raise KeyboardInterrupt

    loss = loss_of(model, transfer_terms(model, content=content, style=style))
    with pytest.warns(UserWarning, match="Interrupted after 4 of 50 steps"):
        result = transfer_style(model, content=content, style=style, steps=50, on_step=stop)
    assert loss(result) < 0.7 * loss(content)
    assert not any(module._forward_hooks for module in model.network.modules())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.network.parameters())


def test_vgg19_has_the_papers_layers_and_equal_shares():
    model = narrow_vgg19()
    terms = transfer_terms(model, content=picture(0), style=picture(1), beta=5)
    assert [(term.layer, term.weight) for term in terms[:-1]] == [
        ("conv4_2", 1.0),
        *((f"conv{block}_1", 1.0) for block in range(1, 6)),
    ]


def test_average_pooling_takes_the_place_of_max_pooling_and_the_model_stays_as_it_was():
    model = narrow_vgg19()
    smoother = average_pooled(model)
    assert smoother.layers == model.layers
    assert smoother.module("conv5_1").weight.data_ptr() == model.module("conv5_1").weight.data_ptr()
    assert isinstance(smoother.module("pool1"), nn.AvgPool2d) and isinstance(model.module("pool1"), nn.MaxPool2d)
    features, pooled = (smoother.activation(picture(0), layer) for layer in ("relu1_2", "pool1"))
    torch.testing.assert_close(pooled, nn.functional.avg_pool2d(features, 2))
    torch.testing.assert_close(features, model.activation(picture(0), "relu1_2"))


def test_a_network_without_a_recipe_asks_for_layers():
    with pytest.raises(ArgumentError, match="Layers is a list"):
        transfer_style(smooth_model(), content=picture(0, 8), style=picture(1, 8))
    result = transfer_style(
        smooth_model(), content=picture(0, 8), style=picture(1, 8), content_layers=["3"], style_layers=["0"], steps=1
    )
    assert result.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"beta": -1}, "Weights are finite"),
        ({"beta": float("nan")}, "Weights are finite"),
        ({"tv": -0.1}, "Weights are finite"),
        ({"step_rule": "sgd"}, "one of two step rules"),
        ({"style_layers": "relu1_1"}, "Layers is a list"),
        ({"content_layers": []}, "Layers is a list"),
        ({"style_layers": ["relu9_9"]}, "no layer"),
        ({"content": torch.rand(3, 8, 8)}, "shape"),
        ({"style": picture() * 255}, "between 0 and 1"),
    ],
)
def test_wrong_arguments_get_help(model, wrong, error):
    with pytest.raises((ArgumentError, ImageInputError, LayerNameError), match=error):
        transfer_style(model, **({"content": picture(0), "style": picture(1), "steps": 1} | wrong))


@pytest.mark.parametrize("mask", [torch.full((4, 4), 2.0), torch.ones(1, 4, 4), "left", torch.full((4, 4), torch.nan)])
def test_wrong_masks_get_help(model, mask):
    with pytest.raises(ArgumentError, match="A mask has one weight"):
        style_terms(model, picture(0), LAYERS, mask=mask)


def test_a_loss_without_terms_gets_help(model):
    with pytest.raises(ArgumentError, match="at least one term"):
        loss_of(model, [])(picture(0))


def test_a_term_of_ones_own_joins_the_others(model):
    darkness = Term("darkness", None, lambda images: images.flatten(1).mean(dim=1), 0.5)
    loss = loss_of(model, [*content_terms(model, picture(0), LAYERS), darkness])
    torch.testing.assert_close(loss(picture(0)), 0.5 * picture(0).mean()[None])
    assert minimize(picture(0), loss, steps=3, progress=False).mean() < picture(0).mean()


def test_the_memory_of_a_step_grows_in_proportion_to_the_pixels(model):
    loss = style_loss(model, picture(0), LAYERS)
    small, middle, large = (step_cost(loss, picture(1, size), repeats=1) for size in (32, 64, 96))
    assert small.seconds > 0
    steps = large.megabytes - middle.megabytes, middle.megabytes - small.megabytes
    assert steps[0] / steps[1] == pytest.approx((96**2 - 64**2) / (64**2 - 32**2), rel=0.01)


def test_the_memory_of_a_step_is_what_the_way_back_needs():
    image = picture(0)
    cost = step_cost(lambda images: (images * 1.0).sin().flatten(1).sum(dim=1), image, repeats=1)
    assert cost.megabytes == pytest.approx(image.numel() * 4 / 1e6)
