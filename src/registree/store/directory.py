"""A store in a local directory: the default remote, and the outbox."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from registree.errors import DISK_FULL, ObjectMissing, RegError, StoreError, translate_os_error
from registree.model.places import PackRow
from registree.store.base import Sent, Store, check_whole, nobody, write_at
from registree.store.files import copy_range, try_hardlink
from registree.store.layout import PACKS, TEMPORARY, key

_COPIED_AT_ONCE = 256 << 20


class DirectoryStore(Store):
    """Objects as files under one directory.

    A write goes to a temporary name beside its target, is flushed to the disk and renamed: a crash leaves the old
    object or the new one.
    """

    is_local = True

    def __init__(self, root: str, address: str | None = None) -> None:
        self.root = root
        self.address = address or root

    def path(self, key: str) -> str:
        """Return the file of a key."""
        return f"{self.root}/{key}"

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        with self._translated(key):
            descriptor = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(descriptor).st_size
                wanted = size - offset if length is None else length
                if length is None:
                    check_whole(wanted, key, self.address)
                if offset + wanted > size:
                    raise ObjectMissing(key, self.address, shorter=True)
                content = os.pread(descriptor, wanted, offset)
                while len(content) < wanted:  # a read is cut at 2 GiB, or the file ends
                    more = os.pread(descriptor, wanted - len(content), offset + len(content))
                    if not more:
                        raise ObjectMissing(key, self.address)
                    content += more
                return content
            finally:
                os.close(descriptor)

    def fill(self, key: str, offset: int, memory: memoryview) -> None:
        """See `Store.fill`."""
        with self._translated(key), open(self.path(key), "rb", buffering=0) as file:
            while memory:
                count = os.preadv(file.fileno(), [memory], offset)
                if not count:
                    raise ObjectMissing(key, self.address, shorter=True)
                memory, offset = memory[count:], offset + count

    def copy_range(self, key: str, offset: int, length: int, descriptor: int, position: int) -> memoryview | None:
        """See `Store.copy_range`; the kernel copies, and shares blocks on disks that can."""
        with self._translated(key):
            source = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
        try:
            copied = copy_range(source, descriptor, offset, length, position)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise  # that is the other file's disk, not the store's
            raise translate_os_error(error, key, self.address) from error
        finally:
            os.close(source)
        if copied < length:
            raise ObjectMissing(key, self.address)
        return None

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        with self._translated(key):
            try:
                found = os.stat(self.path(key))
                return found.st_size if stat.S_ISREG(found.st_mode) else None
            except (FileNotFoundError, NotADirectoryError):
                return None

    def lies_beside(self, pack: PackRow, folder: str) -> bool:
        """See `Store.lies_beside`."""
        try:
            found = os.stat(self.path(key(PACKS, pack.id)))
            return found.st_size == pack.size and found.st_dev == os.stat(folder).st_dev
        except OSError:
            return False

    def write(self, key: str, content: bytes) -> None:
        """See `Store.write`."""
        with self._translated(key), self._replacing(key) as descriptor:
            write_at(descriptor, content, 0)

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """See `Store.upload`."""
        with self._translated(key), open(path, "rb") as file, self._replacing(key) as descriptor:
            length = os.fstat(file.fileno()).st_size
            for start in range(0, length, _COPIED_AT_ONCE):
                size = min(_COPIED_AT_ONCE, length - start)
                if copy_range(file.fileno(), descriptor, start, size, start) < size:
                    raise ObjectMissing(os.path.basename(path), os.path.dirname(path))
                sent(size)

    def link(self, key: str, path: str) -> bool:
        """See `Store.link`: it must lie on the same disk and be as accessible as a file made here would be."""
        with self._translated(key):
            folder = os.path.dirname(self.path(key))
            os.makedirs(folder, exist_ok=True)
            temporary = _temporary_in(folder)
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            try:
                alike = _are_as_accessible(path, temporary)
                os.unlink(temporary)
                if not alike or not try_hardlink(path, temporary):
                    return False
                os.replace(temporary, self.path(key))
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            sync_directory(folder)
            return True

    def adopt(self, key: str, path: str) -> None:
        """Store a file by renaming it into place; it must lie on the same disk and be flushed."""
        with self._translated(key):
            os.makedirs(os.path.dirname(self.path(key)), exist_ok=True)
            os.replace(path, self.path(key))

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._translated(key), suppress(FileNotFoundError):
            os.unlink(self.path(key))

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """See `Store.keys`."""
        pending = [folder]
        while pending:
            current = pending.pop()
            try:
                with os.scandir(self.path(current)) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except FileNotFoundError:
                continue
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{current}/{entry.name}")
                elif not entry.name.startswith(TEMPORARY):
                    yield f"{current}/{entry.name}", entry.stat().st_size

    def sweep(self) -> None:
        """Remove temporary files of writers that were killed; the caller is the only writer."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(FileNotFoundError):
                    if name.startswith(TEMPORARY):
                        os.unlink(path)

    @contextmanager
    def _replacing(self, key: str) -> Iterator[int]:
        target = self.path(key)
        folder = os.path.dirname(target)
        temporary = _temporary_in(folder)
        try:
            os.makedirs(folder, exist_ok=True)
        except NotADirectoryError as error:
            raise StoreError(f"{self.address} is not a folder, and nothing can be written to it") from error
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            yield descriptor
            os.fsync(descriptor)
            os.replace(temporary, target)
            sync_directory(folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except RegError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise ObjectMissing(key, self.address) from None
        except OSError as error:
            raise translate_os_error(error, key, self.address) from error


def sync_directory(path: str) -> None:
    """Flush a directory's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary_in(folder: str) -> str:
    return f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"


def _are_as_accessible(path: str, other: str) -> bool:
    """Tell whether two files have one owner, and may be read and written by the same people."""
    try:
        return _access(path) == _access(other)
    except OSError:  # a disk that keeps no access lists may refuse to be asked
        return False


def _access(path: str) -> tuple[int, int, int, dict[str, bytes]]:
    """Return who owns a file and who may do what with it, access lists and labels included."""
    found = os.stat(path)
    names = os.listxattr(path) if hasattr(os, "listxattr") else []
    return found.st_mode, found.st_uid, found.st_gid, {name: os.getxattr(path, name) for name in names}
