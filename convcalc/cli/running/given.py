"""What `convcalc run` is given: the layers, the input and the weights, as words and options name them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from convcalc.cli.answer import layer_options
from convcalc.cli.options import Question
from convcalc.cli.running.asked import TYPES, Asked
from convcalc.errors import ExpressionError, ModelFileError, Span
from convcalc.records import dataclass, replace

if TYPE_CHECKING:
    from convcalc.executor.batches import Samples
    from convcalc.executor.kernels import Array
    from convcalc.expressions.program import Program
    from convcalc.images import Preparation
    from convcalc.onnx.file import OnnxModel


def read_noun(question: Question, words: Sequence[Span], asked: Asked) -> Noun:
    """What the words and options name: the program, its input, and its weights."""
    from convcalc.arrays import is_array, read_array
    from convcalc.expressions.program import Program
    from convcalc.layers.base import shape_text
    from convcalc.network import input_twice
    from convcalc.nouns import program_of

    text = question["input_shape"]
    rest = list(words)
    if rest and is_array(_text(rest[0])):
        if text is not None:
            raise input_twice(rest[0])
        text = _text(rest.pop(0))
    options = layer_options(question)
    # A weight alone is a convolution.
    try:
        program = (
            program_of(rest, options) if rest or options or not (asked.weights or text) else Program([], None, None)
        )
    except ModelFileError:
        if text is None and Path(_text(rest[0])).is_dir():
            raise ModelFileError(
                f"{_text(rest[0])} is a folder; a folder of images is written with a / at its end, {_text(rest[0])}/",
                span=rest[0],
            ) from None
        raise
    if not (program.names_inputs or program.layers or asked.weights) and (text or program.given):
        raise ExpressionError("there is no layer after the input; write one, such as conv:k3, or a kernel with -w")
    if text is None and program.given is not None:
        text = shape_text(program.given)
    elif text is not None and not program.gives_way:
        raise input_twice(program.input_span)
    if text is None and program.tells_types:
        text = _shapes_of_file(cast("OnnxModel", program))
    if text is None:
        raise ExpressionError(
            "there is no input; write an array first, such as '[[1,2],[3,4]]' or x.npy", field="input"
        )
    if program.tells_types and asked.dtype is not None:
        raise ExpressionError("--dtype has no meaning for a model's file, which says of what type its tensors are")
    program = copy(program)
    program.given = None
    if question["assume_sequential"]:
        program.assume_sequential()
    program.say(question["unprinted"])
    bias = None if asked.bias_values is None else read_array(asked.bias_values, seed=asked.seed)
    texts = (*asked.weights, asked.bias_values or "")
    weights = _weights(asked.weights, asked.seed)
    return Noun(program, text, weights, bias, asked.seed, texts, asked.preparation, asked.dtype)


def _shapes_of_file(model: OnnxModel) -> str | None:
    """The inputs as --input would name them, of the shapes that the model's file says. Raises for one that is open."""
    from convcalc.layers.base import shape_text

    shapes = {name: shape_text(given.shape) for name, given in model.named_network({}).inputs.items()}
    if not shapes:
        raise ModelFileError(f"{model.model.file.name} takes no input: what it gives stands in it")
    if not all(shapes.values()):
        return None
    return next(iter(shapes.values())) if len(shapes) == 1 else ",".join("=".join(pair) for pair in shapes.items())


def _weights(texts: Sequence[str], seed: int) -> Any:
    """One array, arrays by name, or None."""
    from convcalc.arrays import read_weights

    named, bare = read_weights(texts, seed=seed)
    if len(bare) > 1 or (bare and named):
        raise ExpressionError("several weights are given; name each: -w 0.weight=... -w 2.weight=...", field="weights")
    return bare[0] if bare else named or None


