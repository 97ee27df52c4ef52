"""Write a manifest's pages and maps; pages that an older version has are not written again."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence

import msgspec

from registree.model.ids import ContentId
from registree.model.manifest import InnerPage, LeafPage, PageRef, Totals, cut_inner
from registree.model.places import (
    PACK_TARGET,
    ChildPlace,
    encode_inner_map,
    encode_leaf_map,
)
from registree.store.layout import compress
from registree.store.open_pack import OpenPack, Pending, Placed, settle


class WrittenTree(msgspec.Struct, frozen=True):
    """A manifest as written: its id, its topmost page and map (not compressed), and the packs with the others."""

    manifest: ContentId
    totals: Totals
    root_page: bytes
    root_map: bytes
    packs: list[OpenPack]


class _Row(msgspec.Struct):
    """A child page: kept from an older version, or new and waiting for the packs its map names to get their names."""

    ref: PageRef
    kept: ChildPlace | None
    content: bytes = b""
    placed: Sequence[tuple[Placed, ...]] = ()
    packs: Collection[OpenPack] = ()
    page: Placed | None = None
    map: Placed | None = None


WAITING_PAGES = 512
"""Pages that are held in memory, with where their files lie, because a pack has no name yet: some 120 MB."""


class TreeWriter:
    """Takes leaf pages in order and makes a manifest of them.

    Parameters
    ----------
    folder
        Where packs of pages are written.
    known
        Where pages of older versions lie, by page id.
    """

    def __init__(self, folder: str, known: Mapping[bytes, ChildPlace]) -> None:
        self._folder = folder
        self._known = known
        self._rows: list[_Row] = []
        self._waiting: deque[_Row] = deque()
        self._packs: list[OpenPack] = []
        self._open: OpenPack | None = None
        self._kept: set[ChildPlace] = set()

    def add(self, leaf: LeafPage, placed: list[tuple[Placed, ...]], *, keep: bool = False) -> None:
        """Add the next leaf page.

        Parameters
        ----------
        placed
            A row for each file of more than zero bytes.
        keep
            Whether all rows are those of the older version, so that its page and map may stand for this one.
        """
        kept = self._known.get(leaf.ref.page) if keep else None
        row = _Row(leaf.ref, kept, leaf.content, placed)
        self._rows.append(row)
        if kept is None:
            row.packs = {place.pack for places in placed for place in places if isinstance(place, Pending)}
            self._waiting.append(row)
        if len(self._rows) > 1:  # a page that stays alone becomes the manifest itself
            self._flush()
            for earlier in self._rows[-2:]:
                if earlier.kept is not None:
                    earlier.content, earlier.placed = b"", ()

    @property
    def is_full(self) -> bool:
        """Whether so many pages wait for a pack that it should be closed, however small it is."""
        return len(self._waiting) >= WAITING_PAGES

    def keep(self, ref: PageRef, place: ChildPlace) -> None:
        """Add a page of an older version without reading it; not for a page that stays alone."""
        self._rows.append(_Row(ref, place))

    def finish(self) -> WrittenTree:
        """Write what is left; every pack that `placed` rows name must be closed by now."""
        if len(self._rows) == 1:
            row = self._rows[0]
            totals = Totals(row.ref.entries, row.ref.files, row.ref.size)
            return WrittenTree(ContentId(row.ref.page), totals, row.content, _map_of(row), [])
        self._flush()
        self._close()
        refs = [row.ref for row in self._rows]
        places = [row.kept or _child_place(row.page, row.map) for row in self._rows]
        self._kept = {place for row in self._rows if (place := row.kept) is not None}
        level = 1
        pages = list(cut_inner(level, refs))
        while len(pages) > 1:
            places = self._write_level(pages, places)
            level += 1
            pages = list(cut_inner(level, [page.ref for page in pages]))
        root = pages[0]
        totals = Totals(root.ref.entries, root.ref.files, root.ref.size)
        return WrittenTree(
            ContentId(root.ref.page), totals, root.content, encode_inner_map(root.level, places), self._packs
        )

    def _write_level(self, pages: list[InnerPage], places: list[ChildPlace]) -> list[ChildPlace]:
        written: list[ChildPlace | tuple[Placed, Placed]] = []
        at = 0
        for page in pages:
            own, at = places[at : at + len(page.children)], at + len(page.children)
            kept = self._known.get(page.ref.page)
            if kept is not None and self._kept.issuperset(own):
                written.append(kept)
                self._kept.add(kept)
            else:
                written.append((self._put(page.content), self._put(encode_inner_map(page.level, own))))
        self._close()
        return [place if isinstance(place, ChildPlace) else _child_place(*place) for place in written]

    def _flush(self) -> None:
        while self._waiting and all(pack.id for pack in self._waiting[0].packs):
            row = self._waiting.popleft()
            row.page = self._put(row.content)
            row.map = self._put(_map_of(row))
            row.content, row.placed, row.packs = b"", (), ()

    def _put(self, content: bytes) -> Placed:
        if self._open is None:
            self._open = OpenPack(f"{self._folder}/pages-{len(self._packs)}")
        pack = self._open
        place = pack.append(b"", compress(content), ("", 0))
        if pack.size >= PACK_TARGET:
            self._close()
        return place

    def abandon(self) -> None:
        """Drop what is not closed."""
        if self._open is not None:
            self._open.abandon()

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._packs.append(self._open)
            self._open = None


def _map_of(row: _Row) -> bytes:
    return encode_leaf_map([places if len(places) == 1 else settle(places) for places in row.placed])


def _child_place(page: Placed | None, map_: Placed | None) -> ChildPlace:
    if page is None or map_ is None:
        raise AssertionError("a pack is still open")
    return ChildPlace(*settle((page,)), *settle((map_,)))
