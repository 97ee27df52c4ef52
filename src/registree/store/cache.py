"""The user's cache: files, pages, maps and mirrors of registries, shared by all projects. Always safe to delete.

A file in it is complete from the moment it has its name. Files are read-only; a file whose size, time or inode is
not what was noted when it came is hashed again before it is used, so that an edit through a hard link is found out.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from registree.errors import translate_os_error
from registree.model.ids import hash_bytes
from registree.store.batches import link_unless_there, nearest_time
from registree.store.file_stat import signed
from registree.store.files import copy_file, hash_file, try_reflink

FILES, PARTIAL, MIRRORS = "files", "partial", "mirrors"
_NOTES_AT_ONCE = 50_000
_BLOCK = 512
"""Bytes of a block as `stat` counts them."""
_NOTES = ("notes.sqlite", "notes.sqlite-journal")
_PART = r"(?:files|partial|pages|manifests|maps/[0-9a-f]{16})"
_MIRROR = r"mirrors/[0-9a-f]{32}\.git(?:\.[^/]*)?(?:/.*)?"
_OWN = re.compile(rf"(?:{_PART}/([0-9a-f]{{2}})/\1[0-9a-f]{{62}}(?:\.[^/]*)?|{_MIRROR})\Z", re.DOTALL)
"""Files in its folder that are the cache's."""
_OWN_FOLDER = re.compile(rf"(?:{_PART}(?:/[0-9a-f]{{2}})?|maps|mirrors|{_MIRROR})\Z", re.DOTALL)
"""Folders in its folder that are the cache's."""
_PARTS = (FILES, PARTIAL, MIRRORS, "pages", "maps", "manifests")
TAG = "CACHEDIR.TAG"
_TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of registree: safe to delete. https://bford.info/cachedir/\n"


class CacheUsage(msgspec.Struct, frozen=True):
    """Files and bytes of one part of the cache."""

    part: str
    files: int
    size: int


