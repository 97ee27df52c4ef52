"""The command line. Thin: it reads arguments, calls one operation, and writes what came out."""

from __future__ import annotations

import gc
import os
import signal
import sys

from registree import __version__

_UNSAID = 5
"""The exit code when the answer could not be written: that of a store's error, which a full disk is."""


def main() -> None:
    """Run `reg` with the arguments of the process, and exit with its code."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # whoever started it has closed it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- it is the process's to the end
    if sys.argv[1:] in (["--version"], ["-V"]):
        _end(0, f"reg {__version__}\n")
    gc.set_threshold(1_000_000, 20, 100)  # the usual 700 takes a tenth of a large command, and finds next to nothing
    sys.setswitchinterval(0.0005)  # seconds until who feeds another process gets the interpreter, not 0.005
    sys.setrecursionlimit(10_000)  # folders may lie in each other deeper than the usual 1,000
    from registree.cli.app import interrupted, run  # noqa: PLC0415 -- the version is answered without importing the rest

    signal.signal(signal.SIGINT, interrupted)
    _end(run(sys.argv[1:]))


def _end(code: int, text: str = "") -> None:
    """End the process at once, when what it says is said.

    To free all memory first takes a tenth of a large command, and a thread may still wait for a disk or a network.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # whoever listened has heard enough
        pass
    except OSError as error:
        if not code:
            code = _UNSAID
            os.write(2, f"reg: {error.strerror}\n".encode())
    finally:
        os._exit(code)
