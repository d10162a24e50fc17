"""The text that PyTorch prints of a model: what is exact, what is partial, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys

import pytest

from convcalc.analysis.costs import costs
from convcalc.analysis.memory import memory
from convcalc.analysis.report import Report
from convcalc.analysis.shapes import shapes
from convcalc.analysis.summary import summary
from convcalc.cli import run_command_line
from convcalc.errors import ConvcalcError, ExpressionError
from convcalc.network import Network
from convcalc.torch_text import PrintedModel, looks_printed, parse_printed

CHAIN = """\
Sequential(
  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
  (1): Sequential(
    (norm): BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True)
    (act): ReLU(inplace=True)
  )
  (2): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)
  (3): Flatten(start_dim=1, end_dim=-1)
  (4): Linear(in_features=512, out_features=10, bias=True)
)
"""
BLOCKS = """\
Net(
  (stem): Sequential(
    (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
    (1): BatchNorm2d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)
  )
  (blocks): ModuleList(
    (0-1): 2 x Block(
      (conv): Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
      (relu): ReLU()
    )
    (2): Block(
      (conv): Conv2d(8, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)
      (relu): ReLU()
    )
  )
  (pool): AdaptiveAvgPool2d(output_size=1)
  (fc): Linear(in_features=8, out_features=10, bias=True)
)
"""
BLOCKS_PARAMS = 3 * 8 * 9 + 16 + 3 * 8 * 8 * 9 + 90
ENCODER = """\
TransformerEncoderLayer(
  (self_attn): MultiheadAttention(
    (out_proj): NonDynamicallyQuantizableLinear(in_features=8, out_features=8, bias=True)
  )
  (linear1): Linear(in_features=8, out_features=2048, bias=True)
  (dropout): Dropout(p=0.1, inplace=False)
  (linear2): Linear(in_features=2048, out_features=8, bias=True)
  (norm1): LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True)
  (norm2): LayerNorm((8,), eps=1e-05, elementwise_affine=True, bias=True)
  (dropout1): Dropout(p=0.1, inplace=False)
  (dropout2): Dropout(p=0.1, inplace=False)
)
"""
# What torch 2.13 counts for TransformerEncoderLayer(8, 2).
ENCODER_PARAMS = 35_144


def network(text: str, shape: tuple[int, ...] = (3, 32, 32), *, sequential: bool = False) -> Network:
    model = PrintedModel(text, "model.txt")
    if sequential:
        model.assume_sequential()
    return model.network(shape)


def said(report: Report) -> str:
    return "\n".join(f"{item.level}: {item.message}" for item in report.diagnostics)


def test_a_chain_is_exact() -> None:
    report = costs(network(CHAIN))
    assert [row.name for row in report.rows] == ["0", "1.norm", "1.act", "2", "3", "4"]
    assert [row.outputs[0] for row in report.rows][-3:] == [(8, 8, 8), (512,), (10,)]
    assert report.totals["params"] == 8 * 3 * 9 + 8 + 16 + 5130
    assert report.totals["macs"] == 8 * 27 * 16 * 16 + 5120
    assert (report.status, report.diagnostics) == ("complete", ())


def test_containers_make_costs_partial_and_parameters_at_least() -> None:
    report = costs(network(BLOCKS))
    assert report.totals["params"] == BLOCKS_PARAMS
    assert report.totals["macs"] is None
    assert {"params", "macs"} <= report.partial
    assert [row.name for row in report.rows][1:4] == ["stem.1", "blocks.0.conv", "blocks.0.relu"]
    assert "parameters are at least what is counted: Net and Block (blocks.0 and 2 more) may own" in said(report)
    assert "the modules of Net, ModuleList (blocks) and Block (blocks.0 and 2 more) are called" in said(report)


def test_the_printed_order_can_be_assumed() -> None:
    report = costs(network(BLOCKS, sequential=True))
    assert report.rows[-1].outputs == ((10,),)
    assert report.totals["macs"] == 32 * 32 * 9 * (3 * 8 + 3 * 8 * 8) + 80
    assert report.partial == {"params"}
    assert "warning: the modules are assumed to be called in printed order" in said(report)
    assert "note: a flatten is assumed before fc, which needs the 8 numbers that come" in said(report)


def test_attention_owns_what_is_not_printed() -> None:
    report = costs(network(ENCODER, (10, 8)))
    assert report.totals["params"] == ENCODER_PARAMS
    assert "params" not in report.partial


def test_pytorchs_encoder_is_wired_as_its_code_does() -> None:
    report = costs(network(ENCODER, (10, 8)))
    projections, products = 10 * 8 * 32, 2 * 10 * 10 * 8
    assert report.totals["macs"] == projections + products + 2 * 10 * 8 * 2048
    assert (report.status, report.rows[-1].outputs) == ("complete", ((10, 8),))
    assert [row.name for row in report.rows if row.kind == "add"] == ["add1", "add2"]
    # 2 heads of 10 x 10 scores: 1,600 products, a scale each, 1,320 additions, and 48 operations for each softmax of 10
    assert said(report).splitlines() == [
        "note: num_heads is not printed and taken as 1; --unprinted num_heads=2 gives 4,080 FLOPs",
        "note: activation is not printed and taken as relu; --unprinted activation=gelu gives 102,400 FLOPs",
    ]


def test_in_proj_of_an_attention_elsewhere_is_taken_as_the_usual_one() -> None:
    inner = "\n".join(ENCODER.splitlines()[1:4])
    report = costs(network(f"Net(\n{inner}\n)", (10, 8)))
    assert report.totals["params"] == 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8
    assert "note: in_proj of MultiheadAttention (self_attn) is not printed" in said(report)


def test_of_embeddings_the_parameters_are_known() -> None:
    text = "Sequential(\n  (words): EmbeddingBag(100, 3, padding_idx=0)\n  (cell): LSTMCell(3, 4)\n)"
    report = costs(network(text))
    assert report.totals["params"] == 300 + (16 * 3 + 16 * 4 + 32)
    assert "params" not in report.partial
    assert report.totals["macs"] is None
    assert "warning: the parameters alone are counted of EmbeddingBag (words) and LSTMCell (cell)" in said(report)


@pytest.mark.parametrize(
    ("text", "params", "macs", "shape"),
    [
        ("LSTM(3, 4)", 16 * 3 + 16 * 4 + 32, 10 * (16 * 3 + 16 * 4), (10, 4)),
        ("GRU(3, 4, num_layers=2, batch_first=True, dropout=0.1)", 12 * 3 + 12 * 4 * 3 + 48,
         10 * (12 * 3 + 12 * 4 * 3), (10, 4)),
        ("RNN(3, 4, num_layers=2, bias=False, bidirectional=True)", 2 * (4 * 3 + 16) + 2 * (4 * 8 + 16),
         10 * (2 * (4 * 3 + 16) + 2 * (4 * 8 + 16)), (10, 8)),
        ("LSTM(3, 4, proj_size=2)", 16 * 3 + 16 * 2 + 32 + 8, 10 * (16 * 3 + 16 * 2 + 8), (10, 2)),
    ],
)  # fmt: skip
def test_recurrent_modules(text: str, params: int, macs: int, shape: tuple[int, ...]) -> None:
    report = costs(network(f"Sequential(\n  (rnn): {text}\n)", (10, 3)))
    assert (report.totals["params"], report.totals["macs"]) == (params, macs)
    assert report.rows[-1].outputs[0] == shape
    assert ("params" not in report.partial, report.status) == (True, "complete")


def test_where_the_batch_is_of_sequences() -> None:
    """As PyTorch has it: without a batch steps and features; with one the steps first, unless batch_first."""
    alone = shapes(network("LSTM(3, 4, num_layers=2)", (10, 3)))
    assert alone.rows[0].outputs == ((10, 4), (2, 4), (2, 4))
    both = shapes(network("LSTM(3, 4, num_layers=2)", (10, 5, 3)))
    assert both.rows[0].outputs == ((10, 5, 4), (2, 5, 4), (2, 5, 4))
    assert (
        said(both)
        == "note: layer LSTM (lstm): steps come first and the batch second, as in PyTorch without batch_first"
    )
    first = shapes(network("LSTM(3, 4, num_layers=2, batch_first=True)", (10, 5, 3)))
    assert first.rows[0].outputs == ((10, 5, 4), (2, 10, 4), (2, 10, 4))
    assert said(first) == ""
    encoder = shapes(network(ENCODER, (10, 5, 8)))
    assert encoder.answer == (10, 5, 8)
    assert "note: batch_first of MultiheadAttention (self_attn) is not printed and taken as true" in said(encoder)


def test_what_a_plain_recurrent_layer_goes_through_is_not_printed(capsys, tmp_path) -> None:
    path = tmp_path / "model.txt"
    path.write_text("RNN(3, 4)")
    status, _, err = asked(capsys, "run", "ones:5x3", str(path))
    assert (
        status,
        "nonlinearity is not printed and taken as tanh; --unprinted nonlinearity=relu gives other numbers" in err,
    ) == (0, True)
    assert "nonlinearity" not in asked(capsys, "shape", "5x3", str(path))[2]


def test_unknown_modules_are_named_and_stop_what_follows() -> None:
    text = CHAIN.replace("ReLU(inplace=True)", "Mystery(p=0.1, mode=row)")
    report = costs(network(text))
    assert "warning: not known, and counted nowhere: Mystery (1.act)" in said(report)
    assert [row.outputs for row in report.rows][1:3] == [((8, 16, 16),), ()]
    assert report.rows[2].layer == "Mystery(p=0.1, mode=row)"
    assert {"params", "macs"} <= report.partial


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        ("Concat()", "Concat"),  # a class of this project, but not of PyTorch
        ("LSTM(3, 4, style=odd, wrong)", "LSTM"),
        ("EmbeddingBag(3, 0)", "EmbeddingBag"),
        ("DynamicQuantizedGRU(8, 8, num_layers=100000000)", "DynamicQuantizedGRU"),
        ("LSTMCell(8, 8, num_layers=0)", "LSTMCell"),
        ("Conv2d(3, 4, kernel_size=(1, 1), stride=(1, 1), style=odd)", "Conv2d"),  # not PyTorch's
        ("Linear(nonsense of somebody)", "Linear"),
        ("Mystery[custom]", "Mystery"),
        ("<lambda>", "<lambda>"),
        ("MultiheadAttention()", "MultiheadAttention"),
    ],
)
def test_a_module_that_is_not_pytorchs_is_unknown(layer: str, what: str) -> None:
    report = costs(network(f"Sequential(\n  (0): {layer}\n)"))
    assert report.totals["params"] is None
    assert f"not known, and counted nowhere: {what} (0)" in said(report)


def test_a_size_that_is_not_printed_leaves_the_shape_unknown() -> None:
    report = costs(network("Sequential(\n  (0): FractionalMaxPool2d()\n)"))
    assert report.totals["params"] == 0
    assert "params" not in report.partial
    assert report.rows[0].outputs == ()


@pytest.mark.parametrize(
    ("layer", "size", "found"),
    [
        ("AvgPool2d(kernel_size=3, stride=2, padding=0)", 32,
         ["ceil_mode is not printed and taken as false; --unprinted ceil_mode=true gives 3x16x16"]),
        ("AvgPool2d(kernel_size=2, stride=2, padding=0)", 32, []),
        ("MaxPool2d(kernel_size=3, stride=2, padding=0, dilation=1, ceil_mode=False)", 32, []),
    ],
)  # fmt: skip
def test_what_is_not_printed_is_said_where_it_matters(layer: str, size: int, found: list[str]) -> None:
    report = shapes(network(f"Sequential(\n  (0): {layer}\n)", (3, size, size)))
    assert [item.message for item in report.diagnostics] == found


def test_attributes_that_pytorch_adds() -> None:
    text = """Sequential(
      (0): LazyConv2d(0, 4, kernel_size=(3, 3), stride=(1, 1), padding=same, padding_mode=reflect)
      (1): UpsamplingBilinear2d(size=8, mode='bilinear')
      (2): GELU(approximate='none')
      (3): GroupNorm(2, 4, eps=1e-05, affine=True)
      (4): LayerNorm((8,), eps=1e-05, elementwise_affine=True)
    )"""
    report = costs(network(text, (3, 6, 6)))
    assert [row.outputs for row in report.rows][:2] == [((4, 6, 6),), ((4, 8, 8),)]
    assert report.totals["params"] == 3 * 4 * 9 + 4 + 8 + 16


@pytest.mark.parametrize(
    ("makes", "params", "partial"),
    [("_WeightNorm", 16 + 4, set()), ("_SpectralNorm", 16, set()), ("_Orthogonal", 16, set()),
     ("Symmetric", 16, {"params"})],
)  # fmt: skip
def test_a_parametrised_module(makes: str, params: int, partial: set[str]) -> None:
    text = f"""Sequential(
  (0): ParametrizedLinear(
    in_features=3, out_features=4, bias=True
    (parametrizations): ModuleDict(
      (weight): ParametrizationList(
        (0): {makes}()
      )
    )
  )
)"""
    report = costs(network(text, (3,)))
    assert report.totals["params"] == params
    assert report.partial & {"params"} == partial
    assert report.totals["macs"] == 12
    assert f"warning: what it costs to make the weights anew is not counted: {makes} (0)" in said(report)
    assert ("may own some" in said(report)) == bool(partial)


def test_wrappers_are_seen_through() -> None:
    inner = "\n".join("  " + line for line in CHAIN.splitlines()).strip()
    report = costs(network(f"DataParallel(\n  (module): {inner}\n)\n"))
    assert report.rows[1].name == "module.1.norm"
    assert report.status == "complete"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (CHAIN, True),
        ("\n\n" + CHAIN, True),
        ("Sequential()", True),
        ("LSTM(4, 8)\n", True),
        ("Mystery(width=3)", True),
        ("ReLU(inplace=True)", False),
        ("Conv4d(3, 64, kernel_size=(7, 7))", False),
        ("INFO: built\n" + CHAIN, True),
        ("\x1b[32mINFO\x1b[0m model = " + CHAIN, True),
        (CHAIN.replace("\n", "\r\n").replace("  ", "\t"), True),
        ("Conv2d(3, 64, kernel_size=(7, 7))\nReLU()", False),
        ("conv:64,k3\nrelu\n", False),
        ("# Sequential(\nrelu\n", False),
        ("", False),
    ],
)
def test_what_looks_printed(text: str, printed: bool) -> None:
    assert looks_printed(text) is printed


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("Net", "this line is no module, such as Sequential(", 1),
        ("Net(\n  (a): ReLU()", "Net( is not closed; the text ends too early", 1),
        ("Net(\n  (a): Block(\n    (b): ReLU()\n", "Block( is not closed; the text ends too early", 2),
        (CHAIN + CHAIN, "the model has ended before this line; one model is read at a time", 11),
        ("Sequential(\n  (0): ReLU()\n  (0): ReLU()\n)", "two modules are named 0", 3),
        ("Sequential(\n  (0-1): 5 x ReLU()\n)", "5 modules need a name such as (0-4)", 2),
        ("ModuleList(\n  (0-999999998): 999999999 x ReLU()\n)",
         "999,999,999 modules are more than the 100,000 that are read", 2),
        ("Sequential(\n  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(0, 0))\n)",
         "stride is 0x0, but must be at least 1", 2),
    ],
)  # fmt: skip
def test_a_text_that_is_wrong(text: str, message: str, line: int) -> None:
    with pytest.raises(ConvcalcError) as caught:
        costs(network(text))
    assert caught.value.message == message
    assert caught.value.span is not None
    assert caught.value.span.source.line_number == line


@pytest.mark.parametrize(
    ("before", "after", "note"),
    [
        ("", "", []),
        (">>> import torch\n>>> model\n", "", ["2 lines before or after the printed model not read"]),
        ("model: ", "\n$ \n", ["1 line before or after the printed model not read"]),
    ],
)
def test_what_stands_around_a_model_is_stepped_over(before: str, after: str, note: list[str]) -> None:
    report = costs(network(f"{before}\x1b[1m{CHAIN}\x1b[0m{after}"))
    assert report.totals["params"] == 8 * 3 * 9 + 8 + 16 + 5130
    assert [item.message for item in report.diagnostics] == note


def test_a_line_before_a_model_gives_its_input() -> None:
    text = f"input 3x32x32\n{CHAIN}"
    assert shapes(PrintedModel(text, "model").network()).answer == (10,)
    assert PrintedModel(text, "model").network().notes == ()
    with pytest.raises(ConvcalcError, match="in_features is 512"):
        shapes(PrintedModel(text, "model").network((3, 64, 64)))
    with pytest.raises(ConvcalcError, match="the input is given twice"):
        PrintedModel(f"input 3x8x8\n{text}", "model")
    with pytest.raises(ConvcalcError, match="has a size of 0"):
        PrintedModel(f"input 3x0\n{CHAIN}", "model")


@pytest.mark.parametrize(
    ("text", "params", "known"),
    [
        ("LSTM(4, 8)", 4 * 8 * (4 + 8 + 2), True),
        ("Sequential()", 0, True),
        ("ModuleList()", 0, True),
        ("Embedding(10, 3)", 30, True),
        ("torch.nn.modules.container.Sequential()", 0, True),
        ("Mystery(width=3)", None, False),
    ],
)
def test_a_module_on_one_line(text: str, params: int | None, known: bool) -> None:
    report = costs(PrintedModel(text, "model").network())
    assert report.totals["params"] == params
    assert ("params" not in report.partial) == known


def test_torchscript_says_what_to_print_instead() -> None:
    text = "Sequential(\n  original_name=Sequential\n  (0): Conv2d(original_name=Conv2d)\n)"
    with pytest.raises(ConvcalcError, match="TorchScript prints no sizes; print the model that this was made of"):
        network(text)


def test_parameters_in_lists_are_counted() -> None:
    text = """Net(
  (scales): ParameterList(
      (0): Parameter containing: [torch.float32 of size 3x4]
      (1): Tensor containing: [torch.float32 of size 7]
      (2): Parameter containing: [torch.cuda.FloatTensor of size 5 (GPU 0)]
      (3): Parameter containing: [torch.float32 of size ]
      (4): Object of type: int
  )
  (none): None
  (act): ReLU()
)"""
    report = costs(network(text))
    assert report.totals["params"] == 12 + 5 + 1
    assert [row.name for row in report.rows] == ["scales.0", "scales.1", "scales.2", "scales.3", "act"]
    assert network(text, sequential=True).nodes[-1].inputs == ("input",)


def test_without_an_input_parameters_are_known() -> None:
    for text in (CHAIN, BLOCKS):
        found = PrintedModel(text, "model").network()
        report = costs(found)
        assert report.totals["params"] == costs(network(text)).totals["params"]
        assert report.totals["macs"] is None
        assert report.status == "partial"
        assert said(report).splitlines()[-1] == (
            "warning: there is no input, so shapes and costs are not known; --input 3x224x224 gives one"
        )
        assert summary(found).totals["parameters"] == 4 * int(str(report.totals["params"]))


RESIDUAL = """\
Net(
  (stem): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
  (block): Block(
    (conv1): Conv2d(8, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    (conv2): Conv2d(16, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
    (shortcut): Sequential(
      (0): Conv2d(8, 16, kernel_size=(1, 1), stride=(2, 2))
    )
  )
  (drop): Dropout(p=0.1, inplace=False)
  (fc): Linear(in_features=16, out_features=10, bias=True)
)
"""


def test_a_shortcut_reads_what_came_into_its_block() -> None:
    report = costs(network(RESIDUAL, sequential=True))
    macs = 1024 * 3 * 8 * 9 + 256 * (8 * 16 * 9 + 16 * 16 * 9 + 8 * 16) + 160
    assert report.totals["macs"] == macs
    assert report.rows[-1].outputs == ((10,),)
    assert said(report).splitlines()[:2] == [
        "note: a mean over 16x16 is assumed before fc, which needs 16 numbers",
        "note: block.shortcut.0 does not fit after the module before: what came into a container around is taken",
    ]
    assert report.partial == {"params"}


def test_what_does_not_fit_in_printed_order_is_named_and_stops_what_follows() -> None:
    report = costs(network(RESIDUAL.replace("(0): Conv2d(8,", "(0): Conv2d(24,"), sequential=True))
    assert {"params", "macs"} <= report.partial
    assert report.totals["macs"] == 1024 * 3 * 8 * 9 + 256 * (8 * 16 * 9 + 16 * 16 * 9)
    assert "block.shortcut.0 does not take the 16x16x16 that come in printed order (in_channels is 24, but" in said(
        report
    )


def test_squeeze_and_excitation_multiplies_what_came() -> None:
    text = """Sequential(
  (0): SqueezeExcitation(
    (avgpool): AdaptiveAvgPool2d(output_size=1)
    (fc1): Conv2d(32, 8, kernel_size=(1, 1), stride=(1, 1))
    (fc2): Conv2d(8, 32, kernel_size=(1, 1), stride=(1, 1))
    (activation): SiLU(inplace=True)
    (scale_activation): Sigmoid()
  )
)"""
    report = costs(network(text, (32, 7, 7)))
    assert (report.status, report.rows[-1].outputs, report.totals["macs"]) == ("complete", ((32, 7, 7),), 512)


@pytest.mark.parametrize(
    ("text", "verb", "notes"),
    [
        ("Hardswish()", memory,
         ["inplace is not printed and taken as false; --unprinted inplace=true writes over its input"]),
        ("Hardswish()", costs, []),
        ("Hardswish()", shapes, []),
        ("MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)", memory,
         ["return_indices is not printed and taken as false; --unprinted return_indices=true gives 2 outputs"]),
        ("MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)\n  (2): ReLU()", memory, []),
        ("LayerNorm((3, 8, 8), eps=1e-05, elementwise_affine=True)", costs,
         ["bias is not printed and taken as true; --unprinted bias=false gives 192 parameters"]),
        ("LayerNorm((3, 8, 8), eps=1e-05, elementwise_affine=True, bias=True)", costs, []),
        ("LayerNorm((3, 8, 8), eps=1e-05, elementwise_affine=False)", costs, []),
        ("Upsample(scale_factor=2.0, mode='bilinear')", memory, []),
        ("AvgPool2d(kernel_size=3, stride=1, padding=1)", costs, []),
    ],
)  # fmt: skip
def test_what_is_not_printed_is_said_by_the_verb_that_it_concerns(text: str, verb, notes: list[str]) -> None:
    report = verb(
        network(f"Sequential(\n  (0): Conv2d(3, 3, kernel_size=(1, 1), stride=(1, 1))\n  (1): {text}\n)", (3, 8, 8))
    )
    assert [item.message for item in report.diagnostics] == notes


def test_equal_layers_say_once_what_is_not_printed() -> None:
    lines = "".join(f"  ({index}): Hardswish()\n" for index in range(3))
    report = memory(network(f"Sequential(\n{lines})"))
    assert [(item.layer, item.message) for item in report.diagnostics] == [
        (
            "0 (hardswish)",
            "inplace is not printed and taken as false; --unprinted inplace=true writes over its input, and so for 2"
            " more",
        )
    ]


def test_lists_of_lists_do_not_explode() -> None:
    text = "ReLU()"
    for _ in range(6):
        text = f"ModuleList(\n(0-99): 100 x {text}\n)"
    with pytest.raises(ConvcalcError, match="modules that are read"):
        network(text)


def test_a_deep_text_is_no_recursion() -> None:
    depth = 20_000
    text = "Sequential(\n" + "(0): Sequential(\n" * depth + "(0): ReLU()\n" + ")\n" * (depth + 1)
    assert shapes(network(text)).answer == (3, 32, 32)


def test_a_shape_that_does_not_fit_names_module_and_line() -> None:
    with pytest.raises(ConvcalcError) as caught:
        costs(network(CHAIN, (3, 30, 30)))
    assert str(caught.value).startswith("layer 4 (linear): in_features is 512")
    assert caught.value.span is not None
    assert caught.value.span.source.line_number == 9


PIECES = (
    "(0-3): 4 x ReLU()", "(a.b): Linear(in_features=1e9, out_features=2)", "ReLU(", "))", "(((", "'", "#", "()",
    "(x): Conv2d(3, 4, kernel_size=(9999999999, 3), stride=(1,1))", "(x): Conv3d(3,4,kernel_size=(1,1,1))",
    "(x): LSTM(3,4)", "(x): MultiheadAttention(", "(x): Upsample(scale_factor=0.0)", "(x): Softmax(dim=None)",
    "(x): PReLU(num_parameters=0)", "(x): Flatten(start_dim=9)", "(x): LayerNorm(())", "(x): Identity(", "(): ReLU()",
    "(x): Dropout(p=nan)", "(x): Linear(in_features=-1, out_features=5)", "(x): GroupNorm(0,0)",
    "(x): MaxUnpool2d(kernel_size=(2, 2))", "(x): Conv2d(3, 4, kernel_size=3x, stride=1)",
    "(x): AdaptiveAvgPool2d(output_size=(None, 3))", "(x): Bilinear(in1_features=1, in2_features=x, out_features=1)",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(300))
def test_a_spoilt_text_is_answered_or_refused(seed: int) -> None:
    draw = random.Random(seed)
    lines = draw.choice([CHAIN, BLOCKS, ENCODER]).splitlines()
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(lines))
        change = draw.random()
        if change < 0.4:
            lines.insert(place, draw.choice(PIECES))
        elif change < 0.6:
            lines.pop(place)
        else:
            cut = draw.randrange(len(lines[place]) + 1)
            lines[place] = lines[place][:cut] + draw.choice("()x0,=' ") + lines[place][cut + draw.randint(0, 3) :]
    shape = draw.choice([(3, 32, 32), (8, 8), (1, 3, 16, 16), (784,)])
    # Whatever else is raised is a bug.
    with contextlib.suppress(ConvcalcError):
        summary(network("\n".join(lines), shape, sequential=draw.random() < 0.5))


# --- the command line -------------------------------------------------------------------------------------------------


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = run_command_line(arguments)
    return status, *capsys.readouterr()


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch):
    def pipe(text: str) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))

    return pipe


def test_from_standard_input(capsys, piped) -> None:
    piped(CHAIN)
    status, out, err = asked(capsys, "flops", "-", "--input", "3x32x32", "-q")
    assert (status, out, err) == (0, f"{8 * 27 * 256 + 5120}\n", "")


def test_from_a_file_and_as_a_word(capsys, tmp_path) -> None:
    path = tmp_path / "model.txt"
    path.write_text(CHAIN)
    for word in (str(path), CHAIN):
        assert asked(capsys, "shape", "3x32x32", word, "-q") == (0, "10\n", "")


def test_from_a_file_that_powershell_wrote(capsys, tmp_path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(CHAIN.replace("\n", "\r\n").encode("utf-16"))
    assert asked(capsys, "shape", "3x32x32", str(path), "-q") == (0, "10\n", "")
    path.write_bytes(b"\xff\xfeS")
    status, _, err = asked(capsys, "shape", "3x32x32", str(path))
    assert (status, "is no text" in err) == (1, True)


def test_one_line_without_an_input(capsys, piped) -> None:
    piped("LSTM(4, 8)\n")
    status, out, err = asked(capsys, "flops", "-", "--get", "totals.params")
    assert (status, out) == (0, "448\n")
    assert "there is no input" in err
    piped("Mystery(a=1)\n")
    assert asked(capsys, "flops", "-", "--strict")[0] == 1


def test_a_word_of_a_strange_class_is_an_unknown_layer(capsys) -> None:
    status, _, err = asked(capsys, "shape", "3x8x8", "conv:8", "Mystery(3)")
    assert (status, err.splitlines()[0]) == (2, "error: unknown layer Mystery")
    assert asked(capsys, "flops", "LSTMCell(4, 8)", "--get", "totals.params")[:2] == (0, "448\n")


def test_no_control_code_of_a_name_reaches_the_terminal(capsys, piped) -> None:
    piped("Sequential(\n  (a\x07): AvgPool2d(kernel_size=3, stride=2, padding=0)\n)")
    _, _, err = asked(capsys, "shape", "-", "--input", "3x8x8")
    assert "layer a· (avgpool): ceil_mode" in err


def test_strict_and_json(capsys, piped) -> None:
    piped(BLOCKS)
    status, out, _ = asked(capsys, "flops", "-", "--input", "3x32x32", "--format", "json")
    document = json.loads(out)
    assert status == 0
    assert (document["status"], document["totals"]["params"]) == ("partial", BLOCKS_PARAMS)
    assert {"params", "macs"} <= set(document["partial"])
    assert document["layers"][0]["output"] is None
    piped(BLOCKS)
    status, _, err = asked(capsys, "flops", "-", "--input", "3x32x32", "--strict")
    assert status == 1
    assert "error: --strict: additions, flops, macs, multiplications, params cannot be told in full\n" in err


def test_a_budget_is_not_met_by_a_part(capsys, piped) -> None:
    piped(BLOCKS)
    status, _, err = asked(capsys, "flops", "-", "--input", "3x32x32", "--max", "params=1M")
    assert status == 1
    assert "error: params is not known in full" in err
    piped(BLOCKS)
    status, _, err = asked(capsys, "flops", "-", "--input", "3x32x32", "--max", "params=1k")
    assert "error: params is at least 2,050, above 1,000" in err


def test_it_stands_alone(capsys, piped) -> None:
    piped(CHAIN)
    status, _, err = asked(capsys, "shape", "3x32x32", "-", "relu")
    assert status == 2
    assert "a printed model stands alone, beside its input" in err


def test_assuming_an_order_of_expressions_is_refused(capsys) -> None:
    status, _, err = asked(capsys, "shape", "3x32x32", "relu", "--assume-sequential")
    assert status == 2
    assert err == "error: --assume-sequential has a meaning for the text that PyTorch prints only\n"


def test_a_name_with_dots_is_looked_up(capsys) -> None:
    words = ["flops", "3x32x32", CHAIN, "--get"]
    assert asked(capsys, *words, "layers.1.norm.params") == (0, "16\n", "")
    assert asked(capsys, *words, "layers.0.params") == (0, "224\n", "")
    assert asked(capsys, *words, "layers.1.nrm.params")[0] == 2


@pytest.mark.parametrize(
    ("text", "shape", "kind", "params", "macs"),
    [
        ("Conv1D(nf=12, nx=4)", (5, 4), "linear", 60, 5 * 48),
        ("NewGELUActivation()", (5, 4), "gelu", 0, 0),
        ("LlamaRMSNorm((4,), eps=1e-06)", (5, 4), "rmsnorm", 4, 0),
        ("StochasticDepth(p=0.1, mode=row)", (3, 8, 8), "identity", 0, 0),
        ("DropPath(drop_prob=0.100)", (3, 8, 8), "identity", 0, 0),
        ("QuantizedConv2d(3, 4, kernel_size=(3, 3), stride=(1, 1), scale=1.0, zero_point=0)", (3, 8, 8), "conv", 112,
         36 * 108),
        ("DynamicQuantizedLinear(in_features=3, out_features=4, dtype=torch.qint8, qscheme=torch.per_tensor_affine)",
         (3,), "linear", 16, 12),
        ("nn.modules.conv.Conv2d(3, 4, kernel_size=(3, 3), stride=(1, 1))", (3, 8, 8), "conv", 112, 36 * 108),
        ("Upsample(scale_factor=2.0, mode=nearest-exact)", (3, 8, 8), "upsample", 0, 0),
        ("SelectAdaptivePool2d(pool_type=avg, flatten=Identity())", (3, 8, 8), "globalavgpool", 0, 0),
    ],
)  # fmt: skip
def test_classes_of_other_libraries_and_versions(
    text: str, shape: tuple[int, ...], kind: str, params: int, macs: int
) -> None:
    report = costs(network(f"Sequential(\n  (0): {text}\n)", shape))
    assert [row.kind for row in report.rows] == [kind]
    assert (report.totals["params"], report.totals["macs"], report.status) == (params, macs, "complete")


def test_a_norm_with_an_activation_in_it() -> None:
    text = """Sequential(
  (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), bias=False)
  (1): BatchNormAct2d(
    8, eps=1e-05, momentum=0.1, affine=True, bias=True, track_running_stats=True
    (drop): Identity()
    (act): ReLU(inplace=True)
  )
)"""
    report = costs(network(text, (3, 8, 8)))
    assert [row.kind for row in report.rows] == ["conv", "batchnorm", "identity", "relu"]
    assert (report.totals["params"], report.status) == (216 + 16, "complete")


# --- what is not printed, said ----------------------------------------------------------------------------------------

TWO = f"Sequential(\n  (a): {ENCODER}\n  (b): {ENCODER}\n)"


@pytest.mark.parametrize(
    ("unprinted", "heads"),
    [
        ({"num_heads": 4}, (4, 4)),
        ({"a.num_heads": 4}, (4, 1)),
        ({"num_heads": 2, "b.self_attn.num_heads": 8}, (2, 8)),
        ({"b.num_heads": 2, "b.self_attn.num_heads": 4}, None),
    ],
)
def test_what_is_not_printed_can_be_said(unprinted, heads) -> None:
    if heads is None:  # the innermost module decides, so that nothing takes the other
        with pytest.raises(ExpressionError, match=r"--unprinted b\.num_heads: no layer leaves that out"):
            parse_printed(TWO, input=(10, 8), unprinted=unprinted)
        return
    found = parse_printed(TWO, input=(10, 8), unprinted=unprinted)
    assert tuple(node.layer.q_heads for node in found.nodes if node.layer.kind == "attention") == heads
    assert ("num_heads" in said(costs(found))) == (1 in heads)


def test_one_of_two_that_are_not_printed_is_said() -> None:
    text = "Sequential(\n  (0): AvgPool2d(kernel_size=3, stride=2, padding=1)\n)"
    found = parse_printed(text, input=(3, 32, 32), unprinted={"ceil_mode": True})
    assert shapes(found).rows[0].outputs == ((3, 17, 17),)
    others = {one.field: one.layer for one in found.nodes[0].unsaid}
    assert (others["count_include_pad"].ceil_mode, others["count_include_pad"].count_include_pad) == (True, False)
    assert "ceil_mode" not in others


@pytest.mark.parametrize(
    ("given", "status", "sentence"),
    [
        ("num_heads=3", 1, "layer self_attn.attention (attention): 1x10x8 cannot be cut into 3 heads"),
        ("num_heads=x", 2, "layer self_attn.attention: num_heads is x, but must be a whole number"),
        ("num_heads=0", 2, "layer self_attn.attention: num_heads is 0, but must be at least 1"),
        ("activation=swish", 2, "layer activation: activation is swish, but must be one of relu, gelu"),
        ("num_heads", 2, "--unprinted num_heads has no value; write num_heads=8, or attn.num_heads=8"),
        ("num_heads=2,num_heads=4", 2, "num_heads is given twice; keep one of them"),
        ("heads=2", 2, "--unprinted heads: no layer leaves that out; what is not printed here is num_heads"
         " (self_attn.attention), activation (activation); did you mean 'num_heads'?"),
        ("norm1.num_heads=2", 2, "--unprinted norm1.num_heads: no layer leaves that out; what is not printed here is"
         " num_heads (self_attn.attention), activation (activation)\n"),
    ],
)  # fmt: skip
def test_what_is_said_wrongly_of_the_unprinted(capsys, tmp_path, given: str, status: int, sentence: str) -> None:
    (tmp_path / "net.txt").write_text(ENCODER)
    found, _, err = asked(capsys, "flops", "10x8", str(tmp_path / "net.txt"), "--unprinted", given)
    assert (found, sentence in err) == (status, True)


def test_expressions_leave_nothing_unprinted(capsys) -> None:
    assert asked(capsys, "flops", "3x8x8", "relu", "--unprinted", "ceil_mode=true") == (
        2, "", "error: --unprinted has a meaning for the text that PyTorch prints only\n"
    )  # fmt: skip


def test_lines_are_of_models_whose_text_leaves_out_as_much(tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "net.txt").write_text(ENCODER)
    (tmp_path / "own.txt").write_text("Net(\n  (0): Linear(in_features=8, out_features=2)\n)")
    monkeypatch.chdir(tmp_path)
    for lines, option in (("10x8 net.txt", ("--unprinted", "num_heads=8")), ("10x8 own.txt", ("--assume-sequential",))):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{lines}\n".encode())))
        status, out, _ = asked(capsys, "flops", "--lines", *option)
        document = json.loads(out)
        assert (status, document["layers"][-1]["output"][0], "num_heads" in out) == (0, 10, False)
