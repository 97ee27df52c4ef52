"""Where work runs and who is told of it: the executor and the progress, both passed in by whoever calls.

The interface is `concurrent.futures.Executor`: threads here, a cluster's elsewhere.
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Protocol


class Progress(Protocol):
    """Is told how far a bulk operation is. The totals are known before the first byte moves."""

    def begin(self, verb: str, files: int, size: int) -> None:
        """Say what is about to be done: a verb for people, and how many files and bytes."""

    def advance(self, files: int, size: int) -> None:
        """Say that some files and bytes more are done."""

    def end(self) -> None:
        """Say that it is over."""


class Silent:
    """Progress that nobody watches."""

    def begin(self, verb: str, files: int, size: int) -> None:
        """See `Progress.begin`."""

    def advance(self, files: int, size: int) -> None:
        """See `Progress.advance`."""

    def end(self) -> None:
        """See `Progress.end`."""


def default_executor(jobs: int = 0) -> Executor:
    """Return threads for waiting on disks and networks; `jobs` of them (0: as the machine suggests)."""
    return ThreadPoolExecutor(jobs or min(16, 4 + (os.cpu_count() or 1) * 2), thread_name_prefix="reg")
