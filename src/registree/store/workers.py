"""Processes beside this one for batches of files: threads would only hand the interpreter's lock around."""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeAlias, TypeVar

from registree.errors import StoreError

_Row = TypeVar("_Row")
_Result = TypeVar("_Result")
Task: TypeAlias = Callable[[memoryview, Sequence[_Row], int], list[_Result]]
"""What a worker can do: a function of `registree.store.batches`."""

ROWS = 512
"""Rows of one batch at most: they take some 20 ms."""
_WORTH_A_WORKER = 2000
"""Rows of small files after which it pays to start other processes."""
MANY = 1000
"""Small files for which it pays to start other processes before the first comes."""
_START = "import sys; sys.path[:] = {path!r}; from registree.store.batches import serve; serve(*{numbers!r})"


class _Process(NamedTuple):
    """A process that waits to be told of its memory and its batches, and the pipes to it and from it."""

    process: subprocess.Popen[bytes]
    asked: int
    told: int


class Spares:
    """Processes that are started before it is known what for: whoever has work for them need not wait.

    Parameters
    ----------
    count
        How many.
    """

    def __init__(self, count: int) -> None:
        self._descriptor: int | None = _memory_file()
        self._processes = _start(count, self._descriptor)

    def take(self, count: int) -> tuple[int | None, list[_Process]]:
        """Return the file that is their memory, and so many of them at most; who comes later gets neither."""
        descriptor, processes = self._descriptor, self._processes
        self._descriptor, self._processes = None, []
        for process, *pipes in processes[count:]:
            _end(process)
            for pipe in pipes:
                os.close(pipe)
        return descriptor, processes[:count]

    def close(self) -> None:
        """End those that nobody took."""
        descriptor, _ = self.take(0)
        if descriptor is not None:
            os.close(descriptor)


class Memory:
    """Equal pieces of memory that workers see too.

    Parameters
    ----------
    count, size
        How many pieces, and the bytes of each.
    descriptor
        The file that it is; None for a new one.
    """

    def __init__(self, count: int, size: int, descriptor: int | None = None) -> None:
        self.size = size
        self.total = count * size
        self.descriptor = _memory_file() if descriptor is None else descriptor
        weakref.finalize(self, os.close, self.descriptor)  # not before the last read into it is over
        os.ftruncate(self.descriptor, self.total)
        self._map = mmap.mmap(self.descriptor, self.total)
        self.free = deque(range(0, self.total, size))
        """Where the pieces start that nobody uses."""

    def piece(self, start: int) -> memoryview:
        """Return the piece that starts there."""
        return memoryview(self._map)[start : start + self.size]


def _memory_file() -> int:
    with suppress(AttributeError, OSError):  # not on macOS, nor where a container forbids it
        return os.memfd_create("reg", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class _Batch(NamedTuple):
    task: Task[Any, Any]
    start: int
    rows: Sequence[Any]
    future: Future[list[Any]]


class Workers:
    """Does batches in other processes, and in this one while it would only wait.

    Parameters
    ----------
    count
        Other processes at most.
    worth
        Rows after which they start, unless `begin` is called before.
    spares
        Those that run already, with this memory.
    """

    def __init__(
        self, memory: Memory, count: int, *, worth: int = _WORTH_A_WORKER, spares: Sequence[_Process] = ()
    ) -> None:
        self.memory = memory
        self._count = count - len(spares)
        self._worth = worth
        self._rows = 0
        self._waiting: deque[_Batch] = deque()
        self._some = threading.Condition()
        self._closed = False
        self._processes: list[subprocess.Popen[bytes]] = []
        self._employ(spares)

    def submit(self, task: Task[_Row, _Result], start: int, rows: Sequence[_Row]) -> Future[list[_Result]]:
        """Hand in a batch on the piece of memory that starts there; `result` gives what comes of it."""
        future: Future[list[_Result]] = Future()
        with self._some:  # it is called from several threads, and perhaps once more after `close`
            self._waiting.append(_Batch(task, start, rows, future))
            self._some.notify()
            self._rows += len(rows)
            if self._rows >= self._worth:
                self._begin()
        return future

    def begin(self) -> None:
        """Start the other processes now: there will be rows enough."""
        with self._some:
            self._begin()

    def _begin(self) -> None:
        if self._count and not self._closed:
            count, self._count = self._count, 0
            self._employ(_start(count, self.memory.descriptor))

    def result(self, future: Future[list[_Result]]) -> list[_Result]:
        """Return what came of a batch; while it is not done, do others.

        Raises
        ------
        Exception
            What the batch raised: an OSError, if nothing is wrong here.
        StoreError
            When the process that did it was killed.
        """
        while not future.done():
            with self._some:
                batch = self._waiting.popleft() if self._waiting else None
            if batch is None:
                break
            try:
                batch.future.set_result(batch.task(self.memory.piece(batch.start), batch.rows, 0))
            except Exception as error:  # noqa: BLE001 -- whoever waits for it is told
                batch.future.set_exception(error)
        return future.result()

    def close(self) -> None:
        """End the other processes; what was not begun is never done."""
        with self._some:
            self._closed = True
            self._waiting.clear()
            self._some.notify_all()
        for process in self._processes:
            _end(process)

    def _employ(self, processes: Sequence[_Process]) -> None:
        for process, asked, told in processes:
            thread = threading.Thread(target=self._attend, args=(asked, told), name="reg-worker", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many threads as may be: this process does it all
                _end(process)
                os.close(asked)
                os.close(told)
            else:
                self._processes.append(process)

    def _attend(self, asked: int, told: int) -> None:
        """Give one process its batches, one after the other."""
        with suppress(EOFError, BrokenPipeError), open(asked, "wb") as commands, open(told, "rb") as answers:
            pickle.dump(self.memory.total, commands)
            commands.flush()
            pickle.load(answers)  # noqa: S301 -- our own process says that it has its memory
            while batch := self._next():
                try:
                    pickle.dump((batch.task, batch.start, self.memory.size, batch.rows), commands)
                    commands.flush()
                    result, error = pickle.load(answers)  # noqa: S301 -- our own process
                except (EOFError, BrokenPipeError, pickle.UnpicklingError):
                    batch.future.set_exception(StoreError("a process that worked for this one was ended from outside"))
                    return
                except Exception as other:  # noqa: BLE001 -- whoever waits for it is told
                    batch.future.set_exception(other)
                    return
                if error is not None:
                    batch.future.set_exception(error)
                else:
                    batch.future.set_result(result)

    def _next(self) -> _Batch | None:
        with self._some:
            self._some.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.popleft()


def _start(count: int, memory: int) -> list[_Process]:
    """Start processes that share a file as their memory; fewer where no more may be started."""
    started: list[_Process] = []
    for _ in range(count):
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            commands, asked, told, answers = pipes
            numbers = (os.getpid(), memory, commands, answers)
            process = subprocess.Popen(  # noqa: S603 -- this interpreter, and our own text
                [sys.executable, "-I", "-S", "-c", _START.format(path=sys.path, numbers=numbers)],
                pass_fds=(memory, commands, answers),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError:  # as many processes, or open files, as may be: those there are do it all
            for pipe in pipes:
                os.close(pipe)
            break
        os.close(commands)
        os.close(answers)
        started.append(_Process(process, asked, told))
    return started


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
