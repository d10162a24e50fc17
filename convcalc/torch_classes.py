"""What the classes are whose names PyTorch prints: layers of this project, containers, or owners of parameters.

The classes of torchvision, timm and transformers that stand here are those whose names nobody else uses and whose
printed attributes tell all that is counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from convcalc.errors import ConvcalcError, ExpressionError, Span
from convcalc.expressions.layer_text import LayerText, field_names
from convcalc.expressions.tokens import python_value, split_outside
from convcalc.layers import find_kind
from convcalc.layers.base import Layer, Shape
from convcalc.layers.opaque import Opaque
from convcalc.layers.recurrent import MOST_LAYERS
from convcalc.network import Unsaid
from convcalc.records import dataclass, replace

CHAINS = (
    "Sequential",
    "DataParallel",
    "DistributedDataParallel",
    "FullyShardedDataParallel",
    "CheckpointWrapper",
    "AveragedModel",
    "OptimizedModule",
    "TransformerEncoder",
    # torchvision's
    "Conv2dNormActivation",
    "Conv3dNormActivation",
    "ConvNormActivation",
    "ConvBNActivation",
    "ConvBNReLU",
    # torch.ao.nn.intrinsic's
    *(f"{first}{rank}d" for first in ("ConvBn", "ConvReLU", "ConvBnReLU") for rank in (1, 2, 3)),
    *("LinearReLU", "LinearBn1d", "BNReLU2d", "BNReLU3d"),
)
"""Containers without parameters of their own that call their modules in printed order."""

LISTS = (
    "ModuleList",
    "ModuleDict",
    "ParameterList",
    "ParameterDict",
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
)
"""Containers without parameters of their own whose order of calls is not that of the text."""

ATTENTION = "MultiheadAttention"
RECURRENT = ("LSTM", "GRU", "RNN")
PARAMETER = "Parameter"
"""What a line of a ParameterList is read as."""

KEEP, ADD, MULTIPLY, MEAN = "keep", "add", "mul", "mean"
WIRED: dict[str, tuple[str, ...]] = {
    "TransformerEncoderLayer": (
        *(KEEP, "self_attn", "dropout1", ADD, "norm1"),
        *(KEEP, "linear1", "activation", "dropout", "linear2", "dropout2", ADD, "norm2"),
    ),
    "SqueezeExcitation": (KEEP, "avgpool", "fc1", "activation", "fc2", "scale_activation", MULTIPLY),  # torchvision's
    "SqueezeExcite": (KEEP, MEAN, "conv_reduce", "act1", "conv_expand", "gate", MULTIPLY),  # timm's
    "SEModule": (KEEP, MEAN, "fc1", "bn", "act", "fc2", "gate", MULTIPLY),  # timm's
}
"""Containers whose code is known: the order in which they call their modules, and what they do between.

What was kept is added or multiplied to what comes; a mean is that of each channel. The activation of a
TransformerEncoderLayer is printed only when it is a module.
"""

NORMS_WITH_MODULES = {"BatchNormAct2d": "BatchNorm2d", "SyncBatchNormAct": "SyncBatchNorm", "GroupNormAct": "GroupNorm"}
"""timm's norms, which call the modules in them afterwards."""

NOT_PYTORCH = (
    "add", "mul", "concat", "matmul", "attention", "crop", "reshape", "permute", "pad", "globalavgpool",
    "globalmaxpool",
)  # fmt: skip
"""Kinds of this project whose class names mean nothing in PyTorch's text."""

_LEARNING = ("conv", "linear", "norm", "parametric", "recurrent", "multihead", "embedding")
"""Families with layers that learn."""

_OTHER_NAMES = {
    "NonDynamicallyQuantizableLinear": "Linear",
    # Nothing happens in them at inference; in training they are dropout of whole samples.
    "StochasticDepth": "Identity",
    "DropPath": "Identity",
    # They mark where a tensor will be quantised, and hand it on until then.
    "QuantStub": "Identity",
    "DeQuantStub": "Identity",
    **dict.fromkeys(("GELUActivation", "NewGELUActivation", "FastGELUActivation", "PytorchGELUTanh"), "GELU"),
    "LlamaRMSNorm": "RMSNorm",
}
"""Classes that are layers of this project under another name."""

