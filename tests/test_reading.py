import random
import signal
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lecturelib import load_model
from lecturelib.errors import LayerNameError
from lecturelib.reading import LayerReader

MEAN, STD = (0, 0, 0), (1, 1, 1)  # the networks here take the pictures as they are


def chain() -> nn.Sequential:
    layers = OrderedDict(conv1=nn.Conv2d(3, 4, 3), relu1=nn.ReLU(inplace=True), conv2=nn.Conv2d(4, 4, 3))
    layers |= OrderedDict(relu2=nn.ReLU(inplace=True), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten())
    return nn.Sequential(layers | OrderedDict(fc=nn.Linear(4, 5)))


class Branching(nn.Module):
    """Cannot be traced: it looks at the numbers."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Linear(4, 5)

    def forward(self, images):
        maps = self.conv(images)
        maps = self.relu(maps) if images.mean() > -1e9 else maps
        return self.head(maps.mean(dim=(2, 3)))


class Twice(nn.Module):
    """One ReLU module for two layers, as ResNet has."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)

    def forward(self, images):
        return self.relu(self.conv2(self.relu(self.conv1(images)))).mean(dim=(2, 3))


class TwiceUntraced(Twice):
    def forward(self, images):
        return super().forward(images) if images.mean() > -1e9 else images


def model_of(network: nn.Module):
    return load_model(network, mean=MEAN, std=STD)


def pictures(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 8, 7, generator=torch.Generator().manual_seed(0))


def hooks_of(network: nn.Module) -> list:
    return [hook for module in network.modules() for hook in (*module._forward_hooks, *module._forward_pre_hooks)]


def test_every_activation_is_the_truncated_forward_pass():
    network, images = chain(), pictures()
    model = model_of(network)
    values = images
    for layer, module in network.named_children():
        values = module(values.clone())
        torch.testing.assert_close(model.activation(images, layer), values)
    together = model.activations(images, model.layers)
    assert list(together) == model.layers
    torch.testing.assert_close(together["conv1"], network.conv1(images))  # not what the in-place ReLU makes of it
    assert torch.equal(together["fc"], model(images))
    assert model.activations(images, []) == {}


IN_PLACE = {
    "F.relu, inplace": lambda maps: F.relu(maps, inplace=True),
    "F.relu, by position": lambda maps: F.relu(maps, True),
    "F.relu_": lambda maps: F.relu_(maps),
    "torch.relu_": lambda maps: torch.relu_(maps),
    "method relu_": lambda maps: maps.relu_(),
    "method clamp_": lambda maps: maps.clamp_(min=0),
    "module": nn.ReLU(inplace=True),
}


class InPlace(nn.Module):
    """statement: the result of the ReLU is not taken up, as `F.relu_(maps)` in a line of its own."""

    def __init__(self, relu, *, statement: bool, again: bool):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 5, 1)
        self.statement, self.again = statement, again

    def forward(self, images):
        maps = self.conv(images)
        rectified = self.relu(maps)
        if self.statement:
            rectified = maps
        if self.again:  # as in a block whose shortcut starts in front of the ReLU
            rectified = rectified + maps
        return self.head(rectified).mean(dim=(2, 3))


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("statement", [False, True])
@pytest.mark.parametrize("relu", IN_PLACE)
def test_operations_in_place_neither_change_the_function_nor_the_layer_before(relu, statement, again):
    network, images = InPlace(IN_PLACE[relu], statement=statement, again=again), pictures()
    model = model_of(network)
    torch.testing.assert_close(model(images), network(images))
    conv, head = network.conv(images), network.head((2 if again else 1) * network.conv(images).relu())
    found = model.activations(images, ["conv", "head"])
    torch.testing.assert_close(found["conv"], conv)
    torch.testing.assert_close(found["head"], head)


def test_a_sum_in_place_does_not_reach_the_layer_before():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images):
            out = self.norm(self.conv(images))
            out += images
            return out.mean(dim=(2, 3))

    network, images = Block().eval(), pictures()
    torch.testing.assert_close(model_of(network).activation(images, "norm"), network.norm(network.conv(images)))


def test_a_module_that_is_used_twice_has_two_names():
    network, images = Twice(), pictures()
    model = model_of(network)
    first = network.conv1(images).relu()
    second = network.conv2(first).relu()
    found = model.activations(images, ["relu@1", "relu"])
    torch.testing.assert_close(found["relu"], first)
    torch.testing.assert_close(found["relu@1"], second)
    with pytest.raises(LayerNameError):
        model.activation(images, "relu@2")


