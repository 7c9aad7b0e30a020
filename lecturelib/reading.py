"""Reading the layers inside a network, without leaving anything behind in it.

The network is traced once (torch.fx). For each set of layers that is asked for, a program is cut from the trace
which ends
at the deepest of them; running it changes no state, so an interrupt at any moment leaves no residue. Networks that
cannot be traced
(data-dependent branches) are read through hooks, which are swept away on exit and, should an interrupt have prevented
that, on the next entry.
"""

import copy
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, fx, nn

from lecturelib.errors import LayerNameError, nearest

PIXELS = 2**16  # of a batch at a time: the maps of a VGG's first layer are then 16 MB, which an allocator keeps at hand


class LayerReader:
    """Reads layers of `network`, which must be in evaluation mode; `aliases` maps papers' names to dotted names."""

    def __init__(self, network: nn.Module, aliases: dict[str, str]):
        self.network = network
        self.aliases = aliases
        self._modules = dict(network.named_modules())
        self._nodes = _traced(network)
        self._programs: dict[frozenset[str], fx.GraphModule] = {}
        self._hooking = threading.RLock()

    def of_twin(self, network: nn.Module) -> "LayerReader":
        """This reader for a copy of its network: the trace holds for both. An interrupted `fx` may leave patches."""
        twin = copy.copy(self)
        twin.network, twin._modules = network, dict(network.named_modules())
        twin._programs, twin._hooking = {}, threading.RLock()
        return twin

    @property
    def graph(self) -> fx.Graph | None:
        """The trace of the network; None where it could not be traced."""
        return next((node.graph for node in self._nodes.values()), None)

    def path(self, layer: str) -> str:
        """The dotted name of `layer`; a wrong name raises `LayerNameError` with the nearest ones."""
        path = self.aliases.get(layer, layer) if isinstance(layer, str) else None
        if path and (path in self._modules or path in self._nodes):
            return path
        known = [*self.aliases, *(name for name in self._modules if name and name not in self.aliases.values())]
        raise LayerNameError(
            f"there is no layer {layer!r}",
            received=repr(layer),
            do=f"near it: {', '.join(nearest(str(layer), known))}; `model.layers` lists all",
        )

    def read(self, inputs: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """What the layers give for the network's `inputs`; the pass ends at the deepest of them."""
        paths = {layer: self.path(layer) for layer in layers}
        wanted = frozenset(paths.values())
        if not wanted:
            return {}
        traced = wanted <= self._nodes.keys()
        found = self._in_parts(inputs, wanted) if traced else self._read_by_hooks(inputs, paths=wanted)
        for layer, path in paths.items():
            if not isinstance(found.get(path), Tensor):
                raise LayerNameError(
                    f"the layer {layer!r} gives no single tensor",
                    received=type(found[path]).__name__ if path in found else "nothing: the pass did not reach it",
                    do="choose a layer inside it, or the one before it",
                )
        return {layer: found[path] for layer, path in paths.items()}

    def logits(self, inputs: Tensor) -> Tensor:
        """What the whole network gives; first, hooks that an interrupted reading left are swept away."""
        with self._hooking:
            self._sweep()
            return self.network(inputs)

    def node(self, layer: str) -> fx.Node:
        """The place of `layer` in the trace; `LayerNameError` where the network could not be traced."""
        path = self.path(layer)
        if path not in self._nodes:
            raise LayerNameError(
                f"the way from the picture to {layer!r} is not known",
                received=f"a {type(self.network).__name__} that torch.fx cannot trace",
                do="use a network without branches that depend on the data",
            )
        return self._nodes[path]

    def after(self, layer: str) -> tuple[list[str], fx.GraphModule]:
        """The layers that the network behind `layer` reads (`layer`, then ways around it), and this part of it."""
        start = self.node(layer)
        nodes = start.graph.nodes
        behind, taken = {start}, [start]
        for node in nodes:
            if behind & set(node.all_input_nodes):
                behind.add(node)
                taken += [other for other in node.all_input_nodes if other not in behind and other.op != "get_attr"]
        taken = list(dict.fromkeys(taken))
        graph = fx.Graph()
        copied = {node: graph.placeholder(node.name) for node in taken}
        for node in nodes:
            if (node in behind or node.op == "get_attr") and node not in copied:
                copied[node] = graph.node_copy(node, copied.__getitem__)
        paths = {node: path for path, node in self._nodes.items()}
        return [paths[node] for node in taken], fx.GraphModule(self.network, graph)

    def code_layer(self) -> str:
        """The layer whose output the last dense layer reads: the code of the image in front of the classifier."""
        dense = [node for path, node in self._nodes.items() if isinstance(self._modules.get(path), nn.Linear)]
        if not dense:
            raise LayerNameError("this network has no last dense layer to look in front of", do="name a layer yourself")
        before = dense[-1].all_input_nodes[0]
        while isinstance(self._modules.get(before.target), nn.Dropout):  # it does nothing in evaluation mode
            before = before.all_input_nodes[0]
        path = next(path for path, node in self._nodes.items() if node is before)
        return next((alias for alias, dotted in self.aliases.items() if dotted == path), path)

    def _in_parts(self, inputs: Tensor, paths: frozenset[str]) -> dict[str, Tensor]:
        """The program for `paths`, on a CPU for a few pictures at a time, because larger batches are slower there.

        In evaluation mode a network treats each picture by itself. A dense layer wants the whole batch, because it
        reads its many weights anew each time.
        """
        program = self._program(paths)
        modules = [self._modules.get(node.target) for node in program.graph.nodes if node.op == "call_module"]
        parts = inputs.split(max(1, PIXELS // inputs[0, 0].numel())) if inputs.device.type == "cpu" else [inputs]
        whole = any(isinstance(module, nn.Linear) for module in modules)
        if len(parts) == 1 or whole or not all(path.split("@")[0] in self._modules for path in paths):
            return program(inputs)
        found = [program(part) for part in parts]
        return {path: _joined([each[path] for each in found]) for path in paths}

    def _program(self, paths: frozenset[str]) -> fx.GraphModule:
        """The part of the network that leads to `paths`; it uses the network's own modules, no copies."""
        if paths not in self._programs:
            outputs = {path: self._nodes[path] for path in sorted(paths)}
            needed, waiting = set(), list(outputs.values())
            while waiting:
                node = waiting.pop()
                if node not in needed:
                    needed.add(node)
                    waiting.extend(node.all_input_nodes)
            graph, copied = fx.Graph(), {}
            for node in next(iter(needed)).graph.nodes:
                if node in needed or node.op == "placeholder":
                    copied[node] = graph.node_copy(node, copied.__getitem__)
            graph.output({path: copied[node] for path, node in outputs.items()})
            self._programs[paths] = fx.GraphModule(self.network, graph)
        return self._programs[paths]

    def _read_by_hooks(self, inputs: Tensor, *, paths: frozenset[str]) -> dict[str, Tensor]:
        with self._hooking:
            self._sweep()
            found: dict[str, Tensor] = {}
            try:
                for path in paths & self._modules.keys():
                    self._modules[path].register_forward_hook(_Keep(found, path, len(paths)))
                self.network(inputs)
            except _AllFound:
                pass
            finally:
                self._sweep()
            return found

    def _sweep(self) -> None:
        for module in self._modules.values():
            for key, hook in list(module._forward_hooks.items()):
                if isinstance(hook, _Keep):
                    del module._forward_hooks[key]


def _joined(parts: list) -> Tensor | object:
    """One batch again; what is no tensor is refused by the reader."""
    return torch.cat(parts) if all(isinstance(part, Tensor) for part in parts) else parts[0]


class _AllFound(BaseException):
    """Every layer has been read, the rest of the pass is not needed. No error, so that no network catches it."""


class _Keep:
    """A hook that keeps a layer's output; its class marks it as ours."""

    def __init__(self, found: dict[str, Tensor], path: str, count: int):
        self.found, self.path, self.count = found, path, count

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        # Of a module that is used again, the first output; cloned, because the network may write into it afterwards.
        self.found.setdefault(self.path, output.clone() if isinstance(output, Tensor) else output)
        if len(self.found) == self.count:
            raise _AllFound


_TRACING = threading.RLock()  # torch.fx changes the class of all modules while it traces


class _Tracer(fx.Tracer):
    """Notes which node gives the output of each module; of a module that is used twice, `relu` and `relu@1`.

    What other threads compute meanwhile, such as a panel, is none of its business.
    """

    def __init__(self):
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}
        self.thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # A module's own hooks are part of it and want to see numbers instead of symbols; torchvision's transforms
        # hand on unchanged whatever is no picture.
        own_hooks = bool(m._forward_hooks or m._forward_pre_hooks)
        transform = type(m).__module__.startswith("torchvision.transforms.")
        return own_hooks or transform or super().is_leaf_module(m, module_qualified_name)

    def getattr(self, attr: str, attr_val: object, parameter_proxy_cache: dict) -> object:
        if threading.get_ident() != self.thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> object:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        before = self.num_calls.get(path, 0)
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[f"{path}@{before}" if before else path] = output.node
        return output


def _traced(network: nn.Module) -> dict[str, fx.Node]:
    """{path: the node that gives its output}; empty when the network cannot be traced.

    In-place operations that only save memory are turned into plain ones, in the trace and in the modules; a network
    that writes into what it reads again counts as not traceable. Operations outside of modules have fx's own names.
    """
    tracer = _Tracer()
    try:
        with _TRACING:
            graph = tracer.trace(network)
    except Exception:  # whatever the network's own code raises when its input is a symbol
        return {}
    writing = [node for node in graph.nodes if _writes(node, network)]
    if not all(_can_be_plain(node) for node in writing):
        return {}
    for node in writing:
        _make_plain(node, network)
    named = set(tracer.outputs.values())
    others = {node.name: node for node in graph.nodes if node not in named and node.op != "output"}
    return {**tracer.outputs, **others}


def _writes(node: fx.Node, network: nn.Module) -> bool:
    """Whether the operation overwrites its input, which may be the layer read before it."""
    if node.op == "call_module":
        return getattr(network.get_submodule(node.target), "inplace", False)
    name = node.target if isinstance(node.target, str) else node.target.__name__
    in_place = node.op.startswith("call") and name.endswith("_") and not name.endswith("__")
    return in_place or bool(node.kwargs.get("inplace")) or "out" in node.kwargs


_PLAIN = {"relu_": "relu", torch.relu_: torch.relu}


def _can_be_plain(node: fx.Node) -> bool:
    known = node.op == "call_module" or "inplace" in node.kwargs or node.target in _PLAIN
    return known and list(node.all_input_nodes[0].users) == [node]


def _make_plain(node: fx.Node, network: nn.Module) -> None:
    if node.op == "call_module":
        network.get_submodule(node.target).inplace = False
    elif "inplace" in node.kwargs:
        node.kwargs = {**node.kwargs, "inplace": False}
    else:
        node.target = _PLAIN[node.target]
