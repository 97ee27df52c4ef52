"""Bring large files out of packs, several pieces at once, every byte verified before it counts."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor, Future, wait
from contextlib import suppress
from threading import Event
from typing import IO, NamedTuple

from blake3 import blake3

from registree.errors import AuthError, IntegrityError, ObjectMissing, StoreError
from registree.execute import Progress, Silent
from registree.model.ids import id_text
from registree.model.manifest import Entry
from registree.model.places import Extent, Extents
from registree.store.base import PIECE
from registree.store.files import copy_range
from registree.store.layout import PACKS, key
from registree.store.tree_reader import TreeReader

WHOLE_UP_TO = 4 << 20
"""A file of at most this many bytes, in one piece, is read together with its neighbours."""
_AHEAD = 3


class Wanted(NamedTuple):
    """A file to bring: its entry, where its bytes lie (or the bytes themselves), and where it goes."""

    entry: Entry
    extents: Extents
    path: str
    content: bytes | None = None


def is_whole(wanted: Wanted) -> bool:
    """Tell whether a file is brought with its neighbours rather than by itself."""
    return len(wanted.extents) == 1 and wanted.entry.size <= WHOLE_UP_TO


def write_large(
    reader: TreeReader,
    executor: Executor,
    wanted: Wanted,
    *,
    base: tuple[str, Extents] | None = None,
    progress: Progress | None = None,
    stopped: Event | None = None,
) -> int:
    """Bring a large file to `wanted.path`, several pieces at once; verified when it is whole.

    What is there already of an interrupted attempt is kept: the pieces done are noted beside it.

    Parameters
    ----------
    base
        An older version of the file on this disk and where its bytes lay: what both share is copied from it.
    progress
        Told of bytes as they are there.
    stopped
        Set when nobody wants it any more.

    Returns
    -------
    The bytes that came from packs, not from the older version or an earlier attempt.

    Raises
    ------
    CancelledError
        When it was stopped; what is there is kept.
    """
    fetched = 0
    watched = progress or Silent()
    pieces = _pieces(wanted, base)
    note = wanted.path + ".done"
    done = _read_note(note)
    descriptor = os.open(wanted.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    waiting: deque[tuple[_Piece, Future[_Copied] | None]] = deque()
    try:
        if os.fstat(descriptor).st_size != wanted.entry.size:
            done.clear()
            os.ftruncate(descriptor, wanted.entry.size)
        with open(note, "a", encoding="ascii") as log:
            hasher = blake3()
            buffer = bytearray(PIECE)
            for piece in pieces:
                if len(waiting) >= 2 * _AHEAD:
                    fetched += _finish(*waiting.popleft(), log, descriptor, hasher, watched, stopped, buffer)
                is_done = (piece.position, piece.length) in done
                waiting.append((piece, None if is_done else executor.submit(_copy, reader, piece, descriptor)))
            while waiting:
                fetched += _finish(*waiting.popleft(), log, descriptor, hasher, watched, stopped, buffer)
    finally:
        running = [future for _, future in waiting if future is not None and not future.cancel()]
        wait(running)  # or they would write to whatever has the descriptor's number next
        os.close(descriptor)
    os.unlink(note)
    if hasher.digest() != wanted.entry.content:
        os.unlink(wanted.path)
        if base is not None:
            return fetched + write_large(
                reader, executor, wanted, stopped=stopped
            )  # the older version was not what it seemed
        others = reader.without(reader.pack_store(wanted.extents[0].pack))
        if others is None:
            raise damaged(reader, wanted)
        with suppress(ObjectMissing, StoreError, AuthError):
            return fetched + write_large(others, executor, wanted, stopped=stopped)
        raise damaged(reader, wanted)
    return fetched


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


def _finish(
    piece: _Piece,
    future: Future[_Copied] | None,
    log: IO[str],
    descriptor: int,
    hasher: blake3,
    progress: Progress,
    stopped: Event | None,
    buffer: bytearray,
) -> int:
    """Wait for a piece, note it, and hash it, while the next ones come; the buffer is what to read it into."""
    copied = _Copied(0, None)
    if future is not None:
        copied = future.result()
        log.write(f"{piece.position} {piece.length}\n")
        log.flush()
    if stopped is not None and stopped.is_set():
        raise CancelledError
    content = copied.content
    if content is None:  # fresh memory for each would cost as much as reading does
        content = memoryview(buffer)[: piece.length]
        content = content[: os.preadv(descriptor, [content], piece.position)]
    hasher.update(content)
    progress.advance(0, piece.length)
    return copied.fetched


def _copy(reader: TreeReader, piece: _Piece, descriptor: int) -> _Copied:
    """Bring one piece."""
    if piece.local is not None:
        path, offset = piece.local
        with suppress(OSError):
            source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if copy_range(source, descriptor, offset, piece.length, piece.position) == piece.length:
                    return _Copied(0, None)
            finally:
                os.close(source)
    return _Copied(piece.length, reader.copy_pack(piece.extent, descriptor, piece.position))


def _pieces(wanted: Wanted, base: tuple[str, Extents] | None) -> list[_Piece]:
    known: dict[bytes, list[tuple[int, int, int]]] = {}
    if base is not None:
        position = 0
        for pack, offset, length in base[1]:
            known.setdefault(pack.id, []).append((offset, length, position))
            position += length
    pieces = []
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
            pieces.append(_Piece(position, length, Extent(pack, offset, length), local))
            offset, left, position = offset + length, left - length, position + length
    return pieces


def _read_note(path: str) -> set[tuple[int, int]]:
    try:
        with open(path, encoding="ascii") as file:
            rows = [line.split() for line in file if line.endswith("\n")]
    except OSError:
        return set()
    return {(int(row[0]), int(row[1])) for row in rows if len(row) == 2 and row[0].isdigit() and row[1].isdigit()}


def damaged(reader: TreeReader, wanted: Wanted) -> IntegrityError:
    """Say that the bytes of a file are wrong in a pack."""
    pack = wanted.extents[0].pack
    return IntegrityError(
        f"{wanted.entry.path or os.path.basename(wanted.path)}: the bytes in {key(PACKS, pack.id)} "
        f"of {reader.pack_store(pack).address} are not those of {id_text(wanted.entry.content)}",
        hint="reg verify --remote --deep says what else is damaged",
    )
