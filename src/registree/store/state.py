"""The local state, `.reg/state.sqlite`: what files were when last read, and where chunks lie. Always safe to delete."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import msgspec

from registree.model.places import Extent, PackRow
from registree.store.file_stat import Stat
from registree.store.fingerprint import Fingerprint
from registree.store.known_chunks import CHUNK_TABLES, KnownChunks
from registree.store.known_files import FILE_TABLES, KnownFiles

VERSION = 6
ANYTHING = b""
"""Stands in `sent` for a pack: the remote got data."""
_LEARN_AT_ONCE = 50_000
_OTHERS = """\
CREATE TABLE placed (name TEXT PRIMARY KEY, manifest BLOB) WITHOUT ROWID;
CREATE TABLE clean (name TEXT PRIMARY KEY, version BLOB, fingerprint BLOB, newest INT) WITHOUT ROWID;
CREATE TABLE sent (remote TEXT, pack BLOB, PRIMARY KEY (remote, pack)) WITHOUT ROWID;
"""


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
        self._is_damaged = False
        self._files, self._chunks = KnownFiles(), KnownChunks()

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
                    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
                    for (table,) in connection.execute(tables).fetchall():
                        connection.execute(f"DROP TABLE {table}")
                    for statement in (FILE_TABLES + CHUNK_TABLES + _OTHERS).strip().split("\n"):
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
        start = len(prefix) + 1
        with self._reading() as connection:
            if connection is not None:  # '0' is the character after '/'
                for path, row in self._files.between(connection, prefix + "/", prefix + "0"):
                    yield path[start:], row

    def stat(self, path: str) -> Stat | None:
        """Return what is known of one file."""
        with self._reading() as connection:
            return self._files.find(connection, path) if connection is not None else None
        return None

    def place(self, chunk: bytes) -> Extent | None:
        """Return where a chunk lies, if it is known."""
        if self._connection is None and not self._readable:  # asked of every new chunk
            return None
        with self._reading() as connection:
            return self._chunks.find(connection, chunk) if connection is not None else None
        return None

    def has_pack(self, pack: bytes) -> bool:
        """Tell whether it knows where the chunks of a pack lie."""
        with self._reading() as connection:
            return connection is not None and self._chunks.has_pack(connection, pack)
        return False

    def placed(self, name: str) -> bytes | None:
        """Return the manifest that a dataset's work tree was last made from or added as."""
        row = self._row("SELECT manifest FROM placed WHERE name = ?", (name,))
        return row[0] if row is not None else None

    def clean(self, name: str, version: bytes) -> Fingerprint | None:
        """Return the fingerprint that a work tree had when it was a version (a manifest's id, or a part's)."""
        row = self._row("SELECT fingerprint, newest FROM clean WHERE name = ? AND version = ?", (name, version))
        return Fingerprint(*row) if row is not None else None

    def was_sent(self, remote: str, pack: bytes) -> bool:
        """Tell whether a pack is known to be on the remote with an address."""
        return self._row("SELECT 1 FROM sent WHERE remote = ? AND pack = ?", (remote, pack)) is not None

    def _row(self, statement: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        with self._reading() as connection:
            return connection.execute(statement, values).fetchone() if connection is not None else None
        return None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection | None]:
        """Give the connection to read from, if there is one; a state that turns out to be damaged knows nothing."""
        try:
            yield self._open(create=False)
        except (sqlite3.DatabaseError, msgspec.DecodeError) as error:
            self._readable = False
            self._is_damaged = isinstance(error, msgspec.DecodeError)
            self.close()

    def update(
        self,
        *,
        stats: Iterable[tuple[str, Stat]] = (),
        forget: Iterable[str] = (),
        packs: Iterable[tuple[PackRow, Sequence[tuple[bytes, int]]]] = (),
        sent: Iterable[tuple[str, bytes]] = (),
        lost: Iterable[tuple[str, bytes]] = (),
        placed: Iterable[tuple[str, bytes]] = (),
        clean: Iterable[tuple[str, bytes, Fingerprint]] = (),
        unclean: Iterable[str] = (),
    ) -> None:
        """Write what was learnt, in one transaction: of `packs`, the ids and lengths of their chunks in order.

        `sent` and `lost` are packs that a remote with an address has, and has no more.
        A state that cannot be written (a read-only disk) is no error: it is a cache.
        """
        try:
            connection = self._open(create=True)  # a reader's is taken: what it reads meanwhile goes on
            if connection is None:
                return
            connection.execute("BEGIN IMMEDIATE")
            if self._is_damaged:
                self._files.forget_all(connection)
                self._chunks.forget_all(connection)
                self._is_damaged = False
            rows = chain(((path, None) for path in forget), stats)
            while some := list(islice(rows, _LEARN_AT_ONCE)):
                self._files.note(connection, some)
            for pack, chunks in packs:
                self._chunks.note(connection, pack, chunks)
            connection.executemany("INSERT OR IGNORE INTO sent VALUES (?, ?)", sent)
            connection.executemany("DELETE FROM sent WHERE remote = ? AND pack = ?", lost)
            connection.executemany("INSERT OR REPLACE INTO placed VALUES (?, ?)", placed)
            connection.executemany("DELETE FROM clean WHERE name = ?", ((name,) for name in unclean))
            connection.executemany(
                "INSERT OR REPLACE INTO clean VALUES (?, ?, ?, ?)",
                ((name, version, *found) for name, version, found in clean),
            )
            connection.execute("COMMIT")
        except msgspec.DecodeError:
            self._is_damaged = True
            self.close()
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
            self._files, self._chunks = KnownFiles(), KnownChunks()


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
