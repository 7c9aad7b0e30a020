import pytest
import torch
from torch import nn

from lecturelib import load_model
from lecturelib.oracles import RELUS, AdditiveNet, LinearNet, OrthoConv, RandomCNN, ReluZoo, SaturatedNet

KINDS = [LinearNet, AdditiveNet, OrthoConv, ReluZoo, SaturatedNet, RandomCNN]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(network: nn.Module, image: torch.Tensor, label: int) -> torch.Tensor:
    leaf = image.clone().requires_grad_()
    return torch.autograd.grad(network(leaf)[0, label], leaf)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_an_oracle_is_a_network_of_its_generator(kind):
    images = torch.rand(2, 3, 8, 8)
    network, again, other = kind(drawn(), side=8), kind(drawn(), side=8), kind(drawn(1), side=8)
    assert network(images).shape[0] == 2
    assert torch.equal(network(images), again(images))
    assert not torch.allclose(network(images), other(images))
    model = load_model(network, mean=(0, 0, 0), std=(1, 1, 1))
    torch.testing.assert_close(model(images), network(images).detach())


def test_gradient_of_a_linear_network_is_its_weight_whatever_the_image():
    network = LinearNet(drawn())
    for image in (torch.rand(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)):
        assert torch.equal(gradient(network, image, 3)[0], network.weight_of(3))


def test_pixels_of_an_additive_network_do_not_know_of_each_other():
    network, image = AdditiveNet(drawn()), torch.rand(1, 3, 6, 6)
    other = image.clone()
    other[..., :3] = torch.rand(1, 3, 6, 3)

    def effect(of: torch.Tensor) -> torch.Tensor:
        changed = of.clone()
        changed[..., 5, 5] = 0
        return network(of) - network(changed)

    torch.testing.assert_close(effect(image), effect(other))


def test_nothing_is_lost_in_the_layer_of_an_orthogonal_convolution():
    network, images = OrthoConv(drawn()), torch.rand(2, 3, 8, 8)
    code = network.conv(images)
    torch.testing.assert_close(code.square().sum(), images.square().sum())
    back = nn.functional.conv_transpose2d(code, network.conv.weight, stride=2)
    torch.testing.assert_close(back, images)


def test_all_ways_to_write_a_relu_give_one_network():
    images = torch.rand(2, 3, 8, 8)
    logits = [ReluZoo(drawn(), relu=relu)(images) for relu in RELUS]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0])


def test_probabilities_of_a_saturated_network_have_no_slope():
    network, ratios = SaturatedNet(drawn()), []
    for image in torch.rand(9, 1, 3, 8, 8):
        winner = int(network(image).argmax())
        leaf = image.clone().requires_grad_()
        (slope,) = torch.autograd.grad(network(leaf).softmax(dim=1)[0, winner], leaf)
        ratios.append(slope.abs().max() / gradient(network, image, winner).abs().max())
    assert torch.stack(ratios).median() < 0.01


@pytest.mark.parametrize("options", [{}, {"wide": True}, {"strided": True}])
def test_random_networks_come_in_three_architectures(options):
    network = RandomCNN(drawn(), side=8, classes=5, **options)
    assert network(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert [name for name, _ in network.named_children()][:2] == ["conv1", "relu1"]
