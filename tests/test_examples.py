"""Well-known networks written in expressions: their parameters and MACs against published counts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import readme_examples

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.network import Network
from convcalc.nouns import read_network

EXAMPLES = Path(__file__).parent.parent / "examples"


class Published(NamedTuple):
    """What others state of a network: all parameters, and the MACs in units of 10^9, rounded to three digits."""

    name: str
    params: int
    giga_macs: str


# Parameters ("num_params") and GFLOPS ("_ops", which count a multiplication and its addition as one) are torchvision
# 0.21's, from the weights' tables in its documentation.
TORCHVISION = (
    Published("alexnet", 61_100_840, "0.714"),
    Published("densenet121", 7_978_856, "2.834"),
    Published("efficientnet_b0", 5_288_548, "0.386"),
    Published("googlenet", 6_624_904, "1.498"),
    Published("mnasnet1_0", 4_383_312, "0.314"),
    Published("mobilenet_v2", 3_504_872, "0.301"),
    Published("mobilenet_v3_large", 5_483_032, "0.217"),
    Published("regnet_x_400mf", 5_495_976, "0.414"),
    Published("resnet18", 11_689_512, "1.814"),
    Published("resnet34", 21_797_672, "3.664"),
    Published("resnet50", 25_557_032, "4.089"),
    Published("resnext50_32x4d", 25_028_904, "4.230"),
    Published("squeezenet1_1", 1_235_496, "0.349"),
    Published("vgg16", 138_357_544, "15.470"),
)
OTHERS = {"convnext_tiny", "darknet53", "lenet5", "unet"}


def network(name: str) -> Network:
    return read_network([str(EXAMPLES / f"{name}.txt")])


@pytest.mark.parametrize("published", TORCHVISION, ids=lambda published: published.name)
def test_published_counts(published: Published) -> None:
    report = costs(network(published.name))
    assert report.totals["params"] == published.params
    macs = report.totals["macs"]
    assert isinstance(macs, int)
    assert f"{macs / 1e9:.3f}" == published.giga_macs
    assert report.rows[-1].outputs == ((1000,),)
    assert report.diagnostics == ()


def test_resnet50_to_the_unit() -> None:
    # 4,089,184,256 is what torch's FlopCounterMode gives, halved.
    assert costs(network("resnet50")).answer == 4_089_184_256


def test_lenet5_by_hand() -> None:
    maps = 28 * 28 * 6 * 25 + 10 * 10 * 16 * 6 * 25
    report = costs(network("lenet5"))
    assert report.totals["params"] == 61_706
    assert report.totals["macs"] == maps + 400 * 120 + 120 * 84 + 84 * 10


def test_unet_by_the_figure_of_its_paper() -> None:
    # (channels in, channels out, kernel, output size) of each arrow in figure 1; an up-convolution costs its input
    convolutions = [
        (1, 64, 570), (64, 64, 568), (64, 128, 282), (128, 128, 280), (128, 256, 138), (256, 256, 136),
        (256, 512, 66), (512, 512, 64), (512, 1024, 30), (1024, 1024, 28), (1024, 512, 54), (512, 512, 52),
        (512, 256, 102), (256, 256, 100), (256, 128, 198), (128, 128, 196), (128, 64, 390), (64, 64, 388),
    ]  # fmt: skip
    ups = [(1024, 512, 28), (512, 256, 52), (256, 128, 100), (128, 64, 196)]
    params = sum(i * o * 9 + o for i, o, _ in convolutions) + sum(i * o * 4 + o for i, o, _ in ups) + 64 * 2 + 2
    macs = sum(i * o * 9 * size**2 for i, o, size in convolutions) + 64 * 2 * 388**2
    macs += sum(i * o * 4 * size**2 for i, o, size in ups)
    report = costs(network("unet"))
    assert report.rows[-1].outputs == ((2, 388, 388),)
    assert (report.totals["params"], report.totals["macs"]) == (params, macs)


def test_convnext_but_for_its_layer_scale() -> None:
    # torchvision states 28,589,128 parameters and 4.456 G; the layer scale of each block multiplies and has no MACs.
    scales = sum(channels * blocks for channels, blocks in ((96, 3), (192, 3), (384, 9), (768, 3)))
    report = costs(network("convnext_tiny"))
    assert report.totals["params"] == 28_589_128 - scales
    assert f"{int(str(report.totals['macs'])) / 1e9:.3f}" == "4.456"
    assert (report.rows[-1].outputs, report.diagnostics) == (((1000,),), ())


def test_darknet_by_the_table_of_its_paper() -> None:
    # table 1: a 3x3 convolution that halves the sizes, then so many blocks of a 1x1 and a 3x3
    convolutions = [(3, 32, 3, 256)]
    for channels, blocks, size in ((64, 1, 128), (128, 2, 64), (256, 8, 32), (512, 8, 16), (1024, 4, 8)):
        half = channels // 2
        convolutions.append((half, channels, 3, size))
        convolutions += blocks * [(channels, half, 1, size), (half, channels, 3, size)]
    report = costs(network("darknet53"))
    params = sum(i * o * k * k + 2 * o for i, o, k, _ in convolutions) + 1024 * 1000 + 1000
    macs = sum(i * o * k * k * size**2 for i, o, k, size in convolutions) + 1024 * 1000
    assert (report.totals["params"], report.totals["macs"]) == (params, macs)
    assert (len(convolutions), report.diagnostics) == (52, ())


def test_every_example_is_tested_and_states_its_counts() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.txt")}
    assert names == {published.name for published in TORCHVISION} | OTHERS
    for name in names:
        text = (EXAMPLES / f"{name}.txt").read_text()
        assert f"{costs(network(name)).totals['params']:,} parameters" in text


def test_what_resnet50_keeps_for_training() -> None:
    # Every verb takes the wiring: the peak of inference lies in the first stage, where the sizes are largest.
    report = memory(network("resnet50"), train=True)
    assert report.totals["parameters"] == 4 * 25_557_032
    assert report.status == "complete"


# --- the page about networks ------------------------------------------------------------------------------------------

PAGE = EXAMPLES.parent / "docs" / "networks.md"
BLOCKS = list(readme_examples.blocks(PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("block", BLOCKS, ids=[block[0][0] for block in BLOCKS])
def test_the_page_prints_what_it_says(block: list[tuple[str, str]], tmp_path: Path) -> None:
    script = tmp_path / "convcalc"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m convcalc "$@"\n')
    script.chmod(0o755)
    variables = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES.parent)}
    for command, expected in block:
        assert readme_examples.run(command, tmp_path, variables) == expected