def test_without_a_trace_the_first_use_is_read():
    network, images = TwiceUntraced(), pictures()
    found = model_of(network).activations(images, ["relu", "conv2"])
    first = network.conv1(images).relu()
    torch.testing.assert_close(found["relu"], first)
    torch.testing.assert_close(found["conv2"], network.conv2(first))


def test_the_two_ways_to_read_agree_in_values_and_gradients():
    network = Branching()
    model = model_of(network)
    plain = model_of(nn.Sequential(OrderedDict(conv=network.conv, relu=network.relu)))
    for layer in ("conv", "relu"):
        images = pictures().requires_grad_()
        hooked, traced = model.activation(images, layer), plain.activation(images, layer)
        assert torch.equal(hooked, traced)
        gradients = [torch.autograd.grad(values.square().sum(), images)[0] for values in (hooked, traced)]
        torch.testing.assert_close(*gradients)
    with pytest.raises(LayerNameError, match="cannot trace"):
        model.reader.node("conv")
    torch.testing.assert_close(model.activation(pictures(), "conv"), network.conv(pictures()))


class Block(nn.Module):
    """The value computed last is not the value that it returns."""

    def __init__(self):
        super().__init__()
        self.main, self.side = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 2, 1)

    def forward(self, images):
        main = self.main(images)
        self.side(images)
        return main


class Pair(Block):
    def forward(self, images):
        return self.main(images), self.side(images)


def test_a_block_gives_what_it_returns():
    network, images = nn.Sequential(Block(), nn.ReLU()), pictures()
    torch.testing.assert_close(model_of(network).activation(images, "0"), network[0](images))

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.pair, self.unused = Pair(), nn.Conv2d(3, 3, 1)

        def forward(self, images):
            return self.pair(images)[0].mean(dim=(2, 3))

    model = model_of(Two())
    with pytest.raises(LayerNameError, match="no single tensor"):
        model.activation(images, "pair")
    for layers in (["unused"], ["pair.main", "unused"]):
        with pytest.raises(LayerNameError, match="did not reach"):
            model.activations(images, layers)


class Alarm(nn.Module):
    def forward(self, values):
        raise AssertionError("the pass went on behind the deepest layer")


def test_the_pass_ends_at_the_deepest_layer():
    images = pictures()
    traced = chain()
    traced.conv2 = Alarm()
    model = model_of(traced)
    found = model.activations(images, ["conv1", "relu1"])
    assert found["relu1"].min() == 0
    with pytest.raises(AssertionError):
        model(images)
    hooked = Branching()
    hooked.head = Alarm()
    model = load_model(hooked, classes=["a"], mean=MEAN, std=STD)
    assert model.activations(images, ["conv", "relu"])["relu"].min() == 0
    assert not hooks_of(model.network)


def test_the_pass_ends_also_in_a_network_that_catches_errors():
    class Careful(Branching):
        def forward(self, images):
            try:
                return super().forward(images)
            except Exception as error:
                raise AssertionError("the way to end a pass is nobody's error") from error

    assert model_of(Careful()).activation(pictures(), "conv").shape == (2, 4, 6, 5)


def test_hooks_of_the_users_own_stay_and_work():
    network, images, seen = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 1)), nn.Flatten(2)), pictures(), []

    def doubled(module, inputs, output):
        seen.append(type(output))
        return 2 * output

    network[0].register_forward_hook(doubled)
    model = model_of(network)
    assert not seen  # it was not called with a symbol
    for layer in ("0", "1"):
        torch.testing.assert_close(model.activation(images, layer), network[: int(layer) + 1](images))
    torch.testing.assert_close(model.activation(images, "0.0"), network[0][0](images))
    assert set(seen) == {torch.Tensor}
    assert list(network[0]._forward_hooks.values()) == [doubled]
    assert list(model.network[0]._forward_hooks.values()) == [doubled]


@pytest.mark.parametrize("make", [chain, Branching, Twice])
def test_errors_anywhere_in_the_network_leave_nothing_behind(make, monkeypatch):
    network, images = make(), pictures()
    model = model_of(network)
    expected = model(images)
    layers = {chain: ["relu1", "fc"], Branching: ["relu", "head"], Twice: ["relu", "relu@1"]}[make]
    for kind in (ValueError, KeyboardInterrupt):
        for name, module in model.network.named_modules():
            if not name:
                continue

            def fails(*inputs, kind=kind):
                raise kind("injected")

            with monkeypatch.context() as patch:
                patch.setattr(module, "forward", fails)
                with pytest.raises(kind, match="injected"):
                    model.activations(images, layers)
            assert not hooks_of(model.network) and not hooks_of(network)
            torch.testing.assert_close(model(images), expected)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt inside of a destructor
