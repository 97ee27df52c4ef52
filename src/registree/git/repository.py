"""One Git repository: its refs, its trees and what is committed to it, read and written beside the `git` command.

Trees are read from the object store and never checked out. Paths are text with ``/``; commits are 40 hexadecimal
digits.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple, cast

from dulwich.errors import ChecksumMismatch, NotGitRepository
from dulwich.file import FileLocked
from dulwich.graph import can_fast_forward
from dulwich.index import Index, IndexEntry, UnsupportedIndexFormat, index_entry_from_stat, locked_index
from dulwich.object_store import BaseObjectStore, commit_tree_changes
from dulwich.objects import Blob, Commit, ObjectID, Tag, Tree
from dulwich.objectspec import AmbiguousShortId, parse_commit
from dulwich.refs import Ref
from dulwich.repo import Repo, get_user_identity

from registree.errors import Conflict, NotFound, StateError, translate_os_error
from registree.git.objects import Objects
from registree.model.selectors import HEADS

Edit = bytes | None | Callable[[bytes | None], bytes | None]
"""What becomes of a tracked file: new content, None to remove it, or a function of its content so far."""

_LOCK_WAIT = 10.0
_SCRATCH = ".reg/tracked.tmp"
_HEX = re.compile(r"[0-9a-f]{40}\Z")


def chain(first: Edit, second: Edit) -> Edit:
    """Return the edit that does both, in order."""

    def both(before: bytes | None) -> bytes | None:
        middle = first(before) if callable(first) else first
        return second(middle) if callable(second) else second

    return both


class TreeFile(NamedTuple):
    """A file in a commit: its path, Git mode and blob id."""

    path: str
    mode: int
    blob: str

    @property
    def executable(self) -> bool:
        """Whether it has the executable bit."""
        return bool(self.mode & 0o111)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


class GitRepository:
    """A repository on this disk, with or without a work tree."""

    def __init__(self, repo: Repo) -> None:
        if repo.object_format.name != "sha1":
            raise StateError(f"{repo.path} stores objects by {repo.object_format.name}, and reg works with sha1 alone")
        self._repo = repo
        self._objects = Objects(repo)
        self.bare = repo.bare
        self.root = os.path.realpath(repo.path)
        self.control = os.path.realpath(repo.controldir())

    @classmethod
    def discover(cls, path: str) -> GitRepository:
        """Open the repository that a path lies in.

        Raises
        ------
        NotFound
            When it lies in none.
        """
        try:
            return cls(Repo.discover(path))
        except NotGitRepository:
            raise NotFound(f"{path} is not in a Git repository", hint="git init, or reg init for a registry") from None

    @classmethod
    def open(cls, path: str) -> GitRepository:
        """Open the repository at a path exactly.

        Raises
        ------
        NotFound
            When there is none.
        """
        try:
            return cls(Repo(path))
        except NotGitRepository:
            raise NotFound(
                f"{path} is not a Git repository", hint="name the repository's root folder or its URL"
            ) from None

    @classmethod
    def init(cls, path: str) -> GitRepository:
        """Make a repository with a work tree."""
        os.makedirs(path, exist_ok=True)
        return cls(Repo.init(path, default_branch=b"main"))

    @property
    def dulwich(self) -> Repo:
        """The repository as dulwich has it, for this layer alone."""
        return self._repo

    @property
    def main_root(self) -> str:
        """The root of the main work tree, when this is a linked one; else its own."""
        common = os.path.realpath(self._repo.commondir())
        return self.root if common == self.control else os.path.dirname(common)

    def remove_stale_locks(self, since: float, folders: Sequence[str]) -> None:
        """Remove locks of Git's that a killed run of ours left: those made after it began, when no `git` runs here.

        Parameters
        ----------
        since
            When that run took the repository's own lock, in seconds since the epoch.
        folders
            The Git folders that it wrote to.
        """
        if _git_is_running([self.root, *folders]):
            return
        for top in folders:
            for folder, _, names in os.walk(top):
                for name in names:
                    path = os.path.join(folder, name)
                    with suppress(FileNotFoundError):
                        if name.endswith(".lock") and os.lstat(path).st_ctime >= since - 1:
                            os.unlink(path)

    def close(self) -> None:
        """Let go of its files."""
        self._repo.close()

    # --- refs ---------------------------------------------------------------------------------------------------

    def refs(self) -> dict[str, str]:
        """Return all branches and tags by full name, with the commits they point to (through annotated tags)."""
        found = {}
        for name, value in self._repo.refs.as_dict().items():
            if name.startswith((b"refs/heads/", b"refs/tags/")):
                commit = self._peel(value)
                if commit is not None:
                    found[name.decode()] = commit
        return found

    def _peel(self, value: ObjectID) -> str | None:
        try:
            found = self._repo[value]
            while isinstance(found, Tag):
                found = self._repo[found.object[1]]
        except KeyError:
            return None
        return found.id.decode() if isinstance(found, Commit) else None

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
        return {name.decode(errors="replace") for name in self._repo.refs.allkeys()}

    def has_commit(self, commit: str) -> bool:
        """Tell whether a full commit id is here."""
        return bool(_HEX.match(commit)) and ObjectID(commit.encode()) in self._repo.object_store

    def commit_time(self, commit: str) -> int:
        """Return when a commit was made, in seconds since the epoch."""
        return int(self._commit(commit).commit_time)

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
        """Return what a path is at a commit (a directory has a tree's id); None when there is nothing."""
        tree = self._commit(commit).tree
        if not path:
            return TreeFile("", stat.S_IFDIR, tree.decode())
        mode = stat.S_IFDIR
        for part in path.encode().split(b"/"):
            found = self._repo[tree]
            if not isinstance(found, Tree) or part not in found:
                return None
            mode, tree = found[part]
        return TreeFile(path, mode, tree.decode())

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
                tree = self._repo[ObjectID(identifier)]
                assert isinstance(tree, Tree)  # noqa: S101 -- ids come from trees
                for name, mode, found in tree.iteritems():
                    path = f"{folder}/{name.decode(errors='surrogateescape')}".lstrip("/")
                    if stat.S_ISDIR(mode):
                        pending.append((path, found))
                    elif name.endswith(ending) and (path, found) not in seen:
                        seen.add((path, found))
                        yield path, found.decode()

    def blob(self, identifier: str) -> bytes:
        """Return a blob's bytes."""
        found = self._repo[identifier.encode()]
        assert isinstance(found, Blob)  # noqa: S101 -- callers take ids from trees
        return found.as_raw_string()

    def walk(self, commit: str, folder: str = "") -> Iterator[TreeFile]:
        """List the files below a folder of a commit (submodules are left out)."""
        top = self.lookup(commit, folder)
        if top is not None and stat.S_ISDIR(top.mode):
            yield from self._walk_tree(top.blob, folder)

    def _walk_tree(self, identifier: str, folder: str) -> Iterator[TreeFile]:
        tree = self._repo[identifier.encode()]
        assert isinstance(tree, Tree)  # noqa: S101 -- callers take ids from trees
        for name, mode, found in tree.iteritems():
            path = (
                f"{folder}/{name.decode(errors='surrogateescape')}" if folder else name.decode(errors="surrogateescape")
            )
            if stat.S_ISDIR(mode):
                yield from self._walk_tree(found.decode(), path)
            elif stat.S_IFMT(mode) in (stat.S_IFREG, stat.S_IFLNK):
                yield TreeFile(path, mode, found.decode())

    # --- index --------------------------------------------------------------------------------------------------

    def _index(self) -> Index:
        try:
            return self._repo.open_index(self._repo.get_config_stack())
        except (ChecksumMismatch, UnsupportedIndexFormat, ValueError) as error:
            raise StateError(
                f"the index of {self.root} cannot be read ({type(error).__name__})",
                hint="a split index is not read: git update-index --no-split-index",
            ) from error

    def unmerged(self) -> list[str]:
        """Return the paths that a merge left in conflict."""
        return [
            name.decode(errors="surrogateescape")
            for name, entry in self._index().items()
            if not isinstance(entry, IndexEntry)
        ]

    def tracked(self, path: str) -> list[str]:
        """Return the files that Git tracks at a path or below it."""
        wanted = path.encode()
        return [
            name.decode(errors="surrogateescape")
            for name in self._index()
            if name == wanted or name.startswith(wanted + b"/")
        ]

    def staged(self) -> dict[str, str]:
        """Return the blobs of the index by path (unmerged paths are left out)."""
        return {
            name.decode(errors="surrogateescape"): entry.sha.decode()
            for name, entry in self._index().items()
            if isinstance(entry, IndexEntry)
        }

    def locked_index(self) -> locked_index:
        """Return the index, to be changed under Git's own lock."""
        return locked_index(self._repo.index_path(), self._repo.object_format)

    def edit(self, edits: Mapping[str, Edit], message: str | None) -> str | None:
        """Change tracked files in the work tree and the index; with a message, commit those changes alone.

        A function is applied to the work tree's, the index's and HEAD's content each, so that what the user has
        changed or staged in the same file stays as it is and out of the commit.

        Returns
        -------
        The new commit, or None when there was nothing to commit.
        """
        with self.edited_files(edits):
            self._edit_index(edits)
        return self.commit(edits, message) if message is not None else None

    @contextmanager
    def edited_files(self, edits: Mapping[str, Edit]) -> Iterator[None]:
        """Change tracked files in the work tree alone; they are put back when the block fails."""
        before: dict[str, bytes | None] = {}
        try:
            self._edit_files(edits, before)
            yield
        except BaseException as error:
            for path, content in before.items():
                self.replace_file(path, content)
            if isinstance(error, OSError):
                raise translate_os_error(error, next(iter(edits)), self.root) from error
            raise

    def _edit_files(self, edits: Mapping[str, Edit], done: dict[str, bytes | None]) -> None:
        for path, edit in sorted(edits.items(), key=lambda item: item[1] is None):  # new names before old ones go
            place = os.path.join(self.root, path)
            try:
                with open(place, "rb") as file:
                    before: bytes | None = file.read()
            except (FileNotFoundError, NotADirectoryError):
                before = None
            after = edit(before) if callable(edit) else edit
            if after != before:
                self.replace_file(path, after)
                done[path] = before

    def replace_file(self, path: str, content: bytes | None, mode: int = 0o100644) -> None:
        """Write a file of the work tree, of a Git mode, whole or not at all; None removes it.

        The temporary file lies where `reg` keeps its own things: a killed run leaves nothing among the user's files.
        """
        place = os.path.join(self.root, path)
        if content is None:
            if os.path.lexists(place):
                os.unlink(place)
            return
        os.makedirs(os.path.dirname(place), exist_ok=True)
        temporary = os.path.join(self.root, _SCRATCH)
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        if os.path.lexists(temporary):
            os.unlink(temporary)
        if stat.S_ISLNK(mode):
            os.symlink(os.fsdecode(content), temporary)
        else:
            with open(temporary, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                if mode & 0o111:
                    os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode | 0o111)
        os.replace(temporary, place)

    def _edit_index(self, edits: Mapping[str, Edit]) -> None:
        def change() -> None:
            with self.locked_index() as index:
                for path, edit in edits.items():
                    self._edit_entry(index, path, edit)

        retry_locked(change, f"the index of {self.root}")

    def _edit_entry(self, index: Index, path: str, edit: Edit) -> None:
        name = path.encode()
        entry = index[name] if name in index else None  # noqa: SIM401 -- an index has no get
        before = self.blob(entry.sha.decode()) if isinstance(entry, IndexEntry) else None
        after = edit(before) if callable(edit) else edit
        if after is None:
            if name in index:
                del index[name]
            return
        blob = self._blob(name, after)
        self._objects.add_object(blob)
        place = os.path.join(self.root, path)
        with open(place, "rb") as file:
            same = file.read() == after
        if same:
            index[name] = index_entry_from_stat(os.lstat(place), blob.id, mode=0o100644)
        else:  # the user has edits in it: times of zero make Git look at the file again
            index[name] = IndexEntry(0, 0, 0, 0, 0o100644, 0, 0, 0, blob.id)

    def _blob(self, name: bytes, content: bytes) -> Blob:
        """Make the blob that Git would make of a file's content (line ends, filters)."""
        return self._repo.get_blob_normalizer().checkin_normalize(Blob.from_string(content), name)

    def stage(self, path: str, content: bytes) -> None:
        """Put a file's content into the index, as it is in the work tree."""
        self._edit_index({path: content})

    # --- commits ------------------------------------------------------------------------------------------------

    def commit(self, edits: Mapping[str, Edit], message: str) -> str | None:
        """Commit edits of some files on top of HEAD, whatever else is staged; a lost race is tried again.

        Returns
        -------
        The new commit; None when the edits change nothing.
        """
        identity = self.identity()
        for _ in range(200):
            parent = self.head()
            tree = self._repo[self._commit(parent).tree] if parent else Tree()
            assert isinstance(tree, Tree)  # noqa: S101 -- a commit's tree
            if not parent:
                self._objects.add_object(tree)
            changes: list[tuple[bytes, int | None, ObjectID | None]] = []
            for path, edit in edits.items():
                before = self.read(parent, path) if parent else None
                after = edit(before) if callable(edit) else edit
                if after == before:
                    continue
                if after is None:
                    changes.append((path.encode(), None, None))
                else:
                    blob = self._blob(path.encode(), after)
                    self._objects.add_object(blob)
                    changes.append((path.encode(), 0o100644, blob.id))
            if not changes:
                return None
            store = cast(BaseObjectStore, self._objects)  # it reads and adds, which is all that is needed
            new_tree = commit_tree_changes(store, tree, changes)
            tree_id = new_tree if isinstance(new_tree, bytes) else new_tree.id
            commit = self._new_commit(ObjectID(tree_id), parent, identity, message)
            if self._move_head(parent, commit, identity, message):
                return commit.decode()
        raise Conflict(f"other commits keep coming in {self.root}", hint="run it again")

    def _new_commit(self, tree: ObjectID, parent: str | None, identity: bytes, message: str) -> ObjectID:
        commit = Commit()
        commit.tree = tree
        commit.parents = [ObjectID(parent.encode())] if parent else []
        commit.committer = identity
        commit.author = get_user_identity(self._repo.get_config_stack(), kind="AUTHOR")
        commit.commit_time = commit.author_time = int(time.time())
        commit.commit_timezone = commit.author_timezone = -time.timezone
        commit.encoding = b"UTF-8"
        commit.message = message.encode() + (b"" if message.endswith("\n") else b"\n")
        self._objects.add_object(commit)
        return commit.id

    def _move_head(self, parent: str | None, commit: ObjectID, identity: bytes, message: str) -> bool:
        head = Ref(b"HEAD")
        note = b"commit: " + message.split("\n", 1)[0].encode()
        try:
            if parent is None:
                return self._repo.refs.add_if_new(head, commit, committer=identity, message=note)
            old = ObjectID(parent.encode())
            moved = self._repo.refs.set_if_equals(head, old, commit, committer=identity, message=note)
        except FileLocked:
            time.sleep(0.05)
            return False
        if moved and self.branch() is not None:  # dulwich notes it for the branch alone, Git for HEAD too
            self._repo._write_reflog(head, old, commit, identity, None, None, note)
        return moved

    def identity(self) -> bytes:
        """Return who commits here.

        Raises
        ------
        StateError
            When Git was never told.
        """
        try:
            return get_user_identity(self._repo.get_config_stack(), kind="COMMITTER")
        except Exception as error:
            raise StateError(
                f"Git does not know who you are ({type(error).__name__})",
                hint='git config --global user.name "You"; git config --global user.email you@example.org',
            ) from error

    def tag(self, name: str, commit: str) -> None:
        """Make a light tag.

        Raises
        ------
        Conflict
            When there is one of that name.
        """
        if not self._repo.refs.add_if_new(Ref(b"refs/tags/" + name.encode()), ObjectID(commit.encode())):
            raise Conflict(f"there is a tag {name} already in {self.root}")

    # --- configuration ------------------------------------------------------------------------------------------

    def config(self, section: tuple[str, ...], name: str) -> str | None:
        """Return a value of Git's configuration; None when it is not set."""
        try:
            value = self._repo.get_config_stack().get(tuple(part.encode() for part in section), name.encode())
        except KeyError:
            return None
        return value.decode()

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


def _git_is_running(folders: Sequence[str]) -> bool:
    """Tell whether a `git` runs in one of these folders, whose locks must be left alone; in doubt, one does."""
    try:
        processes = [name for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return True
    for process in processes:
        try:
            with open(f"/proc/{process}/comm", encoding="ascii", errors="replace") as file:
                if file.read().startswith("git"):
                    place = os.readlink(f"/proc/{process}/cwd")
                    if any(place == folder or place.startswith(folder + os.sep) for folder in folders):
                        return True
        except FileNotFoundError:
            continue  # it has ended
        except OSError:
            return True
    return False


def _split_steps(revision: str) -> tuple[str, list[tuple[str, int]]]:
    """Split ``main~2^1`` into its base and its steps (gitrevisions(7))."""
    found = re.match(r"(.*?)((?:[~^]\d*)*)\Z", revision, re.DOTALL)
    if found is None:
        return revision, []
    steps = [(kind, int(number) if number else 1) for kind, number in re.findall(r"([~^])(\d*)", found[2])]
    return found[1], steps


def retry_locked(change: Callable[[], None], what: str) -> None:
    """Do something that takes one of Git's locks, and wait a while for another program that holds it.

    Raises
    ------
    Conflict
        When it holds it for longer.
    """
    deadline = time.monotonic() + _LOCK_WAIT
    while True:
        try:
            change()
        except FileLocked:
            if time.monotonic() > deadline:
                raise Conflict(
                    f"another program is writing {what}", hint="wait for it, or remove a stale index.lock"
                ) from None
            time.sleep(0.02)
        else:
            return