@dataclass(frozen=True, eq=False)
class Noun:
    """A program without its input, the text that names the input, and the weights; `texts` are what named those.

    `preparation` are the options that say what is done to images; `dtype` is what numbers are computed in, or None for
    the input's own type.
    """

    program: Program
    text: str
    weights: Any
    bias: Array | None
    seed: int
    texts: Sequence[str]
    preparation: Mapping[str, str | None]
    dtype: str | None

    @property
    def is_folder(self) -> bool:
        """Whether the input is a folder of images."""
        from convcalc.arrays import is_folder

        return any(map(is_folder, self.named.values()))

    @property
    def named(self) -> Mapping[str, str]:
        """The texts of the inputs by name, of a model whose inputs have names; what has no name is called ""."""
        from convcalc.arrays import named_texts

        return named_texts(self.text) if self.program.names_inputs else {"": self.text}

    def inputs(self, made: str) -> tuple[Array | dict[str, Array], list[str]]:
        """The input, or a model's inputs by name: from a=a.npy,b=1x10, or an .npz file of several arrays."""
        named = self.named
        if "" in named:
            arrays = self._arrays()
            return (arrays, []) if arrays else self.array(made)
        found = {name: noun.array(made) for name, noun in self._each().items()}
        notes = {note: None for _, notes in found.values() for note in notes}
        return {name: array for name, (array, _) in found.items()}, list(notes)

    def _each(self) -> dict[str, Noun]:
        """Every input by name as a noun of its own. What is done to images is done to those that are images."""
        from convcalc.arrays import is_folder
        from convcalc.images import IMAGE_SUFFIXES

        named = self.named
        images = {name for name, text in named.items() if is_folder(text) or text.lower().endswith(IMAGE_SUFFIXES)}
        left = dict.fromkeys(self.preparation)
        return {
            name: replace(self, text=text, preparation=left if images and name not in images else self.preparation)
            for name, text in named.items()
        }

    def _arrays(self) -> dict[str, Array]:
        """The arrays of an .npz file that holds several inputs by name; nothing of what is no such file."""
        from convcalc.arrays import read_arrays

        if not (self.program.names_inputs and self.text.lower().endswith(".npz")):
            return {}
        arrays = read_arrays(self.text)
        return arrays if len(arrays) > 1 else {}

    def array(self, made: str) -> tuple[Array, list[str]]:
        """The input; one that is made in this way, where there is only a shape. And what is to be said about it."""
        from convcalc.arrays import is_array, read_array
        from convcalc.images import IMAGE_SUFFIXES, preparation, read_image

        asked = preparation(**self.preparation)
        notes, dtype = [], self.dtype
        if self.text.lower().endswith(IMAGE_SUFFIXES):
            array = read_image(self.text, asked)
        else:
            self._need_images(asked)
            text = self.text
            if not is_array(text):
                text = f"{made}:{text}"
                if made == "random":
                    notes = [f"the input is random, drawn from seed {self.seed}"]
                    dtype = dtype or TYPES[0]
            array = read_array(text, seed=self.seed)
        return (array if dtype is None else array.astype(dtype, copy=False)), notes

    def samples(self, count: int) -> tuple[Samples | dict[str, Samples], list[str]]:
        """The input as samples along its first axis, or a model's inputs by name, and what is to be said about it.

        Where there is only the shape of a sample, so many are made: as many as of the inputs that are given, or else
        `count`.
        """
        from convcalc.arrays import is_array

        nouns = self._each()
        if "" in nouns:
            arrays: dict[str, Samples] = dict(self._arrays())
            return (arrays, []) if arrays else self._samples(count)
        found: dict[str, Samples] = {}
        notes: dict[str, None] = {}
        for name in sorted(nouns, key=lambda name: not is_array(nouns[name].text)):
            found[name], said = nouns[name]._samples(count)
            count = (*found[name].shape, count)[0]
            notes |= dict.fromkeys(said)
        return {name: found[name] for name in nouns}, list(notes)

    def _samples(self, count: int) -> tuple[Samples, list[str]]:
        """The samples of one input: mapped, a folder, or an array."""
        from convcalc.arrays import is_array, is_folder, map_array
        from convcalc.images import IMAGE_SUFFIXES, Folder, preparation

        asked = preparation(**self.preparation)
        if is_folder(self.text):
            return Folder(self.text, asked), []
        if self.text.lower().endswith(".npy"):
            self._need_images(asked)
            return map_array(self.text), []
        array, notes = (self if is_array(self.text) else replace(self, text=f"{count}x{self.text}")).array("random")
        return (array[None] if self.text.lower().endswith(IMAGE_SUFFIXES) else array), notes

    def _need_images(self, asked: Preparation) -> None:
        if asked:
            option = next(name for name, value in self.preparation.items() if value is not None)
            raise ExpressionError(f"--{option} has a meaning for images and folders of them only", value=self.text)


def _text(word: Span) -> str:
    return word.source.text[word.start : word.end]
