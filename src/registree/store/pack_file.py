"""The file of a pack that is being written: past the kernel's memory where the disk takes that, else through it."""

from __future__ import annotations

import mmap
import os
from collections import defaultdict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from registree.store.base import write_at
from registree.store.files import drop_from_memory, flush_data, share_range

_ALIGNED = 4096
"""Bytes: memory, positions and lengths of direct I/O are multiples of this."""
_DIRECT_FROM = 1 << 20
"""Bytes from which a write is direct: less is gathered by the kernel."""
_FLUSHED_AT_ONCE = 16 << 20
"""Bytes through the kernel after which the disk is told to write: the last flush is short, and memory is used again."""
_NO_FILE = -1

DONE: Future[None] = Future()
"""What is done already."""
DONE.set_result(None)


class PackThreads:
    """The threads behind packs, and memory that is used again: fresh memory would cost as much as reading a file."""

    def __init__(self) -> None:
        self.reading = ThreadPoolExecutor(1, thread_name_prefix="reg-reading")
        self.hashing = ThreadPoolExecutor(1, thread_name_prefix="reg-hashing")
        """It writes too what it has hashed."""
        self.disk = ThreadPoolExecutor(1, thread_name_prefix="reg-disk")
        """It writes directly to the disk, and waits for it."""
        self._spare: defaultdict[int, list[memoryview]] = defaultdict(list)

    def memory(self, size: int) -> memoryview:
        """Return memory for direct I/O; `give_back` it when no thread uses it."""
        spare = self._spare[size]
        return spare.pop() if spare else aligned_memory(size)

    def give_back(self, memory: memoryview) -> None:
        """Keep memory for whoever asks next."""
        self._spare[len(memory)].append(memory)

    def close(self) -> None:
        """End them, when what they have to do is done."""
        for executor in (self.reading, self.hashing, self.disk):
            executor.shutdown()
        self._spare.clear()


def aligned_memory(size: int) -> memoryview:
    """Return memory for direct I/O."""
    return memoryview(mmap.mmap(-1, size))


class PackFile:
    """Writes a new file so that little is left to do when it is closed, and other files stay in memory.

    Parameters
    ----------
    threads
        Who waits for the disk; None to do so at once.
    """

    def __init__(self, path: str, threads: PackThreads | None) -> None:
        self.kept_in_memory = False
        """Whether it will be read when it is written: it stays in memory until it is closed."""
        self._threads = threads
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        self._direct = _open_direct(path)
        self._shares = True
        self._unflushed = 0
        self._running: deque[Future[None]] = deque()

    def write(self, content: memoryview, start: int) -> Future[None]:
        """Write at a position; the memory may be used again when the future is done.

        It is direct when the position is right; the memory is right when it is `aligned_memory`.
        """
        if self.kept_in_memory or self._direct == _NO_FILE or start % _ALIGNED or len(content) < _DIRECT_FROM:
            if self._write_through(content, start) and self._threads is not None:
                self._run(self._flush)
            return DONE
        return self._run(self._write_direct, content, start)

    def share(self, descriptor: int, offset: int, memory: memoryview, start: int) -> int:
        """Share blocks with another open file and fill memory with them; 0 where the disk cannot."""
        self._shares = self._shares and share_range(descriptor, self._descriptor, offset, len(memory), start)
        return os.preadv(self._descriptor, [memory], start) if self._shares else 0

    def truncate(self, size: int) -> None:
        """Drop the bytes after `size`."""
        self.wait()
        os.ftruncate(self._descriptor, size)

    def flush_and_close(self) -> None:
        """Begin to have all of it on the disk; `wait` tells when that is done."""
        self._run(self._flush_and_close)

    def wait(self) -> None:
        """Wait for what was begun.

        Raises
        ------
        OSError
            When the disk refused it.
        """
        while self._running:
            self._running.popleft().result()

    def abandon(self) -> None:
        """Close it as it is."""
        wait_for(self._running)
        self._close()

    def _run(self, call: Callable[..., None], *arguments: object) -> Future[None]:
        if self._threads is None:
            call(*arguments)
            return DONE
        while self._running and self._running[0].done():
            self._running.popleft().result()
        future = self._threads.disk.submit(call, *arguments)
        self._running.append(future)
        return future

    def _write_direct(self, content: memoryview, start: int) -> None:
        end = len(content) - len(content) % _ALIGNED
        written = 0
        while written < end and self._direct != _NO_FILE:
            try:
                written += os.pwrite(self._direct, content[written:end], start + written)
            except OSError:  # it wants other multiples, or does not have this; whatever is wrong beside is said below
                os.close(self._direct)
                self._direct = _NO_FILE
        if self._write_through(content[written:], start + written):
            self._flush()

    def _write_through(self, content: memoryview, start: int) -> bool:
        """Write through the kernel's memory, and tell whether it is time to flush."""
        write_at(self._descriptor, content, start)
        self._unflushed += len(content)
        if self._unflushed < _FLUSHED_AT_ONCE:
            return False
        self._unflushed = 0
        return True

    def _flush(self) -> None:
        flush_data(self._descriptor)
        if not self.kept_in_memory:
            drop_from_memory(self._descriptor)

    def _flush_and_close(self) -> None:
        try:
            os.fsync(self._descriptor)
            drop_from_memory(self._descriptor)
        finally:
            self._close()

    def _close(self) -> None:
        for descriptor in (self._direct, self._descriptor):
            if descriptor != _NO_FILE:
                os.close(descriptor)
        self._direct = self._descriptor = _NO_FILE


def _open_direct(path: str) -> int:
    """Open a file past the kernel's memory, if its disk and this system have that."""
    if not hasattr(os, "O_DIRECT"):  # macOS
        return _NO_FILE
    try:
        return os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:  # it is open already, through the kernel's memory
        return _NO_FILE
