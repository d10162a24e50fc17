"""What `convcalc run` works out on one input: the output, a layer's, a matrix, or weights that are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from convcalc.cli.options import Question
from convcalc.cli.running.asked import Asked
from convcalc.cli.running.given import Noun

if TYPE_CHECKING:
    from convcalc.executor.kernels import Array
    from convcalc.executor.report import RunReport
    from convcalc.executor.run import Prepared


def answer_one(question: Question, noun: Noun, asked: Asked) -> RunReport:
    """The answer to what is asked for. Raises `ConvcalcError`s of reading, shapes and computing."""
    from convcalc.executor.run import flipped, prepare

    x, notes = noun.inputs("ones" if asked.as_matrix else "arange" if asked.im2col else "random")
    prepared = prepare(noun.program, x, noun.weights, bias=noun.bias, seed=asked.seed)
    # The windows have nothing of the weights.
    notes += [] if asked.im2col else [*prepared.notes, *not_done(prepared, asked.algorithm)]
    prepared = flipped(prepared) if asked.flip else prepared
    if asked.as_matrix:
        from convcalc.executor.matrix import as_matrix

        return _report(as_matrix(prepared), notes)
    if asked.im2col:
        from convcalc.executor.matrix import windows_as_rows

        return _report(windows_as_rows(prepared), notes)
    if asked.fit is not None:
        return _learned(question, prepared, asked, asked.fit, notes)
    if asked.layer is not None and not asked.indices:
        from convcalc.executor.run import layer_output

        return _report(layer_output(prepared, asked.layer), notes)
    return _computed(question, prepared, asked, notes)


def _report(
    output: Array,
    notes: Sequence[str],
    others: Mapping[str, Array] | None = None,
    same: str = "",
    losses: Sequence[float] = (),
    *,
    interrupted: bool = False,
) -> RunReport:
    from convcalc.analysis.report import Diagnostic
    from convcalc.executor.report import RunReport

    said = [Diagnostic("note", note) for note in notes]
    return RunReport(output, others or {}, same, losses, said, interrupted=interrupted)


def _computed(question: Question, prepared: Prepared, asked: Asked, notes: list[str]) -> RunReport:
    """The output, or a layer's, with what max pooling chose; of a model with several outputs all."""
    from convcalc.executor.run import compute

    layer = asked.layer
    if layer is None:
        _refuse_shape(question, prepared)
    result = compute(prepared, keep=layer is not None, indices=asked.indices)
    others = {f"indices.{name}": array for name, array in result.indices.items()}
    if layer is not None:
        return _report(_named(result.layers, layer), notes, others)
    if len(result.outputs) == 1:
        return _report(result.output, notes, others)
    others |= {f"outputs.{name}": array for name, array in result.outputs.items()}
    path = question["output"] or ""
    if question["format_name"] is None and path.lower().endswith((".npy", ".csv", ".png", ".pgm")):
        notes = [*notes, first_alone(path, [*result.outputs])]
    return _report(result.output, notes, others, f"outputs.{next(iter(result.outputs))}")


def _learned(question: Question, prepared: Prepared, asked: Asked, target: str, notes: list[str]) -> RunReport:
    """The weights that give the target, with the loss of each step."""
    from convcalc.arrays import read_array
    from convcalc.executor.fit import RATE, STEPS, fit, learned_weight
    from convcalc.render.progress import loss_progress

    steps, lr = asked.steps or STEPS, RATE if asked.lr is None else asked.lr
    with loss_progress(steps, quiet=question["quiet"] or question["lines"]) as on_step:
        learned = fit(
            prepared,
            read_array(target, seed=asked.seed),
            lr=lr,
            steps=steps,
            optimizer=asked.optimizer or "sgd",
            on_step=on_step,
            keep_interrupted=not question["lines"],
            train=asked.train,
            seed=asked.seed,
        )
    name, output = learned_weight(prepared, learned)
    losses = learned.losses
    done = len(losses) - 1
    if learned.interrupted:
        notes = [*notes, f"interrupted after {done} of {steps} steps; what was learned by then is kept"]
    how = ", as at inference" if asked.train else ""
    notes = [*notes, f"the loss is {losses[-1]:.6g} after {done} step{'s' * (done != 1)}{how}"]
    weights = {f"weights.{name}": array for name, array in learned.result.weights.items()}
    return _report(output, notes, weights, f"weights.{name}", losses, interrupted=learned.interrupted)


def _named(layers: Mapping[str, Array], name: str) -> Array:
    if name not in layers:
        from convcalc.network import no_such_layer

        raise no_such_layer("--layer", name, list(layers))
    return layers[name]


def _refuse_shape(question: Question, prepared: Prepared) -> None:
    """Raise `ShapeError` for an output that its file cannot hold: before the work, where its shape is known."""
    path, outputs = question["output"], prepared.network.outputs
    if path is None or question["format_name"] is not None or not outputs:
        return
    from convcalc.arrays.writing import refuse_shape

    name = outputs[0]
    for item in prepared.resolved:
        if name in item.node.outputs and not item.unknown:
            refuse_shape(path, prepared.shown_shape(item.outputs[item.node.outputs.index(name)], name))


# --- what is said about an answer -----------------------------------------------------------------------------------


def not_done(prepared: Prepared, algorithm: str | None) -> list[str]:
    """What is to be said where the algorithm that is forced is not what computes."""
    from convcalc.executor.plan import not_by

    if algorithm in (None, "auto", "direct"):
        return []
    said = not_by(algorithm, prepared.resolved, next(iter(prepared.inputs.values())).dtype)
    return [said] if said else []


def first_alone(path: str, outputs: Sequence[str]) -> str:
    """What is to be said of a file that holds the first of several outputs."""
    return f"{path} holds {outputs[0]} alone; an .npz file would hold {', '.join(outputs)}"
