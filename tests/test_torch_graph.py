"""The code that torch.fx prints below a model: what is exact, what is unknown, and what is refused."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.report import Report
from convcalc.analysis.shapes import shapes
from convcalc.analysis.summary import summary
from convcalc.cli import run_command_line
from convcalc.errors import ConvcalcError, ModelFileError
from convcalc.executor.batches import Batches
from convcalc.executor.run import prepare, run
from convcalc.network import Network
from convcalc.torch_text import PrintedModel, looks_printed

MODULES = """\
Net(
  (conv): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
  (blocks): Module(
    (0): Module(
      (conv): Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    )
  )
  (act): ReLU(inplace=True)
  (fc): Linear(in_features=16, out_features=10, bias=True)
)



def forward(self, x):
"""
CODE = """\
    conv = self.conv(x);  x = None
    act = self.act(conv)
    blocks_0_conv = getattr(self.blocks, "0").conv(act);  act = None
    act_1 = self.act(blocks_0_conv);  blocks_0_conv = None
    cat = torch.cat([act_1, conv], dim = 1);  act_1 = conv = None
    mean = cat.mean([2, 3]);  cat = None
    fc = self.fc(mean);  mean = None
    return fc

# To see more debug info, please use `graph_module.print_readable()`
"""
PARAMS = 216 + 576 + 8 + 170


def network(code: str = CODE, shape: tuple[int, ...] | None = (3, 8, 8)) -> Network:
    return PrintedModel(MODULES + code, "model.txt").network(shape)


def said(report: Report) -> list[str]:
    return [item.message for item in report.diagnostics]


def test_branches_are_exact() -> None:
    assert looks_printed(MODULES + CODE)
    report = costs(network())
    assert (report.totals["params"], report.totals["macs"]) == (PARAMS, 64 * (216 + 576) + 160)
    assert (report.status, report.rows[-1].outputs) == ("complete", ((10,),))
    assert [row.name for row in report.rows] == ["conv", "act", "blocks.0.conv", "act.2", "cat", "mean", "fc"]
    assert said(report) == ["the modules are wired as the code says that is printed below them"]


def test_without_an_input_parameters_are_known() -> None:
    report = costs(network(shape=None))
    assert (report.totals["params"], report.totals["macs"], report.status) == (PARAMS, None, "partial")


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ("torch.nn.functional.relu(conv, inplace = True)", (8, 8, 8)),
        ("torch._C._nn.avg_pool2d(conv, kernel_size = 3, stride = 2, padding = 1)", (8, 4, 4)),
        ("torch.nn.functional.max_pool2d(conv, 3, 2, 1, 1, ceil_mode = True, return_indices = False)", (8, 5, 5)),
        ("torch.nn.functional.adaptive_avg_pool2d(conv, (1, 1))", (8, 1, 1)),
        ("torch.nn.functional.interpolate(conv, size = None, scale_factor = 2.0, mode = 'bilinear')", (8, 16, 16)),
        ("torch.nn.functional.dropout(conv, 0.5, False, False)", (8, 8, 8)),
        ("torch.flatten(conv, 1)", (512,)),
        ("conv.flatten(2).transpose(1, 2)", (64, 8)),
        ("conv.permute(0, 2, 3, 1)", (8, 8, 8)),
        ("conv.view(conv.size(0), -1)", (512,)),
        ("conv.reshape(conv.shape[0], 2, conv.size(1) // 2, -1)", (2, 4, 64)),
        ("conv.mean([2, 3], keepdim = True)", (8, 1, 1)),
        ("conv.mean((2, 3)).unsqueeze(-1).squeeze(2)", (8,)),
        ("conv.chunk(2, dim = 1)[1]", (4, 8, 8)),
        ("torch.split(conv, 3, 1)[2]", (2, 8, 8)),
        ("conv.split((1, 7), 1)[1].contiguous()", (7, 8, 8)),
        ("1 - conv * 0.5 + conv", (8, 8, 8)),
        ("torch.matmul(conv, conv.transpose(-1, -2))", (8, 8, 8)),
        ("torch.functional.einsum('bchw,bdhw->bcd', conv, conv)", (8, 8)),
        ("torchvision_ops_stochastic_depth_stochastic_depth(conv, 0.1, 'row', False)", (8, 8, 8)),
        ("{'out': conv, 'aux': None}", (8, 8, 8)),
        ("torch.nn.functional.hardtanh(conv, -1.0, 1.0)", (8, 8, 8)),
        ("conv.relu_()", (8, 8, 8)),
        ("conv[(slice(None, None, None), slice(2, None, 2), 0)]", (3, 8)),
        ("conv[(0, -1)]", (8, 8)),
        ("torch.nn.functional.pad(conv, (1, 2, 3, 4), mode = 'constant', value = None)", (8, 15, 11)),
        ("torch.nn.functional.pad(conv, [-1, 0])", (8, 8, 7)),
        ("conv.clamp(min = 0).sqrt()", (8, 8, 8)),
        ("torch._C._nn.scaled_dot_product_attention(conv, conv, conv, is_causal = True)", (8, 8, 8)),
    ],
)
def test_functions_and_methods(call: str, answer: tuple[int, ...]) -> None:
    code = f"    conv = self.conv(x);  x = None\n    result = {call};  conv = None\n    return result\n"
    assert shapes(network(code)).answer == answer


def test_an_addition_in_place() -> None:
    report = costs(
        network("    conv = self.conv(x)\n    act = self.act(conv)\n    act += conv;  iadd = act\n    return iadd\n")
    )
    assert [(row.name, row.kind) for row in report.rows][:3] == [("conv", "conv"), ("act", "relu"), ("iact", "add")]
    assert report.rows[2].outputs == ((8, 8, 8),)


def test_modules_that_the_code_does_not_call_have_their_parameters() -> None:
    report = costs(network("    conv = self.conv(x)\n    return conv\n"))
    assert report.totals["params"] == PARAMS
    assert {"macs"} <= report.partial


def test_functions_that_are_not_known_are_named() -> None:
    code = "    conv = self.conv(x)\n    odd = somebodys.own(conv, 3)\n    fc = self.fc(odd)\n    return fc\n"
    report = costs(network(code))
    assert "not known, and counted nowhere: own (odd)" in said(report)
    assert [row.kind for row in report.rows][:3] == ["conv", "own", "linear"]
    assert {"macs", "flops"} <= report.partial


def test_tensors_of_the_models_own_are_named() -> None:
    code = "    scale = self.blocks.scale\n    conv = self.conv(x)\n    mul = scale * conv\n    return mul\n"
    report = costs(network(code))
    assert "parameters are at least what is counted: the size of blocks.scale is not printed" in said(report)
    assert report.rows[1].outputs == ((8, 8, 8),)
    assert {"params", "flops"} <= report.partial


@pytest.mark.parametrize(
    ("call", "params"),
    [
        ("torch.nn.functional.layer_norm(conv, (8, 8), weight, bias, 1e-06)", 128),
        ("torch.nn.functional.group_norm(conv, 2, weight = weight, bias = bias, eps = 1e-05)", 16),
        ("torch.nn.functional.batch_norm(conv, mean, var, weight, bias, False, 0.1, 1e-05)", 16),
        ("torch.nn.functional.batch_norm(conv, mean, var, weight = None, bias = None, training = False)", 0),
    ],
)
def test_a_norm_tells_the_sizes_of_what_it_is_called_with(call: str, params: int) -> None:
    names = "".join(f"    {name} = self.blocks.norm_{name}\n" for name in ("mean", "var", "weight", "bias"))
    report = costs(network(f"    conv = self.conv(x)\n{names}    norm = {call}\n    return norm\n"))
    assert report.totals["params"] == PARAMS + params
    assert "params" not in report.partial
    assert report.rows[1].outputs == ((8, 8, 8),)


def test_a_reshaped_parameter_is_one_still() -> None:
    code = "    scale = self.blocks.scale\n    view = scale.reshape(1, -1, 1, 1)\n    conv = self.conv(x)\n"
    report = costs(network(f"{code}    mul = conv * view\n    return mul\n"))
    assert report.rows[1].outputs == ((8, 8, 8),)
    assert "params" in report.partial


@pytest.mark.parametrize(
    "line", ["    conv = = 3", "    conv = self.conv(x", "    " + "(" * 500, "    conv = self.conv(\x00)"]
)
def test_a_line_that_is_no_code_is_named(line: str) -> None:
    with pytest.raises(ModelFileError, match="this line of the code below the model cannot be read") as caught:
        network(f"{line}\n    return conv\n")
    assert caught.value.span is not None
    assert caught.value.span.source.line_number == 15


def test_a_mismatch_names_the_line_of_the_module() -> None:
    with pytest.raises(ConvcalcError, match=r"layer fc \(linear\): in_features is 16") as caught:
        shapes(network("    conv = self.conv(x)\n    fc = self.fc(conv)\n    return fc\n"))
    assert caught.value.span is not None
    assert caught.value.span.source.line_number == 9


def test_nothing_is_evaluated() -> None:
    code = "    x = __import__('os').system('false') ** 9 ** 9 ** 9\n    y = 10 ** 100000000\n    return self.conv(y)\n"
    report = costs(network(code))
    assert report.totals["macs"] is None


PIECES = (
    "    y = self.conv", "    y = self", "    return self.conv(self.conv)", "    y = x.size()[9]", "    y = x[0]",
    "    y = x.view(-1, -1)", "    y = x.permute(9)", "    y = torch.cat(x)", "    y = torch.cat([x, 3], 1)",
    "    y = x.chunk(0)", "    y = x.chunk(-1, 1)", "    y = x.split(0, 1)", "    y = x.transpose(0)",
    "    y = x + 'a'",
    "    y = x.size(0) // 0", "    y = -x", "    y = getattr(x, 3)", "    y = getattr(self, x)", "    y: int = 3",
    "    x, y = x", "    x = y = None", "    return", "    y = x.unsqueeze()", "    y = x.unsqueeze(None)",
    "    y = self.blocks(x)", "    y = torch.relu()", "    y = torch.nn.functional.max_pool2d(x, kernel_size = x)",
    "    y = torch.nn.functional.max_pool2d(x, -1)", "    y = x.mean('a')", "    import os", "    pass",
    "    def f(a): pass",
    "    y = slice(x)", "    y = x.shape[slice(None, None, 0)]", "    y = torch.functional.einsum('b->', x, x)",
    "    y = [x for x in x]", "    y = lambda: x", "    y = x if x else x", "    y = f'{x}'", "    y = x.flatten(9)",
    "    y = x[0, 0, 0, 0]", "    y = x[9]", "    y = x[::0]", "    y = x[(slice(None, None, None), 5)]",
    "    y = x[x]", "    y = torch.nn.functional.pad(x, (1,))", "    y = torch.nn.functional.pad(x, (1,) * 20)",
    "    y = x.clamp('a')",
    "    y = torch.nn.functional.scaled_dot_product_attention(x)", "    y = x[None]", "    y = x[..., 0]",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(150))
def test_spoilt_code_is_answered_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    lines = CODE.splitlines()
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(lines))
        change = draw.random()
        if change < 0.7:
            lines.insert(place, draw.choice(PIECES))
        elif change < 0.85:
            lines.pop(place)
        else:
            cut = draw.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:cut] + draw.choice("()x0,=' .") + lines[place][cut + draw.randint(0, 3) :]
    shape = draw.choice([(3, 8, 8), (8, 8), (1, 3, 16, 16), None])
    # Whatever else is raised is a bug.
    with contextlib.suppress(ConvcalcError):
        found = network("\n".join(lines), shape)
        summary(found)
        memory(found, train=True)


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("torch._C._nn.scaled_dot_product_attention(conv, conv, conv, mask)", "what its mask hides is not known"),
        (
            "torch.nn.functional.interpolate(conv, scale_factor = 0.5, mode = 'bilinear', antialias = True)",
            "antialias is not computed",
        ),
    ],
)
def test_what_would_give_other_numbers_is_counted_but_not_run(call: str, why: str) -> None:
    module = "Net(\n  (conv): Conv2d(3, 8, kernel_size=(1, 1), stride=(1, 1))\n)\n\n\n\ndef forward(self, x):\n"
    code = f"    conv = self.conv(x);  x = None\n    result = {call};  conv = None\n    return result\n"
    found = PrintedModel(module + code, "model.txt").network((3, 8, 8))
    assert costs(found).status == "complete"
    with pytest.raises(ConvcalcError, match=why):
        prepare(found, np.zeros((3, 8, 8)))


# --- several inputs and outputs ---------------------------------------------------------------------------------------

TWO = """\
Two(
  (a): Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))
  (b): Linear(in_features=6, out_features=4, bias=True)
)



