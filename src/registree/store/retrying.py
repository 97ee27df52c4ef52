"""Try again what failed for the moment: exponential backoff with jitter, a budget for each store, and counts."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TypeVar

from registree.errors import StoreError
from registree.execute import Meter
from registree.store.base import Sent, Store, nobody

_Result = TypeVar("_Result")

_RETRIES_UNREACHABLE = 2
_FIRST, _LONGEST = 0.25, 8.0
"""Seconds to wait before the second try (doubled each time) and at most; half of each wait is left to chance
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/)."""
_BUDGET = 60.0
_EARNED = 0.1
"""Retries that a store gets in one run; what succeeds earns some back, so that hiccups do not add up to a storm."""


class RetryingStore(Store):
    """A store behind a network, each of whose operations is tried again while that may help.

    Parameters
    ----------
    make
        Opens the store, when it is first asked for something: a command that asks it nothing needs neither its package
        nor credentials.
    retries
        How often one operation is tried again; seldom when no connection comes about at all.
    """

    def __init__(
        self, make: Callable[[], Store], address: str, meter: Meter, retries: int, *, writable: bool = True
    ) -> None:
        self.address = address
        self.writable = writable
        self._make = make
        self._meter = meter
        self._retries = retries
        self._budget = _BUDGET
        self._lock = threading.Lock()

    @cached_property
    def _store(self) -> Store:
        return self._make()

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        content = self._tried(lambda: self._store.read(key, offset, length))
        self._meter.count(received=len(content))
        return content

    def copy_range(self, key: str, offset: int, length: int, descriptor: int, position: int) -> memoryview | None:
        """See `Store.copy_range`."""
        copied = self._tried(lambda: self._store.copy_range(key, offset, length, descriptor, position))
        self._meter.count(received=length)
        return copied

    def fill(self, key: str, offset: int, memory: memoryview) -> None:
        """See `Store.fill`."""
        self._tried(lambda: self._store.fill(key, offset, memory))
        self._meter.count(received=len(memory))

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        return self._tried(lambda: self._store.size(key))

    def write(self, key: str, content: bytes) -> None:
        """See `Store.write`."""
        self._tried(lambda: self._store.write(key, content))
        self._meter.count(sent=len(content))

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """See `Store.upload`; what is sent twice is told once."""
        told = 0

        def attempt() -> None:
            done = 0

            def passed_on(size: int) -> None:
                nonlocal told, done
                done += size
                if done > told:
                    sent(done - told)
                    told = done

            self._store.upload(key, path, passed_on)

        self._tried(attempt)
        self._meter.count(sent=os.stat(path).st_size)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._tried(lambda: self._store.delete(key))

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """See `Store.keys`."""
        return iter(self._tried(lambda: list(self._store.keys(folder))))

    def _tried(self, ask: Callable[[], _Result]) -> _Result:
        tries = 0
        while True:
            self._meter.count(requests=1)
            try:
                result = ask()
            except StoreError as error:
                tries += 1
                allowed = min(self._retries, _RETRIES_UNREACHABLE) if error.unreachable else self._retries
                if not error.transient or tries > allowed:
                    raise
                if not self._spend():
                    raise StoreError(
                        f"{error.message} (given up: {self.address} failed too often)", hint=error.hint, transient=True
                    ) from error
                self._meter.count(retries=1)
                longest = min(_LONGEST, _FIRST * 2 ** (tries - 1))
                time.sleep(longest * random.uniform(0.5, 1))  # noqa: S311 -- spreads retries, keeps no secret
            else:
                with self._lock:
                    self._budget = min(_BUDGET, self._budget + _EARNED)
                return result

    def _spend(self) -> bool:
        with self._lock:
            if self._budget < 1:
                return False
            self._budget -= 1
            return True
