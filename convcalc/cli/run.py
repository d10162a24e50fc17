"""`convcalc run`."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from convcalc.cli.answer import (
    answer_lines,
    check_output_options,
    format_name,
    layer_options,
    look_up,
    print_diagnostics,
    value_path,
)
from convcalc.cli.options import LAYER_OPTIONS, NETWORK_OPTIONS, OUTPUT_OPTIONS, Option, Question, under, verb
from convcalc.errors import BudgetError, ExpressionError, ModelFileError, Span, refuse_other
from convcalc.records import dataclass, replace

if TYPE_CHECKING:
    from convcalc.analysis.report import Report
    from convcalc.executor.batches import Samples
    from convcalc.executor.kernels import Array
    from convcalc.executor.report import RunReport
    from convcalc.executor.run import Prepared
    from convcalc.expressions import Program
    from convcalc.images import Preparation
    from convcalc.onnx.file import OnnxModel

HELP = """\
Run layers on real arrays, with NumPy.

Examples:
  convcalc run '[[0,1,2],[3,4,5],[6,7,8]]' -w '[[0,1],[2,3]]'
  convcalc run photo.png -w sobel                           a kernel by its name
  convcalc run x.npy conv:8,k3,p1 relu maxpool:2 -w weights.npz -o y.npy
  convcalc run 4x4 -w '[[1,2],[3,4]]' --as-matrix           as a matrix product
  convcalc run 2x2 -w '[[1,2],[3,4]]' --kind convt --as-matrix
  convcalc run x.csv conv:k1x2,nobias --fit y.csv --lr 0.03 --steps 20
  convcalc run x.npy maxpool:2,indices @p maxunpool:2,@p.1  a pooling undone
  convcalc run photos/ net.txt -w w.npz --resize 224x224 --batch 8 -o y.npy
  convcalc run model.onnx --input ids=ids.npy,mask=ones:1x128 -o y.npz
  convcalc run inputs.npz model.onnx -o y.npz               inputs by name

Arrays, of the input, weights and targets: nested lists; files (.npy, .npz,
file.npz:name, .csv, .tsv, images); ones:3x4, zeros:, arange:, random: (from
--seed; a shape alone is random too); and kernels by name: identity, difference,
sobel-x, sobel-y, prewitt-x, prewitt-y, scharr-x, scharr-y, roberts-x,
roberts-y, laplacian, laplacian8, edge, sharpen, emboss, box, box5, gaussian,
gaussian5.

