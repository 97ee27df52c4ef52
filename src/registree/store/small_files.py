"""Make small files in workers: out of packs, by few large reads into memory they share, or from copies on this disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import NamedTuple, TypeAlias, TypeVar

from registree.model.ranges import RANGE_LIMIT, Range, plan_ranges
from registree.store.batches import Made, NewFile, copy_files, write_files
from registree.store.payload import WHOLE_UP_TO, Wanted, damaged
from registree.store.tree_reader import TreeReader
from registree.store.workers import MANY, ROWS, Memory, Task, Workers

_R = TypeVar("_R")
_AHEAD = 3
"""Reads that are under way while files are made."""
_RANGE_AT_HAND = WHOLE_UP_TO + (1 << 20)
"""Bytes of one read at most where all stores are on this machine: more would not stay in the processors' caches."""

Row: TypeAlias = tuple[str, int, str]
"""How a file is made: its path, its mode, and the second name it gets ("" for none)."""
Done: TypeAlias = Callable[[Sequence[Wanted], Sequence[Made], bool], None]
"""Is told of files that were made, some at a time, in any order, and whether they are copies."""


class _Batch(NamedTuple):
    files: Sequence[Wanted]
    made: Future[list[Made]]


class _Coming(NamedTuple):
    start: int
    batches: Future[list[_Batch]]
    are_copies: bool


class SmallFiles:
    """Makes small files, each of one extent; every byte is verified before its file exists.

    Parameters
    ----------
    row
        Tells how a file is made.
    done
        Told of files when they are there.
    processes
        How many others may help.
    expected
        How many files will come at the most: for many, the others start at once.
    spare
        Gives a file's bytes when they are wrong in its pack everywhere, if it can; they are checked.
    """

    def __init__(
        self,
        reader: TreeReader,
        executor: Executor,
        row: Callable[[Wanted], Row],
        done: Done,
        processes: int,
        expected: int,
        spare: Callable[[Wanted], bytes | None] = lambda wanted: None,
    ) -> None:
        self._reader = reader
        self._executor = executor
        self._row = row
        self._done = done
        self._spare = spare
        self._range = _RANGE_AT_HAND if all(store.is_local for store in reader.stores) else RANGE_LIMIT
        self._memory = Memory(_AHEAD + 1 + processes, self._range)
        self._workers = Workers(self._memory, processes)
        if expected >= MANY:
            self._workers.begin()
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
        for planned in plan_ranges(((index, wanted.extents[0]) for index, wanted in enumerate(files)), self._range):
            wanted = [files[member.key] for member in planned.members]
            rows = [
                self._new_file(one, member.start, member.length)
                for member, one in zip(planned.members, wanted, strict=True)
            ]
            start = self._free_piece()
            self._coming.append(
                _Coming(start, self._executor.submit(self._bring, planned, start, wanted, rows), are_copies=False)
            )

    def copy(self, files: Sequence[tuple[Wanted, str]]) -> None:
        """Begin to make some files from copies at given paths; what is not as it should be comes from packs."""
        at = 0
        while at < len(files):
            wanted: list[Wanted] = []
            rows: list[tuple[str, NewFile]] = []
            end = 0
            for one, source in files[at:]:
                size = one.entry.size
                if end + size >= self._memory.size:
                    break
                wanted.append(one)
                rows.append((source, self._new_file(one, end, size)))
                end += size + 1
            at += len(wanted)
            start = self._free_piece()
            self._coming.append(
                _Coming(start, self._executor.submit(self._hand_out, copy_files, start, wanted, rows), are_copies=True)
            )

    def finish(self) -> None:
        """Wait until all of them are there."""
        while self._coming:
            self._finish_one()

    def close(self) -> None:
        """End the workers; what is not there by now never will be."""
        for coming in self._coming:
            coming.batches.cancel()
        self._workers.close()

    def _free_piece(self) -> int:
        while not self._memory.free:
            self._finish_one()
        return self._memory.free.popleft()

    def _new_file(self, wanted: Wanted, start: int, length: int) -> NewFile:
        path, mode, second = self._row(wanted)
        return path, mode, start, length, wanted.entry.content, second

    def _bring(self, planned: Range[int], start: int, files: list[Wanted], rows: list[NewFile]) -> list[_Batch]:
        """Read a range and hand it to the workers (in a thread of the executor)."""
        self._reader.fill_from_pack(planned.pack, planned.offset, self._memory.piece(start)[: planned.length])
        return self._hand_out(write_files, start, files, rows)

    def _hand_out(self, task: Task[_R, Made], start: int, files: list[Wanted], rows: list[_R]) -> list[_Batch]:
        return [
            _Batch(files[at : at + ROWS], self._workers.submit(task, start, rows[at : at + ROWS]))
            for at in range(0, len(rows), ROWS)
        ]

    def _finish_one(self) -> None:
        start, batches, are_copies = self._coming.popleft()
        lost: list[Wanted] = []
        for files, future in batches.result():
            made = self._workers.result(future)
            if None not in made:
                self._done(files, made, are_copies)
                continue
            right = [pair for pair in zip(files, made, strict=True) if pair[1] is not None]
            self._done([wanted for wanted, _ in right], [one for _, one in right], are_copies)
            lost += [wanted for wanted, one in zip(files, made, strict=True) if one is None]
        self._memory.free.append(start)
        if are_copies:
            self.make(lost)
        else:
            for wanted in lost:
                self._done([wanted], [self._again(wanted)], False)

    def _again(self, wanted: Wanted) -> Made:
        """Make a file whose bytes came wrong, from another store or another reading."""
        right = self._reader.read_checked(wanted.extents[0], wanted.entry.is_content) or self._spare(wanted)
        if right is None or not wanted.entry.is_content(right):
            raise damaged(self._reader, wanted)
        (made,) = write_files(memoryview(right), [self._new_file(wanted, 0, len(right))])
        return made
