"""Every kernel and every gradient against PyTorch's, on random layers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from convcalc.analysis.shapes import resolve  # noqa: E402  after torch is known to be there
from convcalc.errors import ConvcalcError, ShapeError  # noqa: E402
from convcalc.executor.kernels import gradient_of, kernel_of  # noqa: E402
from convcalc.executor.run import run  # noqa: E402
from convcalc.expressions import parse_text  # noqa: E402
from convcalc.layers import LAYERS, find_kind  # noqa: E402
from convcalc.layers.base import Layer  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    # PyTorch says that unequal padding costs it a copy.
    pytest.mark.filterwarnings("ignore:Implicit dimension choice"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths"),
]

Fields = dict[str, Any]


def sizes(draw: random.Random, rank: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(draw.randint(low, high) for _ in range(rank))


def conv_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    groups = draw.choice([1, 1, 2, channels])
    stride = sizes(draw, rank, 1, 3)
    padding: Any = sizes(draw, rank, 0, 2)
    if draw.random() < 0.2:
        padding, stride = "same", (1,) * rank
    return {
        "in_channels": channels,
        "out_channels": groups * draw.randint(1, 3),
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": stride,
        "padding": padding,
        "dilation": sizes(draw, rank, 1, 2),
        "groups": groups,
        "bias": draw.random() < 0.5,
        "padding_mode": draw.choice(["zeros", "zeros", "reflect", "replicate", "circular"]),
    }


def transposed_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    groups = draw.choice([1, 1, 2, channels])
    return {
        "in_channels": channels,
        "out_channels": groups * draw.randint(1, 3),
        "kernel_size": sizes(draw, rank, 1, 4),
        "stride": sizes(draw, rank, 1, 3),
        "padding": sizes(draw, rank, 0, 2),
        "output_padding": sizes(draw, rank, 0, 1),
        "groups": groups,
        "bias": draw.random() < 0.5,
        "dilation": sizes(draw, rank, 1, 3),
    }


def max_pool_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": draw.choice([None, sizes(draw, rank, 1, 3)]),
        "padding": sizes(draw, rank, 0, 1),
        "dilation": sizes(draw, rank, 1, 2),
        "return_indices": draw.random() < 0.5,
        "ceil_mode": draw.random() < 0.5,
    }


def avg_pool_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {
        "kernel_size": sizes(draw, rank, 1, 3),
        "stride": draw.choice([None, sizes(draw, rank, 1, 3)]),
        "padding": sizes(draw, rank, 0, 1),
        "ceil_mode": draw.random() < 0.5,
        "count_include_pad": draw.random() < 0.5,
        **({"divisor_override": draw.choice([None, 3])} if rank > 1 else {}),
    }


def lp_pool_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {
        "norm_type": draw.choice([2, 4, 2.0]),
        # PyTorch's LPPool1d takes no tuples.
        "kernel_size": draw.randint(1, 3) if rank == 1 else sizes(draw, rank, 1, 3),
        "stride": draw.choice([None, draw.randint(1, 3)]),
        "ceil_mode": draw.random() < 0.5,
    }


def adaptive_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {"output_size": draw.choice([1, draw.randint(1, 5), sizes(draw, rank, 1, 8)])}


def adaptive_max_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {**adaptive_fields(draw, rank, channels), "return_indices": draw.random() < 0.5}


def pad_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {"padding": tuple(draw.randint(0, 3) for _ in range(2 * rank))}


def constant_pad_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {"padding": tuple(draw.randint(-1, 3) for _ in range(2 * rank)), "value": draw.choice([0.0, 1.5, -2])}


def batch_norm_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {
        "num_features": channels,
        "eps": draw.choice([1e-5, 1e-2]),
        "affine": draw.random() < 0.7,
        "track_running_stats": draw.random() < 0.6,
    }


def dropout_fields(draw: random.Random, rank: int, channels: int) -> Fields:
    return {"p": draw.random()}


def divisor(draw: random.Random, number: int) -> int:
    return draw.choice([size for size in range(1, number + 1) if number % size == 0])


def group_norm_fields(draw: random.Random, shape: Shape) -> Fields:
    return {"num_groups": divisor(draw, shape[1]), "num_channels": shape[1], "affine": draw.random() < 0.7}


def last_axes(draw: random.Random, shape: Shape) -> Shape:
    return shape[draw.randint(1, len(shape) - 1) :]


def layer_norm_fields(draw: random.Random, shape: Shape) -> Fields:
    affine = draw.random() < 0.7
    return {
        "normalized_shape": last_axes(draw, shape),
        "elementwise_affine": affine,
        "bias": affine and draw.random() < 0.5,
    }


def rms_norm_fields(draw: random.Random, shape: Shape) -> Fields:
    return {"normalized_shape": last_axes(draw, shape), "eps": draw.choice([None, 1e-3]),
            "elementwise_affine": draw.random() < 0.7}  # fmt: skip


def response_norm_fields(draw: random.Random, shape: Shape) -> Fields:
    return {"size": draw.randint(1, 6), "alpha": draw.choice([1e-4, 0.5]), "beta": 0.75, "k": draw.choice([1.0, 2.0])}


def upsample_fields(draw: random.Random, shape: Shape) -> Fields:
    rank = len(shape) - 2
    mode = draw.choice(["nearest", "nearest-exact", "area", ["linear", "bilinear", "trilinear"][rank - 1]]
                       + ["bicubic"] * (rank == 2))  # fmt: skip
    fields: Fields = {"mode": mode}
    if draw.random() < 0.5:
        fields["size"] = sizes(draw, rank, 1, 12)
    else:
        fields["scale_factor"] = draw.choice([2, 0.5, 1.7, tuple(draw.choice([1, 2, 3, 0.7]) for _ in range(rank))])
        fields["recompute_scale_factor"] = draw.choice([None, True])
    if mode.endswith(("linear", "cubic")):
        fields["align_corners"] = draw.choice([None, True, False])
    return fields


def unfold_fields(draw: random.Random, shape: Shape) -> Fields:
    return {
        "kernel_size": sizes(draw, 2, 1, 3),
        "dilation": sizes(draw, 2, 1, 2),
        "padding": sizes(draw, 2, 0, 2),
        "stride": sizes(draw, 2, 1, 3),
    }


def softmax_fields(draw: random.Random, shape: Shape) -> Fields:
    return {"dim": draw.choice([None, *range(-len(shape), len(shape))])}


def uniform(draw: random.Random, low: float, high: float) -> float:
    return round(draw.uniform(low, high), 3)


Draw = Callable[[random.Random, int, int], Fields]
Shape = tuple[int, ...]
RANKED: dict[str, Draw] = {
    "Conv": conv_fields,
    "ConvTranspose": transposed_fields,
    "MaxPool": max_pool_fields,
    "AvgPool": avg_pool_fields,
    "LPPool": lp_pool_fields,
    "AdaptiveAvgPool": adaptive_fields,
    "AdaptiveMaxPool": adaptive_max_fields,
    "ConstantPad": constant_pad_fields,
    "ZeroPad": pad_fields,
    "ReflectionPad": pad_fields,
    "ReplicationPad": pad_fields,
    "CircularPad": pad_fields,
    "BatchNorm": batch_norm_fields,
    "InstanceNorm": batch_norm_fields,
    "Dropout": dropout_fields,
}
UNRANKED: dict[str, Callable[[random.Random, Shape], Fields]] = {
    "Linear": lambda draw, shape: {"in_features": shape[-1], "out_features": draw.randint(1, 5),
                                   "bias": draw.random() < 0.5},
    "Flatten": lambda draw, shape: {"start_dim": draw.randint(0, 2)},
    "Unflatten": lambda draw, shape: {"dim": 1, "unflattened_size": (divisor(draw, shape[1]), -1)},
    "GroupNorm": group_norm_fields,
    "LayerNorm": layer_norm_fields,
    "RMSNorm": rms_norm_fields,
    "LocalResponseNorm": response_norm_fields,
    "Upsample": upsample_fields,
    "UpsamplingNearest2d": lambda draw, shape: {"scale_factor": 2},
    "UpsamplingBilinear2d": lambda draw, shape: {"scale_factor": 3},
    "Unfold": unfold_fields,
    "ChannelShuffle": lambda draw, shape: {"groups": divisor(draw, shape[1])},
    "PixelShuffle": lambda draw, shape: {"upscale_factor": 2},
    "PixelUnshuffle": lambda draw, shape: {"downscale_factor": draw.choice([1, 2])},
    "Softmax": softmax_fields,
    "Softmin": softmax_fields,
    "LogSoftmax": softmax_fields,
    "GLU": lambda draw, shape: {"dim": 1},
    "PReLU": lambda draw, shape: {"num_parameters": draw.choice([1, shape[1]])},
    "LeakyReLU": lambda draw, shape: {"negative_slope": uniform(draw, -0.5, 0.5)},
    "RReLU": lambda draw, shape: {"lower": 0.1, "upper": uniform(draw, 0.1, 0.5)},
    "ELU": lambda draw, shape: {"alpha": uniform(draw, 0.5, 2)},
    "CELU": lambda draw, shape: {"alpha": uniform(draw, 0.5, 2)},
    "Hardtanh": lambda draw, shape: {"min_val": uniform(draw, -2, 0), "max_val": uniform(draw, 0.1, 2)},
    "Threshold": lambda draw, shape: {"threshold": uniform(draw, -1, 1), "value": uniform(draw, -2, 2)},
    "Hardshrink": lambda draw, shape: {"lambd": uniform(draw, 0, 1)},
    "Softshrink": lambda draw, shape: {"lambd": uniform(draw, 0, 1)},
    "Softplus": lambda draw, shape: {"beta": uniform(draw, 0.5, 3), "threshold": uniform(draw, 1, 20)},
    "GELU": lambda draw, shape: {"approximate": draw.choice(["none", "tanh"])},
    **dict.fromkeys(
        ("ReLU", "ReLU6", "Hardsigmoid", "Hardswish", "SELU", "SiLU", "Mish", "Sigmoid", "Tanh", "LogSigmoid",
         "Softsign", "Tanhshrink", "Softmax2d", "Identity", "AlphaDropout", "FeatureAlphaDropout"),
        lambda draw, shape: {},
    ),
}  # fmt: skip


def layers(seed: int, count: int) -> Iterator[tuple[str, Fields, Shape]]:
    """A class of PyTorch's, its fields, and an input's shape; whether they fit is for PyTorch to say."""
    draw = random.Random(seed)
    names = [*RANKED, *RANKED, *UNRANKED]
    for _ in range(count):
        name = draw.choice(names)
        rank = draw.randint(1, 3)
        channels = draw.choice([2, 4, 6])
        shape = (draw.randint(1, 2), channels, *sizes(draw, rank, 1, 7))
        if name in RANKED:
            yield f"{name}{rank}d", RANKED[name](draw, rank, channels), shape
        else:
            yield name, UNRANKED[name](draw, shape), shape


def ours(name: str, fields: Fields) -> Layer:
    found = find_kind(name)
    assert found is not None, name
    kind, rank = found
    return kind.layer_class(rank)(**fields)


def compare(name: str, fields: Fields, shape: tuple[int, ...], seed: int) -> bool:
    """Run both in float64, forward and backward. Whether the layer could be run at all."""
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    try:
        module = getattr(torch.nn, name)(**fields).double().eval()
        theirs = module(x)
    except (RuntimeError, ValueError, IndexError):
        # That both refuse the same is the business of the tests of shapes.
        return False
    wanted = theirs if isinstance(theirs, tuple) else (theirs,)
    try:
        layer = ours(name, fields).bind(shape)
        layer.infer(shape)
    except ShapeError:
        # PyTorch takes three axes as an image without a batch too.
        return False
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value.uniform_(0.5, 1.5)
    theirs = module(x)
    wanted = theirs if isinstance(theirs, tuple) else (theirs,)
    weights = {key: value.detach().numpy() for key, value in module.state_dict().items()}
    inputs = (x.detach().numpy(),)
    outputs = kernel_of(layer)(layer, inputs, weights)
    assert len(outputs) == len(wanted)
    for mine, their in zip(outputs, wanted, strict=True):
        assert mine.shape == tuple(their.shape)
        np.testing.assert_allclose(mine, their.detach().numpy(), rtol=1e-10, atol=1e-12)
        if np.isinf(mine).any():
            # Dilation can leave a window of padding alone; PyTorch's index for it points outside of the input.
            return True
    if not wanted[0].requires_grad:
        return True
    grad = torch.randn_like(wanted[0])
    wanted[0].backward(grad)
    grads = (grad.numpy(), *(np.zeros(0) for _ in wanted[1:]))
    grad_inputs, grad_weights = gradient_of(layer)(layer, inputs, outputs, weights, grads)
    assert grad_inputs[0] is not None
    # PyTorch's gradients of these multiply doubles by a constant in float32.
    rtol = 1e-7 if name in ("Hardsigmoid", "CELU") else 1e-9
    np.testing.assert_allclose(grad_inputs[0], x.grad.numpy(), rtol=rtol, atol=1e-11)
    for key, parameter in module.named_parameters():
        np.testing.assert_allclose(grad_weights[key], parameter.grad.numpy(), rtol=1e-9, atol=1e-11)
    return True


@pytest.mark.parametrize("part", range(10))
def test_random_layers_forward_and_backward(part: int) -> None:
    ran = 0
    for index, (name, fields, shape) in enumerate(layers(part, 200)):
        try:
            ran += compare(name, fields, shape, index)
        except (AssertionError, ConvcalcError, TypeError, IndexError) as error:
            raise AssertionError(f"{name}({fields}) on {shape}: {error}") from error
    assert ran > 120


SPECIAL = (
    "Threshold(0.1, 3.0)", "Hardshrink()", "Softshrink()", "ReLU()", "ReLU6()", "Hardtanh()", "LeakyReLU()", "ELU()",
    "SELU()", "CELU()", "Hardsigmoid()", "Hardswish()", "Softplus()", "Mish()", "GELU()", "SiLU()", "LogSigmoid()",
    "Softsign()", "Tanhshrink()", "Sigmoid()", "Tanh()",
)  # fmt: skip


@pytest.mark.parametrize("text", SPECIAL)
def test_activations_of_special_values(text: str) -> None:
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 0.1, 0.5, -0.5, 1e-300, 30.0, -30.0]])
    wanted = eval(f"torch.nn.{text}")(torch.tensor(x))  # a text of the table above
    mine = run(text, x).output.reshape(x.shape)
    np.testing.assert_allclose(mine, wanted.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("name", "fields"), [("Threshold", {"threshold": 0.1, "value": 3.0}), ("Hardshrink", {})])
def test_nan_learns_as_in_pytorch(name: str, fields: Fields) -> None:
    x = torch.tensor([[float("nan"), 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    getattr(torch.nn, name)(**fields)(x).sum().backward()
    layer = ours(name, fields)
    inputs = (x.detach().numpy(),)
    outputs = kernel_of(layer)(layer, inputs, {})
    (grad,), _ = gradient_of(layer)(layer, inputs, outputs, {}, (np.ones((1, 3)),))
    np.testing.assert_array_equal(grad, x.grad.numpy())


@pytest.mark.parametrize("seed", range(20))
def test_max_unpooling(seed: int) -> None:
    draw = random.Random(seed)
    rank = draw.randint(1, 3)
    shape = (2, 3, *sizes(draw, rank, 4, 7))
    torch.manual_seed(seed)
    pool = getattr(torch.nn, f"MaxPool{rank}d")(2, return_indices=True)
    unpool = getattr(torch.nn, f"MaxUnpool{rank}d")(2)
    values, indices = pool(torch.randn(shape, dtype=torch.float64))
    values.requires_grad_()
    wanted = unpool(values, indices, output_size=shape)
    grad = torch.randn_like(wanted)
    wanted.backward(grad)
    layer = ours(f"MaxUnpool{rank}d", {"kernel_size": 2, "output_size": shape[2:]})
    inputs = (values.detach().numpy(), indices.numpy())
    outputs = kernel_of(layer)(layer, inputs, {})
    np.testing.assert_array_equal(outputs[0], wanted.detach().numpy())
    (grad_values, _), _ = gradient_of(layer)(layer, inputs, outputs, {}, (grad.numpy(),))
    assert grad_values is not None
    np.testing.assert_array_equal(grad_values, values.grad.numpy())


@pytest.mark.parametrize("seed", range(20))
def test_fractional_max_pooling_with_the_middle_of_what_can_be_drawn(seed: int) -> None:
    draw = random.Random(seed)
    rank = draw.choice([2, 3])
    shape = (2, 3, *sizes(draw, rank, 5, 9))
    output = sizes(draw, rank, 1, 3)
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    middle = torch.full((2, 3, rank), 0.5, dtype=torch.float64)
    function = getattr(torch.nn.functional, f"fractional_max_pool{rank}d")
    values, indices = function(x, 2, output_size=output, return_indices=True, _random_samples=middle)
    values.sum().backward()
    layer = ours(f"FractionalMaxPool{rank}d", {"kernel_size": 2, "output_size": output, "return_indices": True})
    inputs = (x.detach().numpy(),)
    outputs = kernel_of(layer)(layer, inputs, {})
    np.testing.assert_array_equal(outputs[0], values.detach().numpy())
    np.testing.assert_array_equal(outputs[1], indices.numpy())
    grads = (np.ones_like(outputs[0]), outputs[1])
    (grad_input,), _ = gradient_of(layer)(layer, inputs, outputs, {}, grads)
    assert grad_input is not None
    np.testing.assert_array_equal(grad_input, x.grad.numpy())


@pytest.mark.parametrize("name", ["add", "mul", "concat"])
def test_joins(name: str) -> None:
    shapes = [(2, 3, 4), (2, 3, 4), (2, 3, 4)] if name == "concat" else [(2, 3, 4), (2, 1, 4), (1, 3, 1)]
    torch.manual_seed(0)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    first, second, third = tensors
    wanted = {
        "add": lambda: first + second + third,
        "mul": lambda: first * second * third,
        "concat": lambda: torch.cat(tensors, 1),
    }[name]()
    grad = torch.randn_like(wanted)
    wanted.backward(grad)
    layer = ours(name, {})
    inputs = tuple(tensor.detach().numpy() for tensor in tensors)
    outputs = kernel_of(layer)(layer, inputs, {})
    np.testing.assert_allclose(outputs[0], wanted.detach().numpy())
    grads, _ = gradient_of(layer)(layer, inputs, outputs, {}, (grad.numpy(),))
    for mine, tensor in zip(grads, tensors, strict=True):
        assert mine is not None
        np.testing.assert_allclose(mine, tensor.grad.numpy())


def folded(x: Any) -> Any:
    """Unfolded and folded again: every element as often as windows see it."""
    return torch.nn.functional.fold(torch.nn.functional.unfold(x, 2, padding=1), (6, 5), 2, padding=1)


def padded(x: Any) -> Any:
    """Rows reflected, then cut off in front and set behind."""
    pad = torch.nn.functional.pad
    return pad(pad(x, (0, 0, 1, 2), "reflect"), (0, 0, -1, 2), value=-1.5)


FUNCTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "globalavgpool": ("globalavgpool", lambda x: x.mean((2, 3), keepdim=True)),
    "globalmaxpool": ("globalmaxpool", lambda x: x.amax((2, 3), keepdim=True)),
    "fold": ("unfold:2,p1 fold:6x5,k2,p1", folded),
    "reshape": ("reshape:shape=12x10", lambda x: x.reshape(2, 12, 10)),
    "permute": ("permute:0x2x3x1", lambda x: x.permute(0, 2, 3, 1)),
    "pad": ("pad:1+2x0,reflect pad:-1+2x0,v-1.5", padded),
    "crop": ("@a maxpool:2,s1 @b from:@a crop:@b", lambda x: x[:, :, :5, :4]),
    "syncbatchnorm": ("syncbatchnorm:4", lambda x: x / (1 + 1e-5) ** 0.5),
    "scale": ("scale:0.5", lambda x: 0.5 * x),
    "shift": ("shift:-0.5", lambda x: x - 0.5),
}  # fmt: skip
"""Expressions of kinds that are functions in PyTorch, or whose module wants more than a processor."""
BY_THEMSELVES = {
    **dict.fromkeys(("add", "mul", "concat"), "test_joins"),
    "maxunpool": "test_max_unpooling",
    "fractionalmaxpool": "test_fractional_max_pooling_with_the_middle_of_what_can_be_drawn",
}
"""Kinds that have a test of their own here."""
OVER_SEQUENCES = {"lstm", "gru", "rnn", "multiheadattention", "embedding", "attention", "matmul"}
"""Kinds that test_torch_recurrent.py compares; matrix products and attention are in gradient_cases.py."""


@pytest.mark.parametrize("kind", FUNCTIONS)
def test_functions_forward_and_backward(kind: str) -> None:
    text, theirs = FUNCTIONS[kind]
    stream = np.random.default_rng(0)
    array = stream.normal(size=(2, 4, 6, 5))
    x = torch.tensor(array, requires_grad=True)
    arrays = {"input": array}
    items = resolve(parse_text(text).network(array.shape))
    assert kind in {item.layer.kind for item in items}
    done = []
    for item in items:
        inputs = tuple(arrays[name] for name in item.node.inputs)
        sizes = {**item.layer.parameters(), **item.layer.buffers()}
        weights = {name: np.full(size, name in ("weight", "running_var"), float) for name, size in sizes.items()}
        outputs = kernel_of(item.layer)(item.layer, inputs, weights)
        done.append((item, inputs, outputs, weights))
        arrays.update(zip(item.node.outputs, outputs, strict=True))
    wanted = theirs(x)
    last = items[-1].node.outputs[0]
    np.testing.assert_allclose(arrays[last], wanted.detach().numpy(), rtol=1e-12)
    grad = torch.randn_like(wanted)
    wanted.backward(grad)
    grads = {last: grad.numpy()}
    for item, inputs, outputs, weights in reversed(done):
        given = tuple(grads.get(name, np.zeros_like(y)) for name, y in zip(item.node.outputs, outputs, strict=True))
        found, _ = gradient_of(item.layer)(item.layer, inputs, outputs, weights, given)
        for name, of in zip(item.node.inputs, found, strict=True):
            if of is not None:
                grads[name] = grads[name] + of if name in grads else of
    np.testing.assert_allclose(grads["input"], x.grad.numpy(), rtol=1e-9, atol=1e-12)


def test_every_kind_is_compared() -> None:
    """So that a new kind without a comparison of its gradient fails."""
    found = [find_kind(f"{name}2d" if name in RANKED else name) for name in (*RANKED, *UNRANKED)]
    compared = {kind.name for kind, _ in filter(None, found)} | set(FUNCTIONS) | set(BY_THEMSELVES) | OVER_SEQUENCES
    assert set(BY_THEMSELVES.values()) <= set(globals())
    assert set(LAYERS) - compared == {"unknown"} & set(LAYERS)
