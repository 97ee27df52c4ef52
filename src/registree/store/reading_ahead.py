"""Read small files before they are needed, many at a time, in this process and in others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

from registree.store.batches import OldFile, Read, read_files
from registree.store.file_stat import Stat
from registree.store.workers import ROWS, Memory, Spares, Workers

_AHEAD = 3
"""Batches that are read while another is looked at."""
_PIECE = 8 << 20
"""Bytes of a batch at most; a file has to fit."""
_STEPS = 4096
"""Steps of a batch at most, read or not."""

Step = TypeVar("Step")


class ReadFile(NamedTuple):
    """A file that was read: what it was then, its mode, and its bytes, which are there until the next one comes."""

    row: Stat
    mode: int
    content: memoryview


class _Batch(Generic[Step]):
    """Steps in order, and the files of some of them, which are read into one piece of memory."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._end = 0
        self._steps: list[tuple[Step, OldFile | None]] = []
        self._rows: list[OldFile] = []
        self._read: Future[list[Read]] | None = None

    def has_room(self, wanted: tuple[str, int] | None) -> bool:
        """Tell whether another step fits."""
        room = wanted is None or (len(self._rows) < ROWS and self._end + wanted[1] < _PIECE)
        return room and len(self._steps) < _STEPS

    def add(self, step: Step, wanted: tuple[str, int] | None) -> None:
        """Add the next step, and the path and size in bytes of what is to be read for it."""
        row = None
        if wanted is not None:
            row = (wanted[0], self._end, wanted[1])
            self._end += wanted[1] + 1
            self._rows.append(row)
        self._steps.append((step, row))

    def begin(self, workers: Workers) -> None:
        """Have it read."""
        if self._rows:
            self._read = workers.submit(read_files, self.start, self._rows)

    def finish(self, workers: Workers, memory: memoryview) -> Iterator[tuple[Step, ReadFile | None]]:
        """Yield the steps, each with what was read for it."""
        found = iter(workers.result(self._read) if self._read is not None else ())
        for step, row in self._steps:
            read = next(found) if row is not None else None
            if row is None or read is None:
                yield step, None
                continue
            _, start, size = row
            content, modified, changed, inode, mode = read
            yield step, ReadFile(Stat(size, modified, changed, inode, content), mode, memory[start : start + size])


def reading_workers(processes: int, spares: Spares | None = None) -> Workers:
    """Return workers with the memory that `read_ahead` needs; so many others may help, the spare ones at once."""
    descriptor, started = spares.take(processes) if spares is not None else (None, [])
    return Workers(Memory(_AHEAD + processes, _PIECE, descriptor), processes, spares=started)


def read_ahead(
    steps: Iterable[Step], to_read: Callable[[Step], tuple[str, int] | None], workers: Workers
) -> Iterator[tuple[Step, ReadFile | None]]:
    """Yield steps in order, each with its file when that was to be read and is as long as it was said to be.

    Parameters
    ----------
    to_read
        Gives the path of a step's file and its size in bytes (below 8 MiB), if it is to be read.
    workers
        Read; see `reading_workers`.

    Raises
    ------
    OSError
        When a file cannot be read.
    """
    memory = workers.memory
    coming: deque[_Batch[Step]] = deque([_Batch(memory.free.popleft())])
    for step in steps:
        wanted = to_read(step)
        if not coming[-1].has_room(wanted):
            coming[-1].begin(workers)
            if not memory.free:
                first = coming.popleft()
                yield from first.finish(workers, memory.piece(first.start))
                memory.free.append(first.start)
            coming.append(_Batch(memory.free.popleft()))
        coming[-1].add(step, wanted)
    coming[-1].begin(workers)
    for batch in coming:
        yield from batch.finish(workers, memory.piece(batch.start))
        memory.free.append(batch.start)
