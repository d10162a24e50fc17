"""Receptive fields through branches: against published ones, and against a walk over every output position."""

from __future__ import annotations

import json
import random
import re

import pytest

from convcalc.analysis.receptive_field import receptive_fields
from convcalc.analysis.report import Report
from convcalc.analysis.shapes import Resolved, resolve
from convcalc.cli import run_command_line
from convcalc.errors import ShapeError
from convcalc.expressions import parse_text
from convcalc.layers.opaque import Opaque
from convcalc.network import Input, Network, Node
from convcalc.nouns import read_network


def made(text: str) -> Report:
    return receptive_fields(parse_text(text).network())


def warnings(report: Report) -> list[str]:
    return [item.message for item in report.diagnostics if item.level == "warning"]


# Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks (Distill 2019), table of networks:
# receptive field and effective stride of alexnet_v2 and vgg_16, before their fully connected layers. The ResNets' are
# those of torch's gradients (tests/differential), with torchvision's strides.
@pytest.mark.parametrize(
    ("name", "kind", "field", "jump"),
    [
        ("alexnet", "maxpool", 195, 32),
        ("vgg16", "maxpool", 212, 32),
        ("resnet18", "add", 435, 32),
        ("resnet34", "add", 899, 32),
        ("resnet50", "add", 427, 32),
    ],
)
def test_known_networks(name: str, kind: str, field: int, jump: int) -> None:
    report = receptive_fields(read_network([f"examples/{name}.txt"]))
    last = [row for row in report.rows if row.kind == kind][-1]
    assert last.values["receptive_field"] == (field, field)
    assert last.values["jump"] == (jump, jump)
    assert warnings(report) == []


def test_vgg_begins_in_the_padding() -> None:
    # The same table: effective padding 90.
    report = receptive_fields(read_network(["examples/vgg16.txt"]))
    last = [row for row in report.rows if row.kind == "maxpool"][-1]
    assert last.values["offset"] == (-90, -90)
    assert report.rows[-1].values == {}
    assert report.rows[-1].reasons["receptive_field"] == "the spatial axes have ended"


@pytest.mark.parametrize(
    ("text", "field", "jump", "offset", "overlap"),
    [
        # field.md's cases: 3 x 7, and 7 at the worst pixel
        ("3x32x32 conv:8,k3x7", (3, 7), (1, 1), (0, 0), (2, 6)),
        ("3x64x64 conv:8,k3,s2 convt:8,k4,s2 conv:8,k3", (7, 7), (1, 1), (-2, -2), (5, 5)),
        ("3x32x32 conv:8,k3,s2,p1 conv:8,k3,p1", (7, 7), (2, 2), (-3, -3), (5, 5)),
        ("3x32x32 maxpool:2", (2, 2), (2, 2), (0, 0), (0, 0)),
        ("3x32x32 conv:8,k3,d4", (9, 9), (1, 1), (0, 0), (8, 8)),
        ("3x16x16 upsample:2 conv:4,k3,p1", (2, 2), (0.5, 0.5), (-1, -1), (2, 2)),
        ("8x100 conv1d:8,k5,s3", (5,), (3,), (0,), (2,)),
        # branches: the larger kernel; a skip; what is cropped
        ("3x32x32 @x conv:4,k3,p1 @a from:@x conv:4,k5,p2 add:@a", (5, 5), (1, 1), (-2, -2), (4, 4)),
        ("3x32x32 conv:4,k3,p1 @x conv:4,k3,p1 add:@x", (5, 5), (1, 1), (-2, -2), (4, 4)),
        ("3x32x32 @x conv:4,k3 @a from:@x crop:@a concat:@a", (3, 3), (1, 1), (0, 0), (2, 2)),
        ("4x32x32 @x maxpool:2 convt:4,k2,s2 concat:@x", (2, 2), (1, 1), (0, 0), (0, 0)),
        ("3x32x32 maxpool:2,indices @p conv:3,k3,p1 maxunpool:2,@p.1", (6, 6), (1, 1), (-2, -2), (4, 4)),
    ],
)
def test_networks_by_hand(text: str, field, jump, offset, overlap) -> None:
    report = made(text)
    totals = report.totals
    assert (totals["receptive_field"], totals["jump"]) == (field, jump)
    assert (totals["offset"], totals["overlap"]) == (offset, overlap)
    assert warnings(report) == []
    assert report.answer == field


def test_unet_overlaps_as_its_paper_tiles() -> None:
    # 572 in, 388 out: 24 periods of 16, and the rest is shared.
    report = receptive_fields(read_network(["examples/unet.txt"]))
    assert report.totals["overlap"] == (572 - 24 * 16,) * 2
    assert any("multiples of 16x16 and overlap by 188x188" in item.message for item in report.diagnostics)


def test_a_gate_reads_everything() -> None:
    report = made("8x6x6 conv:8,k3,p1 @x adaptiveavgpool:1 conv:8,k1 sigmoid mul:@x")
    assert report.totals["receptive_field"] == (8, 8)  # the whole input, and the padding on both sides
    assert "jump" not in report.totals
    assert warnings(report) == []


