"""ONNX's Fourier transforms."""

from __future__ import annotations

from convcalc.onnx.ops.calls import Call, Op, Plan, class_of


def _dft(call: Call) -> Plan:
    # An attribute became an input with opset 20, and its default another.
    given = call.integer("axis", 1 if call.opset < 20 else -2)
    axis = call.scalar(2, "axis") if call.opset >= 20 and call.has(2) else given
    length = call.scalar(1, "dft_length") if call.has(1) else None
    return Plan(class_of("dft")(axis, length, bool(call.integer("inverse")), bool(call.integer("onesided"))), (0,))


def _stft(call: Call) -> Plan:
    length = call.scalar(3, "frame_length") if call.has(3) else None
    layer = class_of("stft")(call.scalar(1, "frame_step"), length, bool(call.integer("onesided", 1)))
    return Plan(layer, call.given_of(0, 2))


OPS: dict[str, Op] = {"DFT": _dft, "STFT": _stft}
