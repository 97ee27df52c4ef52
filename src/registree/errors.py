"""The whole tree of errors.

Every failure that a caller can act on is one of these. Each has a stable `kind` for programs, one sentence for
people that names the value and the place, and a hint: the exact next command. The CLI turns kinds into exit codes.
"""

from __future__ import annotations

import errno
from typing import ClassVar


class RegError(Exception):
    """Base of every error this package raises on purpose.

    Parameters
    ----------
    message
        One sentence that names the value and the place.
    hint
        One line: what to do next, with the exact command where there is one.
    paths
        The files, datasets or objects it is about, when there are several.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", paths: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.paths = paths


class NotFound(RegError):
    """No such dataset, revision, path, remote or repository."""

    kind = "not-found"


class AlreadyExists(RegError):
    """The target is there already."""

    kind = "already-exists"


class Conflict(RegError):
    """Local edits, a held lock, or histories that have parted."""

    kind = "conflict"


class InvalidInput(RegError):
    """A value that cannot be right: a name with ``..``, a malformed selector, a broken link."""

    kind = "invalid-input"


class ReadOnly(RegError):
    """The store or the folder does not take writes."""

    kind = "read-only"


class StateError(RegError):
    """The repository is not in a state in which this can be done."""

    kind = "state"


class IntegrityError(RegError):
    """A hash mismatch, a moved tag, or payload that no store holds."""

    kind = "integrity"


class ObjectMissing(IntegrityError):
    """A store does not hold an object that a manifest or a map names.

    Parameters
    ----------
    key
        The object's key in the store.
    store
        The store's address, without secrets.
    shorter
        True when it is there and ends before the bytes that were asked for.
    """

    kind = "object-missing"

    def __init__(self, key: str, store: str, *, hint: str = "", shorter: bool = False) -> None:
        if shorter:
            hint = "it is there and shorter than it should be: reg verify --remote"
        super().__init__(f"object {key} is not in {store}", hint=hint)
        self.key = key
        self.store = store
        self.shorter = shorter


RUN_WHEN_QUIET = "run it again when nothing writes to it"
"""The hint where a file changed while it was read."""


class FormatError(RegError):
    """Bytes or text that do not follow a format, or follow a newer version of it.

    Parameters
    ----------
    newer
        True when a newer release reads them.
    """

    kind = "format"

    def __init__(self, message: str, *, hint: str = "", newer: bool = False) -> None:
        super().__init__(message, hint="pip install --upgrade registree" if newer else hint)
        self.newer = newer


class StoreError(RegError):
    """A store could not be reached or refused an operation.

    Parameters
    ----------
    transient
        True when trying again may help.
    unreachable
        True when no connection came about at all, so that trying again helps seldom.
    """

    kind = "store"

    def __init__(self, message: str, *, hint: str = "", transient: bool = False, unreachable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.transient = transient
        self.unreachable = unreachable


class AuthError(RegError):
    """Credentials are missing, expired or not sufficient."""

    kind = "auth"


DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk, a quota or a limit that has no room left."""


def translate_os_error(error: OSError, what: str, place: str) -> StoreError | AuthError | ReadOnly:
    """Turn an operating system's error into one sentence about `what` in `place`."""
    if error.errno in DISK_FULL:
        return StoreError(
            f"the disk of {place} is full: {what} was not written", hint="free some space and run it again"
        )
    if error.errno == errno.EROFS:
        return ReadOnly(f"{place} is on a read-only disk: {what} was not written")
    if error.errno in (errno.EACCES, errno.EPERM):
        return AuthError(f"no permission for {what} in {place}", hint=f"check who owns it: ls -ld {place}")
    return StoreError(f"{what} in {place}: {error.strerror or error}", transient=True)
