"""Walk a work tree in the order of a manifest, without holding it in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from registree.errors import FormatError, InvalidInput, NotFound
from registree.model.manifest import Kind, link_stays_inside
from registree.model.paths import check_entry_path, join, portability_problems


class Ignored(Protocol):
    """Tells what is left out."""

    def __call__(self, path: str, is_dir: bool, /) -> bool:
        """Tell whether a path, relative to the folder that is walked, is left out."""

    def has_rules(self, folder: str) -> bool:
        """Tell whether anything in a folder may be."""


class Found(NamedTuple):
    """One path of a work tree: its kind, its stat, and the target's bytes when it is a link."""

    path: str
    kind: Kind
    stat: os.stat_result
    target: bytes


STRANGE = b"\0strange"
"""Stands in `Found.target` for what no dataset may hold, when scanning is lenient."""


def scan(
    root: str, ignored: Ignored | None = None, warn: Callable[[str], None] | None = None, *, lenient: bool = False
) -> Iterator[Found]:
    """Walk what a dataset's path holds, sorted as a manifest is.

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

    Raises
    ------
    NotFound
        When there is nothing at `root`.
    InvalidInput
        For a link that leaves the dataset, a socket, a pipe, a device, or a name that cannot be kept.
    """
    try:
        found = os.stat(root, follow_symlinks=False)
    except FileNotFoundError:
        raise NotFound(f"there is nothing at {root}") from None
    if stat.S_ISDIR(found.st_mode):
        yield from _Scan(root, ignored, warn, lenient).folder("", found)
    elif stat.S_ISREG(found.st_mode):
        yield Found("", _file_kind(found), found, b"")
    elif lenient:
        yield Found("", Kind.FILE, found, STRANGE)
    else:
        raise InvalidInput(f"{root} is {_name_of(found)}, and a dataset is a file or a directory")


class _Scan(NamedTuple):
    """One walk, as `scan` was asked for it."""

    root: str
    ignored: Ignored | None
    warn: Callable[[str], None] | None
    lenient: bool

    def folder(self, folder: str, own: os.stat_result) -> Iterator[Found]:
        with os.scandir(f"{self.root}/{folder}" if folder else self.root) as listing:
            entries = [(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in listing]
        ignored = self.ignored
        if ignored is not None and ignored.has_rules(folder):
            entries = [(k, e) for k, e in entries if not ignored(join(folder, e.name), k.endswith("/"))]
        if not entries:
            if folder:
                yield Found(folder, Kind.DIRECTORY, own, b"") if self._fits(folder) else self._strange(folder, own)
            return
        entries.sort(key=lambda item: item[0])
        self._sort_empty_folders(folder, entries)
        if self.warn is not None:
            for problem in portability_problems(folder, [e.name for _, e in entries]):
                self.warn(problem)
        for _, entry in entries:
            path = join(folder, entry.name)
            found = entry.stat(follow_symlinks=False)
            mode = found.st_mode
            if stat.S_ISDIR(mode):
                if self._own_folder(entry.name, path):
                    yield from self.folder(path, found)
            elif not self._fits(path):
                yield self._strange(path, found)
            elif stat.S_ISREG(mode):
                yield Found(path, _file_kind(found), found, b"")
            else:
                yield self._other(path, found)

    def _sort_empty_folders(self, folder: str, entries: list[tuple[str, os.DirEntry[str]]]) -> None:
        """An empty folder is an entry of its own and sorts by its name without the slash."""
        doubtful = [
            i for i in range(1, len(entries)) if entries[i][0].endswith("/") and entries[i - 1][0] > entries[i][1].name
        ]
        for i in doubtful:
            name = entries[i][1].name
            if self._is_empty(join(folder, name)):
                entries[i] = name, entries[i][1]
        if doubtful:
            entries.sort(key=lambda item: item[0])

    def _is_empty(self, folder: str) -> bool:
        ignored = self.ignored
        with os.scandir(f"{self.root}/{folder}") as listing:
            return all(
                ignored is not None and ignored(join(folder, e.name), e.is_dir(follow_symlinks=False)) for e in listing
            )

    def _other(self, path: str, found: os.stat_result) -> Found:
        place = f"{self.root}/{path}"
        if stat.S_ISLNK(found.st_mode):
            target = os.fsencode(os.readlink(place))
            if link_stays_inside(path, target):
                return Found(path, Kind.LINK, found, target)
            what = f"a link to {os.fsdecode(target)!r}, which leaves the dataset"
        else:
            what = _name_of(found)
        if self.lenient:
            return self._strange(path, found)
        raise InvalidInput(f"{place} is {what}", hint=f"leave it out: echo /{path} >> {self.root}/.regignore")

    def _own_folder(self, name: str, path: str) -> bool:
        if name.lower() not in (".git", ".reg"):
            return True
        if self.lenient:
            return False
        raise InvalidInput(
            f"{self.root}/{path} is another repository's own folder",
            hint=f"leave it out: echo {name} >> {self.root}/.regignore",
        )

    def _fits(self, path: str) -> bool:
        try:
            check_entry_path(path)
        except FormatError:
            if self.lenient:
                return False
            place = f"{self.root}/{path!a}"
            raise InvalidInput(
                f"{place} cannot be added: its name is not UTF-8, too long, or reserved", hint="rename it"
            ) from None
        return True

    @staticmethod
    def _strange(path: str, found: os.stat_result) -> Found:
        return Found(os.fsencode(path).decode(errors="backslashreplace"), Kind.FILE, found, STRANGE)


def _file_kind(found: os.stat_result) -> Kind:
    return Kind.EXECUTABLE if found.st_mode & 0o100 else Kind.FILE


def _name_of(found: os.stat_result) -> str:
    for test, name in (
        (stat.S_ISLNK, "a link"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISBLK, "a device"),
        (stat.S_ISCHR, "a device"),
    ):
        if test(found.st_mode):
            return name
    return "no regular file"
