"""How other tools count FLOPs, for those who compare with them. Each changes the FLOPs column alone.

The numbers are the tools' own, also where a tool is wrong: who compares wants to see them. `TOOLS` is the table, by
tool and kind of layer; a kind that is not in a tool's table is 0 there, because the tool passes over it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convcalc.analysis.shapes import Resolved
from convcalc.layers.base import Cost, Shape
from convcalc.tracing import product

Count = Callable[[Resolved, Cost], int]


class Rule:
    """What a tool counts for a kind of layer, in words and as a function of the layer and its exact cost."""

    __slots__ = ("count", "text")

    def __init__(self, text: str, count: Count) -> None:
        self.text = text
        self.count = count


class Tool:
    """A tool: how it is asked for its number, what that number is, where it is wrong, and its rules by kind."""

    __slots__ = ("call", "rules", "says", "wrong")

    def __init__(self, call: str, says: str, wrong: str, rules: dict[str, Rule]) -> None:
        self.call = call
        self.says = says
        self.wrong = wrong
        self.rules = rules

    def __call__(self, item: Resolved, cost: Cost) -> int:
        """The tool's number for a layer; 0 for a kind that it does not know."""
        rule = self.rules.get(item.layer.kind)
        return rule.count(item, cost) if rule is not None else 0


# --- what the rules are made of -------------------------------------------------------------------------------------


def _size(shape: Shape) -> int:
    return int(product(shape))


def _macs(item: Resolved, cost: Cost) -> int:
    return cost.macs


def _two_macs(item: Resolved, cost: Cost) -> int:
    return 2 * cost.macs


def _inputs(times: int) -> Count:
    return lambda item, _: times * _size(item.inputs[0])


def _outputs(times: int) -> Count:
    return lambda item, _: times * _size(item.outputs[0])


def _affine(with_weight: int, without: int) -> Count:
    """So many an input element, by whether the norm has a weight."""
    return lambda item, _: (with_weight if item.layer.parameters() else without) * _size(item.inputs[0])


# --- fvcore ---------------------------------------------------------------------------------------------------------


