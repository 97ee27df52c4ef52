"""What a work tree holds now: its entries, hashed only where the stat cache does not know them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from registree.errors import StoreError
from registree.git.ignore import RegIgnore, rules_above
from registree.model.checkout import Step
from registree.model.ids import EMPTY, hash_bytes
from registree.model.manifest import Entry, Kind
from registree.model.paths import join
from registree.store.file_stat import Stat, clock_step, file_stat, stat_row
from registree.store.files import hash_file
from registree.store.fingerprint import Fingerprint, fingerprint
from registree.store.scanning import STRANGE, Found, Scan
from registree.store.state import State
from registree.workspace import Workspace

FINGERPRINT_FROM = 2000
"""Files from which a fingerprint saves more than it costs."""
NO_CONTENT = b"\0" * 32
"""The content id of what has no content to speak of: a socket, a link that leaves the dataset."""


class Observed(NamedTuple):
    """An entry of the work tree, and the stat cache's new row for it when it had to be hashed."""

    entry: Entry
    learnt: Stat | None


def place_of(root: str, path: str) -> str:
    """Return where an entry lies on the disk; a dataset that is a file has one entry, without a path."""
    return f"{root}/{path}" if path else root


def observe_tree(workspace: Workspace, name: str, now: int, *, lenient: bool = False) -> Iterator[Observed]:
    """Stream the entries of a dataset's work tree, sorted as in a manifest.

    Parameters
    ----------
    now
        Nanoseconds since the epoch.
    lenient
        Show what no dataset may hold as a file like no version of it, in place of refusing it.
    """
    root = os.path.join(workspace.root, name)
    known = workspace.state.stats(name)
    row = next(known, None)
    for found in Scan(root, RegIgnore(root, workspace.root), lenient=lenient):
        while row is not None and row[0] < found.path:
            row = next(known, None)
        cached = row[1] if row is not None and row[0] == found.path else None
        if not found.path:
            cached = workspace.state.stat(name)
        yield _observed(root, found, cached, now)


def observed_entries(
    workspace: Workspace, name: str, learnt: list[tuple[str, Stat]], *, lenient: bool = False
) -> Iterator[Entry]:
    """Stream the entries of a dataset's work tree; rows for the stat cache are added to `learnt` on the way."""
    for observed in observe_tree(workspace, name, time.time_ns(), lenient=lenient):
        if observed.learnt is not None:
            learnt.append((join(name, observed.entry.path) if observed.entry.path else name, observed.learnt))
        yield observed.entry


def fingerprint_of(
    workspace: Workspace, name: str, files: int, *, walked: Fingerprint | None = None, newest_known: int | None = None
) -> Fingerprint | None:
    """Return the fingerprint of a dataset's work tree of about so many files; None when it is small or cannot be had.

    What the ignore files above leave out is part of it.

    Parameters
    ----------
    walked
        That of its folder, when a walk told it already.
    newest_known
        See `registree.store.fingerprint.fingerprint`.
    """
    if files < FINGERPRINT_FROM:
        return None
    root = os.path.join(workspace.root, name)
    try:
        found = walked or fingerprint(root, files, workspace.machine.processes, newest_known)
        rules = rules_above(workspace.root, name).rules
        return found._replace(digest=hash_bytes(found.digest + rules)) if found is not None else None
    except (OSError, StoreError):  # whoever compares the files says what is wrong
        return None


def is_still(workspace: Workspace, name: str, files: int, known: Fingerprint) -> bool:
    """Tell whether a dataset's work tree of about so many files has the fingerprint that was noted of it."""
    return fingerprint_of(workspace, name, files, newest_known=known.newest) == known


def note_clean(workspace: Workspace, name: str, version: bytes, found: Fingerprint | None, since: int) -> None:
    """Note the fingerprint of a work tree that is what it should be, so that the next look at it need not compare it.

    Parameters
    ----------
    version
        What it should be: see `State.clean`.
    since
        When looking at it began (nanoseconds since the epoch): what changed after that, or just before, is not trusted.
    """
    if found is None or not found.is_older(since):
        return
    with suppress(OSError):  # what cannot be looked at is not trusted either
        newest = rules_above(workspace.root, name).newest
        if newest <= since - clock_step(newest):
            workspace.state.update(clean=[(name, version, found)])


def _observed(root: str, found: Found, cached: Stat | None, now: int) -> Observed:
    if found.target == STRANGE:
        return Observed(Entry(found.path, found.kind, found.stat.size, NO_CONTENT), None)
    if found.kind == Kind.DIRECTORY:
        return Observed(Entry(found.path, found.kind, 0, b""), None)
    if found.kind == Kind.LINK:
        return Observed(Entry(found.path, found.kind, len(found.target), found.target), None)
    size = found.stat.size
    if cached is not None and cached.matches(found.stat):
        return Observed(Entry(found.path, found.kind, size, cached.content), None)
    content = hash_file(place_of(root, found.path)) if size else EMPTY
    return Observed(Entry(found.path, found.kind, size, content), stat_row(found.stat, content, now))


def left_out(root: str, top: str) -> list[str]:
    """Return the files below a folder that `.regignore` files leave out, so that no store holds them."""
    ignored = RegIgnore(root, top)
    found = []
    hidden: set[str] = set()
    for folder, folders, names in os.walk(root):
        here = os.path.relpath(folder, root) if folder != root else ""
        if here in hidden:
            hidden.update(join(here, name) for name in folders)
        else:
            hidden.update(join(here, name) for name in folders if ignored(join(here, name), True))
        found += [join(here, name) for name in names if here in hidden or ignored(join(here, name), False)]
    return found


def is_behind_link(root: str, path: str) -> bool:
    """Tell whether a folder above a path is a link: what lies behind it is not the dataset's."""
    parts = path.split("/")
    return bool(path) and any(os.path.islink(place_of(root, "/".join(parts[:depth]))) for depth in range(len(parts)))


def observe_path(state: State, root: str, name: str, path: str) -> Entry | None:
    """Return the entry that one path of a work tree is; None when there is nothing (or a folder with something)."""
    place = place_of(root, path)
    if is_behind_link(root, path):
        return None
    try:
        found = os.stat(place, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    mode = found.st_mode
    if stat.S_ISLNK(mode):
        target = os.fsencode(os.readlink(place))
        return Entry(path, Kind.LINK, len(target), target)
    if stat.S_ISDIR(mode):
        return None if os.listdir(place) else Entry(path, Kind.DIRECTORY, 0, b"")
    if not stat.S_ISREG(mode):
        return Entry(path, Kind.FILE, found.st_size, NO_CONTENT)  # a socket or a pipe: like no version of it
    cached = state.stat(join(name, path) if path else name)
    content = cached.content if cached is not None and cached.matches(file_stat(found)) else hash_file(place)
    return Entry(path, Kind.EXECUTABLE if mode & 0o100 else Kind.FILE, found.st_size, content)


def unhidden(workspace: Workspace, name: str, step: Step) -> Step:
    """A file that `.regignore` hides from the walk is there all the same, and may hold somebody's edits."""
    if step.found is not None:
        return step
    return step._replace(found=observe_path(workspace.state, os.path.join(workspace.root, name), name, step.path))
