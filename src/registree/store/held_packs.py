"""Which packs are held somewhere for certain, so that a new version may name their bytes again."""

from __future__ import annotations

import os
from collections.abc import Iterable

from registree.model.places import Extent, PackRow
from registree.store.file_stat import file_stat
from registree.store.layout import PACKS, key
from registree.store.outbox import Outbox
from registree.store.state import State


class HeldPacks:
    """What the outbox and the remote are known to hold, asked once for each pack.

    Parameters
    ----------
    remote
        Address of the remote that packs were sent to.
    in_place
        Whether files of a work tree count as packs that they were added as.
    """

    def __init__(self, outbox: Outbox, state: State, remote: str, *, in_place: bool) -> None:
        self._outbox = outbox
        self._state = state
        self._remote = remote
        self._in_place = in_place
        self._known: dict[bytes, bool] = {}

    def usable(self, extents: Iterable[Extent], *, unsent: bool) -> bool:
        """Tell whether stored bytes may be named again: not when their pack was lost.

        Parameters
        ----------
        unsent
            Whether they belong to what was not pushed yet, so that the outbox must hold them; else a remote does.
        """
        return all(self.has(extent.pack, unsent=unsent) for extent in extents)

    def place(self, chunk: bytes) -> Extent | None:
        """Return where the bytes of a content id lie, when that is known and may be named again."""
        found = self._state.place(chunk)
        return found if found is not None and self.has(found.pack, unsent=True) else None

    def knows_chunks(self, pack: PackRow) -> bool:
        """Tell whether `place` finds the chunks of a pack."""
        return self._state.has_pack(pack.id) and self.has(pack, unsent=True)

    def has(self, pack: PackRow, *, unsent: bool) -> bool:
        """Tell whether a pack is held; see `usable`."""
        known = self._known.get(pack.id)
        if known is None:
            size = self._outbox.bytes_held(key(PACKS, pack.id))
            if size is None and self._in_place and self._still_in_place(pack.id):
                size = pack.size
            known = size == pack.size or not unsent or self._state.was_sent(self._remote, pack.id)
            self._known[pack.id] = known
        return known

    def _still_in_place(self, pack: bytes) -> bool:
        """Tell whether the files that hold a pack are as they were when they were added."""
        name = key(PACKS, pack)
        sources, noted_at = self._outbox.sources(name), self._outbox.noted_at(name)
        for path, _, _ in sources or ():
            row = self._state.stat(os.path.relpath(path, self._outbox.work_tree))
            try:
                unchanged = row is not None and row.matches(file_stat(os.stat(path, follow_symlinks=False)))
            except OSError:
                return False
            if row is None or not unchanged or not row.ctime or not row.is_older(noted_at):
                return False  # it may have been changed and added again
        return bool(sources)
