"""ONNX's recurrent ops."""

from __future__ import annotations

from typing import Any

from convcalc.onnx.ops.calls import Call, Op, Plan, class_of


def _recurrent(kind: str) -> Op:
    def op(call: Call) -> Plan:
        weight = call.shape(1)
        direction = call.text("direction", "forward")
        fields: dict[str, Any] = {}
        if kind == "onnxlstm":
            fields = {"peepholes": call.has(7), "input_forget": bool(call.integer("input_forget"))}
        elif kind == "onnxgru":
            fields = {"linear_before_reset": bool(call.integer("linear_before_reset"))}
        places = call.given_of(4, 5, 6)
        layer = class_of(kind)(
            weight[-1],
            call.integer("hidden_size") or call.shape(2)[-1],
            2 if direction == "bidirectional" else 1,
            call.has(3),
            bool(call.integer("layout")),
            direction == "reverse",
            _activations(call),
            call.number("clip", 0.0) or None,
            tuple(("sequence_lens", "initial_h", "initial_c")[place - 4] for place in places),
            **fields,
        )
        names = {"weight_ih": 1, "weight_hh": 2, "bias": 3, "peephole": 7}
        return Plan(layer, (0, *places), {name: place for name, place in names.items() if call.has(place)})

    return op


_ALPHA_BETA: dict[str, tuple[float | None, float | None]] = {
    "affine": (1.0, 0.0), "elu": (1.0, None), "hardsigmoid": (0.2, 0.5), "leakyrelu": (0.01, None),
    "scaledtanh": (1.0, 1.0), "thresholdedrelu": (1.0, None),
}  # fmt: skip
"""The defaults of the activations that have an alpha, or both; the others have neither."""


def _activations(call: Call) -> tuple[tuple[str, float, float], ...]:
    """A recurrent layer's activations; those that have an alpha or a beta take theirs from the lists in turn."""
    names = call.attributes.get("activations") or ()
    alphas, betas = (iter(call.numbers(name) or ()) for name in ("activation_alpha", "activation_beta"))
    found = []
    for name in names:
        word = name.decode("utf-8", "replace").lower() if isinstance(name, bytes) else ""
        alpha, beta = _ALPHA_BETA.get(word, (None, None))
        found.append((word, 0.0 if alpha is None else next(alphas, alpha), 0.0 if beta is None else next(betas, beta)))
    return tuple(found)


OPS: dict[str, Op] = {"LSTM": _recurrent("onnxlstm"), "GRU": _recurrent("onnxgru"), "RNN": _recurrent("onnxrnn")}
