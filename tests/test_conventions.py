"""Each convention's rules, by numbers that the tools gave; tests/differential asks the tools themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from convcalc.analysis.conventions import TOOLS
from convcalc.analysis.costs import CONVENTIONS, costs
from convcalc.expressions import parse_text
from convcalc.layers import LAYERS

# What the tools said, in the order of TOOLS, in the versions that stand there.
SAID = {
    "2x4x9 Conv1d(4,6,3,2,1)": (1440, 720, 720, 390),
    "2x4x9x9 Conv2d(4,6,3,bias=False)": (42_336, 21_168, 21_168, 10_584),
    "2x4x9x9 Conv2d(4,6,4,padding='same')": (124_416, 0, 62_208, 31_590),
    "2x4x9x9 Conv2d(4,6,3,padding='valid')": (42_336, 0, 21_168, 10_878),
    "2x4x9x9 Conv2d(4,6,3,padding='same',padding_mode='reflect')": (69_984, 34_992, 34_992, 17_982),
    "2x4x9x9 Conv2d(4,6,3,groups=2)": (21_168, 10_584, 10_584, 5586),
    "2x4x5x5x5 Conv3d(4,6,3)": (69_984, 34_992, 34_992, 17_658),
    "2x4x5 ConvTranspose1d(4,6,3,2)": (1440, 720, 1584, 426),
    "8x8x8 ConvTranspose2d(8,4,3,2,1,1)": (36_864, 18_432, 73_728, 19_456),
    "8x8x8 ConvTranspose2d(8,8,2,2,groups=4)": (8192, 4096, 16_384, 6144),
    "2x4x3x3x3 ConvTranspose3d(4,6,3,2)": (69_984, 34_992, 444_528, 19_554),
    "16 Linear(16,10)": (320, 160, 160, 170),
    "5x16 Linear(16,10,bias=False)": (1600, 800, 800, 800),
    "2x4x5x5 BatchNorm2d(4)": (0, 400, 800, 200),
    "2x4x5x5 BatchNorm2d(4,affine=False)": (0, 200, 400, 100),
    "2x4x5x5 BatchNorm2d(4,track_running_stats=False)": (0, 1000, 800, 200),
    "2x4x5x5 SyncBatchNorm(4)": (0, 400, 800, 0),
    "2x4x3x5 LayerNorm(5)": (0, 600, 480, 60),
    "2x4x3x5 LayerNorm((3,5),elementwise_affine=False)": (0, 480, 240, 60),
    "2x4x5x5 GroupNorm(2,4)": (0, 1000, 0, 200),
    "2x4x5x5 GroupNorm(2,4,affine=False)": (0, 800, 0, 100),
    "2x4x5x5 InstanceNorm2d(4)": (0, 800, 400, 100),
    "2x4x5x5 InstanceNorm2d(4,affine=True)": (0, 1000, 800, 200),
    "2x4x3x5 RMSNorm(5)": (0, 0, 0, 0),
    "2x4x5x5 LocalResponseNorm(3)": (0, 0, 0, 900),
    "2x4x9x9 MaxPool2d(2)": (0, 0, 0, 972),
    "2x4x9x9 AvgPool2d(2)": (0, 0, 128, 972),
    "2x4x9 LPPool1d(2,2)": (0, 0, 0, 136),
    "2x4x9x9 LPPool2d(2,2)": (0, 0, 0, 904),
    "2x4x8 AdaptiveAvgPool1d(3)": (0, 0, 88, 96),
    "2x4x8x8 AdaptiveAvgPool2d((3,5))": (0, 512, 632, 768),
    "2x4x8x8 globalavgpool": (0, 512, 520, 768),
    "2x4x5x5x5 AdaptiveMaxPool3d(2)": (0, 0, 0, 1500),
    "2x4x5x5 Upsample(scale_factor=2)": (0, 800, 800, 1000),
    "2x4x5x5 Upsample(size=9)": (0, 648, 648, 810),
    "2x4x5x5 Upsample(scale_factor=1.5)": (0, 392, 392, 548),
    "4x5x5 Upsample(scale_factor=(1.5,2.0))": (0, 280, 280, 480),
    "2x4x7 Conv1d(4,4,3) Upsample(scale_factor=2,mode='linear')": (960, 480, 880, 360),
    "2x4x5x5 Upsample(scale_factor=2,mode='bilinear')": (0, 3200, 8800, 1000),
    "2x4x5x5 Upsample(scale_factor=2,mode='bicubic')": (0, 0, 207_200, 1000),
    "2x4x3x3x3 Upsample(scale_factor=2,mode='trilinear')": (0, 0, 0, 2160),
    "2x4x5x5 Upsample(scale_factor=2,mode='nearest-exact')": (0, 0, 0, 1000),
    "2x4x5x5 Upsample(scale_factor=2,mode='area')": (0, 200, 0, 1200),
    "2x4x5x5 UpsamplingNearest2d(scale_factor=2)": (0, 800, 800, 800),
    "2x4x5x5 UpsamplingBilinear2d(scale_factor=2)": (0, 3200, 8800, 800),
    "2x4x5x5 Softmax(1)": (0, 0, 550, 200),
    "2x4x5x5 LogSoftmax(1)": (0, 0, 0, 0),
    "2x4x5x5 Softmax2d()": (0, 0, 0, 200),
    "2x4x5x5 ReLU()": (0, 0, 0, 300),
    "2x4x5x5 ReLU6()": (0, 0, 0, 100),
    "2x4x5x5 LeakyReLU()": (0, 0, 0, 100),
    "2x4x5x5 PReLU()": (0, 0, 200, 300),
    "2x4x5x5 ELU()": (0, 0, 0, 300),
    "2x4x5x5 GELU()": (0, 0, 0, 300),
    "2x4x5x5 SiLU()": (0, 0, 0, 200),
    "2x4x5x5 Sigmoid()": (0, 0, 0, 0),
    "4x5x5 Flatten()": (0, 0, 0, 0),
    "4x5x5 Dropout()": (0, 0, 0, 0),
    "4x5x5 @a add:@a": (0, 0, 0, 0),
}


@pytest.mark.parametrize("text", SAID)
def test_what_the_tools_said(text):
    network = parse_text(text).network()
    found = {tool: costs(network, convention=tool).totals["flops"] for tool in TOOLS}
    assert found == dict(zip(TOOLS, SAID[text], strict=True))


@pytest.mark.parametrize("tool", TOOLS)
def test_every_rule_is_for_a_kind_and_used(tool):
    used = {node.layer.kind for text in SAID for node in parse_text(text).network().nodes}
    assert set(TOOLS[tool].rules) <= set(LAYERS)
    assert set(TOOLS[tool].rules) - used <= {"globalmaxpool"}


def test_macs_and_2mac():
    network = parse_text("3x8x8 conv:4,k3 relu flatten linear:10").network()
    exact = costs(network).totals
    assert costs(network, convention="macs").totals == exact | {"flops": exact["macs"]}
    assert costs(network, convention="2mac").totals == exact | {"flops": 2 * exact["macs"]}
    assert set(CONVENTIONS) == {"exact", "macs", "2mac", *TOOLS}


def test_a_convention_changes_the_flops_alone():
    network = parse_text("3x8x8 conv:4,k3 relu maxpool:2").network()
    exact = costs(network, backward=True)
    for tool in TOOLS:
        report = costs(network, backward=True, convention=tool)
        for row, plain in zip(report.rows, exact.rows, strict=True):
            assert {**row.values, "flops": 0} == {**plain.values, "flops": 0}
        assert tool in report.diagnostics[-1].message


def test_backward_follows_where_macs_are_counted():
    network = parse_text("3x8x8 conv:4,k3 relu maxpool:2").network()
    for convention, each in (("macs", 1), ("2mac", 2)):
        report = costs(network, backward=True, convention=convention, speed=1.0)
        totals = report.totals
        assert totals["backward_flops"] == each * totals["backward_macs"] == each * 36 * 4 * 27
        assert totals["seconds"] == each * 2 * 36 * 4 * 27


def test_a_zero_of_a_tool_has_a_reason():
    report = costs(parse_text("3x8x8 relu flatten").network(), convention="thop")
    assert report.rows[0].reasons["flops"] == "thop counts nothing here"
    assert "flops" not in report.rows[1].reasons


def test_the_page_names_every_rule():
    page = (Path(__file__).parent.parent / "docs" / "conventions.md").read_text(encoding="utf-8")
    for tool in TOOLS.values():
        assert tool.says in page
        assert tool.wrong in page
        for kind, rule in tool.rules.items():
            assert f"| {kind} | {rule.text} |" in page