_TANH = ("NewGELUActivation", "FastGELUActivation", "PytorchGELUTanh")
"""Those whose name says GELU's approximation by tanh."""

_PRINTED_ONLY = ("device", "dtype", "mode", "scale", "zero_point", "qscheme")
"""Attributes that are printed but given to no constructor, where the class has none of that name."""

_QUANTIZED = re.compile(r"(?:Dynamic)?Quantized((?:Conv(?:Transpose)?[123]d|Linear|BatchNorm[23]d))")

_LAZY_SIZES = ("in_channels", "in_features", "num_features")
"""Fields of which a lazy module prints 0 until its first input decides them."""


class Module:
    """A module as it was printed. `names` are more than one when a list printed equal modules as one.

    Of something that does not print itself as PyTorch's modules do, `attributes` are the whole text.
    """

    __slots__ = ("attributes", "children", "cls", "names", "odd", "span")

    def __init__(self, names: Sequence[str], cls: str, attributes: str, span: Span, *, odd: bool = False) -> None:
        self.names = names
        self.cls = cls
        self.attributes = attributes
        self.children: list[Module] = []
        self.span = span
        self.odd = odd

    @property
    def text(self) -> str:
        """The module on one line, without what is in it."""
        return self.attributes if self.odd else f"{self.cls}({self.attributes})"

    @property
    def parametrized(self) -> bool:
        """Whether parametrizations make its weight of others."""
        return self.cls.startswith("Parametrized") and bool(self.children)

    @property
    def is_container(self) -> bool:
        """Whether it is called by way of the modules in it."""
        if self.cls in (*CHAINS, *LISTS):
            return True
        return bool(self.children) and not self.parametrized and self.cls not in (ATTENTION, *NORMS_WITH_MODULES)


# --- layers -----------------------------------------------------------------------------------------------------------


def layer_text(module: Module) -> LayerText | None:
    """The layer that a printed module is, or None for a class that is not PyTorch's or not known here.

    None too when the attributes are not those of PyTorch's class: somebody's own may have its name.
    """
    if module.odd:
        return None
    name = module.cls.removeprefix("Parametrized")
    quantized = _QUANTIZED.fullmatch(name)
    name = quantized[1] if quantized else NORMS_WITH_MODULES.get(name, _OTHER_NAMES.get(name, name))
    attributes = module.attributes
    if name == "Identity":
        attributes = ""
    turned = re.fullmatch(r"nf=(\d+), nx=(\d+)", attributes) if name == "Conv1D" else None
    if turned:  # transformers' linear layer, whose weight is stored the other way round
        name, attributes = "Linear", f"{turned[2]}, {turned[1]}"
    found = find_kind(name)
    if found is None:
        return None
    kind, rank = found
    if kind.name in NOT_PYTORCH or name.removeprefix("Lazy") not in kind.class_names():
        return None
    layer = LayerText(kind, rank, module.span)
    if not _read_attributes(layer, attributes, module.span):
        return None
    if name.startswith("Lazy"):
        for field in _LAZY_SIZES:
            if layer.fields.get(field) == 0:
                layer.fields[field] = None
    if module.cls in _TANH:
        layer.give("approximate", "tanh", module.span)
    return layer


def _read_attributes(layer: LayerText, attributes: str, span: Span) -> bool:
    """Give the layer what was printed; false for what its class does not print."""
    fields = field_names(layer.kind.layer_class(layer.rank))
    position = 0
    for start, end in split_outside(attributes, ","):
        piece = attributes[start:end].strip()
        field, equals, value = piece.partition("=")
        if equals and re.fullmatch(r"\w+", field):
            if field not in fields and field in _PRINTED_ONLY:
                continue
        elif piece:
            field = fields[position] if position < len(fields) else ""
            value = piece
            position += 1
        else:
            continue
        if field not in fields:
            return False
        try:
            layer.give(field, python_value(value, span), span)
        except ExpressionError:
            return False
    return True