def _fvcore_conv(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    return 0 if layer.padding in ("same", "valid") and layer.padding_mode == "zeros" else cost.macs


def _fvcore_batch_norm(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    return (_affine(2, 1) if layer.track_running_stats else _affine(5, 4))(item, cost)


def _in_the_plane(count: Count) -> Count:
    """Only with two spatial axes."""
    return lambda item, cost: count(item, cost) if len(item.inputs[0]) == 4 else 0


def _fvcore_upsample(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    counts = {"nearest": _outputs(1), "bilinear": _outputs(4), "area": _inputs(1)}
    return _in_the_plane(counts.get(layer.mode, _inputs(0)))(item, cost)


# --- thop -----------------------------------------------------------------------------------------------------------


def _thop_transposed(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    in_channels, _, groups = layer.bound
    terms: int = in_channels // groups * _size(layer.kernel_size)
    return terms * _size(item.outputs[0])


def _thop_adaptive(item: Resolved, cost: Cost) -> int:
    share = 1.0  # the tool divides in floating point and cuts the result
    for before, after in zip(item.inputs[0][2:], item.outputs[0][2:], strict=True):
        share *= before / after
    return int((share + 1) * _size(item.outputs[0]))


def _thop_softmax(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    shape = item.inputs[0]
    dim: int = layer.axis(shape)
    return _size(shape) // (shape[dim] or 1) * (3 * shape[dim] - 1)


def _thop_upsample(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    return _outputs({"nearest": 1, "linear": 5, "bilinear": 11, "bicubic": 259}.get(layer.mode, 0))(item, cost)


# --- ptflops --------------------------------------------------------------------------------------------------------


def _hook(count: Count) -> Count:
    """What it counts by module is divided by the batch."""
    return lambda item, cost: count(item, cost) // item.inputs[0][0]


def _hook_and_function(count: Count) -> Count:
    """What it counts by module, and once more by the function that the module calls, which is not divided."""
    return lambda item, cost: count(item, cost) // item.inputs[0][0] + count(item, cost)


def _with_bias(item: Resolved, cost: Cost) -> int:
    return cost.macs + _size(item.outputs[0]) * ("bias" in item.layer.parameters())


def _ptflops_affine(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    return (2 if layer.affine else 1) * _size(item.inputs[0])


def _ptflops_lp_pool(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    elements = _size(item.inputs[0])
    return elements if layer.norm_type == float("inf") else elements + 2 * _size(item.outputs[0])


def _ptflops_response_norm(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    batch, channels, *sizes = item.inputs[0]
    padded: int = channels + layer.size - 1
    return 3 * _size(item.inputs[0]) + batch * padded * _size(tuple(sizes))


def _interpolated(item: Resolved) -> float:
    """What it counts for the function interpolate, which may not be whole."""
    layer: Any = item.layer
    elements = _size(item.inputs[0])
    if layer.scale_factor is None:
        return _size(item.outputs[0])
    if len(layer.scale_factor) == 1:
        factor: float = layer.scale_factor[0] ** (len(item.inputs[0]) - 2)
        return elements * factor
    return elements * _size(tuple(map(int, layer.scale_factor)))


def _ptflops_interpolate(item: Resolved, cost: Cost) -> int:
    return int(_interpolated(item))


def _ptflops_upsample(item: Resolved, cost: Cost) -> int:
    layer: Any = item.layer
    batch = item.inputs[0][0]
    # Its hook takes the first sample for the whole batch, and the result is divided by the batch once more.
    hook = _size(item.outputs[0]) // batch / batch
    area = _size(item.inputs[0]) if layer.mode == "area" else 0
    return int(hook + _interpolated(item)) + area


# --- the table ------------------------------------------------------------------------------------------------------

_MACS = Rule("the MACs", _macs)
_TWO_MACS = Rule("two for each MAC; the bias is left out", _two_macs)
_IN_ONCE = Rule("one an input element", _inputs(1))
_NORM_FVCORE = Rule("5 an input element, 4 without a weight: a guess, its source says", _affine(5, 4))
_NORM_THOP = Rule("4 an input element, 2 without a weight", _affine(4, 2))
_ADAPTIVE_THOP = Rule("(the quotient of the sizes + 1) an output element, cut to a whole number", _thop_adaptive)
_UPSAMPLE_THOP = Rule(
    "an output element: nearest 1, linear 5, bilinear 11, bicubic 259; 0 for trilinear, area and nearest-exact",
    _thop_upsample,
)
_BIASED = Rule("the MACs and the bias", _hook(_with_bias))
_NORM_PTFLOPS = Rule("2 an input element, 1 without a weight", _hook(_ptflops_affine))
_POOL_PTFLOPS = Rule("one an input element, twice (module and function)", _hook_and_function(_inputs(1)))
_ELEMENT = Rule("one an element", _hook(_inputs(1)))
_ELEMENT_TWICE = Rule("one an element, twice (module and function)", _hook_and_function(_inputs(1)))
_FUNCTION = Rule("one an element", _inputs(1))
_INTERPOLATE = Rule("input elements times the scale factors, or output elements where a size is given",
                    _ptflops_interpolate)  # fmt: skip

TOOLS: dict[str, Tool] = {
    "torch": Tool(
        "torch 2.13.0: `torch.utils.flop_counter.FlopCounterMode` round `model.eval()(x)`",
        "Two operations for each MAC of convolutions and matrix products, nothing for anything else.",
        "A dot product of K terms has K − 1 additions, not K. Norms, activations, pools and the bias are 0 without a"
        " word. Its backward pass of grouped convolutions is too high: 10 times the forward pass of a depthwise one in"
        " place of 3 in all; convcalc uses its rules for the forward pass alone.",
        {"conv": _TWO_MACS, "convt": _TWO_MACS, "linear": _TWO_MACS},
    ),
    "fvcore": Tool(
        "fvcore 0.1.5.post20221221: `FlopCountAnalysis(model.eval(), x).total()`",
        "One for each MAC, and rough rules for norms, upsampling and one pool.",
        "What it calls a flop is a MAC. A convolution with padding='same' or 'valid' is 0, because it traces to an op"
        " that the tool does not know. Adaptive average pooling and upsampling count in two dimensions only.",
        {
            "conv": Rule("the MACs; 0 with padding 'same' or 'valid' and zeros", _fvcore_conv),
            "convt": _MACS,
            "linear": _MACS,
            "batchnorm": Rule(
                "2 an input element, 1 without a weight; 5 and 4 without running statistics", _fvcore_batch_norm
            ),
            "syncbatchnorm": Rule("as batchnorm", _fvcore_batch_norm),
            "instancenorm": _NORM_FVCORE,
            "groupnorm": _NORM_FVCORE,
            "layernorm": _NORM_FVCORE,
            "adaptiveavgpool": Rule("one an input element, in 2-D; else 0", _in_the_plane(_inputs(1))),
            "globalavgpool": Rule("as an adaptive average pool to 1", _in_the_plane(_inputs(1))),
            "upsample": Rule(
                "in 2-D an output element: nearest 1, bilinear 4; area one an input element; else 0", _fvcore_upsample
            ),
            "upsamplingnearest": Rule("one an output element", _outputs(1)),
            "upsamplingbilinear": Rule("4 an output element", _outputs(4)),
        },
    ),
    "thop": Tool(
        "thop 0.1.1.post2209072238: `thop.profile(model, inputs=(x,))[0]`",
        "One for each MAC, and rules by class for some other modules.",
        "A transposed convolution is taken for a convolution to its output, about the product of the strides too high."
        " Batch norm counts twice what inference does. Functions and joins are not seen; group norm, RMS norm and most"
        " activations are 0 without a word.",
        {
            "conv": _MACS,
            "convt": Rule("∏output · in_channels / groups · ∏kernel_size, as if it were a convolution",
                          _thop_transposed),
            "linear": _MACS,
            "batchnorm": _NORM_THOP,
            "syncbatchnorm": _NORM_THOP,
            "instancenorm": _NORM_THOP,
            "layernorm": _NORM_THOP,
            "prelu": _IN_ONCE,
            "softmax": Rule("3n − 1 for each n elements along dim", _thop_softmax),
            "avgpool": Rule("one an output element, whatever the window", _outputs(1)),
            "adaptiveavgpool": _ADAPTIVE_THOP,
            "globalavgpool": _ADAPTIVE_THOP,
            "upsample": _UPSAMPLE_THOP,
            "upsamplingnearest": _UPSAMPLE_THOP,
            "upsamplingbilinear": _UPSAMPLE_THOP,
        },
    ),
    "ptflops": Tool(
        "ptflops 0.7.5: `get_model_complexity_info(model, shape, as_strings=False)[0]`, its PyTorch backend",
        "One for each MAC and one for each bias addition, and one an element for some other modules.",
        "It watches modules and the functions that they call, so ReLU, PReLU, ELU, GELU and pools count twice. Pools"
        " count input elements, whatever the window. With a batch the modules are divided by it and the functions are"
        " not. Sigmoid, tanh and log-softmax are 0 without a word.",
        {
            "conv": _BIASED,
            "convt": _BIASED,
            "linear": _BIASED,
            "batchnorm": _NORM_PTFLOPS,
            "instancenorm": _NORM_PTFLOPS,
            "groupnorm": _NORM_PTFLOPS,
            "layernorm": Rule("one an input element, with a weight or without", _hook(_inputs(1))),
            "maxpool": _POOL_PTFLOPS,
            "avgpool": _POOL_PTFLOPS,
            "adaptiveavgpool": _POOL_PTFLOPS,
            "adaptivemaxpool": _POOL_PTFLOPS,
            "globalavgpool": _POOL_PTFLOPS,
            "globalmaxpool": _POOL_PTFLOPS,
            "lppool": Rule("one an input element and 2 an output element; one an input element for the norm inf",
                           _ptflops_lp_pool),
            "localresponsenorm": Rule("4 an element, channels padded by size − 1 for one of them",
                                      _ptflops_response_norm),
            "relu": _ELEMENT_TWICE,
            "prelu": _ELEMENT_TWICE,
            "elu": _ELEMENT_TWICE,
            "gelu": _ELEMENT_TWICE,
            "relu6": _ELEMENT,
            "leakyrelu": _ELEMENT,
            "silu": _FUNCTION,
            "softmax": _FUNCTION,
            "softmax2d": _FUNCTION,
            "upsample": Rule("one an output element of one sample, divided by the batch; and input elements times the"
                             " scale factors, or output elements where a size is given; area once more an input"
                             " element", _ptflops_upsample),
            "upsamplingnearest": _INTERPOLATE,
            "upsamplingbilinear": _INTERPOLATE,
        },
    ),
}  # fmt: skip
"""The tools whose counting can be asked for."""

CONVENTION_RULES: dict[str, Count] = {"macs": _macs, "2mac": _two_macs, **TOOLS}
"""From a layer and its exact cost to the FLOPs that the convention gives it."""
