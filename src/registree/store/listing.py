"""List the folders below one, in workers and ahead of whoever walks them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from registree.store.batches import NUMBERS, Listed, list_folders
from registree.store.workers import Workers

_AT_ONCE = 16
"""Folders of one batch at most."""
_AHEAD = 4
"""Batches that are listed before they are asked for."""
_BATCH = 4 << 20
"""Bytes of a batch, as far as the last one tells."""


class Listing(NamedTuple):
    """A folder: the names in it, sorted (folders end with a slash), and the numbers of a `FileStat` for each."""

    names: list[str]
    numbers: Iterator[tuple[int, ...]]


class Folders:
    """Lists folders below a root.

    Attributes
    ----------
    digests
        A hash over each folder that was listed, by its path.
    newest
        When the last of what was listed changed (nanoseconds since the epoch).
    """

    def __init__(self, root: str, workers: Workers) -> None:
        self.digests: dict[str, bytes] = {}
        self.newest = 0
        self._root = root
        self._workers = workers
        self._next: list[str] = []
        self._coming: dict[str, tuple[Future[list[Listed]], int]] = {}
        self._at_once = _AT_ONCE

    def expect(self, folders: Sequence[str]) -> None:
        """Say which folders will be asked for next, before those that were named earlier; all of them must be."""
        self._next += reversed(folders)

    def take(self, folder: str) -> Listing:
        """List a folder, the next of those that are expected.

        Raises
        ------
        OSError
            When it, or another that is expected, cannot be listed.
        """
        if folder not in self._coming:
            self._begin()
        future, index = self._coming.pop(folder)
        while self._next and len(self._coming) <= self._at_once * (_AHEAD - 1):
            self._begin()
        try:
            digest, newest, names, numbers = self._workers.result(future)[index]
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(error.filename)) from error
        self.digests[folder] = digest
        self.newest = max(self.newest, newest)
        self._at_once = max(1, min(_AT_ONCE, _BATCH // (len(names) + len(numbers) + 1)))
        return Listing(os.fsdecode(names).split("\0") if names else [], NUMBERS.iter_unpack(numbers))

    def _begin(self) -> None:
        folders = [self._next.pop() for _ in range(min(self._at_once, len(self._next)))]
        rows = [os.fsencode(f"{self._root}/{folder}" if folder else self._root) for folder in folders]
        future = self._workers.submit(list_folders, 0, rows)
        self._coming.update((folder, (future, index)) for index, folder in enumerate(folders))
