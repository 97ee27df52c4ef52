"""The local state, `.reg/state.sqlite`: what files were when last read, and where chunks lie. Always safe to delete."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

from registree.model.places import Extent, PackRow
from registree.store.batches import PACKED_STAT, pack_stat

VERSION = 5
CLOCK_STEP = 20_000_000
"""Nanoseconds: a file changed this shortly before it was read may change again without its times showing it."""

_COARSE = 10_000_000
"""Nanoseconds: a disk whose times are whole multiples of this may keep whole seconds, or every second one, alone."""
_COARSE_STEP = 2_000_000_000
"""Nanoseconds: the coarsest step of a disk's times (FAT)."""
ANYTHING = b""
"""Stands in `sent` for a pack: the remote got data."""
_LEARN_AT_ONCE = 50_000
_SIGN = 1 << 63
_SCHEMA = """
CREATE TABLE stat (path TEXT PRIMARY KEY, size INT, mtime INT, ctime INT, inode INT, content BLOB) WITHOUT ROWID;
CREATE TABLE pack (number INTEGER PRIMARY KEY, id BLOB UNIQUE, size INT);
CREATE TABLE place (chunk BLOB PRIMARY KEY, pack INT, start INT, length INT) WITHOUT ROWID;
CREATE TABLE placed (name TEXT PRIMARY KEY, manifest BLOB) WITHOUT ROWID;
CREATE TABLE clean (name TEXT PRIMARY KEY, version BLOB, fingerprint BLOB) WITHOUT ROWID;
CREATE TABLE sent (remote TEXT, pack BLOB, PRIMARY KEY (remote, pack)) WITHOUT ROWID;
"""


def clock_step(time: int) -> int:
    """Return for how long a change after a file's time may not show in it: see `CLOCK_STEP`. Both are nanoseconds."""
    return CLOCK_STEP if time % _COARSE else _COARSE_STEP


class FileStat(NamedTuple):
    """What is known of a file without reading it; see `registree.store.batches.PACKED_STAT`."""

    mode: int
    size: int
    mtime: int
    ctime: int
    inode: int


def file_stat(found: os.stat_result) -> FileStat:
    """Return what a listing would say of a file."""
    return FileStat(*PACKED_STAT.unpack(pack_stat(found)))


class Stat(NamedTuple):
    """What tells that a file is unchanged: size in bytes, times in nanoseconds, inode; and its content id."""

    size: int
    mtime: int
    ctime: int
    inode: int
    content: bytes

    def matches(self, found: FileStat) -> bool:
        """Tell whether a file is as it was; one with several links has no time of change to compare (0)."""
        return (
            self.size == found.size
            and self.mtime == found.mtime
            and self.inode == found.inode
            and found.ctime in (self.ctime, 0)
        )

    def is_older(self, moment: int) -> bool:
        """Tell whether a change after a moment (nanoseconds since the epoch) would show in its times."""
        return self.mtime <= moment - clock_step(self.ctime or self.mtime) >= self.ctime


def stat_row(found: FileStat, content: bytes, read_at: int) -> Stat | None:
    """Return the row for a file, or None when it is too young to be trusted.

    Parameters
    ----------
    read_at
        Nanoseconds since the epoch, taken before the file was read.
    """
    row = Stat(found.size, found.mtime, found.ctime, found.inode, content)
    return row if row.is_older(read_at) else None


def as_row(found: os.stat_result, content: bytes) -> Stat:
    """Return the row for a file, trusted or not."""
    return Stat(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, content)


def wait_for_clock(newest: int) -> int:
    """Wait until a change after a time would show in a file's times, 20 ms at most, and return the time then.

    Both are nanoseconds since the epoch.
    """
    time.sleep(min(max(0, newest + CLOCK_STEP - time.time_ns()), CLOCK_STEP) / 1e9)
    return time.time_ns()


