"""Programs that tests run beside themselves: found or named with their Debian package, and always ended by their pid.

Each server runs in a process group of its own, so that what it started ends with it; what it says goes to a log file.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

SYSTEM_FOLDERS = "/usr/local/sbin:/usr/sbin:/sbin"


def program(name: str, package: str) -> str:
    """Return the path of a program; without it the test fails and names the Debian package that has it."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_FOLDERS}")
    if found is None:
        raise AssertionError(f"{name} is not installed: apt-get install {package}")
    return found


def output_of(command: Sequence[object]) -> str:
    """Run a program to its end and return what it said; a failure fails the test with its words."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise AssertionError(f"{' '.join(words)} -> {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


@contextmanager
def running(command: Sequence[object], log: Path, *, patience: float = 5) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server that stays in the foreground; end it, with all that it started, and kill it after some seconds."""
    with log.open("ab") as said:
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process, patience)


def end(process: subprocess.Popen[bytes], patience: float = 5) -> None:
    """End a process group: asked first, and killed after some seconds."""
    if patience:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
    with suppress(ProcessLookupError):  # what it started and left behind
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)