def forward(self, image, code, scale = 2):
    a = self.a(image);  image = None
    b = self.b(code);  code = None
    view = b.view(-1, 4, 1, 1)
    mul = a * view
    mul_1 = mul * scale;  scale = None
    mean = mul_1.mean((2, 3))
    return {'map': mul_1, 'rest': (mean, b)}
"""
SHAPES = {"image": (2, 3, 8, 8), "code": (2, 6)}


def test_inputs_are_the_arguments_by_their_names() -> None:
    found = PrintedModel(TWO, "net.txt").named_network(SHAPES)
    report = shapes(found)
    assert [row.outputs[0] for row in report.rows][-2:] == [(2, 4, 6, 6), (2, 4)]
    assert (report.status, found.outputs, tuple(found.inputs)) == (
        "complete", ("mul_1", "mean", "b"), ("image", "code")
    )  # fmt: skip
    assert PrintedModel(TWO, "net.txt").named_network(SHAPES, None).inputs["code"].batch_given


def test_several_inputs_are_computed_and_all_that_goes_out() -> None:
    stream = np.random.default_rng(0)
    arrays = {name: stream.normal(size=shape) for name, shape in SHAPES.items()}
    weights = {"a.weight": stream.normal(size=(4, 3, 3, 3)), "a.bias": np.zeros(4),
               "b.weight": stream.normal(size=(4, 6)), "b.bias": np.ones(4)}  # fmt: skip
    outputs = run(PrintedModel(TWO, "net.txt"), arrays, weights).outputs
    of_code = arrays["code"] @ weights["b.weight"].T + 1
    windows = np.lib.stride_tricks.sliding_window_view(arrays["image"], (3, 3), (2, 3))
    of_image = np.einsum("nchwij,ocij->nohw", windows, weights["a.weight"])
    wanted = of_image * of_code[:, :, None, None] * 2
    np.testing.assert_allclose(outputs["mul_1"], wanted, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(outputs["mean"], wanted.mean((2, 3)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(outputs["b"], of_code, rtol=1e-12)
    batches = Batches(PrintedModel(TWO, "net.txt"), arrays, 1, weights)
    together = [dict(part) for part in batches.results()]
    np.testing.assert_allclose(np.concatenate([part["mul_1"] for part in together]), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["shape", "2x3x8x8"], 0, "warning: shapes and costs are partial: the code takes code besides, of no shape that"
         " is given; --input NAME=SHAPE, with the batch, gives each by its name"),
        (["run", "--input", "image=ones:2x3x8x8"], 1, "layer b (linear): what comes into it is not known: the code"
         " takes code besides"),
        (["shape", "--input", "image=2x3x8x8,cod=2x6"], 2, "the code takes no cod; it takes image, code, scale; did you"
         " mean 'code'?"),
        (["shape", "--input", "image=2x3x8x8,2x6"], 2, "an input has no name; it takes image, code, scale"),
        (["shape", "--input", "image=2x3x8x8,code=3x6"], 1, "2x4x6x6 and 3x4x1x1 do not match"),
        (["flops"], 0, "there is no input, so shapes and costs are not known"),
        (["run", "--input", "image=ones:2x3x8x8,code=ones:3x6", "--batch", "1"], 1, "as many samples of every input"),
    ],
)  # fmt: skip
def test_inputs_that_are_missing_or_wrong(capsys, tmp_path, arguments, status: int, said: str) -> None:
    (tmp_path / "net.txt").write_text(TWO)
    verb, *rest = arguments
    words = rest[:1] if rest and not rest[0].startswith("-") else []
    assert run_command_line([verb, *words, str(tmp_path / "net.txt"), *rest[len(words) :]]) == status
    assert said in capsys.readouterr().err
