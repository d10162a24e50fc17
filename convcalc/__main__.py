"""`convcalc` and `python -m convcalc`."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress


def main() -> None:
    """Run the command line and end the process with its status."""
    # A question is answered before a collection would pay; what works for long turns it on again.
    gc.disable()
    try:
        _open_streams()
        from convcalc.cli import run_command_line

        status = run_command_line(sys.argv[1:])
    except KeyboardInterrupt:  # while starting
        status = 130
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    # All is written. Taking down every module one by one, as sys.exit() does, is a sixth of the time of an answer.
    os._exit(status)


def _open_streams() -> None:
    """Make standard output and error streams where they are closed, and let them escape what they cannot show.

    Messages go nowhere where standard error is closed; an answer that cannot be written is an error.
    """
    for name, flag in (("stdout", os.O_RDONLY), ("stderr", os.O_WRONLY)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.open(os.devnull, flag), "w"))  # noqa: SIM115, PTH123  open until the process ends
        elif stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")
        else:
            from convcalc.render.characters import NAME

            stream.reconfigure(errors=NAME)


if __name__ == "__main__":
    main()
