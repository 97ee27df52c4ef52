"""What files were when last read, as the state knows it: many in one row, until so many that each has its own.

See docs/decisions/0013: a row of its own takes SQLite as long as reading a small file takes. What a large `add` learns
is read once more as a whole, by the next look at the same work tree, and mostly replaced then.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import msgspec

from registree.store.file_stat import Stat, signed, unsigned

FILE_TABLES = """\
CREATE TABLE stat (path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, content BLOB) WITHOUT ROWID;
CREATE TABLE recent_stats (number INTEGER PRIMARY KEY AUTOINCREMENT, first TEXT, last TEXT, count INT, stats BLOB);
"""
KEPT_IN_ONE = 1000
"""Files, or chunks of a pack, from which they are kept in one row."""
_LIMIT = 100_000
"""Files or chunks that are kept so at most: what is looked for has to be looked for in all of them."""
_PARTS = 64
"""Such rows there may be."""

FileRow: TypeAlias = tuple[str, Stat | None]
"""A path, and what is known of it; None for nothing any more."""
_decoder = msgspec.msgpack.Decoder(list[FileRow])


class KnownFiles:
    """Files in the tables of a state; what was noted later goes before what was noted earlier."""

    def __init__(self) -> None:
        self._read: dict[int, dict[str, Stat | None]] = {}

    def between(self, connection: sqlite3.Connection, low: str, high: str) -> Iterator[tuple[str, Stat]]:
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
        return _overlaid(((path, _stat(values)) for path, *values in older), recent)

    def find(self, connection: sqlite3.Connection, path: str) -> Stat | None:
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
        return _stat(row) if row is not None else None

    def note(self, connection: sqlite3.Connection, rows: Iterable[FileRow]) -> None:
        """Note what files are now; of two rows for one path the last counts."""
        found = sorted(dict(rows).items(), key=itemgetter(0))
        if not found:
            return
        first, last = found[0][0], found[-1][0]
        (is_known,) = connection.execute(
            "SELECT EXISTS (SELECT 1 FROM recent_stats WHERE first <= ? AND last >= ?)", (last, first)
        ).fetchone()
        if len(found) < KEPT_IN_ONE and not is_known:
            _store(connection, found)
            return
        connection.execute(
            "INSERT INTO recent_stats (first, last, count, stats) VALUES (?, ?, ?, ?)",
            (first, last, len(found), msgspec.msgpack.encode(found)),
        )
        if is_full(connection, "recent_stats"):
            for (part,) in connection.execute("SELECT stats FROM recent_stats ORDER BY number").fetchall():
                _store(connection, _decoder.decode(part))
            connection.execute("DELETE FROM recent_stats")
            self._read.clear()

    def forget_all(self, connection: sqlite3.Connection) -> None:
        """Forget them all: a part that is damaged would hide what comes, and what it hid would be seen."""
        connection.execute("DELETE FROM stat")
        connection.execute("DELETE FROM recent_stats")
        self._read.clear()


def is_full(connection: sqlite3.Connection, table: str) -> bool:
    """Tell whether a table of rows that hold many should be emptied into the one where each has its own."""
    parts, rows = connection.execute(f"SELECT count(*), total(count) FROM {table}").fetchone()  # noqa: S608 -- ours
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


def _store(connection: sqlite3.Connection, rows: Sequence[FileRow]) -> None:
    connection.executemany("DELETE FROM stat WHERE path = ?", ((path,) for path, row in rows if row is None))
    connection.executemany(
        "INSERT OR REPLACE INTO stat VALUES (?, ?, ?, ?, ?, ?)",
        (
            (path, row.size, row.mtime, row.ctime, signed(row.inode), row.content)
            for path, row in rows
            if row is not None
        ),
    )


def _stat(values: Sequence[Any]) -> Stat:
    size, mtime, ctime, inode, content = values
    return Stat(size, mtime, ctime, unsigned(inode), content)
