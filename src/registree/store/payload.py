"""Bring large files out of packs, several pieces at once, every byte verified before it counts."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import NamedTuple, Self

from blake3 import blake3

from registree.errors import AuthError, IntegrityError, StoreError, translate_os_error
from registree.execute import Progress, Silent
from registree.model.ids import id_text
from registree.model.manifest import Entry
from registree.model.places import Extent, Extents
from registree.store.base import PIECE
from registree.store.batches import BLOCK
from registree.store.files import begin_to_write, copy_range
from registree.store.layout import PACKS, key
from registree.store.tree_reader import TreeReader

WHOLE_UP_TO = 4 << 20
"""A file of at most this many bytes, in one piece, is read together with its neighbours."""
_AHEAD = 6
"""Pieces of one file that come while an earlier one is hashed."""


class Wanted(NamedTuple):
    """A file to bring: its entry, where its bytes lie (or the bytes themselves), and where it goes."""

    entry: Entry
    extents: Extents
    path: str
    content: bytes | None = None


def is_whole(wanted: Wanted) -> bool:
    """Tell whether a file is brought with its neighbours rather than by itself."""
    return len(wanted.extents) == 1 and wanted.entry.size <= WHOLE_UP_TO


class LargeFile:
    """A large file on its way: its first pieces are asked for at once, the others while it is finished.

    What is there already of an interrupted attempt is kept: each piece is noted beside the file when it is there.
    It is to be closed.

    Parameters
    ----------
    wanted
        What it is, where its bytes lie, and the path at which it is gathered.
    descriptor
        That file, open to be read and written; it stays open.
    is_flushed
        Whether somebody will wait until it is on the disk: then the kernel writes each piece as it comes.
    base
        An older version of the file on this disk and where its bytes lay: what both share is copied from it.
    progress
        Told of bytes as they are there.
    """

    def __init__(
        self,
        reader: TreeReader,
        executor: Executor,
        wanted: Wanted,
        descriptor: int,
        *,
        is_flushed: bool,
        base: tuple[str, Extents] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._reader = reader
        self._executor = executor
        self._wanted = wanted
        self._descriptor = descriptor
        self._is_flushed = is_flushed
        self._progress = progress or Silent()
        self._coming: deque[tuple[_Piece, Future[_Copied] | None]] = deque()
        self._note = wanted.path + ".done"
        self._done = _read_note(self._note)
        with ExitStack() as stack, self._translated():
            if os.fstat(self._descriptor).st_size != wanted.entry.size:
                self._done.clear()
                os.ftruncate(self._descriptor, wanted.entry.size)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if self._done else os.O_TRUNC)
            self._log = os.open(self._note, flags, 0o600)
            stack.callback(os.close, self._log)
            self._from_elsewhere = bool(self._done) or base is not None
            self._pieces = _pieces(wanted, base)
            stack.callback(self._stop)
            self._ask(_AHEAD)
            self._held = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finish(self) -> int:
        """Bring what is missing and verify the whole; the bytes are hashed here while the next ones come.

        The note beside it stays: it is to be removed (`forget`) when the file has its name.

        Returns
        -------
        The bytes that came from packs, not from the older version or an earlier attempt.

        Raises
        ------
        IntegrityError
            When no store has the bytes that the content id names.
        """
        fetched = 0
        hasher = blake3()
        block = memoryview(bytearray(BLOCK))
        while self._coming:
            piece, copying = self._coming[0]  # `close` waits for it if this is interrupted
            copied = copying.result() if copying is not None else _Copied(0, None)
            self._coming.popleft()
            self._ask(1)
            if copied.content is not None:
                hasher.update(copied.content)
            else:
                for start in range(0, piece.length, BLOCK):
                    part = block[: piece.length - start]
                    hasher.update(part[: os.preadv(self._descriptor, [part], piece.position + start)])
            self._progress.advance(0, piece.length)
            fetched += copied.fetched
        self.close()
        if hasher.digest() == self._wanted.entry.content:
            return fetched
        os.ftruncate(self._descriptor, 0)
        return fetched + self._finish_again()

    def forget(self) -> None:
        """Remove the note of what is there."""
        with suppress(FileNotFoundError):  # somebody cleaned the cache just now
            os.unlink(self._note)

    def _finish_again(self) -> int:
        """Bring all of it anew: from the same packs, when only what was on this disk may be wrong, or from others."""
        if self._from_elsewhere:
            with self._anew(self._reader) as anew:
                return anew.finish()
        holders = dict.fromkeys(self._reader.pack_store(extent.pack) for extent in self._wanted.extents)
        for reader in map(self._reader.without, holders):
            if reader is not None:
                with suppress(IntegrityError, StoreError, AuthError), self._anew(reader) as anew:
                    return anew.finish()
        raise damaged(self._reader, self._wanted)

    def _anew(self, reader: TreeReader) -> LargeFile:
        return LargeFile(reader, self._executor, self._wanted, self._descriptor, is_flushed=self._is_flushed)

    def close(self) -> None:
        """Ask for nothing more; what is there of it stays."""
        self._held.close()

    def _stop(self) -> None:
        running = [copying for _, copying in self._coming if copying is not None and not copying.cancel()]
        wait(running)  # or they would write to whatever has the descriptor's number next
        self._coming.clear()

    def _ask(self, count: int) -> None:
        for piece in islice(self._pieces, count):
            is_done = (piece.position, piece.length) in self._done
            self._coming.append((piece, None if is_done else self._executor.submit(self._copy, piece)))

    def _copy(self, piece: _Piece) -> _Copied:
        """Bring one piece and note it."""
        copied = _Copied(0, None)
        with self._translated():
            if not self._copy_local(piece):
                content = self._reader.copy_pack(piece.extent, self._descriptor, piece.position)
                copied = _Copied(piece.length, content)
            if self._is_flushed:
                begin_to_write(self._descriptor, piece.position, piece.length)
            os.write(self._log, f"{piece.position} {piece.length}\n".encode())
        return copied

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            what, folder = self._wanted.entry.path or "the file", os.path.dirname(self._wanted.path)
            raise translate_os_error(error, what, folder) from error

    def _copy_local(self, piece: _Piece) -> bool:
        if piece.local is None:
            return False
        path, offset = piece.local
        try:
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            return copy_range(source, self._descriptor, offset, piece.length, piece.position) == piece.length
        except OSError:
            return False
        finally:
            os.close(source)


def verified_pieces(reader: TreeReader, entry: Entry, extents: Extents) -> Iterator[bytes]:
    """Stream a large file in pieces; the last one comes only when all of it has proved right.

    Raises
    ------
    IntegrityError
        When the bytes are not those of the content id.
    """
    hasher = blake3()
    held = b""
    for piece in _pieces(Wanted(entry, extents, ""), None):
        content = reader.read_pack(piece.extent.pack, piece.extent.offset, piece.extent.length)
        hasher.update(content)
        if held:
            yield held
        held = content
    if hasher.digest() != entry.content:
        raise damaged(reader, Wanted(entry, extents, entry.path or "the file"))
    yield held


class _Piece(NamedTuple):
    position: int
    length: int
    extent: Extent
    local: tuple[str, int] | None


class _Copied(NamedTuple):
    """A piece that was copied: how many of its bytes came from a pack, and all of them when they are at hand."""

    fetched: int
    content: memoryview | None


def _pieces(wanted: Wanted, base: tuple[str, Extents] | None) -> Iterator[_Piece]:
    known: dict[bytes, list[tuple[int, int, int]]] = {}
    if base is not None:
        position = 0
        for pack, offset, length in base[1]:
            known.setdefault(pack.id, []).append((offset, length, position))
            position += length
    position = 0
    for pack, start, total in wanted.extents:
        offset, left = start, total
        while left:
            length, local = min(left, PIECE), None
            for low, size, at in known.get(pack.id, ()):
                if low <= offset < low + size:
                    length, local = min(length, low + size - offset), (base[0] if base else "", at + offset - low)
                    break
                if offset < low:
                    length = min(length, low - offset)
            yield _Piece(position, length, Extent(pack, offset, length), local)
            offset, left, position = offset + length, left - length, position + length


def _read_note(path: str) -> set[tuple[int, int]]:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            rows = [line.split() for line in file if line.endswith("\n")]
    except OSError:
        return set()
    return {(int(row[0]), int(row[1])) for row in rows if len(row) == 2 and row[0].isdigit() and row[1].isdigit()}


def damaged(reader: TreeReader, wanted: Wanted) -> IntegrityError:
    """Say that the bytes of a file are wrong in a pack."""
    packs = dict.fromkeys(extent.pack for extent in wanted.extents)
    where = " or ".join(f"{key(PACKS, pack.id)} of {reader.pack_store(pack).address}" for pack in packs)
    return IntegrityError(
        f"{wanted.entry.path or 'the file'}: the bytes in {where} are not those of {id_text(wanted.entry.content)}",
        hint="reg verify --remote --deep says what else is damaged",
    )
