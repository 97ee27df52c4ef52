"""Plan few large reads in place of many small ones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

from registree.model.places import Extent, PackRow

Key = TypeVar("Key")

GAP = 64 << 10
"""Unwanted bytes that are read rather than asking again: what a request costs in time, at 2 MB/s."""
RANGE_LIMIT = 16 << 20
"""Bytes of one read at most."""


class Member(NamedTuple, Generic[Key]):
    """A wanted extent: who wants it, where it starts in the read, and how long it is (bytes)."""

    key: Key
    start: int
    length: int


class Range(NamedTuple, Generic[Key]):
    """One read of a pack, and what in it is wanted."""

    pack: PackRow
    offset: int
    length: int
    members: list[Member[Key]]


def plan_ranges(wanted: Iterable[tuple[Key, Extent]], limit: int = RANGE_LIMIT) -> list[Range[Key]]:
    """Group extents into reads: neighbours in one pack share one, up to some bytes (a longer extent is one read)."""
    ranges: list[Range[Key]] = []
    members: list[Member[Key]] = []
    current, start, end = PackRow(b"", 0), 0, 0
    for key, (pack, offset, length) in sorted(wanted, key=lambda item: (item[1].pack.id, item[1].offset)):
        after = max(end, offset + length)
        if not members or pack.id != current.id or offset - end > GAP or after - start > limit:
            if members:
                ranges.append(Range(current, start, end - start, members))
            current, start, after, members = pack, offset, offset + length, []
        members.append(Member(key, offset - start, length))
        end = after
    if members:
        ranges.append(Range(current, start, end - start, members))
    return ranges
