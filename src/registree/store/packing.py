"""Append new content to packs: each byte is read once, hashed and cut while it is read.

Small files share packs. A large file none of whose chunks is known gets a pack of its own, whose bytes are the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeAlias

from blake3 import blake3
from pyfastcdc import FastCDC

from registree.errors import Conflict
from registree.model.ids import ContentId, hash_bytes
from registree.model.places import PACK_CHUNK_LIMIT, PACK_LIMIT, PACK_TARGET, Extent, Extents, PackRow, merge_extents
from registree.store.base import write_at
from registree.store.block_reader import BLOCK, BlockReader
from registree.store.chunk_index import ChunkIndex, decode_chunks, encode_chunks, extents_of
from registree.store.files import hash_file

CHUNKED_FROM = 1 << 20
"""A file below this many bytes is one chunk."""
OWN_PACK_FROM = 16 << 20
"""A file of at least this many bytes, none of them known, gets a pack of its own."""
CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX = 16 << 10, 64 << 10, 256 << 10
"""Bytes of a chunk (FastCDC 2020, https://ieeexplore.ieee.org/document/9055082; measured in docs/decisions/0003)."""
_BUFFER = 2 << 20


class OpenPack:
    """A pack that is being written, or described when its bytes stay where they are (`--in-place`)."""

    def __init__(self, path: str, *, in_place: bool) -> None:
        self.path = path
        self.size = 0
        self.row: PackRow | None = None
        self.count = 0
        self.chunked = False
        self.sources: list[tuple[str, int, int]] | None = [] if in_place else None
        self._hasher: blake3 | None = blake3()
        self._descriptor = -1 if in_place else os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._buffer = bytearray()
        self._chunks: list[tuple[bytes, int]] = []

    def note_chunk(self, chunk: bytes, length: int) -> None:
        """Note the next chunk in it."""
        self._chunks.append((chunk, length))
        self.count += 1

    def chunks(self) -> list[tuple[bytes, int]]:
        """Return its chunks in order, with their lengths in bytes."""
        if self.row is None:
            return self._chunks
        with open(self.path + ".chunks", "rb") as file:
            return decode_chunks(file.read())

    def append(self, chunk: bytes, content: bytes | memoryview, source: tuple[str, int]) -> Pending:
        """Add one chunk; `source` is the file and offset its bytes came from."""
        start, length = self.size, len(content)
        self.size += length
        if self.sources is not None:
            self._describe(source, length)
            if self._hasher is not None:
                self._hasher.update(content)
        else:
            self._buffer += content
            if len(self._buffer) >= _BUFFER:
                self._flush()
        self.note_chunk(chunk, length)
        return Pending(self, start, length)

    def append_block(self, block: bytes, source: tuple[str, int]) -> None:
        """Add bytes whose chunks the caller notes with `note_chunk`; they are hashed when the pack is closed."""
        self._hasher = None
        if self.sources is not None:
            self._describe(source, len(block))
        else:
            self._flush()
            write_at(self._descriptor, block, self.size)
        self.size += len(block)

    def _describe(self, source: tuple[str, int], length: int) -> None:
        sources = self.sources if self.sources is not None else []
        if sources and sources[-1][0] == source[0] and sources[-1][1] + sources[-1][2] == source[1]:
            path, start, before = sources[-1]
            sources[-1] = (path, start, before + length)
        else:
            sources.append((*source, length))

    def _flush(self) -> None:
        if self._buffer:
            if self._hasher is not None:
                self._hasher.update(self._buffer)
            write_at(self._descriptor, self._buffer, self.size - len(self._buffer))
            self._buffer = bytearray()

    def cut_back(self, size: int) -> None:
        """Drop the bytes after `size`."""
        if self.sources is not None:
            path, start, _ = self.sources[-1]
            self.sources[-1] = (path, start, size)
            if not size:
                self.sources.clear()
        else:
            os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self, identifier: bytes | None = None) -> PackRow:
        """Flush it to the disk and name it by its hash (given when it is known already)."""
        if self._descriptor >= 0:
            self._flush()
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1
        if identifier is None:
            identifier = self._hasher.digest() if self._hasher is not None else self._hash_again()
        self._buffer = bytearray()
        with open(self.path + ".chunks", "wb") as file:
            file.write(encode_chunks(self._chunks))
        self._chunks = []
        self.row = PackRow(identifier, self.size)
        return self.row

    def _hash_again(self) -> bytes:
        if self.sources is None:
            return hash_file(self.path)
        hasher = blake3()
        for block in read_sources(self.sources):
            hasher.update(block)
        return hasher.digest()

    def abandon(self) -> None:
        """Close it and remove its bytes."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self.sources is None and os.path.exists(self.path):
            os.unlink(self.path)


def read_sources(sources: Iterable[tuple[str, int, int]]) -> Iterator[bytes]:
    """Read the bytes of a pack from the files that hold them: (path, offset, length) in order."""
    for path, start, length in sources:
        with open(path, "rb") as file:
            file.seek(start)
            left = length
            while left and (block := file.read(min(left, BLOCK))):
                left -= len(block)
                yield block


class Pending(NamedTuple):
    """Bytes in a pack that may not have its name yet."""

    pack: OpenPack
    start: int
    length: int


Placed: TypeAlias = "Pending | Extent"


def settle(placed: tuple[Placed, ...]) -> Extents | None:
    """Turn places into extents; None while a pack has no name."""
    extents = []
    for place in placed:
        if isinstance(place, Extent):
            extents.append(place)
        elif place.pack.row is None:
            return None
        else:
            extents.append(Extent(place.pack.row, place.start, place.length))
    return merge_extents(extents)


class Packer:
    """Puts content into packs, each chunk once.

    Parameters
    ----------
    folder
        Where packs are written while they are open.
    known
        Tells where a chunk lies that was stored before.
    in_place
        Keep no copy of the bytes: note which files hold them.
    """

    def __init__(self, folder: str, known: Callable[[bytes], Extent | None], *, in_place: bool = False) -> None:
        self.closed: list[OpenPack] = []
        self.stored = 0
        self._folder = folder
        self._index = ChunkIndex(folder, known)
        self._in_place = in_place
        self._shared: OpenPack | None = None
        self._learnt: set[bytes] = set()
        self._made = 0
        self._cutter = FastCDC(CHUNK_AVERAGE, min_size=CHUNK_MIN, max_size=CHUNK_MAX, normalized_chunking=1)

    def find(self, chunk: bytes) -> Placed | None:
        """Return where a chunk lies, if it was stored now or before."""
        return self._index.find(chunk)

    def learn(self, pack: PackRow, chunks: Iterable[tuple[bytes, int]]) -> None:
        """Note which chunks an older pack holds."""
        self._learnt.add(pack.id)
        for chunk, extent in extents_of(pack, chunks):
            if extent.offset + extent.length <= pack.size:
                self._index.note(chunk, extent)

    def knows_pack(self, pack: PackRow) -> bool:
        """Tell whether `learn` was told of a pack."""
        return pack.id in self._learnt

    def store_small(self, content: bytes, identifier: ContentId, path: str) -> tuple[Placed, ...]:
        """Store a file that is one chunk."""
        if not content:
            return ()
        return (self._store_chunk(identifier, content, (path, 0)),)

    def _store_chunk(self, chunk: bytes, content: bytes | memoryview, source: tuple[str, int]) -> Placed:
        found = self.find(chunk)
        if found is not None:
            return found
        pack = self._shared
        if pack is None:
            pack = self._shared = self._new_pack()
        place = pack.append(chunk, content, source)
        self.stored += len(content)
        self._index.note(chunk, place)
        if pack.size >= PACK_TARGET or pack.count >= PACK_CHUNK_LIMIT:
            self._close(pack)
            self._shared = None
        return place

    def store_large(self, descriptor: int, size: int, path: str) -> tuple[ContentId, tuple[Placed, ...]]:
        """Store a file that is cut into chunks, reading it once from an open file.

        Parameters
        ----------
        size
            Its size in bytes when it was opened.

        Raises
        ------
        Conflict
            When it turns out shorter or longer than that.
        """
        with ThreadPoolExecutor(1) as helper:
            reader = BlockReader(descriptor, helper)
            own = size >= OWN_PACK_FROM
            places = _merged(self._store_own(reader, path) if own else self._store_shared(reader, path))
            identifier = reader.finish()
        if reader.position != size:
            raise Conflict(f"{path} changed while it was read", hint="run it again when nothing writes to it")
        return identifier, places

    def _store_shared(self, reader: BlockReader, path: str) -> Iterator[Placed]:
        for chunk in self._cutter.cut_stream(reader):
            place = self._store_chunk(hash_bytes(chunk.data), chunk.data, (path, chunk.offset))
            if self._shared is not None:
                self._shared.chunked = True
            elif self.closed:
                self.closed[-1].chunked = True
            yield place

    def _store_own(self, reader: BlockReader, path: str) -> Iterator[Placed]:
        """Store chunks in packs of the file's own.

        Until the first known chunk the blocks are written as they are read, so that the pack is the file; from there
        on only new chunks are.
        """
        pack = self._new_own_pack()
        whole = True  # every byte so far is in `pack`, or in full packs before it
        before = 0  # bytes of the file in those full packs
        reader.sink = lambda block, start: pack.append_block(block, (path, start))
        for chunk in self._cutter.cut_stream(reader):
            identifier = hash_bytes(chunk.data)
            found = self.find(identifier)
            if found is not None:
                if whole:
                    whole = False
                    reader.stop_sink()
                    pack.cut_back(chunk.offset - before)
                yield found
                continue
            end = chunk.offset + chunk.length - before if whole else pack.size + chunk.length
            if end > PACK_LIMIT:
                reader.wait()
                overhang = reader.unread(chunk.offset) if whole else b""
                if whole:
                    pack.cut_back(chunk.offset - before)
                self._close(pack)
                pack, before = self._new_own_pack(), chunk.offset
                if whole:
                    pack.append_block(overhang, (path, chunk.offset))
            if whole:
                place = Pending(pack, chunk.offset - before, chunk.length)
                pack.note_chunk(identifier, chunk.length)
            else:
                place = pack.append(identifier, chunk.data, (path, chunk.offset))
            self._index.note(identifier, place)
            self.stored += chunk.length
            yield place
        content = reader.finish()
        if pack.size:
            self._close(pack, content if whole and not before else None)
        else:
            pack.abandon()

    def _new_own_pack(self) -> OpenPack:
        pack = self._new_pack()
        pack.chunked = True
        return pack

    def _new_pack(self) -> OpenPack:
        self._made += 1
        return OpenPack(f"{self._folder}/{self._made}", in_place=self._in_place)

    def _close(self, pack: OpenPack, identifier: bytes | None = None) -> None:
        chunks = pack.chunks()
        self._index.close_pack(pack.close(identifier), chunks)
        self.closed.append(pack)

    def places(self) -> Iterator[tuple[bytes, Extent]]:
        """Stream the chunks of all closed packs with their places."""
        for pack in self.closed:
            assert pack.row is not None  # noqa: S101 -- closed packs are named
            yield from extents_of(pack.row, pack.chunks())

    def finish(self) -> None:
        """Close what is open."""
        if self._shared is not None:
            self._close(self._shared)
            self._shared = None
        self._index.close()


def _merged(places: Iterable[Placed]) -> tuple[Placed, ...]:
    """Join neighbours that follow each other in one pack, as they come: a large file has a million chunks."""
    merged: list[Placed] = []
    for place in places:
        last = merged[-1] if merged else None
        if isinstance(place, Pending) and isinstance(last, Pending):
            if last.pack is place.pack and last.start + last.length == place.start:
                merged[-1] = Pending(last.pack, last.start, last.length + place.length)
                continue
        elif isinstance(place, Extent) and isinstance(last, Extent):
            merged[-1:] = merge_extents((last, place))
            continue
        merged.append(place)
    return tuple(merged)


__all__ = ["OpenPack", "Packer", "Pending", "Placed", "settle"]