With --batch the first axis are samples: a file is mapped, a folder (its name
ends in /) read image by image, and an .npy output grows batch by batch;
--resume goes on with one that was interrupted.
"""

_SHARED = tuple(
    option
    for option in (*LAYER_OPTIONS, *NETWORK_OPTIONS, *OUTPUT_OPTIONS)
    if option.name not in ("batch", "budget", "strict")
)


_ARRAYS = under(
    "Arrays",
    Option("-w --weights", "The first layer's weight, an .npz of all by name, or 2.weight=ARRAY; random if none.",
           metavar="ARRAY", many=True),
    Option("--bias-values", "The first layer's bias.", metavar="ARRAY"),
    Option("--seed", "Where random numbers start.", int, "N", default=0, least=0),
    Option("--flip", "True convolution: turn every kernel by 180 degrees.", bool),
)  # fmt: skip
_SHOWN = under(
    "What to show, if not the output",
    Option("--layer", "What this layer gives.", metavar="NAME"),
    Option("--indices", "What max pooling chose, too.", bool),
    Option("--as-matrix", "The matrix of these layers, if they are linear.", bool),
    Option("--im2col", "The windows of a convolution, one a row.", bool),
    Option("--check", "How far the output is from a saved one, or each layer's from another algorithm's.",
           metavar="FILE|NAME"),
    Option("--profile", "Each layer's time, speed, bytes and memory, measured here.", bool),
    Option("--max", "With --check or --profile: fail when a total is larger, such as scaled=1e-5.", metavar="LIMITS",
           name="budget"),
    Option("--heatmap/--table", "Draw a heat map, or a table; by size if neither.", bool, default=None),
)  # fmt: skip
_LEARNING = under(
    "Learning",
    Option("--fit", "Learn the weights that give this array.", metavar="TARGET"),
    Option("--lr", "The rate; 0.03 if none.", float, "RATE"),
    Option("--steps", "How many steps; 20 if none.", int, "N", least=1),
    Option("--optimizer", "sgd, momentum, adam or adamw; sgd if none.", metavar="NAME"),
    Option("--train", "Batch norms by the batch's statistics, dropouts at random; as at inference if not.", bool),
)
_COMPUTING = under(
    "Computing",
    Option("--algorithm",
           "Of convolutions: direct, pointwise, im2col, grouped, rows, kn2row, winograd2, winograd4, fft.",
           metavar="NAME"),
    Option("--dtype", "float32 or float64; the input's own type if none, float32 if it is random.", metavar="TYPE"),
    Option("--threads", "Cores to use; all if none.", int, "N", least=1),
    Option("--batch", "The input's first axis are samples: so many at once. A folder has one at once if none.",
           int, "N", least=1),
    Option("--resume", "With --batch and -o FILE.npy: go on where a run was interrupted.", bool),
)  # fmt: skip
_IMAGES = under(
    "Images",
    Option("--resize", "The shorter side 256, or 224x224; 256,bicubic mixes pixels so.", metavar="SIZE"),
    Option("--crop", "Cut 224 or 224x160 out of the middle.", metavar="SIZE"),
    Option("--normalize", "imagenet, clip, half, mnist, or means/deviations 0.5,0.5,0.5/0.2,0.2,0.2.", metavar="NAME"),
)


@dataclass(frozen=True, eq=False)
class Asked:
    """The values of run's own options; None, False or empty where they were not given."""

    weights: Sequence[str]
    bias_values: str | None
    seed: int
    flip: bool
    layer: str | None
    indices: bool
    as_matrix: bool
    im2col: bool
    check: str | None
    profile: bool
    budget: str | None
    heatmap: bool | None
    fit: str | None
    lr: float | None
    steps: int | None
    optimizer: str | None
    train: bool
    algorithm: str | None
    dtype: str | None
    threads: int | None
    batch: int | None
    resume: bool
    resize: str | None
    crop: str | None
    normalize: str | None

    def given(self, *names: str) -> list[str]:
        """Those of these options that were given, as they are written."""
        return [
            "--max" if name == "budget" else f"--{name.replace('_', '-')}"
            for name in names
            if getattr(self, name) not in (None, False, ())
        ]

    @property
    def preparation(self) -> Mapping[str, str | None]:
        """What is done to images."""
        return {"resize": self.resize, "crop": self.crop, "normalize": self.normalize}


_ANSWERS = ("layer", "as_matrix", "im2col", "fit", "check", "profile")
"""The options that ask for something else than the output; one of them at most."""
_FOR = {
    "lr": ("fit",),
    "steps": ("fit",),
    "optimizer": ("fit",),
    "train": ("fit",),
    "budget": ("check", "profile"),
}
"""What has a meaning with one of these only."""
_TYPES = ("float32", "float64")
"""What --dtype may be."""
_NOT_FOR = {
    "indices": ("as_matrix", "im2col", "fit", "check", "profile"),
    "heatmap": ("check", "profile"),
    "algorithm": ("as_matrix", "im2col"),
    "threads": ("as_matrix", "im2col"),
    "batch": ("check", "profile"),
    "resume": ("check", "profile"),
}
"""What has no meaning with any of these."""


@verb(*_ARRAYS, *_SHOWN, *_LEARNING, *_COMPUTING, *_IMAGES, shared=_SHARED)
def VERB(question: Question, **values: Any) -> None:  # noqa: N802  every verb's module has one of this name
    """Answer `run`."""
    # Arrays are large, and tracebacks of refused ones form cycles; the start is over.
    gc.enable()
    asked = Asked(**values)
    _refuse_together(question, asked)
    name = format_name(question)
    array = asked.check is None and not asked.profile
    check_output_options(question, name, explain=False, files=_files(question, asked), array=array)

    def report_of(words: Sequence[Span]) -> RunReport:
        from convcalc.executor.algorithms import forced
        from convcalc.executor.threads import threads as using_threads

        noun = _noun(question, words, asked)
        with using_threads(asked.threads), forced(asked.algorithm):
            if asked.batch is not None or asked.resume or noun.is_folder:
                from convcalc.cli.batched import run_batched

                refused = [*asked.given(*_ANSWERS, "indices"), *(["--lines"] if question["lines"] else [])]
                how = {"seed": asked.seed, "flip": asked.flip, "algorithm": asked.algorithm, "dtype": asked.dtype}
                return run_batched(question, noun, asked.batch, how=how, resume=asked.resume, refused=refused)
            return _report(question, noun, asked)

    if question["lines"]:
        _answer_lines(question, report_of)
        return
    from convcalc.nouns import word_spans

    if asked.check is not None or asked.profile:
        _give(question, _measured(_noun(question, word_spans(question.words), asked), asked), asked.budget, name)
        return
    report = report_of(word_spans(question.words))
    if not report.said:
        print_diagnostics(report.diagnostics, quiet=question["quiet"])
    if report.written:
        return
    how = None if asked.heatmap is None else "heatmap" if asked.heatmap else "table"
    _write(question, report, name, how)
    if report.interrupted:
        raise KeyboardInterrupt  # for the exit status


