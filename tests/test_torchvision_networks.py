import hashlib
import pickle

import pytest
import torch
from torch import nn
from torchvision import models

from lecturelib import load_model
from lecturelib.errors import DownloadError, ModelNameError, WeightsError
from lecturelib.models import Model
from lecturelib.torchvision_networks import NAMES, _with_todays_names, build, is_cached, paper_layers

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
CODES = {
    "alexnet": ("relu7", 4096),
    "vgg16": ("relu7", 4096),
    "vgg19": ("relu7", 4096),
    "resnet18": ("flatten", 512),
    "resnet101": ("flatten", 2048),
    "densenet121": ("flatten", 1024),
    "googlenet": ("flatten", 1024),
    "inception_v3": ("flatten", 2048),
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of torch.hub; no proxy lies between the tests and their guard."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def put(content: bytes, cache, monkeypatch, *, digest: str | None = None):
    """A stand-in for the weights of SqueezeNet, under a name with the hash that torchvision expects."""
    weights = models.SqueezeNet1_1_Weights.IMAGENET1K_V1.value
    name = f"squeezenet1_1-{digest or hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setattr(weights, "url", weights.url.rsplit("/", 1)[0] + "/" + name)
    (cache / name).write_bytes(content)
    return cache / name


@pytest.fixture(scope="module")
def squeezenet(tmp_path_factory):
    torch.manual_seed(1)
    network = models.squeezenet1_1(weights=None).eval()
    path = tmp_path_factory.mktemp("weights") / "squeezenet"
    torch.save(network.state_dict(), path)
    return network, path.read_bytes()


def test_weights_in_the_cache_are_used_offline(squeezenet, cache, monkeypatch):
    network, content = squeezenet
    put(content, cache, monkeypatch)
    assert is_cached("squeezenet1_1")
    model = load_model("squeezenet1_1", device="cpu")
    images = torch.rand(1, 3, 64, 64)
    expected = network((images - model.mean) / model.std)
    torch.testing.assert_close(model(images), expected, atol=1e-4, rtol=1e-4)
    assert len(model.classes) == 1000 and model.class_index("koala") == 105
    assert not any(module.training for module in model.network.modules())


@pytest.mark.parametrize("damage", ["a flipped bit", "truncated", "empty", "a web page"])
def test_damaged_weights_are_set_aside_and_reported(squeezenet, cache, monkeypatch, refused, damage):
    content = squeezenet[1]
    path = put(content, cache, monkeypatch)
    flipped = content[:5000] + bytes([content[5000] ^ 1]) + content[5001:]
    damaged = {"a flipped bit": flipped, "truncated": content[:-9], "empty": b"", "a web page": b"<html>"}[damage]
    for number in (1, 2):
        path.write_bytes(damaged)
        with (
            pytest.warns(UserWarning, match=rf"moved to {path.name}\.damaged-{number}"),
            pytest.raises(DownloadError, match="mini_vgg"),
        ):
            load_model("squeezenet1_1", device="cpu")
        assert not path.exists() and (cache / f"{path.name}.damaged-{number}").read_bytes() == damaged
    assert refused()


def test_without_cache_and_network_the_error_says_what_works(cache, refused):
    assert not any(is_cached(name) for name in NAMES)
    for name in ("alexnet", "vgg16", "squeezenet1_1"):
        with pytest.raises(DownloadError) as caught:
            load_model(name)
        assert name in str(caught.value) and 'load_model("mini_vgg")' in str(caught.value)
        assert str(cache) not in str(caught.value)
    assert refused()
    assert not [path for path in cache.iterdir() if path.suffix == ".pth"]


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from a file of weights was executed')",)


def test_a_file_of_weights_cannot_execute_code(cache, monkeypatch, tmp_path):
    torch.save({"classifier.1.weight": Hostile()}, tmp_path / "hostile")
    for content in ((tmp_path / "hostile").read_bytes(), pickle.dumps(Hostile(), protocol=2)):
        put(content, cache, monkeypatch)
        with pytest.raises(WeightsError):
            load_model("squeezenet1_1")


def test_the_old_names_in_the_file_of_densenet_are_understood():
    with torch.device("meta"):
        network = models.densenet121(weights=None)
    old = {}
    for name, value in network.state_dict().items():
        for layer in ("norm1", "norm2", "conv1", "conv2"):
            name = name.replace(f".{layer}.", f".{layer[:-1]}.{layer[-1]}.")
        old[name] = value
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    assert list(_with_todays_names(old)) == list(network.state_dict())


@pytest.fixture(scope="module")
def meta():
    """All networks without numbers: their modules and layer names only."""

    def make(name):
        with torch.device("meta"):
            network = (
                models.get_model(name, weights=None, init_weights=False)
                if name in ("googlenet", "inception_v3")
                else models.get_model(name, weights=None)
            )
        return Model(network, name=name, classes=["a"] * 1000, layers=paper_layers(name, network))

    return make


@pytest.mark.parametrize("name", NAMES)
def test_every_network_of_the_lecture_can_be_traced_and_knows_its_code(name, meta):
    if name == "squeezenet1_1":
        pytest.skip("it has no dense layer")
    layer, length = CODES[name]
    model = meta(name)
    assert model.code_layer == layer
    last = [module for module in model.network.modules() if isinstance(module, nn.Linear)][-1]
    assert last.in_features == length


@pytest.mark.parametrize("name", BLOCKS)
def test_vgg_has_the_names_of_the_paper(name, meta):
    model = meta(name)
    expected = []
    for block, count in enumerate(BLOCKS[name], 1):
        expected += [f"{kind}{block}_{n}" for n in range(1, count + 1) for kind in ("conv", "relu")] + [f"pool{block}"]
    assert model.layers == [*expected, "fc6", "relu6", "fc7", "relu7", "fc8"]
    widths = dict(zip(range(1, 6), (64, 128, 256, 512, 512), strict=True))
    for layer in model.layers:
        module = model.module(layer)
        if layer.startswith("conv"):
            assert module.out_channels == widths[int(layer[4])]
        elif layer.startswith("pool"):
            assert isinstance(module, nn.MaxPool2d)
    assert [model.module(f"fc{n}").out_features for n in (6, 7, 8)] == [4096, 4096, 1000]


def test_alexnet_and_squeezenet_have_the_names_of_their_papers(meta):
    alexnet = meta("alexnet")
    names = "conv1 relu1 pool1 conv2 relu2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5 fc6 relu6 fc7 relu7 fc8"
    assert alexnet.layers == names.split()
    assert [alexnet.module(f"conv{n}").out_channels for n in range(1, 6)] == [64, 192, 384, 256, 256]
    squeezenet = meta("squeezenet1_1")
    names = "conv1 relu1 pool1 fire2 fire3 pool3 fire4 fire5 pool5 fire6 fire7 fire8 fire9 conv10 relu10 pool10"
    assert squeezenet.layers == names.split()
    squeezes = [squeezenet.module(f"fire{n}").squeeze.out_channels for n in range(2, 10)]
    assert squeezes == [16, 16, 32, 32, 48, 48, 64, 64]


def test_an_untrained_network_is_drawn_with_its_seed():
    first, again, other = (load_model("squeezenet1_1", trained=False, seed=seed, device="cpu") for seed in (3, 3, 4))
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(first(image), again(image)) and not torch.equal(first(image), other(image))
    assert first(image).shape == (1, 1000) and first(image).isfinite().all()
    convolutions = [module for module in first.network.modules() if isinstance(module, nn.Conv2d)]
    for module in convolutions[1:6]:
        assert module.weight.std().item() == pytest.approx((2 / module.weight[0].numel()) ** 0.5, rel=0.1)


def test_build_gives_the_class_names_of_imagenet():
    _, classes = build("squeezenet1_1", trained=False)
    assert len(classes) == 1000 and classes[817] == "sports car"


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("vgg_16", "vgg16"),
        ("alex net", "alexnet"),
        ("resnet", "resnet18"),
        ("minivgg", "mini_vgg"),
        ("Squeezenet", "squeezenet1_1"),
        ("densenet", "densenet121"),
        ("google_net", "googlenet"),
    ],
)
def test_a_wrong_name_of_a_network_gets_the_nearest_and_what_works_offline(typo, meant):
    with pytest.raises(ModelNameError) as caught:
        load_model(typo)
    assert meant in str(caught.value) and "mini_alexnet and mini_vgg work offline" in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 16, "", [], {}, models.vgg16, b"vgg16"])
def test_what_is_no_name_is_refused(wrong):
    with pytest.raises(ModelNameError):
        load_model(wrong)
