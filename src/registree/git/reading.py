"""What a Git repository holds: its refs, its trees and its configuration.

Trees are read from the object store and never checked out. Paths are text with ``/``; commits are 40 hexadecimal
digits.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self, TypeVar

from dulwich.errors import NotGitRepository
from dulwich.graph import can_fast_forward
from dulwich.objects import S_ISGITLINK, Blob, Commit, ObjectID, ShaFile, Tag, Tree
from dulwich.objectspec import AmbiguousShortId, parse_commit
from dulwich.refs import Ref
from dulwich.repo import Repo, UnsupportedExtension, UnsupportedVersion

from registree.errors import NotFound, StateError
from registree.git.objects import Objects
from registree.model.paths import printable
from registree.model.selectors import HEADS

_Object = TypeVar("_Object", bound=ShaFile)
_HEX = re.compile(r"[0-9a-f]{40}\Z")


class TreeFile(NamedTuple):
    """A file in a commit: its path, Git mode and blob id."""

    path: str
    mode: int
    blob: str

    @property
    def executable(self) -> bool:
        """Whether it has the executable bit."""
        return bool(self.mode & 0o111)


class RepositoryReader:
    """What can be read of a repository on this disk, with or without a work tree."""

    def __init__(self, repo: Repo) -> None:
        if repo.object_format.name != "sha1":
            raise StateError(f"{repo.path} stores objects by {repo.object_format.name}, and reg works with sha1 alone")
        refuse_unreadable(os.path.realpath(repo.path))
        self._repo = repo
        self._objects = Objects(repo)
        self.bare = repo.bare
        self.root = os.path.realpath(repo.path)
        self.control = os.path.realpath(repo.controldir())

    @classmethod
    def discover(cls, path: str) -> Self:
        """Open the repository that a path lies in.

        Raises
        ------
        NotFound
            When it lies in none.
        StateError
            When it is of a kind that cannot be read.
        """
        try:
            return cls(Repo.discover(path))
        except (UnsupportedExtension, UnsupportedVersion) as error:
            raise _unreadable(path, error) from None
        except NotGitRepository:
            raise NotFound(f"{path} is not in a Git repository", hint="git init, or reg init for a registry") from None

    @classmethod
    def open(cls, path: str) -> Self:
        """Open the repository at a path exactly.

        Raises
        ------
        NotFound
            When there is none.
        StateError
            When it is of a kind that cannot be read.
        """
        try:
            return cls(Repo(path))
        except (UnsupportedExtension, UnsupportedVersion) as error:
            raise _unreadable(path, error) from None
        except NotGitRepository:
            raise NotFound(
                f"{path} is not a Git repository", hint="name the repository's root folder or its URL"
            ) from None

    @property
    def dulwich(self) -> Repo:
        """The repository as dulwich has it, for this layer alone."""
        return self._repo

    @property
    def main_root(self) -> str:
        """The root of the main work tree, when this is a linked one; else its own."""
        common = os.path.realpath(self._repo.commondir())
        return self.root if common == self.control else os.path.dirname(common)

    def close(self) -> None:
        """Let go of its files."""
        self._repo.close()

    # --- refs ---------------------------------------------------------------------------------------------------

    def refs(self) -> dict[str, str]:
        """Return all branches and tags by full name, with the commits they point to (through annotated tags)."""
        found = {}
        for name, value in self._repo.refs.as_dict().items():
            if name.startswith((b"refs/heads/", b"refs/tags/")):
                commit = self.peel(value)
                if commit is not None:
                    found[ref_text(name)] = commit
        return found

    def peel(self, value: ObjectID) -> str | None:
        """Return the commit that an object is, or that an annotated tag points to; None when it is not here."""
        try:
            kind, content = self._repo.object_store.get_raw(value)
            while kind == Tag.type_num:
                value = Tag.from_string(content).object[1]
                kind, content = self._repo.object_store.get_raw(value)
        except KeyError:
            return None
        return value.decode() if kind == Commit.type_num else None

    def default_branch(self) -> str:
        """Return the full name of the branch that HEAD names (of a mirror: the remote's default branch)."""
        names, _ = self._repo.refs.follow(Ref(b"HEAD"))
        return names[-1].decode() if names[-1] != b"HEAD" else "HEAD"

    def head(self) -> str | None:
        """Return the commit that HEAD is at; None before the first one."""
        try:
            return self._repo.head().decode()
        except KeyError:
            return None

    def branch(self) -> str | None:
        """Return the current branch's short name; None when HEAD is detached."""
        name = self.default_branch()
        return name.removeprefix(HEADS) if name.startswith(HEADS) else None

    def commit_of(self, revision: str) -> str:
        """Return the commit that a revision names: a ref, a full or short commit, ``HEAD~1``.

        Raises
        ------
        NotFound
            When there is none, or a short commit fits several.
        """
        try:
            text, steps = _split_steps(revision)
            commit = self._repo[self._repo.refs[Ref(text.encode())]] if text in self._all_refs() else None
            found = parse_commit(self._repo, commit if isinstance(commit, Commit | Tag) else text.encode())
            for kind, number in steps:
                for _ in range(number if kind == "~" else 1):
                    index = 0 if kind == "~" else number - 1
                    if kind == "^" and not number:
                        break
                    parent = self._repo[found.parents[index]]
                    assert isinstance(parent, Commit)  # noqa: S101 -- Git's own invariant
                    found = parent
        except AmbiguousShortId:
            raise NotFound(f"commit {revision!r} fits several commits", hint="write more of its digits") from None
        except (KeyError, ValueError, IndexError):
            raise NotFound(f"there is no revision {revision!r} in {self.root}") from None
        return found.id.decode()

    def _all_refs(self) -> set[str]:
        return {ref_text(name) for name in self._repo.refs.allkeys()}

    def has_commit(self, commit: str) -> bool:
        """Tell whether a full commit id is here."""
        return bool(_HEX.match(commit)) and ObjectID(commit.encode()) in self._repo.object_store

    def _commit(self, commit: str) -> Commit:
        try:
            found = self._repo[commit.encode()]
        except KeyError:
            hint = "its history may have been rewritten"
            raise NotFound(f"commit {commit[:10]} is not in {self.root}", hint=hint) from None
        if not isinstance(found, Commit):
            raise NotFound(f"{commit} is not a commit")
        return found

    def tree_of(self, commit: str) -> ObjectID:
        """Return the id of a commit's tree, for this layer alone."""
        return ObjectID(self._commit(commit).tree)

    def is_ancestor(self, older: str, newer: str) -> bool:
        """Tell whether a commit is another one or in its history."""
        if older == newer:
            return True
        if not (self.has_commit(older) and self.has_commit(newer)):
            return False
        return can_fast_forward(self._repo, ObjectID(older.encode()), ObjectID(newer.encode()))

    def history(self, commit: str, until: str | None = None) -> dict[str, None]:
        """Return a commit and all it descends from, newest first, without `until` and its history."""
        exclude = [ObjectID(until.encode())] if until and self.has_commit(until) else None
        walker = self._repo.get_walker(include=[ObjectID(commit.encode())], exclude=exclude)
        return dict.fromkeys(entry.commit.id.decode() for entry in walker)

    # --- trees --------------------------------------------------------------------------------------------------

    def read(self, commit: str, path: str) -> bytes | None:
        """Return a file's content at a commit; None when there is no such file."""
        found = self.lookup(commit, path)
        return self.blob(found.blob) if found is not None and not stat.S_ISDIR(found.mode) else None

    def lookup(self, commit: str, path: str) -> TreeFile | None:
        """Return what a path is at a commit (a directory has a tree's id); None for nothing, and for a submodule."""
        tree = self._commit(commit).tree
        if not path:
            return TreeFile("", stat.S_IFDIR, tree.decode())
        mode = stat.S_IFDIR
        for part in path.encode().split(b"/"):
            found = self._object(tree, Tree) if stat.S_ISDIR(mode) else None
            if found is None or part not in found:
                return None
            mode, tree = found[part]
        return TreeFile(path, mode, tree.decode()) if not S_ISGITLINK(mode) else None

    def blobs_named(self, commits: Iterable[str], suffix: str) -> Iterator[tuple[str, str]]:
        """List the distinct files with a suffix in some commits: (path, blob); a tree they share is read once."""
        seen: set[tuple[str, bytes]] = set()
        ending = suffix.encode()
        for commit in commits:
            pending: list[tuple[str, bytes]] = [("", self._commit(commit).tree)]
            while pending:
                folder, identifier = pending.pop()
                if (folder, identifier) in seen:
                    continue
                seen.add((folder, identifier))
                for name, mode, found in self._object(identifier, Tree).iteritems():
                    path = f"{folder}/{name.decode(errors='surrogateescape')}".lstrip("/")
                    if stat.S_ISDIR(mode):
                        pending.append((path, found))
                    elif name.endswith(ending) and (path, found) not in seen:
                        seen.add((path, found))
                        yield path, found.decode()

    def blob(self, identifier: str) -> bytes:
        """Return a blob's bytes."""
        return self._object(identifier.encode(), Blob).as_raw_string()

    def _object(self, identifier: bytes, kind: type[_Object]) -> _Object:
        """Return an object that another one names.

        Raises
        ------
        NotFound
            When it is not here: it was left out when the repository was cloned.
        """
        try:
            found = self._repo[ObjectID(identifier)]
        except KeyError:
            raise NotFound(
                f"object {identifier.decode()[:10]} is not in {self.root}",
                hint="git fetch --refetch --no-filter makes a whole clone of a partial one",
            ) from None
        assert isinstance(found, kind)  # noqa: S101 -- ids come from commits and trees
        return found

    def walk(self, commit: str, folder: str = "") -> Iterator[TreeFile]:
        """List the files below a folder of a commit (submodules are left out)."""
        top = self.lookup(commit, folder)
        if top is not None and stat.S_ISDIR(top.mode):
            yield from self._walk_tree(top.blob, folder)

    def _walk_tree(self, identifier: str, folder: str) -> Iterator[TreeFile]:
        for name, mode, found in self._object(identifier.encode(), Tree).iteritems():
            path = (
                f"{folder}/{name.decode(errors='surrogateescape')}" if folder else name.decode(errors="surrogateescape")
            )
            if stat.S_ISDIR(mode):
                yield from self._walk_tree(found.decode(), path)
            elif stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFLNK):
                yield TreeFile(path, mode, found.decode())

    # --- configuration ------------------------------------------------------------------------------------------

    def config(self, section: tuple[str, ...], name: str) -> str | None:
        """Return a value of Git's configuration; None when it is not set."""
        try:
            value = self._repo.get_config_stack().get(tuple(part.encode() for part in section), name.encode())
        except KeyError:
            return None
        return value.decode()

    def remote_names(self) -> list[str]:
        """Return the names of the Git remotes."""
        sections = self._repo.get_config_stack().sections()
        return [section[1].decode() for section in sections if section[0] == b"remote" and len(section) > 1]

    def remote_url(self, name: str) -> str | None:
        """Return a Git remote's URL."""
        return self.config(("remote", name), "url")

    def remote_branch(self, remote: str, merge: str) -> str | None:
        """Return the commit that a branch of a Git remote was at when last fetched or pushed."""
        name = Ref(f"refs/remotes/{remote}/{merge.removeprefix(HEADS)}".encode())
        try:
            return self._repo.refs[name].decode()
        except KeyError:
            return None

    def upstream(self) -> tuple[str, str] | None:
        """Return the remote and the full ref that the current branch follows; None when it follows none."""
        branch = self.branch()
        if branch is None:
            return None
        remote = self.config(("branch", branch), "remote")
        merge = self.config(("branch", branch), "merge")
        return (remote, merge) if remote and merge else None


def ref_text(name: bytes) -> str:
    """Return a ref's name as text; what is no UTF-8 in it cannot be named."""
    return name.decode(errors="replace")


def refuse_unreadable(root: str) -> None:
    """Refuse a repository whose own path Git's library cannot take.

    Raises
    ------
    StateError
        When it is no UTF-8.
    """
    try:
        root.encode()
    except UnicodeEncodeError:
        raise StateError(f"the path {printable(root)} is no UTF-8", hint="rename the folder") from None


def _unreadable(path: str, error: UnsupportedExtension | UnsupportedVersion) -> StateError:
    what = f"extension {error.extension!r}" if isinstance(error, UnsupportedExtension) else f"version {error.version}"
    return StateError(f"the Git repository at {path} has {what}, which reg does not know")


def _split_steps(revision: str) -> tuple[str, list[tuple[str, int]]]:
    """Split ``main~2^1`` into its base and its steps (gitrevisions(7))."""
    found = re.match(r"(.*?)((?:[~^]\d*)*)\Z", revision, re.DOTALL)
    if found is None:
        return revision, []
    steps = [(kind, int(number) if number else 1) for kind, number in re.findall(r"([~^])(\d*)", found[2])]
    return found[1], steps