def _files(question: Question, asked: Asked) -> list[str]:
    """Every text of the options that may name a file to be read: the whole of it, or what follows a name in it."""
    texts = [question["input_shape"], *asked.weights, asked.bias_values, asked.check, asked.fit]
    parts = [part for text in (*question.words, *texts) if text for part in (text, *text.split(","))]
    return [
        name
        for part in parts
        for value in (part, part.rpartition("=")[2])
        for name in (value, value.rpartition(":")[0])
    ]


def _refuse_together(question: Question, asked: Asked) -> None:
    """Raise `ExpressionError` for options that would be passed over."""
    answers = asked.given(*_ANSWERS)
    if len(answers) > 1:
        raise ExpressionError(f"{answers[0]} and {answers[1]} ask for different answers; keep one of them")
    for option, others in _FOR.items():
        if asked.given(option) and not asked.given(*others):
            wanted = " or ".join(f"--{other}" for other in others)
            raise ExpressionError(f"{asked.given(option)[0]} has a meaning with {wanted} only")
    for option, others in _NOT_FOR.items():
        if asked.given(option) and asked.given(*others):
            raise ExpressionError(f"{asked.given(option)[0]} has no meaning with {asked.given(*others)[0]}")
    if question["lines"] and asked.given("check", "profile"):
        raise ExpressionError(f"{asked.given('check', 'profile')[0]} has no meaning with --lines")
    if asked.optimizer is not None:
        from convcalc.executor.optimizers import OPTIMIZERS

        refuse_other("--optimizer", asked.optimizer, OPTIMIZERS)
    if asked.lr is not None and not 0 <= asked.lr < float("inf"):
        raise ExpressionError(f"--lr is {asked.lr:g}, but must be a number that is not below 0", value=asked.lr)
    if asked.dtype is not None:
        refuse_other("--dtype", asked.dtype, _TYPES)


def _give(question: Question, report: Report, budget: str | None, name: str | None) -> None:
    """Print a report with its diagnostics; then fail if it exceeds a limit."""
    from convcalc.cli.answer import exceeding, write_report

    exceeded = exceeding(report, budget)
    print_diagnostics(report.diagnostics, quiet=question["quiet"])
    write_report(question, report, name)
    if exceeded:
        raise BudgetError("; ".join(exceeded))


def _report(question: Question, noun: Noun, asked: Asked) -> RunReport:
    from convcalc.analysis.report import Diagnostic
    from convcalc.arrays import read_array
    from convcalc.executor.report import RunReport
    from convcalc.executor.run import compute, flipped, prepare

    x, notes = noun.inputs("ones" if asked.as_matrix else "arange" if asked.im2col else "random")
    prepared = prepare(noun.program, x, noun.weights, bias=noun.bias, seed=asked.seed)
    # The windows have nothing of the weights.
    notes += [] if asked.im2col else [*prepared.notes, *not_done(prepared, asked.algorithm)]
    prepared = flipped(prepared) if asked.flip else prepared
    others: dict[str, Array] = {}
    same = ""
    losses: Sequence[float] = ()
    interrupted = False
    if asked.as_matrix:
        from convcalc.executor.matrix import as_matrix as matrix_of

        output = matrix_of(prepared)
    elif asked.im2col:
        from convcalc.executor.matrix import windows_as_rows

        output = windows_as_rows(prepared)
    elif asked.fit is not None:
        from convcalc.executor.fit import RATE, STEPS, fit as learn, learned_weight
        from convcalc.render.progress import loss_progress

        steps, lr = asked.steps or STEPS, RATE if asked.lr is None else asked.lr
        with loss_progress(steps, quiet=question["quiet"] or question["lines"]) as on_step:
            learned = learn(
                prepared,
                read_array(asked.fit, seed=asked.seed),
                lr=lr,
                steps=steps,
                optimizer=asked.optimizer or "sgd",
                on_step=on_step,
                keep_interrupted=not question["lines"],
                train=asked.train,
                seed=asked.seed,
            )
        name, output = learned_weight(prepared, learned)
        same, losses, interrupted = f"weights.{name}", learned.losses, learned.interrupted
        others = {f"weights.{name}": array for name, array in learned.result.weights.items()}
        done = len(losses) - 1
        if interrupted:
            notes.append(f"interrupted after {done} of {steps} steps; what was learned by then is kept")
        how = ", as at inference" if asked.train else ""
        notes.append(f"the loss is {losses[-1]:.6g} after {done} step{'s' * (done != 1)}{how}")
    elif asked.layer is not None and not asked.indices:
        from convcalc.executor.run import layer_output

        output = layer_output(prepared, asked.layer)
    else:
        layer = asked.layer
        if layer is None:
            _refuse_shape(question, prepared)
        result = compute(prepared, keep=layer is not None, indices=asked.indices)
        output = result.output if layer is None else _named(result.layers, layer)
        others = {f"indices.{name}": array for name, array in result.indices.items()}
        if layer is None and len(result.outputs) > 1:
            others |= {f"outputs.{name}": array for name, array in result.outputs.items()}
            first = next(iter(result.outputs))
            same = f"outputs.{first}"
            path = question["output"] or ""
            if question["format_name"] is None and path.lower().endswith((".npy", ".csv", ".png", ".pgm")):
                notes.append(f"{path} holds {first} alone; an .npz file would hold {', '.join(result.outputs)}")
    said = [Diagnostic("note", note) for note in notes]
    return RunReport(output, others, same, losses, said, interrupted=interrupted)


