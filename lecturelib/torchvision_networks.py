"""The networks of the lecture, from torchvision, with the layer names of their papers.

torchvision is imported inside the functions: its import takes as long as torch's, and the embedded networks do without.
"""

import hashlib
import pickle
import re
import warnings
from enum import Enum
from http.client import HTTPException
from pathlib import Path

import torch
from torch import nn

from lecturelib.errors import DownloadError, WeightsError

_EXTRA = {  # torchvision's ImageNet weights were made with these; without `init_weights` they start slowly
    "googlenet": {"aux_logits": True, "init_weights": False, "transform_input": True},
    "inception_v3": {"aux_logits": True, "init_weights": False, "transform_input": True},
}
NAMES = (
    "alexnet",
    "vgg16",
    "vgg19",
    "resnet18",
    "resnet101",
    "densenet121",
    "squeezenet1_1",
    "googlenet",
    "inception_v3",
)


def build(name: str, *, trained: bool) -> tuple[nn.Module, list[str]]:
    """The network and its 1,000 class names; ImageNet weights from torchvision's cache, or fetched into it once.

    With `trained=False` the weights are whatever was in the memory: the caller draws them.
    """
    from torchvision import models

    weights = models.get_model_weights(name).IMAGENET1K_V1
    with torch.device("meta"):  # no time is spent on random numbers that are replaced at once
        network = models.get_model(name, weights=None, **_EXTRA.get(name, {}))
    if trained:
        network.load_state_dict(_with_todays_names(_state(name, weights)), assign=True)
    else:
        network = network.to_empty(device="cpu")
    return network, weights.meta["categories"]


def is_cached(name: str) -> bool:
    """Whether the weights lie in torchvision's cache, so that they can be used offline."""
    from torchvision import models

    return _cache_file(models.get_model_weights(name).IMAGENET1K_V1).is_file()


def paper_layers(name: str, network: nn.Module) -> dict[str, str]:
    """Papers' layer names -> dotted names: `conv1`, `relu4_2`, `fc7`; empty where the paper names no layers."""
    if name == "alexnet":
        return {**_alexnet_features(network), **_dense_names(network)}
    if name.startswith("vgg"):
        return {**_vgg_features(network), **_dense_names(network)}
    if name.startswith("squeezenet"):
        return _squeezenet(network)
    return {}


def _state(name: str, weights: Enum) -> dict:
    """The weights of torchvision's own API, after what lies in the cache was checked against the hash in its name."""
    file = _cache_file(weights)
    if file.is_file() and not _hash_agrees(file):
        aside = _set_aside(file)
        warnings.warn(f"The cached weights of {name} were damaged; they were moved to {aside.name}.", stacklevel=4)
    try:
        return weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, HTTPException) as error:
        raise DownloadError(
            f"the ImageNet weights of {name} are not on this computer and could not be fetched",
            received=f"{type(error).__name__}: {getattr(error, 'reason', error)}",
            do=f'offline, load_model("mini_vgg") and load_model("mini_alexnet") work; for {name}, run '
            f'load_model("{name}") once with a network connection, or put {file.name} into the folder of torch.hub',
        ) from error
    except (RuntimeError, pickle.UnpicklingError) as error:  # the hash differs; more than numbers is in the file
        raise WeightsError(
            f"the weights of {name} arrived damaged", received=str(error), do="try again, or use another connection"
        ) from error


def _with_todays_names(state: dict) -> dict:
    """Weights whose names fit the network: the file of DenseNet is older than the rule against dots in names."""
    for name in list(state):
        state[re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)] = state.pop(name)
    return state


def _cache_file(weights: Enum) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]


def _hash_agrees(file: Path) -> bool:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return digest.startswith(re.search(r"-([0-9a-f]{8,})\.", file.name).group(1))


def _set_aside(file: Path) -> Path:
    number = 1
    while (aside := file.with_name(f"{file.name}.damaged-{number}")).exists():
        number += 1
    return file.rename(aside)


def _alexnet_features(network: nn.Module) -> dict[str, str]:
    names, number = {}, 0
    for place, module in network.features.named_children():
        number += isinstance(module, nn.Conv2d)
        kind = {nn.Conv2d: "conv", nn.ReLU: "relu", nn.MaxPool2d: "pool"}[type(module)]
        names[f"{kind}{number}"] = f"features.{place}"
    return names


def _vgg_features(network: nn.Module) -> dict[str, str]:
    names, block, number = {}, 1, 0
    for place, module in network.features.named_children():
        if isinstance(module, nn.MaxPool2d):
            names[f"pool{block}"] = f"features.{place}"
            block, number = block + 1, 0
            continue
        number += isinstance(module, nn.Conv2d)
        names[f"{'conv' if isinstance(module, nn.Conv2d) else 'relu'}{block}_{number}"] = f"features.{place}"
    return names


def _dense_names(network: nn.Module) -> dict[str, str]:
    """fc6, relu6, fc7, relu7, fc8 of AlexNet and VGG; dropout has no name of its own."""
    names, number = {}, 5
    for place, module in network.classifier.named_children():
        number += isinstance(module, nn.Linear)
        if isinstance(module, nn.Linear | nn.ReLU):
            names[f"{'fc' if isinstance(module, nn.Linear) else 'relu'}{number}"] = f"classifier.{place}"
    return names


def _squeezenet(network: nn.Module) -> dict[str, str]:
    names, fire, last = {"conv1": "features.0", "relu1": "features.1"}, 1, 1
    for place, module in list(network.features.named_children())[2:]:
        if isinstance(module, nn.MaxPool2d):
            names[f"pool{last}"] = f"features.{place}"
        else:
            fire = last = fire + 1
            names[f"fire{fire}"] = f"features.{place}"
    return {**names, "conv10": "classifier.1", "relu10": "classifier.2", "pool10": "classifier.3"}
