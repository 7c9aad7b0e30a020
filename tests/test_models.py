import copy
import random
import re
import string
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from lecturelib import load_model
from lecturelib.errors import ArgumentError, ClassNameError, ImageInputError, LayerNameError, LectureError, nearest
from lecturelib.models import Model
from lecturelib.networks import EMBEDDED, MEAN, STD
from lecturelib.torchvision_networks import paper_layers

CATEGORIES = models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"]


def tiny(colors: int = 3) -> nn.Sequential:
    layers = OrderedDict(conv=nn.Conv2d(colors, 4, 3), norm=nn.BatchNorm2d(4), relu=nn.ReLU(inplace=True))
    layers |= OrderedDict(drop=nn.Dropout(), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(4, 5))
    return nn.Sequential(layers)


def pictures(count: int = 2, size: int = 9) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


def everything(network: nn.Module) -> dict:
    """All that could be changed in a network by using it."""
    found = {}
    for name, module in network.named_modules():
        hooks = [dict(getattr(module, kind)) for kind in vars(module) if kind.endswith("_hooks")]
        found[name] = type(module), module.training, getattr(module, "inplace", None), hooks, set(vars(module))
    for name, value in [*network.named_parameters(), *network.named_buffers()]:
        gradient = None if value.grad is None else value.grad.tolist()
        found[name + " value"] = value.tolist(), value.requires_grad, gradient, value.data_ptr(), value._version
    return found


@pytest.fixture(scope="module", params=EMBEDDED)
def embedded(request):
    return load_model(request.param, device="cpu")


def test_the_embedded_networks_are_loaded_frozen(embedded):
    images = pictures(2, 64)
    assert embedded(images).shape == (2, len(embedded.classes)) and embedded(images).isfinite().all()
    torch.testing.assert_close(embedded.probabilities(images).sum(dim=1), torch.ones(2))
    assert not any(parameter.requires_grad for parameter in embedded.network.parameters())
    assert not any(module.training or getattr(module, "inplace", False) for module in embedded.network.modules())
    assert embedded.layers == [name for name, _ in embedded.network.named_children()]
    assert embedded.code_layer == {"mini_alexnet": "relu7", "mini_vgg": "relu6"}[embedded.name]
    assert len(set(embedded.classes)) == len(embedded.classes)
    assert repr(embedded).startswith(f"Model('{embedded.name}', {len(embedded.classes)} classes")


def test_the_model_normalizes_and_nothing_else_does(embedded):
    images = pictures(2, 64)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(embedded(images), embedded.network((images - mean) / std), atol=1e-4, rtol=1e-4)
    first = embedded.layers[0]
    expected = embedded.network[0]((images - mean) / std)
    torch.testing.assert_close(embedded.activation(images, first), expected, atol=1e-4, rtol=1e-4)


def test_own_means_and_deviations_are_used():
    network = nn.Sequential(nn.Flatten())
    model = load_model(network, classes=list("abc"), mean=(1, 2, 3), std=(1, 2, 4))
    assert model(torch.tensor([5.0, 8.0, 11.0]).view(1, 3, 1, 1)).tolist() == [[4.0, 3.0, 2.0]]


def test_gradients_flow_to_the_images_and_not_to_the_weights(embedded):
    images = pictures(2, 48).requires_grad_()
    embedded(images)[:, 0].sum().backward()
    assert images.grad.abs().amax(dim=(1, 2, 3)).gt(0).all()
    assert all(parameter.grad is None for parameter in embedded.network.parameters())


def test_the_images_are_never_changed():
    model, images = load_model(tiny()), pictures()
    before = images.clone()
    model(images), model.activations(images, model.layers), model.top(images)
    assert torch.equal(images, before)


def test_images_of_any_precision_and_layout_are_taken():
    model, images = load_model(tiny().eval()), pictures()
    expected = model(images)
    torch.testing.assert_close(model(images.double()), expected)
    torch.testing.assert_close(model(images.contiguous(memory_format=torch.channels_last)), expected)
    torch.testing.assert_close(model(images.flip(3).flip(3)), expected)
    assert load_model(tiny().double())(images).dtype == torch.float64
    assert model(images[:0]).shape == (0, 5)


