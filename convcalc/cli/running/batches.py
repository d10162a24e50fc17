"""`convcalc run` on many samples: a folder or a large file in batches, into a file that grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convcalc.cli.answer import print_diagnostics
from convcalc.cli.options import Question
from convcalc.cli.running.answers import first_alone, not_done
from convcalc.cli.running.asked import ANSWERS, Asked
from convcalc.cli.running.given import Noun
from convcalc.errors import ConvcalcError, ExpressionError

if TYPE_CHECKING:
    from convcalc.executor.batches import Batches
    from convcalc.executor.kernels import Array
    from convcalc.executor.report import RunReport

_HOW = ("batch", "output", "format_name", "quiet", "get", "lines")
"""Options that say how an answer is worked out or shown, and not what it is."""


def run_batched(question: Question, noun: Noun, asked: Asked) -> RunReport:
    """Run all samples of the input: into an .npy file as they come, or else into one array."""
    import numpy as np

    from convcalc.analysis.report import Diagnostic
    from convcalc.executor.batches import Batches
    from convcalc.executor.report import RunReport
    from convcalc.growing import GrowingArray
    from convcalc.render.progress import batch_progress, say

    refused = [*asked.given(*ANSWERS, "indices"), *(["--lines"] if question["lines"] else [])]
    if refused:
        raise ExpressionError(f"{refused[0]} works on one input; it has no meaning for batches")
    path = question["output"]
    grows = path is not None and path.lower().endswith(".npy") and question["format_name"] is None
    if asked.resume and not grows:
        raise ExpressionError("--resume goes on with a file that was interrupted; name it with -o FILE.npy")
    batch = asked.batch or 1
    samples, notes = noun.samples(batch)
    batches = Batches(
        noun.program, samples, batch, noun.weights,
        bias=noun.bias, seed=asked.seed, flip=asked.flip, dtype=noun.dtype,
    )  # fmt: skip
    notes += [*batches.notes, *not_done(batches.prepared, asked.algorithm)]
    quiet = question["quiet"]
    if not grows:
        said = [Diagnostic("note", note) for note in notes]
        # Before the work: who hears that weights are random may want to stop.
        print_diagnostics(said, quiet=quiet)
        with batch_progress(batches.count, 0, quiet=quiet) as on_samples:
            found = _together(batches, on_samples)
        first, *more = found
        others = {f"outputs.{name}": array for name, array in found.items()} if more else {}
        return RunReport(found[first], others, f"outputs.{first}" if more else "", diagnostics=said, said=True)
    outputs = batches.prepared.network.outputs
    if len(outputs) > 1:
        notes.append(first_alone(path, outputs))
    target = GrowingArray(
        path, batches.count, _decisive(question, noun, asked),
        resume=asked.resume, step=batches.batch, sources=batches.sources,
    )  # fmt: skip
    if target.replaces:
        notes.append(f"{target.part} of an interrupted run is begun anew; --resume would go on with it")
    if target.done:
        notes.append(f"{target.done:,} of {batches.count:,} samples were there already")
    print_diagnostics([Diagnostic("note", note) for note in notes], quiet=quiet)
    try:
        with batch_progress(batches.count, target.done, quiet=quiet) as on_samples:
            for part in batches.outputs(target.done):
                target.append(part)
                on_samples(len(part))
    except (KeyboardInterrupt, ConvcalcError, MemoryError):  # a full disk, an image that is damaged, little memory
        target.close()
        if target.done:
            say(f"stopped after {target.done:,} of {batches.count:,} samples; the same command with --resume goes on")
        raise
    target.finish()
    shown = np.load(path, mmap_mode="r")
    return RunReport(shown, said=True, written=True)


def _together(batches: Batches, on_samples: Callable[[int], None]) -> dict[str, Array]:
    """The outputs of all samples by name. Raises `ResourceError` where memory does not hold them."""
    import numpy as np

    from convcalc.growing import other_rows
    from convcalc.limits import need_bytes

    whole: dict[str, Array] = {}
    done = 0
    for parts in batches.results():
        if not whole:
            need_bytes(
                sum(part[0].nbytes for part in parts.values()) * batches.count,
                f"the output of all {batches.count:,} samples",
                "; -o FILE.npy writes it batch by batch",
            )
            whole = {name: np.empty((batches.count, *part.shape[1:]), part.dtype) for name, part in parts.items()}
        more = 0
        for name, part in parts.items():
            shape, dtype = whole[name].shape[1:], whole[name].dtype
            if (part.shape[1:], part.dtype) != (shape, dtype):
                raise other_rows(part, shape, dtype)
            more = len(part)
            whole[name][done : done + more] = part
        done += more
        on_samples(more)
    return whole


def _decisive(question: Question, noun: Noun, asked: Asked) -> Mapping[str, Any]:
    """What decides the output: the words, the options, and the state of every file that they name.

    A folder's images are the sources of the rows, which the file that grows compares itself.
    """
    from convcalc.arrays import is_folder

    inputs = noun.named.values()
    texts = [text for text in (*inputs, *question.words, *noun.texts) if text and not is_folder(text)]
    return {
        "words": list(question.words),
        "weights": list(noun.texts),
        "options": {name: value for name, value in question.options.items() if name not in _HOW},
        "how": {"seed": asked.seed, "flip": asked.flip, "algorithm": asked.algorithm, "dtype": asked.dtype},
        "preparation": dict(noun.preparation),
        "files": {text: _state(text.rpartition("=")[2]) for text in texts},
    }


def _state(text: str) -> str:
    """The size and time of a file; nothing for what is none."""
    path = Path(text)
    try:
        if not path.is_file():
            return ""
        stat = path.stat()
    except OSError:  # too long for a name, or not to be looked at
        return ""
    return f"{stat.st_size} {stat.st_mtime_ns}"
