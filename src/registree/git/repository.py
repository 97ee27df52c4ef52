"""A repository with a work tree: what is tracked, staged and committed, written beside the `git` command."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import cast

from dulwich.errors import ChecksumMismatch
from dulwich.file import FileLocked, GitFile
from dulwich.index import (
    Index,
    IndexChecksumWriter,
    IndexEntry,
    UnsupportedIndexFormat,
    index_entry_from_stat,
    write_index_dict,
)
from dulwich.object_store import BaseObjectStore, commit_tree_changes
from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo, get_user_identity

from registree.errors import Conflict, StateError, translate_os_error
from registree.git.reading import RepositoryReader, refuse_unreadable

Edit = bytes | None | Callable[[bytes | None], bytes | None]
"""What becomes of a tracked file: new content, None to remove it, or a function of its content so far."""

_LOCK_WAIT = 10.0
_SCRATCH = ".reg/tracked.tmp"


def _seconds(time: float | tuple[int, int]) -> int:
    return time[0] if isinstance(time, tuple) else int(time)


def chain(first: Edit, second: Edit) -> Edit:
    """Return the edit that does both, in order."""

    def both(before: bytes | None) -> bytes | None:
        middle = first(before) if callable(first) else first
        return second(middle) if callable(second) else second

    return both


class GitRepository(RepositoryReader):
    """A repository on this disk; what writes needs one with a work tree."""

    @classmethod
    def init(cls, path: str) -> GitRepository:
        """Make a repository with a work tree."""
        refuse_unreadable(os.path.realpath(path))
        os.makedirs(path, exist_ok=True)
        return cls(Repo.init(path, default_branch=b"main"))

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

    @contextmanager
    def locked_index(self) -> Iterator[Index]:
        """Give the index, to be changed under Git's own lock.

        Git compares times in whole seconds, and looks into a file that is as young as the index. A younger index must
        not hide such a file: its entry is given a size of 0, as Git's own writer does (gitformat-index(5), "racy Git").
        """
        path = self._repo.index_path()
        file = GitFile(path, "wb")
        try:
            index = Index(path, object_format=self._repo.object_format)
            written = os.stat(path).st_mtime_ns // 10**9 if os.path.exists(path) else 0
            young = [
                (name, entry)
                for name, entry in index.items()
                if isinstance(entry, IndexEntry) and entry.size and _seconds(entry.mtime) >= written
            ]
            yield index
            for name, entry in young:
                if name in index and index[name] is entry:
                    index[name] = replace(entry, size=0)
            writer = IndexChecksumWriter(file, self._repo.object_format)
            write_index_dict(writer, dict(index.items()), object_format=self._repo.object_format)
            writer.close()
        except BaseException:
            try:
                file.abort()
            except OSError:  # a full disk; the file is closed by now, and the lock goes
                file.abort()
            raise

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

        The temporary file lies where `reg` keeps its own things: a killed run leaves nothing among the user's files,
        unless those are on another disk.
        """
        place = os.path.join(self.root, path)
        if content is None:
            if os.path.lexists(place):
                os.unlink(place)
            return
        os.makedirs(os.path.dirname(place), exist_ok=True)
        temporary = os.path.join(self.root, _SCRATCH)
        os.makedirs(os.path.dirname(temporary), exist_ok=True)
        _write_new(temporary, content, mode)
        try:
            os.replace(temporary, place)
        except OSError as error:
            os.unlink(temporary)
            if error.errno != errno.EXDEV:
                raise
            beside = f"{place}.{secrets.token_hex(6)}.reg-new"
            try:
                _write_new(beside, content, mode)
                os.replace(beside, place)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(beside)
                raise

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
            tree = self._object(self._commit(parent).tree, Tree) if parent else Tree()
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


def _write_new(path: str, content: bytes, mode: int) -> None:
    """Write a file, or a link, of a Git mode in place of what may be there, and wait until it is on the disk."""
    if os.path.lexists(path):
        os.unlink(path)
    if stat.S_ISLNK(mode):
        os.symlink(os.fsdecode(content), path)
        return
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if mode & 0o111:
            os.fchmod(file.fileno(), os.fstat(file.fileno()).st_mode | 0o111)


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
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        except OSError:
            return True
    return False


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