@pytest.mark.parametrize("make", [chain, Branching])
def test_interrupts_at_random_moments_leave_nothing_that_the_next_call_would_not_sweep(make):
    network, images = make(), pictures(1)
    model = model_of(network)
    layers = [name for name, _ in network.named_modules() if name][:2]
    expected, read = model(images), model.activations(images, layers)
    moments, armed, interrupts = random.Random(0), [], 0

    def interrupt(*_):
        if armed:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for trial in range(100):
            armed.append(True)
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-5, 1e-3))
                until = time.monotonic() + 1  # Python swallows an interrupt that comes while it collects garbage
                while time.monotonic() < until:
                    model.activations(images, layers)
            except KeyboardInterrupt:
                interrupts += 1
            armed.clear()
            if trial % 2:
                torch.testing.assert_close(model(images), expected)
            else:
                torch.testing.assert_close(model.activations(images, layers), read)
            assert not hooks_of(model.network) and not hooks_of(network)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupts > 80


def test_hooks_that_an_interrupt_left_are_swept_by_any_next_call():
    model, images = model_of(Branching()), pictures()
    expected = model(images)
    for call in (model, lambda images: model.activation(images, "conv")):
        model.reader._sweep, sweep = lambda: None, model.reader._sweep  # as if the interrupt came at the worst moment
        model.activation(images, "relu")
        model.reader._sweep = sweep
        assert hooks_of(model.network)
        call(images)
        assert not hooks_of(model.network)
    assert torch.equal(model(images), expected)


def test_a_wrong_layer_is_refused_with_the_nearest_names():
    model = model_of(chain())
    for wrong, meant in {"Conv1": "conv1", "relu3": "relu2", "cnov2": "conv2", "flaten": "flatten"}.items():
        with pytest.raises(LayerNameError, match=meant):
            model.activation(pictures(), wrong)
    for wrong in (None, 3, "", model.module("conv1"), 1.5):
        with pytest.raises(LayerNameError):
            model.activation(pictures(), wrong)


def test_the_code_is_in_front_of_the_last_dense_layer():
    layers = nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Dropout(), nn.Dropout(), nn.Linear(6, 5)
    model = model_of(nn.Sequential(*layers))
    assert model.code_layer == "2" and model.activation(torch.rand(2, 3, 2, 2), "2").shape == (2, 6)
    with pytest.raises(LayerNameError):
        _ = model_of(Twice()).code_layer


def test_large_batches_are_read_in_parts_that_an_allocator_keeps_at_hand():
    sizes = []
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    network[1].register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    reader, images = LayerReader(network.eval(), {}), torch.rand(5, 3, 256, 128, requires_grad=True)
    values = reader.read(images, ["0", "1"])
    whole = network[0](images)
    torch.testing.assert_close(values["0"], whole)
    torch.testing.assert_close(values["1"], whole.relu())
    gradient, expected = (torch.autograd.grad(found.square().sum(), images)[0] for found in (values["1"], whole.relu()))
    torch.testing.assert_close(gradient, expected)
    assert sizes == [2, 2, 1]
    reader.read(images, ["4"])
    assert sizes[3:] == [5], "a dense layer reads its weights once for all"


def test_a_network_that_runs_in_another_thread_is_no_part_of_the_trace():
    other, images = load_model("mini_alexnet"), torch.rand(1, 3, 64, 64)
    expected, answers = other(images), []

    class Beside(nn.Module):
        def forward(self, x):
            with ThreadPoolExecutor(1) as pool:
                answers.append(pool.submit(lambda: (other(images), other.module("conv1").weight)).result())
            return F.relu(x)

    reader = LayerReader(nn.Sequential(nn.Conv2d(3, 4, 3), Beside()), {})
    assert list(reader.graph.nodes)[-1].op == "output" and "0" in {node.target for node in reader.graph.nodes}
    (answer, weight), *_ = answers
    assert torch.equal(answer, expected)
    assert weight is other.module("conv1").weight, "another thread's weights became symbols"


def test_networks_can_be_traced_in_many_threads_at_once():
    call = nn.Module.__call__

    def layers(_: int) -> list[str]:
        return [node.target for node in LayerReader(nn.Sequential(*map(nn.ReLU, [False] * 30)), {}).graph.nodes]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(layers, range(40)))
    assert nn.Module.__call__ is call
    assert all(each == ["input", *map(str, range(30)), "output"] for each in found)
