"""One writer at a time in a repository. The lock is the kernel's: it goes with the process that held it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from registree.errors import Conflict, translate_os_error

_STEP = 0.05
_SOON = 0.5
"""Seconds after which a waiting writer says so."""


@contextmanager
def held_lock(path: str, what: str, timeout: float, say: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock file while the block runs.

    Parameters
    ----------
    timeout
        Seconds to wait for another process.
    say
        Told for whom it waits, when that takes long.

    Raises
    ------
    Conflict
        When another process holds it for longer; it is named.
    """
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise translate_os_error(error, "the lock", os.path.dirname(path)) from error
    try:
        _wait(descriptor, what, timeout, say)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait(descriptor: int, what: str, timeout: float, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    said = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited = time.monotonic() - began
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            if waited >= timeout:
                raise Conflict(
                    f"{holder} is writing to {what}", hint="wait for it, or end it; its lock goes with it"
                ) from None
            if waited >= _SOON and not said:
                say(f"waiting for {holder}, which is writing to {what} (at most {timeout:g} seconds)")
                said = True
            time.sleep(_STEP)
        else:
            return
