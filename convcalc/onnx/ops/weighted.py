"""ONNX's ops that have weights, but for those that move a window: matrix products, attention and norms."""

from __future__ import annotations

from typing import Any

from convcalc.layers.base import Layer
from convcalc.onnx.ops.calls import Call, Op, Plan, axis_of, class_of, plain
from convcalc.tracing import product

# --- matrix products ------------------------------------------------------------------------------------------------


def _gemm(call: Call) -> Plan:
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    transa, transb = bool(call.integer("transA")), bool(call.integer("transB"))
    weight = call.shape(1)
    plain = alpha == beta == 1 and transb and not transa and call.constant(call.inputs[1]) and len(weight) == 2
    if plain and len(call.shape(0)) == 2 and (not call.has(2) or call.shape(2) == weight[:1]):
        layer = class_of("linear")(weight[1], weight[0], call.has(2))
        return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})
    return Plan(class_of("gemm")(alpha, beta, transa, transb))


def _matmul_integer(call: Call) -> Plan:
    if call.has(3) and not call.has(2):
        call.refuse("with a zero point for the second factor alone")
    return Plan(class_of("matmul")(), call.given_of(0, 1, 2, 3), dtypes=("int32",))


def _qlinear_matmul(call: Call) -> Plan:
    return Plan(class_of("matmul")(), (0, 3, 1, 2, 4, 5, 6, 7), dtypes=call.dtypes[7:8])


def _attention(call: Call) -> Plan:
    past = call.shape(4)[2] if call.has(4) else 0
    extra = ("key", "value", "scores")[: len(call.outputs) - 1]
    named = {3: "mask", 4: "past_key", 5: "past_value", 6: "lengths"}
    places = call.given_of(*named)
    causal = bool(call.integer("is_causal"))
    layer = class_of("attention")(
        call.integer("q_num_heads") or None,
        call.integer("kv_num_heads") or None,
        past,
        call.has(3) or causal,
        extra,
        tuple(named[place] for place in places),
        causal,
        (call.integer("left_window_size", -1), call.integer("right_window_size", -1)),
        call.number("scale", 0.0) or None,
        call.number("softcap", 0.0),
        call.integer("qk_matmul_output_mode"),
    )
    return Plan(layer, (0, 1, 2, *places))


def _einsum(call: Call) -> Layer:
    layer: Layer = class_of("einsum")(call.text("equation", ""))
    return layer


# --- norms ----------------------------------------------------------------------------------------------------------


def _batch_norm(call: Call) -> Plan:
    training = call.integer("training_mode") or any(call.outputs[1:])
    layer = (class_of("batchnormtraining") if training else _batch_norm_class())(
        call.shape(1)[0], call.number("epsilon", 1e-5), round(1 - call.number("momentum", 0.9), 9)
    )
    return Plan(layer, (0,), {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4})


def _batch_norm_class() -> Any:
    from convcalc.layers.norm import BatchNorm

    return BatchNorm


def _instance_norm(call: Call) -> Plan:
    from convcalc.layers.norm import InstanceNorm, InstanceNormOfOne

    cls = InstanceNormOfOne if product(call.shape(0)[2:]) == 1 else InstanceNorm
    layer = cls(call.shape(1)[0], call.number("epsilon", 1e-5), affine=True)
    return Plan(layer, (0,), {"weight": 1, "bias": 2})


def _layer_norm(call: Call) -> Plan:
    shape = call.shape(0)
    axis = axis_of(call.integer("axis", -1), shape)
    kind = "layernormstatistics" if any(call.outputs[1:]) else "layernorm"
    layer = class_of(kind)(shape[axis:], call.number("epsilon", 1e-5), True, call.has(2))
    return Plan(layer, (0,), {"weight": 1, "bias": 2} if call.has(2) else {"weight": 1})


def _rms_norm(call: Call) -> Plan:
    shape = call.shape(0)
    axis = axis_of(call.integer("axis", -1), shape)
    return Plan(class_of("rmsnorm")(shape[axis:], call.number("epsilon", 1e-5)), (0,), {"weight": 1})


def _group_norm(call: Call) -> Plan:
    from convcalc.layers.norm import GroupNorm, GroupNormOfOne

    groups = call.integer("num_groups", 1)
    cls = GroupNormOfOne if product(call.shape(0)) == groups else GroupNorm
    if call.opset < 21:
        # Before opset 21 there is a scale for each group, not for each channel.
        return Plan(cls(groups, None, call.number("epsilon", 1e-5), False))
    layer = cls(groups, call.shape(0)[1], call.number("epsilon", 1e-5))
    return Plan(layer, (0,), {"weight": 1, "bias": 2})


def _lrn(call: Call) -> Layer:
    layer: Layer = class_of("localresponsenorm")(
        call.integer("size", 1), call.number("alpha", 1e-4), call.number("beta", 0.75), call.number("bias", 1.0)
    )
    return layer


OPS: dict[str, Op] = {
    "Gemm": _gemm, "MatMul": plain("matmul"), "MatMulInteger": _matmul_integer, "QLinearMatMul": _qlinear_matmul,
    "Einsum": _einsum, "Attention": _attention, "Det": plain("det"),
    "BatchNormalization": _batch_norm, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm, "RMSNormalization": _rms_norm, "LRN": _lrn,
}  # fmt: skip
