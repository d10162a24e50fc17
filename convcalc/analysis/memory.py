"""Memory: what every layer reads, writes and keeps, and the peak of it, in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.analysis.costs import needs_gradient, parts, total
from convcalc.analysis.report import Column, Report, Value
from convcalc.analysis.shapes import Resolved, View, base_row, diagnose, need_layers, resolve
from convcalc.analysis.unsaid import other_memory
from convcalc.layers.base import choice
from convcalc.network import Network
from convcalc.records import replace
from convcalc.tracing import product

DTYPES = {
    "float64": 8, "double": 8, "float32": 4, "float": 4, "float16": 2, "half": 2, "bfloat16": 2, "float8": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1,
}  # fmt: skip
"""Bytes an element."""

_FILE_BITS = {
    "uint16": 16, "uint32": 32, "uint64": 64, "complex64": 64, "complex128": 128, "uint4": 4, "int4": 4,
    "float4e2m1": 4, "uint2": 2, "int2": 2,
}  # fmt: skip
"""Bits an element of types that only tensors of model files have; one of 8 bits is what is left."""


def bytes_of(shape: tuple[int, ...], dtype: str) -> int:
    """The bytes of a tensor; bits are rounded up to whole bytes.

    >>> bytes_of((3, 3), "float32"), bytes_of((3, 3), "int4")
    (36, 5)
    """
    elements = int(product(shape))
    size = DTYPES.get(dtype)
    return elements * size if size is not None else -(-elements * _FILE_BITS.get(dtype, 8) // 8)


OPTIMIZERS = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}
"""How many tensors of a parameter's size an optimizer keeps for it."""


def memory(network: Network, *, dtype: str = "float32", train: bool = False, optimizer: str = "sgd") -> Report:
    """The bytes of every layer's input, output, weights and bias, and the peaks.

    `total` counts each tensor once, and what is only a view of another not at all. `peak` is the most that is alive
    while one layer runs at inference, every tensor freed after its last use, weights apart. With `train`: what autograd
    keeps (`saved`, each tensor once), the gradients of the parameters, and the state of the `optimizer`.

    `dtype` is one of `DTYPES`, the optimizer one of `OPTIMIZERS`. Raises `ShapeError` for an input that a layer cannot
    take, `LayerError` for an unknown dtype or optimizer.
    """
    choice("dtype", dtype, tuple(DTYPES))
    choice("optimizer", optimizer, tuple(OPTIMIZERS))
    need_layers(network)
    resolved = resolve(network, partial=True)
    view = View(network, resolved)
    tensors = Tensors(network, resolved, dtype)
    columns = [
        Column("input_bytes", "In", "bytes", total=False, wide=True),
        Column("output_bytes", "Out", "bytes", total=False),
        Column("weight", "Weight", "bytes"),
        Column("bias", "Bias", "bytes", wide=True),
        Column("live", "Alive", "bytes", total=False),
    ]
    if train:
        columns.append(Column("saved", "Kept", "bytes"))
    kept: set[str] = set()
    needed = needs_gradient(network, resolved, input_grad=False)
    rows = []
    living = tensors.alive()
    for item, alive in zip(resolved, living, strict=True):
        values: dict[str, Value] = {
            "input_bytes": None if item.unknown else tensors.read(item),
            "output_bytes": None if item.unknown else sum(tensors.sizes[name] for name in item.node.outputs),
            **tensors.parameters(item),
            "live": None if item.unknown else alive,
        }
        if train:
            values["saved"] = None if item.unknown else tensors.saved(item, kept, needed[item.node.name])
        row = base_row(item, view)
        rows.append(replace(row, values=values, reasons={**row.reasons, **_reasons(item)}))
    totals = total(columns, rows)
    parameters = sum(size for item in resolved for size in tensors.parameters(item).values() if size is not None)
    buffers = sum(sum(tensors.own(item.buffers).values()) for item in resolved)
    peak, peak_row = max(zip(living, rows, strict=True), key=lambda pair: pair[0])
    totals |= {
        "activations": tensors.activations,
        "parameters": parameters,
        "buffers": buffers,
        "total": tensors.activations + parameters + buffers,
        "peak": peak,
        "peak_layer": peak_row.name,
    }
    if train:
        # What autograd keeps includes parameters, which are there anyway.
        extra = tensors.saved_bytes(kept, parameters=False)
        state = OPTIMIZERS[optimizer] * parameters
        totals |= {
            "gradients": parameters,
            "optimizer": state,
            "training": 2 * parameters + state + buffers + extra,
        }
    answer = totals["training" if train else "total"]
    partial = parts(columns, rows)
    if network.hidden or "weight" in partial:
        partial |= {"weight", "bias", "parameters", "buffers", "total", *_TRAINING} & totals.keys()
    if any(item.unknown for item in resolved):
        partial |= {"activations", "total", "peak", "training"} & totals.keys()
    return Report(
        "memory",
        tuple(columns),
        tuple(rows),
        totals,
        answer,
        diagnose(network, resolved, other_memory),
        partial=frozenset(partial),
    )


_BUFFERS = {"num_batches_tracked": "int64"}
"""The types of buffers that are not the layer's own."""
_TRAINING = ("gradients", "optimizer", "training")


def inputs_of(run: Sequence[Resolved]) -> tuple[str, ...]:
    """The tensors that come into layers that run as one: all that they read and do not make."""
    made = {name for item in run for name in item.node.outputs}
    return tuple(name for item in run for name in item.node.inputs if name not in made)


