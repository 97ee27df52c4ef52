"""List the folders below one, in workers and ahead of whoever walks them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from typing import NamedTuple

from registree.store.batches import PACKED_STAT, Listed, list_folders
from registree.store.workers import Workers

_AT_ONCE = 16
"""Folders of one batch at most."""
_AHEAD = 4
"""Batches that are listed before they are asked for."""
_BATCH = 1 << 20
"""Bytes of a batch, as far as the last folder tells."""


class Listing(NamedTuple):
    """A folder: the names in it, sorted (folders end with a slash), and the numbers of a `FileStat` for each."""

    names: list[str]
    numbers: Iterable[tuple[int, ...]]


class Folders:
    """Lists folders below a root.

    Parameters
    ----------
    workers
        List them ahead; None to list each when it is asked for.

    Attributes
    ----------
    digests
        A hash over each folder that was listed, by its path.
    newest
        When the last of what was listed changed (nanoseconds since the epoch).
    """

    def __init__(self, root: str, workers: Workers | None) -> None:
        self.digests: dict[str, bytes] = {}
        self.newest = 0
        self._root = root
        self._workers = workers
        self._next: list[str] = []
        self._coming: dict[str, tuple[Future[list[Listed]], int]] = {}
        self._at_once = 1

    def expect(self, folders: Sequence[str]) -> None:
        """Say which folders will be asked for next, before those that were named earlier; all of them must be."""
        if self._workers is not None:
            self._next += reversed(folders)

    def take(self, folder: str) -> Listing:
        """List a folder, the next of those that are expected.

        Raises
        ------
        OSError
            When it, or another that is expected, cannot be listed.
        """
        try:
            digest, newest, blob, numbers = self._listed(folder)
        except OSError as error:
            raise OSError(error.errno, error.strerror, os.fsdecode(error.filename or self._root)) from error
        self.digests[folder] = digest
        self.newest = max(self.newest, newest)
        self._at_once = max(1, min(2 * self._at_once, _AT_ONCE, _BATCH // (len(blob) + len(numbers) + 1)))
        names = os.fsdecode(blob).split("\0") if blob else []
        ordered = sorted(names)
        if ordered != names:  # this machine's encoding has another order
            rows = dict(zip(names, PACKED_STAT.iter_unpack(numbers), strict=True))
            return Listing(ordered, [rows[name] for name in ordered])
        return Listing(names, PACKED_STAT.iter_unpack(numbers))

    def _listed(self, folder: str) -> Listed:
        if self._workers is None:
            return list_folders(memoryview(b""), [self._place(folder)])[0]
        if folder not in self._coming:
            self._begin(self._workers)
        future, index = self._coming.pop(folder)
        while self._next and len(self._coming) <= self._at_once * (_AHEAD - 1):
            self._begin(self._workers)
        return self._workers.result(future)[index]

    def _begin(self, workers: Workers) -> None:
        folders = [self._next.pop() for _ in range(min(self._at_once, len(self._next)))]
        future = workers.submit(list_folders, 0, [self._place(folder) for folder in folders])
        self._coming.update((folder, (future, index)) for index, folder in enumerate(folders))

    def _place(self, folder: str) -> bytes:
        return os.fsencode(f"{self._root}/{folder}" if folder else self._root)
