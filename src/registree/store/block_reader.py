"""Read a large file once: its blocks go to the cutter, and to a second thread that hashes and writes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from blake3 import blake3

from registree.model.ids import ContentId

BLOCK = 4 << 20
"""Bytes read at once."""


class BlockReader:
    """Reads a file block by block for the cutter; a second thread hashes the whole and writes blocks to a sink."""

    def __init__(self, descriptor: int, helper: ThreadPoolExecutor) -> None:
        self.position = 0
        self.sink: Callable[[bytes, int], None] | None = None
        self._descriptor = descriptor
        self._helper = helper
        self._hasher = blake3()
        self._running: list[Future[None]] = []
        self._block = b""
        self._used = 0
        self._recent: list[tuple[int, bytes]] = []

    def readinto(self, target: memoryview) -> int:
        if self._used == len(self._block):
            self._block, self._used = os.read(self._descriptor, BLOCK), 0
            if not self._block:
                return 0
            self._recent = [*self._recent[-2:], (self.position, self._block)]
            if len(self._running) > 3:
                self._running.pop(0).result()
            self._running.append(self._helper.submit(self._process, self._block, self.position, self.sink))
            self.position += len(self._block)
        count = min(len(target), len(self._block) - self._used)
        target[:count] = self._block[self._used : self._used + count]
        self._used += count
        return count

    def _process(self, block: bytes, start: int, sink: Callable[[bytes, int], None] | None) -> None:
        self._hasher.update(block)
        if sink is not None:
            sink(block, start)

    def wait(self) -> None:
        """Wait until all that was read is hashed and written."""
        while self._running:
            self._running.pop(0).result()

    def stop_sink(self) -> None:
        """Write no more blocks, once those that were read are written."""
        self.sink = None
        self.wait()

    def unread(self, offset: int) -> bytes:
        """Return what was read of the file from an offset on (it lies in the last blocks)."""
        return b"".join(block[max(0, offset - start) :] for start, block in self._recent if start + len(block) > offset)

    def finish(self) -> ContentId:
        """Return the content id of all that was read."""
        self.wait()
        return ContentId(self._hasher.digest())
