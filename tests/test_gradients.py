"""The gradient of every kind of layer against finite differences, and that none is left out."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from pkgutil import iter_modules

import numpy as np
import pytest
from onnx import helper
from onnx_models import initializer, integers, model

import convcalc.layers
from convcalc.analysis.shapes import resolve
from convcalc.errors import UnsupportedOpError
from convcalc.executor.fit import fit
from convcalc.executor.kernels import gradient_of, kernel_of
from convcalc.executor.run import prepare
from convcalc.expressions import parse_text
from convcalc.layers import LAYERS
from convcalc.layers.base import Layer
from convcalc.onnx_file import read_onnx

EXAMPLES = {
    "conv": "conv:4,k3x2,s2x1,p1+2,g2 conv:4,k3,padding_mode=circular,p2,nobias conv:8,k2,d2,g4",
    "convt": "convt:6,k3,s2,p1,op1,g2 convt:2,k2x3,nobias,d2",
    "linear": "linear:3 linear:2,nobias",
    "maxpool": "maxpool:3,s2,p1 maxpool:2,d2",
    "avgpool": "avgpool:3,s2,p1,ceil avgpool:2,count_include_pad=false,p1",
    "lppool": "lppool:norm_type=2,kernel_size=2 lppool:norm_type=4,kernel_size=3,s2,ceil",
    "adaptivemaxpool": "adaptivemaxpool:2x3",
    "adaptiveavgpool": "adaptiveavgpool:4x3",
    "scale": "scale:0.5",
    "shift": "shift:-0.5",
    "globalavgpool": "globalavgpool",
    "globalmaxpool": "globalmaxpool",
    "fractionalmaxpool": "fractionalmaxpool:2,output_size=3x2",
    "maxunpool": "zeropad:0x1x0x0 maxpool:2,indices @p maxunpool:2,@p.1",
    "flatten": "flatten",
    "unflatten": "unflatten:dim=1,unflattened_size=2x2",
    "reshape": "reshape:shape=12x10",
    "permute": "permute:0x2x3x1",
    "identity": "identity",
    "channelshuffle": "channelshuffle:2",
    "pixelshuffle": "pixelshuffle:2",
    "pixelunshuffle": "pad:0x0+1 pixelunshuffle:2",
    "unfold": "unfold:2x3,p1,s2",
    "fold": "unfold:2,p1,s1 fold:6x5,k2,p1",
    "upsample": "upsample:2 upsample:size=7x4,mode=bilinear upsample:size=4x7,mode=bicubic upsample:size=3x4,mode=area",
    "upsamplingnearest": "upsamplingnearest:2",
    "upsamplingbilinear": "upsamplingbilinear:2",
    "pad": "pad:1+2x0,reflect pad:-1+2x0,v-1.5",
    "constantpad": "constantpad:1,v2",
    "zeropad": "zeropad:1x2x0x1",
    "reflectionpad": "reflectionpad:2",
    "replicationpad": "replicationpad:2",
    "circularpad": "circularpad:1",
    "crop": "@a conv:k3 @b from:@a crop:@b",
    "batchnorm": "batchnorm batchnorm:notrack",
    "syncbatchnorm": "syncbatchnorm:4",
    "instancenorm": "instancenorm:4,affine instancenorm:4,track",
    "groupnorm": "groupnorm:2",
    "layernorm": "layernorm layernorm:6x5,nobias",
    "rmsnorm": "rmsnorm",
    "localresponsenorm": "lrn:3,alpha=0.5",
    "threshold": "threshold:threshold=0.1,value=-1",
    "glu": "glu:1",
    "add": "@a sigmoid add:@a",
    "mul": "@a sigmoid mul:@a",
    "concat": "@a sigmoid concat:@a",
}
"""Layers of the kinds that take more than their name; what they stand after is there for their input."""
WITHOUT = {
    "unknown": "its numbers are not known",
    "quantize": "it rounds",
    "gridsample": "pixels at places that are computed",
    "roialign": "pixels at places that are computed",
    "deformconv": "pixels at places that are computed",
}
"""What has no gradient, and why."""


def classes():
    """Every class of layer, ONNX's among them."""
    for module in iter_modules(convcalc.layers.__path__):
        import_module(f"convcalc.layers.{module.name}")
    todo = [Layer]
    while todo:
        cls = todo.pop()
        todo += cls.__subclasses__()
        if "kind" in vars(cls):
            yield cls


