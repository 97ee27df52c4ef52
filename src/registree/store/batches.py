"""Work on many files at once, in memory that processes share: what a worker does, here or beside this process.

A worker starts for every large command, so this imports next to nothing, and rows are plain tuples.
"""

from __future__ import annotations

import errno
import mmap
import os
import pickle
import stat
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from blake3 import blake3

NewFile: TypeAlias = tuple[str, int, int, int, bytes, str]
"""A file to make: its path, its mode, where its bytes start in the memory and how many they are, their content id, and
the second name it gets ("" for none)."""
Made: TypeAlias = tuple[int, int, int, bool] | None
"""A file made: its inode, its times of modification and of change (nanoseconds), and whether it got its second name.
None when the bytes were not those of the content id: then there is no file."""
OldFile: TypeAlias = tuple[str, int, int]
"""A file to read: its path, where its bytes go in the memory, and how many they are; there is room for one more."""
Read: TypeAlias = tuple[bytes, int, int, int, int] | None
"""A file read: its content id, its times of modification and of change (nanoseconds), its inode and its mode. None when
it has more or fewer bytes by now."""
Listed: TypeAlias = tuple[bytes, int, bytes, bytes]
"""A folder listed: a hash over it and what is in it, when the last of that changed (nanoseconds), the names in it
(sorted, a zero byte between them, those of folders with a slash behind), and a `PACKED_STAT` for each."""
BLOCK = 128 << 10
"""Bytes a write gives the kernel: for more it looks for large pages, and these are rarely at hand. What was read or
hashed just before is in a processor's cache still."""
PACKED_STAT = struct.Struct("=qqqqQ")
"""What is known of a name without reading: its mode, and of what is no folder its size in bytes, its times of
modification and of change (nanoseconds), and its inode. A file with several links has no time of change (0): linking it
elsewhere changes that alone."""
_LATEST = (1 << 63) - 1
"""Nanoseconds since the epoch: the last moment that 63 bits and a sign hold, and before it the first."""
_FOLDER = PACKED_STAT.pack(stat.S_IFDIR, 0, 0, 0, 0)


def pack_stat(found: os.stat_result) -> bytes:
    """Return a `PACKED_STAT`; a time that it cannot hold becomes the nearest that it can."""
    changed = 0 if found.st_nlink > 1 else found.st_ctime_ns
    try:
        return PACKED_STAT.pack(found.st_mode, found.st_size, found.st_mtime_ns, changed, found.st_ino)
    except struct.error:
        times = map(nearest_time, (found.st_mtime_ns, changed))
        return PACKED_STAT.pack(found.st_mode, found.st_size, *times, found.st_ino)


def nearest_time(time: int) -> int:
    """Return a time, or the nearest that can be written down (both nanoseconds since the epoch)."""
    return max(-_LATEST, min(time, _LATEST))


def list_folders(memory: memoryview, rows: Sequence[bytes], parent: int = 0) -> list[Listed]:
    """List folders at given paths; the memory is not used, and `parent` is as in `read_files`."""
    listed: list[Listed] = []
    for folder in rows:
        _stop_without(parent)
        listed.append(_listed(folder))
    return listed


def hash_folders(memory: memoryview, rows: Sequence[bytes], parent: int = 0) -> list[tuple[bytes, int, list[bytes]]]:
    """List folders as `list_folders` does, and return only their hashes, when they changed, and the folders in them."""
    hashed: list[tuple[bytes, int, list[bytes]]] = []
    for folder in rows:
        _stop_without(parent)
        digest, newest, names, _ = _listed(folder)
        hashed.append((digest, newest, [name[:-1] for name in names.split(b"\0") if name.endswith(b"/")]))
    return hashed


