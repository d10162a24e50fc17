"""Wiring in expressions: names, going back, joins, repeats, and the errors at their tokens."""

from __future__ import annotations

import pytest

from convcalc.analysis.shapes import resolve, shapes
from convcalc.errors import ConvcalcError, ExpressionError
from convcalc.expressions import parse_text
from convcalc.network import Network


def network(text: str) -> Network:
    return parse_text(text).network()


def wires(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """What comes into each node."""
    return [(node.name, node.inputs) for node in network(text).nodes]


def refusal(text: str) -> tuple[str, str]:
    """The message, and the characters under the caret."""
    with pytest.raises(ConvcalcError) as caught:
        resolve(network(text))
    span = caught.value.span
    assert span is not None
    return caught.value.message, span.source.text[span.start : span.end]


def notes(text: str) -> list[str]:
    return [item.message for item in shapes(network(text)).diagnostics]


def test_from_goes_back() -> None:
    text = "3x8x8 conv:4,k3,p1 @a relu from:@a conv:5,k1"
    assert wires(text) == [("0", ("input",)), ("1", ("0",)), ("2", ("0",))]
    assert network(text).outputs == ("2",)


def test_the_input_can_be_named() -> None:
    assert wires("3x8x8 @x conv:4,k3,p1 from:@x relu")[-1] == ("1", ("input",))


def test_from_reads_with_and_without_the_at() -> None:
    assert wires("3x8x8 @x relu from:x relu") == wires("3x8x8 @x relu from:@x relu")


def test_a_name_moves_on_with_each_repeat() -> None:
    text = "3x8x8 repeat:2 @x relu from:@x relu end"
    assert wires(text) == [("0", ("input",)), ("1", ("input",)), ("2", ("1",)), ("3", ("1",))]


def test_repeats_nest() -> None:
    layers = [node.layer.kind for node in network("3x8x8 repeat:2 relu repeat:3 conv:k1 end end").nodes]
    assert layers == ["relu", "conv", "conv", "conv"] * 2


def test_names_stay_apart_in_repeats() -> None:
    assert [name for name, _ in wires("3x8x8 repeat:3 conv:k1,name=stem end")] == ["stem", "stem.1", "stem.2"]


def test_names_stay_apart_from_second_outputs_and_the_input() -> None:
    text = "3x8x8 repeat:2 maxpool:2,indices,name=a end relu:name=input"
    nodes = network(text).nodes
    tensors = [tensor for node in nodes for tensor in node.outputs]
    assert len(tensors) == len(set(tensors))
    assert "input" not in tensors
    resolve(network(text))


def test_the_second_output_has_a_name() -> None:
    assert wires("3x8x8 maxpool:2,indices @p relu from:@p.1 relu")[-1] == ("2", ("0.1",))
    assert refusal("3x8x8 maxpool:2 @p relu from:@p.1 relu")[1] == "from:@p.1"


def test_the_answer_is_the_current_tensor() -> None:
    report = shapes(network("3x8x8 conv:4,k3 @a conv:5,k3 from:@a"))
    assert report.answer == (4, 6, 6)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("3x8x8 @a relu", ["@a is never used"]),
        ("3x8x8 repeat:3 @a relu end", ["@a is never used"]),
        ("3x8x8 repeat:2 @a relu from:@a relu end", [
            "the output of 0 (relu) is never used; the network's output is that of 3 (relu)",
            "the output of 2 (relu) is never used; the network's output is that of 3 (relu)",
        ]),
        ("3x8x8 @a relu from:@a", ["the output of 0 (relu) is never used; the network's output is the input itself"]),
        ("3x8x8 relu @a relu @a relu from:@a relu", [
            "@a is never used",
            "the output of 2 (relu) is never used; the network's output is that of 3 (relu)",
        ]),
        ("3x8x8 maxpool:2,indices", []),
        ("3x8x8 maxpool:2,indices @p from:@p.1 relu", []),
    ],
)  # fmt: skip
def test_what_is_not_used_is_said(text: str, found: list[str]) -> None:
    assert notes(text) == found


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("3x8x8 relu from:@a relu", "no tensor is named @a; name a tensor with @name before it is used", "from:@a"),
        ("3x8x8 @skip relu from:@skp relu", "no tensor is named @skp; did you mean 'skip'?", "from:@skp"),
        ("3x8x8 repeat:2 from:@x relu @x end", "no tensor is named @x; name a tensor with @name before it is used",
         "from:@x"),
        ("3x8x8 @a relu:@a", "relu takes one input, but 2 came in", "@a"),
        ("3x8x8 @ relu", "a tensor's name is letters, digits, _, . and -, such as @skip", "@"),
        ("3x8x8 from: relu", "a tensor's name is letters, digits, _, . and -, such as @skip", "from:"),
        ("3x8x8 repeat relu end", "repeat needs a count of at least 1, such as repeat:3", "repeat"),
        ("3x8x8 repeat:0 relu end", "repeat needs a count of at least 1, such as repeat:3", "repeat:0"),
        ("3x8x8 repeat:two relu end", "repeat needs a count of at least 1, such as repeat:3", "repeat:two"),
        ("3x8x8 repeat:2 repeat:3 relu end", "repeat has no end", "repeat:2"),
        ("3x8x8 relu end", "end has no repeat before it", "end"),
        ("3x8x8 relu repeat:2 end", "there is nothing between this repeat and its end", "repeat:2"),
        ("3x8x8 repeat:1000 repeat:1000 relu end end",
         "this repeat makes the network longer than 100,000 layers", "repeat:1000"),
        ("3x8x8 relu repeat:2 3x4x4 relu end", "the input is given twice; keep one of them", "3x4x4"),
        ("relu 3x8x8", "3x8x8 stands after a layer; the input comes first", "3x8x8"),
    ],
)  # fmt: skip
def test_errors_point_at_the_token(text: str, message: str, caret: str) -> None:
    assert refusal(text) == (message, caret)


