"""Ignore files: `.gitignore` lines keep payload out of Git, `.regignore` files keep files out of data."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from dulwich.ignore import IgnoreFilter, read_ignore_patterns

from registree.git.repository import Edit
from registree.model.paths import join

REGIGNORE = ".regignore"


def ignore_line(name: str) -> str:
    """Return the line that ignores one name in its folder, with what has a meaning there escaped.

    >>> ignore_line("a [1]*")
    '/a \\\\[1]\\\\*'
    """
    text = re.sub(r"([\\*?\[])", r"\\\1", name)
    text = re.sub(r"[\r\n]", "?", text)  # a line cannot hold a line end: any one character stands for it
    stripped = text.rstrip(" ")
    return "/" + stripped + "\\ " * (len(text) - len(stripped))


def with_line(line: str) -> Callable[[bytes | None], bytes | None]:
    """Return the edit of a `.gitignore` (or its like) that adds a line, if it is not there."""

    def edit(before: bytes | None) -> bytes | None:
        lines = (before or b"").split(b"\n")
        if line.encode() in (found.rstrip(b"\r") for found in lines):
            return before
        text = before or b""
        return text + (b"\n" if text and not text.endswith(b"\n") else b"") + line.encode() + b"\n"

    return edit


def without_line(line: str) -> Callable[[bytes | None], bytes | None]:
    """Return the edit of a `.gitignore` that takes a line out; a file with nothing left goes."""

    def edit(before: bytes | None) -> bytes | None:
        if before is None:
            return None
        kept = [found for found in before.splitlines(keepends=True) if found.strip(b"\r\n") != line.encode()]
        return b"".join(kept) or None

    return edit


def gitignore_edits(path: str, *, ignored: bool) -> dict[str, Edit]:
    """Return the edit that makes Git ignore a path, or no longer."""
    folder, _, name = path.rpartition("/")
    line = ignore_line(name)
    return {join(folder, ".gitignore"): with_line(line) if ignored else without_line(line)}


class Above(NamedTuple):
    """What the folders above a path leave out of it: the bytes of their ignore files, and when the last of the folders
    and files changed (nanoseconds since the epoch)."""

    rules: bytes
    newest: int


def rules_above(top: str, path: str) -> Above:
    """Look at the `.regignore` files from `top` down to the folder that a path (relative to it) is in.

    Raises
    ------
    OSError
        When something there cannot be looked at.
    """
    rules: list[bytes] = []
    newest = 0
    folder = path
    while folder:
        folder = folder.rpartition("/")[0]
        place = os.path.join(top, folder, REGIGNORE)
        looked_at = [os.stat(os.path.dirname(place))]
        with suppress(FileNotFoundError):  # that there is none shows in the folder's times
            looked_at += [os.lstat(place), os.stat(place)]
            with open(place, "rb") as file:
                rules.append(folder.encode(errors="surrogateescape") + b"\0" + file.read())
        newest = max(newest, *(max(found.st_mtime_ns, found.st_ctime_ns) for found in looked_at))
    return Above(b"\0".join(rules), newest)


class RegIgnore:
    """Tells what the `.regignore` files of a dataset leave out.

    A `.regignore` file counts for its folder and those below, as with `.gitignore`; those in the folders from `top`
    (the repository's root) down to the dataset count too. Paths are relative to `root`, the dataset's folder.
    """

    def __init__(self, root: str, top: str | None = None) -> None:
        self._prefix = os.path.relpath(root, top) if top is not None and top != root else ""
        self._base = top if top is not None else root
        self._rules: dict[str, list[tuple[int, IgnoreFilter]]] = {}

    def __call__(self, path: str, is_dir: bool) -> bool:
        """Tell whether a path is left out."""
        place = join(self._prefix, path)
        for length, filter_ in self._of(place.rpartition("/")[0]):
            verdict = filter_.is_ignored(place[length:] + ("/" if is_dir else ""))
            if verdict is not None:
                return verdict
        return False

    def has_rules(self, folder: str, names: Collection[str]) -> bool:
        """Tell whether anything in a folder, in which these names are, may be left out."""
        place = join(self._prefix, folder) if folder else self._prefix
        own = any(len(name) == len(REGIGNORE) and name.lower() == REGIGNORE for name in names)  # a disk may fold case
        return bool(self._of(place, may_have_own=own))

    def _of(self, folder: str, *, may_have_own: bool = True) -> list[tuple[int, IgnoreFilter]]:
        """Return the filters of a folder and of those above it, the nearest first, with the length of their paths."""
        found = self._rules.get(folder)
        if found is None:
            above = self._of(folder.rpartition("/")[0]) if folder else []
            own = []
            if may_have_own:
                with (
                    suppress(FileNotFoundError, NotADirectoryError),
                    open(os.path.join(self._base, folder, REGIGNORE), "rb") as file,
                ):
                    own = [(len(folder) + 1 if folder else 0, IgnoreFilter(read_ignore_patterns(file)))]
            found = self._rules[folder] = own + above
        return found
