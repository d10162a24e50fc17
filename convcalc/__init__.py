"""convcalc: shapes, FLOPs, memory, merging and execution of convolutional layers and models.

Every public name is imported when it is asked for: `import convcalc` alone loads next to nothing, and what needs no
NumPy does not load it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convcalc._version import __version__ as __version__

if TYPE_CHECKING:
    from convcalc.analysis import analyse as analyse
    from convcalc.analysis.costs import costs as costs
    from convcalc.analysis.memory import memory as memory
    from convcalc.analysis.receptive_field import receptive_fields as receptive_fields
    from convcalc.analysis.report import Column as Column, Diagnostic as Diagnostic, Report as Report, Row as Row
    from convcalc.analysis.shapes import shapes as shapes
    from convcalc.analysis.summary import summary as summary
    from convcalc.composition.compose import compose as compose
    from convcalc.errors import (
        BudgetError as BudgetError,
        ConvcalcError as ConvcalcError,
        ExpressionError as ExpressionError,
        LayerError as LayerError,
        ModelFileError as ModelFileError,
        ResourceError as ResourceError,
        ShapeError as ShapeError,
        UnsupportedOpError as UnsupportedOpError,
    )
    from convcalc.executor.fit import Fit as Fit, fit as fit
    from convcalc.executor.matrix import as_matrix as as_matrix
    from convcalc.executor.run import Prepared as Prepared, Result as Result, prepare as prepare, run as run
    from convcalc.expressions import parse_network as parse_network
    from convcalc.expressions.writing import expression_of as expression_of
    from convcalc.layers import LAYERS as LAYERS
    from convcalc.layers.activation import (
        SELU as SELU,
        Hardsigmoid as Hardsigmoid,
        Hardswish as Hardswish,
        LogSigmoid as LogSigmoid,
        Mish as Mish,
        ReLU as ReLU,
        ReLU6 as ReLU6,
        Sigmoid as Sigmoid,
        SiLU as SiLU,
        Softsign as Softsign,
        Tanh as Tanh,
        Tanhshrink as Tanhshrink,
    )
    from convcalc.layers.adaptive import (
        AdaptiveAvgPool1d as AdaptiveAvgPool1d,
        AdaptiveAvgPool2d as AdaptiveAvgPool2d,
        AdaptiveAvgPool3d as AdaptiveAvgPool3d,
        AdaptiveMaxPool1d as AdaptiveMaxPool1d,
        AdaptiveMaxPool2d as AdaptiveMaxPool2d,
        AdaptiveMaxPool3d as AdaptiveMaxPool3d,
        GlobalAvgPool as GlobalAvgPool,
        GlobalMaxPool as GlobalMaxPool,
    )
    from convcalc.layers.base import Layer as Layer
    from convcalc.layers.conv import (
        Conv1d as Conv1d,
        Conv2d as Conv2d,
        Conv3d as Conv3d,
        ConvTranspose1d as ConvTranspose1d,
        ConvTranspose2d as ConvTranspose2d,
        ConvTranspose3d as ConvTranspose3d,
    )
    from convcalc.layers.dropout import (
        AlphaDropout as AlphaDropout,
        Dropout as Dropout,
        Dropout1d as Dropout1d,
        Dropout2d as Dropout2d,
        Dropout3d as Dropout3d,
        FeatureAlphaDropout as FeatureAlphaDropout,
    )
    from convcalc.layers.embedding import Embedding as Embedding
    from convcalc.layers.fractional import (
        FractionalMaxPool1d as FractionalMaxPool1d,
        FractionalMaxPool2d as FractionalMaxPool2d,
        FractionalMaxPool3d as FractionalMaxPool3d,
    )
    from convcalc.layers.join import Add as Add, Concat as Concat, Mul as Mul
    from convcalc.layers.linear import Linear as Linear
    from convcalc.layers.lppool import LPPool1d as LPPool1d, LPPool2d as LPPool2d, LPPool3d as LPPool3d
    from convcalc.layers.matmul import Attention as Attention, MatMul as MatMul
    from convcalc.layers.multihead import MultiheadAttention as MultiheadAttention
    from convcalc.layers.norm import (
        BatchNorm as BatchNorm,
        BatchNorm1d as BatchNorm1d,
        BatchNorm2d as BatchNorm2d,
        BatchNorm3d as BatchNorm3d,
        GroupNorm as GroupNorm,
        InstanceNorm as InstanceNorm,
        InstanceNorm1d as InstanceNorm1d,
        InstanceNorm2d as InstanceNorm2d,
        InstanceNorm3d as InstanceNorm3d,
        LayerNorm as LayerNorm,
        LocalResponseNorm as LocalResponseNorm,
        RMSNorm as RMSNorm,
        SyncBatchNorm as SyncBatchNorm,
    )
    from convcalc.layers.pad import (
        CircularPad1d as CircularPad1d,
        CircularPad2d as CircularPad2d,
        CircularPad3d as CircularPad3d,
        ConstantPad1d as ConstantPad1d,
        ConstantPad2d as ConstantPad2d,
        ConstantPad3d as ConstantPad3d,
        Crop as Crop,
        Pad1d as Pad1d,
        Pad2d as Pad2d,
        Pad3d as Pad3d,
        ReflectionPad1d as ReflectionPad1d,
        ReflectionPad2d as ReflectionPad2d,
        ReflectionPad3d as ReflectionPad3d,
        ReplicationPad1d as ReplicationPad1d,
        ReplicationPad2d as ReplicationPad2d,
        ReplicationPad3d as ReplicationPad3d,
        ZeroPad1d as ZeroPad1d,
        ZeroPad2d as ZeroPad2d,
        ZeroPad3d as ZeroPad3d,
    )
    from convcalc.layers.parametric import (
        CELU as CELU,
        ELU as ELU,
        GELU as GELU,
        GLU as GLU,
        Hardshrink as Hardshrink,
        Hardtanh as Hardtanh,
        LeakyReLU as LeakyReLU,
        PReLU as PReLU,
        RReLU as RReLU,
        Scale as Scale,
        Shift as Shift,
        Softplus as Softplus,
        Softshrink as Softshrink,
        Threshold as Threshold,
    )
    from convcalc.layers.pool import (
        AvgPool1d as AvgPool1d,
        AvgPool2d as AvgPool2d,
        AvgPool3d as AvgPool3d,
        MaxPool1d as MaxPool1d,
        MaxPool2d as MaxPool2d,
        MaxPool3d as MaxPool3d,
    )
    from convcalc.layers.rearrange import (
        ChannelShuffle as ChannelShuffle,
        Identity as Identity,
        Permute as Permute,
        PixelShuffle as PixelShuffle,
        PixelUnshuffle as PixelUnshuffle,
        Reshape as Reshape,
        Unflatten as Unflatten,
    )
    from convcalc.layers.recurrent import GRU as GRU, LSTM as LSTM, RNN as RNN
    from convcalc.layers.reshape import Flatten as Flatten
    from convcalc.layers.softmax import (
        LogSoftmax as LogSoftmax,
        Softmax as Softmax,
        Softmax2d as Softmax2d,
        Softmin as Softmin,
    )
    from convcalc.layers.unfold import Fold as Fold, Unfold as Unfold
    from convcalc.layers.unpool import (
        MaxUnpool1d as MaxUnpool1d,
        MaxUnpool2d as MaxUnpool2d,
        MaxUnpool3d as MaxUnpool3d,
    )
    from convcalc.layers.upsample import (
        Upsample as Upsample,
        UpsamplingBilinear2d as UpsamplingBilinear2d,
        UpsamplingNearest2d as UpsamplingNearest2d,
    )
    from convcalc.network import Input as Input, Network as Network, Node as Node
    from convcalc.onnx.file import read_onnx as read_onnx
    from convcalc.torch_text import parse_printed as parse_printed

_WHERE = {
    "analyse": "analysis",
    "as_matrix": "executor.matrix",
    "BudgetError": "errors",
    "Column": "analysis.report",
    "compose": "composition.compose",
    "ConvcalcError": "errors",
    "costs": "analysis.costs",
    "Diagnostic": "analysis.report",
    "expression_of": "expressions.writing",
    "ExpressionError": "errors",
    "fit": "executor.fit",
    "Fit": "executor.fit",
    "Input": "network",
    "Layer": "layers.base",
    "LayerError": "errors",
    "LAYERS": "layers",
    "memory": "analysis.memory",
    "ModelFileError": "errors",
    "Network": "network",
    "Node": "network",
    "parse_network": "expressions",
    "parse_printed": "torch_text",
    "prepare": "executor.run",
    "Prepared": "executor.run",
    "read_onnx": "onnx.file",
    "receptive_fields": "analysis.receptive_field",
    "Report": "analysis.report",
    "ResourceError": "errors",
    "Result": "executor.run",
    "Row": "analysis.report",
    "run": "executor.run",
    "ShapeError": "errors",
    "shapes": "analysis.shapes",
    "summary": "analysis.summary",
    "UnsupportedOpError": "errors",
}
"""In which of the package's modules each public name is that is no layer; the layers are in the table of `LAYERS`."""


def _public() -> dict[str, str]:
    """Every public name with its module."""
    from convcalc.layers import LAYERS

    layers = {name: f"layers.{kind.module}" for kind in LAYERS.values() for name in kind.class_names()}
    return {**_WHERE, **layers}


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return sorted(["__version__", *_public()])
    # Most of what is asked for with underscores is asked by Python itself, and is not here.
    module = None if name.startswith("_") else _WHERE.get(name) or _public().get(name)
    if module is None:
        raise AttributeError(f"module 'convcalc' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"convcalc.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_public()})
