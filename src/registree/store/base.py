"""What a store is: objects under keys. Everything above works on this interface alone."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from registree.errors import FormatError, ObjectMissing, ReadOnly, StoreError
from registree.model.places import PackRow
from registree.store.batches import BLOCK
from registree.store.layout import MARKER, check_marker, marker

Sent = Callable[[int], None]
"""Is told of some bytes more that were sent; from any thread."""


def nobody(size: int) -> None:
    """Be told of bytes, and do nothing."""


PIECE = 16 << 20
"""Bytes read at once when a long range is copied."""
WHOLE_LIMIT = 65 << 20
"""Bytes of an object that is read whole: a page or a map may have 64 MiB before it is compressed."""


class Store(ABC):
    """Objects under keys, on a disk, in a bucket or behind a web server.

    Attributes
    ----------
    address
        Where it is, as a person would write it, without secrets.
    writable
        False for what can only be read (HTTP).
    is_local
        Whether it is a directory of this machine.
    is_outbox
        Whether it is an outbox, whose content is not kept in the cache: it is on this disk already.
    """

    address: str
    writable: bool = True
    is_local: bool = False
    is_outbox: bool = False
    _format_is_known: bool = False

    @abstractmethod
    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """Return a small object's bytes from `offset`, or `length` bytes of any object.

        Raises
        ------
        FormatError
            When it is to be read to its end, and has over `WHOLE_LIMIT` bytes.
        ObjectMissing
            When there is no such object, or it ends before the range does.
        StoreError, AuthError
            When the store cannot be reached or refuses.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return an object's size in bytes; None when there is no such object."""

    @abstractmethod
    def write(self, key: str, content: bytes) -> None:
        """Store a small object, whole or not at all; an object of that key is replaced."""

    @abstractmethod
    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """Store a file's bytes under a key, whole or not at all.

        Parameters
        ----------
        sent
            Told of bytes as they go, as far as the store knows; of all of them when it is done.
        """

    def link(self, key: str, path: str) -> bool:
        """Store a file by giving it a second name, and tell whether that was possible.

        The file must be flushed, and nobody may change it any more.
        """
        return False

    def lies_beside(self, pack: PackRow, folder: str) -> bool:
        """Tell whether a pack is here, whole, and on the same disk as a folder."""
        return False

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none."""

    @abstractmethod
    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """List the objects under a folder with their sizes in bytes."""

    def copy_range(self, key: str, offset: int, length: int, descriptor: int, position: int) -> memoryview | None:
        """Copy bytes of an object into an open file at a position (bytes), in bounded memory.

        Returns
        -------
        The bytes, when they came through this process in one piece: then they need not be read again to be hashed.
        """
        piece = memoryview(b"")
        for done in range(0, length, PIECE):
            piece = self._piece(key, offset + done, min(PIECE, length - done))
            write_at(descriptor, piece, position + done)
        return piece if len(piece) == length else None

    def _piece(self, key: str, offset: int, length: int) -> memoryview:
        """Return bytes of an object, by the way with the fewest copies."""
        return memoryview(self.read(key, offset, length))

    def fill(self, key: str, offset: int, memory: memoryview) -> None:
        """Fill memory with bytes of an object."""
        memory[:] = self._piece(key, offset, len(memory))

    def ensure_marker(self, *, got_data: bool = False) -> None:
        """Make it a store if it is none yet; refuse one of a newer format.

        Parameters
        ----------
        got_data
            Whether data was sent to it before: if it is none now, it is not where it was, and no new one is begun.

        Raises
        ------
        StoreError
            When it is none and got data.
        """
        if self.size(MARKER) is None:
            if got_data:
                raise StoreError(
                    f"{self.address} is empty, and it got data before: nothing was sent",
                    hint="is its disk mounted? if it was emptied on purpose: reg push --repair --remote NAME",
                )
            self.write(MARKER, marker())
        else:
            check_marker(self.read(MARKER), self.address)

    def check_format(self) -> None:
        """Refuse a store of a newer format, asking once; one without a marker holds nothing and passes."""
        if self._format_is_known:
            return
        try:
            content = self.read(MARKER)
        except ObjectMissing:
            return
        check_marker(content, self.address)
        self._format_is_known = True


def check_whole(length: int, key: str, address: str) -> None:
    """Refuse an object that is longer than any object that is read whole.

    Raises
    ------
    FormatError
        Naming it.
    """
    if length > WHOLE_LIMIT:
        raise FormatError(f"{key} in {address} is over {WHOLE_LIMIT} bytes long, and no such object is")


class OfflineStore(Store):
    """A store that may not be asked now: only its address is known, by which the cache knows what came from it."""

    writable = False

    def __init__(self, address: str) -> None:
        self.address = address

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        raise ObjectMissing(key, f"what is here of {self.address}", hint="run it without --offline")

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        return None

    def write(self, key: str, content: bytes) -> None:
        """See `Store.write`."""
        raise ReadOnly(f"{self.address} is not asked offline", hint="run it without --offline")

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """See `Store.upload`."""
        self.write(key, b"")

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self.write(key, b"")

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """See `Store.keys`."""
        return iter(())


def write_at(descriptor: int, content: bytes | bytearray | memoryview, position: int) -> None:
    """Write all of it at a position of an open file."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view[:BLOCK], position)
        view = view[written:]
        position += written
