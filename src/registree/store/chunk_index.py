"""Which chunks are stored already: those of this run, in bounded memory, and those known from before."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from registree.model.ids import ID_LENGTH
from registree.model.places import Extent, PackRow

if TYPE_CHECKING:
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
        if self._spilled is None:
            self._spilled = sqlite3.connect(os.path.join(self._folder, "chunks.sqlite"), isolation_level=None)
            self._spilled.execute("PRAGMA journal_mode=OFF")
            self._spilled.execute("PRAGMA synchronous=OFF")
            self._spilled.execute(
                "CREATE TABLE place (chunk BLOB PRIMARY KEY, pack BLOB, size INT, start INT, length INT) WITHOUT ROWID"
            )
        self._spilled.execute("BEGIN")
        start = 0
        for chunk, length in chunks:
            self._hot.pop(chunk, None)
            self._spilled.execute(
                "INSERT OR IGNORE INTO place VALUES (?, ?, ?, ?, ?)", (chunk, pack.id, pack.size, start, length)
            )
            start += length
        self._spilled.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        if self._spilled is not None:
            self._spilled.close()


def encode_chunks(chunks: list[tuple[bytes, int]]) -> bytes:
    """Encode the list of a pack's chunks (docs/formats/pack-and-map-v1.md)."""
    return msgspec.msgpack.encode([1, chunks])


def decode_chunks(content: bytes) -> list[tuple[bytes, int]]:
    """Read the list of a pack's chunks: (chunk id, bytes) in order; an unreadable one lists nothing."""
    try:
        version, rows = msgspec.msgpack.decode(content, type=tuple[int, list[tuple[bytes, int]]])
    except msgspec.DecodeError:
        return []
    return rows if version == 1 and all(len(chunk) == ID_LENGTH and length > 0 for chunk, length in rows) else []


def extents_of(pack: PackRow, chunks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, Extent]]:
    """Return the place of each chunk of a pack."""
    start = 0
    for chunk, length in chunks:
        yield chunk, Extent(pack, start, length)
        start += length
