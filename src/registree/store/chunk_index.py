"""Which chunks are stored already: those of this run, in bounded memory, and those known from before."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable

from registree.errors import StoreError
from registree.model.places import Extent, PackRow
from registree.store.chunk_list import extents_of
from registree.store.open_pack import Placed

HOT_LIMIT = 200_000
"""Chunks held in memory before those of closed packs go to a file (some 50 MB)."""


class ChunkIndex:
    """Finds a chunk's place.

    Parameters
    ----------
    folder
        Where chunks that do not fit into memory are kept meanwhile.
    known
        Tells where a chunk lies that an earlier run stored.
    """

    def __init__(self, folder: str, known: Callable[[bytes], Extent | None]) -> None:
        self._folder = folder
        self._known = known
        self._hot: dict[bytes, Placed] = {}
        self._spilled: sqlite3.Connection | None = None

    def find(self, chunk: bytes) -> Placed | None:
        """Return where a chunk lies; None when it is new."""
        found = self._hot.get(chunk)
        if found is not None:
            return found
        if self._spilled is not None:
            row = self._spilled.execute(
                "SELECT pack, size, start, length FROM place WHERE chunk = ?", (chunk,)
            ).fetchone()
            if row is not None:
                return Extent(PackRow(row[0], row[1]), row[2], row[3])
        return self._known(chunk)

    def note(self, chunk: bytes, place: Placed) -> None:
        """Note a chunk; the first place that is noted stays."""
        self._hot.setdefault(chunk, place)

    def close_pack(self, pack: PackRow, chunks: Iterable[tuple[bytes, int]]) -> None:
        """Say that a pack has its name; its chunks may leave the memory."""
        if len(self._hot) <= HOT_LIMIT:
            return
        try:
            self._spill(pack, chunks)
        except sqlite3.Error as error:
            raise StoreError(f"the disk of {self._folder} cannot be written: {error}") from error

    def _spill(self, pack: PackRow, chunks: Iterable[tuple[bytes, int]]) -> None:
        if self._spilled is None:
            self._spilled = sqlite3.connect(os.path.join(self._folder, "chunks.sqlite"), isolation_level=None)
            self._spilled.execute("PRAGMA journal_mode=OFF")
            self._spilled.execute("PRAGMA synchronous=OFF")
            self._spilled.execute(
                "CREATE TABLE place (chunk BLOB PRIMARY KEY, pack BLOB, size INT, start INT, length INT) WITHOUT ROWID"
            )
        self._spilled.execute("BEGIN")
        for chunk, (_, start, length) in extents_of(pack, chunks):
            self._hot.pop(chunk, None)
            self._spilled.execute(
                "INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?, ?)", (chunk, pack.id, pack.size, start, length)
            )
        self._spilled.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        if self._spilled is not None:
            self._spilled.close()