def test_a_mistake_in_wiring_is_an_expression_error() -> None:
    with pytest.raises(ExpressionError):
        network("3x8x8 from:@a relu")


# --- joins ------------------------------------------------------------------------------------------------------------


def test_the_current_tensor_comes_first() -> None:
    assert wires("3x8x8 conv:4 @a relu @b relu concat:@a,@b")[-1] == ("3", ("2", "0", "1"))
    assert wires("3x8x8 conv:4 @a relu @b relu from:@a concat:@b")[-1] == ("3", ("0", "1"))


def test_a_residual_block_repeats() -> None:
    text = "4x8x8 repeat:2 @x conv:4,k3,p1 relu add:@x end"
    assert wires(text)[2::3] == [("2", ("1", "input")), ("5", ("4", "2"))]
    assert notes(text) == []


def test_crop_takes_the_size_of_another() -> None:
    assert shapes(network("2x8x8 @a conv:5,k3 @b from:@a crop:@b concat:@b")).answer == (7, 6, 6)


def test_a_channel_gate_broadcasts() -> None:
    assert shapes(network("8x6x6 @x adaptiveavgpool:1 conv:8,k1 sigmoid mul:@x")).answer == (8, 6, 6)


@pytest.mark.parametrize(
    ("text", "end", "caret"),
    [
        ("3x8x8 @x conv:4,k3 add:@x", "; here come 4x6x6 from 0 (conv) and 3x8x8 from the input", "@x"),
        ("3x8x8 conv:4,k3 @a conv:5,k3 @b relu concat:@b,@a",
         "; here come 5x4x4 from 2 (relu), 5x4x4 from 1 (conv) and 4x6x6 from 0 (conv)", "@a"),
        ("3x8x8 conv:4,name=stem @a conv:5 mul:@a",
         "; here come 5x8x8 from 1 (conv) and 4x8x8 from stem (conv)", "@a"),
    ],
)  # fmt: skip
def test_a_join_names_its_branches(text: str, end: str, caret: str) -> None:
    message, under = refusal(text)
    assert message.endswith(end)
    assert under == caret


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("3x8x8 relu add", "add takes at least 2 inputs, but 1 came in; name one with @a and write add:@a", "add"),
        ("3x8x8 @a relu add:@b", "no tensor is named @b; name a tensor with @name before it is used", "@b"),
        ("3x8x8 @a relu crop:@a,@a", "crop takes 2 inputs, but 3 came in", "@a"),
    ],
)
def test_a_join_with_too_few_or_too_many(text: str, message: str, caret: str) -> None:
    assert refusal(text) == (message, caret)


def test_a_layer_is_no_name_of_a_tensor() -> None:
    assert refusal("3x8x8 conv:4,name=stem relu add:@stem") == (
        "no tensor is named @stem; stem is a layer: write @stem after it to name what it gives",
        "@stem",
    )


def test_concat_of_other_numbers_of_axes() -> None:
    message, under = refusal("3x8x8 conv:8,k3 @a flatten concat:@a")
    assert message.startswith("288 and 8x6x6 have different numbers of axes; here come 288 from 1 (flatten)")
    assert under == "@a"


def test_a_name_given_twice_is_said_and_one_in_a_repeat_is_not() -> None:
    assert network("3x8x8 conv:4,name=a relu:name=a").notes == ("two layers are named a; the second is a.1",)
    repeated = network("3x8x8 repeat:2 repeat:2 conv:4,name=a end relu:name=b end")
    assert repeated.notes == ()
    assert [node.name for node in repeated.nodes] == ["a", "a.1", "b", "a.2", "a.3", "b.1"]
