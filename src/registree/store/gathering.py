"""The file in which a large one is gathered. It gets its place by what is open, whatever has its path by now."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from typing import Self

from registree.errors import translate_os_error
from registree.store.cache import Cache
from registree.store.files import copy_open_file, flush_data, is_at
from registree.store.payload import Wanted


class Gathering:
    """An open file of its own for a large file on its way; it is to be closed.

    It lies in the cache, where the next attempt finds what is there of it, unless another process gathers it there.

    Parameters
    ----------
    wanted
        What it becomes, and where.

    Raises
    ------
    StoreError, AuthError, ReadOnly
        When it cannot be made beside its place either.
    """

    def __init__(self, cache: Cache, wanted: Wanted) -> None:
        self._target = wanted.path
        found = _in_cache(cache, wanted)
        if found is None:
            folder = os.path.dirname(wanted.path)
            path = f"{folder}/.reg-{secrets.token_hex(8)}"  # no name of the dataset's own
            try:
                found = path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise translate_os_error(error, wanted.entry.path or "the file", folder) from error
        self.path, self.descriptor = found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    @property
    def is_beside(self) -> bool:
        """Whether it is on the disk of its place: else it cannot be renamed, and is copied."""
        return os.stat(os.path.dirname(self._target)).st_dev == os.fstat(self.descriptor).st_dev

    def move(self, mode: int, *, flush: bool) -> None:
        """Give it its place and mode; with `flush`, it is on the disk before."""
        os.fchmod(self.descriptor, mode)
        if self.is_beside and is_at(self.path, self.descriptor):
            if flush:
                flush_data(self.descriptor)
            with suppress(OSError):  # one disk may be mounted twice
                os.rename(self.path, self._target)
                if is_at(self._target, self.descriptor):
                    return
                os.unlink(self._target)  # somebody cleaned the cache, and another gathers it there
        copy_open_file(self.descriptor, self._target, mode, flush=flush)
        self.remove()

    def remove(self) -> None:
        """Remove it, unless another has its path by now: somebody may have cleaned the cache."""
        if is_at(self.path, self.descriptor):
            with suppress(FileNotFoundError):
                os.unlink(self.path)


def _in_cache(cache: Cache, wanted: Wanted) -> tuple[str, int] | None:
    """Open it in the cache; None when another process has it there, or the cache cannot be written."""
    try:
        path = cache.partial(wanted.entry.content, wanted.entry.size)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if is_at(path, descriptor):  # else it was finished just now
            return path, descriptor
    except OSError:  # or this disk knows no locks
        pass
    os.close(descriptor)
    return None
