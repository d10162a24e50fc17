"""ONNX's ops that look between pixels: resizing, and values at given places."""

from __future__ import annotations

from collections.abc import Sequence

from convcalc.errors import ModelFileError
from convcalc.layers.base import Layer
from convcalc.onnx.ops.calls import Call, Op, Plan, axis_of, class_of, shortest
from convcalc.tracing import floor


def _resize(call: Call) -> Plan:
    shape = call.shape(0)
    mode = call.text("mode", "nearest")
    scales, sizes = _scales(call)
    axes = [axis_of(axis, shape) for axis in call.integers("axes") or range(len(shape))]
    output = list(shape)
    part: dict[int, tuple[float, float]] = {}
    if call.text("coordinate_transformation_mode", "") == "tf_crop_and_resize":
        region = call.values(1, "region")
        part = dict(zip(axes, zip(region[: len(axes)], region[len(axes) :], strict=True), strict=True))
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if sizes is not None:
        if policy != "stretch":
            pick = min if policy == "not_larger" else max
            scale = pick(size / shape[axis] for axis, size in zip(axes, sizes, strict=True))
            scales = [scale] * len(axes)
            sizes = [floor(scale * shape[axis] + 0.5) for axis in axes]
        for axis, size in zip(axes, sizes, strict=True):
            output[axis] = size
    elif scales is not None:
        for axis, scale in zip(axes, scales, strict=True):
            start, end = part.get(axis, (0.0, 1.0))
            output[axis] = floor(shape[axis] * (end - start) * scale)
    else:
        raise ModelFileError(f"{call.where}: neither sizes nor scales are given")
    upsampled = _upsampled(call, mode, output, scales if sizes is None else None)
    if upsampled is not None:
        return Plan(upsampled, (0,))
    factors = None
    if sizes is None or policy != "stretch":
        factors = [1.0] * len(shape)
        for axis, scale in zip(axes, scales or (), strict=True):
            factors[axis] = scale
    old = call.op == "Upsample" or call.opset < 11
    layer = class_of("resize")(
        tuple(output),
        {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel"),
        "floor" if old else call.text("nearest_mode", "round_prefer_floor"),
        None if factors is None else tuple(factors),
        bool(call.integer("antialias")),
        bool(call.integer("exclude_outside")),
        call.number("cubic_coeff_a", -0.75),
        tuple(part.get(axis, (0.0, 1.0)) for axis in range(len(shape))) if part else None,
        call.number("extrapolation_value", 0.0),
    )
    return Plan(layer, (0,))


def _upsampled(call: Call, mode: str, output: Sequence[int], scales: Sequence[float] | None) -> Layer | None:
    """PyTorch's layer for a resize of spatial axes that finds its places as PyTorch does."""
    shape = call.shape(0)
    rank = len(shape) - 2
    if rank not in (1, 2, 3) or tuple(output[:2]) != shape[:2] or call.integers("axes"):
        return None
    old = call.op == "Upsample" or call.opset < 11
    where = "asymmetric" if old else call.text("coordinate_transformation_mode", "half_pixel")
    names = {"linear": ("linear", "bilinear", "trilinear"), "cubic": ("", "bicubic", "")}
    if mode == "nearest" and where == "asymmetric" and (old or call.text("nearest_mode", "") == "floor"):
        name, corners = "nearest", None
    elif mode in names and names[mode][rank - 1] and where in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        name, corners = names[mode][rank - 1], where == "align_corners"
        own = call.integer("exclude_outside") or call.number("cubic_coeff_a", -0.75) != -0.75
        if call.integer("antialias") or (mode == "cubic" and own):
            return None
        # PyTorch has no rule of its own for a single output element, nor for corners at a given scale.
        if (where == "pytorch_half_pixel" and 1 in output[2:]) or (corners and scales is not None):
            return None
    else:
        return None
    size = None if scales is not None else tuple(output[2:])
    layer: Layer = class_of("upsample")(size, None if scales is None else tuple(scales[2:]), name, corners)
    return layer


def _scales(call: Call) -> tuple[list[float] | None, list[int] | None]:
    """What Upsample and Resize take their sizes from, wherever their opset has it."""
    if call.op == "Upsample" or call.opset < 11:
        place = 1
        return (_factors(call, place) if call.has(place) else call.numbers("scales")), None
    if call.has(3):
        return None, call.whole(3, "sizes")
    return (_factors(call, 2) if call.has(2) else None), None


def _factors(call: Call, place: int) -> list[float]:
    """Scales as they were meant: 5 elements by 2.6 are 13, by the float32 next to 2.6 they would be 12."""
    return [shortest(scale) for scale in call.values(place, "scales")]


def _grid_sample(call: Call) -> Layer:
    mode = call.text("mode", "linear")
    layer: Layer = class_of("gridsample")(
        {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode),
        call.text("padding_mode", "zeros"),
        bool(call.integer("align_corners")),
    )
    return layer


def _roi_align(call: Call) -> Layer:
    usual = "half_pixel" if call.opset >= 16 else "output_half_pixel"
    layer: Layer = class_of("roialign")(
        (call.integer("output_height", 1), call.integer("output_width", 1)),
        call.number("spatial_scale", 1.0),
        call.integer("sampling_ratio"),
        call.text("coordinate_transformation_mode", usual) == "half_pixel",
        call.text("mode", "avg"),
    )
    return layer


OPS: dict[str, Op] = {
    "Resize": _resize, "Upsample": _resize, "GridSample": _grid_sample, "RoiAlign": _roi_align,
}  # fmt: skip
