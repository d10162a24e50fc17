"""Warnings and notes: what to know about an answer."""

from __future__ import annotations

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.shapes import shapes
from convcalc.expressions import parse_text


def diagnostics(text: str) -> list[tuple[str, str | None, str]]:
    """Level, layer and message of everything said about a network, the same whatever is asked."""
    network = parse_text(text).network()
    found = [
        [(item.level, item.layer, item.message) for item in report.diagnostics]
        for report in (shapes(network), costs(network), memory(network))
    ]
    assert found[0] == found[1] == found[2]
    return found[0]


def test_linear_on_unflattened_input_is_warned_of() -> None:
    assert diagnostics("3x32x32 conv:8,k3 linear:10") == [
        ("warning", "1 (linear)", "works on the last axis of 8x30x30 alone; a flatten before it would take all of it")
    ]
    assert diagnostics("3x32x32 conv:8,k3 flatten linear:10") == []


def test_linear_on_features_is_not() -> None:
    assert diagnostics("2x5x16 linear:10") == []
    assert diagnostics("784 linear:10") == []


def test_a_checkerboard_is_warned_of() -> None:
    (found,) = diagnostics("8x8x8 convt:4,k3,s2")
    assert found[:2] == ("warning", "0 (convt)")
    assert found[2].startswith("the stride 2 does not divide the kernel_size 3")
    assert diagnostics("8x8x8 convt:4,k4,s2") == []
    assert diagnostics("8x8x8 convt:4,k2,s3")[0][2].endswith("so no window reaches some outputs")
    assert diagnostics("8x8x8 convt:4,k3,s1") == []


def test_sizes_alone_are_noted() -> None:
    assert diagnostics("224 conv:k7") == [("note", None, "the input is read as sizes with one channel")]


def test_a_softmax_over_the_batch_is_warned_of() -> None:
    assert diagnostics("3x8 conv1d:4 softmax") == [
        ("warning", "1 (softmax)", "dim is not given, and of 3 axes PyTorch then takes 0, the batch; write dim=-1")
    ]
    assert diagnostics("1x8x8 conv:1 softmax") == [
        (
            "warning",
            "1 (softmax)",
            "dim is not given, and PyTorch then takes axis 1, along which there is one element alone;"
            " dim=-1 takes the last axis",
        )
    ]
    assert diagnostics("784 linear:10 softmax") == diagnostics("3x8 conv1d:4 softmax:1") == []
    assert diagnostics("3x8x8 conv:4 logsoftmax") == []
