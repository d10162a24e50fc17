"""Writing files: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from convcalc.errors import ModelFileError


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it; a link is followed.

    Raises `ModelFileError` when it cannot be written.
    """
    target = Path(path)
    temporary = ""
    try:
        if target.exists() and not target.is_file():
            # A device or a pipe is written to; a file in its place is not what anybody means.
            target.write_bytes(content)
            return
        target = target.resolve()
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes files for the owner alone; a result is an ordinary file.
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(target)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True) if temporary else None
        raise ModelFileError(f"{path} cannot be written: {(error.strerror or 'error').lower()}") from None


def refuse_inputs(target: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise `ModelFileError` when the target is one of the inputs, which need not be files."""
    for given in inputs:
        with suppress(OSError, ValueError):  # ValueError: no file can have such a name
            if os.path.samefile(target, given):  # noqa: PTH121  a Path of every word takes longer
                raise ModelFileError(f"{target} is the input; the result would overwrite it")