def _listed(folder: bytes) -> Listed:
    """List one folder. Its own times count too: they tell what was taken out of it."""
    own = os.stat(folder, follow_symlinks=False)
    newest = max(own.st_mtime_ns, own.st_ctime_ns)
    rules = b""
    entries: list[tuple[bytes, bytes]] = []
    with os.scandir(folder) as listing:
        for entry in listing:
            if entry.is_dir(follow_symlinks=False):
                entries.append((entry.name + b"/", _FOLDER))
                continue
            with suppress(FileNotFoundError):  # what has gone by now was not there
                found = entry.stat(follow_symlinks=False)
                newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
                entries.append((entry.name, pack_stat(found)))
                if entry.name == b".regignore" and entry.is_symlink():  # what it says counts
                    said = entry.stat()
                    newest = max(newest, said.st_mtime_ns, said.st_ctime_ns)
                    rules = b"%d %d %d %d" % (said.st_size, said.st_mtime_ns, said.st_ctime_ns, said.st_ino)
    entries.sort()
    names = b"\0".join([name for name, _ in entries])
    numbers = b"".join([row for _, row in entries])
    head = b"%d %d %d %d %b" % (own.st_mtime_ns, own.st_ctime_ns, own.st_ino, len(names), rules)
    hasher = blake3(head + b"\0")
    hasher.update(names)
    hasher.update(numbers)
    return hasher.digest(), newest, names, numbers


def read_files(memory: memoryview, rows: Sequence[OldFile], parent: int = 0) -> list[Read]:
    """Read and hash files.

    Parameters
    ----------
    parent
        The process for whom; when it has gone, so has the reason to go on.
    """
    read: list[Read] = []
    for row in rows:
        _stop_without(parent)
        found = _read(memory, row)
        if found is None:
            read.append(None)
        else:
            _, start, size = row
            content = blake3(memory[start : start + size]).digest()
            times = nearest_time(found.st_mtime_ns), nearest_time(found.st_ctime_ns)
            read.append((content, *times, found.st_ino, found.st_mode))
    return read


def write_files(memory: memoryview, rows: Sequence[NewFile], parent: int = 0) -> list[Made]:
    """Verify and make files, which must not exist, in folders that do; see `read_files`."""
    made: list[Made] = []
    for row in rows:
        _stop_without(parent)
        made.append(_make(memory, row))
    return made


def copy_files(memory: memoryview, rows: Sequence[tuple[str, NewFile]], parent: int = 0) -> list[Made]:
    """Make files from others at given paths, read into the memory and verified; see `write_files`.

    One that is not what it should be is removed: it is a cache's. There is no file then, nor when it cannot be read.
    """
    made: list[Made] = []
    for source, row in rows:
        _stop_without(parent)
        try:
            found = _read(memory, (source, row[2], row[3]))
        except OSError:  # it has gone, or is somebody else's; or its disk is failing
            made.append(None)
            continue
        one = _make(memory, row) if found is not None else None
        if one is None:
            with suppress(OSError):
                os.unlink(source)
        made.append(one)
    return made


def _stop_without(parent: int) -> None:
    if parent and os.getppid() != parent:
        raise SystemExit


def _read(memory: memoryview, row: OldFile) -> os.stat_result | None:
    """Read a file into the memory; None when it has more or fewer bytes."""
    path, start, size = row
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        count = os.readv(descriptor, [memory[start : start + size + 1]])
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return found if count == size == found.st_size else None


def _make(memory: memoryview, row: NewFile) -> Made:
    path, mode, start, length, content, second = row
    piece = memory[start : start + length]
    if blake3(piece).digest() != content:
        return None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        while piece:
            piece = piece[os.write(descriptor, piece[:BLOCK]) :]
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, link_unless_there(path, second)


def link_unless_there(path: str, second: str) -> bool:
    """Give a file a second name, and tell whether it got it: not when that is taken, or "", or cannot be.

    Raises
    ------
    OSError
        When the disk is full.
    """
    if not second:
        return False
    try:
        os.link(path, second, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        return False
    return True


def serve(parent: int, descriptor: int, commands: int, answers: int) -> None:
    """Do what is asked until there is no more.

    Pickled come the size of the memory in bytes, and then ``(task, start, length, rows)``; ``(result, error)`` go out.
    """
    with suppress(EOFError), open(commands, "rb") as asked, open(answers, "wb") as told:
        memory = memoryview(mmap.mmap(descriptor, pickle.load(asked)))  # noqa: S301 -- the parent's own pipe
        pickle.dump((None, None), told)
        told.flush()
        while True:
            task, start, length, rows = pickle.load(asked)  # noqa: S301 -- the parent's own pipe
            answer: tuple[list[Any] | None, Exception | None]
            try:
                answer = task(memory[start : start + length], rows, parent), None
            except Exception as error:  # noqa: BLE001 -- whoever asked is told
                answer = None, error
            pickle.dump(answer, told)
            told.flush()