def layer_of(module: Module, text: LayerText | None, rank: int) -> Layer:
    """The layer of a module, unknown where its class or a size of it is."""
    if text is None:
        return _owner(module) or Opaque(module.cls, module.text)
    try:
        return text.layer(rank)
    except ExpressionError:
        # A size that PyTorch does not print, such as the kernel of FractionalMaxPool2d.
        return Opaque(module.cls, module.text, owns=text.kind.module in _LEARNING)


_UNPRINTED: dict[str, dict[str, object]] = {
    "avgpool": {"ceil_mode": True, "count_include_pad": False, "divisor_override": 1},
    "upsample": {"align_corners": True, "recompute_scale_factor": True},
    "hardsigmoid": {"inplace": True},
    "hardswish": {"inplace": True},
    "layernorm": {"bias": False},
    "rnn": {"nonlinearity": "relu"},
}
"""Fields that PyTorch does not print (of LayerNorm older versions), with a value other than the default."""


def unsaid_of(module: Module, layer: Layer, text: LayerText | None) -> tuple[Unsaid, ...]:
    """What PyTorch left out of the text of a layer, but for whether it gives the indices of its maxima."""
    others = {} if text is None else _UNPRINTED.get(layer.kind, {})
    if layer.kind == "linear" and "Quantized" in module.cls:
        others = {"bias": False}
    found = (_unsaid(layer, field, value) for field, value in others.items() if text and field not in text.fields)
    return tuple(one for one in found if one is not None)


def unsaid_indices(layer: Layer) -> tuple[Unsaid, ...]:
    """That a layer may give the indices of its maxima, too, which PyTorch does not print either."""
    one = _unsaid(layer, "return_indices", True) if hasattr(layer, "return_indices") else None
    return (one,) if one is not None else ()


def _unsaid(layer: Layer, field: str, value: object) -> Unsaid | None:
    if field == "count_include_pad" and not any(map(any, getattr(layer, "padding", ()))):
        return None

    def given(layer: Layer, value: Any) -> Layer:
        plain: Any = layer  # a dataclass with this field
        changed: Layer = replace(plain, **{field: value})
        return changed

    try:
        return Unsaid(field, getattr(layer, field), value, layer, given)
    except ConvcalcError:  # as align_corners is for nearest neighbours
        return None


# --- modules of which the parameters alone are known ------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Owner(Opaque):
    """A module of PyTorch that is no layer of this project, but whose parameters its text tells."""

    owns: bool = False
    weights: tuple[tuple[str, Shape], ...] = ()

    def parameters(self) -> Mapping[str, Shape]:
        """The shapes of what is learned, by PyTorch's name."""
        return dict(self.weights)


Weights = Iterator[tuple[str, Shape]]


def _levels(named: Mapping[str, Any]) -> int:
    """How many levels a recurrent module has. Raises `ValueError` for more than anybody means."""
    levels = named.get("num_layers", 1)
    if not isinstance(levels, int) or not 1 <= levels <= MOST_LAYERS:
        raise ValueError(f"num_layers is {levels}")
    return levels


def _recurrent(gates: int, numbers: Sequence[int], named: Mapping[str, Any]) -> Weights:
    size, hidden = numbers
    projected = named.get("proj_size", 0)
    directions = ("", "_reverse") if named.get("bidirectional", False) else ("",)
    for level in range(_levels(named)):
        came = (projected or hidden) * len(directions) if level else size
        for direction in directions:
            end = f"_l{level}{direction}"
            yield f"weight_ih{end}", (gates * hidden, came)
            yield f"weight_hh{end}", (gates * hidden, projected or hidden)
            if named.get("bias", True):
                yield f"bias_ih{end}", (gates * hidden,)
                yield f"bias_hh{end}", (gates * hidden,)
            if projected:
                yield f"weight_hr{end}", (projected, hidden)


def _embedding(numbers: Sequence[int], named: Mapping[str, Any]) -> Weights:
    entries, size = numbers
    yield "weight", (entries, size)


