"""The gradients of what ONNX has as operators, and PyTorch as functions, against PyTorch's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from gradient_cases import CASES, NAMES, numbers  # noqa: E402  after torch is known to be there

from convcalc.executor.kernels import gradient_of, kernel_of  # noqa: E402
from convcalc.layers.recurrent import OnnxGRU, OnnxLSTM, OnnxRNN  # noqa: E402

pytestmark = pytest.mark.torch

ELSEWHERE = {
    **dict.fromkeys(("onnxlstm", "onnxgru", "onnxrnn"), ("test_torch_gradients", "test_recurrent_layers")),
    "multiheadattention": ("test_torch_recurrent", "test_attention_is_pytorchs"),
    "layernormstatistics": ("test_torch_gradients", "test_layer_norm_with_its_statistics"),
}
"""Which test compares the gradients of kinds whose cases have no function of PyTorch's."""


def test_every_kind_is_compared() -> None:
    assert {each.layer.kind for each in CASES if each.theirs is None} == set(ELSEWHERE)
    for module, function in ELSEWHERE.values():
        assert f"def {function}(" in Path(__file__).with_name(f"{module}.py").read_text()


@pytest.mark.parametrize("index", [index for index, each in enumerate(CASES) if each.theirs], ids=NAMES.__getitem__)
def test_the_gradients_are_theirs(index: int) -> None:
    layer, arrays, weights = numbers(index)
    theirs = CASES[index].theirs
    assert theirs is not None
    tensors = [torch.tensor(array, requires_grad=array.dtype.kind == "f" and array.ndim > 0) for array in arrays]
    parameters = {
        name: torch.tensor(array, requires_grad=name in layer.parameters()) for name, array in weights.items()
    }
    wanted = theirs(*tensors, **parameters)
    wanted = list(wanted) if isinstance(wanted, tuple) else [wanted]
    outputs = kernel_of(layer)(layer, arrays, weights)
    for mine, their in zip(outputs, wanted, strict=True):
        np.testing.assert_allclose(mine, their.detach().numpy(), rtol=1e-9, atol=1e-12)
    stream = np.random.default_rng(index)
    grads = tuple(stream.normal(size=output.shape) for output in outputs)
    learned = [pair for pair in zip(wanted, grads, strict=True) if pair[0].requires_grad]
    torch.autograd.backward([tensor for tensor, _ in learned], [torch.tensor(grad) for _, grad in learned])
    found, of_weights = gradient_of(layer)(layer, arrays, outputs, weights, grads)
    assert set(of_weights) == set(layer.parameters())
    pairs = [*zip(found, tensors, strict=True), *((of_weights[name], parameters[name]) for name in of_weights)]
    for mine, tensor in pairs:
        if tensor.requires_grad and tensor.grad is not None:
            assert mine is not None
            assert mine.shape == tuple(tensor.shape)
            np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_layer_norm_with_its_statistics() -> None:
    (index,) = (index for index, each in enumerate(CASES) if each.layer.kind == "layernormstatistics")
    layer, (array,), weights = numbers(index)
    x = torch.tensor(array, requires_grad=True)
    parameters = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
    wanted = torch.native_layer_norm(x, (4,), *parameters.values(), 1e-5)
    outputs = kernel_of(layer)(layer, (array,), weights)
    grad = torch.randn_like(wanted[0])
    wanted[0].backward(grad)
    none = tuple(np.zeros_like(output) for output in outputs[1:])
    (of_x,), of_weights = gradient_of(layer)(layer, (array,), outputs, weights, (grad.numpy(), *none))
    np.testing.assert_allclose(of_x, x.grad.numpy(), rtol=1e-9, atol=1e-11)
    for name, parameter in parameters.items():
        np.testing.assert_allclose(of_weights[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-11)


RECURRENT = [
    (OnnxLSTM, torch.nn.LSTM, [0, 3, 1, 2]),
    (OnnxGRU, torch.nn.GRU, [1, 0, 2]),
    (OnnxRNN, torch.nn.RNN, [0]),
]
"""The layer, PyTorch's, and where ONNX's gates stand among PyTorch's."""


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("ours", "theirs", "order"), RECURRENT, ids=lambda value: getattr(value, "__name__", ""))
def test_recurrent_layers(ours: type, theirs: type, order: list[int], directions: int) -> None:
    torch.manual_seed(0)
    size, hidden, length, batch = 3, 4, 5, 2
    module = theirs(size, hidden, bidirectional=directions == 2).double()
    x = torch.randn(length, batch, size, dtype=torch.float64, requires_grad=True)
    wanted, last = module(x)
    lasts = list(last) if isinstance(last, tuple) else [last]
    named = dict(module.named_parameters())

    def rows(name: str, direction: int) -> torch.Tensor:
        whole = named[f"{name}_l0{'_reverse' * direction}"].detach()
        return torch.cat([whole[place * hidden : (place + 1) * hidden] for place in order])

    def stacked(name: str) -> np.ndarray:
        return np.stack([rows(name, direction).numpy() for direction in range(directions)])

    weights = {"weight_ih": stacked("weight_ih"), "weight_hh": stacked("weight_hh"),
               "bias": np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)}  # fmt: skip
    more = {"linear_before_reset": True} if ours is OnnxGRU else {}
    layer = ours(size, hidden, directions=directions, **more)
    outputs = kernel_of(layer)(layer, (x.detach().numpy(),), weights)
    turned = outputs[0].swapaxes(1, 2).reshape(length, batch, -1)
    np.testing.assert_allclose(turned, wanted.detach().numpy(), rtol=1e-9)
    grad = torch.randn_like(wanted)
    grad_lasts = [torch.randn_like(state) for state in lasts]
    torch.autograd.backward([wanted, *lasts], [grad, *grad_lasts])
    grads = (
        grad.numpy().reshape(length, batch, directions, hidden).swapaxes(1, 2),
        *map(torch.Tensor.numpy, grad_lasts),
    )
    (of_x,), learned = gradient_of(layer)(layer, (x.detach().numpy(),), outputs, weights, grads)
    np.testing.assert_allclose(of_x, x.grad.numpy(), rtol=1e-8, atol=1e-11)
    for parameter in named.values():
        parameter.data = parameter.grad
    np.testing.assert_allclose(learned["weight_ih"], stacked("weight_ih"), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(learned["weight_hh"], stacked("weight_hh"), rtol=1e-8, atol=1e-11)
    biases = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    np.testing.assert_allclose(learned["bias"], biases, rtol=1e-8, atol=1e-11)