def test_misaligned_paths_are_said() -> None:
    report = made("3x32x32 @x conv:4,k3,p2+0 @a from:@x conv:4,k3,p0+2 add:@a")
    assert warnings(report)[0] == (
        "its paths are misaligned by 2 along the height: 1 (conv) and 0 (conv) look at different places of the input"
    )
    assert report.totals["receptive_field"] == (5, 5)


def test_paths_that_drift_apart_are_said() -> None:
    report = made("3x8x8 @x conv:4,k1,s2 @a from:@x conv:4,k5 add:@a")
    assert warnings(report)[0] == (
        "its paths drift apart along the height: neighbours from 1 (conv) are 1 elements of the input apart,"
        " from 0 (conv) 2"
    )
    assert "jump" not in report.totals


def test_what_is_unknown_stays_unknown() -> None:
    nodes = (
        Node("a", Opaque("Odd", "Odd()"), ("input",), ("a",)),
        Node("b", parse_text("relu").layers[0].layer(2), ("a",), ("b",)),
    )
    report = receptive_fields(Network({"input": Input((1, 3, 8, 8))}, nodes, ("b",)))
    assert report.status == "partial"
    assert [row.values["receptive_field"] for row in report.rows] == [None, None]


def test_features_have_none() -> None:
    with pytest.raises(ShapeError, match="no spatial axes"):
        made("784 linear:10")


# --- every output, by walking -----------------------------------------------------------------------------------------


def read_by(item: Resolved, output: int) -> set[int]:
    """The elements of a layer's input that one of its outputs reads, along one axis, found by trying all."""
    layer = item.layer
    size = item.inputs[0][2]
    if layer.kind in ("conv", "maxpool"):
        before = layer.padding[0][0]
        dilation = layer.dilation[0]
        taps = [output * layer.stride[0] - before + tap * dilation for tap in range(layer.kernel_size[0])]
        return set(taps)
    if layer.kind == "convt":
        return {
            place
            for place in range(-50, size + 50)
            for tap in range(layer.kernel_size[0])
            if place * layer.stride[0] + tap - layer.padding[0][0] == output
        }
    return {output}


def walked(network: Network, output: int) -> set[int]:
    """The elements of the input that one output of a network reads, along the one axis that it has."""
    items = {item.node.outputs[0]: item for item in resolve(network)}
    found: set[int] = set()
    todo = {(network.outputs[0], output)}
    seen = set(todo)
    while todo:
        name, place = todo.pop()
        if name == "input":
            found.add(place)
            continue
        item = items[name]
        places = read_by(item, place)
        for source in item.node.inputs:
            new = {(source, each) for each in places} - seen
            seen |= new
            todo |= new
    return found


def random_text(draw: random.Random) -> str:
    words = ["2x48", "conv:2,k1"]
    size_free = ("conv:2,k3,p1", "conv:2,k5,p2", "conv:2,k3,p2,d2", "relu", "conv:2,k1", "maxpool:3,s1,p1")
    for index in range(draw.randint(1, 4)):
        pick = draw.random()
        if pick < 0.4:
            first, second = draw.choice(size_free), draw.choice(size_free)
            words += [f"@x{index}", first, f"@y{index}", f"from:@x{index}", second, f"add:@y{index}"]
        elif pick < 0.6:
            words += [f"@x{index}", "conv:2,k4,s2,p1", draw.choice(size_free), "convt:2,k4,s2,p1", f"concat:@x{index}"]
        else:
            words.append(draw.choice([*size_free, "conv:2,k3,s2,p1", "convt:2,k3,s2,p1,op1", "maxpool:2", "conv:2,k2"]))
    text = re.sub(r"\b(conv|convt|maxpool):", r"\1 1d:", " ".join(words)).replace(" 1d", "1d")
    try:
        resolve(parse_text(text).network())
    except ShapeError:
        # An odd size on the way down does not come back on the way up.
        return random_text(draw)
    return text


@pytest.mark.parametrize("seed", range(60))
def test_against_a_walk(seed: int) -> None:
    text = random_text(random.Random(seed))
    network = parse_text(text).network()
    report = receptive_fields(network)
    size = resolve(network)[-1].outputs[0][2]
    spans = [walked(network, output) for output in range(size)]
    fields = [max(span) - min(span) + 1 for span in spans if span]
    assert report.totals["receptive_field"] == (max(fields),), text
    assert report.totals["offset"] == (min(spans[0]),), text
    jump = report.totals["jump"][0]
    period = 8
    if size > period:
        assert min(spans[period]) - min(spans[0]) == jump * period, text


# --- the command line -------------------------------------------------------------------------------------------------


def test_the_option(capsys) -> None:
    words = ["shape", "3x64x64", "conv:8,k3,s2", "conv:8,k3,s2", "--receptive-field"]
    assert run_command_line([*words, "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["layers"][1]["receptive_field"] == [7, 7]
    assert content["totals"] == {"receptive_field": [7, 7], "jump": [4, 4], "offset": [0, 0], "overlap": [3, 3]}
    assert run_command_line([*words, "-q"]) == 0
    assert capsys.readouterr().out == "7x7\n"
    assert run_command_line([*words, "--explain"]) == 2
