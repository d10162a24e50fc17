"""What a run will hold in memory at once, and whether the machine has it.

The tensors are those that `memory` counts as alive while a layer runs, without those that are never made where layers
run as one; weights are there all the time. What a kernel holds besides, such as the columns of a convolution, is in
`WORKING`. Sizes of blocks, phases and joined layers are asked of the modules that compute with them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from convcalc.analysis.memory import Tensors, inputs_of
from convcalc.analysis.shapes import Resolved, label
from convcalc.errors import ResourceError
from convcalc.executor import channels_last, special
from convcalc.executor.activation import formula_of
from convcalc.executor.algorithms import algorithm_for
from convcalc.executor.attention import heads_together
from convcalc.executor.blas import can_add
from convcalc.executor.blocks import BLOCK_ELEMENTS, Block, Problem, rows_read
from convcalc.executor.channel_products import part_elements, parts_at_once
from convcalc.executor.channels_last import VARIANTS, places_of, rows_blocks
from convcalc.executor.columns import grouped_parts, im2col_blocks, pointwise_parts
from convcalc.executor.conv import COLUMN_LIMIT, by_phases, padded_problem
from convcalc.executor.format_choice import channels_last_tensors
from convcalc.executor.fourier import lengths, spectrum_elements
from convcalc.executor.fusion import can_join, joined_runs
from convcalc.executor.kernels import kernel_of, parts_of
from convcalc.executor.kn2row import kn2row_blocks
from convcalc.executor.model import computed_weights
from convcalc.executor.pieces import TYPES, program
from convcalc.executor.rows import band_of, rows_parts
from convcalc.executor.subpixel import algorithm_of_phase, phases, together
from convcalc.executor.threads import thread_count
from convcalc.executor.winograd import APART, TRANSFORM_ELEMENTS, by_channels, tiles_of, winograd_blocks
from convcalc.layers.activation import Elementwise
from convcalc.layers.base import Shape
from convcalc.limits import available_memory
from convcalc.network import Network
from convcalc.render.units import bytes_text
from convcalc.tracing import ceil_div, per_axis, product


class Plan(NamedTuple):
    """The bytes at the worst layer: tensors alive, weights of the whole network, and what the kernel holds besides."""

    layer: str
    tensors: int
    weights: int
    working: int

    @property
    def total(self) -> int:
        return self.tensors + self.weights + self.working


class Room(NamedTuple):
    """Numbers that a kernel holds besides what comes in and goes out.

    `passing` are gone when it is done; `tiles` and `columns` are the threads' own arrays, of Winograd and of all else,
    which the next layer finds there; `derived` were worked out from the weights once, and stay.
    """

    passing: int = 0
    tiles: int = 0
    columns: int = 0
    derived: int = 0


Working = Callable[[Any, Sequence[Shape], Sequence[Shape], "np.dtype[Any]"], Room]


def _conv(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """By its algorithm, and the copy of the input that other padding than zeros takes."""
    problem, padded = padded_problem(layer, inputs[0], outputs[0])
    room = _convolution(algorithm_for(problem, [dtype]), problem, bias=layer.bias, dtype=dtype)
    return room._replace(passing=room.passing + padded)


def _convolution(name: str, problem: Problem, *, bias: bool, dtype: np.dtype[Any]) -> Room:
    """What one algorithm takes."""
    outputs = product(problem.output)
    if name == "direct":
        columns = problem.input[1] * problem.taps * product(problem.output[2:])
        together = max(min(problem.input[0] * columns, COLUMN_LIMIT), columns)
        padded = product(problem.input) * any(map(any, problem.pads))
        # A product for every part of the batch, and then all of them in one; or the sum with the bias.
        return Room(int(padded + max(together + outputs * (parts_of(problem.depth) > 1), outputs)))
    derived, doubles = _derived(name, problem, bias=bias)
    making = doubles * 8 // dtype.itemsize
    if name == "fft":
        # Of an image both transforms in and out, each laid out a second time, in double precision or less.
        spectra = product(lengths(problem)) * 4 * (problem.input[1] + problem.output[1])
        return Room(max(int(min(thread_count(), problem.output[0]) * spectra), making), derived=derived)
    in_tiles = name.startswith("winograd")
    rooms = _winograd_rooms(name, problem) if in_tiles else _rooms(name, problem, dtype)
    kept = min(thread_count(), len(rooms)) * int(max(rooms))
    return Room(making, kept * in_tiles, kept * (not in_tiles), derived)


def _rooms(name: str, problem: Problem, dtype: np.dtype[Any]) -> list[int]:
    """The numbers that a thread works with, block by block: what is padded and laid out, and what comes of it."""
    apart = not can_add(dtype)
    in_parts = 1 + (parts_of(problem.depth) > 1)
    channels_out = problem.output[1]
    if name == "pointwise":
        places = product(problem.output[2:])
        # Where sums cannot be added to what is there, each part has an array of its own.
        return [(last - first) * places * (in_parts - 1) * apart for _, first, last in pointwise_parts(problem)]
    if name == "kn2row":
        width = product(problem.widths)
        return [_padded(problem, block) + 3 * channels_out * block.height * width for block in kn2row_blocks(problem)]
    if name == "im2col":
        row = product(problem.output[3:])
        return [
            _padded(problem, block)
            + block.many * block.height * row * (problem.depth + 1 + channels_out * (in_parts if apart else 1))
            for block in im2col_blocks(problem)
        ]
    if name == "rows":
        step, across = problem.stride[0], product(problem.output[3:])
        laid = problem.depth // problem.kernel_size[0] * across
        made = channels_out // problem.groups * across * (in_parts - 1)
        return [
            block.many
            * (last - first)
            * (((block.height - 1) * step + problem.kernel_size[0]) * laid + block.height * made)
            for block, first, last in rows_parts(problem)
        ]
    row = product(problem.widths if set(problem.stride) == {1} else problem.output[3:])
    places = problem.depth + 1 + channels_out // problem.groups * in_parts
    return [
        (_padded(problem, block) // problem.groups + block.many * block.height * row * places) * (last - first)
        for block, first, last in grouped_parts(problem)
    ]


def _channels_last(name: str, problem: Problem) -> Room:
    """What a convolution takes of tensors whose channels lie last, by an algorithm for them other than Winograd's."""
    variant, across = VARIANTS[name], product(problem.output[3:])
    weights = int(problem.output[1] * problem.depth)
    if variant == "rows":
        step, taps = problem.stride[0], problem.kernel_size[0]
        row, made = problem.depth // taps * across, problem.output[1] * across
        rooms = [
            block.many * (((block.height - 1) * step + taps) * row + block.height * made)
            for block in rows_blocks(problem)
        ]
        return Room(columns=min(thread_count(), len(rooms)) * int(max(rooms)), derived=weights)
    places, terms = places_of(problem), problem.depth
    by_parts = parts_at_once(places, terms, problem.output[1]) > 0
    derived = weights * (by_parts or problem.taps > 1)
    windows = 0
    if variant == "im2col":
        turned = channels_last.turned_at_once(problem) * problem.output[1]
        laid = [
            _padded(problem, block) + block.many * block.height * across * (problem.depth + turned)
            for block in channels_last.im2col_blocks(problem)
        ]
        windows = min(thread_count(), len(laid)) * int(max(laid))
    return Room(columns=windows + part_elements(places, terms, problem.output[1]), derived=derived)


