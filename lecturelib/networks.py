"""The architectures of the two networks that the course ships.

Both are flat sequences whose children carry the names of the papers (`conv1`, `relu4_2`, `fc6`), so that a
layer's name is also its path. `batch_norm=True` is the form that is trained; `fold_batch_norm` turns it into the
plain form that is shipped: convolution, ReLU, pooling, nothing else.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

MEAN = (0.485, 0.456, 0.406)  # of photographs, per color, in [0, 1]: ImageNet's, as torchvision's networks use
STD = (0.229, 0.224, 0.225)


def normalized(images: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as the embedded networks want them: mean 0, standard deviation 1 per color."""
    mean, std = (torch.tensor(value, device=images.device, dtype=images.dtype).view(3, 1, 1) for value in (MEAN, STD))
    return (images - mean) / std


def mini_alexnet(classes: int, *, batch_norm: bool = False) -> nn.Sequential:
    """A small AlexNet (after Krizhevsky et al., 2012): five convolutions, max pooling, three dense layers."""
    layers = OrderedDict()
    _conv(layers, "1", 3, 64, kernel=11, stride=2, batch_norm=batch_norm)
    layers["pool1"] = nn.MaxPool2d(3, stride=2, padding=1)
    _conv(layers, "2", 64, 128, kernel=5, batch_norm=batch_norm)
    layers["pool2"] = nn.MaxPool2d(3, stride=2, padding=1)
    _conv(layers, "3", 128, 192, batch_norm=batch_norm)
    _conv(layers, "4", 192, 256, batch_norm=batch_norm)
    _conv(layers, "5", 256, 128, batch_norm=batch_norm)
    layers["pool5"] = nn.AdaptiveMaxPool2d(3)
    layers["flatten"] = nn.Flatten()
    _dense(layers, "6", 128 * 3 * 3, 512, batch_norm=batch_norm)
    _dense(layers, "7", 512, 512, batch_norm=batch_norm)
    layers["fc8"] = nn.Linear(512, classes)
    return nn.Sequential(layers)


def mini_vgg(classes: int, *, batch_norm: bool = False) -> nn.Sequential:
    """A small VGG (after Simonyan and Zisserman, 2014): 3x3 convolutions and average pooling.

    Average pooling passes a gradient to every pixel, which makes smoother pictures by optimization (Gatys et al.,
    2015).
    """
    layers = OrderedDict()
    _conv(layers, "1_1", 3, 32, batch_norm=batch_norm)
    layers["pool1"] = nn.AvgPool2d(2)
    _conv(layers, "2_1", 32, 64, batch_norm=batch_norm)
    _conv(layers, "2_2", 64, 64, batch_norm=batch_norm)
    layers["pool2"] = nn.AvgPool2d(2)
    _conv(layers, "3_1", 64, 128, batch_norm=batch_norm)
    _conv(layers, "3_2", 128, 128, batch_norm=batch_norm)
    layers["pool3"] = nn.AvgPool2d(2)
    _conv(layers, "4_1", 128, 192, batch_norm=batch_norm)
    _conv(layers, "4_2", 192, 192, batch_norm=batch_norm)
    layers["pool4"] = nn.AvgPool2d(2)
    _conv(layers, "5_1", 192, 256, batch_norm=batch_norm)
    layers["pool5"] = nn.AdaptiveAvgPool2d(2)
    layers["flatten"] = nn.Flatten()
    _dense(layers, "6", 256 * 2 * 2, 512, batch_norm=batch_norm)
    layers["fc8"] = nn.Linear(512, classes)
    return nn.Sequential(layers)


EMBEDDED = {"mini_alexnet": mini_alexnet, "mini_vgg": mini_vgg}


def fold_batch_norm(network: nn.Sequential) -> nn.Sequential:
    """The same function in evaluation mode, with every batch norm folded into the layer before it."""
    fuse = {nn.Conv2d: fuse_conv_bn_eval, nn.Linear: fuse_linear_bn_eval}
    layers = OrderedDict()
    for name, module in network.eval().named_children():
        if name.startswith("norm"):
            previous = next(reversed(layers))
            layers[previous] = fuse[type(layers[previous])](layers[previous], module)
        else:
            layers[name] = module
    return nn.Sequential(layers)


def _conv(
    layers: dict[str, nn.Module],
    name: str,
    inputs: int,
    outputs: int,
    *,
    kernel: int = 3,
    stride: int = 1,
    batch_norm: bool,
) -> None:
    """Append `conv<name>`, `norm<name>` while training, and `relu<name>`."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=not batch_norm)
    layers[f"conv{name}"] = conv
    if batch_norm:
        _start_small(conv.weight)
        layers[f"norm{name}"] = nn.BatchNorm2d(outputs)
    layers[f"relu{name}"] = nn.ReLU()


def _dense(layers: dict[str, nn.Module], name: str, inputs: int, outputs: int, *, batch_norm: bool) -> None:
    """Append `fc<name>`, `norm<name>` while training, and `relu<name>`."""
    layers[f"fc{name}"] = nn.Linear(inputs, outputs, bias=not batch_norm)
    if batch_norm:
        layers[f"norm{name}"] = nn.BatchNorm1d(outputs)
    layers[f"relu{name}"] = nn.ReLU()


def _start_small(weight: Tensor) -> None:
    # Batch norm makes the function independent of the filters' size. Small random filters are soon outgrown by
    # what is learned, so less of the first noise stays visible in the pictures of the filters.
    weight.data.mul_(0.3)
