"""An .npy file that grows while samples are computed, and that a later run can go on with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from convcalc.errors import ModelFileError, ShapeError
from convcalc.layers.base import shape_text

Array = npt.NDArray[Any]


def other_rows(rows: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> ShapeError:
    """The error for rows of another shape or type than those before."""
    return ShapeError(
        f"the output is {shape_text(rows.shape[1:])} ({rows.dtype}), but that of the samples before is"
        f" {shape_text(shape)} ({np.dtype(dtype)})"
    )


class GrowingArray:
    """Rows of an array of `count` rows, appended to `path`.part; the file gets its name when all are there.

    `path`.part.json says what the rows are the answer to: with `resume` the rows that are there already are kept if it
    was the same `question` (plain values that JSON can hold), and `done` is how many they are, a multiple of `step`.
    `sources` say of what each row is made: those of the rows that are there must be the same, others may have changed.
    Without it they are begun anew. Raises `ModelFileError` for a file that cannot be written, or that belongs to
    another question.
    """

    def __init__(
        self,
        path: str | Path,
        count: int,
        question: Mapping[str, Any],
        *,
        resume: bool = False,
        step: int = 1,
        sources: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.part = self.path.with_name(self.path.name + ".part")
        self.about = self.path.with_name(self.path.name + ".part.json")
        self.count = count
        self.step = step
        self.question = json.loads(json.dumps(question))
        self.sources = list(sources)
        self.done = 0
        self.row: tuple[tuple[int, ...], str] | None = None
        self.replaces = self.part.exists() and not resume
        self._file: BinaryIO | None = None
        if resume and self.part.exists():
            self._go_on()

    def _go_on(self) -> None:
        try:
            kept = json.loads(self.about.read_text(encoding="utf-8"))
            if kept["question"] != self.question or kept["count"] != self.count:
                raise self._of_another()
            self.row = tuple(kept["shape"]), kept["dtype"]
            # What was written of a row or a header when the run was ended is written again.
            self.done = max(self.part.stat().st_size - len(self._header()), 0) // self._row_bytes()
            # Batches begin where they would have begun: another size of them may round otherwise.
            self.done -= self.done % self.step
            if kept["sources"][: self.done] != self.sources[: self.done]:
                raise self._of_another()
            self._file = self.part.open("r+b")
            self._file.truncate(len(self._header()) + self.done * self._row_bytes())
            self._file.seek(0, os.SEEK_END)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = (getattr(error, "strerror", None) or "what it is of is not known").lower()
            if not self.about.exists():
                reason = f"{self.about.name}, which says what it is of, is not there"
            raise ModelFileError(
                f"cannot go on with {self.part}: {reason}; without --resume it is begun anew"
            ) from None

    def _of_another(self) -> ModelFileError:
        return ModelFileError(f"{self.part} is of another question or other files; without --resume it is begun anew")

    def append(self, rows: Array) -> None:
        """Write further rows. Raises `ShapeError` for rows of another shape than those before."""
        row = rows.shape[1:], rows.dtype.str
        try:
            if self._file is None:
                self.row = row
                about = {"question": self.question, "count": self.count, "shape": row[0], "dtype": row[1],
                         "sources": self.sources}  # fmt: skip
                self.part.unlink(missing_ok=True)
                self.about.write_text(json.dumps(about), encoding="utf-8")
                self._file = self.part.open("wb")
                self._file.write(self._header())
            if self.row is not None and row != self.row:
                raise other_rows(rows, *self.row)
            self._file.write(np.ascontiguousarray(rows).data)
            self._file.flush()
        except OSError as error:
            raise ModelFileError(f"{self.part} cannot be written: {(error.strerror or 'error').lower()}") from None
        self.done += len(rows)

    def finish(self) -> None:
        """Give the file its name. All rows must have been appended."""
        try:
            if self._file is not None:
                self._file.flush()
            self.close()
            self.part.replace(self.path.resolve())
            self.about.unlink(missing_ok=True)
        except OSError as error:
            raise ModelFileError(f"{self.path} cannot be written: {(error.strerror or 'error').lower()}") from None

    def close(self) -> None:
        """Leave the rows that are there for a later run, and nothing where there are none."""
        if self._file is not None:
            with suppress(OSError):
                os.fsync(self._file.fileno())
            with suppress(OSError):  # what a full disk did not take is written again on closing
                self._file.close()
            self._file = None
            if not self.done:
                self.part.unlink(missing_ok=True)
                self.about.unlink(missing_ok=True)

    def _header(self) -> bytes:
        from io import BytesIO

        shape, dtype = self.row or ((), "<f4")
        buffer = BytesIO()
        header = {"descr": dtype, "fortran_order": False, "shape": (self.count, *shape)}
        np.lib.format.write_array_header_1_0(buffer, header)
        return buffer.getvalue()

    def _row_bytes(self) -> int:
        shape, dtype = self.row or ((), "<f4")
        return max(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize, 1)
