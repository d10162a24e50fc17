"""ONNX's ops that move elements and compute nothing: new shapes, parts, and copies."""

from __future__ import annotations

from convcalc.errors import ModelFileError, ShapeError
from convcalc.layers.base import Layer, Shape, shape_text
from convcalc.onnx.ops.calls import Call, Op, Plan, as_pairs, axis_of, class_of, plain, shortest
from convcalc.onnx.tensors import Tensor
from convcalc.tracing import ceil_div, product


def _shaped(shape: Shape) -> Plan:
    return Plan(class_of("shaped")(shape), (0,))


def _flatten(call: Call) -> Plan:
    shape, axis = call.shape(0), call.integer("axis", 1)
    if not -len(shape) <= axis <= len(shape):
        raise ShapeError(f"axis is {axis}, but the input {shape_text(shape)} has {len(shape)} axes", field="axis")
    axis = axis + len(shape) if axis < 0 else axis
    if axis == 1 and len(shape) > 1:
        return Plan(class_of("flatten")())
    return _shaped((int(product(shape[:axis])), int(product(shape[axis:]))))


def _reshape(call: Call) -> Plan:
    from convcalc.onnx.folding import reshaped

    wanted = call.whole(1, "new sizes")
    return _shaped(reshaped(call.shape(0), wanted, allow_zero=bool(call.integer("allowzero"))))


def _squeeze(call: Call) -> Plan:
    from convcalc.onnx.folding import squeezed

    return _shaped(squeezed(call.shape(0), call.either("axes", 1)))


def _unsqueeze(call: Call) -> Plan:
    from convcalc.onnx.folding import unsqueezed

    return _shaped(unsqueezed(call.shape(0), call.either("axes", 1) or []))


def _transpose(call: Call) -> Layer:
    rank = len(call.shape(0))
    layer: Layer = class_of("permute")(tuple(call.integers("perm") or range(rank)[::-1]))
    return layer


def _concat(call: Call) -> Plan:
    if len(call.given()) == 1:
        return Plan(class_of("identity")())
    return Plan(class_of("concat")(call.integer("axis")))


def _split(call: Call) -> Plan:
    shape = call.shape(0)
    axis = axis_of(call.integer("axis"), shape)
    sizes = call.either("split", 1)
    if sizes is None:
        count = len(call.outputs)
        each = ceil_div(shape[axis], count)
        sizes = [max(min(each, shape[axis] - part * each), 0) for part in range(count)]
    return Plan(class_of("split")(tuple(sizes), axis), (0,))


def _slice(call: Call) -> Plan:
    shape = call.shape(0)
    if call.opset < 10:
        starts, ends, axes, steps = call.integers("starts"), call.integers("ends"), call.integers("axes"), None
    else:
        starts, ends = call.whole(1, "starts"), call.whole(2, "ends")
        axes = call.whole(3, "axes") if call.has(3) else None
        steps = call.whole(4, "steps") if call.has(4) else None
    starts, ends = starts or [], ends or []
    axes = list(range(len(starts))) if axes is None else axes
    # Exporters write the largest number there is for "to the end".
    ends = [min(end, shape[axis_of(axis, shape)]) for end, axis in zip(ends, axes, strict=False)]
    return Plan(class_of("slice")(tuple(starts), tuple(ends), tuple(axis_of(axis, shape) for axis in axes),
                                tuple(steps or [1] * len(starts))), (0,))  # fmt: skip


def _gather(kind: str) -> Op:
    return lambda call: class_of(kind)(call.integer("axis"))


def _gather_nd(call: Call) -> Layer:
    layer: Layer = class_of("gathernd")(call.integer("batch_dims"))
    return layer


def _scatter(call: Call) -> Layer:
    dim = None if call.op == "ScatterND" else call.integer("axis")
    layer: Layer = class_of("scatter")(dim, call.text("reduction", "none"))
    return layer


def _expand(call: Call) -> Plan:
    return Plan(class_of("expand")(tuple(call.whole(1, "sizes"))), (0,))


def _tile(call: Call) -> Plan:
    return Plan(class_of("tile")(tuple(call.whole(1, "repeats"))), (0,))


def _constant_of_shape(call: Call) -> Plan:
    value = call.attributes.get("value")
    dtype = value.dtype if isinstance(value, Tensor) else "float32"
    numbers = value.numbers() if isinstance(value, Tensor) else None
    return Plan(class_of("fill")(tuple(call.whole(0, "sizes")), dtype, numbers[0] if numbers else 0.0), ())


def _pad(call: Call) -> Plan:
    shape, mode = call.shape(0), call.text("mode", "constant")
    pads = call.either("pads", 1) or []
    rank = len(shape)
    axes = [axis_of(axis, shape) for axis in call.whole(3, "axes")] if call.has(3) else list(range(rank))
    if len(pads) != 2 * len(axes):
        raise ModelFileError(f"{call.where}: {len(pads)} numbers of padding for {len(axes)} axes")
    pairs = [(0, 0)] * rank
    for axis, pair in zip(axes, as_pairs(pads), strict=True):
        pairs[axis] = pair
    value = call.number("value", 0.0)
    known = call.needed(call.inputs[2]) if call.has(2) else None
    lacking = "its value is computed while the model runs" if call.has(2) and known is None else ""
    if known is not None:
        value = shortest(float(known.items[0]))
    name = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    if rank in (3, 4, 5) and pairs[:2] == [(0, 0), (0, 0)]:
        return Plan(class_of("pad", rank - 2)(tuple(pairs[2:]), name, value), (0,), lacking=lacking)
    return Plan(class_of("padaxes")(tuple(pairs), name, value), (0,), lacking=lacking)


def _depth_to_space(call: Call) -> Layer:
    layer: Layer = class_of("depthtospace")(call.integer("blocksize"), call.text("mode", "DCR"))
    return layer


def _space_to_depth(call: Call) -> Layer:
    layer: Layer = class_of("spacetodepth")(call.integer("blocksize"), call.text("mode", "DCR"))
    return layer


OPS: dict[str, Op] = {
    "Identity": plain("identity"), "Flatten": _flatten, "Reshape": _reshape, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Transpose": _transpose, "Concat": _concat, "Split": _split, "Slice": _slice,
    "Gather": _gather("gather"), "GatherElements": _gather("gatherelements"), "GatherND": _gather_nd,
    "Scatter": _scatter, "ScatterElements": _scatter, "ScatterND": _scatter, "Expand": _expand, "Tile": _tile,
    "ConstantOfShape": _constant_of_shape, "Pad": _pad, "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
}  # fmt: skip
