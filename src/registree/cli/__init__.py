"""The command line. Thin: it reads arguments, calls one operation, and writes what came out."""

from __future__ import annotations

import gc
import os
import signal
import sys

from registree import __version__


def main() -> None:
    """Run `reg` with the arguments of the process, and exit with its code."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        print(f"reg {__version__}")
        return
    gc.set_threshold(100_000, 20, 100)  # the usual 700 takes a tenth of a large command, and finds next to nothing
    from registree.cli.app import interrupted, run  # noqa: PLC0415 -- the version is answered without importing the rest

    signal.signal(signal.SIGINT, interrupted)
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # to free all memory takes a tenth of a large command, and a thread may still wait for a network
        os._exit(code)
