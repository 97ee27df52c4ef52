"""Objects of a repository, written without a lock: an object is named by its hash, so nobody is in the way."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress

from dulwich.objects import ObjectID, ShaFile
from dulwich.repo import Repo

_OLD = 86400
"""Seconds: an object that nothing names is pruned when it is so many times older, and may be named again just then."""


class Objects:
    """The part of an object store that reading trees and making commits needs."""

    def __init__(self, repo: Repo) -> None:
        self._store = repo.object_store
        self._folder = os.path.join(repo.commondir(), "objects")

    def __getitem__(self, identifier: ObjectID) -> ShaFile:
        return self._store[identifier]

    def __contains__(self, identifier: ObjectID) -> bool:
        return identifier in self._store

    def add_object(self, found: ShaFile) -> None:
        """Write a loose object, if it is not there; a killed run leaves a file that `git prune` knows as its own."""
        name = found.id.decode()
        folder = os.path.join(self._folder, name[:2])
        if found.id in self._store:
            with suppress(OSError):  # it is in a pack
                loose = os.path.join(folder, name[2:])
                if time.time() - os.stat(loose).st_mtime > _OLD:
                    os.utime(loose)
            return
        os.makedirs(folder, exist_ok=True)
        temporary = os.path.join(folder, f"tmp_obj_{secrets.token_hex(6)}")
        try:
            with open(temporary, "xb") as file:
                file.write(found.as_legacy_object())
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o444)
            os.replace(temporary, os.path.join(folder, name[2:]))
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