class Tensors:
    """The bytes of every tensor of a network, and which tensors share their memory."""

    def __init__(self, network: Network, resolved: Sequence[Resolved], dtype: str) -> None:
        self.dtype = dtype
        self.resolved = resolved
        self.network = network
        self.sizes = {name: bytes_of(given.shape, self._type(name)) for name, given in network.inputs.items()}
        self.sizes |= {name: bytes_of(given.shape, self._type(name)) for name, given in network.constants.items()}
        self.storage = {name: name for name in (*network.inputs, *network.constants)}
        # Training makes new tensors where inference hands its input on, such as dropout.
        self._training_storage = dict(self.storage)
        self._own: dict[str, int] = {}
        self._results = set(network.outputs)
        for item in resolved:
            if item.unknown and not item.outputs:
                continue
            for name, shape, kind in zip(item.node.outputs, item.outputs, item.layer.output_dtypes(dtype), strict=True):
                self.sizes[name] = bytes_of(shape, self._type(name, kind))
                for storage, training in ((self.storage, False), (self._training_storage, True)):
                    reused = item.layer.reuses_input(training=training)
                    storage[name] = storage[item.node.inputs[0]] if reused else name

    def _type(self, name: str, kind: str | None = None) -> str:
        """The type of a tensor: the file's, where it is another than float32, or what is asked about."""
        return self.network.dtypes.get(name, kind or self.dtype)

    def read(self, item: Resolved) -> int:
        """Bytes that come into a layer, weights apart."""
        return sum(self.sizes[name] for name in item.node.inputs if name not in self.network.constants)

    @property
    def activations(self) -> int:
        """All tensors together, each storage once; what is in the model is none."""
        return sum(self.sizes[name] for name in set(self.storage.values()) - self.network.constants.keys())

    def own(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Bytes of parameters or buffers by name."""
        return {name: product(shape) * DTYPES[_BUFFERS.get(name, self.dtype)] for name, shape in shapes.items()}

    def parameters(self, item: Resolved) -> Mapping[str, int | None]:
        """Bytes of a layer's weights, all but the bias, and of its bias; None where they are not known."""
        if item.parameters is None:
            return {"weight": None, "bias": None}
        sizes = {
            name: bytes_of(shape, self._type(item.node.weights.get(name, name)))
            for name, shape in item.parameters.items()
        }
        bias = sum(size for name, size in sizes.items() if "bias" in name)
        return {"weight": sum(sizes.values()) - bias, "bias": bias}

    def alive(self, runs: Sequence[Sequence[Resolved]] | None = None) -> list[int]:
        """What is alive while each layer runs: all that was made and is used by it or later.

        With `runs`, while each of them does: layers that run as one make nothing but what the last gives.
        """
        runs = [(item,) for item in self.resolved] if runs is None else runs
        last: dict[str, int] = {}
        for index, run in enumerate(runs):
            for name in (*inputs_of(run), *run[-1].node.outputs):
                last[self.storage.get(name, name)] = index
        for name in self._results:
            last[self.storage.get(name, name)] = len(runs)
        ends: dict[int, list[str]] = {}
        for storage, index in last.items():
            ends.setdefault(index, []).append(storage)
        made = {name for item in self.resolved for name in item.node.outputs}
        alive = {self.storage[name] for name in self.sizes if name in self.storage and name not in made}
        alive -= set(self.network.constants)
        # What nothing uses is gone after the first layer.
        ends.setdefault(0, []).extend(alive - last.keys())
        size = sum(self.sizes[storage] for storage in alive)
        result = []
        for index, run in enumerate(runs):
            for name in run[-1].node.outputs:
                storage = self.storage.get(name, name)
                if storage in self.sizes and storage not in alive and storage not in self.network.constants:
                    alive.add(storage)
                    size += self.sizes[storage]
            result.append(size)
            for storage in ends.get(index, ()):
                if storage in alive:
                    alive.remove(storage)
                    size -= self.sizes[storage]
        return result

    def saved(self, item: Resolved, kept: set[str], needed: Sequence[bool]) -> int:
        """Bytes that autograd keeps for this layer and for none before it, where these of its inputs need a gradient;
        `kept` collects what there is.
        """
        layer = item.layer
        names = set()
        parameters = self.own({**item.layer.parameters(), **item.layer.buffers()})
        for index, saved in enumerate(layer.saved_for(item.inputs, item.outputs, needed)):
            if not isinstance(saved, str):
                shape, dtype = saved
                name = f"{item.node.name}:{index}"
                self._own[name] = product(shape) * DTYPES[dtype or self.dtype]
            elif saved in parameters:
                name = f"{item.node.shares or item.node.name}.parameter.{saved}"
                self._own[name] = parameters[saved]
            else:
                tensors = item.node.inputs if saved.startswith("input") else item.node.outputs
                name = self._training_storage[tensors[int(saved.removeprefix("input").removeprefix("output"))]]
            names.add(name)
        new = names - kept
        kept |= new
        return sum(self._own.get(name, self.sizes.get(name, 0)) for name in new)

    def saved_bytes(self, kept: set[str], *, parameters: bool) -> int:
        """Bytes of what was kept, with or without the parameters among it."""
        return sum(
            self._own.get(name, self.sizes.get(name, 0))
            for name in kept
            if parameters or not (".parameter." in name or name in self.network.constants)
        )


def _reasons(item: Resolved) -> dict[str, str]:
    reasons = {} if item.parameters != {} else {"weight": "nothing to learn", "bias": "nothing to learn"}
    if item.layer.reuses_input(training=False):
        reasons["output_bytes"] = "a view of its input" if item.layer.view else "in its input's memory"
    return reasons
