"""`convcalc` and `python -m convcalc`."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    # A question is answered before a collection would pay; what works for long turns it on again.
    gc.disable()
    from convcalc.cli import run_command_line

    sys.exit(run_command_line(sys.argv[1:]))


if __name__ == "__main__":
    main()