def _padded(problem: Problem, block: Block) -> int:
    """The copy of the input that a block takes where there is padding."""
    top, bottom = rows_read(problem, block.start, block.stop)
    copied = any(map(any, problem.pads)) or bottom > problem.input[2]
    return int(block.many * problem.input[1] * (bottom - top) * product(problem.widths)) * copied


def _winograd_rooms(name: str, problem: Problem) -> list[int]:
    """The same of Winograd's blocks: tiles that are gathered, transformed and multiplied, and what is padded."""
    tiles, points = _tiles(name, problem)
    across = product(per_axis(ceil_div, problem.output[3:], tiles[1:]))
    channels, channels_out, outputs = problem.input[1], problem.output[1], product(tiles)
    # Tiles at all points, gathered there or put together here, their products, what is padded, and what is turned.
    spot = points * (channels + channels_out) + max(points * channels, outputs * channels_out)
    spot += outputs * (2 * channels + channels_out + APART)
    if by_channels(problem, tiles):
        # The tiles of all channels at all points are shared; for the rest each thread has its part of the channels.
        count = thread_count()
        spots = problem.output[0] * ceil_div(problem.output[2], tiles[0]) * across
        return [ceil_div(int(spots * spot), count)] * count
    return [int(block.many * block.height * across * spot) for block in winograd_blocks(problem, tiles)]


