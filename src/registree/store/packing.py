"""Append new content to packs: each byte is read once, hashed and cut while it is read.

Small files share packs. A large file none of whose chunks is known gets a pack of its own, whose bytes are the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pyfastcdc import FastCDC

from registree.errors import RUN_WHEN_QUIET, Conflict
from registree.model.ids import ContentId, hash_bytes
from registree.model.places import PACK_CHUNK_LIMIT, PACK_LIMIT, PACK_TARGET, Extent, PackRow, merge_extents
from registree.store.block_reader import BlockReader
from registree.store.chunk_index import ChunkIndex
from registree.store.chunk_list import extents_of
from registree.store.open_pack import OpenPack, Pending, Placed
from registree.store.pack_file import PackThreads

CHUNKED_FROM = 1 << 20
"""A file below this many bytes is one chunk."""
OWN_PACK_FROM = 16 << 20
"""A file of at least this many bytes, none of them known, gets a pack of its own."""
CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX = 16 << 10, 64 << 10, 256 << 10
"""Bytes of a chunk (FastCDC 2020, https://ieeexplore.ieee.org/document/9055082; measured in docs/decisions/0003)."""


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
        self._threads = PackThreads()
        self._in_place = in_place
        self._open: list[OpenPack] = []
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

    def store_small(self, content: bytes | memoryview, identifier: ContentId, path: str) -> tuple[Placed, ...]:
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
            When it turns out shorter than that.
        """
        reader = BlockReader(descriptor, size, self._cutter, self._threads)
        try:
            own = size >= OWN_PACK_FROM
            places = _merged(self._store_own(reader, size, path) if own else self._store_shared(reader, path))
            identifier = reader.finish()
        finally:
            reader.stop_sink()
        if reader.position != size:
            raise Conflict(f"{path} changed while it was read", hint=RUN_WHEN_QUIET)
        return identifier, places

    def _store_shared(self, reader: BlockReader, path: str) -> Iterator[Placed]:
        for chunk in reader.chunks():
            place = self._store_chunk(hash_bytes(chunk.content), chunk.content, (path, chunk.offset))
            if self._shared is not None:
                self._shared.chunked = True
            elif self.closed:
                self.closed[-1].chunked = True
            yield place

    def _store_own(self, reader: BlockReader, size: int, path: str) -> Iterator[Placed]:
        """Store chunks in packs of the file's own.

        Until the first known chunk the blocks are written as they are read, so that the pack is the file; from there
        on only new chunks are.
        """
        pack = self._new_own_pack(keep=size > PACK_LIMIT)
        whole = True  # every byte so far is in `pack`, or in full packs before it
        before = 0  # bytes of the file in those full packs
        reader.sink = lambda descriptor, start, memory: pack.append_range(descriptor, start, memory, path)
        for chunk in reader.chunks():
            identifier = hash_bytes(chunk.content)
            found = self.find(identifier)
            if found is not None:
                if whole:
                    whole = False
                    pack.keep_in_memory()
                    reader.stop_sink()
                    pack.cut_back(chunk.offset - before)
                yield found
                continue
            end = chunk.offset + len(chunk.content) - before if whole else pack.size + len(chunk.content)
            if end > PACK_LIMIT:
                reader.wait()
                overhang = reader.unread(chunk.offset) if whole else b""
                if whole:
                    pack.cut_back(chunk.offset - before)
                self._close(pack)
                pack, before = self._new_own_pack(keep=whole), chunk.offset
                if whole:
                    pack.append_block(overhang, (path, chunk.offset))
            if whole:
                place = Pending(pack, chunk.offset - before, len(chunk.content))
                pack.note_chunk(identifier, len(chunk.content))
            else:
                place = pack.append(identifier, chunk.content, (path, chunk.offset))
            self._index.note(identifier, place)
            self.stored += len(chunk.content)
            yield place
        reader.stop_sink()
        content = reader.finish()
        if whole and pack.size > reader.position - before:  # the file shrank and grew while it was read
            pack.cut_back(reader.position - before)
        if pack.size:
            self._close(pack, content if whole and not before else None)
        else:
            pack.abandon()
            self._open.remove(pack)

    def _new_own_pack(self, *, keep: bool) -> OpenPack:
        """Open a pack of a large file; `keep` when it has more, so that no pack's name is known before its end."""
        pack = self._new_pack()
        pack.chunked = True
        if keep:
            pack.keep_in_memory()
        return pack

    def _new_pack(self) -> OpenPack:
        self._made += 1
        self._open.append(OpenPack(f"{self._folder}/{self._made}", in_place=self._in_place, threads=self._threads))
        return self._open[-1]

    def _close(self, pack: OpenPack, identifier: bytes | None = None) -> None:
        chunks = pack.chunks()
        self._index.close_pack(pack.close(identifier), chunks)
        self._open.remove(pack)
        self.closed.append(pack)

    def packs(self) -> Iterator[tuple[PackRow, list[tuple[bytes, int]]]]:
        """Stream all closed packs with the ids and lengths of their chunks."""
        for pack in self.closed:
            yield pack.row, pack.chunks()

    def seal(self) -> None:
        """Close what is open, so that every pack has its name; the disk may still write."""
        if self._shared is not None:
            self._close(self._shared)
            self._shared = None

    def finish(self) -> None:
        """Close what is open, and wait until all of it is on the disk."""
        self.seal()
        for pack in self.closed:
            pack.wait()
        self.close()

    def close(self) -> None:
        """End the threads, and drop what is not closed."""
        self._threads.close()
        for pack in self._open:
            pack.abandon()
        self._index.close()


def _merged(places: Iterable[Placed]) -> tuple[Placed, ...]:
    """Join neighbours that follow each other in one pack, as they come: a large file has a million chunks."""
    merged: list[Placed] = []
    for place in places:
        last = merged[-1] if merged else None
        if isinstance(place, Pending) and isinstance(last, Pending):
            if last.pack is place.pack and last.offset + last.length == place.offset:
                merged[-1] = Pending(last.pack, last.offset, last.length + place.length)
                continue
        elif isinstance(place, Extent) and isinstance(last, Extent):
            merged[-1:] = merge_extents((last, place))
            continue
        merged.append(place)
    return tuple(merged)
