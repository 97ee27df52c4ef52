"""Read a large file once: other threads read ahead, keep and hash what the cutter gets."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from typing import NamedTuple

from blake3 import blake3

from registree.model.ids import ContentId

BLOCK = 4 << 20
"""Bytes read at once."""
_AHEAD = 3
"""Blocks that are read while another is cut."""
_RECENT = 4
"""Blocks that are kept after they were cut: the cutter may look back, and they may not be hashed yet."""


class _Block(NamedTuple):
    start: int
    content: memoryview
    hashed: Future[None]


class BlockReader:
    """Reads a file block by block for the cutter; other threads read ahead and hash the whole.

    Memory is used again and again: fresh memory for each block would cost as much as reading it.

    Parameters
    ----------
    size
        Bytes to read; the file may turn out shorter.
    reading, hashing
        Threads, one of each.
    """

    def __init__(self, descriptor: int, size: int, reading: ThreadPoolExecutor, hashing: ThreadPoolExecutor) -> None:
        self.position = 0
        self.sink: Callable[[int, int, memoryview], int] | None = None
        """Takes bytes of the open file at an offset, and fills memory with them as they are then; None only reads."""
        self._descriptor = descriptor
        self._size = size
        self._reading = reading
        self._hashing = hashing
        self._hasher = blake3()
        self._asked = 0
        self._spare: list[memoryview] = []
        self._coming: deque[Future[memoryview]] = deque()
        self._recent: deque[_Block] = deque()
        self._left = memoryview(b"")

    def readinto(self, target: memoryview) -> int:
        if not self._left:
            while self._asked < self._size and len(self._coming) < _AHEAD:
                length = min(BLOCK, self._size - self._asked)
                memory = self._spare.pop() if self._spare else memoryview(bytearray(length))
                self._coming.append(self._reading.submit(self._read, self._asked, memory[:length]))
                self._asked += length
            self._left = self._coming.popleft().result() if self._coming else memoryview(b"")
            if not self._left:
                return 0
            self._recent.append(_Block(self.position, self._left, self._hashing.submit(self._hash, self._left)))
            self.position += len(self._left)
            if len(self._recent) > _RECENT:
                oldest = self._recent.popleft()
                oldest.hashed.result()
                if len(oldest.content) == BLOCK:
                    self._spare.append(oldest.content)
        count = min(len(target), len(self._left))
        target[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _read(self, offset: int, memory: memoryview) -> memoryview:
        if self.sink is not None:
            return memory[: self.sink(self._descriptor, offset, memory)]
        return memory[: os.preadv(self._descriptor, [memory], offset)]

    def _hash(self, block: memoryview) -> None:
        self._hasher.update(block)

    def wait(self) -> None:
        """Wait until all that is being read is there."""
        wait_for(self._coming)

    def stop_sink(self) -> None:
        """Give the sink no more blocks, once it has those that are being read."""
        self.wait()
        self.sink = None

    def unread(self, offset: int) -> bytes:
        """Return what was read of the file from an offset on (it lies in the last blocks); call `wait` before."""
        start = self._recent[0].start
        read = b"".join([*(block.content for block in self._recent), *(future.result() for future in self._coming)])
        return read[offset - start :]

    def finish(self) -> ContentId:
        """Return the content id of all that was read."""
        for block in self._recent:
            block.hashed.result()
        return ContentId(self._hasher.digest())