def _tiles(name: str, problem: Problem) -> tuple[tuple[int, ...], int]:
    """The outputs of a tile along each axis, and the points at which it is multiplied."""
    tiles = tiles_of(problem.kernel_size, int(name.removeprefix("winograd")))
    return tiles, product(per_axis(lambda outputs, taps: outputs + taps - 1, tiles, problem.kernel_size))


def _derived(name: str, problem: Problem, *, bias: bool) -> tuple[int, int]:
    """The numbers that are made from the weights once and kept, and those in double precision while they are made.

    What is made: Winograd's transforms, spectra, or a copy that has the bias beside the weights.
    """
    weights = int(product(problem.output[1:2]) * problem.depth)
    if name == "fft":
        return 2 * spectrum_elements(problem), 3 * spectrum_elements(problem)
    if name.startswith("winograd"):
        _, points = _tiles(name, problem)
        made = points * weights // problem.taps
        return made, min(TRANSFORM_ELEMENTS, made) * 2
    if name == "kn2row":
        return weights, 0
    if name == "rows":
        band, taps = band_of(problem), problem.kernel_size[0]
        return weights // taps * band * ((band - 1) * problem.stride[0] + taps), 0
    return (weights + problem.output[1]) * (bias and name != "pointwise"), 0


def algorithm_of(item: Resolved, dtype: np.dtype[Any]) -> str:
    """By which algorithm a layer is computed: "direct" where there is no choice.

    A transposed convolution by phases has one for each, of which this is the first's.
    """
    if item.layer.kind == "convt" and by_phases(item.layer, item.inputs[0], [dtype]):  # type: ignore[arg-type]  # is one
        found = (phase.problem for phase in phases(item.layer, item.inputs[0], item.outputs[0]))  # type: ignore[arg-type]
        return next((algorithm_of_phase(problem, dtype) for problem in found if problem is not None), "direct")
    if item.layer.kind != "conv":
        return "direct"
    return algorithm_for(padded_problem(item.layer, item.inputs[0], item.outputs[0])[0], [dtype])  # type: ignore[arg-type]  # it is one


def not_by(name: str, resolved: Sequence[Resolved], dtype: np.dtype[Any]) -> str:
    """Which convolutions are computed by another algorithm than this one, which is forced, in words; "" if none is."""
    able = [item for item in resolved if item.layer.kind in ("conv", "convt")]
    others = [item for item in able if algorithm_of(item, dtype) != name]
    if not able:
        return f"no layer is a convolution, which {name} could compute"
    if not others:
        return ""
    first = others[0]
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    return f"{name} cannot compute layer {label(first.node)}{more}; {algorithm_of(first, dtype)} does, as the rule says"


