"""The list of the chunks in a pack, by which a later run knows them (docs/formats/pack-and-map-v1.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from registree.model.ids import ID_LENGTH
from registree.model.places import Extent, PackRow


def encode_chunks(chunks: list[tuple[bytes, int]]) -> bytes:
    """Encode the list of a pack's chunks."""
    return msgspec.msgpack.encode([1, chunks])


def decode_chunks(content: bytes) -> list[tuple[bytes, int]]:
    """Read the list of a pack's chunks: (chunk id, bytes) in order; an unreadable one lists nothing."""
    try:
        version, rows = msgspec.msgpack.decode(content, type=tuple[int, list[tuple[bytes, int]]])
    except msgspec.DecodeError:
        return []
    return rows if version == 1 and all(len(chunk) == ID_LENGTH and length > 0 for chunk, length in rows) else []


def extents_of(pack: PackRow, chunks: Iterable[tuple[bytes, int]]) -> Iterator[tuple[bytes, Extent]]:
    """Return the place of each chunk of a pack."""
    start = 0
    for chunk, length in chunks:
        yield chunk, Extent(pack, start, length)
        start += length