def test_the_users_network_is_never_changed_and_shares_its_weights():
    network = tiny().train()
    network.norm.eval()
    network.fc.weight.requires_grad_(False)
    network(pictures()).sum().backward()
    network.conv.register_forward_hook(print_nothing)
    network.register_full_backward_hook(print_nothing)
    before = everything(network)
    model = load_model(network)
    images = pictures().requires_grad_()
    for _ in range(3):
        model(images).sum().backward()
        model.activations(images, model.layers)["relu"].sum().backward()
        model.top(images)
    assert everything(network) == before
    for name, parameter in model.network.named_parameters():
        assert parameter.data_ptr() == network.get_parameter(name).data_ptr() and parameter.grad is None
    with torch.no_grad():
        network.fc.bias += 10
    network.train()
    assert model(images).min() > 5 and not model.network.training


def print_nothing(*_):
    return None


def test_two_hundred_models_and_readings_leave_no_residue():
    network = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), relu=nn.ReLU(inplace=True)))
    network.train()
    before = everything(network)
    images = pictures()
    first = load_model(network).activation(images, "relu")
    for _ in range(200):
        assert torch.equal(load_model(network).activation(images, "relu"), first)
    assert everything(network) == before
    model = load_model(network)
    inside = everything(model.network)
    for number in range(200):
        model.activation(images, model.layers[number % len(model.layers)])
    assert everything(model.network) == inside


def test_a_network_that_keeps_its_activation_can_be_loaded():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images):
            self.last = self.conv(images)
            return self.last.mean(dim=(2, 3))

    network = Keeping()
    network(pictures())
    last = network.last
    for trained in (True, False):
        model = load_model(network, trained=trained)
        assert model(pictures()).shape == (2, 4) and model.activation(pictures(), "conv").shape == (2, 4, 7, 7)
    assert network.last is last and last.requires_grad


def test_weights_behind_a_parametrization_are_used():
    network = tiny().eval()
    nn.utils.parametrizations.weight_norm(network.fc)
    model = load_model(network, mean=(0, 0, 0), std=(1, 1, 1))
    torch.testing.assert_close(model(pictures()), network(pictures()))


def test_an_untrained_copy_draws_everything_anew_and_leaves_the_users_weights():
    network = nn.Sequential(nn.Conv2d(3, 50, 3), nn.BatchNorm2d(50), nn.GroupNorm(2, 50), nn.ConvTranspose2d(50, 9, 2))
    network.extend([nn.Flatten(), nn.LazyLinear(200)])
    network(pictures())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(7.0)
    before = everything(network)
    first, again, other = (load_model(network, trained=False, seed=seed) for seed in (1, 1, 2))
    assert everything(network) == before
    for name, parameter in first.network.named_parameters():
        assert torch.equal(parameter, again.network.get_parameter(name)) and not parameter.eq(7).any()
        if parameter.ndim > 1:
            assert not torch.equal(parameter, other.network.get_parameter(name))
            expected = (2 / parameter[0].numel()) ** 0.5
            assert parameter.std().item() == pytest.approx(expected, rel=0.1)
        else:
            assert parameter.unique().tolist() == [0.0 if "bias" in name else 1.0]
    assert first.network[1].running_mean.eq(0).all() and first.network[1].running_var.eq(1).all()


def test_an_untrained_embedded_network_has_the_same_layers_and_classes(embedded):
    random_one = load_model(embedded.name, trained=False, device="cpu")
    assert random_one.layers == embedded.layers and random_one.classes == embedded.classes
    weights = random_one.network[0].weight
    assert weights.std().item() == pytest.approx((2 / weights[0].numel()) ** 0.5, rel=0.1)


def test_modules_and_layers_can_be_asked_for():
    network = tiny()
    model = load_model(network)
    assert model.layers == ["conv", "norm", "relu", "drop", "pool", "flatten", "fc"]
    assert model.module("fc").weight.data_ptr() == network.fc.weight.data_ptr()
    with pytest.raises(LayerNameError, match="conv"):
        model.module("cnov")


