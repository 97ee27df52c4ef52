"""Mirrors of registries in the cache: fetched whole once, and incrementally after that."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from dulwich.objects import ObjectID
from dulwich.refs import SYMREF, Ref, check_ref_format
from dulwich.repo import Repo

from registree.errors import NotFound
from registree.git.connection import connected, strip_credentials
from registree.git.credentials import Access
from registree.git.repository import GitRepository

if TYPE_CHECKING:
    from dulwich.client import FetchPackResult, GitClient


def open_mirror(url: str, folder: str) -> GitRepository:
    """Open the mirror of a registry, as it was last fetched.

    Raises
    ------
    NotFound
        When it was never fetched.
    """
    if not os.path.isdir(folder):
        raise NotFound(
            f"{strip_credentials(url)} was never fetched to this machine", hint="run it once without --offline"
        )
    return GitRepository.open(folder)


def fetch_mirror(url: str, folder: str, access: Access) -> GitRepository:
    """Bring the mirror of a registry up to date: all its branches and tags; made when there is none.

    The caller holds the mirror's lock. Credentials in the URL are used and not written.
    """
    if not os.path.isdir(folder):
        temporary = f"{folder}.{secrets.token_hex(6)}"
        os.makedirs(temporary)
        try:
            Repo.init_bare(temporary).close()
            _fetch_all(url, GitRepository.open(temporary), access)
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return GitRepository.open(folder)
    for name in ("HEAD.lock", "packed-refs.lock"):  # a killed run's: whoever fetches here holds the mirror's own lock
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
    mirror = GitRepository.open(folder)
    _fetch_all(url, mirror, access)
    return mirror


def _fetch_all(url: str, mirror: GitRepository, access: Access) -> None:
    repo = mirror.dulwich

    def wants(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        chosen = {
            sha for name, sha in refs.items() if name == b"HEAD" or name.startswith((b"refs/heads/", b"refs/tags/"))
        }
        return [sha for sha in chosen if sha is not None and sha not in repo.object_store]

    def fetch(client: GitClient, path: str) -> FetchPackResult:
        return client.fetch(path, repo, determine_wants=wants)

    result = connected(mirror, url, "pull", access, fetch)
    _keep_refs(repo, {name: sha for name, sha in result.refs.items() if sha is not None and _is_kept(name)})
    head = (result.symrefs or {}).get(Ref(b"HEAD"))
    if head is not None and repo.refs.read_loose_ref(Ref(b"HEAD")) != SYMREF + head:
        repo.refs.set_symbolic_ref(Ref(b"HEAD"), head)


def _is_kept(name: Ref) -> bool:
    return name.startswith((b"refs/heads/", b"refs/tags/")) and not name.endswith(b"^{}") and check_ref_format(name)


def _keep_refs(repo: Repo, refs: Mapping[Ref, ObjectID]) -> None:
    """Have these branches and tags and no others, all in one file: a registry has a tag for each version."""
    gone = dict.fromkeys(name for name in repo.refs.allkeys() if _is_kept(name) and name not in refs)
    folders = [os.path.join(repo.path, "refs", kind) for kind in ("heads", "tags")]
    files = (name for folder in folders for _, _, names in os.walk(folder) for name in names)
    loose = any(not name.endswith(".lock") for name in files)  # those are an older version's that was killed
    if gone or loose or repo.refs.get_packed_refs() != refs:
        repo.refs.add_packed_refs({**gone, **refs})
