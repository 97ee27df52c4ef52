"""Maps: where a page's bytes lie (docs/formats/pack-and-map-v1.md).

A map is a hint that may be rewritten: the content id decides what is right. The map of a leaf page names, for each
of its files, extents of packs; the map of a page of pages names where each child page and the child's map lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NamedTuple, Protocol, TypeAlias

import msgspec

from registree.errors import FormatError
from registree.model.ids import ID_LENGTH
from registree.model.manifest import FORMAT, MAX_PAGE_BYTES, MAX_SIZE, PAGE_LIMIT, Entry

PACK_TARGET = 64 << 20
"""A shared pack is closed when it reaches this many bytes."""
PACK_LIMIT = 1 << 30
"""No pack is larger than this many bytes: what an interrupted transfer can lose."""
PACK_CHUNK_LIMIT = 1 << 16
"""A pack is closed after this many chunks, so that tiny files do not hold their pages' maps in memory."""


MAX_PACKS = 1 << 20
"""Packs that one map may name."""


class PackRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A pack as a map names it: its id and its size in bytes."""

    id: bytes
    size: int


class Named(Protocol):
    """A pack that has its name: its id and its size in bytes."""

    @property
    def id(self) -> bytes: ...

    @property
    def size(self) -> int: ...


class Extent(NamedTuple):
    """`length` bytes of a pack, from `offset` on."""

    pack: PackRow
    offset: int
    length: int


Extents = tuple[Extent, ...]
"""A file's bytes, in order."""
_Row: TypeAlias = Sequence[tuple[Named, int, int]]
"""A file's bytes in packs that have their names by now: for each piece the pack, the offset and the length."""


class ChildPlace(NamedTuple):
    """Where a child page and its map lie, both compressed."""

    page: Extent
    map: Extent


class _Map(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    level: int
    packs: Annotated[list[PackRow], msgspec.Meta(max_length=MAX_PACKS)]
    places: Annotated[list[list[int]], msgspec.Meta(max_length=PAGE_LIMIT)]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Map)


def encode_leaf_map(extents: Sequence[_Row]) -> bytes:
    """Encode the extents of a leaf page's files, one row for each file of more than zero bytes, in page order."""
    return _encode(0, extents)


def encode_inner_map(level: int, places: Sequence[ChildPlace]) -> bytes:
    """Encode where the children of a page of pages lie, one row a child."""
    return _encode(level, [(place.page, place.map) for place in places])


def _encode(level: int, rows: Sequence[_Row]) -> bytes:
    numbers: dict[bytes, int] = {}
    packs: list[PackRow] = []
    places: list[list[int]] = []
    for row in rows:
        flat: list[int] = []
        for pack, offset, length in row:
            number = numbers.get(pack.id)
            if number is None:
                if not pack.id:
                    raise AssertionError("a pack is still open")
                number = numbers[pack.id] = len(packs)
                packs.append(PackRow(pack.id, pack.size))
            flat += (number, offset, length)
        places.append(flat)
    return _encoder.encode(_Map(FORMAT, level, packs, places))


def _decode(content: bytes, level: int) -> list[Extents]:
    try:
        found = _decoder.decode(content)
    except (msgspec.DecodeError, RecursionError) as error:
        raise FormatError(f"a map is malformed: {error}") from None
    if found.format != FORMAT:
        text = f"a map has format {found.format}, and this version of reg reads format {FORMAT}"
        raise FormatError(text, newer=found.format > FORMAT)
    packs = found.packs
    if found.level != level or any(len(p.id) != ID_LENGTH or not 0 <= p.size <= MAX_SIZE for p in packs):
        raise FormatError("a map does not fit its page")
    return [_extents(flat, packs) for flat in found.places]


def _extents(flat: list[int], packs: list[PackRow]) -> Extents:
    if len(flat) == 3:  # nearly every row
        return (_extent(packs, *flat),)
    if len(flat) % 3:
        raise FormatError("a map has half a row")
    return tuple(_extent(packs, *flat[at : at + 3]) for at in range(0, len(flat), 3))


def _extent(packs: list[PackRow], number: int, offset: int, length: int) -> Extent:
    if not 0 <= number < len(packs) or offset < 0 or length <= 0 or offset + length > packs[number].size:
        raise FormatError("a map names bytes past the end of a pack")
    return Extent(packs[number], offset, length)


def decode_leaf_map(content: bytes, entries: Sequence[Entry]) -> list[Extents]:
    """Read a leaf page's map: extents for each entry of the page (none for what has no bytes).

    Raises
    ------
    FormatError
        When the map is malformed or its extents do not add up to the sizes of the page's files.
    """
    rows = iter(_decode(content, 0))
    result: list[Extents] = []
    for entry in entries:
        if entry.is_file and entry.size:
            row = next(rows, ())
            if (row[0].length if len(row) == 1 else sum(extent.length for extent in row)) != entry.size:
                raise FormatError(f"a map does not account for the {entry.size} bytes of {entry.path!r}")
            result.append(row)
        else:
            result.append(())
    if next(rows, None) is not None:
        raise FormatError("a map has more rows than its page has files")
    return result


def decode_inner_map(content: bytes, level: int, count: int) -> list[ChildPlace]:
    """Read the map of a page of pages with `count` children.

    Raises
    ------
    FormatError
        When it is malformed or does not fit the page.
    """
    rows = _decode(content, level)
    if len(rows) != count or any(len(row) != 2 or max(e.length for e in row) > MAX_PAGE_BYTES for row in rows):
        raise FormatError("a map does not fit its page")
    return [ChildPlace(row[0], row[1]) for row in rows]


def merge_extents(extents: Sequence[Extent]) -> Extents:
    """Join neighbours that follow each other in one pack."""
    merged: list[Extent] = []
    for extent in extents:
        if merged:
            pack, offset, length = merged[-1]
            if pack.id == extent.pack.id and offset + length == extent.offset:
                merged[-1] = Extent(pack, offset, length + extent.length)
                continue
        merged.append(extent)
    return tuple(merged)