def _noun(question: Question, words: Sequence[Span], asked: Asked) -> Noun:
    """What the words and options name: the program, its input, and its weights."""
    from convcalc.arrays import is_array, read_array
    from convcalc.expressions import Program
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
    if text is None and program.names_inputs:
        text = _shapes_of_file(cast("OnnxModel", program))
    if text is None:
        raise ExpressionError(
            "there is no input; write an array first, such as '[[1,2],[3,4]]' or x.npy", field="input"
        )
    if program.names_inputs and asked.dtype is not None:
        raise ExpressionError("--dtype has no meaning for a model's file, which says of what type its tensors are")
    program = copy(program)
    program.given = None
    if question["assume_sequential"]:
        program.assume_sequential()
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
                    dtype = dtype or _TYPES[0]
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


def _weights(texts: Sequence[str], seed: int) -> Any:
    """One array, arrays by name, or None."""
    from convcalc.arrays import read_weights

    named, bare = read_weights(texts, seed=seed)
    if len(bare) > 1 or (bare and named):
        raise ExpressionError("several weights are given; name each: -w 0.weight=... -w 2.weight=...", field="weights")
    return bare[0] if bare else named or None


def not_done(prepared: Prepared, algorithm: str | None) -> list[str]:
    """What is to be said where the algorithm that is forced is not what computes."""
    from convcalc.executor.plan import not_by

    if algorithm in (None, "auto", "direct"):
        return []
    said = not_by(algorithm, prepared.resolved, next(iter(prepared.inputs.values())).dtype)
    return [said] if said else []


def _measured(noun: Noun, asked: Asked) -> Report:
    """The answer to --profile; or to --check, an algorithm by its name or the file of a saved output."""
    from convcalc.analysis.report import Diagnostic
    from convcalc.arrays import is_array
    from convcalc.errors import LayerError
    from convcalc.executor.algorithms import forced
    from convcalc.executor.check import check_algorithms, check_saved
    from convcalc.executor.profile import profile
    from convcalc.executor.run import compute, flipped, prepare
    from convcalc.executor.threads import threads as using_threads

    if noun.is_folder:
        raise ExpressionError(f"{asked.given('check', 'profile')[0]} works on one input; {noun.text} is a folder")
    check = asked.check
    saved = None if check is None or not is_array(check) else _saved(check, asked.seed)
    if check is not None and saved is None:
        try:
            with forced(check):
                pass
        except LayerError as error:
            raise ExpressionError(f"--check: {error.message}; or name a saved output, such as y.npy",
                                  value=error.value) from None  # fmt: skip
    x, notes = noun.inputs("random")
    with using_threads(asked.threads), forced(asked.algorithm):
        prepared = prepare(noun.program, x, noun.weights, bias=noun.bias, seed=asked.seed)
        prepared = flipped(prepared) if asked.flip else prepared
        notes += not_done(prepared, asked.algorithm)
        if check is not None and saved is None:
            with forced(check):
                notes += not_done(prepared, check)
        if check is None:
            found = profile(prepared)
        elif saved is not None:
            found = check_saved(prepared, compute(prepared).outputs, saved, check)
        else:
            found = check_algorithms(prepared, asked.algorithm, check)
    said = tuple(Diagnostic("note", note) for note in (*notes, *prepared.notes))
    return replace(found, diagnostics=(*said, *found.diagnostics))


