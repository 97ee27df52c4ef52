"""Files on this machine: hash, copy and link them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from enum import Enum

from blake3 import blake3

from registree.model.ids import ContentId, hash_bytes
from registree.store.batches import BLOCK

_SMALL = 1 << 20
_BLOCK = 16 << 20
_FICLONERANGE = 0x4020940D
"""ioctl number of FICLONERANGE (linux/fs.h); it takes a descriptor, an offset, a length and a position."""
_CANNOT = (
    errno.EXDEV,
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.EINVAL,
    errno.ENOSYS,
    errno.EMLINK,
    errno.ENOTTY,
    errno.EACCES,
)


flush_data = getattr(os, "fdatasync", os.fsync)
"""Waits until the bytes of an open file are on the disk; macOS knows only how to wait for its times as well."""


class LinkKind(Enum):
    """How a file of the cache gets into a work tree."""

    REFLINK = "reflink"
    HARDLINK = "hardlink"
    COPY = "copy"


def hash_file(path: str) -> ContentId:
    """Return the content id of a file, in bounded memory, on all cores when it is large."""
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size < _SMALL:
            return hash_bytes(file.read())
        hasher = blake3(max_threads=blake3.AUTO)
        block = memoryview(bytearray(min(size, _BLOCK)))
        while count := file.readinto(block):
            hasher.update(block[:count])
        return ContentId(hasher.digest())


def copy_range(source: int, target: int, offset: int, length: int, position: int) -> int:
    """Copy bytes from one open file to another; the kernel copies, and shares blocks where the disk can.

    Returns
    -------
    How many were copied: fewer than `length` when the file ends before.
    """
    done = 0
    while done < length:
        copied = 0
        if hasattr(os, "copy_file_range"):  # not on macOS
            with suppress(OSError):
                copied = os.copy_file_range(source, target, length - done, offset + done, position + done)
        if not copied:  # the file ends, or this disk or kernel cannot: whatever is wrong is said now
            block = os.pread(source, min(BLOCK, length - done), offset + done)
            copied = os.pwrite(target, block, position + done) if block else 0
        if not copied:
            break
        done += copied
    return done


def share_range(source: int, target: int, offset: int, length: int, position: int) -> bool:
    """Let one open file share blocks with another; False where the disk cannot, or not this range (0: to the end)."""
    try:
        fcntl.ioctl(target, _FICLONERANGE, struct.pack("qQQQ", source, offset, length, position))
    except OSError:  # whoever copies it in place of that is told what is wrong
        return False
    return True


def drop_from_memory(descriptor: int) -> None:
    """Let the kernel forget what it keeps in memory of an open file that is on the disk.

    A large pack would push out what is read more often. And memory that is used again costs little; new memory has to
    be cleared first, and a virtual machine has to ask for it.
    """
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with suppress(OSError):  # it is advice
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def begin_to_write(descriptor: int, offset: int, length: int) -> None:
    """Have the kernel write bytes of an open file to the disk from now on: whoever waits for all of it waits less."""
    if hasattr(os, "posix_fadvise"):  # not on macOS; what is not written yet is not forgotten, and written soon
        with suppress(OSError):  # it is advice
            os.posix_fadvise(descriptor, offset, length, os.POSIX_FADV_DONTNEED)


def is_at(path: str, descriptor: int) -> bool:
    """Tell whether an open file has this path."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def copy_file(source: str, target: str, mode: int) -> None:
    """Copy a file to a new path, as `copy_range` does."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        copy_open_file(reader, target, mode)
    finally:
        os.close(reader)


def copy_open_file(reader: int, target: str, mode: int, *, flush: bool = False) -> None:
    """Copy an open file to a new path, as `copy_range` does; with `flush`, wait until it is on the disk."""
    writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        copy_range(reader, writer, 0, os.fstat(reader).st_size, 0)
        if flush:
            flush_data(writer)
    finally:
        os.close(writer)


def try_reflink(source: str, target: str, mode: int) -> bool:
    """Make a new file that shares the blocks of another; False where the disk cannot."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            shared = share_range(reader, writer, 0, 0, 0)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    if not shared:
        os.unlink(target)
    return shared


def try_hardlink(source: str, target: str) -> bool:
    """Give a file a second name; False where the disk cannot."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        return False
    return True