class Learning:
    """Gathers rows for the state while files are read or placed, and writes them down some at a time.

    Parameters
    ----------
    name
        The dataset whose files they are.
    """

    def __init__(self, state: State, name: str) -> None:
        self._state = state
        self._name = name
        self._rows: list[tuple[str, Stat]] = []

    def add(self, path: str, row: Stat) -> None:
        """Note what a file of the dataset is (`path` is empty when the dataset is a file)."""
        self._rows.append((f"{self._name}/{path}" if path else self._name, row))
        if len(self._rows) >= _LEARN_AT_ONCE:
            now = time.time_ns()
            self._state.update(stats=(item for item in self._rows if item[1].is_older(now)))
            self._rows = [item for item in self._rows if not item[1].is_older(now)]

    def finish(self, manifest: bytes, moment: int) -> None:
        """Write down the rest, and what the work tree was made from or added as.

        Parameters
        ----------
        moment
            Nanoseconds since the epoch: what changed later is not what was noted.
        """
        self._state.update(stats=self.rows(moment), placed=[(self._name, manifest)])

    def rows(self, moment: int) -> Iterator[tuple[str, Stat]]:
        """Return what is left to write down of files that are older than a moment (nanoseconds since the epoch)."""
        return (item for item in self._rows if item[1].is_older(moment))


