"""What the state learnt lately: many rows in one, until there are so many that they go to their tables.

A row of its own takes SQLite as long as reading a small file takes. What a large `add` learns is read once more as a
whole, by the next look at the same work tree, and mostly replaced then.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec

from registree.model.places import Extent, PackRow
from registree.store.chunk_list import decode_chunks, encode_chunks, extents_of
from registree.store.file_stat import Stat

SCHEMA = """
CREATE TABLE stat (path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, content BLOB) WITHOUT ROWID;
CREATE TABLE pack (number INTEGER PRIMARY KEY, id BLOB UNIQUE, size INT);
CREATE TABLE place (chunk BLOB PRIMARY KEY, pack INT, start INT, length INT) WITHOUT ROWID;
CREATE TABLE recent_stats (number INTEGER PRIMARY KEY AUTOINCREMENT, first TEXT, last TEXT, count INT, stats BLOB);
CREATE TABLE recent_pack (number INTEGER PRIMARY KEY, id BLOB UNIQUE, size INT, count INT, chunks BLOB);
"""
MANY = 1000
"""Rows of files, or of a pack's chunks, from which they are kept in one."""
_LIMIT = 100_000
"""Rows that are kept so at most; what is looked for has to be looked for in all of them."""
_PARTS = 64
"""How many such rows of rows there may be."""
_SIGN = 1 << 63

FileRow: TypeAlias = tuple[str, Stat | None]
"""A path, and what is known of it; None for nothing any more."""
_decoder = msgspec.msgpack.Decoder(list[FileRow])


