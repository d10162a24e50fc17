"""ONNX's ops on single elements: activations, arithmetic, and changes of type; and what they come to along axes."""

from __future__ import annotations

from typing import Any

from convcalc.layers.base import Layer
from convcalc.onnx.ops.calls import Call, Op, Plan, axis_of, class_of, plain, shortest
from convcalc.onnx.tensors import DATA_TYPES
from convcalc.tracing import product

# --- activations ----------------------------------------------------------------------------------------------------


def _elu(call: Call) -> Layer:
    layer: Layer = class_of("elu")(call.number("alpha", 1.0))
    return layer


def _celu(call: Call) -> Layer:
    layer: Layer = class_of("celu")(call.number("alpha", 1.0))
    return layer


def _leaky_relu(call: Call) -> Layer:
    layer: Layer = class_of("leakyrelu")(call.number("alpha", 0.01))
    return layer


def _thresholded_relu(call: Call) -> Layer:
    layer: Layer = class_of("threshold")(call.number("alpha", 1.0), 0.0)
    return layer


def _selu(call: Call) -> Layer:
    if (
        abs(call.number("alpha", 1.67326319) - 1.6732632) > 1e-4
        or abs(call.number("gamma", 1.0507010) - 1.050701) > 1e-4
    ):
        call.refuse("with numbers of its own")
    layer: Layer = class_of("selu")()
    return layer


def _hard_sigmoid(call: Call) -> Layer:
    alpha, beta = call.number("alpha", 0.2), call.number("beta", 0.5)
    exact = abs(alpha - 1 / 6) < 1e-4 and beta == 0.5
    layer: Layer = class_of("hardsigmoid")() if exact else class_of("onnxhardsigmoid")(alpha, beta)
    return layer


def _gelu(call: Call) -> Layer:
    layer: Layer = class_of("gelu")(call.text("approximate", "none"))
    return layer


def _swish(call: Call) -> Layer:
    if call.number("alpha", 1.0) != 1:
        call.refuse("with alpha")
    layer: Layer = class_of("silu")()
    return layer


def _prelu(call: Call) -> Plan:
    shape, slope = call.shape(0), call.shape(1)
    whole = (1,) * (len(shape) - len(slope)) + slope
    if call.constant(call.inputs[1]) and len(shape) > 1 and product(whole) in (1, whole[1]):
        return Plan(class_of("prelu")(product(whole)), (0,), {"weight": 1})
    return Plan(class_of("combine")("prelu"), (0, 1))


def _clip(call: Call) -> Plan:
    if any(call.has(place) and call.small(call.inputs[place]) is None for place in (1, 2)):
        given = call.given()
        return Plan(class_of("combine")("clip" if len(given) > 2 else "max" if 1 in given else "min"))
    limits: list[Any] = []
    for place, name in ((1, "min"), (2, "max")):
        if call.has(place):
            limit = call.values(place, "limits")[0]
            limits.append(shortest(limit) if isinstance(limit, float) else limit)
        else:
            limits.append(call.number(name, 0.0) if name in call.attributes else None)
    low, high = limits
    if (low, high) == (0.0, 6.0):
        return Plan(class_of("relu6")(), (0,))
    return Plan(class_of("clip")(low, high), (0,))


def _softmax(call: Call) -> Layer | Plan:
    kind = {"Softmax": "softmax", "LogSoftmax": "logsoftmax"}[call.op]
    shape = call.shape(0)
    axis = axis_of(call.integer("axis", -1 if call.opset >= 13 else 1), shape)
    if call.opset >= 13 or axis == len(shape) - 1:
        return Plan(class_of(kind)(axis))
    # Before opset 13 all axes from this one on are taken together.
    flat = (int(product(shape[:axis])), int(product(shape[axis:])))
    return Plan(class_of("shaped")(flat), then=(class_of(kind)(1), class_of("shaped")(shape)))


def _dropout(call: Call) -> Plan:
    ratio = call.values(1, "ratio")[0] if call.has(1) and call.small(call.inputs[1]) else call.number("ratio", 0.5)
    return Plan(class_of("dropoutmask" if any(call.outputs[1:]) else "dropout")(shortest(ratio)), (0,))


# --- element by element ---------------------------------------------------------------------------------------------


def _function(name: str) -> Op:
    return lambda _: Plan(class_of("function")(name))


def _combine(name: str) -> Op:
    return lambda _: Plan(class_of("combine")(name))


def _where(call: Call) -> Plan:
    return Plan(class_of("combine")("where"), dtypes=call.dtypes[1:2])


def _trilu(call: Call) -> Plan:
    return Plan(class_of("function")("trilu"))


def _cast(call: Call) -> Plan:
    name = DATA_TYPES.get(call.integer("to"), ("undefined", 0))[0] if call.op == "Cast" else call.dtypes[1]
    saturate, rounding = bool(call.integer("saturate", 1)), call.text("round_mode", "up")
    return Plan(class_of("cast")(name, saturate, rounding), (0,))


