"""The summary in a metafile: which folders hold how much, in at most a few dozen rows.

It is what a reviewer sees in a bare `git diff`, so it must name folders, stay short and not jump about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from registree.model.diff import Change
from registree.model.manifest import Entry, Kind

MAX_ROWS = 32
MAX_DEPTH = 4
TOP = "."
OTHERS = "(others)"
_MAX_TRACKED = 4096


class Row(NamedTuple):
    """What one folder holds: files, and their bytes."""

    files: int
    size: int


class ContentsCounter:
    """Count files and bytes by folder while entries stream by, in bounded memory."""

    def __init__(self) -> None:
        self._by_depth: list[dict[str, list[int]] | None] = [{} for _ in range(MAX_DEPTH)]
        self._folder: str | None = None
        self._open: list[list[int]] = []

    def add(self, entry: Entry) -> None:
        """Count one entry."""
        if entry.kind == Kind.DIRECTORY:
            return
        folder = entry.path.rpartition("/")[0]
        if folder != self._folder:
            self._folder, self._open = folder, list(self._rows_of(folder.split("/") if folder else []))
        for row in self._open:
            row[0] += 1
            row[1] += entry.size

    def _rows_of(self, parts: list[str]) -> Iterator[list[int]]:
        for depth, rows in enumerate(self._by_depth, 1):
            if rows is None:
                break
            folder = "/".join(parts[:depth]) or TOP
            row = rows.get(folder)
            if row is None:
                limit = MAX_ROWS if depth > 1 else _MAX_TRACKED
                if len(rows) >= limit:
                    if depth > 1:
                        self._by_depth[depth - 1] = None
                        break
                    folder = OTHERS
                row = rows.setdefault(folder, [0, 0])
            yield row

    def rows(self) -> dict[str, Row]:
        """Return the rows at the deepest level of folders that fits, sorted by folder."""
        for rows in reversed(self._by_depth):
            if rows is not None and len(rows) <= MAX_ROWS:
                return _sorted({folder: Row(*row) for folder, row in rows.items()})
        rows = self._by_depth[0] or {}
        return _trim({folder: Row(*row) for folder, row in rows.items()})


def contents_of(entries: Iterable[Entry]) -> dict[str, Row]:
    """Summarize the entries of a dataset."""
    counter = ContentsCounter()
    for entry in entries:
        counter.add(entry)
    return counter.rows()


def adjust(rows: Mapping[str, Row], changes: Iterable[Change]) -> dict[str, Row]:
    """Return the summary after some changes, without reading what did not change.

    New folders get a row as deep as the deepest there is; `contents_of` may choose another depth for the same data.
    """
    result = dict(rows)
    depth = max((folder.count("/") + 1 for folder in rows), default=1)
    for change in changes:
        for entry, sign in ((change.before, -1), (change.after, 1)):
            if entry is None or entry.kind == Kind.DIRECTORY:
                continue
            folder = "/".join(entry.path.split("/")[:-1][:depth]) or TOP
            if folder not in result and OTHERS in result:
                folder = OTHERS
            files, size = result.get(folder, Row(0, 0))
            result[folder] = Row(files + sign, size + sign * entry.size)
    return _trim({folder: row for folder, row in result.items() if row.files > 0})


def _sorted(rows: Mapping[str, Row]) -> dict[str, Row]:
    return dict(sorted(rows.items(), key=lambda item: (item[0] == OTHERS, item[0])))


def _trim(rows: Mapping[str, Row]) -> dict[str, Row]:
    if len(rows) <= MAX_ROWS:
        return _sorted(rows)
    named = sorted((item for item in rows.items() if item[0] != OTHERS), key=lambda item: (-item[1].size, item[0]))
    kept = dict(named[: MAX_ROWS - 1])
    rest = [row for folder, row in rows.items() if folder not in kept]
    kept[OTHERS] = Row(sum(row.files for row in rest), sum(row.size for row in rest))
    return _sorted(kept)
