"""Objects of a repository, written without a lock: an object is named by its hash, so nobody is in the way."""

from __future__ import annotations

import os
import secrets

from dulwich.objects import ObjectID, ShaFile
from dulwich.repo import Repo


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
        if found.id in self._store:
            return
        name = found.id.decode()
        folder = os.path.join(self._folder, name[:2])
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
