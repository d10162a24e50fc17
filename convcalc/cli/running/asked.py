"""The options of `convcalc run`, their values, and which of them contradict each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from convcalc.cli.options import LAYER_OPTIONS, NETWORK_OPTIONS, OUTPUT_OPTIONS, Option, Question, under
from convcalc.errors import ExpressionError, refuse_other
from convcalc.records import dataclass

SHARED = tuple(
    option
    for option in (*LAYER_OPTIONS, *NETWORK_OPTIONS, *OUTPUT_OPTIONS)
    if option.name not in ("batch", "budget", "strict")
)
"""Options of other verbs that `run` has too."""

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
OPTIONS = (*_ARRAYS, *_SHOWN, *_LEARNING, *_COMPUTING, *_IMAGES)
"""Options that `run` alone has."""

ANSWERS = ("layer", "as_matrix", "im2col", "fit", "check", "profile")
"""The options that ask for something else than the output; one of them at most."""
_FOR = {
    "lr": ("fit",),
    "steps": ("fit",),
    "optimizer": ("fit",),
    "train": ("fit",),
    "budget": ("check", "profile"),
}
"""What has a meaning with one of these only."""
TYPES = ("float32", "float64")
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
    def measures(self) -> bool:
        """Whether the answer is a report on each layer, and no array."""
        return self.check is not None or self.profile

    @property
    def preparation(self) -> Mapping[str, str | None]:
        """What is done to images."""
        return {"resize": self.resize, "crop": self.crop, "normalize": self.normalize}


def refuse_together(question: Question, asked: Asked) -> None:
    """Raise `ExpressionError` for options that would be passed over."""
    answers = asked.given(*ANSWERS)
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
        refuse_other("--dtype", asked.dtype, TYPES)


def named_files(question: Question, asked: Asked) -> list[str]:
    """Every text of the options that may name a file to be read: the whole of it, or what follows a name in it."""
    texts = [question["input_shape"], *asked.weights, asked.bias_values, asked.check, asked.fit]
    parts = [part for text in (*question.words, *texts) if text for part in (text, *text.split(","))]
    return [
        name
        for part in parts
        for value in (part, part.rpartition("=")[2])
        for name in (value, value.rpartition(":")[0])
    ]
