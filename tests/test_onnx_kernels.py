"""Kernels of the layers that model files have, on the arrays of the onnx package's operator cases."""

from __future__ import annotations

import re

import numpy as np
import onnx_cases

from convcalc.analysis.shapes import resolve
from convcalc.errors import ConvcalcError, UnsupportedOpError
from convcalc.executor.kernels import kernel_of

OTHERS = (
    "select_last_index|cum(sum|prod)_.*(exclusive|reverse)|isinf_(positive|negative)|training_",
    "qlinear|matmulinteger|convinteger|precomputed_strides|maxunpool|lppool_1d_default|ceil_last_window|empty_set",
    "bf16|bfloat16",
)
"""Cases whose numbers hang on what the layer does not hold (zero points, ties, orders, rows first in indices), or on
rounding to bfloat16, which NumPy does not have."""
AGREED = 950


def computed(network, arrays):
    """Every output of a network; the weights are its constants, in the shapes that the layers want."""
    tensors = dict(arrays)
    tensors |= {name: constant.array() for name, constant in network.constants.items()}
    for item in resolve(network):
        wanted = {**item.layer.parameters(), **item.layer.buffers()}
        weights = {key: tensors[name].reshape(wanted[key]) for key, name in item.node.weights.items()}
        # A weight that is computed comes in after the data.
        extra = sum(name not in network.constants for name in item.node.weights.values())
        data = tuple(tensors[name] for name in item.node.inputs[: len(item.node.inputs) - extra])
        with np.errstate(all="ignore"):
            outputs = kernel_of(item.layer)(item.layer, data, weights)
        if len(outputs) < len(item.node.outputs):
            raise UnsupportedOpError("a kernel of another layer")
        tensors.update(zip(item.node.outputs, outputs, strict=True))
    return [tensors[name] for name in network.outputs]


def test_the_numbers_of_every_operator_case_that_has_kernels():
    agreed = 0
    for case in onnx_cases.cases():
        given, wanted = case.data_sets[0]
        if re.search("|".join(OTHERS), case.name):
            continue
        if not all(isinstance(value, np.ndarray | np.generic) for value in (*given, *wanted)):
            continue
        names = [info.name for info in case.model.graph.input]
        try:
            network = onnx_cases.network_of(case)
            found = computed(network, dict(zip(names, given, strict=False)))
        except ConvcalcError:  # left out: no layer, or no kernel
            continue
        for one, other in zip(found, wanted, strict=True):
            tolerance = 3e-3 if np.asarray(other).dtype == np.float16 else 2e-5
            np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=case.name)
            assert one.dtype == other.dtype, case.name
        agreed += 1
    assert agreed >= AGREED
