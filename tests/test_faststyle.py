import json

import onnxruntime
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from lecturelib import faststyle
from lecturelib.errors import ArgumentError, ImageInputError, WeightsError
from lecturelib.faststyle import (
    ConditionalInstanceNorm,
    StyleNetwork,
    load_style_net,
    save_style_net,
    speedup,
    with_style,
)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def network():
    """Three styles that differ, small."""
    torch.manual_seed(0)
    network = StyleNetwork(styles=3, width=8, blocks=1, names=["a", "b", "c"])
    for parameter in network.style_parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return network


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 40, generator=seeded())


class Reference(nn.Module):
    """The same architecture in PyTorch's own words: doubled pixels, reflected borders, nn.InstanceNorm2d."""

    def __init__(self, network: StyleNetwork, style: int):
        super().__init__()
        self.network, self.style = network, style

    def layer(self, x, layer, *, double=False):
        conv = layer.conv.conv
        if double:
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        x = F.conv2d(F.pad(x, [conv.kernel_size[0] // 2] * 4, mode="reflect"), conv.weight, conv.bias, conv.stride)
        norm = nn.InstanceNorm2d(x.shape[1], affine=True)
        norm.weight.data, norm.bias.data = layer.norm.weight.data[self.style], layer.norm.bias.data[self.style]
        return norm(x)

    def forward(self, images):
        x = 2 * images - 1
        for layer in self.network.down:
            x = self.layer(x, layer).relu()
        for block in self.network.blocks:
            x = x + self.layer(self.layer(x, block.first).relu(), block.second)
        for layer in self.network.up:
            x = self.layer(x, layer, double=True).relu()
        conv = self.network.paint.conv
        return F.conv2d(F.pad(x, [4] * 4, mode="reflect"), conv.weight, conv.bias).sigmoid()


def test_the_reference_size_has_the_parameters_of_the_published_network():
    network = StyleNetwork()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_679_235
    assert sum(parameter.numel() for parameter in network.style_parameters()) == 3_200
    assert 3_200 / 1_679_235 < 0.002


@pytest.mark.parametrize("style", [0, 2])
def test_painting_is_the_architecture_written_with_library_layers(network, images, style):
    with torch.no_grad():
        torch.testing.assert_close(network(images, style), Reference(network, style)(images), atol=1e-5, rtol=1e-5)


def test_gradients_agree_with_the_reference_in_float64(network, images):
    network, images = network.double(), images.double()
    found = torch.autograd.grad(network(images, 1).square().sum(), network.up[0].conv.conv.weight)[0]
    reference = Reference(network, 1)
    expected = torch.autograd.grad(reference(images).square().sum(), network.up[0].conv.conv.weight)[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("size", [(32, 40), (33, 47), (16, 16)])
def test_a_painting_has_the_size_of_its_photograph_and_lies_in_the_unit_range(network, size):
    painted = network(torch.rand(1, 3, *size, generator=seeded()))
    assert painted.shape == (1, 3, *size) and painted.min() >= 0 and painted.max() <= 1


def test_instance_norm_is_the_librarys(images):
    norm = ConditionalInstanceNorm(3, styles=2)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    library = F.instance_norm(images, weight=norm.weight[1], bias=norm.bias[1])
    torch.testing.assert_close(norm(images, torch.tensor([[0.0, 1.0]])), library)
    both = norm(images, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(both[1], library[1])


def test_instance_norm_does_not_see_contrast(images):
    norm, only = ConditionalInstanceNorm(3), torch.ones(1, 1)
    torch.testing.assert_close(norm(5 * images + 3, only), norm(images, only), atol=1e-3, rtol=0)


def test_the_norm_is_linear_in_the_weights_of_a_blend(images):
    norm = ConditionalInstanceNorm(3, styles=2)
    norm.weight.data.uniform_(0.5, 2)
    norm.bias.data.normal_()
    ends = [norm(images, torch.eye(2)[[style]]) for style in range(2)]
    middle = norm(images, torch.tensor([[0.3, 0.7]]))
    torch.testing.assert_close(middle, 0.3 * ends[0] + 0.7 * ends[1], atol=1e-6, rtol=1e-6)


def test_a_blend_of_one_style_is_the_style(network, images):
    for style, name in enumerate(network.names):
        alone = network(images, style)
        weights = torch.eye(3)[style]
        for same in (name, weights, weights.tolist(), weights.expand(2, 3)):
            torch.testing.assert_close(network(images, same), alone, atol=1e-6, rtol=1e-6)


def test_each_picture_of_a_batch_may_have_its_own_style(network, images):
    both = network(images, torch.eye(3)[[2, 0]])
    torch.testing.assert_close(both[:1], network(images[:1], "c"), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both[1:], network(images[1:], "a"), atol=1e-5, rtol=1e-5)


def test_every_convolution_keeps_a_flat_picture_flat(network):
    """Zeros at the border would draw a frame. Looked at in front of the norms, which would amplify rounding."""
    flat = []
    for module in network.modules():
        if isinstance(module, faststyle._Conv | faststyle._Upsampled):
            module.register_forward_hook(lambda _, inputs, output: flat.append((inputs[0], output)))
    for module in [
        module for module in network.modules() if isinstance(module, faststyle._Conv | faststyle._Upsampled)
    ]:
        inputs = module.conv.weight.shape[1]
        module(torch.full((1, inputs, 12, 12), 0.37))
    assert len(flat) == 8
    for _, output in flat:
        assert output.std(dim=(2, 3)).max() < 1e-5


def test_another_styles_rows_get_no_gradient(network, images):
    network(images, 1).sum().backward()
    for parameter in network.style_parameters():
        assert parameter.grad[1].abs().sum() > 0 and parameter.grad[[0, 2]].abs().sum() == 0


def test_a_new_style_leaves_the_others_as_they_were(network, images):
    larger = with_style(network, "d")
    assert larger.names == ["a", "b", "c", "d"] and network.names == ["a", "b", "c"]
    for style in "abc":
        torch.testing.assert_close(larger(images, style), network(images, style))
    mean = torch.full((3,), 1 / 3)
    torch.testing.assert_close(larger(images, "d"), network(images, mean), atol=1e-5, rtol=1e-5)
    with pytest.raises(ArgumentError, match="of this name"):
        with_style(network, "b")


def test_a_saved_network_paints_the_same(network, images, tmp_path):
    loaded = load_style_net(save_style_net(network, tmp_path / "mine.safetensors"), device="cpu")
    assert loaded.names == network.names and not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded(images, "b"), network(images, "b"), atol=0.01, rtol=0)


def test_the_shipped_network_paints_in_four_styles_that_differ():
    network = load_style_net("four_styles", device="cpu")
    image = torch.rand(1, 3, 64, 64, generator=seeded())
    painted = torch.cat([network(image, style) for style in range(len(network.names))])
    assert len(network.names) >= 4 and painted.isfinite().all()
    gaps = torch.cdist(painted.flatten(1), painted.flatten(1)) / painted[0].numel() ** 0.5
    assert gaps[~torch.eye(len(painted), dtype=bool)].min() > 0.05


@pytest.mark.parametrize(
    ("style", "words"),
    [
        ("nothing", "Choose one of a, b, c"),
        (3, "0 to 2"),
        (-1, "0 to 2"),
        ([0.5, 0.5], "3 weights"),
        (torch.ones(5, 3), "3 weights"),
        (None, "list of weights"),
        ([float("nan"), 0, 0], "finite"),
    ],
)
def test_a_wrong_style_is_told(network, images, style, words):
    with pytest.raises(ArgumentError, match=words):
        network(images, style)


def test_wrong_pictures_and_files_are_told(network, tmp_path):
    with pytest.raises(ImageInputError, match="too small"):
        network(torch.rand(1, 3, 12, 40))
    with pytest.raises(ImageInputError):
        network(torch.full((1, 3, 32, 32), 2.0))
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"weight": torch.ones(2)}, tmp_path / "other.safetensors")
    for file in ("text", "other", "missing"):
        with pytest.raises(WeightsError, match="not a style network"):
            load_style_net(tmp_path / f"{file}.safetensors")
    with pytest.raises(ArgumentError, match="one name"):
        StyleNetwork(styles=2, names=["a"])


def test_speedup_is_the_ratio_of_median_times():
    now = [0.0]

    def takes(*seconds):
        left = list(seconds)
        return lambda: now.__setitem__(0, now[0] + left.pop(0))

    # The first call of each warms up, and one of the five that count was held up by something else.
    slow, fast = takes(70, 12, 11, 90, 12, 13), takes(99, 2, 2, 50, 2, 2)
    assert speedup(slow, fast, clock=lambda: now[0]) == pytest.approx(6)
    order = []
    speedup(lambda: order.append("slow"), lambda: order.append("fast"), repeats=2, clock=lambda: len(order))
    assert order == ["slow", "fast"] * 3
    with pytest.raises(ArgumentError, match="repeats"):
        speedup(takes(), takes(), repeats=0)


def test_onnx_paints_the_same(network, images, tmp_path):
    path = faststyle.export_onnx(network, tmp_path / "net.onnx", size=(32, 40))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    blend = torch.tensor([[0.2, 0.3, 0.5]])
    (painted,) = session.run(None, {"images": images[:1].numpy(), "blend": blend.numpy()})
    torch.testing.assert_close(torch.from_numpy(painted), network(images[:1], blend[0]).detach(), atol=1e-4, rtol=0)
    assert json.loads(dict(session.get_modelmeta().custom_metadata_map)["styles"]) == ["a", "b", "c"]
