"""Where chunks lie, as the state knows it: those of a pack in one row, until so many that each has its own.

See docs/decisions/0013: a row of its own takes SQLite as long as reading a small file takes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from registree.model.places import Extent, PackRow
from registree.store.chunk_list import decode_chunks, encode_chunks, extents_of
from registree.store.known_files import KEPT_IN_ONE, is_full

CHUNK_TABLES = """\
CREATE TABLE pack (number INTEGER PRIMARY KEY, id BLOB UNIQUE, size INT);
CREATE TABLE place (chunk BLOB PRIMARY KEY, pack INT, start INT, length INT) WITHOUT ROWID;
CREATE TABLE recent_pack (number INTEGER PRIMARY KEY, id BLOB UNIQUE, size INT, count INT, chunks BLOB);
"""


class KnownChunks:
    """Chunks in the tables of a state; a pack that was noted later goes before those noted earlier."""

    def __init__(self) -> None:
        self._recent: dict[bytes, Extent] | None = None

    def find(self, connection: sqlite3.Connection, chunk: bytes) -> Extent | None:
        """Return where a chunk lies, if it is known."""
        if self._recent is None:
            self._recent = {}
            for pack, chunks in _recent_packs(connection):
                self._recent.update(extents_of(pack, chunks))
        found = self._recent.get(chunk)
        if found is not None:
            return found
        row = connection.execute(
            "SELECT id, size, start, length FROM place JOIN pack ON pack = number WHERE chunk = ?", (chunk,)
        ).fetchone()
        return Extent(PackRow(row[0], row[1]), row[2], row[3]) if row is not None else None

    def has_pack(self, connection: sqlite3.Connection, pack: bytes) -> bool:
        """Tell whether the chunks of a pack were noted."""
        found = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM recent_pack WHERE id = ?) OR EXISTS (SELECT 1 FROM pack WHERE id = ?)",
            (pack, pack),
        ).fetchone()
        return bool(found[0])

    def note(self, connection: sqlite3.Connection, pack: PackRow, chunks: Sequence[tuple[bytes, int]]) -> None:
        """Note the ids and lengths of a pack's chunks, in order."""
        self._recent = None
        (are_others,) = connection.execute("SELECT EXISTS (SELECT 1 FROM recent_pack)").fetchone()
        if len(chunks) < KEPT_IN_ONE and not are_others:  # they would be hidden by what older packs are said to hold
            _store(connection, pack, chunks)
            return
        connection.execute(
            "INSERT OR REPLACE INTO recent_pack (id, size, count, chunks) VALUES (?, ?, ?, ?)",
            (pack.id, pack.size, len(chunks), encode_chunks(list(chunks))),
        )
        if is_full(connection, "recent_pack"):
            for older, parts in _recent_packs(connection):
                _store(connection, older, parts)
            connection.execute("DELETE FROM recent_pack")

    def forget_all(self, connection: sqlite3.Connection) -> None:
        """Forget them all."""
        connection.execute("DELETE FROM place")
        connection.execute("DELETE FROM pack")
        connection.execute("DELETE FROM recent_pack")
        self._recent = None


def _recent_packs(connection: sqlite3.Connection) -> list[tuple[PackRow, list[tuple[bytes, int]]]]:
    rows = connection.execute("SELECT id, size, chunks FROM recent_pack ORDER BY number")
    return [(PackRow(identifier, size), decode_chunks(chunks)) for identifier, size, chunks in rows]


def _store(connection: sqlite3.Connection, pack: PackRow, chunks: Sequence[tuple[bytes, int]]) -> None:
    connection.execute("INSERT OR IGNORE INTO pack (id, size) VALUES (?, ?)", (pack.id, pack.size))
    (number,) = connection.execute("SELECT number FROM pack WHERE id = ?", (pack.id,)).fetchone()
    connection.executemany(
        "INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?)",
        ((chunk, number, place.offset, place.length) for chunk, place in extents_of(pack, chunks)),
    )
