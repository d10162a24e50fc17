"""Every kind of layer: PyTorch's fields, expressions there and back, refusals, every question answered."""

from __future__ import annotations

import dataclasses
import inspect

import pytest
from layer_cases import EXPRESSIONS, REFUSALS, SIGNATURES

from convcalc.errors import ConvcalcError, LayerError
from convcalc.expressions import parse_text
from convcalc.expressions.layer_text import field_names, required_fields
from convcalc.expressions.writing import expression_of
from convcalc.formulas import adaptive_elements, norm_additions
from convcalc.layers import LAYERS, find_kind
from convcalc.layers.base import Cost
from convcalc.records import REQUIRED, parameters_of

MORE_FIELDS = {"AvgPool1d": "divisor_override", "ConvTranspose": "output_size", "MaxUnpool": "output_size"}
"""Fields after PyTorch's: what it takes elsewhere, or for other ranks."""
OPEN = {
    *("in_channels", "out_channels", "in_features", "out_features"),
    *("num_features", "num_channels", "normalized_shape", "input_size", "hidden_size"),
}
"""Fields that may be left out here, because the input decides them."""
INPUTS = {
    "linear": "10", "unflatten": "20", "reshape": "400", "fold": "12x49", "prelu": "8x5",
    **dict.fromkeys(("lstm", "gru", "rnn"), "5x8"),
    **dict.fromkeys(("multiheadattention", "attention"), "5x64"),
    "embedding": "5",
}  # fmt: skip
"""What a kind's first expression is tried on, where that is not an image."""


def classes(kind):
    """Every class of a kind."""
    names = (kind.classes,) if isinstance(kind.classes, str) else kind.classes
    ranks = (None,) if isinstance(kind.classes, str) else (1, 2, 3)
    assert len(names) == len(ranks)
    found = [kind.layer_class(rank) for rank in ranks]
    return [*found, kind.layer_class()] if kind.free else found


def layer_of(text):
    return parse_text(text).layers[0].layer(2)


def shape_of(text):
    return (1, *map(int, text.split("x")))


def example(kind):
    """A layer of a kind, bound to an input, with the inputs and outputs."""
    layer = layer_of(EXPRESSIONS[kind][0])
    inputs = (shape_of(INPUTS.get(kind, "8x8x8")),) * layer.inputs[0]
    bound = layer.bind(*inputs)
    return bound, inputs, bound.infer(*inputs)


# --- fields ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", SIGNATURES)
def test_fields_are_pytorchs(stem):
    wanted = [field.partition("=")[::2] for field in SIGNATURES[stem].split()]
    kind, rank = find_kind(stem)
    for cls in [kind.layer_class(rank)] if rank or isinstance(kind.classes, str) else classes(kind):
        names = field_names(cls)
        given = {name: default for name, default in parameters_of(cls).items() if default is not REQUIRED}
        more = (MORE_FIELDS.get(stem) or MORE_FIELDS.get(cls.__name__) or "").split()
        assert list(names) in ([name for name, _ in wanted], [*(name for name, _ in wanted), *more]), cls
        for name, default in wanted:
            if name in OPEN:
                assert given.get(name) is None
            elif default:
                assert str(given[name]) == default, (cls, name)
            else:
                assert name not in given or stem.startswith("Conv"), (cls, name)


@pytest.mark.parametrize("name", LAYERS)
def test_every_class_is_a_frozen_dataclass_of_its_kind(name):
    kind = LAYERS[name]
    for cls in classes(kind):
        assert cls.kind == name
        assert cls.__doc__
        assert dataclasses.is_dataclass(cls)
        with pytest.raises(dataclasses.FrozenInstanceError):
            cls.__new__(cls).other = 1
        assert not cls.__dataclass_params__.eq, (
            "Layer compares; a generated comparison costs a start half a millisecond"
        )
        assert kind.main is None or kind.main in field_names(cls)
        assert set(kind.keys.values()) <= {*field_names(cls), "divisor_override"}
        assert {field for field, _ in kind.flags.values()} <= set(field_names(cls))


def test_every_module_of_torch_has_its_name():
    for stem in SIGNATURES:
        kind, _ = find_kind(stem)
        assert any(cls.__name__.startswith(stem) for cls in classes(kind)), stem


# --- expressions ----------------------------------------------------------------------------------------------------


