"""Run commands as whole processes and say what they cost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = """
import os, sys, time
started = time.perf_counter()
child = os.posix_spawn("/bin/sh", ["/bin/sh", "-ec", sys.argv[1]], os.environ)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - started
print(os.waitstatus_to_exitcode(status), seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)
"""
"""Runs one command. A process counts the memory of the one that started it as its own, so that one has to be small."""


@dataclass(frozen=True)
class Cost:
    """What a command took.

    `seconds` on the clock, `cpu` seconds of processors, `memory` bytes of its largest process at the most; `touched`
    are the files it made or changed, `stored` the bytes that lie in its remote afterwards, `requests` what it asked of
    a server, `sent` and `received` the bytes that went there and back.
    """

    seconds: float
    cpu: float
    memory: int
    touched: int = 0
    stored: int = 0
    requests: int = 0
    sent: int = 0
    received: int = 0


class Failed(Exception):
    """A command failed, or took too long."""


def run(command: str, folder: Path, environment: Mapping[str, str], patience: float = 3600) -> Cost:
    """Run a shell command to its end.

    Parameters
    ----------
    patience
        Seconds after which it is ended.

    Raises
    ------
    Failed
        When it fails or is ended.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _LAUNCHER, f"{{ {command}\n}} >/dev/null"],
            cwd=folder, env=dict(environment), stdout=subprocess.PIPE, stderr=said, start_new_session=True, text=True,
        )  # fmt: skip
        late = threading.Timer(patience, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        answer, _ = process.communicate()
        late.cancel()
        if process.returncode == -signal.SIGKILL:
            raise Failed(f"not over after {patience:.0f} s")
        code, seconds, processors, memory = answer.split()
        if int(code):
            said.seek(0)
            raise Failed(f"{command}: {said.read().decode(errors='replace')[-2000:]}")
    return Cost(float(seconds), float(processors), int(memory))


def touched_since(folder: Path, moment: int) -> int:
    """Count the files below a folder that were made or changed since a moment (nanoseconds since the epoch)."""
    count = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                count += os.lstat(os.path.join(place, name)).st_ctime_ns >= moment
            except FileNotFoundError:
                continue
    return count


def bytes_in(folder: Path) -> int:
    """Count the bytes of the files below a folder, each file once."""
    seen: dict[tuple[int, int], int] = {}
    for place, _, names in os.walk(folder):
        for name in names:
            found = os.lstat(os.path.join(place, name))
            seen[found.st_dev, found.st_ino] = found.st_size
    return sum(seen.values())
