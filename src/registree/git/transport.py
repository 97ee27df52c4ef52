"""Between repositories: mirrors of registries in the cache, and fetch, fast-forward and push of one's own."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from dulwich.client import GitClient, HTTPUnauthorized, LocalGitClient, get_transport_and_path
from dulwich.diff_tree import tree_changes
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.index import index_entry_from_stat
from dulwich.object_store import MissingObjectFinder
from dulwich.objects import ObjectID
from dulwich.refs import Ref
from dulwich.repo import Repo

from registree.errors import AuthError, Conflict, NotFound, RegError, StateError, StoreError
from registree.git.repository import GitRepository, retry_locked
from registree.model.selectors import HEADS, TAGS

_SCP = re.compile(r"(?!/)(?:[\w.-]+@)?[\w.-]+:(?!//)")


def is_local_url(url: str) -> bool:
    """Tell whether a Git URL is a path of this machine."""
    return url.startswith("file://") or ("://" not in url and (os.path.exists(url) or not _SCP.match(url)))


def strip_credentials(url: str) -> str:
    """Return a URL without a password in it, fit to be written down (ssh keeps its user name)."""
    if url.startswith(("http://", "https://")):
        return re.sub(r"^(https?://)[^/@]*@", r"\1", url)
    return re.sub(r"^(\w+://[^/@:]*):[^/@]*@", r"\1@", url)


@contextmanager
def _translated(url: str) -> Iterator[None]:
    place = strip_credentials(url)
    try:
        yield
    except RegError:
        raise
    except NotGitRepository:
        raise NotFound(f"there is no Git repository at {place}", hint="check the URL: git ls-remote " + place) from None
    except HTTPUnauthorized:
        raise AuthError(f"{place} wants credentials", hint=f"check that this works: git ls-remote {place}") from None
    except HangupException as error:
        lines = [line.decode(errors="replace").strip() for line in (error.stderr_lines or [])]
        text = next((line for line in reversed(lines) if line), "the connection was closed")
        if "denied" in text.lower() or "publickey" in text.lower():
            raise AuthError(f"{place}: {text}", hint=f"check that this works: git ls-remote {place}") from None
        raise StoreError(
            f"{place}: {text}", hint=f"check that this works: git ls-remote {place}", transient=True
        ) from None
    except (GitProtocolError, OSError) as error:
        text = " ".join(str(error).split())[:200]
        raise StoreError(
            f"{place} could not be reached: {text}", hint="--offline works with what is here", transient=True
        ) from None
    except Exception as error:
        if type(error).__module__.startswith("urllib3"):
            text = " ".join(str(error).split())[:200]
            raise StoreError(
                f"{place} could not be reached: {text}", hint="--offline works with what is here", transient=True
            ) from None
        raise


def _client(repository: GitRepository, url: str, operation: str) -> tuple[GitClient, str]:
    return get_transport_and_path(url, config=repository.dulwich.get_config_stack(), operation=operation, quiet=True)


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


def fetch_mirror(url: str, folder: str) -> GitRepository:
    """Bring the mirror of a registry up to date: all its branches and tags; made when there is none.

    The caller holds the mirror's lock. Credentials in the URL are used and not written.
    """
    if not os.path.isdir(folder):
        temporary = f"{folder}.{secrets.token_hex(6)}"
        os.makedirs(temporary)
        try:
            Repo.init_bare(temporary).close()
            _fetch_all(url, GitRepository.open(temporary))
            os.rename(temporary, folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return GitRepository.open(folder)
    mirror = GitRepository.open(folder)
    _fetch_all(url, mirror)
    return mirror


def _fetch_all(url: str, mirror: GitRepository) -> None:
    repo = mirror.dulwich

    def wants(refs: Mapping[Ref, ObjectID], depth: int | None = None) -> list[ObjectID]:
        chosen = {
            sha for name, sha in refs.items() if name == b"HEAD" or name.startswith((b"refs/heads/", b"refs/tags/"))
        }
        return [sha for sha in chosen if sha is not None and sha not in repo.object_store]

    with _translated(url):
        client, path = _client(mirror, url, "pull")
        result = client.fetch(path, repo, determine_wants=wants)
    for name, sha in result.refs.items():
        if sha is not None and name.startswith((b"refs/heads/", b"refs/tags/")) and not name.endswith(b"^{}"):
            repo.refs[name] = sha
    for name in repo.refs.allkeys():
        if name.startswith((b"refs/heads/", b"refs/tags/")) and name not in result.refs:
            repo.refs.remove_if_equals(name, None)
    head = (result.symrefs or {}).get(Ref(b"HEAD"))
    if head is not None:
        repo.refs.set_symbolic_ref(Ref(b"HEAD"), head)


def fetch_upstream(repository: GitRepository) -> str | None:
    """Fetch the branch that the current one follows, and tags; return its commit (None: nothing there yet).

    Raises
    ------
    StateError
        When the current branch follows none.
    """
    remote, merge = _upstream(repository)
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

    with _translated(url):
        client, path = _client(repository, url, "pull")
        refs = (
            _fetch_local(client, path, repo, wants)
            if isinstance(client, LocalGitClient)
            else client.fetch(path, repo, determine_wants=wants).refs
        )
    for name, sha in refs.items():
        if sha is not None and name.startswith(b"refs/tags/") and not name.endswith(b"^{}"):
            repo.refs.add_if_new(name, sha)
    found = refs.get(Ref(merge.encode()))
    if found is None:
        return None
    repo.refs[Ref(f"refs/remotes/{remote}/{merge.removeprefix(HEADS)}".encode())] = found
    return found.decode()


def _fetch_local(
    client: LocalGitClient, path: str, repo: Repo, wants: Callable[..., list[ObjectID]]
) -> Mapping[Ref, ObjectID | None]:
    """Copy missing objects one by one: dulwich's own fetch from a path fails on packs with bitmaps."""
    with Repo(path) as source:
        refs = source.get_refs()
        wanted = wants(refs)
        if wanted:
            haves = [sha for sha in repo.get_refs().values() if sha in source.object_store]
            missing = MissingObjectFinder(source.object_store, haves=haves, wants=wanted)
            repo.object_store.add_objects([(source[sha], None) for sha, _ in missing])
        return dict(refs)