def _bit_cast(call: Call) -> Plan:
    name, bits = DATA_TYPES.get(call.integer("to"), ("undefined", 0))
    if bits != dict(DATA_TYPES.values()).get(call.dtypes[0]):
        call.refuse(f"of {call.dtypes[0]} to {name}")
    return Plan(class_of("cast")(name))


def _quantize(call: Call) -> Plan:
    dtype = call.dtypes[2] if call.has(2) else DATA_TYPES.get(call.integer("output_dtype", 2), ("uint8", 8))[0]
    return _quantized(call, dtype, back=False)


def _dequantize(call: Call) -> Plan:
    kind = call.integer("output_dtype")
    return _quantized(call, DATA_TYPES[kind][0] if kind in DATA_TYPES else call.dtypes[1], back=True)


def _quantized(call: Call, dtype: str, *, back: bool) -> Plan:
    return Plan(class_of("quantize")(dtype, back, call.integer("axis", 1), call.integer("block_size")))


def _join(kind: str) -> Op:
    """Sum, and joins that ONNX allows of a single tensor."""

    def op(call: Call) -> Layer:
        layer: Layer = class_of(kind)() if len(call.given()) > 1 else class_of("identity")()
        return layer

    return op


# --- along axes ----------------------------------------------------------------------------------------------------


def _reduce(name: str) -> Op:
    def op(call: Call) -> Plan:
        axes = call.either("axes", 1)
        if not axes and call.integer("noop_with_empty_axes"):
            return Plan(class_of("identity")(), (0,))
        dims = tuple(axes) if axes else None
        return Plan(class_of("reduce")(name, dims, bool(call.integer("keepdims", 1))), (0,))

    return op


def _arg(name: str) -> Op:
    return lambda call: class_of("reduce")(name, (call.integer("axis"),), bool(call.integer("keepdims", 1)))


def _top_k(call: Call) -> Plan:
    k = call.whole(1, "k")[0] if call.has(1) else call.integer("k")
    return Plan(class_of("topk")(k, call.integer("axis", -1), bool(call.integer("largest", 1))), (0,))


def _cumulate(name: str) -> Op:
    return lambda call: Plan(class_of("cumulate")(call.scalar(1, "axis"), name), (0,))


_FUNCTIONS = {name: name.lower() for name in (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Exp", "Floor", "Hardmax",
    "IsInf", "IsNaN", "Log", "Neg", "Not", "Reciprocal", "Round", "Shrink", "Sign", "Sin", "Sinh", "Sqrt", "Tan",
)} | {"BitwiseNot": "bit_not"}  # fmt: skip
_COMBINATIONS = {
    "Sub": "sub", "Div": "div", "Pow": "pow", "Mod": "mod", "Max": "max", "Min": "min", "Mean": "mean",
    "Equal": "equal", "Greater": "greater", "GreaterOrEqual": "greater_equal", "Less": "less",
    "LessOrEqual": "less_equal", "And": "and", "Or": "or", "Xor": "xor", "BitwiseAnd": "bit_and",
    "BitwiseOr": "bit_or", "BitwiseXor": "bit_xor", "BitShift": "bit_shift",
}  # fmt: skip
_REDUCTIONS = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "l1", "ReduceL2": "l2", "ReduceLogSum": "logsum", "ReduceLogSumExp": "logsumexp",
    "ReduceSumSquare": "sumsquare",
}  # fmt: skip

OPS: dict[str, Op] = {
    "Relu": plain("relu"), "Sigmoid": plain("sigmoid"), "Tanh": plain("tanh"), "Softplus": plain("softplus"),
    "Softsign": plain("softsign"), "Mish": plain("mish"), "HardSwish": plain("hardswish"), "Elu": _elu,
    "Celu": _celu, "Selu": _selu, "LeakyRelu": _leaky_relu, "ThresholdedRelu": _thresholded_relu, "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid, "Swish": _swish, "PRelu": _prelu, "Clip": _clip, "Softmax": _softmax,
    "LogSoftmax": _softmax, "Dropout": _dropout,
    "Add": plain("add"), "Mul": plain("mul"), "Sum": _join("add"), "Where": _where, "Trilu": _trilu,
    "Cast": _cast, "CastLike": _cast, "BitCast": _bit_cast, "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "ArgMax": _arg("argmax"), "ArgMin": _arg("argmin"), "TopK": _top_k, "CumSum": _cumulate("sum"),
    "CumProd": _cumulate("prod"),
    **{op: _function(name) for op, name in _FUNCTIONS.items()},
    **{op: _combine(name) for op, name in _COMBINATIONS.items()},
    **{op: _reduce(name) for op, name in _REDUCTIONS.items()},
}  # fmt: skip
