import pytest
import torch
from torch import nn

from lecturelib.networks import EMBEDDED, MEAN, STD, fold_batch_norm, normalized

NAMES = {
    "mini_alexnet": "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 flatten "
    "fc6 relu6 fc7 relu7 fc8",
    "mini_vgg": "conv1_1 relu1_1 pool1 conv2_1 relu2_1 conv2_2 relu2_2 pool2 conv3_1 relu3_1 conv3_2 relu3_2 pool3 "
    "conv4_1 relu4_1 conv4_2 relu4_2 pool4 conv5_1 relu5_1 pool5 flatten fc6 relu6 fc8",
}


@pytest.mark.parametrize("name", EMBEDDED)
def test_the_layers_have_the_names_of_the_papers(name):
    network = EMBEDDED[name](7)
    assert [layer for layer, _ in network.named_children()] == NAMES[name].split()
    assert network(torch.rand(2, 3, 64, 48)).shape == (2, 7)


@pytest.mark.parametrize("name", EMBEDDED)
def test_a_folded_network_computes_the_same_and_is_plain(name):
    network = EMBEDDED[name](7, batch_norm=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # as after a training
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias)
            module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
    images = torch.rand(2, 3, 48, 48)
    network.eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    plain = fold_batch_norm(network)
    torch.testing.assert_close(plain(images), network(images), atol=1e-5, rtol=1e-5)
    assert [layer for layer, _ in plain.named_children()] == NAMES[name].split()
    assert plain.state_dict().keys() == EMBEDDED[name](7).state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_folding_by_hand():
    network = nn.Sequential()
    network.conv1, network.norm1 = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0)
    nn.init.constant_(network.conv1.weight, 3.0), nn.init.constant_(network.norm1.weight, 5.0)
    nn.init.constant_(network.norm1.bias, 7.0)
    network.norm1.running_mean.fill_(2.0), network.norm1.running_var.fill_(4.0)
    conv = fold_batch_norm(network).conv1  # 5 (3 x - 2) / 2 + 7
    assert conv.weight.item() == 7.5 and conv.bias.item() == 2.0


def test_normalized_takes_the_mean_of_photographs_to_zero():
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    assert normalized(mean.expand(2, 3, 4, 5)).eq(0).all()
    torch.testing.assert_close(normalized((mean + std).double()), torch.ones(1, 3, 1, 1, dtype=torch.float64))
