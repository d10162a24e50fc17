# ruff: noqa: T201  a table is printed
"""Every operator case of the onnx package: which shapes and types come out of it, beside ours.

python tests/onnx_cases.py        prints the table: op, cases, agreed, left out and why
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter, defaultdict

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from convcalc.analysis.shapes import resolve
from convcalc.errors import ConvcalcError
from convcalc.onnx.file import read_onnx
from convcalc.onnx.tensors import DATA_TYPES


def cases():
    """All cases that have arrays in and out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnx's own cases divide by zero, to see what comes out
        return [case for case in collect_testcases(None) if case.data_sets]


def op_of(case):
    """The op that a case is about; expanded ones are made of several."""
    return (
        "expanded: " + case.name.split("_expanded")[0][5:]
        if "_expanded" in case.name
        else case.model.graph.node[-1].op_type
    )


def _baked(case, first):
    """The model with its inputs from `first` on as weights, as in real files; outputs' shapes are forgotten."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given = case.data_sets[0][0]
    for info, value in list(zip(model.graph.input, given, strict=False))[first:]:
        if isinstance(value, np.ndarray | np.generic):
            tensor = numpy_helper.from_array(np.asarray(value), info.name)
            model.graph.initializer.append(tensor)
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return model.SerializeToString()


def network_of(case):
    """The case as a network; inputs that must be known beforehand are weights. Raises what reading it raises."""
    inputs = len(case.model.graph.input)
    last = None
    for first in sorted({inputs, 1, 0} & set(range(inputs + 1)), reverse=True):
        try:
            network = read_onnx(_baked(case, first), "m")
            resolve(network)
        except ConvcalcError as error:
            last = error
        else:
            return network
    raise last


def outcome(case):
    """None when shapes and types agree, else ("left out" | "differs" | "failed", why)."""
    wanted = case.data_sets[0][1]
    if not all(isinstance(value, np.ndarray | np.generic | onnx.TensorProto) for value in wanted):
        return "left out", "sequences and optional tensors"
    try:
        network = network_of(case)
    except ConvcalcError as error:
        return "left out", str(error)
    resolved = resolve(network)
    shapes = {name: given.shape for name, given in network.inputs.items()}
    shapes |= {name: constant.shape for name, constant in network.constants.items()}
    for item in resolved:
        shapes |= dict(zip(item.node.outputs, item.outputs, strict=True))
    for name, info, value in zip(network.outputs, case.model.graph.output, wanted, strict=True):
        shape = tuple(value.dims) if isinstance(value, onnx.TensorProto) else value.shape
        if shapes[name] != shape:
            return "differs", f"{info.name} is {shapes[name]}, not {shape}"
        kind = info.type.tensor_type.elem_type
        if network.dtypes.get(name, "float32") != DATA_TYPES[kind][0]:
            return "differs", f"{info.name} is {network.dtypes.get(name)}, not {DATA_TYPES[kind][0]}"
    return None


def main():
    """Print the table, and what differs."""
    table = defaultdict(Counter)
    reasons = defaultdict(Counter)
    for case in cases():
        found = outcome(case)
        op = op_of(case)
        table[op]["cases"] += 1
        table[op][found[0] if found else "agreed"] += 1
        if found:
            reasons[op][found[0] + ": " + found[1]] += 1
    for op in sorted(table):
        counts = table[op]
        print(f"{op:32} {counts['cases']:4} {counts['agreed']:4}")
        for reason, count in reasons[op].items():
            print(f"      {count}: {reason[:150]}")
    print(sum((table[op] for op in table), Counter()))


if __name__ == "__main__":
    sys.exit(main())