def _bilinear(numbers: Sequence[int], named: Mapping[str, Any]) -> Weights:
    out = named["out_features"]
    yield "weight", (out, named["in1_features"], named["in2_features"])
    if named.get("bias", True):
        yield "bias", (out,)


def _channel_norm(numbers: Sequence[Any], named: Mapping[str, Any]) -> Weights:
    """torchvision's and timm's layer norm over the channels of images."""
    if named.get("elementwise_affine", True):
        yield "weight", numbers[0]
        yield "bias", numbers[0]


OWNERS: dict[str, Callable[[Sequence[int], Mapping[str, Any]], Weights]] = {
    **{f"{name}{end}": partial(_recurrent, gates) for name, gates in (("RNN", 1), ("GRU", 3), ("LSTM", 4))
       for end in ("", "Cell")},
    "Embedding": _embedding,
    "EmbeddingBag": _embedding,
    "Bilinear": _bilinear,
    "LayerNorm2d": _channel_norm,
}  # fmt: skip
"""PyTorch's classes, and what they own by the numbers and the named attributes that they print."""


_SIZES = re.compile(r"(?:Parameter|Tensor) containing: \[[^\]]* of size ((?:\d+(?:x\d+)*)?)[^\]]*\]")
"""A line of a ParameterList, as far as it tells a shape."""


def _printed_arguments(module: Module) -> tuple[list[Any], dict[str, Any]]:
    """What a module prints without a name, and by name. Raises `ExpressionError` for what is no value."""
    numbers: list[Any] = []
    named: dict[str, Any] = {}
    for start, end in split_outside(module.attributes, ","):
        field, equals, text = module.attributes[start:end].strip().partition("=")
        if equals:
            named[field] = python_value(text, module.span)
        else:
            numbers.append(python_value(field, module.span))
    return numbers, named


def _owner(module: Module) -> Owner | None:
    """The parameters of a module that is no layer; None for a class that is not known or prints something else."""
    if module.cls == PARAMETER:
        sizes = _SIZES.match(module.attributes)
        if sizes is None:
            return None
        # A list may hold tensors that do not learn; they are no parameters.
        learned = module.attributes.startswith(PARAMETER)
        shape = tuple(int(size) for size in sizes[1].split("x") if size)
        return Owner(module.cls, module.text, weights=(("weight", shape),) if learned else ())
    rule = OWNERS.get(module.cls.removeprefix("DynamicQuantized"))
    if rule is None:
        return None
    try:
        numbers, named = _printed_arguments(module)
        weights = tuple(rule(numbers, named))
    except (ExpressionError, ValueError, TypeError, KeyError):
        return None
    sizes_of = [size for _, shape in weights for size in shape]
    if not all(isinstance(size, int) and size > 0 for size in sizes_of):
        return None
    return Owner(module.cls, module.text, weights=weights)


# --- parametrizations -------------------------------------------------------------------------------------------------

_SAME_NUMBER = ("_SpectralNorm", "_Orthogonal")
"""Parametrizations whose originals have as many numbers as what they make."""


def parametrization(module: Module, layer: Layer) -> tuple[str, tuple[tuple[str, Shape], ...] | None]:
    """What recomputes the weights of a parametrized module: its classes, and the parameters that it owns beside those
    of the layer; None where they are not known.

    Weight norm parts a weight into its direction, of the same shape, and a magnitude for each of its first axis.
    """
    names = []
    more: list[tuple[str, Shape]] = []
    known = True
    for tensors in module.children:
        for tensor in tensors.children:
            for each in tensor.children:
                names.append(each.cls)
                shape = layer.parameters().get(tensor.names[0])
                if each.cls == "_WeightNorm" and shape is not None and len(tensor.children) == 1:
                    more.append((f"{tensor.names[0]}.original0", (shape[0], *(1,) * (len(shape) - 1))))
                elif each.cls not in _SAME_NUMBER:
                    known = False
    return ", ".join(dict.fromkeys(names)) or "parametrizations", tuple(more) if known else None
