"""Decide what becomes of each path when a work tree moves from one version of a dataset to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from registree.model.manifest import Entry, Kind


class Action(Enum):
    """What is done with one path."""

    KEEP = "keep"
    WRITE = "write"
    DELETE = "delete"
    CONFLICT = "conflict"


def decide(before: Entry | None, after: Entry | None, found: Entry | None, *, restore: bool) -> Action:
    """Decide about one path.

    Parameters
    ----------
    before
        What the older version has there.
    after
        What the newer version has there.
    found
        What the work tree has there.
    restore
        True when the work tree is to be made what `after` says; False for an update, which leaves edits alone where
        the two versions agree.
    """
    if found == after:
        return Action.KEEP
    if before != after and _is_hollow(found) and (_is_hollow(before) or _is_hollow(after)):
        return Action.DELETE if after is None else Action.WRITE  # an empty folder holds nothing to lose
    if restore and (found is None or (found.kind == Kind.DIRECTORY and after is not None)):
        return Action.WRITE
    if before == after:
        untracked = before is None  # a file of the user's that neither version knows
        return Action.CONFLICT if restore and not untracked else Action.KEEP
    if found == before:
        return Action.DELETE if after is None else Action.WRITE
    return Action.CONFLICT


def _is_hollow(entry: Entry | None) -> bool:
    return entry is None or entry.kind == Kind.DIRECTORY


class Step(NamedTuple):
    """One path of a move: what the versions have there."""

    path: str
    before: Entry | None
    after: Entry | None
    found: Entry | None


def join_three(before: Iterable[Entry], after: Iterable[Entry], found: Iterable[Entry]) -> Iterator[Step]:
    """Walk three sorted runs of entries side by side, path by path."""
    runs = [iter(before), iter(after), iter(found)]
    heads = [next(run, None) for run in runs]
    while any(head is not None for head in heads):
        path = min(head.path for head in heads if head is not None)
        row: list[Entry | None] = []
        for index, head in enumerate(heads):
            if head is not None and head.path == path:
                row.append(head)
                heads[index] = next(runs[index], None)
            else:
                row.append(None)
        yield Step(path, row[0], row[1], row[2])
