"""Read bytes of packs from whichever store has them, and from the next one where the first fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from registree.errors import AuthError, ObjectMissing, StoreError
from registree.model.places import Extent, PackRow
from registree.store.base import Store
from registree.store.layout import PACKS, key

_Result = TypeVar("_Result")


class PackReader:
    """Reads packs from an ordered list of stores.

    Parameters
    ----------
    stores
        Where to look, first one first.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        self.stores = tuple(stores)
        self._holder: dict[bytes, Store] = {}

    def read_pack(self, pack: PackRow, offset: int, length: int) -> bytes:
        """Read bytes of a pack from the first store that has it and can be read."""
        return self._from_any(pack, lambda store: store.read(key(PACKS, pack.id), offset, length))

    def fill_from_pack(self, pack: PackRow, offset: int, memory: memoryview) -> None:
        """Fill memory with bytes of a pack, from the first store that has it and can be read."""
        self._from_any(pack, lambda store: store.fill(key(PACKS, pack.id), offset, memory))

    def copy_pack(self, extent: Extent, descriptor: int, position: int) -> memoryview | None:
        """Copy bytes of a pack into an open file, from the first store that has it and can be read.

        Returns
        -------
        What `Store.copy_range` does.
        """
        where = key(PACKS, extent.pack.id)
        return self._from_any(
            extent.pack, lambda store: store.copy_range(where, extent.offset, extent.length, descriptor, position)
        )

    def _from_any(self, pack: PackRow, read: Callable[[Store], _Result]) -> _Result:
        first = self.pack_store(pack)
        try:
            return read(first)
        except (ObjectMissing, StoreError, AuthError):
            for store in self.stores:
                with suppress(ObjectMissing, StoreError, AuthError):
                    if store is not first and store.size(key(PACKS, pack.id)) == pack.size:
                        result = read(store)
                        self._holder[pack.id] = store
                        return result
            raise

    def read_checked(self, extent: Extent, is_right: Callable[[bytes], bool]) -> bytes | None:
        """Read bytes that were wrong once more, from each store that has them; None when none has the right ones."""
        where = key(PACKS, extent.pack.id)
        for store in self.stores:
            with suppress(ObjectMissing, StoreError, AuthError):
                content = store.read(where, extent.offset, extent.length)
                if is_right(content):
                    return content
        return None

    def pack_store(self, pack: PackRow) -> Store:
        """Return the first store that has a pack, of the size its map says.

        Raises
        ------
        ObjectMissing
            When none has.
        """
        known = self._holder.get(pack.id)
        if known is not None:
            return known
        where = key(PACKS, pack.id)
        for store in self.stores[:-1]:
            with suppress(StoreError, AuthError):
                if store.size(where) == pack.size:
                    return self._holder.setdefault(pack.id, store)
        if not self.stores:
            raise ObjectMissing(where, "any store known here", hint="reg remote list shows the remotes")
        return self.stores[-1]  # the read itself says whether it is there: one request fewer
