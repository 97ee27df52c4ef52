"""Walk a work tree in the order of a manifest, without holding it in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, Protocol

from registree.errors import FormatError, InvalidInput, NotFound
from registree.model.manifest import Kind, link_stays_inside
from registree.model.paths import check_entry_path, check_entry_paths, join, portability_problems
from registree.store.file_stat import FileStat, file_stat
from registree.store.fingerprint import Fingerprint, combine
from registree.store.listing import Folders
from registree.store.workers import Workers


class Ignored(Protocol):
    """Tells what is left out."""

    def __call__(self, path: str, is_dir: bool, /) -> bool:
        """Tell whether a path, relative to the folder that is walked, is left out."""

    def has_rules(self, folder: str, names: Collection[str]) -> bool:
        """Tell whether anything in a folder, in which these names are, may be."""


class Found(NamedTuple):
    """One path of a work tree: its kind, its stat, and the target's bytes when it is a link."""

    path: str
    kind: Kind
    stat: FileStat
    target: bytes


STRANGE = b"\0strange"
"""Stands in `Found.target` for what no dataset may hold, when scanning is lenient."""
_FOLDER = FileStat(stat.S_IFDIR, 0, 0, 0, 0)


class Scan:
    """A walk over what a dataset's path holds, sorted as a manifest is.

    Parameters
    ----------
    root
        A file or a directory; for a file, the one path found is empty.
    ignored
        What to leave out.
    warn
        Told of names that will not do on other systems.
    lenient
        Yield what no dataset may hold, with `STRANGE` as its target, in place of refusing it.
    workers
        List the folders.
    """

    def __init__(
        self,
        root: str,
        ignored: Ignored | None = None,
        warn: Callable[[str], None] | None = None,
        *,
        lenient: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self._root = root
        self._ignored = ignored
        self._warn = warn
        self._lenient = lenient
        self._folders = Folders(root, workers)
        self._is_whole = True
        self._is_over = False

    def __iter__(self) -> Iterator[Found]:
        """Walk.

        Raises
        ------
        NotFound
            When there is nothing at `root`.
        InvalidInput
            For a link that leaves the dataset, a socket, a pipe, a device, or a name that cannot be kept.
        """
        root = self._root
        try:
            found = os.stat(root, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFound(f"there is nothing at {root}") from None
        if stat.S_ISDIR(found.st_mode):
            self._folders.expect([""])
            yield from self._walk()
            self._is_over = True
        elif stat.S_ISREG(found.st_mode):
            yield Found("", _file_kind(found.st_mode), file_stat(found), b"")
        elif self._lenient:
            yield Found("", Kind.FILE, file_stat(found), STRANGE)
        else:
            raise InvalidInput(f"{root} is {_name_of(found.st_mode)}, and a dataset is a file or a directory")

    def fingerprint(self) -> Fingerprint | None:
        """Return the fingerprint of the folder that was walked; None when another in it was left out.

        Each part of it was taken before the first of its files was yielded.
        """
        folders = self._folders
        return combine(folders.digests, folders.newest) if self._is_over and self._is_whole else None

    def _walk(self) -> Iterator[Found]:
        """Yield what is there; folders may lie in each other deeper than functions may call each other."""
        open_folders = [self._folder("")]
        while open_folders:
            for found in open_folders[-1]:
                if isinstance(found, str):
                    open_folders.append(self._folder(found))
                    break
                yield found
            else:
                open_folders.pop()

    def _folder(self, folder: str) -> Iterator[Found | str]:
        """Yield what is in one folder, and the paths of the folders in it."""
        names, entries = self._entries(folder)
        if not names and folder:
            yield Found(folder, Kind.DIRECTORY, _FOLDER, b"") if self._fits(folder) else self._strange(folder, _FOLDER)
        self._folders.expect([join(folder, name[:-1]) for name in names if name.endswith("/") and not _is_own(name)])
        if self._warn is not None:
            for problem in portability_problems(folder, [name.removesuffix("/") for name in names]):
                self._warn(problem)
        start = f"{folder}/" if folder else ""
        all_fit = _all_fit([start + name for name in names if not name.endswith("/")])
        for name, found in entries:
            path = start + name
            if name.endswith("/"):
                if _is_own(name):
                    self._pass_own(path[:-1])
                else:
                    yield path[:-1]
            elif not all_fit and not self._fits(path):
                yield self._strange(path, found)
            elif stat.S_ISREG(found.mode):
                yield Found(path, _file_kind(found.mode), found, b"")
            else:
                yield self._other(path, found)

    def _entries(self, folder: str) -> tuple[list[str], Iterable[tuple[str, FileStat]]]:
        """Return the names in a folder that are not left out, in order, and the same with what is known of each."""
        names, numbers = self._folders.take(folder)
        entries: Iterable[tuple[str, FileStat]] = zip(names, map(FileStat._make, numbers), strict=True)
        if self._ignored is not None and self._ignored.has_rules(folder, names):
            entries = [pair for pair in entries if not self._is_ignored(folder, pair[0])]
            kept = {name for name, _ in entries}
            self._is_whole = self._is_whole and all(name in kept for name in names if name.endswith("/"))
            names = [name for name in names if name in kept]
        empty = self._misplaced(folder, names)
        if empty:
            entries = sorted(entries, key=lambda pair: pair[0][:-1] if pair[0] in empty else pair[0])
            names = [name for name, _ in entries]
        return names, entries

    def _is_ignored(self, folder: str, name: str) -> bool:
        return self._ignored is not None and self._ignored(join(folder, name.removesuffix("/")), name.endswith("/"))

    def _misplaced(self, folder: str, names: list[str]) -> set[str]:
        """Return the empty folders among these that are not where they belong.

        An empty folder is an entry of its own and sorts by its name without the slash.
        """
        return {
            name
            for before, name in pairwise(names)
            if name.endswith("/") and before > name[:-1] and self._is_empty(join(folder, name[:-1]))
        }

    def _is_empty(self, folder: str) -> bool:
        with os.scandir(f"{self._root}/{folder}") as listing:
            return all(
                self._is_ignored(folder, e.name + "/" if e.is_dir(follow_symlinks=False) else e.name) for e in listing
            )

    def _other(self, path: str, found: FileStat) -> Found:
        place = f"{self._root}/{path}"
        if stat.S_ISLNK(found.mode):
            target = os.fsencode(os.readlink(place))
            if link_stays_inside(path, target):
                return Found(path, Kind.LINK, found, target)
            what = f"a link to {os.fsdecode(target)!r}, which leaves the dataset"
        else:
            what = _name_of(found.mode)
        if self._lenient:
            return self._strange(path, found)
        raise InvalidInput(f"{place} is {what}", hint=f"leave it out: echo /{path} >> {self._root}/.regignore")

    def _pass_own(self, path: str) -> None:
        """Pass by another repository's own folder, if that may be."""
        self._is_whole = False
        if not self._lenient:
            raise InvalidInput(
                f"{self._root}/{path} is another repository's own folder",
                hint=f"leave it out: echo {os.path.basename(path)} >> {self._root}/.regignore",
            )

    def _fits(self, path: str) -> bool:
        try:
            check_entry_path(path)
        except FormatError:
            if self._lenient:
                return False
            place = f"{self._root}/{path!a}"
            raise InvalidInput(
                f"{place} cannot be added: its name is not UTF-8, too long, or reserved", hint="rename it"
            ) from None
        return True

    @staticmethod
    def _strange(path: str, found: FileStat) -> Found:
        return Found(os.fsencode(path).decode(errors="backslashreplace"), Kind.FILE, found, STRANGE)


def _all_fit(paths: list[str]) -> bool:
    try:
        check_entry_paths(paths)
    except FormatError:
        return False
    return True


def _is_own(name: str) -> bool:
    return name.lower() in (".git/", ".reg/")


def _file_kind(mode: int) -> Kind:
    return Kind.EXECUTABLE if mode & 0o100 else Kind.FILE


def _name_of(mode: int) -> str:
    for test, name in (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    ):
        if test(mode):
            return name
    return "no regular file"