def test_the_likeliest_classes_come_first():
    model = load_model(nn.Sequential(nn.Flatten()), classes=["red", "green", "blue"], mean=(0,) * 3, std=(1,) * 3)
    images = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]]).view(2, 3, 1, 1)
    first, second = model.top(images, k=2)
    assert [name for name, _ in first] == ["green", "blue"] and second[0][0] == "blue"
    exponentials = [torch.e**value for value in (1, 3, 2)]
    assert first[0][1] == pytest.approx(exponentials[1] / sum(exponentials))
    assert len(model.top(images, k=9)[0]) == 3 and not images.requires_grad


class ImageNet(nn.Module):
    def forward(self, images):
        return images.new_zeros(len(images), 1000)


@pytest.fixture(scope="module")
def imagenet():
    return load_model(ImageNet(), classes=CATEGORIES)


def test_classes_are_found_by_name_in_any_case_and_by_number(imagenet):
    assert imagenet.class_index("koala") == imagenet.class_index(" KOALA ") == 105
    for number in (0, 999, np.int64(7), torch.tensor(7)):
        assert imagenet.class_index(number) == int(number)


def test_a_name_that_several_classes_have_is_refused_with_their_numbers(imagenet):
    with pytest.raises(ClassNameError, match=r"names 2 classes[\s\S]*\[264, 474\]"):
        imagenet.class_index("cardigan")  # a dog and a jacket
    old = list(CATEGORIES)  # the list of 2012 has these twice
    old[134] = old[517] = "crane"
    old[638] = old[639] = "maillot"
    model = load_model(ImageNet(), classes=old)
    for name, numbers in {"crane": [134, 517], "Maillot": [638, 639]}.items():
        with pytest.raises(ClassNameError, match=re.escape(str(numbers))):
            model.class_index(name)
        assert [model.class_index(number) for number in numbers] == numbers


@pytest.mark.parametrize(
    "wrong", [-1, 1000, 9999, True, False, 1.5, float("nan"), None, [1], torch.rand(2), "", "hund"]
)
def test_what_is_no_class_is_refused(imagenet, wrong):
    with pytest.raises(ClassNameError):
        imagenet.class_index(wrong)


def typo(name: str, draw: random.Random) -> str:
    """One slip of the finger among the letters; the digits are what the name says."""
    place = draw.choice([n for n, sign in enumerate(name) if sign.isalpha()])
    letter = draw.choice(string.ascii_lowercase)
    middle = {"missing": "", "other": letter, "doubled": 2 * name[place], "more": name[place] + letter}
    return name[:place] + middle[draw.choice(list(middle))] + name[place + 1 :]


def test_after_a_typo_the_right_layer_is_among_the_three_nearest():
    with torch.device("meta"):
        network = models.vgg16(weights=None)
    model = Model(network, name="vgg16", classes=CATEGORIES, layers=paper_layers("vgg16", network))
    draw, found = random.Random(0), 0
    for _ in range(200):
        name = draw.choice(model.layers)
        wrong = typo(name, draw)
        if wrong in model.layers:
            continue
        with pytest.raises(LayerNameError) as caught:
            model.module(wrong)
        near = str(caught.value).partition("Near it: ")[2].partition(";")[0].split(", ")
        assert len(near) == 3
        assert name in near, f"{wrong} -> {near}, meant {name}"
        found += 1
    assert found > 150
    for wrong, meant in {
        "features_3": "features",
        "conv42": "conv4_2",
        "conv4-2": "conv4_2",
    }.items():
        with pytest.raises(LayerNameError, match=meant):
            model.module(wrong)


def test_after_a_typo_the_right_class_is_among_the_three_nearest(imagenet):
    draw = random.Random(0)
    for _ in range(15):
        name = draw.choice(CATEGORIES)
        wrong = typo(name, draw)
        if wrong.lower() not in {known.lower() for known in CATEGORIES}:
            assert name.lower() in [near.lower() for near in nearest(wrong, CATEGORIES)], wrong
    with pytest.raises(ClassNameError, match="Near it: tabby"):
        imagenet.class_index("tabby ca")


def test_a_part_of_a_name_helps(imagenet):
    with pytest.raises(ClassNameError, match="African elephant|Indian elephant"):
        imagenet.class_index("elephant")


