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


def plan_ranges(wanted: Iterable[tuple[Key, Extent]]) -> list[Range[Key]]:
    """Group extents into reads: neighbours in one pack share one, up to 16 MiB (a longer extent is one read)."""
    ordered = sorted(wanted, key=lambda item: (item[1].pack.id, item[1].offset))
    ranges: list[Range[Key]] = []
    for key, (pack, offset, length) in ordered:
        last = ranges[-1] if ranges else None
        if last is not None and last.pack.id == pack.id:
            end = last.offset + last.length
            total = max(end, offset + length) - last.offset
            if offset - end <= GAP and total <= RANGE_LIMIT:
                last.members.append(Member(key, offset - last.offset, length))
                ranges[-1] = last._replace(length=total)
                continue
        ranges.append(Range(pack, offset, length, [Member(key, 0, length)]))
    return ranges