def _saved(path: str, seed: int) -> Array | dict[str, Array]:
    """An output that was saved; of an .npz file with several arrays all by their names."""
    from convcalc.arrays import read_array, read_arrays

    arrays = read_arrays(path) if path.lower().endswith(".npz") else {}
    return arrays if len(arrays) > 1 else read_array(path, seed=seed)


def _named(layers: Mapping[str, Array], name: str) -> Array:
    if name not in layers:
        from convcalc.network import no_such_layer

        raise no_such_layer("--layer", name, list(layers))
    return layers[name]


def _answer_lines(question: Question, report_of: Any) -> None:
    from convcalc.nouns import line_spans
    from convcalc.render.arrays import run_document
    from convcalc.render.document import value_document

    path = _path(question)

    def content_of(line: bytes, number: int) -> dict[str, Any]:
        content = run_document(report_of(line_spans(line, number)))
        return content if path is None else value_document(look_up(content, path))

    answer_lines(content_of)


def _path(question: Question) -> str | None:
    """Where in the document the one value stands that is asked for."""
    return "output" if question["quiet"] else value_path(question)


def _write(question: Question, report: RunReport, name: str | None, how: str | None) -> None:
    from convcalc.render.arrays import print_arrays

    path = question["output"]
    if path is not None and path != "-":
        from convcalc.arrays import WRITTEN_SUFFIXES
        from convcalc.files import write_whole

        if question["format_name"] is None and path.lower().endswith(WRITTEN_SUFFIXES):
            _write_array(path, report)
            return
        write_whole(path, "".join(f"{line}\n" for line in _lines(question, report, name or "tsv")).encode())
        return
    name = name or ("table" if how or sys.stdout.isatty() else "tsv")
    if name == "table" and _path(question) is None:
        from convcalc.render.terminal import Console

        print_arrays(report, Console(highlight=False), how)
        return
    for line in _lines(question, report, name):
        print(line)  # noqa: T201  the answer


def _refuse_shape(question: Question, prepared: Prepared) -> None:
    """Raise `ShapeError` for an output that its file cannot hold: before the work, where its shape is known."""
    path, name = question["output"], prepared.network.outputs[0]
    if path is None or question["format_name"] is not None:
        return
    from convcalc.arrays import refuse_shape

    for item in prepared.resolved:
        if name in item.node.outputs and not item.unknown:
            refuse_shape(path, prepared.shown_shape(item.outputs[item.node.outputs.index(name)], name))


def _write_array(path: str, report: RunReport) -> None:
    """Write the output and what goes with it; learned weights and a model's outputs under their own names."""
    from convcalc.arrays import write_array, write_arrays

    if report.same and path.lower().endswith(".npz"):
        group = report.same.partition(".")[0]
        write_arrays(path, {name.removeprefix(f"{group}."): array for name, array in report.others.items()})
    else:
        write_array(path, report.output, others=report.others)


_TEXT_BYTES = 80
"""What a number takes on its way to text: an object, its place in a list, and its digits."""


def _lines(question: Question, report: RunReport, name: str) -> Iterable[str]:
    """The answer line by line in every format but the terminal's."""
    from convcalc.render import arrays

    path = _path(question)
    if path is None and name not in ("json", "jsonl"):
        return arrays.WRITERS[name](report)
    from convcalc.limits import need_bytes

    part = None if path is None else path.partition(".")[0]
    many = report.output.size * (part in (None, "output")) + sum(
        array.size for key, array in report.others.items() if part in (None, key.partition(".")[0])
    )
    need_bytes(many * _TEXT_BYTES, f"{many:,} numbers as text", "; -o FILE.npy holds them as they are")
    if question["quiet"] and name not in ("json", "jsonl"):
        return [arrays.nested_text(report.output)]
    from convcalc.render.document import value_document
    from convcalc.render.units import plain_text

    content = arrays.run_document(report, part)
    if path is not None:
        value = look_up(content, path)
        if name not in ("json", "jsonl"):
            return [arrays.compact_json(value) if isinstance(value, list) else plain_text(value)]
        content = value_document(value)
    return [arrays.compact_json(content) if name == "jsonl" else arrays.document_text(content)]
