"""A pack that is being written: hashed, written and flushed to the disk by other threads while the caller reads on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from registree.model.places import Extent, Extents, PackRow, merge_extents
from registree.store.base import write_at
from registree.store.block_reader import BLOCK
from registree.store.chunk_index import decode_chunks, encode_chunks
from registree.store.files import drop_from_memory, hash_file, share_range

_BUFFER = 4 << 20
_WAITING = 3
"""Buffers that may wait to be written."""
_FLUSHED_AT_ONCE = 16 << 20
"""Bytes after which the disk is told to write: the last flush is short, and memory is used again."""

_flush_data = getattr(os, "fdatasync", os.fsync)
"""macOS has the latter alone."""


class PackThreads:
    """The threads behind packs: one reads, one hashes and writes, in order; one waits for the disk."""

    def __init__(self) -> None:
        self.reading = ThreadPoolExecutor(1, thread_name_prefix="reg-reading")
        self.writing = ThreadPoolExecutor(1, thread_name_prefix="reg-writing")
        self.flushing = ThreadPoolExecutor(1, thread_name_prefix="reg-flushing")
        self.spare: list[bytearray] = []
        """Buffers to be used again, by the next pack too."""

    def close(self) -> None:
        """End them, when what they have to do is done."""
        self.reading.shutdown()
        self.writing.shutdown()
        self.flushing.shutdown()


class OpenPack:
    """A pack that is being written, or described when its bytes stay where they are (`--in-place`).

    Parameters
    ----------
    threads
        Who writes it; None to write at once. Then `wait` tells when it is on the disk.
    """

    def __init__(self, path: str, *, in_place: bool = False, threads: PackThreads | None = None) -> None:
        self.path = path
        self.size = 0
        self.row: PackRow | None = None
        self.count = 0
        self.chunked = False
        self.read_again = False
        """Whether closing it will read it, because its name cannot be known before: it stays in memory until then."""
        self.sources: list[tuple[str, int, int]] | None = [] if in_place else None
        self._threads = threads
        self._shares = True
        self._hasher: blake3 | None = blake3()
        self._descriptor = -1 if in_place else os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._spare = threads.spare if threads is not None else []
        self._buffer = self._new_buffer()
        self._filled = 0
        self._unflushed = 0
        self._writing: deque[Future[None]] = deque()
        self._flushing: deque[Future[None]] = deque()
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
        if self.sources is not None:
            self._describe(source, length)
        if self._filled + length > _BUFFER:
            self._pass_on()
        self._buffer[self._filled : self._filled + length] = content  # it grows for a page that is longer
        self._filled += length
        self.size += length
        self.note_chunk(chunk, length)
        return Pending(self, start, length)

    def append_range(self, descriptor: int, offset: int, memory: memoryview, path: str) -> int:
        """Add bytes of an open file and fill memory with them as they are in the pack: fewer where the file ends.

        The caller notes their chunks with `note_chunk`; they are hashed when the pack is closed.
        """
        self._hasher = None
        if self.sources is not None:
            count = os.preadv(descriptor, [memory], offset)
            self._describe((path, offset), count)
        else:
            self._shares = self._shares and share_range(descriptor, self._descriptor, offset, len(memory), self.size)
            count = os.preadv(self._descriptor, [memory], self.size) if self._shares else 0
            if count < len(memory):
                count = os.preadv(descriptor, [memory], offset)
                self._write(memory[:count], self.size)
        self.size += count
        return count

    def append_block(self, block: bytes, source: tuple[str, int]) -> None:
        """Add bytes that were read already; see `append_range`."""
        self._hasher = None
        if self.sources is not None:
            self._describe(source, len(block))
        else:
            self._write(block, self.size)
        self.size += len(block)

    def _describe(self, source: tuple[str, int], length: int) -> None:
        sources = self.sources if self.sources is not None else []
        if sources and sources[-1][0] == source[0] and sources[-1][1] + sources[-1][2] == source[1]:
            path, start, before = sources[-1]
            sources[-1] = (path, start, before + length)
        else:
            sources.append((*source, length))

    def _pass_on(self) -> None:
        """Have what is buffered hashed and written."""
        if not self._filled:
            return
        buffer, filled, start = self._buffer, self._filled, self.size - self._filled
        self._filled = 0
        if self._threads is None:
            self._hash_and_write(buffer, filled, start)
        else:
            self._writing.append(self._threads.writing.submit(self._hash_and_write, buffer, filled, start))
            while len(self._writing) > _WAITING:
                self._writing.popleft().result()
        self._buffer = self._new_buffer()

    def _new_buffer(self) -> bytearray:
        return self._spare.pop() if self._spare else bytearray(_BUFFER)

    def _hash_and_write(self, buffer: bytearray, filled: int, start: int) -> None:
        with memoryview(buffer)[:filled] as content:
            if self._hasher is not None:
                self._hasher.update(content)
            if self.sources is None:
                self._write(content, start)
        self._spare.append(buffer)

    def _write(self, content: bytes | memoryview, start: int) -> None:
        write_at(self._descriptor, content, start)
        self._unflushed += len(content)
        if self._threads is not None and self._unflushed >= _FLUSHED_AT_ONCE:
            self._unflushed = 0
            self._flushing.append(self._threads.flushing.submit(self._flush))

    def _flush(self) -> None:
        _flush_data(self._descriptor)
        if not self.read_again:
            drop_from_memory(self._descriptor)

    def cut_back(self, size: int) -> None:
        """Drop the bytes after `size`."""
        if self.sources is not None:
            kept, self.sources[:] = list(self.sources), []
            left = size
            for path, start, length in kept:
                if left:
                    self.sources.append((path, start, min(length, left)))
                    left -= min(length, left)
        else:
            os.ftruncate(self._descriptor, size)
        self.size = size

    def close(self, identifier: bytes | None = None) -> PackRow:
        """Name it by its hash (given when it is known already); `wait` tells when it is on the disk."""
        self._pass_on()
        self._spare.append(self._buffer)
        while self._writing:
            self._writing.popleft().result()
        if identifier is None:
            identifier = self._hasher.digest() if self._hasher is not None else self._hash_again()
        with open(self.path + ".chunks", "wb") as file:
            file.write(encode_chunks(self._chunks))
        self._chunks = []
        self.row = PackRow(identifier, self.size)
        if self._threads is None:
            self._flush_and_close()
        else:
            self._flushing.append(self._threads.flushing.submit(self._flush_and_close))
        return self.row

    def _flush_and_close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            try:
                os.fsync(descriptor)
                drop_from_memory(descriptor)
            finally:
                os.close(descriptor)

    def wait(self) -> None:
        """Wait until a closed pack is on the disk.

        Raises
        ------
        OSError
            When the disk refused it.
        """
        while self._flushing:
            self._flushing.popleft().result()

    def _hash_again(self) -> bytes:
        if self.sources is None:
            return hash_file(self.path)
        hasher = blake3()
        for block in read_sources(self.sources):
            hasher.update(block)
        return hasher.digest()

    def abandon(self) -> None:
        """Close it and remove its bytes."""
        wait_for([*self._writing, *self._flushing])
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
    if len(placed) == 1:  # a small file, which is most of them
        place = placed[0]
        if isinstance(place, Extent):
            return (place,)
        return (Extent(place.pack.row, place.start, place.length),) if place.pack.row is not None else None
    extents = []
    for place in placed:
        if isinstance(place, Extent):
            extents.append(place)
        elif place.pack.row is None:
            return None
        else:
            extents.append(Extent(place.pack.row, place.start, place.length))
    return merge_extents(extents)
