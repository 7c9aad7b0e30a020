"""The three ways back through a ReLU."""

import functools

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lecturelib.errors import ArgumentError, LayerNameError, LectureError
from lecturelib.models import Model, load_model
from lecturelib.relu_rules import RULES, relu_backward, relu_rule
from lecturelib.saliency import input_gradient
from lecturelib.scores import class_score, neuron_score

BEHIND = [[1.0, -1, 5], [2, -5, -7], [-3, 2, 4]]  # the figure of Springenberg et al.
ABOVE = [[-2.0, 3, -1], [6, -3, 1], [2, -1, 3]]
BELOW = {
    "backprop": [[-2.0, 0, -1], [6, 0, 0], [0, -1, 3]],
    "deconvnet": [[0.0, 3, 0], [6, 0, 1], [2, 0, 3]],
    "guided": [[0.0, 0, 0], [6, 0, 0], [0, 0, 3]],
}


def ignoring_the_result(values):
    F.relu_(values)
    return values


SPELLINGS = {
    "F.relu": F.relu,
    "F.relu, in place": lambda values: F.relu(values, inplace=True),
    "F.relu_, its result ignored": ignoring_the_result,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda values: values.relu(),
    "Tensor.relu_": lambda values: values.relu_(),
    "clamp(min=0)": lambda values: values.clamp(min=0),
    "clamp_(0)": lambda values: values.clamp_(0),
    "torch.clamp_min": lambda values: torch.clamp_min(values, 0),
    "modules": None,
    "modules, in place": None,
    "one module, used twice": None,
}


class Zoo(nn.Module):
    """Two convolutions and a dense layer; the ReLUs behind the convolutions are spelled in every way."""

    def __init__(self, spelling: str, *, traceable: bool = True):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv1, self.conv2, self.dense = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Linear(5 * 4 * 4, 3)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        self.relu1 = self.relu2 = SPELLINGS[spelling]
        if spelling.startswith("modules"):
            self.relu1, self.relu2 = nn.ReLU("in place" in spelling), nn.ReLU("in place" in spelling)
        elif spelling.startswith("one"):
            self.relu1 = self.relu2 = nn.ReLU()
        self.traceable = traceable

    def forward(self, images):
        if not self.traceable and images.sum() < -1e9:
            return None
        return self.dense(self.relu2(self.conv2(self.relu1(self.conv1(images)))).flatten(1))


class Classifier(nn.Module):
    """What captum differentiates: the normalization and the network of a model."""

    def __init__(self, model: Model):
        super().__init__()
        self.mean, self.std, self.network = model.mean, model.std, model.network

    def forward(self, images):
        return self.network((images - self.mean) / self.std)


@functools.cache
def zoo(spelling: str = "modules", **options) -> Model:
    return load_model(Zoo(spelling, **options))


@pytest.fixture
def images():
    return torch.rand(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES)
def test_the_rules_give_the_figure_of_the_paper(rule):
    assert relu_backward(rule, torch.tensor(BEHIND), torch.tensor(ABOVE)).tolist() == BELOW[rule]


@pytest.mark.parametrize("rule", RULES)
def test_a_relu_inside_of_the_block_gives_the_figure_too(rule):
    f = torch.tensor(BEHIND, requires_grad=True)
    with relu_rule(zoo(), rule):
        output = torch.relu(f)
        output.backward(torch.tensor(ABOVE))
    assert output.tolist() == [[1, 0, 5], [2, 0, 0], [0, 2, 4]]
    assert f.grad.tolist() == BELOW[rule]


def test_guided_keeps_what_both_other_rules_keep():
    f, above = torch.randn(2, 1000)
    below = relu_backward("deconvnet", f, relu_backward("backprop", f, above))
    torch.testing.assert_close(relu_backward("guided", f, above), below, rtol=0, atol=0)


def test_nothing_passes_where_input_or_gradient_are_exactly_zero():
    zero, one = torch.zeros(1), torch.ones(1)
    assert [relu_backward(rule, zero, one).item() for rule in RULES] == [0, 1, 0]
    assert [relu_backward(rule, one, zero).item() for rule in RULES] == [0, 0, 0]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("traceable", [True, False], ids=["traceable", "untraceable"])
def test_every_spelling_of_a_relu_gives_the_same_gradients(images, rule, spelling, traceable):
    gradients = []
    for model in (zoo(), zoo(spelling, traceable=traceable)):
        with relu_rule(model, rule):
            gradients.append(input_gradient(images, class_score(model, 1)))
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("traceable", [True, False], ids=["read from the trace", "read by hooks"])
def test_the_rules_reach_the_neurons_inside(images, traceable):
    model = zoo("F.relu", traceable=traceable)
    scores = [neuron_score(zoo(), "conv2", 2, 1, 3), neuron_score(model, "conv2", 2, 1, 3)]
    with relu_rule(model, "guided"):
        expected, found = (input_gradient(images, score) for score in scores)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.equal(found, input_gradient(images, scores[1]))