class Cache:
    """The cache in one directory, made when first written to."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._made: set[str] = set()
        self._without: dict[int, bool] = {}
        self._with_room: set[int] = set()
        self._notes: sqlite3.Connection | None = None
        self._pending: list[tuple[bytes, int, int, int]] = []

    def get(self, folder: str, identifier: bytes) -> bytes | None:
        """Return a small object, or None."""
        try:
            with open(self._path(folder, identifier), "rb") as file:
                return file.read()
        except OSError:
            return None

    def put(self, folder: str, identifier: bytes, content: bytes) -> None:
        """Keep a small object; a cache that cannot be written keeps nothing."""
        path = self._path(folder, identifier)
        temporary = f"{path}.{secrets.token_hex(6)}"
        try:
            self._make(os.path.dirname(path))
            with open(temporary, "xb") as file:
                file.write(content)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)

    def file(self, content: bytes, size: int, *, executable: bool) -> str | None:
        """Return the path of a file with this content, or None; a damaged one is dropped."""
        path = self.file_path(content, executable=executable)
        found = self._stat(content, path)
        if found is None:
            return None
        if found.st_size == size:
            note = self._note(content, executable)
            if note == _noted(found.st_ino, found.st_mtime_ns):
                return path
            try:
                is_right = hash_file(path) == content
            except OSError:  # it has gone, or is somebody else's; or its disk is failing
                return None
            if is_right:
                self.note(content, found.st_ino, found.st_mtime_ns, size, executable=executable)
                return path
        with suppress(OSError):
            os.unlink(path)
        return None

    def likely_file(self, content: bytes, size: int, *, executable: bool) -> str | None:
        """Return the path of a file that should have this content, or None: whoever copies it verifies it."""
        path = self.file_path(content, executable=executable)
        found = self._stat(content, path)
        return path if found is not None and found.st_size == size else None

    def _stat(self, content: bytes, path: str) -> os.stat_result | None:
        if self._is_without(content[0]):
            return None
        try:
            return os.stat(path, follow_symlinks=False)
        except OSError:
            return None

    def _is_without(self, first: int) -> bool:
        """Tell whether the cache had no file at all with this first byte of its id when this was first asked."""
        if first not in self._without:
            self._without[first] = not os.path.isdir(f"{self.root}/{FILES}/{first:02x}")
        return self._without[first]

    def file_path(self, content: bytes, *, executable: bool) -> str:
        """Return where a file with this content lies, if it does (executable ones lie apart: links share modes)."""
        return self._path(FILES, content) + (".x" if executable else "")

    def room_for(self, content: bytes, *, executable: bool) -> str:
        """Return where a file with this content will lie, with its folder made; "" when the cache cannot be written."""
        path = self.file_path(content, executable=executable)
        if content[0] not in self._with_room:
            try:
                self._make(os.path.dirname(path))
            except OSError:
                return ""
            self._with_room.add(content[0])
        return path

    def note(self, content: bytes, inode: int, modified: int, size: int, *, executable: bool) -> None:
        """Note what a file here is: its inode, its time of modification (nanoseconds) and its size (bytes)."""
        self._pending.append((_note_key(content, executable), *_noted(inode, modified), size))
        if len(self._pending) >= _NOTES_AT_ONCE:
            self._write_notes()

    def adopt(self, path: str, content: bytes, *, executable: bool) -> None:
        """Keep a verified file by linking it, if the disk can.

        Raises
        ------
        StoreError
            When the disk is full.
        """
        try:
            linked = link_unless_there(path, self.room_for(content, executable=executable))
        except OSError as error:
            raise translate_os_error(error, "a file", self.root) from error
        self._without.pop(content[0], None)
        if linked:
            found = os.stat(path)
            self.note(content, found.st_ino, found.st_mtime_ns, found.st_size, executable=executable)

    def adopt_copy(self, path: str, content: bytes, *, executable: bool) -> None:
        """Keep a copy of a verified file, sharing its blocks where the disk can."""
        target = self.file_path(content, executable=executable)
        temporary = f"{target}.{secrets.token_hex(6)}"
        mode = 0o555 if executable else 0o444
        try:
            self._make(os.path.dirname(target))
            if not try_reflink(path, temporary, mode):
                copy_file(path, temporary, mode)
            os.replace(temporary, target)
            found = os.stat(target)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            return
        self._without.pop(content[0], None)
        self.note(content, found.st_ino, found.st_mtime_ns, found.st_size, executable=executable)

    def partial(self, content: bytes, size: int) -> str:
        """Return where the download of a large file of some bytes is kept while it is not whole.

        Raises
        ------
        OSError
            When the cache cannot be written, or its disk has no room for it.
        """
        path = self._path(PARTIAL, content)
        self._make(os.path.dirname(path))
        with suppress(FileNotFoundError):
            size -= os.stat(path).st_blocks * _BLOCK
        disk = os.statvfs(os.path.dirname(path))
        if disk.f_bavail * disk.f_frsize < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return path

    def mirror(self, address: str) -> str:
        """Return the folder of the mirror of a registry."""
        return os.path.join(self.root, MIRRORS, hash_bytes(address.encode()).hex()[:32] + ".git")

    def flush(self) -> None:
        """Write down what is known of the files that came; from now on they are found here."""
        self._without.clear()
        self._write_notes()

    def _write_notes(self) -> None:
        """Write down what is pending, in one transaction."""
        if not self._pending:
            return
        try:
            self._make(self.root)
            connection = sqlite3.connect(self._notes_path(), timeout=30, isolation_level=None)
            try:
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(
                    "CREATE TABLE IF NOT EXISTS note "
                    "(file BLOB PRIMARY KEY, inode INT, mtime INT, size INT) WITHOUT ROWID"
                )
                connection.executemany("INSERT OR REPLACE INTO note VALUES (?, ?, ?, ?)", self._pending)
                connection.execute("COMMIT")
            finally:
                connection.close()
        except (sqlite3.OperationalError, OSError):
            return  # without notes, files are hashed again when next used
        except sqlite3.Error:
            if self._notes is not None:
                self._notes.close()
                self._notes = None
            for name in _NOTES:  # they are damaged, and begin anew
                with suppress(OSError):
                    os.unlink(os.path.join(self.root, name))
        finally:
            self._pending.clear()

    def usage(self) -> list[CacheUsage]:
        """Count files and bytes by part."""
        counts: dict[str, list[int]] = {}
        for path, found in self._walk():
            part = os.path.relpath(path, self.root).split(os.sep)[0]
            row = counts.setdefault(part, [0, 0])
            row[0] += 1
            row[1] += found.st_size
        return [CacheUsage(part, *row) for part, row in sorted(counts.items())]

    def prune(self, older_than: float, now: float, *, dry_run: bool = False) -> CacheUsage:
        """Drop files that no project links to and that were not used for some time (seconds), mirrors apart."""
        files = size = 0
        for path, found in self._walk():
            part = os.path.relpath(path, self.root).split(os.sep)[0]
            last_used = max(found.st_mtime, found.st_atime, found.st_ctime)
            if (
                part in (FILES, PARTIAL, "pages", "maps", "manifests")
                and found.st_nlink == 1
                and now - last_used >= older_than
            ):
                files, size = files + 1, size + found.st_size
                if not dry_run:
                    with suppress(FileNotFoundError):
                        os.unlink(path)
        return CacheUsage("all", files, size)

    def clean(self, *, dry_run: bool = False) -> CacheUsage:
        """Drop all of it, and nothing else that may stand in its folder."""
        rows = self.usage()
        if not dry_run:
            for path, _ in self._walk():
                with suppress(FileNotFoundError):
                    os.unlink(path)
            for part in _PARTS:
                for folder, _, _ in os.walk(os.path.join(self.root, part), topdown=False):
                    if _OWN_FOLDER.match(os.path.relpath(folder, self.root)):
                        with suppress(OSError):  # something is in it
                            os.rmdir(folder)
            for name in (*_NOTES, TAG):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.root, name))
            with suppress(OSError):
                os.rmdir(self.root)
            self._made.clear()
            self._with_room.clear()
        return CacheUsage("all", sum(row.files for row in rows), sum(row.size for row in rows))

    def _walk(self) -> Iterator[tuple[str, os.stat_result]]:
        """Find what is the cache's: its folder may be somebody's own, with folders of the same names."""
        tops = [os.path.join(self.root, part) for part in _PARTS]
        for folder, _, names in (row for top in tops for row in os.walk(top)):
            for name in names:
                path = os.path.join(folder, name)
                if _OWN.match(os.path.relpath(path, self.root)):
                    with suppress(FileNotFoundError):
                        yield path, os.stat(path, follow_symlinks=False)

    def _path(self, folder: str, identifier: bytes) -> str:
        name = identifier.hex()
        return f"{self.root}/{folder}/{name[:2]}/{name}"

    def _make(self, folder: str) -> None:
        if folder not in self._made:
            os.makedirs(folder, exist_ok=True)
            tag = os.path.join(self.root, TAG)
            if not os.path.exists(tag):
                with open(tag, "w", encoding="utf-8") as file:
                    file.write(_TAG_TEXT)
            self._made.add(folder)

    def _notes_path(self) -> str:
        return os.path.join(self.root, _NOTES[0])

    def _note(self, content: bytes, executable: bool) -> tuple[int, int] | None:
        try:
            if self._notes is None:
                if not os.path.exists(self._notes_path()):
                    return None
                self._notes = sqlite3.connect(self._notes_path(), timeout=30, isolation_level=None)
            row = self._notes.execute(
                "SELECT inode, mtime FROM note WHERE file = ?", (_note_key(content, executable),)
            ).fetchone()
        except sqlite3.Error:
            return None
        return (row[0], row[1]) if row else None


def _noted(inode: int, modified: int) -> tuple[int, int]:
    """Return an inode and a time (nanoseconds since the epoch) as they are written down."""
    return signed(inode), nearest_time(modified)


def _note_key(content: bytes, executable: bool) -> bytes:
    return content + b"x" if executable else content