def fast_forward(repository: GitRepository, commit: str) -> list[str]:
    """Move the current branch and the work tree's tracked files to a descendant of HEAD; return the paths changed.

    Raises
    ------
    Conflict
        When histories have parted, or files that would change have local changes; nothing is changed then.
    """
    head = repository.head()
    if head == commit:
        return []
    if head is not None and not repository.is_ancestor(head, commit):
        if repository.is_ancestor(commit, head):
            return []
        raise Conflict(
            f"{repository.branch()} and its upstream have parted ({head[:10]}, {commit[:10]})",
            hint="git rebase or git merge the upstream, then run reg pull again",
        )
    changes = _changes(repository, head, commit)
    edited = _local_edits(repository, changes)
    if edited:
        raise Conflict(
            f"{len(edited)} files have local changes that the pull would overwrite: {', '.join(edited[:5])}",
            hint="commit them (reg commit -m …), or put them aside: git stash",
            paths=tuple(edited),
        )
    retry_locked(lambda: _apply(repository, changes, head, commit), f"the index of {repository.root}")
    return [change.path for change in changes]


class _Changed(NamedTuple):
    """A tracked file that differs between two commits: blobs (empty: not there) and the newer mode."""

    path: str
    old: str
    new: str
    mode: int


def _changes(repository: GitRepository, old: str | None, new: str) -> list[_Changed]:
    store = repository.dulwich.object_store
    found = tree_changes(store, repository.tree_of(old) if old else None, repository.tree_of(new))
    rows = []
    for change in found:
        before, after = change.old, change.new
        name = (after.path if after and after.path else None) or (before.path if before and before.path else b"")
        rows.append(
            _Changed(
                os.fsdecode(name),
                before.sha.decode() if before and before.sha else "",
                after.sha.decode() if after and after.sha else "",
                after.mode or 0 if after else 0,
            )
        )
    return rows


def _local_edits(repository: GitRepository, changes: Sequence[_Changed]) -> list[str]:
    """Return what a fast-forward would lose: files edited, staged, or standing where tracked ones come."""
    staged = repository.staged()
    going = {change.path for change in changes if not change.new}
    edited = []
    for change in changes:
        place = os.path.join(repository.root, change.path)
        known = [repository.blob(blob) if blob else None for blob in (change.old, change.new)]
        if staged.get(change.path, "") not in (change.old, change.new):
            edited.append(change.path)
        elif os.path.isdir(place) and not os.path.islink(place):
            inside = [
                os.path.relpath(os.path.join(folder, name), repository.root)
                for folder, _, names in os.walk(place)
                for name in names
            ]
            edited += [path for path in inside if path not in going]
        elif _content(place) not in known:
            edited.append(change.path)
    return edited


