"""The branch that the current one follows: fetched from, and pushed to with its tags."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from dulwich.object_store import MissingObjectFinder
from dulwich.objects import Blob, Commit, ObjectID, Tag, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo

from registree.errors import Conflict, StateError
from registree.git.connection import connected, is_local_client, is_local_url, strip_credentials, translated
from registree.git.credentials import Access
from registree.git.objects import Objects
from registree.git.reading import ref_text
from registree.git.repository import GitRepository
from registree.model.selectors import HEADS, TAGS, all_releases

if TYPE_CHECKING:
    from dulwich.client import GitClient

_ORDER = {Blob.type_num: 0, Tree.type_num: 1, Commit.type_num: 2, Tag.type_num: 3}


def fetch_upstream(repository: GitRepository, access: Access) -> str | None:
    """Fetch the branch that the current one follows, and tags; return its commit (None: nothing there yet).

    Raises
    ------
    StateError
        When the current branch follows none.
    """
    remote, merge = _required_upstream(repository)
    url = _remote_url(repository, remote)
    repo = repository.dulwich

    def wants(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        return [
            sha
            for name, sha in refs.items()
            if (name == merge.encode() or name.startswith(b"refs/tags/"))
            and sha is not None
            and sha not in repo.object_store
        ]

    def fetch(client: GitClient, path: str) -> Mapping[Ref, ObjectID | None]:
        if is_local_client(client):
            return _fetch_local(path, repo, wants)
        return client.fetch(path, repo, determine_wants=wants).refs

    refs = connected(repository, url, "pull", access, fetch)
    with translated(url):
        known = repo.refs.allkeys()  # to ask for each would take a lock for each
        for name, sha in refs.items():
            if sha is not None and name.startswith(b"refs/tags/") and not name.endswith(b"^{}") and name not in known:
                repo.refs.add_if_new(name, sha)
        found = refs.get(Ref(merge.encode()))
        if found is None:
            return None
        repo.refs[Ref(f"refs/remotes/{remote}/{merge.removeprefix(HEADS)}".encode())] = found
        return found.decode()


def _fetch_local(path: str, repo: Repo, wants: Callable[..., list[ObjectID]]) -> Mapping[Ref, ObjectID | None]:
    with Repo(path) as source:
        refs = source.get_refs()
        _copy_objects(source, repo, wants(refs))
        return dict(refs)


def _copy_objects(source: Repo, target: Repo, wanted: Sequence[ObjectID]) -> None:
    """Copy what a repository lacks of some commits and tags, one by one.

    Between paths of one machine dulwich's own transfer takes locks that a killed run leaves behind, and fails on packs
    with bitmaps.
    """
    if wanted:
        haves = [sha for sha in target.get_refs().values() if sha in source.object_store]
        missing = [source[sha] for sha, _ in MissingObjectFinder(source.object_store, haves=haves, wants=wanted)]
        objects = Objects(target)
        # newest come first: turned round, nothing is there before all that it names
        missing.reverse()
        for found in sorted(missing, key=lambda found: _ORDER[found.type_num]):
            objects.add_object(found)


def push_branch(
    repository: GitRepository,
    head: str | None,
    upstream: tuple[str, str],
    access: Access,
    note: Callable[[str], None],
) -> tuple[str, list[str]]:
    """Push a commit and the tags on its history to a branch's upstream.

    Parameters
    ----------
    head
        The commit.
    upstream
        A Git remote's name and the ref there.
    note
        Told of the Git folder that is written to, when it is on this machine.

    Returns
    -------
    The upstream's URL without secrets and the names of the refs that were moved.

    Raises
    ------
    Conflict
        When somebody pushed first, or the upstream has that branch checked out.
    """
    remote, merge = upstream
    url = _remote_url(repository, remote, push=True)
    if head is None:
        raise StateError(f"there is no commit in {repository.root} to push", hint="reg commit -m MESSAGE")
    repo = repository.dulwich
    target = Ref(merge.encode())
    own_tags = {name: sha for name, sha in repo.refs.as_dict().items() if name.startswith(b"refs/tags/")}
    sent: dict[Ref, ObjectID] = {}
    said: list[bytes] = []

    def update(refs: Mapping[Ref, ObjectID]) -> dict[Ref, ObjectID]:
        there = refs.get(target)
        if (
            there is not None
            and there.decode() != head
            and not (repository.has_commit(there.decode()) and repository.is_ancestor(there.decode(), head))
        ):
            raise Conflict(
                f"{merge.removeprefix(HEADS)} of {strip_credentials(url)} has commits that are not here: "
                "somebody pushed first",
                hint="reg pull (or git pull --rebase), then reg push: payload that was sent is not sent again",
            )
        if there is None or there.decode() != head:
            sent[target] = ObjectID(head.encode())
        new_tags = {name: sha for name, sha in own_tags.items() if name not in refs}
        others = {ref_text(name): refs[name] for name, sha in own_tags.items() if refs.get(name, sha) != sha}
        if new_tags or others:
            history = repository.history(head)
            refs_here = repository.refs()
            sent.update({name: sha for name, sha in new_tags.items() if refs_here.get(ref_text(name)) in history})
            for tag in (tag for versions in all_releases(others).values() for tag in versions.values()):
                if refs_here.get(tag) in history and repository.peel(others[tag]) != refs_here[tag]:
                    raise Conflict(
                        f"{strip_credentials(url)} has another version {tag.removeprefix(TAGS)} than this repository",
                        hint="git fetch --tags --force takes theirs; then tag this one with a number of its own",
                    )
        return sent if sent else {target: ObjectID(head.encode())}

    def send(client: GitClient, path: str) -> Mapping[bytes, str | None]:
        if is_local_client(client):
            return _push_local(repository, path, target, update, note)
        said.clear()
        result = client.send_pack(path.encode(), update, repo.generate_pack_data, progress=said.append)  # type: ignore[arg-type]
        return dict(result.ref_status or {})

    problems = connected(repository, url, "push", access, send)
    with translated(url):
        for name, problem in problems.items():
            if problem:
                words = " ".join(b"".join(said).decode(errors="replace").split())
                why = f"{problem} ({words})" if words else problem
                raise Conflict(
                    f"{strip_credentials(url)} did not take {ref_text(name)}: {why}",
                    hint="the upstream's own rules said no" if "hook" in problem else "reg pull, then reg push",
                )
        repo.refs[Ref(f"refs/remotes/{remote}/{merge.removeprefix(HEADS)}".encode())] = ObjectID(head.encode())
    return strip_credentials(url), [ref_text(name).removeprefix(HEADS).removeprefix(TAGS) for name in sent]


def _push_local(
    repository: GitRepository,
    path: str,
    branch: Ref,
    update: Callable[[Mapping[Ref, ObjectID]], dict[Ref, ObjectID]],
    note: Callable[[str], None],
) -> dict[bytes, str | None]:
    with Repo(path) as target:
        _refuse_checked_out(target, branch)
        note(target.controldir())
        refs = target.get_refs()
        moves = update(refs)
        _copy_objects(repository.dulwich, target, [sha for name, sha in moves.items() if refs.get(name) != sha])
        problems: dict[bytes, str | None] = {}
        for name, sha in moves.items():
            old = refs.get(name)
            if old is None:
                moved = target.refs.add_if_new(name, sha)
            else:
                moved = old == sha or target.refs.set_if_equals(name, old, sha)
            problems[name] = None if moved else "somebody moved it first"
        return problems


def _refuse_checked_out(other: Repo, target: Ref) -> None:
    names, _ = other.refs.follow(Ref(b"HEAD"))
    if not other.bare and names[-1] == target:
        raise Conflict(
            f"{other.path} has {target.decode().removeprefix(HEADS)} checked out: a push would leave its files behind",
            hint="push to a bare repository, or pull from there",
        )


def _required_upstream(repository: GitRepository) -> tuple[str, str]:
    found = repository.upstream()
    if found is None:
        raise StateError(
            f"branch {repository.branch()} of {repository.root} follows no upstream",
            hint="git push -u origin HEAD makes it follow one",
        )
    return found


def _remote_url(repository: GitRepository, remote: str, *, push: bool = False) -> str:
    url = (repository.config(("remote", remote), "pushurl") if push else None) or repository.remote_url(remote)
    if url is None:
        raise StateError(f"{repository.root} has no Git remote {remote}", hint=f"git remote add {remote} URL")
    if is_local_url(url) and not url.startswith("file://"):
        return os.path.normpath(os.path.join(repository.root, url))
    return url
