"""Writing files: whole, or not at all."""

from __future__ import annotations

import errno
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


def refuse_target(path: str, inputs: Iterable[str | Path]) -> None:
    """Raise `ModelFileError` before the work where the answer cannot be written to this path ("-" is no file).

    It is one of the inputs, or a folder, or its folder is not there or lets nobody write.
    """
    refuse_inputs(path, inputs)
    if path == "-":
        return
    folder = os.path.dirname(os.path.realpath(path))  # noqa: PTH120  pathlib takes long to load
    reason = 0
    if os.path.isdir(path):  # noqa: PTH112
        reason = errno.EISDIR
    elif not os.path.exists(path) or os.path.isfile(path):  # noqa: PTH110, PTH113
        if not os.path.isdir(folder):  # noqa: PTH112
            reason = errno.ENOTDIR if os.path.exists(folder) else errno.ENOENT  # noqa: PTH110
        elif not os.access(folder, os.W_OK):
            reason = errno.EACCES
    if reason:
        raise ModelFileError(f"{path} cannot be written: {os.strerror(reason).lower()}")


def refuse_inputs(target: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raise `ModelFileError` when the target is one of the inputs, which need not be files."""
    for given in inputs:
        with suppress(OSError, ValueError):  # ValueError: no file can have such a name
            if os.path.samefile(target, given):  # noqa: PTH121  a Path of every word takes longer
                raise ModelFileError(f"{target} is the input; the result would overwrite it")