@pytest.mark.parametrize("rule", RULES)
def test_two_dense_layers_give_the_closed_form(rule):
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 4)).double()
    model = load_model(network, mean=(0, 0, 0), std=(1, 1, 1))
    image = torch.rand(1, 3, 2, 2, dtype=torch.float64)
    with relu_rule(model, rule), torch.no_grad():
        gradient = input_gradient(image, class_score(model, 3))
    first, last = network[1], network[3]
    with torch.no_grad():
        f, above = first(image.flatten()), last.weight[3]
        open_ = {"backprop": f > 0, "deconvnet": above > 0, "guided": (f > 0) * (above > 0)}[rule]
        expected = first.weight.T @ (open_ * above)
    torch.testing.assert_close(gradient.flatten(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("rule", "reference"), [("guided", captum.attr.GuidedBackprop), ("deconvnet", captum.attr.Deconvolution)]
)
@pytest.mark.filterwarnings("ignore:Setting (forward, )?backward hooks on ReLU")
def test_the_rules_agree_with_captum(images, rule, reference):
    model = zoo()
    with relu_rule(model, rule):
        gradient = input_gradient(images, class_score(model, 2))
    expected = reference(Classifier(model)).attribute(images.clone().requires_grad_(), target=2)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_the_rules_hold_where_images_go_through_the_network_one_by_one(images, monkeypatch, rule):
    with relu_rule(zoo(), rule):
        together = input_gradient(images, class_score(zoo(), [1, 2]))
        monkeypatch.setattr("lecturelib.scores.LARGEST_MAP", 1)
        alone = input_gradient(images, class_score(zoo(), [1, 2]))
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-12)


def test_all_rules_are_the_gradient_where_everything_is_positive(images):
    network = Zoo("modules")
    for parameter in network.parameters():
        parameter.data.abs_()
    model = load_model(network, mean=(0, 0, 0), std=(1, 1, 1))
    plain = input_gradient(images, class_score(model, 0))
    for rule in RULES:
        with relu_rule(model, rule):
            torch.testing.assert_close(input_gradient(images, class_score(model, 0)), plain)


def test_the_rule_does_not_change_what_the_network_computes(images):
    model = zoo("F.relu, in place")
    with relu_rule(model, "guided"):
        within = model(images)
    assert torch.equal(within, model(images))


@pytest.mark.parametrize("rule", RULES)
def test_later_gradients_are_the_plain_ones_again(images, rule):
    model = zoo()
    before = input_gradient(images, class_score(model, 0))
    with relu_rule(model, rule):
        input_gradient(images, class_score(model, 0))
    assert torch.equal(input_gradient(images, class_score(model, 0)), before)


def test_a_model_loaded_inside_of_a_block_works_afterwards(images):
    with relu_rule(zoo(), "guided"):
        model = zoo("F.relu")
    assert torch.equal(model.activation(images, "conv2"), zoo().activation(images, "conv2"))


def test_other_modes_of_pytorch_stay_where_they_were(images):
    with torch.device("meta"):
        with relu_rule(zoo(), "guided"):
            pass
        assert torch.empty(1).is_meta
    assert not torch.empty(1).is_meta


def test_a_nested_block_says_that_it_cannot_be():
    outer, inner = relu_rule(zoo(), "guided"), relu_rule(zoo(), "deconvnet")
    with pytest.raises(LectureError, match="nested"), outer:  # noqa: SIM117
        with inner:
            pass
    assert torch.overrides._get_current_function_mode_stack() == []


def test_a_block_sweeps_away_what_an_interrupted_one_left(images):
    model = zoo()
    plain = input_gradient(images, class_score(model, 0))
    relu_rule(model, "deconvnet").__enter__()
    with relu_rule(model, "backprop"):
        assert torch.equal(input_gradient(images, class_score(model, 0)), plain)
    assert torch.overrides._get_current_function_mode_stack() == []
    assert torch.equal(input_gradient(images, class_score(model, 0)), plain)


def test_a_wrong_rule_names_the_right_ones():
    with pytest.raises(ArgumentError, match="Near it: guided; there are backprop, deconvnet, guided"):
        relu_rule(zoo(), "gided")
    with pytest.raises(ArgumentError, match="deconvnet"):
        relu_backward("relu", torch.ones(1), torch.ones(1))
    with pytest.raises(ArgumentError, match="deconvnet"):
        relu_rule(zoo(), None)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.LeakyReLU(), nn.ReLU6(), nn.SiLU(), nn.PReLU()], ids=repr)
def test_another_activation_is_refused_with_the_name_of_its_module(images, activation):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(activation), nn.Flatten(), nn.Linear(144, 2))
    model = load_model(network.double())
    with pytest.raises(LayerNameError, match=rf"module 2\.0 \({type(activation).__name__}\)"):
        relu_rule(model, "guided")
    with relu_rule(model, "backprop"):
        within = input_gradient(images, class_score(model, 1))
    assert torch.equal(within, input_gradient(images, class_score(model, 1)))


@pytest.mark.parametrize("function", [F.gelu, F.leaky_relu, F.relu6, F.silu, F.elu, F.softplus])
def test_another_activation_is_refused_as_a_function_too(images, function):
    network = Zoo("F.relu")
    network.relu2 = function
    model = load_model(network)
    with pytest.raises(LayerNameError, match="function "), relu_rule(model, "deconvnet"):
        input_gradient(images, class_score(model, 1))
    assert torch.overrides._get_current_function_mode_stack() == []


def test_a_network_without_relus_is_refused():
    model = load_model(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)))
    with pytest.raises(LayerNameError, match="no ReLU"):
        relu_rule(model, "guided")


class OptimizedModule(nn.Sequential):
    """Stands for the class of torch.compile, whose import takes seconds."""


def test_a_compiled_module_is_refused_with_its_name():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), OptimizedModule(nn.ReLU()))
    with pytest.raises(LayerNameError, match="inside of 1 "):
        relu_rule(load_model(network), "guided")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*torch.jit:FutureWarning")
def test_a_scripted_module_is_refused_with_its_name():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.Sequential(nn.ReLU())))
    with pytest.raises(LayerNameError, match="inside of 1 "):
        relu_rule(load_model(network), "guided")