class State:
    """One SQLite file. A broken or older one is made anew: nothing in it is needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._readable = True

    def _open(self, *, create: bool) -> sqlite3.Connection | None:
        if self._connection is None and (create or self._readable):
            self._readable = create or os.path.exists(self._path)
            if not self._readable:
                return None
            try:
                self._connection = self._connect(create)
            except sqlite3.Error:
                if not create:  # an unreadable state only costs time; a reader does not mend it
                    self._readable = False
                    return None
                for suffix in ("", "-journal"):
                    if os.path.exists(self._path + suffix):
                        os.unlink(self._path + suffix)
                self._connection = self._connect(create)
        return self._connection

    def _connect(self, create: bool) -> sqlite3.Connection:
        if create:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
        mode = "rwc" if create else "rw"
        connection = sqlite3.connect(
            f"file:{_quoted(self._path)}?mode={mode}",
            uri=True, timeout=30, isolation_level=None, check_same_thread=False,
        )  # fmt: skip
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                if not create:
                    raise sqlite3.DatabaseError("another version")
                connection.execute("BEGIN IMMEDIATE")
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version != VERSION:
                    for table in ("stat", "pack", "place", "placed", "clean", "sent"):
                        connection.execute(f"DROP TABLE IF EXISTS {table}")
                    for statement in _SCHEMA.strip().split("\n"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={VERSION}")
                connection.execute("COMMIT")
            connection.execute("PRAGMA synchronous=NORMAL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def stats(self, prefix: str) -> Iterator[tuple[str, Stat]]:
        """Stream what is known of the files under a folder (or of the file itself), sorted by path below it."""
        rows = self._query(
            "SELECT path, size, mtime, ctime, inode, content FROM stat WHERE path >= ? AND path < ? ORDER BY path",
            (prefix + "/", prefix + "0"),  # '0' is the character after '/'
        )
        start = len(prefix) + 1
        for path, *values in rows:
            yield path[start:], _unsigned(values)

    def stat(self, path: str) -> Stat | None:
        """Return what is known of one file."""
        rows = self._query("SELECT size, mtime, ctime, inode, content FROM stat WHERE path = ?", (path,))
        return next((_unsigned(row) for row in rows), None)

    def place(self, chunk: bytes) -> Extent | None:
        """Return where a chunk lies, if it is known."""
        rows = self._query(
            "SELECT id, size, start, length FROM place JOIN pack ON pack = number WHERE chunk = ?", (chunk,)
        )
        return next((Extent(PackRow(row[0], row[1]), row[2], row[3]) for row in rows), None)

    def placed(self, name: str) -> bytes | None:
        """Return the manifest that a dataset's work tree was last made from or added as."""
        return next((row[0] for row in self._query("SELECT manifest FROM placed WHERE name = ?", (name,))), None)

    def clean(self, name: str, version: bytes) -> bytes | None:
        """Return the fingerprint that a work tree had when it was a version (a manifest's id, or a part's)."""
        rows = self._query("SELECT fingerprint FROM clean WHERE name = ? AND version = ?", (name, version))
        return next((row[0] for row in rows), None)

    def was_sent(self, remote: str, pack: bytes) -> bool:
        """Tell whether a pack is known to be on the remote with an address."""
        rows = self._query("SELECT 1 FROM sent WHERE remote = ? AND pack = ?", (remote, pack))
        return next((True for _ in rows), False)

    def _query(self, statement: str, values: tuple[object, ...]) -> Iterator[Any]:
        connection = self._open(create=False)
        if connection is not None:
            try:
                yield from connection.execute(statement, values)
            except sqlite3.DatabaseError:  # a damaged state knows nothing
                self._readable = False
                self.close()

    def update(
        self,
        *,
        stats: Iterable[tuple[str, Stat]] = (),
        forget: Iterable[str] = (),
        packs: Iterable[tuple[PackRow, Sequence[tuple[bytes, int]]]] = (),
        sent: Iterable[tuple[str, bytes]] = (),
        placed: Iterable[tuple[str, bytes]] = (),
        clean: Iterable[tuple[str, bytes, bytes]] = (),
        unclean: Iterable[str] = (),
    ) -> None:
        """Write what was learnt, in one transaction: of `packs`, the ids and lengths of their chunks in order.

        A state that cannot be written (a read-only disk) is no error: it is a cache.
        """
        try:
            connection = self._open(create=True)  # a reader's is taken: what it reads meanwhile goes on
            if connection is None:
                return
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("DELETE FROM stat WHERE path = ?", ((path,) for path in forget))
            connection.executemany(
                "INSERT OR REPLACE INTO stat VALUES (?, ?, ?, ?, ?, ?)",
                ((path, *(row if _fits(row) else _signed(row))) for path, row in stats),
            )
            for pack, chunks in packs:
                connection.execute("INSERT OR IGNORE INTO pack (id, size) VALUES (?, ?)", (pack.id, pack.size))
                (number,) = connection.execute("SELECT number FROM pack WHERE id = ?", (pack.id,)).fetchone()
                starts = accumulate((length for _, length in chunks), initial=0)
                connection.executemany(
                    "INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?)",
                    ((chunk, number, start, length) for (chunk, length), start in zip(chunks, starts, strict=False)),
                )
            connection.executemany("INSERT OR IGNORE INTO sent VALUES (?, ?)", sent)
            connection.executemany("INSERT OR REPLACE INTO placed VALUES (?, ?)", placed)
            connection.executemany("DELETE FROM clean WHERE name = ?", ((name,) for name in unclean))
            connection.executemany("INSERT OR REPLACE INTO clean VALUES (?, ?, ?)", clean)
            connection.execute("COMMIT")
        except (sqlite3.Error, OSError):
            self.close()

    def rename(self, name: str, new: str) -> None:
        """Note that a dataset's files have moved: they keep their inodes and times."""
        rows = [(f"{new}/{path}", row) for path, row in self.stats(name)]
        own = self.stat(name)
        rows += [(new, own)] if own is not None else []
        manifest = self.placed(name)
        gone = [name, *(name + path[len(new) :] for path, _ in rows)]
        placed = [(new, manifest)] if manifest is not None else []
        self.update(stats=rows, forget=gone, placed=placed, unclean=[name])  # its folder's times are others now

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _fits(row: Stat) -> bool:
    return row.inode < _SIGN and row.mtime > -_SIGN


def _signed(row: Stat) -> Stat:
    """Return a row as SQLite can hold it: an inode may have 64 bits, its numbers have 63 and a sign."""
    inode = row.inode if row.inode < _SIGN else row.inode - 2 * _SIGN
    return row._replace(mtime=max(row.mtime, 1 - _SIGN), inode=inode)


def _unsigned(values: Sequence[Any]) -> Stat:
    row = Stat(*values)
    return row if row.inode >= 0 else row._replace(inode=row.inode + 2 * _SIGN)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
