"""Many samples through one network, a batch at a time, so that they are never all in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy.typing as npt

from convcalc.analysis.shapes import resolve
from convcalc.errors import ShapeError
from convcalc.executor.inputs import as_array
from convcalc.executor.kernels import Array
from convcalc.executor.plan import need, plan
from convcalc.executor.run import Prepared, compute, flipped, prepare, refuse_decided
from convcalc.executor.weights import GivenWeights
from convcalc.expressions.program import Program
from convcalc.images import Folder
from convcalc.layers.base import shape_text
from convcalc.records import replace


class Samples(Protocol):
    """Samples along the first axis, read when they are asked for: a mapped array, or a folder of images."""

    @property
    def shape(self) -> tuple[int, ...]:
        """How many there are, and the shape of each."""

    def __getitem__(self, part: slice, /) -> Array:
        """Some of them."""


class Batches:
    """A network on samples, `batch` of them at a time. Weights are as for `run`; `notes` say how all was read.

    A model with several inputs takes samples by name, as many of each. `prepared` is the network for a whole batch.
    Numbers are computed in `dtype`, or in the samples' own type.

    Raises `ShapeError` where a sample does not fit the network, `ResourceError` for a batch that memory cannot hold.
    """

    def __init__(
        self,
        program: Program,
        samples: Samples | Mapping[str, Samples],
        batch: int,
        weights: GivenWeights | None = None,
        *,
        bias: npt.ArrayLike | None = None,
        seed: int = 0,
        flip: bool = False,
        dtype: str | None = None,
    ) -> None:
        self.program = program
        self.several = isinstance(samples, Mapping)
        self.samples: Mapping[str, Samples] = samples if isinstance(samples, Mapping) else {"": samples}
        self.count = self._counted()
        self.batch = min(batch, self.count)
        # Of inputs with names shapes are with the batch, or may be.
        firsts = {name: given[0:1] if name else given[0:1][0] for name, given in self.samples.items()}
        if dtype is not None:
            firsts = {name: first.astype(dtype) for name, first in firsts.items()}
        one = prepare(program, firsts if self.several else firsts[""], weights, bias=bias, seed=seed)
        refuse_decided(one.network, "run the samples one by one, without --batch")
        self.notes = one.notes
        self._one = flipped(one) if flip else one
        self._ready: dict[int, Prepared] = {}
        self.prepared = self._of(self.batch)
        if self.count % self.batch:  # what the last samples, which are fewer, are refused for is said before the work
            self._of(self.count % self.batch)

    @property
    def sources(self) -> Sequence[str]:
        """What tells the files of each sample from others, where samples are files; see `Folder`."""
        found = [samples.sources for samples in self.samples.values() if isinstance(samples, Folder)]
        return list(map(" ".join, zip(*found, strict=True))) if found else []

    def _counted(self) -> int:
        """How many samples there are. Raises `ShapeError` where there are not as many of every input."""
        counts: dict[str, int] = {}
        for name, samples in self.samples.items():
            # One number is no sample of the only input, but of one of several, such as a step in time, it may be.
            if len(samples.shape) < (1 if self.several else 2):
                found = shape_text(samples.shape) or "one number"
                what = f"the input {name}".rstrip()
                raise ShapeError(f"samples stand along the first axis, each an array; but {what} is {found}")
            counts[name] = samples.shape[0]
        if self.several:
            from convcalc.onnx.file import OnnxModel

            if isinstance(self.program, OnnxModel):
                self.program.refuse_unbatched(counts)
        (first, count), *others = counts.items()
        for name, other in others:
            if other != count:
                raise ShapeError(
                    f"batches take as many samples of every input, but there are {count:,} of {first} and {other:,} of"
                    f" {name}",
                    field="input",
                    value=other,
                )
        return count

    def __iter__(self) -> Iterator[Array]:
        return self.outputs()

    def outputs(self, start: int = 0) -> Iterator[Array]:
        """The outputs of the samples from `start` on, batch by batch, each with its samples along the first axis.

        Of a model with several outputs it is the first.
        """
        return (next(iter(results.values())) for results in self.results(start))

    def results(self, start: int = 0) -> Iterator[Mapping[str, Array]]:
        """All outputs by name, batch by batch as `outputs` has the first."""
        for first in range(start, self.count, self.batch):
            last = min(first + self.batch, self.count)
            prepared = self._of(last - first)
            given = prepared.network.inputs
            inputs = {name: x.reshape(given[name].shape) for name, x in self._read(first, last).items()}
            results = compute(prepared, inputs=inputs).outputs
            for output in results.values():
                if output.ndim == 0 or len(output) != last - first:
                    raise ShapeError(
                        f"the output {shape_text(output.shape)} of {last - first} samples has no axis of samples;"
                        " batches need one"
                    )
            yield results

    def _read(self, first: int, last: int) -> dict[str, Array]:
        """Some samples of every input, in the types that are computed in."""
        read = {}
        for name, of_one in self._one.inputs.items():
            samples = self.samples[name if self.several else ""]
            read[name] = as_array(samples[first:last], "the input").astype(of_one.dtype, copy=False)
        return read

    def _of(self, count: int) -> Prepared:
        """The network for so many samples at once."""
        if count not in self._ready:
            self._ready[count] = self._prepared(count)
        return self._ready[count]

    def _prepared(self, count: int) -> Prepared:
        network = self._one.network
        # Sequences, of which PyTorch's modules take the steps first, stay one by one as they were read.
        if type(self.program) is not Program and self.program.sample_axes() is None:
            # What a model works out of its shapes, such as x.view(len(x), -1), is another for every batch.
            inputs = self._read(0, count)
            for name, given in network.inputs.items():
                # Axes that samples leave out, such as that of one channel, are those of the first.
                inputs[name] = inputs[name] if given.batch_given else inputs[name].reshape(count, *given.shape[1:])
            found = prepare(self.program, inputs if self.several else next(iter(inputs.values())), self._one.weights)
            return replace(found, inputs={key: array[:0].copy() for key, array in found.inputs.items()})
        ((name, given),) = network.inputs.items()
        if given.batch_given and count != given.shape[0]:
            raise ShapeError(f"the network takes {given.shape[0]} at a time, not {count}", field="batch", value=count)
        wanted = replace(given, shape=(count, *given.shape[1:]), batch_given=True)
        network = replace(network, inputs={name: wanted})
        resolved = resolve(network)
        dtype = str(self._one.inputs[name].dtype)
        need(plan(network, resolved, dtype), sum(array.nbytes for array in self._one.weights.values()))
        return replace(self._one, network=network, resolved=resolved)