def _conv_transpose(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """All phases in one or one by one, each a convolution with weights of its own; or every image's columns at once.

    What a phase gives is written into the output, of which some algorithms make a copy first.
    """
    x, y = inputs[0], outputs[0]
    if not by_phases(layer, x, [dtype]):
        columns = x[0] * y[1] * product(layer.kernel_size) * product(x[2:]) * (1 + (parts_of(layer.bound[0]) > 1))
        whole = y[0] * y[1] * product(per_axis(lambda size, pair: size + sum(pair), y[2:], layer.padding))
        return Room(int(columns + whole + product(y) * layer.bias))
    whole_problem = together(layer, x, y)
    if whole_problem is not None:
        problem = whole_problem.problem
        room = _convolution(algorithm_of_phase(problem, dtype), problem, bias=layer.bias, dtype=dtype)
        passing = room.passing + product(problem.output) + product(problem.input)
        return room._replace(passing=int(passing), derived=room.derived + int(problem.output[1] * problem.depth))
    rooms = []
    for problem in filter(None, (phase.problem for phase in phases(layer, x, y))):
        name = algorithm_of_phase(problem, dtype)
        room = _convolution(name, problem, bias=layer.bias, dtype=dtype)
        copies = product(problem.output) + product(problem.input) + room.passing
        weights = int(problem.output[1] * problem.depth)
        rooms.append(room._replace(passing=int(copies), derived=room.derived + weights))
    passing, tiles, columns = (max((room[i] for room in rooms), default=0) for i in range(3))
    return Room(passing, tiles, columns, sum(room.derived for room in rooms))


def _pool(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """What is reduced along some axes, plane by plane; the windows, where it is asked which element was chosen."""
    x, y = inputs[0], outputs[0]
    plane = max(product(y[2 : axis + 1]) * product(x[axis + 1 :]) for axis in range(2, len(x)))
    planes = min(product(x[:2]), max(1, BLOCK_ELEMENTS // max(product(x[2:]), 1)))
    reduced = (len(x) > 3) * thread_count() * min(len(x) - 3, 2) * planes * plane
    windows = product(layer.kernel_size) * product(y) if len(outputs) > 1 else 0
    copies = {"maxpool": 0, "avgpool": product(y), "lppool": product(x) + product(y)}[layer.kind]
    return Room(int(max(reduced + copies, 2 * windows + product(x) * bool(windows))))


def _other(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """So many arrays as `COPIES` says, of the size of the largest that comes in or goes out."""
    copies = 0 if layer.view else COPIES.get(layer.kind, 2)
    return Room(int(copies * max(map(product, (*inputs, *outputs)), default=0)))


def _batch_norm(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """What each channel is multiplied by and what is added, kept; or what the statistics of the batch take."""
    return Room(derived=2 * outputs[0][1]) if "running_mean" in layer.buffers() else Room(int(product(outputs[0])))


def _elementwise(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """The pieces that its program works in, which are the threads' own."""
    return Room(columns=_activating(layer, int(product(outputs[0])), dtype))


def _activating(layer: Elementwise, size: int, dtype: np.dtype[Any], *, in_place: bool = False) -> int:
    """The numbers that an activation of so many takes: its program's, or whole arrays where there is none."""
    if layer.kind == "relu" and in_place:
        return 0
    if layer.parameters() or dtype not in TYPES:
        return COPIES.get(layer.kind, 2) * size
    kernel_of(layer)  # which loads what its family has
    made = program(formula_of(layer), layer.arguments, "f", dtype, in_place=in_place)
    doubles = layer.kind == "gelu" and dtype == np.float64
    return made.room(size) + doubles * special.WORKING * made.hands(size)


def _upsample(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """Axis by axis: what an axis gives, and where it is a sum of neighbours that sum and the next part of it."""
    copies = 1 if layer.mode.startswith("nearest") else 2 if layer.mode == "area" else 3
    return Room(copies * int(product(outputs[0])))


def _attention(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """For each thread the scores of heads that share their keys, and what is added to them; a copy of what comes in."""
    query, key, value = layer.heads(inputs)
    shared = query[1] // key[1]
    few = heads_together(int(key[1]), int(shared * query[2] * key[2]), dtype)
    scores = few * shared * query[2] * key[2]
    # A mask, and what is seen besides, both as far as they are not the same for all.
    masks = sum(map(product, inputs[3:])) + (query[2] * key[2] * 2 if layer.masked else 0)
    copies = product(outputs[0]) * (len(inputs[0]) == 3) + (product(key) + product(value)) * bool(layer.past)
    heads = few * shared * product(query[2:])
    return Room(int(thread_count() * (scores + heads) + masks + copies))


def _multihead(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """What is projected, and the attention on it."""
    three = layer.by_batch(inputs)
    inner = layer.attention()
    return Room(2 * sum(map(product, three)) + _attention(inner, three, inner.infer(*three), dtype).passing)


def _recurrent(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """What the input adds to the gates of one direction at all steps, or of those that threads share.

    Then the outputs of each direction, and those together. An LSTM's weights are kept as its steps take them.
    """
    steps = product(inputs[0][:2])
    lstm = layer.kind == "onnxlstm"
    at_once = min(layer.directions, thread_count()) if lstm else 1
    gates = at_once * steps * layer.gates * layer.hidden_size
    weights = sum(map(product, layer.parameters().values())) if lstm else 0
    return Room(int(gates + product(outputs[0]) + product(inputs[0])), derived=int(weights))


def _stack(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """The worst of its layers, their weights in ONNX's order, and what the layer before gave."""
    steps = product(inputs[0][:2])
    rooms, weights = [], 0
    for single in layer.levels():
        came = (*inputs[0][:2], single.input_size)
        (first, *_) = single.infer(came)
        room = _recurrent(single, (came,), (first,), dtype)
        weights += sum(map(product, single.parameters().values())) + room.derived
        rooms.append(room.passing + 2 * product(first))
    return Room(int(max(rooms) + steps), derived=int(weights))


def _spectrum(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """Complex numbers of the parts that come in, frames of them times a window, and what the transform gives.

    NumPy's works in double precision, but for the way back: there are copies of what goes in and comes out.
    """
    made, is_complex = product(outputs[0]), inputs[0][-1] == 2 and len(inputs[0]) > 2
    numbers = layer.framed(inputs, outputs) if layer.kind == "stft" else product(inputs[0])
    held = 2 * product(inputs[0]) * is_complex + numbers * (len(inputs) > 1) + made
    wide = 8 // dtype.itemsize
    if wide > 1 and not getattr(layer, "inverse", False):
        held += wide * (numbers * (1 if is_complex or layer.onesided else 2) + made)
    return Room(int(held))


def _samples(layer: Any, inputs: Sequence[Shape], outputs: Sequence[Shape], dtype: np.dtype[Any]) -> Room:
    """Neighbours and their weights, the sum and the next part of it; of a convolution these for every tap."""
    if layer.kind == "deformconv":
        columns = product((inputs[0][0], layer.in_channels, *layer.kernel_size, *outputs[0][2:]))
        return Room(int(3 * columns + 12 * product(inputs[1])))
    return Room(int(3 * product(outputs[0]) + 12 * product(inputs[1])))


_KINDS_BY_COPIES = {
    0: ("linear", "prelu", "dropout", "alphadropout", "featurealphadropout", "channelshuffle", "pixelshuffle",
        "pixelunshuffle", "unfold", "crop", "concat", "pad", "constantpad", "zeropad", "add", "mul", "instancenorm",
        "groupnorm", "layernorm", "rmsnorm", "softmax", "softmax2d", "logsoftmax", "adaptiveavgpool", "globalavgpool"),
    1: ("softmin",),
    3: ("localresponsenorm",),
}  # fmt: skip
COPIES = {kind: count for count, kinds in _KINDS_BY_COPIES.items() for kind in kinds}
"""How many arrays the steps of a kind's formula take besides what goes in and out; 2 for what is not here."""

WORKING: dict[str, Working] = {
    "conv": _conv,
    "convt": _conv_transpose,
    **dict.fromkeys(("maxpool", "avgpool", "lppool"), _pool),
    **dict.fromkeys(("upsample", "upsamplingnearest", "upsamplingbilinear"), _upsample),
    **dict.fromkeys(("batchnorm", "syncbatchnorm"), _batch_norm),
    "attention": _attention,
    "multiheadattention": _multihead,
    **dict.fromkeys(("onnxlstm", "onnxgru", "onnxrnn"), _recurrent),
    **dict.fromkeys(("lstm", "gru", "rnn"), _stack),
    **dict.fromkeys(("gridsample", "deformconv"), _samples),
    **dict.fromkeys(("dft", "stft"), _spectrum),
}
"""What the kernel of a kind of layer holds; `_other` for the rest."""


def _room(items: Sequence[Resolved], dtype: np.dtype[Any], lying: Collection[str] = ()) -> Room:
    """What layers hold that run as one: a convolution whose weights are scaled, and whose blocks are activated.

    `lying` are the tensors that have their channels last.
    """
    first, last = items[0], items[-1]
    found = _elementwise if isinstance(first.layer, Elementwise) else WORKING.get(first.layer.kind, _other)
    room = found(first.layer, first.inputs, first.outputs, dtype)
    if first.layer.kind == "conv" and not {first.node.inputs[0], *last.node.outputs}.isdisjoint(lying):
        problem, _ = padded_problem(first.layer, first.inputs[0], first.outputs[0])  # type: ignore[arg-type]  # it is one
        name = algorithm_for(problem, [dtype])
        if not name.startswith("winograd"):  # its tiles always lie so
            room = _channels_last(name, problem)
    if len(items) == 1:
        return room
    outputs = int(product(first.outputs[0]))
    blocks = min(outputs, thread_count() * BLOCK_ELEMENTS)
    if first.layer.kind != "conv":
        activating = _activating(last.layer, blocks, dtype, in_place=True)  # type: ignore[arg-type]  # is one
        return Room(columns=activating, derived=room.derived)
    passing, tiles, columns, derived = room
    if any(item.layer.kind == "batchnorm" for item in items):
        # The scaled weights, in double precision first, and then what the algorithm makes of them.
        weights = int(product(first.layer.parameters()["weight"]))
        passing = max(passing, weights * 8 // dtype.itemsize) + weights
        derived = max(derived, weights + first.outputs[0][1])
    if not isinstance(last.layer, Elementwise):
        return Room(passing, tiles, columns, derived)
    whole = algorithm_of(first, dtype) == "direct"
    activated = outputs if whole else min(outputs, max(tiles, columns, blocks * 4))
    activating = _activating(last.layer, activated, dtype, in_place=True)
    # Blocks that lie apart are activated beside where they stand, and then copied there.
    return Room(passing + activated * (not whole), tiles, columns + activating, derived)


def _gradients(item: Resolved, dtype: np.dtype[Any]) -> int:
    """What the gradient of a layer holds besides it.

    Of a convolution what the transposed one works in, or the other way round; then what is laid out for the weight's.
    """
    if item.layer.kind not in ("conv", "convt"):
        return int(4 * max(map(product, (*item.inputs, *item.outputs)), default=0))
    from convcalc.executor.gradients.conv import input_back, laid_out, read_problem

    layer: Any = item.layer
    x, y = item.inputs[0], item.outputs[0]
    if layer.kind == "conv":
        problem, padded = padded_problem(layer, x, y)
        room = _conv_transpose(input_back(problem), [y], [problem.input], dtype)
    else:
        (_, problem), padded = read_problem(layer, x, y), 0
        room = _convolution(algorithm_for(problem, [dtype]), problem, bias=False, dtype=dtype)
    weights = int(problem.output[1] * problem.depth)
    back = sum(room) + 2 * padded
    return int(back + laid_out(problem) + 2 * weights)


def plan(
    network: Network, resolved: Sequence[Resolved], dtype: str, *, keep: bool = False, copies: int | None = None
) -> Plan:
    """The worst moment of a run, as `moments` has them."""
    found = moments(network, resolved, dtype, keep=keep, copies=copies)
    return max(found, key=lambda moment: moment.total, default=Plan("", 0, 0, 0))


def moments(
    network: Network, resolved: Sequence[Resolved], dtype: str, *, keep: bool = False, copies: int | None = None
) -> list[Plan]:
    """What is alive while each layer runs, or layers that run as one, in numbers of this type.

    With `keep` no tensor is let go. With `copies` it is a step of training: every tensor is kept, has a gradient, and
    there are so many arrays of the size of each weight besides the weights themselves.
    """
    tensors = Tensors(network, resolved, dtype)
    kind = np.dtype(dtype)
    training = copies is not None
    joined = not (keep or training) and can_join([kind])
    joined = joined and not any(computed_weights(network, item.node) for item in resolved)
    runs = joined_runs(network, resolved) if joined else [(item,) for item in resolved]
    weights = sum(
        int(product(shape))
        for item in resolved
        for shape in (*item.layer.parameters().values(), *item.layer.buffers().values())
    )
    weights *= 1 + (copies or 0)
    living = tensors.alive(runs)
    if keep or training:
        living = [tensors.activations * (1 + training)] * len(runs)
    last = {name: index for index, run in enumerate(runs) for name in (*inputs_of(run), *run[-1].node.outputs)}
    lying = channels_last_tensors(network, runs, kind) if joined else frozenset()
    rooms = [_room(run, kind, lying) for run in runs]
    weights += sum(room.derived for room in rooms)
    found, tiles = [], 0
    columns: dict[str, int] = {}  # each algorithm works in arrays of its own
    for index, (run, alive, room) in enumerate(zip(runs, living, rooms, strict=True)):
        way = algorithm_of(run[0], kind) if run[0].layer.kind == "conv" else ""
        tiles, columns[way] = max(tiles, room.tiles), max(columns.get(way, 0), room.columns)
        working = max(room.passing + tiles + sum(columns.values()), _gradients(run[0], kind) if training else 0)
        # Who runs the network holds its inputs all the time.
        over = [name for name in network.inputs if last.get(name, -1) < index]
        held = 0 if keep or training else sum(tensors.sizes[name] for name in over)
        found.append(Plan(label(run[0].node), alive + held, kind.itemsize * weights, kind.itemsize * working))
    return found


def need(planned: Plan, there: int = 0) -> None:
    """Raise `ResourceError` when a plan is more than the memory that is free, `there` of its bytes being held already.

    A system promises memory that it does not have, and ends whoever then uses it.
    """
    free = available_memory() + there
    if planned.total > free:
        raise ResourceError(
            f"running this needs {bytes_text(planned.total)} at layer {planned.layer}: {bytes_text(planned.tensors)}"
            f" of tensors, {bytes_text(planned.weights)} of weights and {bytes_text(planned.working)} to work in;"
            f" {bytes_text(free)} are free",
            value=planned.total,
        )