class Recent:
    """Files and chunks that a state knows, of late and from before."""

    def __init__(self) -> None:
        self._read: dict[int, dict[str, Stat | None]] = {}
        self._places: dict[bytes, Extent] | None = None

    def stats(self, connection: sqlite3.Connection, low: str, high: str) -> Iterator[tuple[str, Stat]]:
        """Stream what is known of the files from one path on, up to another, sorted by path."""
        parts = connection.execute(
            "SELECT stats FROM recent_stats WHERE first < ? AND last >= ? ORDER BY number", (high, low)
        ).fetchall()
        rows = _decoder.decode(parts[0][0]) if parts else []
        if len(parts) > 1:
            latest = dict(rows)
            for (part,) in parts[1:]:
                latest.update(_decoder.decode(part))
            rows = sorted(latest.items(), key=itemgetter(0))
        recent = rows[bisect_left(rows, low, key=itemgetter(0)) : bisect_left(rows, high, key=itemgetter(0))]
        older = connection.execute(
            "SELECT path, size, mtime, ctime, inode, content FROM stat WHERE path >= ? AND path < ? ORDER BY path",
            (low, high),
        )
        return _overlaid(((path, _unsigned(values)) for path, *values in older), recent)

    def stat(self, connection: sqlite3.Connection, path: str) -> Stat | None:
        """Return what is known of one file."""
        for (number,) in connection.execute(
            "SELECT number FROM recent_stats WHERE first <= ? AND last >= ? ORDER BY number DESC", (path, path)
        ).fetchall():
            if number not in self._read:  # it is large, so that it is asked for once
                part = connection.execute("SELECT stats FROM recent_stats WHERE number = ?", (number,)).fetchone()
                if part is None:  # another process has just moved it to the table
                    continue
                self._read[number] = dict(_decoder.decode(part[0]))
            if path in self._read[number]:
                return self._read[number][path]
        row = connection.execute(
            "SELECT size, mtime, ctime, inode, content FROM stat WHERE path = ?", (path,)
        ).fetchone()
        return _unsigned(row) if row is not None else None

    def place(self, connection: sqlite3.Connection, chunk: bytes) -> Extent | None:
        """Return where a chunk lies, if it is known."""
        if self._places is None:
            self._places = {}
            for identifier, size, chunks in connection.execute(
                "SELECT id, size, chunks FROM recent_pack ORDER BY number"
            ):
                self._places.update(extents_of(PackRow(identifier, size), decode_chunks(chunks)))
        found = self._places.get(chunk)
        if found is not None:
            return found
        row = connection.execute(
            "SELECT id, size, start, length FROM place JOIN pack ON pack = number WHERE chunk = ?", (chunk,)
        ).fetchone()
        return Extent(PackRow(row[0], row[1]), row[2], row[3]) if row is not None else None

    def note_stats(self, connection: sqlite3.Connection, rows: Iterable[FileRow]) -> None:
        """Note what files are now; of two rows for one path the last counts."""
        latest = {path: row if row is None else _clamped(row) for path, row in rows}
        found = sorted(latest.items(), key=itemgetter(0))
        if not found:
            return
        first, last = found[0][0], found[-1][0]
        (is_known,) = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM recent_stats WHERE first <= ? AND last >= ?)", (last, first)
        ).fetchone()
        if len(found) < MANY and not is_known:
            _store_stats(connection, found)
            return
        connection.execute(
            "INSERT INTO recent_stats (first, last, count, stats) VALUES (?, ?, ?, ?)",
            (first, last, len(found), msgspec.msgpack.encode(found)),
        )
        if _is_full(connection, "SELECT count(*), total(count) FROM recent_stats"):
            for (part,) in connection.execute("SELECT stats FROM recent_stats ORDER BY number").fetchall():
                _store_stats(connection, _decoder.decode(part))
            connection.execute("DELETE FROM recent_stats")
            self._read.clear()

    def forget_all(self, connection: sqlite3.Connection) -> None:
        """Forget all files and chunks: a part that is damaged would hide what comes, and what it hid would be seen."""
        for table in ("stat", "place", "recent_stats", "recent_pack"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- our own names
        self._read.clear()
        self._places = None

    def note_pack(self, connection: sqlite3.Connection, pack: PackRow, chunks: Sequence[tuple[bytes, int]]) -> None:
        """Note the ids and lengths of a pack's chunks, in order."""
        self._places = None
        (are_others,) = connection.execute("SELECT EXISTS (SELECT 1 FROM recent_pack)").fetchone()
        if len(chunks) < MANY and not are_others:  # they would be hidden by what older packs are said to hold
            _store_chunks(connection, pack, chunks)
            return
        connection.execute(
            "INSERT OR REPLACE INTO recent_pack (id, size, count, chunks) VALUES (?, ?, ?, ?)",
            (pack.id, pack.size, len(chunks), encode_chunks(list(chunks))),
        )
        if _is_full(connection, "SELECT count(*), total(count) FROM recent_pack"):
            packs = connection.execute("SELECT id, size, chunks FROM recent_pack ORDER BY number").fetchall()
            for identifier, size, part in packs:
                _store_chunks(connection, PackRow(identifier, size), decode_chunks(part))
            connection.execute("DELETE FROM recent_pack")


def _is_full(connection: sqlite3.Connection, question: str) -> bool:
    parts, rows = connection.execute(question).fetchone()
    return bool(parts > _PARTS or rows > _LIMIT)


def _overlaid(older: Iterator[tuple[str, Stat]], recent: list[FileRow]) -> Iterator[tuple[str, Stat]]:
    """Merge rows by path; those of late go first."""
    known = next(older, None)
    for path, row in recent:
        while known is not None and known[0] < path:
            yield known
            known = next(older, None)
        if known is not None and known[0] == path:
            known = next(older, None)
        if row is not None:
            yield path, row
    if known is not None:
        yield known
        yield from older


def _store_stats(connection: sqlite3.Connection, rows: Sequence[FileRow]) -> None:
    connection.executemany("DELETE FROM stat WHERE path = ?", ((path,) for path, row in rows if row is None))
    connection.executemany(
        "INSERT OR REPLACE INTO stat VALUES (?, ?, ?, ?, ?, ?)",
        ((path, *(row if row.inode < _SIGN else _signed(row))) for path, row in rows if row is not None),
    )


def _store_chunks(connection: sqlite3.Connection, pack: PackRow, chunks: Sequence[tuple[bytes, int]]) -> None:
    connection.execute("INSERT OR IGNORE INTO pack (id, size) VALUES (?, ?)", (pack.id, pack.size))
    (number,) = connection.execute("SELECT number FROM pack WHERE id = ?", (pack.id,)).fetchone()
    connection.executemany(
        "INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?)",
        ((chunk, number, place.offset, place.length) for chunk, place in extents_of(pack, chunks)),
    )


def _clamped(row: Stat) -> Stat:
    """Return a row whose times can be written down: those that cannot become the nearest that can."""
    if -_SIGN < row.mtime < _SIGN and -_SIGN < row.ctime < _SIGN:
        return row
    mtime, ctime = (max(1 - _SIGN, min(time, _SIGN - 1)) for time in (row.mtime, row.ctime))
    return row._replace(mtime=mtime, ctime=ctime)


def _signed(row: Stat) -> Stat:
    """Return a row as SQLite can hold it: an inode may have 64 bits, its numbers have 63 and a sign."""
    return row._replace(inode=row.inode - 2 * _SIGN)


def _unsigned(values: Sequence[Any]) -> Stat:
    row = Stat(*values)
    return row if row.inode >= 0 else row._replace(inode=row.inode + 2 * _SIGN)
