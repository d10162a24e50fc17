"""ONNX models made for tests and benchmarks, with onnx.helper."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper


def initializer(name, *shape, value=None):
    """A float32 tensor of this shape, its bytes as they are written by exporters."""
    array = np.full(shape, 0.5 if value is None else value, np.float32)
    return helper.make_tensor(name, TensorProto.FLOAT, shape, array.tobytes(), raw=True)


def integers(name, values):
    """An int64 tensor of one axis."""
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def model(nodes, inputs, outputs, initializers=(), *, opset=17, functions=(), value_infos=()):
    """A model; inputs and outputs are name -> shape (float32), or ready value infos."""

    def infos(given):
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) if isinstance(name, str) else name
            for name, shape in given.items()
        ]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), list(initializers), value_info=value_infos)
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(f.domain, 1) for f in functions)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions))


class _ResNet:
    def __init__(self, *, folded):
        self.folded = folded
        self.nodes = []
        self.weights = []

    def op(self, op_type, inputs, name, **attributes):
        self.nodes.append(helper.make_node(op_type, inputs, [f"{name}_out"], name=name, **attributes))
        return f"{name}_out"

    def conv(self, x, name, before, after, kernel, stride=1):
        self.weights.append(initializer(f"{name}.weight", after, before, kernel, kernel))
        inputs = [x, f"{name}.weight"]
        if self.folded:
            self.weights.append(initializer(f"{name}.bias", after))
            inputs.append(f"{name}.bias")
        x = self.op("Conv", inputs, f"/{name}/Conv", kernel_shape=[kernel] * 2, strides=[stride] * 2,
                    pads=[kernel // 2] * 4, dilations=[1, 1], group=1)  # fmt: skip
        if self.folded:
            return x
        parts = [f"{name}.bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        self.weights += [initializer(part, after) for part in parts]
        return self.op("BatchNormalization", [x, *parts], f"/{name}/bn/BatchNormalization", epsilon=1e-5)

    def block(self, x, name, before, width, stride):
        out = self.op("Relu", [self.conv(x, f"{name}.conv1", before, width, 1)], f"/{name}/relu")
        out = self.op("Relu", [self.conv(out, f"{name}.conv2", width, width, 3, stride)], f"/{name}/relu_1")
        out = self.conv(out, f"{name}.conv3", width, 4 * width, 1)
        if before != 4 * width:
            x = self.conv(x, f"{name}.downsample", before, 4 * width, 1, stride)
        out = self.op("Add", [out, x], f"/{name}/Add")
        return self.op("Relu", [out], f"/{name}/relu_2")


def resnet50(*, folded=True, batch=1):
    """ResNet-50 as torch exports it: 102 MB of weights, batch norms folded or not."""
    net = _ResNet(folded=folded)
    x = net.op("Relu", [net.conv("input", "conv1", 3, 64, 7, 2)], "/relu/Relu")
    x = net.op("MaxPool", [x], "/maxpool/MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, ceil_mode=0,
               dilations=[1, 1])  # fmt: skip
    before = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            x = net.block(x, f"layer{stage}.{block}", before, width, 2 if stage > 1 and not block else 1)
            before = 4 * width
    x = net.op("GlobalAveragePool", [x], "/avgpool/GlobalAveragePool")
    x = net.op("Flatten", [x], "/Flatten", axis=1)
    net.weights += [initializer("fc.weight", 1000, 2048), initializer("fc.bias", 1000)]
    net.nodes.append(helper.make_node("Gemm", [x, "fc.weight", "fc.bias"], ["output"], name="/fc/Gemm", transB=1))
    return model(net.nodes, {"input": [batch, 3, 224, 224]}, {"output": [batch, 1000]}, net.weights)
