"""The three ways back through a ReLU: backpropagation, deconvnet, guided backpropagation (Springenberg et al., 2014).

Inside of `with relu_rule(model, "guided")` every ReLU that is computed follows the rule, whichever way the network
spells it: the calls are intercepted on their way to PyTorch (a `TorchFunctionMode`). No module is touched, so nothing
has to be put back.
"""

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack, _pop_mode, _push_mode

from lecturelib.errors import ArgumentError, LayerNameError, LectureError, nearest
from lecturelib.models import Model

RULES = ("backprop", "deconvnet", "guided")
_RELUS = frozenset("relu relu_".split())
_CLAMPS = frozenset("clamp clamp_ clamp_min clamp_min_ clip clip_".split())  # ReLUs when the only limit is 0 from below
_OTHERS = frozenset(
    "celu elu gelu hardswish hardtanh leaky_relu mish prelu relu6 rrelu selu silu softplus threshold".split()
)
_OTHER_MODULES = (
    *(nn.CELU, nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU, nn.Mish, nn.PReLU, nn.RReLU, nn.SELU),
    *(nn.SiLU, nn.Softplus, nn.Threshold),
)


def relu_backward(rule: str, f: Tensor, R: Tensor) -> Tensor:  # noqa: N803  (the letters of the paper's figure)
    """What a rule passes on below a ReLU with input f when the gradient R arrives from above; the shape of both.

    backprop: 1[f > 0] R.  deconvnet: 1[R > 0] R.  guided: 1[f > 0] 1[R > 0] R.
    """
    _require_rule(rule)
    if rule == "backprop":
        return R.where(f > 0, 0)
    if rule == "deconvnet":
        return R.where(R > 0, 0)
    return R.where((f > 0) & (R > 0), 0)


def relu_rule(model: Model, rule: str) -> TorchFunctionMode:
    """`with relu_rule(model, "guided"): ...` computes gradients with another rule at every ReLU.

    rule: "backprop" (the true gradient), "deconvnet" (Zeiler and Fergus, 2013) or "guided" (Springenberg et al., 2014).

    The rule holds for every ReLU computed in the block, in this thread: modules, functions, in-place and re-used ones,
    `clamp(min=0)`, and those of the score itself. Blocks cannot be nested.

    Raises `ArgumentError` for an unknown rule; `LayerNameError` with the module's name where ReLUs are out of reach
    (compiled or scripted modules) or the activation is no ReLU, and for a network without any.
    """
    _require_rule(rule)
    if rule != "backprop":
        _require_relus(model)
    return _ReluRule(rule)


class _ReluRule(TorchFunctionMode):
    """While it is entered, PyTorch hands every call of a function to it first."""

    def __init__(self, rule: str):
        super().__init__()
        self.rule = rule

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        inputs = args[0] if args else kwargs.get("input")
        if isinstance(inputs, Tensor) and _is_relu(name, args, kwargs):
            rectified = _Rectify.apply(inputs, self.rule)
            return inputs.copy_(rectified) if name.endswith("_") or kwargs.get("inplace") else rectified
        if name.strip("_") in _OTHERS and self.rule != "backprop":
            raise _no_rule(f"the function {name}")
        return function(*args, **kwargs)

    def __enter__(self):
        try:
            return super().__enter__()
        except BaseException:  # an interrupt after the block was entered, before Python knows that it was
            _sweep()
            raise

    def __exit__(self, kind, error, trace):
        entered = any(mode is self for mode in _get_current_function_mode_stack())
        _sweep()  # all of ours: an interrupt may have kept an earlier block from ending
        if not entered and kind is None:
            raise LectureError(
                "blocks of relu_rule cannot be nested: the inner one ended the outer one",
                received=f"the end of a block with the rule {self.rule!r} that was over already",
                do="leave one block before you enter the next",
            )


class _Rectify(torch.autograd.Function):
    """A ReLU with a backward rule of its own."""

    @staticmethod
    def forward(ctx, f: Tensor, rule: str) -> Tensor:
        output = torch.relu(f)
        ctx.rule = rule
        ctx.save_for_backward(output)  # it is positive where f is, and the next layer keeps it anyway
        return output

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return relu_backward(ctx.rule, *ctx.saved_tensors, gradient), None


def _is_relu(name: str, args: tuple, kwargs: dict) -> bool:
    if name not in _CLAMPS:
        return name in _RELUS
    low, high = (*args[1:], None, None)[:2]
    low, high = kwargs.get("min", low), kwargs.get("max", high)
    return isinstance(low, int | float) and low == 0 and high is None


def _require_relus(model: Model) -> None:
    """Refuse a network on which the rules would be wrong or without effect."""
    modules = list(model.network.named_modules())
    for name, module in modules:
        kind = type(module).__name__
        # torch.compile's class by name, because importing it takes seconds.
        if isinstance(module, torch.jit.ScriptModule) or kind == "OptimizedModule":
            raise LayerNameError(
                f"the ReLUs inside of {name or 'the network'} are out of reach",
                received=f"a compiled or scripted module ({kind})",
                do="load the model from the plain nn.Module",
            )
        if isinstance(module, _OTHER_MODULES):
            raise _no_rule(f"the module {name} ({kind})")
    if not any(isinstance(module, nn.ReLU) for _, module in modules) and _calls_no_relu(model):
        raise LayerNameError(
            "this network has no ReLU, so the rules make no difference",
            received=type(model.network).__name__,
            do='use the plain gradient: relu_rule(model, "backprop"), or no block at all',
        )


def _calls_no_relu(model: Model) -> bool:
    """Whether the network's own code is known to call no function that is a ReLU."""
    if model.reader.graph is None:
        return False
    called = {getattr(n.target, "__name__", n.target) for n in model.reader.graph.nodes if n.op.startswith("call_")}
    return not called & (_RELUS | _CLAMPS)


def _require_rule(rule: str) -> None:
    if rule not in RULES:
        raise ArgumentError(
            f"there is no ReLU rule {rule!r}",
            received=repr(rule),
            do=f"near it: {nearest(str(rule), list(RULES))[0]}; there are {', '.join(RULES)}",
        )


def _no_rule(where: str) -> LayerNameError:
    return LayerNameError(
        f"{where} is not a ReLU; deconvnet and guided backpropagation are defined for ReLUs only",
        received="another activation function",
        do='choose a network of ReLUs (mini_vgg, vgg16, resnet18), or relu_rule(model, "backprop")',
    )


def _sweep() -> None:
    """Take our modes off PyTorch's stack, and leave other people's where they are."""
    stack = _get_current_function_mode_stack()
    if any(isinstance(mode, _ReluRule) for mode in stack):
        for _ in stack:
            _pop_mode()
        for mode in stack:
            if not isinstance(mode, _ReluRule):
                _push_mode(mode)