def _apply(repository: GitRepository, changes: Sequence[_Changed], head: str | None, commit: str) -> None:
    repo = repository.dulwich
    with repository.locked_index() as index:
        for change in changes:
            if not change.new:
                _remove_tracked(repository.root, change.path)
                if os.fsencode(change.path) in index:
                    del index[os.fsencode(change.path)]
        for change in changes:
            if change.new:
                place = os.path.join(repository.root, change.path)
                _write(place, repository.blob(change.new), change.mode)
                found = index_entry_from_stat(os.lstat(place), change.new.encode(), mode=change.mode)
                index[os.fsencode(change.path)] = found
        note = b"pull: Fast-forward"
        new = ObjectID(commit.encode())
        moved = (
            repo.refs.set_if_equals(Ref(b"HEAD"), ObjectID(head.encode()), new, message=note)
            if head
            else repo.refs.add_if_new(Ref(b"HEAD"), new, message=note)
        )
        if not moved:
            raise Conflict(f"{repository.branch()} moved while it was pulled", hint="run reg pull again")


def _remove_tracked(root: str, path: str) -> None:
    place = os.path.join(root, path)
    if os.path.lexists(place) and not (os.path.isdir(place) and not os.path.islink(place)):
        os.unlink(place)
    folder = os.path.dirname(place)
    while folder != root:
        try:
            os.rmdir(folder)
        except OSError:
            return
        folder = os.path.dirname(folder)


def _content(place: str) -> bytes | None:
    try:
        if os.path.islink(place):
            return os.fsencode(os.readlink(place))
        with open(place, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def _write(place: str, content: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if os.path.isdir(place) and not os.path.islink(place):
        os.rmdir(place)  # emptied by now
    temporary = f"{place}.reg-{os.getpid()}"
    if mode & 0o170000 == 0o120000:
        os.symlink(os.fsdecode(content), temporary)
    else:
        with open(temporary, "wb") as file:
            file.write(content)
        if mode & 0o111:
            os.chmod(temporary, os.stat(temporary).st_mode | 0o111)  # noqa: S103 -- as the tree says
    os.replace(temporary, place)


def push_branch(repository: GitRepository) -> tuple[str, list[str]]:
    """Push the current branch and the tags on its history to its upstream.

    Returns
    -------
    The upstream's URL without secrets and the names of the refs that were moved.

    Raises
    ------
    Conflict
        When somebody pushed first, or the upstream has that branch checked out.
    """
    remote, merge = _upstream(repository)
    url = _remote_url(repository, remote, push=True)
    head = repository.head()
    if head is None:
        raise StateError(f"there is no commit in {repository.root} to push", hint="reg commit -m MESSAGE")
    repo = repository.dulwich
    target = Ref(merge.encode())
    own_tags = {name: sha for name, sha in repo.refs.as_dict().items() if name.startswith(b"refs/tags/")}
    sent: dict[Ref, ObjectID] = {}

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
        if new_tags:
            history = repository.history(head)
            refs_here = repository.refs()
            sent.update({name: sha for name, sha in new_tags.items() if refs_here.get(name.decode()) in history})
        return sent if sent else {target: ObjectID(head.encode())}

    with _translated(url):
        client, path = _client(repository, url, "push")
        if isinstance(client, LocalGitClient):
            _refuse_checked_out(path, target)
        result = client.send_pack(path.encode() if isinstance(path, str) else path, update, repo.generate_pack_data)  # type: ignore[arg-type]
    for name, problem in (result.ref_status or {}).items():
        if problem:
            raise Conflict(
                f"{strip_credentials(url)} did not take {name.decode()}: {problem}", hint="reg pull, then reg push"
            )
    repo.refs[Ref(f"refs/remotes/{remote}/{merge.removeprefix(HEADS)}".encode())] = ObjectID(head.encode())
    return strip_credentials(url), [name.decode().removeprefix(HEADS).removeprefix(TAGS) for name in sent]


def _refuse_checked_out(path: str, target: Ref) -> None:
    with Repo(path) as other:
        names, _ = other.refs.follow(Ref(b"HEAD"))
        if not other.bare and names[-1] == target:
            raise Conflict(
                f"{path} has {target.decode().removeprefix(HEADS)} checked out: a push would leave its files behind",
                hint="push to a bare repository, or pull from there",
            )


def _upstream(repository: GitRepository) -> tuple[str, str]:
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
