"""A folder beside a target, where its successor is made; a run that is killed leaves nothing but that folder."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from registree.errors import Conflict, translate_os_error

_SUFFIX = ".reg-new"
MOVED_AWAY = "old"
"""Where in the folder the target itself is kept until its successor has its name."""


def is_staging(name: str) -> bool:
    """Tell whether a folder has the name of one that `staging` makes."""
    return name.startswith(".") and name.endswith(_SUFFIX)


@contextmanager
def staging(target: str) -> Iterator[str]:
    """Give an empty folder beside a target, for one process at a time; what a killed run left there is removed.

    What such a run had moved away and not replaced gets its name again.

    Raises
    ------
    Conflict
        When another process is making the same target.
    StoreError, AuthError, ReadOnly
        When the folder cannot be made, or the disk is full.
    """
    folder, name = os.path.split(target)
    path = os.path.join(folder, f".{name[:200]}{_SUFFIX}")
    try:
        os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise translate_os_error(error, name, folder) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise Conflict(f"another process is writing {target}", hint="wait for it to end") from None
        raise translate_os_error(error, name, folder) from error
    try:
        _put_back(path, target)
        empty(path)
        yield path
    except OSError as error:
        raise translate_os_error(error, os.path.basename(str(error.filename or name)), folder) from error
    finally:
        try:
            _put_back(path, target)
            remove(path)
        finally:
            os.close(descriptor)


def _put_back(folder: str, target: str) -> None:
    """Give a target its name again that was moved away and not replaced."""
    old = os.path.join(folder, MOVED_AWAY)
    if os.path.lexists(old) and not os.path.lexists(target):
        os.rename(old, target)


def remove_stale_staging(target: str) -> None:
    """Remove what a killed run left beside a target, unless a living process is at it."""
    folder, name = os.path.split(target)
    if os.path.isdir(os.path.join(folder, f".{name[:200]}{_SUFFIX}")):
        with suppress(Conflict), staging(target):
            pass


def empty(path: str) -> None:
    """Remove what is in a folder."""
    with os.scandir(path) as listing:
        for entry in list(listing):
            remove(entry.path)


def remove(path: str) -> None:
    """Remove a file, a link or a folder, when it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)
