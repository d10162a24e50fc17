"""`LAYERS`, the table of every kind of layer, and the way to its class.

The table names modules and classes without importing them: a family is loaded when one of its kinds is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from convcalc.layers.base import Layer

__all__ = ["FILE_LAYERS", "LAYERS", "Kind", "find_kind", "kind_of"]


class Kind:
    """One line of the table: what a kind is called in expressions, and which class it is.

    `classes` are the names of the class for 1, 2 and 3 axes, or the one name of a class of any rank; `free` is the
    class of any rank beside those, which a name without a rank then means. `main` is the field that a first bare value
    gives. `keys` are the short keys, `flags` the words that stand for a field and its value. `aliases` are other
    names; PyTorch's class names in lower case need not be listed.
    """

    __slots__ = ("_loaded", "aliases", "classes", "flags", "free", "keys", "main", "module", "name")

    def __init__(
        self,
        name: str,
        classes: str | tuple[str, str, str],
        module: str,
        main: str | None = None,
        keys: dict[str, str] | None = None,
        flags: dict[str, tuple[str, object]] | None = None,
        aliases: tuple[str, ...] = (),
        free: str | None = None,
    ) -> None:
        self.name = name
        self.classes = classes
        self.module = module
        self.main = main
        self.keys = keys or {}
        self.flags = flags or {}
        self.aliases = aliases
        self.free = free
        self._loaded: dict[int | None, type[Layer]] = {}

    @property
    def ranked(self) -> bool:
        """Whether there is a class for each number of spatial axes, and only those."""
        return isinstance(self.classes, tuple) and self.free is None

    def layer_class(self, rank: int | None = None) -> type[Layer]:
        """The class for so many spatial axes, where there is one for each. Imports its family."""
        found = self._loaded.get(rank)
        if found is None:
            from importlib import import_module

            if isinstance(self.classes, str):
                name = self.classes
            else:
                name = self.free if self.free and rank is None else self.classes[(rank or 2) - 1]
            family = import_module(f"convcalc.layers.{self.module}")
            found = self._loaded[rank] = cast("type[Layer]", getattr(family, name))
        return found

    def class_names(self) -> tuple[str, ...]:
        """The names of all its classes."""
        names = (self.classes,) if isinstance(self.classes, str) else self.classes
        return names if self.free is None else (*names, self.free)

    def names(self) -> Iterator[str]:
        """Every spelling that finds this kind, in lower case."""
        yield self.name
        yield from self.aliases
        if isinstance(self.classes, tuple):
            for stem in (self.name, *self.aliases):
                for rank in (1, 2, 3):
                    yield f"{stem}{rank}d"
            yield from (name.lower() for name in self.classes)
            yield self.classes[0][:-2].lower()
        else:
            yield self.classes.lower()


def _ranks(stem: str) -> tuple[str, str, str]:
    return f"{stem}1d", f"{stem}2d", f"{stem}3d"


_WINDOW = {"k": "kernel_size", "s": "stride", "p": "padding"}
_CONV = {**_WINDOW, "d": "dilation", "g": "groups", "c": "out_channels", "i": "in_channels"}
_NO_BIAS: dict[str, tuple[str, object]] = {"nobias": ("bias", False)}
_CONV_FLAGS: dict[str, tuple[str, object]] = {**_NO_BIAS, "depthwise": ("groups", "depthwise")}
_PADDING_FLAGS: dict[str, tuple[str, object]] = {
    f"p{word}": ("padding", word) for word in ("same", "same_upper", "same_lower", "valid", "causal", "full")
}
_CEIL: dict[str, tuple[str, object]] = {"ceil": ("ceil_mode", True)}
_INDICES: dict[str, tuple[str, object]] = {"indices": ("return_indices", True)}
_INPLACE: dict[str, tuple[str, object]] = {"inplace": ("inplace", True)}
_AFFINE: dict[str, tuple[str, object]] = {"affine": ("affine", True), "noaffine": ("affine", False)}
_TRACKED: dict[str, tuple[str, object]] = {
    "track": ("track_running_stats", True),
    "notrack": ("track_running_stats", False),
}
_ELEMENTWISE_AFFINE: dict[str, tuple[str, object]] = {"noaffine": ("elementwise_affine", False)}
_CHANNELS = {"c": "num_features", "i": "num_features"}
_COLUMNS = {**_WINDOW, "d": "dilation"}
_STACK = {"c": "hidden_size", "i": "input_size", "l": "num_layers"}
_BATCH_FIRST: dict[str, tuple[str, object]] = {"batch_first": ("batch_first", True)}
_STACK_FLAGS: dict[str, tuple[str, object]] = {**_BATCH_FIRST, "bidirectional": ("bidirectional", True)}


def _activation(name: str, cls: str, *aliases: str) -> Kind:
    return Kind(name, cls, "activation", flags=_INPLACE, aliases=aliases)


LAYERS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("conv", _ranks("Conv"), "conv", "out_channels", _CONV, {**_CONV_FLAGS, **_PADDING_FLAGS},
             ("lazyconv",)),
        Kind("convt", _ranks("ConvTranspose"), "conv", "out_channels",
             {**_CONV, "op": "output_padding", "os": "output_size"}, _CONV_FLAGS, ("lazyconvtranspose",)),
        Kind("linear", "Linear", "linear", "out_features", {"c": "out_features", "i": "in_features"}, _NO_BIAS,
             ("lazylinear",)),
        # pooling
        Kind("maxpool", _ranks("MaxPool"), "pool", "kernel_size", {**_WINDOW, "d": "dilation"},
             {**_CEIL, **_INDICES}),
        Kind("avgpool", _ranks("AvgPool"), "pool", "kernel_size", _WINDOW,
             {**_CEIL, "nopad": ("count_include_pad", False)}),
        Kind("lppool", _ranks("LPPool"), "lppool", "kernel_size", {"k": "kernel_size", "s": "stride", "n": "norm_type"},
             _CEIL),
        Kind("adaptivemaxpool", _ranks("AdaptiveMaxPool"), "adaptive", "output_size", {"o": "output_size"}, _INDICES),
        Kind("adaptiveavgpool", _ranks("AdaptiveAvgPool"), "adaptive", "output_size", {"o": "output_size"}),
        Kind("globalavgpool", "GlobalAvgPool", "adaptive", aliases=("globalaveragepool", "gap")),
        Kind("globalmaxpool", "GlobalMaxPool", "adaptive"),
        Kind("fractionalmaxpool", _ranks("FractionalMaxPool"), "fractional", "kernel_size",
             {"k": "kernel_size", "o": "output_size", "r": "output_ratio"}, _INDICES),
        Kind("maxunpool", _ranks("MaxUnpool"), "unpool", "kernel_size", {**_WINDOW, "os": "output_size"}),
        # shapes
        Kind("flatten", "Flatten", "reshape", "start_dim"),
        Kind("unflatten", "Unflatten", "rearrange", "unflattened_size", {"d": "dim"}),
        Kind("reshape", "Reshape", "rearrange", "shape", flags={"batch": ("batch", True)}, aliases=("view",)),
        Kind("permute", "Permute", "rearrange", "dims"),
        Kind("identity", "Identity", "rearrange"),
        Kind("channelshuffle", "ChannelShuffle", "rearrange", "groups", {"g": "groups"}),
        Kind("pixelshuffle", "PixelShuffle", "rearrange", "upscale_factor", {"r": "upscale_factor"}),
        Kind("pixelunshuffle", "PixelUnshuffle", "rearrange", "downscale_factor", {"r": "downscale_factor"}),
        Kind("unfold", "Unfold", "unfold", "kernel_size", _COLUMNS, aliases=("im2col",)),
        Kind("fold", "Fold", "unfold", "output_size", {**_COLUMNS, "o": "output_size"}, aliases=("col2im",)),
        Kind("upsample", "Upsample", "upsample", "scale_factor",
             flags={mode: ("mode", mode) for mode in ("bilinear", "bicubic", "trilinear", "area")}),
        Kind("upsamplingnearest", "UpsamplingNearest2d", "upsample", "scale_factor"),
        Kind("upsamplingbilinear", "UpsamplingBilinear2d", "upsample", "scale_factor"),
        Kind("pad", _ranks("Pad"), "pad", "padding", {"p": "padding", "v": "value"},
             {mode: ("mode", mode) for mode in ("reflect", "replicate", "circular")}),
        Kind("constantpad", _ranks("ConstantPad"), "pad", "padding", {"p": "padding", "v": "value"}),
        Kind("zeropad", _ranks("ZeroPad"), "pad", "padding", {"p": "padding"}),
        Kind("reflectionpad", _ranks("ReflectionPad"), "pad", "padding", {"p": "padding"}),
        Kind("replicationpad", _ranks("ReplicationPad"), "pad", "padding", {"p": "padding"}),
        Kind("circularpad", _ranks("CircularPad"), "pad", "padding", {"p": "padding"}),
        Kind("crop", "Crop", "pad"),
        # norms and dropout
        Kind("batchnorm", _ranks("BatchNorm"), "norm", "num_features", _CHANNELS, {**_AFFINE, **_TRACKED, **_NO_BIAS},
             ("bn", "lazybatchnorm"), free="BatchNorm"),
        Kind("syncbatchnorm", "SyncBatchNorm", "norm", "num_features", _CHANNELS,
             {**_AFFINE, **_TRACKED, **_NO_BIAS}),
        Kind("instancenorm", _ranks("InstanceNorm"), "norm", "num_features", _CHANNELS,
             {**_AFFINE, **_TRACKED, **_NO_BIAS}, ("lazyinstancenorm",), free="InstanceNorm"),
        Kind("groupnorm", "GroupNorm", "norm", "num_groups", {"g": "num_groups", "c": "num_channels"},
             {**_AFFINE, **_NO_BIAS}, ("gn",)),
        Kind("layernorm", "LayerNorm", "norm", "normalized_shape", flags={**_ELEMENTWISE_AFFINE, **_NO_BIAS},
             aliases=("ln",)),
        Kind("rmsnorm", "RMSNorm", "norm", "normalized_shape", flags=_ELEMENTWISE_AFFINE),
        Kind("localresponsenorm", "LocalResponseNorm", "norm", "size", aliases=("lrn",)),
        Kind("dropout", _ranks("Dropout"), "dropout", "p", {"p": "p"}, _INPLACE, free="Dropout"),
        Kind("alphadropout", "AlphaDropout", "dropout", "p", {"p": "p"}, _INPLACE),
        Kind("featurealphadropout", "FeatureAlphaDropout", "dropout", "p", {"p": "p"}, _INPLACE),
        # activations
        _activation("relu", "ReLU"),
        _activation("relu6", "ReLU6"),
        _activation("hardsigmoid", "Hardsigmoid"),
        _activation("hardswish", "Hardswish"),
        _activation("selu", "SELU"),
        _activation("silu", "SiLU", "swish"),
        _activation("mish", "Mish"),
        Kind("sigmoid", "Sigmoid", "activation"),
        Kind("tanh", "Tanh", "activation"),
        Kind("logsigmoid", "LogSigmoid", "activation"),
        Kind("softsign", "Softsign", "activation"),
        Kind("tanhshrink", "Tanhshrink", "activation"),
        Kind("leakyrelu", "LeakyReLU", "parametric", "negative_slope", flags=_INPLACE),
        Kind("rrelu", "RReLU", "parametric", "lower", flags=_INPLACE),
        Kind("elu", "ELU", "parametric", "alpha", {"a": "alpha"}, _INPLACE),
        Kind("celu", "CELU", "parametric", "alpha", {"a": "alpha"}, _INPLACE),
        Kind("hardtanh", "Hardtanh", "parametric", "min_val", flags=_INPLACE),
        Kind("threshold", "Threshold", "parametric", "threshold", {"t": "threshold", "v": "value"}, _INPLACE),
        Kind("hardshrink", "Hardshrink", "parametric", "lambd"),
        Kind("softshrink", "Softshrink", "parametric", "lambd"),
        Kind("softplus", "Softplus", "parametric", "beta", {"b": "beta", "t": "threshold"}),
        Kind("scale", "Scale", "parametric", "factor"),
        Kind("shift", "Shift", "parametric", "amount"),
        Kind("gelu", "GELU", "parametric", flags={"tanh": ("approximate", "tanh")}),
        Kind("prelu", "PReLU", "parametric", "num_parameters", {"c": "num_parameters"}),
        Kind("glu", "GLU", "parametric", "dim", {"d": "dim"}),
        Kind("softmax", "Softmax", "softmax", "dim", {"d": "dim"}),
        Kind("softmin", "Softmin", "softmax", "dim", {"d": "dim"}),
        Kind("logsoftmax", "LogSoftmax", "softmax", "dim", {"d": "dim"}),
        Kind("softmax2d", "Softmax2d", "softmax"),
        # sequences
        Kind("lstm", "LSTM", "recurrent", "hidden_size", _STACK, {**_STACK_FLAGS, **_NO_BIAS}),
        Kind("gru", "GRU", "recurrent", "hidden_size", _STACK, {**_STACK_FLAGS, **_NO_BIAS}),
        Kind("rnn", "RNN", "recurrent", "hidden_size", _STACK,
             {**_STACK_FLAGS, **_NO_BIAS, "relu": ("nonlinearity", "relu")}),
        Kind("multiheadattention", "MultiheadAttention", "multihead", "embed_dim", {"h": "num_heads"},
             {**_BATCH_FIRST, **_NO_BIAS}, ("mha",)),
        Kind("embedding", "Embedding", "embedding", "embedding_dim", {"n": "num_embeddings"}),
        # joins
        Kind("add", "Add", "join"),
        Kind("mul", "Mul", "join"),
        Kind("concat", "Concat", "join", "dim", {"d": "dim"}, aliases=("cat",)),
        Kind("matmul", "MatMul", "matmul"),
        Kind("attention", "Attention", "matmul", "q_heads", {"h": "q_heads", "kv": "kv_heads"},
             {"causal": ("causal", True)}),
    )
}  # fmt: skip
"""Every kind of layer by its name in expressions."""

FILE_LAYERS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("function", "Function", "elementwise", "function"),
        Kind("combine", "Combine", "elementwise", "function"),
        Kind("clip", "Clip", "elementwise", "least"),
        Kind("onnxhardsigmoid", "HardSigmoid", "elementwise", "alpha"),
        Kind("quantize", "Quantize", "elementwise", "dtype"),
        Kind("reduce", "Reduce", "reduce", "function"),
        Kind("cumulate", "Cumulate", "reduce", "dim"),
        Kind("topk", "TopK", "reduce", "k"),
        Kind("gemm", "Gemm", "matmul"),
        Kind("einsum", "Einsum", "matmul", "equation"),
        Kind("det", "Det", "matmul"),
        Kind("dft", "DFT", "spectral", "dim"),
        Kind("stft", "STFT", "spectral", "step"),
        Kind("onnxlstm", "OnnxLSTM", "recurrent", "hidden_size"),
        Kind("onnxgru", "OnnxGRU", "recurrent", "hidden_size"),
        Kind("onnxrnn", "OnnxRNN", "recurrent", "hidden_size"),
        Kind("gridsample", "GridSample", "sample", "mode"),
        Kind("roialign", "RoiAlign", "sample", "output_size"),
        Kind("deformconv", "DeformConv", "sample", "out_channels"),
        Kind("shaped", "Shaped", "tensor", "shape"),
        Kind("slice", "Slice", "tensor", "starts"),
        Kind("split", "Split", "tensor", "sizes"),
        Kind("gather", "Gather", "tensor", "dim"),
        Kind("gatherelements", "GatherElements", "tensor", "dim"),
        Kind("gathernd", "GatherND", "tensor", "batch_dims"),
        Kind("scatter", "Scatter", "tensor", "dim"),
        Kind("expand", "Expand", "tensor", "shape"),
        Kind("tile", "Tile", "tensor", "repeats"),
        Kind("cast", "Cast", "tensor", "dtype"),
        Kind("fill", "Fill", "tensor", "shape"),
        Kind("padaxes", "PadAxes", "tensor", "padding"),
        Kind("depthtospace", "DepthToSpace", "tensor", "blocksize"),
        Kind("spacetodepth", "SpaceToDepth", "tensor", "blocksize"),
        Kind("resize", "Resize", "tensor", "shape"),
        Kind("layernormstatistics", "LayerNormStatistics", "variants", "normalized_shape"),
        Kind("batchnormtraining", "BatchNormTraining", "variants", "num_features"),
        Kind("dropoutmask", "DropoutMask", "variants", "p"),
        Kind("windowpool", "WindowPool", "variants", "function"),
    )
}  # fmt: skip
"""Kinds that no expression makes: ops of model files that are no modules in PyTorch."""

SEQUENCES = {"lstm": 2, "gru": 2, "rnn": 2, "multiheadattention": 2, "attention": 2, "embedding": 1}
"""Kinds over sequences, and how many axes one has: steps and features, or steps alone."""

_names: dict[str, Kind] = {}


def find_kind(word: str) -> tuple[Kind, int | None] | None:
    """The kind that a word names, and the rank that it fixes, or None for no kind.

    >>> kind, rank = find_kind("nn.ConvTranspose2d")
    >>> kind.name, rank
    ('convt', 2)
    """
    name = word.removeprefix("torch.").removeprefix("nn.").lower()
    if not name.isidentifier():  # a file, most likely
        return None
    if not _names:
        for kind in LAYERS.values():
            for spelling in kind.names():
                _names.setdefault(spelling, kind)
    found = _names.get(name)
    if found is None:
        return None
    ranked = re.search(r"([123])d$", name)
    return found, int(ranked[1]) if ranked and isinstance(found.classes, tuple) else None


def kind_of(layer: Layer) -> Kind:
    """The table's line for a layer."""
    return LAYERS.get(layer.kind) or FILE_LAYERS[layer.kind]
