"""Where work runs and who is told of it: the executor and the progress, both passed in by whoever calls.

The interface is `concurrent.futures.Executor`: threads here, a cluster's elsewhere.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Executor, ThreadPoolExecutor, wait
from typing import Protocol, TypeVar

import msgspec

_Item = TypeVar("_Item")


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


class Transferred(msgspec.Struct, frozen=True):
    """What a command moved and what that took.

    `files` and `bytes` are those of datasets that were placed or published; `requests`, those of them that were
    `retries`, and the bytes `sent` and `received` are of stores behind a network; then the `seconds` in all.
    """

    requests: int = 0
    retries: int = 0
    sent: int = 0
    received: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0


class Meter:
    """Counts what is moved, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = self._retries = self._sent = self._received = self._files = self._bytes = 0
        self._began = time.monotonic()

    def count(self, *, requests: int = 0, retries: int = 0, sent: int = 0, received: int = 0) -> None:
        """Add to the counts; sizes in bytes."""
        with self._lock:
            self._requests += requests
            self._retries += retries
            self._sent += sent
            self._received += received

    def moved(self, files: int, size: int) -> None:
        """Add files and bytes of datasets."""
        with self._lock:
            self._files += files
            self._bytes += size

    @property
    def so_far(self) -> Transferred:
        """The counts until now, and the seconds since it was made."""
        with self._lock:
            seconds = round(time.monotonic() - self._began, 3)
            return Transferred(
                self._requests, self._retries, self._sent, self._received, self._files, self._bytes, seconds
            )


class Counted:
    """Progress that is also counted by a meter."""

    def __init__(self, progress: Progress, meter: Meter) -> None:
        self._progress = progress
        self._meter = meter

    def begin(self, verb: str, files: int, size: int) -> None:
        """See `Progress.begin`."""
        self._progress.begin(verb, files, size)

    def advance(self, files: int, size: int) -> None:
        """See `Progress.advance`."""
        self._meter.moved(files, size)
        self._progress.advance(files, size)

    def end(self) -> None:
        """See `Progress.end`."""
        self._progress.end()


def run_all(executor: Executor, act: Callable[[_Item], object], items: Iterable[_Item]) -> None:
    """Do something with each item, several at once; when one fails, none begins any more and those that run are over.

    Raises
    ------
    Exception
        What the first that failed raised.
    """
    futures = [executor.submit(act, item) for item in items]
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:  # after an interrupt too nothing may begin any more
        for future in futures:
            future.cancel()
    wait(futures)
    for future in futures:
        if not future.cancelled():
            future.result()


def default_executor(jobs: int = 0) -> Executor:
    """Return threads for waiting on disks and networks; `jobs` of them (0: as the machine suggests)."""
    return ThreadPoolExecutor(jobs or min(16, 4 + (os.cpu_count() or 1) * 2), thread_name_prefix="reg")


def default_processes(jobs: int = 0) -> int:
    """Return how many processes may work beside this one: three at most, and fewer than `jobs` (0: any)."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return 0  # there is no interpreter to start
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors, jobs or processors, 4) - 1
