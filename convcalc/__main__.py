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
    from convcalc.cli import run_command_line

    status = run_command_line(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()
    # All is written. Taking down every module one by one, as sys.exit() does, is a sixth of the time of an answer.
    os._exit(status)


if __name__ == "__main__":
    main()
