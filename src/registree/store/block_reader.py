"""Read a large file once and cut it into chunks: other threads read ahead and hash."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from typing import NamedTuple, TypeAlias

from blake3 import blake3
from pyfastcdc import FastCDC

from registree.model.ids import ContentId
from registree.store.pack_file import DONE, PackThreads

BLOCK = 4 << 20
"""Bytes read at once."""
_AHEAD = 3
"""Blocks that are read while another is cut."""
_RECENT = 4
"""Blocks that are kept after they were cut: they may not be hashed yet, and `unread` looks back."""

Sink: TypeAlias = Callable[[int, int, memoryview], tuple[int, Future[None]]]
"""Takes bytes of an open file at an offset and fills memory with them: how many, and when it has no more use for it."""


class Chunk(NamedTuple):
    """A chunk of a file: its offset in bytes, and its content, which is overwritten some chunks later."""

    offset: int
    content: memoryview


class _Block(NamedTuple):
    """What was read, where in the file it begins, the memory it and its room are in, and who uses that still."""

    start: int
    content: memoryview
    memory: memoryview
    users: list[Future[None]]


class BlockReader:
    """Reads a file block by block and cuts it; other threads read ahead and hash the whole.

    Before each block there is room for the end of the one before, so that chunks are cut where the bytes were read to.

    Parameters
    ----------
    size
        Bytes to read; the file may turn out shorter.
    cutter
        Says where chunks end.
    """

    def __init__(self, descriptor: int, size: int, cutter: FastCDC, threads: PackThreads) -> None:
        self.position = 0
        self.sink: Sink | None = None
        """Takes what is read; None only reads."""
        self._descriptor = descriptor
        self._size = size
        self._cutter = cutter
        self._room = cutter.max_size
        self._threads = threads
        self._hasher = blake3()
        self._asked = 0
        self._coming: deque[Future[_Block]] = deque()
        self._recent: deque[_Block] = deque()

    def chunks(self) -> Iterator[Chunk]:
        """Cut the file; it ends where a block comes that is shorter than asked for."""
        left = memoryview(b"")
        is_last = False
        while not is_last and self.position < self._size:
            block = self._next_block()
            is_last = len(block.content) < BLOCK or self.position >= self._size
            first = self._room - len(left)
            block.memory[first : self._room] = left
            content = block.memory[first : self._room + len(block.content)]
            cutting = self._cutter.cut_buf(content)
            end = 0
            while end + self._room <= len(content) or (is_last and end < len(content)):
                chunk = next(cutting)
                yield Chunk(block.start - len(left) + end, chunk.data)
                end += chunk.length
            left = content[end:]

    def _next_block(self) -> _Block:
        """Return the next block, and have those after it read."""
        while self._asked < self._size and len(self._coming) < _AHEAD:
            length = min(BLOCK, self._size - self._asked)
            memory = self._threads.memory(self._room + BLOCK)
            self._coming.append(self._threads.reading.submit(self._read, self._asked, length, memory))
            self._asked += length
        block = self._coming.popleft().result()
        block.users.append(self._threads.hashing.submit(self._hash, block.content))
        self._recent.append(block)
        self.position += len(block.content)
        if len(self._recent) > _RECENT:
            self._let_go()
        return block

    def _read(self, start: int, length: int, memory: memoryview) -> _Block:
        content, taken = memory[self._room : self._room + length], DONE
        if self.sink is not None:
            count, taken = self.sink(self._descriptor, start, content)
        else:
            count = os.preadv(self._descriptor, [content], start)
        return _Block(start, content[:count], memory, [taken])

    def _let_go(self) -> None:
        """Give the memory of the oldest block back when nobody uses it."""
        block = self._recent.popleft()
        for user in block.users:
            user.result()
        self._threads.give_back(block.memory)

    def _hash(self, content: memoryview) -> None:
        self._hasher.update(content)

    def wait(self) -> None:
        """Wait until all that is being read is there."""
        wait_for(self._coming)

    def stop_sink(self) -> None:
        """Give the sink no more blocks, once it has those that are being read."""
        self.wait()
        self.sink = None

    def unread(self, offset: int) -> bytes:
        """Return what was read of the file from an offset on (it lies in the last blocks); call `wait` before."""
        blocks = [*self._recent, *(future.result() for future in self._coming)]
        return b"".join(block.content for block in blocks)[offset - blocks[0].start :]

    def finish(self) -> ContentId:
        """Return the content id of all that was read; no chunk may be used any more."""
        while self._recent:
            self._let_go()
        return ContentId(self._hasher.digest())
