"""Every field that the wire reader gives, beside what the onnx package reads."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, TensorProto, numpy_helper

UNREADABLE = ("string", "undefined")


def same_model(model, proto):
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version"):
        assert getattr(model, name) == getattr(proto, name)
    assert [(item.domain, item.version) for item in model.opset_imports] == [
        (item.domain, item.version) for item in proto.opset_import
    ]
    assert [(item.key, item.value) for item in model.metadata] == [
        (item.key, item.value) for item in proto.metadata_props
    ]
    same_graph(model.graph, proto.graph)
    assert len(model.functions) == len(proto.functions)
    for function, wanted in zip(model.functions, proto.functions, strict=True):
        for name in ("name", "domain", "overload"):
            assert getattr(function, name) == getattr(wanted, name)
        assert function.inputs == list(wanted.input)
        assert function.outputs == list(wanted.output)
        assert function.attributes == list(wanted.attribute)
        same_nodes(function.nodes, wanted.node)
        same_all(function.attribute_defaults, wanted.attribute_proto, same_attribute)
        same_all(function.value_infos, wanted.value_info, same_value_info)


def same_all(found, wanted, same):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        same(one, other)


def same_graph(graph, proto):
    assert graph.name == proto.name
    same_nodes(graph.nodes, proto.node)
    same_all(graph.initializers, proto.initializer, same_tensor)
    same_all(graph.sparse_initializers, proto.sparse_initializer, same_sparse)
    same_all(graph.inputs, proto.input, same_value_info)
    same_all(graph.outputs, proto.output, same_value_info)
    same_all(graph.value_infos, proto.value_info, same_value_info)


def same_nodes(nodes, protos):
    assert len(nodes) == len(protos)
    for node, proto in zip(nodes, protos, strict=True):
        for name in ("name", "op_type", "domain", "overload"):
            assert getattr(node, name) == getattr(proto, name)
        assert node.inputs == list(proto.input)
        assert node.outputs == list(proto.output)
        assert list(node.attributes) == [attribute.name for attribute in proto.attribute]
        same_all(list(node.attributes.values()), proto.attribute, same_attribute)


def same_attribute(attribute, proto):
    assert (attribute.name, attribute.type) == (proto.name, proto.type)
    assert attribute.ref_attr_name == proto.ref_attr_name
    value = attribute.value
    kinds = AttributeProto
    plain = {kinds.FLOAT: "f", kinds.INT: "i", kinds.STRING: "s"}
    lists = {kinds.FLOATS: "floats", kinds.INTS: "ints", kinds.STRINGS: "strings"}
    messages = {kinds.TENSOR: ("t", same_tensor), kinds.GRAPH: ("g", same_graph), kinds.TYPE_PROTO: ("tp", same_type),
                kinds.SPARSE_TENSOR: ("sparse_tensor", same_sparse)}  # fmt: skip
    many = {kinds.TENSORS: ("tensors", same_tensor), kinds.GRAPHS: ("graphs", same_graph)}
    if proto.ref_attr_name:
        return
    if proto.type in plain:
        np.testing.assert_equal(value, getattr(proto, plain[proto.type]))
    elif proto.type in lists:
        np.testing.assert_equal(value, list(getattr(proto, lists[proto.type])))
    elif proto.type in messages:
        name, same = messages[proto.type]
        same(value, getattr(proto, name))
    else:
        name, same = many[proto.type]
        same_all(value, getattr(proto, name), same)


def same_tensor(tensor, proto):
    assert (tensor.name, tensor.data_type, tensor.dims) == (proto.name, proto.data_type, list(proto.dims))
    assert tensor.external == (proto.data_location == TensorProto.EXTERNAL)
    if tensor.external or tensor.dtype.startswith(UNREADABLE):
        return
    wanted = numpy_helper.to_array(proto)
    if tensor.dtype in ("bfloat16", "int4", "uint4", "int2", "uint2") or tensor.dtype.startswith(("float8", "float4")):
        wanted = wanted.astype(np.int8 if "int" in tensor.dtype else np.float32)
    found = tensor.array()
    assert found.shape == wanted.shape
    np.testing.assert_array_equal(found, wanted)
    numbers = tensor.numbers()
    if numbers is not None:
        np.testing.assert_array_equal(np.array(numbers, wanted.dtype).reshape(wanted.shape), wanted)


def same_sparse(sparse, proto):
    assert sparse.dims == list(proto.dims)
    same_tensor(sparse.values, proto.values)
    same_tensor(sparse.indices, proto.indices)


def same_value_info(info, proto):
    assert info.name == proto.name
    if not proto.HasField("type"):
        assert info.type is None
        return
    same_type(info.type, proto.type)
    kind = proto.type.WhichOneof("value")
    if kind not in ("tensor_type", "sparse_tensor_type"):
        assert (info.shape, info.dtype) == (None, None)


def same_type(found, proto):
    kind = proto.WhichOneof("value")
    assert [name for name in found.__slots__ if getattr(found, name) is not None] == ([kind] if kind else [])
    if kind in ("tensor_type", "sparse_tensor_type"):
        one, other = getattr(found, kind), getattr(proto, kind)
        assert one.elem_type == other.elem_type
        assert (one.shape is not None) == other.HasField("shape")
        if one.shape is not None:
            assert [axis.value for axis in one.shape.dim] == [
                getattr(axis, axis.WhichOneof("value")) if axis.WhichOneof("value") else None
                for axis in other.shape.dim
            ]
