"""Move the current branch and its tracked files forward; nothing that is not committed is lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from dulwich.diff_tree import tree_changes
from dulwich.index import index_entry_from_stat
from dulwich.objects import S_ISGITLINK, ObjectID
from dulwich.refs import Ref

from registree.errors import Conflict, FormatError, IntegrityError
from registree.git.repository import GitRepository, retry_locked
from registree.model.paths import check_entry_path


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
    for change in changes:
        _check_path(change.path)
    retry_locked(lambda: _apply(repository, changes, head, commit), f"the index of {repository.root}")
    return [change.path for change in changes]


def _check_path(path: str) -> None:
    """Refuse what a hostile tree could hold: `..`, something in `.git`, an absolute path."""
    try:
        check_entry_path(path)
    except FormatError as error:
        raise IntegrityError(f"the upstream holds a path that is not safe to write: {error.message}") from None


class _Changed(NamedTuple):
    """A tracked file or submodule that differs between two commits: what it is (empty: not there), and its modes."""

    path: str
    old: str
    new: str
    old_mode: int
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
                (before.mode or 0) if before else 0,
                (after.mode or 0) if after else 0,
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
        sides = (change.old, change.old_mode), (change.new, change.mode)
        known = [repository.blob(blob) if blob and not S_ISGITLINK(mode) else None for blob, mode in sides]
        is_submodule = any(S_ISGITLINK(mode) for _, mode in sides)
        is_staged = staged.get(change.path, "") not in (change.old, change.new)
        if is_staged or _is_behind_link(repository.root, change.path):
            edited.append(change.path)
        elif os.path.isdir(place) and not os.path.islink(place):
            if is_submodule:  # Git itself leaves what is checked out of it
                continue
            inside = [
                os.path.relpath(os.path.join(folder, name), repository.root)
                for folder, _, names in os.walk(place)
                for name in names
            ]
            edited += [path for path in inside if path not in going]
        elif _content(place) not in known:
            edited.append(change.path)
    return edited


def _refuse_local_edits(repository: GitRepository, changes: Sequence[_Changed], head: str | None) -> None:
    if repository.head() != head:
        raise Conflict(f"{repository.branch()} moved while it was pulled", hint="run reg pull again")
    edited = _local_edits(repository, changes)
    if edited:
        raise Conflict(
            f"{len(edited)} files have local changes that the pull would overwrite: {', '.join(edited[:5])}",
            hint="commit them (reg commit -m …), or put them aside: git stash",
            paths=tuple(edited),
        )


def _is_behind_link(root: str, path: str) -> bool:
    parts = path.split("/")
    return any(os.path.islink(os.path.join(root, *parts[:depth])) for depth in range(1, len(parts)))


def _apply(repository: GitRepository, changes: Sequence[_Changed], head: str | None, commit: str) -> None:
    repo = repository.dulwich
    with repository.locked_index() as index:  # from here on nobody stages anything
        _refuse_local_edits(repository, changes, head)
        for change in changes:
            if not change.new:
                _remove_tracked(repository.root, change.path)
                if os.fsencode(change.path) in index:
                    del index[os.fsencode(change.path)]
        for change in changes:
            if change.new:
                place = os.path.join(repository.root, change.path)
                if S_ISGITLINK(change.mode):
                    if not os.path.isdir(place):
                        repository.replace_file(change.path, None)
                    os.makedirs(place, exist_ok=True)
                else:
                    _make_room(place)
                    repository.replace_file(change.path, repository.blob(change.new), change.mode)
                found = os.lstat(place)
                index[os.fsencode(change.path)] = index_entry_from_stat(found, change.new.encode(), mode=change.mode)
    note = b"pull: Fast-forward"
    new = ObjectID(commit.encode())
    moved = (
        repo.refs.set_if_equals(Ref(b"HEAD"), ObjectID(head.encode()), new, message=note)
        if head
        else repo.refs.add_if_new(Ref(b"HEAD"), new, message=note)
    )
    if not moved:
        raise Conflict(f"{repository.branch()} moved while it was pulled", hint="run reg pull again")


def _make_room(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        os.rmdir(place)  # emptied by now


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