@pytest.mark.parametrize(
    "images",
    [
        None,
        "cat.jpg",
        np.zeros((1, 3, 8, 8)),
        torch.rand(3, 8, 8),
        torch.rand(1, 1, 8, 8),
        torch.rand(1, 8, 8, 3),
        torch.zeros(1, 3, 8, 8, dtype=torch.uint8),
        torch.rand(1, 4, 8, 8),
        [torch.rand(1, 3, 8, 8)],
    ],
)
def test_only_color_images_in_a_batch_are_taken(images):
    model = load_model(tiny())
    for call in (model, model.probabilities, model.top, lambda images: model.activation(images, "relu")):
        with pytest.raises(ImageInputError, match="N, 3, H, W"):
            call(images)


def test_pictures_of_every_small_size_work_or_are_refused(embedded):
    refused = []
    for height in range(24):
        try:
            assert embedded(torch.rand(1, 3, height, 17)).isfinite().all()
        except ImageInputError as error:
            assert "too small" in str(error) and f"{height} x 17 pixels" in str(error)
            refused.append(height)
    assert refused == list(range(len(refused))) and 0 in refused and 16 not in refused


def test_networks_that_are_no_classifiers_of_color_images_are_refused_with_help():
    outputs = {
        "a tuple": lambda values: (values.mean(dim=(2, 3)), values),
        "maps": lambda values: values,
        "one number": lambda values: values.mean(),
        "a dictionary": lambda values: {"logits": values},
    }

    class Strange(nn.Module):
        def __init__(self, output):
            super().__init__()
            self.conv, self.output = nn.Conv2d(3, 4, 3), output

        def forward(self, images):
            return self.output(self.conv(images))

    for output in outputs.values():
        model = load_model(Strange(output))
        with pytest.raises(LectureError, match="one row of class scores per image"):
            model(pictures())
        assert model.activation(pictures(), "conv").shape == (2, 4, 7, 7)
    with pytest.raises(ArgumentError, match=r"classes=\[\.\.\.\]"):
        load_model(nn.Sequential(nn.Flatten()))


def test_a_grey_network_is_refused_with_a_way_out_that_works():
    network = tiny(colors=1)
    with pytest.raises(ImageInputError, match=re.escape("nn.Sequential(v2.Grayscale(), network)")):
        load_model(network)(pictures())
    wrapped = load_model(nn.Sequential(v2.Grayscale(), network))
    assert wrapped(pictures()).shape == (2, 5) and wrapped.activation(pictures(), "1.relu").shape == (2, 4, 7, 7)


def test_a_network_for_one_size_of_picture_says_so():
    model = load_model(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 6 * 6, 5)))
    assert model(pictures(2, 8)).shape == (2, 5)
    with pytest.raises(ImageInputError, match=r"pictures of this size[\s\S]*9 x 9 pixels"):
        model(pictures(2, 9))


def test_other_errors_of_a_network_are_not_disguised():
    class Broken(nn.Module):
        def forward(self, images):
            raise RuntimeError("the student's own mistake")

    with pytest.raises(RuntimeError, match="the student's own mistake"):
        load_model(Broken(), classes=["a"])(pictures())


@pytest.mark.parametrize("wrap", [nn.DataParallel, nn.Sequential, copy.deepcopy])
def test_wrapped_networks_work(wrap):
    network = tiny().eval()
    expected = load_model(network)(pictures())
    model = load_model(wrap(network), classes=list("abcde"))
    torch.testing.assert_close(model(pictures()), expected)
    layer = next(layer for layer in model.layers if layer.endswith("relu"))
    assert model.activation(pictures(), layer).shape == (2, 4, 7, 7)


@pytest.mark.parametrize("grad", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_gradient_mode_is_respected(grad):
    model, images = load_model(tiny()), pictures().requires_grad_()
    with grad():
        assert model(images).requires_grad == (grad is torch.enable_grad)
        assert model.activation(images, "relu").requires_grad == (grad is torch.enable_grad)
    assert model(images).requires_grad


def test_the_model_lives_on_its_device(device):
    model = load_model(tiny(), device=device)
    assert model.device.type == device.type and model(pictures()).device.type == device.type
    reference = load_model("mini_vgg", device="cpu")(pictures(1, 48))
    torch.testing.assert_close(
        load_model("mini_vgg", device=device)(pictures(1, 48)).cpu(), reference, atol=1e-4, rtol=0
    )
