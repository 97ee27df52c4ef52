"""What differs between two versions of a dataset: added, removed, modified and renamed entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import Enum

import msgspec

from registree.model.manifest import Entry, PageRef


class ChangeKind(Enum):
    """How an entry changed."""

    ADDED = "added"
    REMOVED = "removed"
    MODIFIED = "modified"
    RENAMED = "renamed"


class Change(msgspec.Struct, frozen=True):
    """One changed entry: what it was and what it is (None where there is none)."""

    before: Entry | None
    after: Entry | None

    @property
    def kind(self) -> ChangeKind:
        """How it changed."""
        if self.before is None:
            return ChangeKind.ADDED
        if self.after is None:
            return ChangeKind.REMOVED
        return ChangeKind.MODIFIED if self.before.path == self.after.path else ChangeKind.RENAMED

    @property
    def path(self) -> str:
        """Where it is now, or was."""
        entry = self.after or self.before
        return entry.path if entry is not None else ""

    @property
    def growth(self) -> int:
        """By how many bytes the dataset grows with it."""
        return (self.after.size if self.after else 0) - (self.before.size if self.before else 0)


def diff_entries(before: Iterable[Entry], after: Iterable[Entry]) -> Iterator[Change]:
    """Compare two sorted runs of entries; renames are left as a removal and an addition.

    Neither is read ahead: what a change has is what was taken last.
    """
    old, new = iter(before), iter(after)
    left, right = next(old, None), next(new, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.path < right.path):
            yield Change(left, None)
            left = next(old, None)
        elif left is None or right.path < left.path:
            yield Change(None, right)
            right = next(new, None)
        else:
            if left != right:
                yield Change(left, right)
            left, right = next(old, None), next(new, None)


def find_renames(changes: Iterable[Change]) -> list[Change]:
    """Pair removals with additions of the same content; sorted by path.

    An entry of several equal ones is paired by path order; empty files and directories are never renames.
    """
    gone: dict[tuple[int, bytes], list[Entry]] = {}
    rest: list[Change] = []
    added: list[Entry] = []
    for change in changes:
        if change.after is None and change.before is not None and change.before.size:
            gone.setdefault((change.before.kind, change.before.content), []).append(change.before)
        elif change.before is None and change.after is not None and change.after.size:
            added.append(change.after)
        else:
            rest.append(change)
    for waiting in gone.values():
        waiting.reverse()
    for entry in added:
        candidates = gone.get((entry.kind, entry.content))
        rest.append(Change(candidates.pop() if candidates else None, entry))
    rest += [Change(entry, None) for waiting in gone.values() for entry in waiting]
    return sorted(rest, key=lambda change: change.path)


def differing_pages(before: Sequence[PageRef], after: Sequence[PageRef]) -> tuple[list[PageRef], list[PageRef]]:
    """Drop the pages that two versions share; what differs between the versions lies in the rest alone.

    A page is shared only when it is the same page: boundaries depend on paths, so equal pages hold equal entries and
    no entry of one can be in another page of the other version.
    """
    shared = {ref.page for ref in before} & {ref.page for ref in after}
    return [ref for ref in before if ref.page not in shared], [ref for ref in after if ref.page not in shared]


class DiffSummary(msgspec.Struct, frozen=True):
    """Counts of a diff, and the bytes by which the dataset grew (negative: shrank)."""

    added: int
    removed: int
    modified: int
    renamed: int
    growth: int


def summarize(changes: Iterable[Change]) -> DiffSummary:
    """Count changes by kind."""
    counts = dict.fromkeys(ChangeKind, 0)
    growth = 0
    for change in changes:
        counts[change.kind] += 1
        growth += change.growth
    return DiffSummary(
        counts[ChangeKind.ADDED],
        counts[ChangeKind.REMOVED],
        counts[ChangeKind.MODIFIED],
        counts[ChangeKind.RENAMED],
        growth,
    )
