"""A pack that is being written: hashed, written and flushed to the disk by other threads while the caller reads on."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import NamedTuple, TypeAlias

from blake3 import blake3

from registree.errors import RUN_WHEN_QUIET, Conflict
from registree.model.ids import hash_bytes
from registree.model.places import Extent, Extents, PackRow, merge_extents
from registree.store.block_reader import BLOCK
from registree.store.chunk_list import decode_chunks, encode_chunks
from registree.store.files import hash_file
from registree.store.pack_file import DONE, PackFile, PackThreads, aligned_memory

_BUFFER = 4 << 20
_WAITING = 3
"""Buffers that may wait to be written."""


class OpenPack:
    """A pack that is being written, or described when its bytes stay where they are (`--in-place`).

    Parameters
    ----------
    threads
        Who writes it; None to write at once. Then `wait` tells when it is on the disk.
    """

    def __init__(self, path: str, *, in_place: bool = False, threads: PackThreads | None = None) -> None:
        self.path = path
        self.id = b""
        self.size = 0
        self.count = 0
        self.chunked = False
        self.sources: list[tuple[str, int, int]] | None = [] if in_place else None
        self._threads = threads
        self._hasher: blake3 | None = blake3()
        self._file = None if in_place else PackFile(path, threads)
        self._buffer = self._memory()
        self._filled = 0
        self._written = DONE
        self._writing: deque[Future[None]] = deque()
        self._chunks: list[tuple[bytes, int]] = []

    def note_chunk(self, chunk: bytes, length: int) -> None:
        """Note the next chunk in it."""
        self._chunks.append((chunk, length))
        self.count += 1

    def chunks(self) -> list[tuple[bytes, int]]:
        """Return its chunks in order, with their lengths in bytes."""
        if not self.id:
            return self._chunks
        with open(self.path + ".chunks", "rb") as file:
            return decode_chunks(file.read())

    def append(self, chunk: bytes, content: bytes | memoryview, source: tuple[str, int]) -> Pending:
        """Add one chunk; `source` is the file and offset its bytes came from."""
        start, length = self.size, len(content)
        if self.sources is not None:
            self._describe(source, length)
        while self._filled + len(content) >= _BUFFER:
            fits = _BUFFER - self._filled
            content = memoryview(content)
            self._buffer[self._filled :] = content[:fits]
            content = content[fits:]
            self._filled, self.size = _BUFFER, self.size + fits
            self._pass_on()
        end = self._filled + len(content)
        self._buffer[self._filled : end] = content
        self._filled, self.size = end, start + length
        self.note_chunk(chunk, length)
        return Pending(self, start, length)

    def append_range(self, descriptor: int, offset: int, memory: memoryview, path: str) -> tuple[int, Future[None]]:
        """Add bytes of an open file and fill memory with them as they are in the pack: fewer where the file ends.

        The caller notes their chunks with `note_chunk`; they are hashed when the pack is closed.

        Returns
        -------
        How many bytes, and when the memory may be used again.
        """
        self._hasher = None
        written = DONE
        if self._file is None:
            count = os.preadv(descriptor, [memory], offset)
            self._describe((path, offset), count)
        else:
            count = self._file.share(descriptor, offset, memory, self.size)
            if count < len(memory):
                count = os.preadv(descriptor, [memory], offset)
                written = self._file.write(memory[:count], self.size)
        self.size += count
        return count, written

    def append_block(self, block: bytes, source: tuple[str, int]) -> None:
        """Add bytes that were read already; see `append_range`."""
        self._hasher = None
        if self._file is None:
            self._describe(source, len(block))
        else:
            self._file.write(memoryview(block), self.size)
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
            return
        self._writing.append(self._threads.hashing.submit(self._hash_and_write, buffer, filled, start))
        while len(self._writing) > _WAITING:
            self._writing.popleft().result()
        self._buffer = self._memory()

    def _memory(self) -> memoryview:
        return self._threads.memory(_BUFFER) if self._threads is not None else aligned_memory(_BUFFER)

    def _hash_and_write(self, buffer: memoryview, filled: int, start: int) -> None:
        content = buffer[:filled]
        if self._hasher is not None:
            self._hasher.update(content)
        before = self._written
        if self._file is not None:
            self._written = self._file.write(content, start)
        if self._threads is not None:
            give_back = self._threads.give_back
            self._written.add_done_callback(lambda _: give_back(buffer))
        before.result()  # no more than two wait for the disk

    def keep_in_memory(self) -> None:
        """Say that closing it will read it, because its name cannot be known before."""
        if self._file is not None:
            self._file.kept_in_memory = True

    def cut_back(self, size: int) -> None:
        """Drop the bytes after `size`."""
        if self.sources is not None:
            kept, self.sources[:] = list(self.sources), []
            left = size
            for path, start, length in kept:
                if left:
                    self.sources.append((path, start, min(length, left)))
                    left -= min(length, left)
        elif self._file is not None:
            self._file.truncate(size)
        self.size = size

    def close(self, identifier: bytes | None = None) -> PackRow:
        """Name it by its hash (given when it is known already); `wait` tells when it is on the disk.

        Raises
        ------
        Conflict
            When its bytes stay where they are, and are others by now.
        """
        self._pass_on()
        self._give_back()
        while self._writing:
            self._writing.popleft().result()
        if identifier is None:
            identifier = self._hasher.digest() if self._hasher is not None else self._hash_again()
        with open(self.path + ".chunks", "wb") as file:
            file.write(encode_chunks(self._chunks))
        self._chunks = []
        self.id = identifier
        if self._file is not None:
            self._file.flush_and_close()
        return self.row

    @property
    def row(self) -> PackRow:
        """Itself as a map names it, when it is closed."""
        if not self.id:
            raise AssertionError("a pack is still open")
        return PackRow(self.id, self.size)

    def wait(self) -> None:
        """Wait until a closed pack is on the disk.

        Raises
        ------
        OSError
            When the disk refused it.
        """
        if self._file is not None:
            self._file.wait()

    def _give_back(self) -> None:
        """Let others have the memory; it comes once, however often this is said."""
        if self._threads is not None and self._buffer:
            self._threads.give_back(self._buffer)
        self._buffer = memoryview(b"")

    def _hash_again(self) -> bytes:
        if self.sources is None:
            return hash_file(self.path)
        hasher, chunks = blake3(), iter(self._chunks)
        for path, start, length in self.sources:
            with open(path, "rb", buffering=BLOCK) as file:
                file.seek(start)
                left = length
                while left:  # its name and its chunks are to be of the same bytes
                    chunk, size = next(chunks)
                    content = file.read(size)
                    if hash_bytes(content) != chunk:
                        raise Conflict(f"{path} changed while it was read", hint=RUN_WHEN_QUIET)
                    hasher.update(content)
                    left -= size
        return hasher.digest()

    def abandon(self) -> None:
        """Close it and remove its bytes."""
        wait_for(self._writing)
        self._give_back()
        if self._file is not None:
            self._file.abandon()
            if os.path.exists(self.path):
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
    """`length` bytes of a pack that may not have its name yet, from `offset` on."""

    pack: OpenPack
    offset: int
    length: int


Placed: TypeAlias = "Pending | Extent"


def settle(placed: Iterable[Placed]) -> Extents:
    """Turn places in packs that are closed by now into extents."""
    return merge_extents(
        [place if isinstance(place, Extent) else Extent(place.pack.row, *place[1:]) for place in placed]
    )