def test_every_kind_has_expressions():
    assert set(EXPRESSIONS) == set(LAYERS)


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in EXPRESSIONS.items() for text in texts])
def test_expression_there_and_back(kind, text):
    layer = layer_of(text)
    assert layer.kind == kind
    assert layer_of(expression_of(layer)) == layer
    assert layer_of(repr(layer)) == layer
    assert hash(layer_of(repr(layer))) == hash(layer)
    assert type(layer_of(expression_of(layer))) is type(layer)


@pytest.mark.parametrize("name", LAYERS)
def test_every_name_finds_its_kind(name):
    for spelling in LAYERS[name].names():
        assert find_kind(spelling)[0].name == name
        assert find_kind(f"nn.{spelling.upper()}")[0].name == name


def test_a_name_without_a_rank_takes_any():
    assert layer_of("batchnorm").bind((1, 8)).infer((1, 8)) == ((1, 8),)
    assert layer_of("dropout").infer((1, 8)) == ((1, 8),)
    assert type(layer_of("dropout2d")).__name__ == "Dropout2d"
    assert type(layer_of("instancenorm3d")).rank == 3


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "inputs", "field", "sentence"), REFUSALS)
def test_refusal(text, inputs, field, sentence):
    shapes = [shape_of(shape) for shape in inputs.split()]
    with pytest.raises(ConvcalcError) as refusal:
        layer_of(text).bind(*shapes).infer(*shapes)
    assert refusal.value.message == sentence
    assert (refusal.value.field or "") == field


@pytest.mark.parametrize("name", [name for name in LAYERS if LAYERS[name].main])
def test_a_word_for_the_main_size_is_refused(name):
    for cls in classes(LAYERS[name]):
        with pytest.raises(LayerError):
            cls(**{**dict.fromkeys(required_fields(cls), 2), LAYERS[name].main: "large"})


# --- every question is answered -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_answers_everything(name):
    layer, inputs, outputs = example(name)
    assert all(isinstance(size, int) and size > 0 for shape in outputs for size in shape)
    assert len(layer.output_dtypes("float32")) == len(outputs)
    assert isinstance(layer.cost(inputs, outputs), Cost)
    gradients = layer.backward(inputs, outputs)
    assert set(gradients) == {"input", *layer.parameters()}
    assert all(isinstance(cost, Cost) for cost in gradients.values())
    own = {*layer.parameters(), *layer.buffers()}
    for saved in layer.saved(inputs, outputs):
        assert not isinstance(saved, str) or saved in own or saved.startswith(("input", "output"))
    assert layer.bind(*inputs) == layer
    assert layer.inputs[0] >= 1


@pytest.mark.parametrize("name", ["batchnorm", "instancenorm", "groupnorm:2", "layernorm", "rmsnorm", "syncbatchnorm"])
def test_norms_take_their_size_from_the_input(name):
    bound = layer_of(name).bind((2, 8, 5, 6))
    size = 6 if name in ("layernorm", "rmsnorm") else 8
    assert size in vars(bound).values() or (size,) in vars(bound).values()
    assert bound.bind((2, 8, 5, 6)) == bound


def test_adaptive_windows_by_walking():
    for size in range(1, 25):
        for output in range(1, 25):
            windows = [range(i * size // output, -(-(i + 1) * size // output)) for i in range(output)]
            assert adaptive_elements(size, output) == sum(map(len, windows))


def test_batch_norm_at_inference_is_two_an_element():
    layer = layer_of("batchnorm2d").bind((1, 8, 5, 5))
    assert layer.cost(((1, 8, 5, 5),), ((1, 8, 5, 5),)) == Cost(0, 200, 200)
    untracked = layer_of("batchnorm2d:notrack,noaffine").bind((1, 8, 5, 5))
    assert untracked.cost(((1, 8, 5, 5),), ((1, 8, 5, 5),)) == Cost(0, 400, norm_additions(200, 8), 32)


def test_paddings_in_pytorchs_order():
    assert layer_of("ZeroPad2d((1, 2, 3, 4))").padding == ((3, 4), (1, 2))
    assert layer_of("zeropad2d:3+4x1+2").padding == ((3, 4), (1, 2))
    assert layer_of("ConstantPad3d((1, 2, 3, 4, 5, 6), 0.5)").padding == ((5, 6), (3, 4), (1, 2))


RANKED = [name for name, kind in LAYERS.items() if isinstance(kind.classes, tuple) and name != "dropout"]


@pytest.mark.parametrize("name", RANKED)
def test_a_class_for_so_many_axes_has_the_whole_docstring(name):
    for rank in (1, 2, 3):
        cls = LAYERS[name].layer_class(rank)
        assert len(inspect.getdoc(cls).splitlines()) > 2, cls
