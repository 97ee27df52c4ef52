"""Which entries of a dataset are wanted: a part of it, less what globs leave out."""

from __future__ import annotations

import fnmatch
import re
from functools import cached_property

import msgspec

from registree.model.manifest import Entry
from registree.model.paths import EntryPath, is_within

_SET = re.compile(r"\[([!^]?+)(\]?[^]]+|\])\]")
"""A set of characters in a glob: whether it is the others that are meant, and its members."""


def glob_regex(pattern: str) -> re.Pattern[str]:
    """Translate a glob: ``*`` and ``?`` stop at ``/``, ``**`` does not; without a ``/`` it fits names at any depth.

    >>> bool(glob_regex("*.png").fullmatch("train/cats/1.png"))
    True
    >>> bool(glob_regex("train/*.png").fullmatch("train/cats/1.png"))
    False
    """
    anchored = "/" in pattern.rstrip("/")
    out, at, text = "", 0, pattern.strip("/")
    while at < len(text):
        if text.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif text.startswith("**", at):
            out, at = out + ".*", at + 2
        elif text[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif text[at] == "?":
            out, at = out + "[^/]", at + 1
        elif members := _SET.match(text, at):
            out += "(?!/)" + fnmatch.translate(f"[{members[1] and '!'}{members[2]}]")[: -len(r"\Z")]
            at = members.end()
        else:
            out, at = out + re.escape(text[at]), at + 1
    return re.compile(("" if anchored else "(?:.*/)?") + out + "(?:/.*)?", re.DOTALL)


class Selection(msgspec.Struct, frozen=True, dict=True):
    """A part of a dataset (empty: all of it) and globs, matched against paths below the part.

    With `include`, only what fits one of them is wanted; what fits one of `exclude` never is.
    """

    part: EntryPath = EntryPath("")
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing out."""
        return not (self.part or self.include or self.exclude)

    @cached_property
    def _patterns(self) -> tuple[list[re.Pattern[str]], list[re.Pattern[str]]]:
        return [glob_regex(p) for p in self.include], [glob_regex(p) for p in self.exclude]

    def apply(self, entry: Entry) -> Entry | None:
        """Return the entry as it stands below the part, or None when it is not wanted."""
        path = entry.path
        if self.part:
            if not is_within(path, self.part):
                return None
            path = path[len(self.part) + 1 :]
        include, exclude = self._patterns
        if include and not any(pattern.fullmatch(path) for pattern in include):
            return None
        if any(pattern.fullmatch(path) for pattern in exclude):
            return None
        return entry if path == entry.path else Entry(path, entry.kind, entry.size, entry.content)

    def may_hold(self, first: str, last: str) -> bool:
        """Tell whether a page whose paths lie after `first` and up to `last` may hold anything wanted."""
        part = self.part
        # all paths of the part p sort in [p, p + "0"): "0" is the character after "/"
        return not part or (last >= part and first < part + "0")
