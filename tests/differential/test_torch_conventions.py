"""Conventions against the tools themselves: what was noted, and random layers; each in its version only."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from convcalc.analysis.conventions import TOOLS
from convcalc.analysis.costs import costs
from convcalc.errors import ConvcalcError
from convcalc.expressions import parse_text

sys.path.insert(0, str(Path(__file__).parent.parent))  # where the table is, also when this file is run alone
from test_conventions import SAID

pytestmark = pytest.mark.torch

VERSIONS = {
    "torch": "2.13.0",
    "fvcore": "0.1.5.post20221221",
    "thop": "0.1.1.post2209072238",
    "ptflops": "0.7.5",
}


@pytest.fixture(scope="module", params=TOOLS)
def tool(request):
    """A tool's name and the function that asks it, skipped where it is not there in the version that is claimed."""
    name = request.param
    try:
        found = version(name).partition("+")[0].replace("-", ".post")  # the same, spelled otherwise
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    if found != VERSIONS[name]:
        pytest.skip(f"{name} is {found}, and the rules are those of {VERSIONS[name]}")
    importlib.import_module("torch")
    return name, ASK[name]


def ask_torch(model, x):
    from torch.utils.flop_counter import FlopCounterMode

    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(x)
    return counter.get_total_flops()


def ask_fvcore(model, x):
    from fvcore.nn import FlopCountAnalysis

    counter = FlopCountAnalysis(model.eval(), x)
    counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    return counter.total()


def ask_thop(model, x):
    import thop

    return thop.profile(model, inputs=(x,), verbose=False)[0]


def ask_ptflops(model, x):
    from ptflops import get_model_complexity_info

    with contextlib.redirect_stdout(io.StringIO()):
        return get_model_complexity_info(
            model, (1,), input_constructor=lambda _: x, as_strings=False, print_per_layer_stat=False, verbose=False
        )[0]


ASK = {"torch": ask_torch, "fvcore": ask_fvcore, "thop": ask_thop, "ptflops": ask_ptflops}


def asked(ask, shape, calls):
    """What the tool says about these calls of PyTorch's classes."""
    import torch
    from torch import nn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            torch.manual_seed(0)
            # The calls are this file's own texts.
            model = nn.Sequential(*(eval(f"nn.{call}", {"nn": nn}) for call in calls.split()))
            x = torch.randn(shape)
            model.eval()(x)
            return int(ask(model, x))
        finally:
            logging.disable(logging.NOTSET)


@pytest.mark.parametrize("text", [text for text in SAID if "@" not in text])
def test_what_is_noted(tool, text):
    name, ask = tool
    given_shape, _, calls = text.partition(" ")
    network = parse_text(text).network()
    shape = network.inputs["input"].shape
    assert given_shape.endswith("x".join(map(str, shape[1:])))
    calls = calls.replace("globalavgpool", "AdaptiveAvgPool2d(1)")
    assert asked(ask, shape, calls) == SAID[text][list(TOOLS).index(name)]


# --- random layers --------------------------------------------------------------------------------------------------

tiny = st.integers(1, 3)


@st.composite
def calls(draw):
    """An input and a call of one of PyTorch's classes, both as text."""
    rank = draw(tiny)
    sizes = tuple(draw(st.integers(2, {1: 9, 2: 7, 3: 5}[rank])) for _ in range(rank))
    groups = draw(st.integers(1, 2))
    channels = groups * draw(tiny)
    kernel, stride = draw(tiny), draw(tiny)
    window = f"{kernel},{stride},{draw(st.integers(0, kernel // 2))}"
    out, bias = groups * draw(tiny), draw(st.booleans())
    affine = draw(st.booleans())
    padding = draw(st.sampled_from(["0", "1", "'same'", "'valid'"]))
    if padding == "'same'":
        stride = 1
    factor = draw(st.sampled_from(["2", "3", "1.5"]))
    mode = draw(
        st.sampled_from(["nearest", "nearest-exact", "area", {1: "linear", 2: "bilinear", 3: "trilinear"}[rank]])
    )
    target = ",".join(str(draw(st.integers(1, 4))) for _ in range(rank))
    call = draw(
        st.sampled_from(
            [
                f"Conv{rank}d({channels},{out},{kernel},{stride},{padding},1,{groups},{bias})",
                f"ConvTranspose{rank}d({channels},{out},{kernel},{stride},0,0,{groups},{bias})",
                f"MaxPool{rank}d({window})",
                f"AvgPool{rank}d({window})",
                f"LPPool{rank}d(2,{kernel},{stride})",
                f"AdaptiveAvgPool{rank}d(({target},))",
                f"AdaptiveMaxPool{rank}d(({target},))",
                f"BatchNorm{rank}d({channels},affine={affine},track_running_stats={bias})",
                f"InstanceNorm{rank}d({channels},affine={affine},track_running_stats={bias})",
                f"GroupNorm({groups},{channels},affine={affine})",
                f"LayerNorm({sizes[-1]},elementwise_affine={affine})",
                f"RMSNorm({sizes[-1]})",
                f"LocalResponseNorm({kernel})",
                f"Linear({sizes[-1]},{out},{bias})",
                f"Upsample(scale_factor={factor},mode='{mode}')",
                f"Upsample(size={draw(st.integers(1, 8))},mode='{mode}')",
                f"Softmax({draw(st.integers(0, rank))})",
                *(f"{name}()" for name in (
                    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "RReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish",
                    "Sigmoid", "LogSigmoid", "Tanh", "Tanhshrink", "Hardtanh", "Hardswish", "Hardsigmoid",
                    "Hardshrink", "Softshrink", "Softplus", "Softsign", "Dropout", "Flatten", "Identity",
                )),
            ]
        )
    )  # fmt: skip
    return (draw(tiny), channels, *sizes), call


def test_random_layers(tool):
    name, ask = tool

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(calls())
    def check(case):
        shape, call = case
        # A pool of 1 in front fixes the rank; alone it is counted, so that it can be taken off again.
        rank = len(shape) - 2
        front = f"{'x'.join(map(str, shape))} MaxPool{rank}d(1)"
        try:
            ours = costs(parse_text(f"{front} {call}").network(), convention=name).rows[1].values["flops"]
        except ConvcalcError:
            assume(False)
        try:
            theirs = asked(ask, shape, call)
        except (RuntimeError, ValueError):  # refusals are compared elsewhere
            assume(False)
        assert theirs == ours, call

    check()
