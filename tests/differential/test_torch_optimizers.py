"""Fitting a chain, step by step, beside PyTorch's optimizers."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from convcalc.executor.fit import fit  # noqa: E402  after torch is known to be there
from convcalc.executor.run import prepare  # noqa: E402

pytestmark = pytest.mark.torch

CHAIN = "conv:4,k3,p1 batchnorm relu maxpool:2 conv:3,k3 gelu flatten linear:5"
THEIRS = {
    "sgd": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr),
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": lambda parameters, lr: torch.optim.Adam(parameters, lr=lr),
    "adamw": lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr),
}
RATES = {"sgd": 1e-3, "momentum": 3e-4, "adam": 1e-2, "adamw": 1e-2}
STEPS = 12


def module() -> torch.nn.Sequential:
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(4, 3, 3),
        torch.nn.GELU(),
        torch.nn.Flatten(),
        torch.nn.Linear(12, 5),
    ).double()


@pytest.mark.parametrize("optimizer", THEIRS)
def test_every_step_is_theirs(optimizer: str) -> None:
    torch.manual_seed(0)
    net = module().eval()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    x, target = torch.randn(6, 2, 8, 8, dtype=torch.float64), torch.randn(6, 5, dtype=torch.float64)
    weights = {name: array.detach().numpy().copy() for name, array in net.state_dict().items()}
    prepared = prepare(CHAIN, x.numpy(), weights)
    theirs = THEIRS[optimizer](net.parameters(), RATES[optimizer])
    losses = []
    for step in range(1, STEPS + 1):
        theirs.zero_grad()
        loss = ((net(x) - target) ** 2).sum()
        loss.backward()
        theirs.step()
        losses.append(loss.item())
        mine = fit(prepared, target.numpy(), optimizer=optimizer, lr=RATES[optimizer], steps=step)
        np.testing.assert_allclose(mine.losses[:-1], losses, rtol=1e-9)
        for name, parameter in net.named_parameters():
            np.testing.assert_allclose(
                mine.result.weights[name], parameter.detach().numpy(), rtol=1e-8, atol=1e-10, err_msg=f"{name}, {step}"
            )
    assert losses[-1] < losses[0]
