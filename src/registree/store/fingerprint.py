"""Tell whether anything below a folder changed, from one hash over names, sizes, times and inodes: nothing is read."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Mapping
from itertools import chain
from typing import NamedTuple

from registree.model.ids import hash_bytes
from registree.model.paths import join
from registree.store.batches import hash_folders
from registree.store.file_stat import clock_step
from registree.store.workers import Memory, Workers

_FOLDERS = 4
"""Folders of one batch."""
_WORTH_A_WORKER = 30_000
"""Files from which it pays to have other processes: they take 100 ms."""


class Fingerprint(NamedTuple):
    """A hash over everything below a folder, and when the last of it changed (nanoseconds since the epoch)."""

    digest: bytes
    newest: int

    def is_older(self, moment: int) -> bool:
        """Tell whether a change after a moment (nanoseconds since the epoch) would show in it."""
        return self.newest <= moment - clock_step(self.newest)


def fingerprint(root: str, files: int, processes: int, newest_known: int | None = None) -> Fingerprint | None:
    """Return the fingerprint of a folder.

    Parameters
    ----------
    files
        How many there may be.
    processes
        How many others may help.
    newest_known
        When the last change was that is known of (nanoseconds since the epoch): None is returned as soon as there is a
        later one.

    Raises
    ------
    OSError
        When it is no folder, or something in it cannot be looked at.
    StoreError
        When a process that helped was killed.
    """
    if not stat.S_ISDIR(os.lstat(root).st_mode):
        raise NotADirectoryError(root)
    workers = Workers(Memory(1, mmap.PAGESIZE), processes if files >= _WORTH_A_WORKER else 0, worth=0)
    digests: dict[str, bytes] = {}
    newest = 0
    try:
        level = [""]
        while level:
            places = [os.fsencode(f"{root}/{folder}" if folder else root) for folder in level]
            batches = [places[at : at + _FOLDERS] for at in range(0, len(places), _FOLDERS)]
            coming = [workers.submit(hash_folders, 0, batch) for batch in batches]
            below: list[str] = []
            for folder, (digest, latest, names) in zip(
                level, chain.from_iterable(map(workers.result, coming)), strict=True
            ):
                if newest_known is not None and latest > newest_known:
                    return None
                digests[folder] = digest
                newest = max(newest, latest)
                below += [join(folder, os.fsdecode(name)) for name in names]
            level = below
    finally:
        workers.close()
    return combine(digests, newest)


def combine(digests: Mapping[str, bytes], newest: int) -> Fingerprint:
    """Return the fingerprint of a folder.

    Parameters
    ----------
    digests
        A hash over each folder in it, by its path (`registree.store.batches.Listed`).
    newest
        When the last of them changed.
    """
    return Fingerprint(hash_bytes(b"".join(digests[folder] for folder in sorted(digests))), newest)
