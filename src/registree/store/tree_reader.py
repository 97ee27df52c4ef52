"""Read manifests and maps from wherever they are: outbox, cache, remotes, in that order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import NamedTuple, TypeVar

import msgspec

from registree.errors import AuthError, FormatError, IntegrityError, ObjectMissing, RegError, StoreError
from registree.model.ids import hash_bytes, id_text
from registree.model.manifest import Entry, Page, PageRef, Totals, decode_page, totals_of
from registree.model.places import ChildPlace, Extent, Extents, decode_inner_map, decode_leaf_map
from registree.model.ranges import plan_ranges
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.layout import MANIFESTS, MAPS, PACKS, decompress, key
from registree.store.pack_reader import PackReader

_Result = TypeVar("_Result")
BATCH = 64
"""Leaf pages read together: some 4 MB."""


class Leaf(NamedTuple):
    """A leaf page of a tree and where it and its map lie (None: they are the manifest's own objects)."""

    ref: PageRef
    place: ChildPlace | None


class LeafContent(NamedTuple):
    """A leaf page that was read; `extents` has a row for each entry, and is empty when maps were not asked for."""

    leaf: Leaf
    entries: list[Entry]
    extents: list[Extents]


class Tree(msgspec.Struct):
    """A manifest whose upper pages were read: its leaves in order.

    `inner` says where pages of pages lie, for writing the next version; `fresh` that no cached map was used.
    """

    manifest: bytes
    root: Page
    leaves: list[Leaf]
    inner: dict[bytes, ChildPlace]
    store: Store
    fresh: bool
    root_map: bytes = b""
    """The map of the topmost page as it was read and checked, not compressed; empty before that."""
    moved: dict[bytes, Leaf] = {}
    """Where its leaves lie, by page, since all places were taken anew."""

    @property
    def totals(self) -> Totals:
        """Counts over the whole dataset."""
        return totals_of(self.root)


class TreeReader(PackReader):
    """Reads trees from an ordered list of stores.

    Parameters
    ----------
    stores
        Where to look, first one first.
    cache
        Keeps what was read of pages and maps; None for none.
    executor
        Where several reads run at once.
    """

    def __init__(self, stores: Sequence[Store], cache: Cache | None, executor: Executor) -> None:
        super().__init__(stores)
        self._cache = cache
        self._executor = executor

    def open(self, manifest: bytes, *, fresh: bool = False) -> Tree:
        """Read a manifest down to the list of its leaf pages.

        Raises
        ------
        ObjectMissing
            When no store has it.
        FormatError, IntegrityError
            When a store's bytes are not what their name says.
        """
        root, store = self._root(manifest)
        if root.level == 0:
            totals = totals_of(root)
            last = root.entries[-1].path if root.entries else ""
            leaf = Leaf(PageRef(last, manifest, *totals), None)
            return Tree(manifest, root, [leaf], {}, store, fresh)
        count = len(root.children)
        decode_root = partial(_decode_inner, level=root.level, count=count)
        places, root_map = self._root_map(manifest, store, fresh, decode_root)
        inner: dict[bytes, ChildPlace] = {}
        level, rows = root.level, list(zip(root.children, places, strict=True))
        while level > 1:
            level -= 1
            blobs = self._read_many(rows, store, maps=True, fresh=fresh)
            below: list[tuple[PageRef, ChildPlace]] = []
            for ref, place in rows:
                inner[ref.page] = place
                page = self._page(ref.page, place.page, blobs[ref.page, False])
                _check_row(ref, page, level)
                decode = partial(_decode_inner, level=level, count=len(page.children))
                known = blobs[ref.page, True]
                below += zip(page.children, self._map(ref.page, place.map, store, known, decode), strict=True)
            rows = below
        return Tree(manifest, root, [Leaf(ref, place) for ref, place in rows], inner, store, fresh, root_map)

    def pages(self, tree: Tree, leaves: Sequence[Leaf], *, maps: bool) -> Iterator[LeafContent]:
        """Read leaf pages, and their maps when asked, several in one request.

        A map that names packs which are gone is read again, once, from the store itself: it may have been rewritten.
        """
        for start in range(0, len(leaves), BATCH):
            batch = leaves[start : start + BATCH]
            given, fresh = 0, tree.fresh
            try:
                for content in self._read_batch(tree, batch, maps):
                    yield content
                    given += 1
            except ObjectMissing:
                if fresh:
                    raise
                if not tree.fresh:  # else another reader has just done so
                    self._open_again(tree)
                yield from self._read_batch(tree, batch[given:], maps)

    def _open_again(self, tree: Tree) -> None:
        """Take all places anew, from the store itself."""
        again = self.open(tree.manifest, fresh=True)
        tree.leaves, tree.inner, tree.store, tree.root_map = again.leaves, again.inner, again.store, again.root_map
        tree.moved = {leaf.ref.page: leaf for leaf in again.leaves}
        tree.fresh = True

    def entries(self, tree: Tree) -> Iterator[Entry]:
        """Stream all entries in order."""
        for content in self.pages(tree, tree.leaves, maps=False):
            yield from content.entries

    def _read_batch(self, tree: Tree, batch: Sequence[Leaf], maps: bool) -> Iterator[LeafContent]:
        """Read leaf pages together, wherever they lie by now; each is decoded when it is asked for."""
        batch = [tree.moved.get(leaf.ref.page, leaf) for leaf in batch] if tree.moved else batch
        rows = [(leaf.ref, leaf.place) for leaf in batch if leaf.place is not None]
        blobs = self._read_many(rows, tree.store, maps=maps, fresh=tree.fresh)
        for leaf in batch:
            yield self._leaf_content(tree, leaf, blobs, maps)

    def _read_many(
        self, rows: Sequence[tuple[PageRef, ChildPlace]], store: Store, *, maps: bool, fresh: bool
    ) -> dict[tuple[bytes, bool], bytes]:
        """Read pages, and their maps (True in the key) when asked: from the cache, and the others in few requests."""
        wanted: dict[tuple[bytes, bool], Extent] = {}
        blobs: dict[tuple[bytes, bool], bytes] = {}
        for ref, place in rows:
            for is_map, extent in ((False, place.page), (True, place.map))[: 1 + maps]:
                stale = is_map and fresh
                cached = None if stale else self._cached(ref.page, is_map=is_map, tree_store=store)
                if cached is not None:
                    blobs[ref.page, is_map] = cached
                else:
                    wanted[ref.page, is_map] = extent
        ranges = plan_ranges(wanted.items())
        for pack in dict.fromkeys(planned.pack for planned in ranges):
            self.pack_store(pack)  # or every read would ask by itself who has it
        reads = self._executor.map(lambda r: self.read_pack(r.pack, r.offset, r.length), ranges)
        for planned, content in zip(ranges, reads, strict=True):
            for member in planned.members:
                blobs[member.key] = content[member.start : member.start + member.length]
        return blobs

    def _leaf_content(self, tree: Tree, leaf: Leaf, blobs: dict[tuple[bytes, bool], bytes], maps: bool) -> LeafContent:
        page = (
            self._page(leaf.ref.page, leaf.place.page, blobs[leaf.ref.page, False])
            if leaf.place is not None
            else tree.root
        )
        _check_row(leaf.ref, page, 0)
        if not maps:
            return LeafContent(leaf, page.entries, [])

        def decode(content: bytes) -> list[Extents]:
            return decode_leaf_map(content, page.entries)

        if leaf.place is not None:
            blob = blobs[leaf.ref.page, True]
            return LeafContent(leaf, page.entries, self._map(leaf.ref.page, leaf.place.map, tree.store, blob, decode))
        if not any(entry.is_file and entry.size for entry in page.entries):
            return LeafContent(leaf, page.entries, [()] * len(page.entries))
        extents, tree.root_map = self._root_map(tree.manifest, tree.store, tree.fresh, decode)
        return LeafContent(leaf, page.entries, extents)

    def without(self, store: Store) -> TreeReader | None:
        """Return a reader over the other stores; None when there is no other."""
        others = [other for other in self.stores if other is not store]
        return TreeReader(others, self._cache, self._executor) if others else None

    def _page(self, page: bytes, extent: Extent, blob: bytes | None) -> Page:
        """Decode a page, from `blob` when that is right; else it is read again from every store."""
        if blob is not None:
            with suppress(FormatError, IntegrityError):
                return self._kept_page(page, extent, blob)
        blob = self.read_checked(extent, lambda content: hashes_to(content, page))
        if blob is None:
            blob = self.read_pack(*extent)  # says what is missing
            raise IntegrityError(
                f"page {id_text(page)} in {key(PACKS, extent.pack.id)} of {self.pack_store(extent.pack).address} "
                "is damaged",
                hint="reg verify --remote --deep says what else is",
            )
        return self._kept_page(page, extent, blob)

    def _kept_page(self, page: bytes, extent: Extent, blob: bytes) -> Page:
        found = decode_page(decompress(blob, "a page"), page)
        self._keep("pages", page, extent, blob)
        return found

    def _map(
        self, page: bytes, extent: Extent, store: Store, blob: bytes | None, decode: Callable[[bytes], _Result]
    ) -> _Result:
        """Decode a map, from `blob` when that is right; else it is read again. What cannot be decoded is not kept."""
        for found in (blob, None):
            content = found if found is not None else self.read_pack(*extent)
            try:
                decoded = decode(decompress(content, "a map"))
            except (FormatError, IntegrityError) as error:
                if found is None:
                    where = f"the map of page {id_text(page)} in {key(PACKS, extent.pack.id)}"
                    raise _damaged(where, self.pack_store(extent.pack), error) from error
                continue
            self._keep(self.map_folder(store), page, extent, content)
            return decoded
        raise AssertionError("the second round returns or raises")

    def _keep(self, folder: str, page: bytes, extent: Extent, blob: bytes) -> None:
        holder = self._holder.get(extent.pack.id)
        if self._cache is not None and (holder is None or not holder.is_outbox):
            self._cache.put(folder, page, blob)

    def _root(self, manifest: bytes) -> tuple[Page, Store]:
        """Read the topmost page of a manifest, and say which store's map goes with it."""
        what = f"manifest {id_text(manifest)}"
        cached = self._cache.get(MANIFESTS, manifest) if self._cache is not None else None
        if cached is not None:
            with suppress(FormatError, IntegrityError):
                root = decode_page(decompress(cached, what), manifest)
                store = self._store_of_map(manifest)
                if store is not None:
                    return root, store
        failed: RegError | None = None
        for store in self.stores:
            try:
                blob = store.read(key(MANIFESTS, manifest))
                store.check_format()
            except ObjectMissing:
                continue
            except (StoreError, AuthError, IntegrityError) as error:
                failed = failed or error
                continue
            try:
                root = decode_page(decompress(blob, what), manifest)
            except IntegrityError as error:
                failed = failed or _damaged(key(MANIFESTS, manifest), store, error)
                continue
            if self._cache is not None and not store.is_outbox:
                self._cache.put(MANIFESTS, manifest, blob)
            return root, store
        if cached is not None and self.stores:
            return decode_page(decompress(cached, what), manifest), self.stores[-1]
        if failed is not None:
            raise failed
        raise ObjectMissing(
            key(MANIFESTS, manifest),
            " or ".join(store.address for store in self.stores) or "any store known here",
            hint="whoever added it has to run: reg push",
        )

    def _store_of_map(self, manifest: bytes) -> Store | None:
        """Return the first store whose map of a manifest is at hand: an outbox, or one whose map is in the cache."""
        for store in self.stores:
            if store.is_outbox:
                if store.size(key(MANIFESTS, manifest)) is not None:
                    return store
            elif self._cache is not None and self._cache.get(self.map_folder(store), manifest) is not None:
                return store
        return None

    def _root_map(
        self, manifest: bytes, store: Store, fresh: bool, decode: Callable[[bytes], _Result]
    ) -> tuple[_Result, bytes]:
        """Decode the map of a topmost page: the cache's, the store's own, or one of another store.

        The map is given as it was decoded from, too: not compressed.
        """
        folder = self.map_folder(store)
        cached = self._cache.get(folder, manifest) if self._cache is not None and not fresh else None
        if cached is not None:
            with suppress(FormatError, IntegrityError):
                content = decompress(cached, "a map")
                return decode(content), content
        failed: RegError | None = None
        for other in (store, *(other for other in self.stores if other is not store)):
            try:
                blob = other.read(key(MAPS, manifest))
                content = decompress(blob, "a map")
                decoded = decode(content)
            except (StoreError, AuthError, ObjectMissing) as error:
                failed = failed or error
            except (FormatError, IntegrityError) as error:
                failed = failed or _damaged(key(MAPS, manifest), other, error)
            else:
                if self._cache is not None and not other.is_outbox:
                    self._cache.put(self.map_folder(other), manifest, blob)
                return decoded, content
        raise failed or ObjectMissing(key(MAPS, manifest), store.address)

    def _cached(self, page: bytes, *, is_map: bool, tree_store: Store) -> bytes | None:
        if self._cache is None:
            return None
        return self._cache.get(self.map_folder(tree_store) if is_map else "pages", page)

    @staticmethod
    def map_folder(store: Store) -> str:
        """Return the cache's folder for the maps of one store: each has maps of its own."""
        return f"maps/{hash_bytes(store.address.encode()).hex()[:16]}"


def _check_row(ref: PageRef, page: Page, level: int) -> None:
    last = page.children[-1].last if page.level else page.entries[-1].path if page.entries else ""
    if page.level != level or totals_of(page) != (ref.entries, ref.files, ref.size) or last != ref.last:
        raise FormatError(f"page {id_text(ref.page)} is not what its parent says of it")


def _decode_inner(content: bytes, *, level: int, count: int) -> list[ChildPlace]:
    return decode_inner_map(content, level, count)


def _damaged(what: str, store: Store, error: RegError) -> RegError:
    """Say that an object of a store is damaged; one of a newer format is not, and says so itself."""
    if isinstance(error, FormatError) and error.newer:
        return error
    return IntegrityError(
        f"{what} of {store.address} is damaged ({error.message})",
        hint="reg verify --remote --deep says what else is",
    )


def hashes_to(blob: bytes, page: bytes) -> bool:
    """Tell whether a compressed page is the one of an id."""
    try:
        return hash_bytes(decompress(blob, "a page")) == page
    except (FormatError, IntegrityError):
        return False


def verify_content(content: bytes | memoryview, expected: bytes, what: str, place: str) -> None:
    """Raise `IntegrityError` when bytes are not those of a content id."""
    found = hash_bytes(content)
    if found != expected:
        raise IntegrityError(
            f"{what} from {place} is damaged: its bytes hash to {id_text(found)}, not {id_text(expected)}",
            hint="reg verify --remote --deep says what else is",
        )
