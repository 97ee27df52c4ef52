"""Bring small files out of packs: few large reads, several at once, into memory from which workers make the files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple, TypeAlias

from registree.model.ranges import RANGE_LIMIT, Range, plan_ranges
from registree.store.batches import Made, NewFile, write_files
from registree.store.payload import Wanted, damaged
from registree.store.tree_reader import TreeReader
from registree.store.workers import ROWS, Memory, Workers, other_processors

_AHEAD = 3
"""Reads that are under way while files are made."""

Row: TypeAlias = tuple[str, int, str]
"""How a file is made: its path, its mode, and the second name it gets ("" for none)."""
Done: TypeAlias = Callable[[Sequence[Wanted], Sequence[Made]], None]
"""Is told of files that were made, some at a time, in the order of packs."""


class _Batch(NamedTuple):
    files: list[Wanted]
    made: Future[list[Made]]


class _Coming(NamedTuple):
    start: int
    batches: Future[list[_Batch]]


class SmallFiles:
    """Makes small files, each of one extent; every byte is verified before its file exists.

    Parameters
    ----------
    row
        Tells how a file is made.
    done
        Told of files when they are there.
    """

    def __init__(self, reader: TreeReader, executor: Executor, row: Callable[[Wanted], Row], done: Done) -> None:
        self._reader = reader
        self._executor = executor
        self._row = row
        self._done = done
        others = other_processors()
        self._memory = Memory(_AHEAD + 1 + others, RANGE_LIMIT)
        self._workers = Workers(self._memory, others)
        self._coming: deque[_Coming] = deque()

    def make(self, files: Sequence[Wanted]) -> None:
        """Begin to make some files; `finish` waits until they are there.

        Raises
        ------
        IntegrityError
            When bytes are not those of their content id.
        ObjectMissing
            When a pack is not there.
        """
        for planned in plan_ranges((index, wanted.extents[0]) for index, wanted in enumerate(files)):
            if not self._memory.free:
                self._finish_one()
            start = self._memory.free.popleft()
            wanted = [files[member.key] for member in planned.members]
            rows = [
                (path, mode, member.start, member.length, one.entry.content, second)
                for member, one in zip(planned.members, wanted, strict=True)
                for path, mode, second in (self._row(one),)
            ]
            self._coming.append(_Coming(start, self._executor.submit(self._bring, planned, start, wanted, rows)))

    def finish(self) -> None:
        """Wait until all of them are there."""
        while self._coming:
            self._finish_one()

    def close(self) -> None:
        """End the workers; what is not there by now never will be."""
        for coming in self._coming:
            coming.batches.cancel()
        self._workers.close()

    def _bring(self, planned: Range[int], start: int, files: list[Wanted], rows: list[NewFile]) -> list[_Batch]:
        """Read a range and hand it to the workers (in a thread of the executor)."""
        self._reader.fill_from_pack(planned.pack, planned.offset, self._memory.piece(start)[: planned.length])
        return [
            _Batch(files[at : at + ROWS], self._workers.submit(write_files, start, rows[at : at + ROWS]))
            for at in range(0, len(rows), ROWS)
        ]

    def _finish_one(self) -> None:
        start, batches = self._coming.popleft()
        for files, future in batches.result():
            made = self._workers.result(future)
            if None in made:
                made = [one or self._again(wanted) for wanted, one in zip(files, made, strict=True)]
            self._done(files, made)
        self._memory.free.append(start)

    def _again(self, wanted: Wanted) -> Made:
        """Make a file whose bytes came wrong, from another store or another reading."""
        right = self._reader.read_checked(wanted.extents[0], wanted.entry.is_content)
        if right is None:
            raise damaged(self._reader, wanted)
        path, mode, second = self._row(wanted)
        (made,) = write_files(memoryview(right), [(path, mode, 0, len(right), wanted.entry.content, second)])
        return made
