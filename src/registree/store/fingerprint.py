"""Tell whether anything below a folder changed, from one hash over names, sizes, times and inodes: nothing is read."""

from __future__ import annotations

import mmap
import os
import stat
from itertools import chain
from typing import NamedTuple

from blake3 import blake3

from registree.store.batches import list_folders
from registree.store.state import CLOCK_STEP
from registree.store.workers import Memory, Workers

_FOLDERS = 16
"""Folders of one batch."""
_WORTH_A_WORKER = 30_000
"""Files from which it pays to have other processes: they take 100 ms."""


class Fingerprint(NamedTuple):
    """A hash over everything below a folder, and when the last of it changed (nanoseconds since the epoch)."""

    digest: bytes
    newest: int

    def is_older(self, moment: int) -> bool:
        """Tell whether a change after a moment (nanoseconds since the epoch) would show in it."""
        return self.newest <= moment - CLOCK_STEP


def fingerprint(root: str, files: int, processes: int) -> Fingerprint:
    """Return the fingerprint of a folder.

    Parameters
    ----------
    files
        How many there may be.
    processes
        How many others may help.

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
    hasher = blake3()
    newest = 0
    try:
        level = [os.fsencode(root)]
        while level:
            batches = [level[at : at + _FOLDERS] for at in range(0, len(level), _FOLDERS)]
            coming = [workers.submit(list_folders, 0, batch) for batch in batches]
            below: list[bytes] = []
            for folder, (digest, latest, names) in zip(level, chain(*map(workers.result, coming)), strict=True):
                hasher.update(digest)
                newest = max(newest, latest)
                below += [folder + b"/" + name for name in names]
            level = below
    finally:
        workers.close()
    return Fingerprint(hasher.digest(), newest)