def test_every_layer_has_a_gradient_or_a_reason():
    without = set()
    for cls in classes():
        try:
            gradient_of(cls)
        except UnsupportedOpError:
            without.add(cls.kind)
    assert without <= set(WITHOUT)


def test_every_kind_has_an_example():
    assert set(EXAMPLES) <= set(LAYERS)


def layers_of(kind):
    """The layers of this kind in its example, with the arrays that come into each."""
    stream = np.random.default_rng(1)
    arrays = {"input": stream.normal(size=(2, 4, 6, 5))}
    for item in resolve(parse_text(EXAMPLES.get(kind, kind)).network((2, 4, 6, 5))):
        inputs = tuple(arrays[name] for name in item.node.inputs)
        sizes = {**item.layer.parameters(), **item.layer.buffers()}
        weights = {name: stream.uniform(0.2, 1.2, size) for name, size in sizes.items()}
        outputs = kernel_of(item.layer)(item.layer, inputs, weights)
        arrays.update(zip(item.node.outputs, outputs, strict=True))
        if item.layer.kind == kind:
            yield item.layer, inputs, weights, outputs


@pytest.mark.parametrize("kind", [kind for kind in LAYERS if kind not in WITHOUT])
def test_the_gradient_is_the_slope(kind):
    found = list(layers_of(kind))
    assert found
    for layer, inputs, weights, outputs in found:
        stream = np.random.default_rng(0)
        grads = tuple(stream.normal(size=y.shape) if y.dtype.kind == "f" else np.zeros(y.shape) for y in outputs)
        grad_inputs, grad_weights = gradient_of(layer)(layer, inputs, outputs, weights, grads)
        assert set(grad_weights) == set(layer.parameters())
        checked = [pair for pair in zip(inputs, grad_inputs, strict=True) if pair[1] is not None]
        assert checked
        for array, gradient in [*checked, *((weights[name], grad_weights[name]) for name in grad_weights)]:
            assert gradient.shape == array.shape
            for index in stream.choice(array.size, min(array.size, 12), replace=False):
                place = np.unravel_index(index, array.shape)
                before, sums = array[place], []
                for step in (1e-6, -1e-6):
                    array[place] = before + step
                    moved = kernel_of(layer)(layer, inputs, weights)
                    sums.append(sum((y * g).sum() for y, g in zip(moved, grads, strict=True)))
                array[place] = before
                assert gradient[place] == pytest.approx((sums[0] - sums[1]) / 2e-6, rel=1e-5, abs=1e-6)


def test_a_model_of_operators_is_fitted(tmp_path):
    """Operators between the weights and the output, one that has no gradient before all weights, and constants."""
    nodes = [
        helper.make_node("Floor", ["x"], ["floor"]),
        helper.make_node("Conv", ["floor", "w"], ["c"], name="conv"),
        helper.make_node("Sub", ["c", "half"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("ReduceMean", ["t"], ["r"], axes=[2], keepdims=0),
        helper.make_node("Slice", ["r", "zero", "three", "one"], ["p"]),
        helper.make_node("MatMul", ["p", "m"], ["y"], name="fc"),
    ]
    weights = [
        initializer("w", 4, 2, 3, value=np.random.default_rng(0).normal(size=(4, 2, 3))),
        initializer("half", value=0.5),
        initializer("m", 3, 2, value=np.random.default_rng(1).normal(size=(3, 2))),
        integers("zero", [0]),
        integers("three", [3]),
        integers("one", [1]),
    ]
    path = tmp_path / "m.onnx"
    path.write_bytes(model(nodes, {"x": [5, 2, 8]}, {"y": [5, 2]}, weights, opset=13).SerializeToString())
    stream = np.random.default_rng(2)
    x, target = stream.normal(size=(5, 2, 8)).astype(np.float32), stream.normal(size=(5, 2))
    prepared = prepare(read_onnx(path, "m"), x)
    learned = fit(prepared, target, lr=0.02, steps=60)
    assert all(after < before for before, after in pairwise(learned.losses))
    assert learned.losses[-1] < 0.7 * learned.losses[0]
    assert not np.array_equal(learned.result.weights["conv.weight"], prepared.weights["conv.weight"])
