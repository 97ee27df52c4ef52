"""Walk a work tree in the order of a manifest, without holding it in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

from registree.errors import FormatError, InvalidInput, NotFound
from registree.model.manifest import Kind, link_stays_inside
from registree.model.paths import METAFILE_SUFFIX, check_entry_path, join, portability_problems

Ignored = Callable[[str, bool], bool]
"""Tells whether a path (relative, is it a directory?) is left out."""


class Found(NamedTuple):
    """One path of a work tree: its kind, its stat, and the target's bytes when it is a link."""

    path: str
    kind: Kind
    stat: os.stat_result
    target: bytes


def scan(root: str, ignored: Ignored | None = None, warn: Callable[[str], None] | None = None) -> Iterator[Found]:
    """Walk what a dataset's path holds, sorted as a manifest is.

    Parameters
    ----------
    root
        A file or a directory; for a file, the one path found is empty.
    ignored
        What to leave out.
    warn
        Told of names that will not do on other systems.

    Raises
    ------
    NotFound
        When there is nothing at `root`.
    InvalidInput
        For a link that leaves the dataset, a broken link, a socket, a pipe, a device, or a name that cannot be kept.
    """
    try:
        found = os.stat(root, follow_symlinks=False)
    except FileNotFoundError:
        raise NotFound(f"there is nothing at {root}") from None
    if stat.S_ISREG(found.st_mode):
        yield Found("", _file_kind(found), found, b"")
    elif stat.S_ISDIR(found.st_mode):
        yield from _scan_folder(root, "", found, ignored, warn)
    else:
        raise InvalidInput(f"{root} is {_name_of(found)}, and a dataset is a file or a directory")


def _scan_folder(
    root: str, folder: str, own: os.stat_result, ignored: Ignored | None, warn: Callable[[str], None] | None
) -> Iterator[Found]:
    with os.scandir(f"{root}/{folder}" if folder else root) as listing:
        entries = [(e.name + "/" if e.is_dir(follow_symlinks=False) else e.name, e) for e in listing]
    if ignored is not None:
        entries = [(k, e) for k, e in entries if not ignored(join(folder, e.name), k.endswith("/"))]
    if not entries:
        if folder:
            yield Found(_checked(folder, root), Kind.DIRECTORY, own, b"")
        return
    entries.sort(key=lambda item: item[0])
    if warn is not None:
        for problem in portability_problems(folder, [e.name for _, e in entries]):
            warn(problem)
    for name, entry in entries:
        path = join(folder, entry.name)
        found = entry.stat(follow_symlinks=False)
        mode = found.st_mode
        if stat.S_ISREG(mode):
            yield Found(_checked(path, root), Kind.EXECUTABLE if mode & 0o100 else Kind.FILE, found, b"")
        elif name.endswith("/"):
            if entry.name.lower() in (".git", ".reg"):
                raise InvalidInput(
                    f"{root}/{path} is another repository's own folder",
                    hint=f"leave it out: echo {entry.name} >> {root}/.regignore",
                )
            yield from _scan_folder(root, path, found, ignored, warn)
        elif stat.S_ISLNK(mode):
            target = os.fsencode(os.readlink(f"{root}/{path}"))
            if not link_stays_inside(_checked(path, root), target):
                raise InvalidInput(
                    f"{root}/{path} is a link to {os.fsdecode(target)!r}, which leaves the dataset",
                    hint=f"copy what it points to, or leave it out: echo /{path} >> {root}/.regignore",
                )
            yield Found(path, Kind.LINK, found, target)
        else:
            raise InvalidInput(
                f"{root}/{path} is {_name_of(found)}", hint=f"leave it out: echo /{path} >> {root}/.regignore"
            )


def _checked(path: str, root: str) -> str:
    try:
        return check_entry_path(path)
    except FormatError:
        raise InvalidInput(f"{root}/{path!a} cannot be added: its name is not UTF-8, too long, or reserved") from None


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


def is_metafile(name: str) -> bool:
    """Tell whether a file's name is that of a metafile."""
    return name.endswith(METAFILE_SUFFIX)
