"""What a remote is known to have without asking for each piece of it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from contextlib import suppress

from registree.errors import FormatError, IntegrityError, ObjectMissing
from registree.model.places import PackRow
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.layout import MANIFESTS, key
from registree.store.tree_reader import Tree, TreeReader

_ASKED_FOR = 64
"""Packs that are simply asked for."""


class Published:
    """What versions name that a remote has: all of that is there, because the manifest comes last.

    Parameters
    ----------
    manifests
        Of versions that may be there.
    """

    def __init__(self, remote: Store, cache: Cache, manifests: Iterable[bytes], executor: Executor) -> None:
        self._reader = TreeReader((remote,), cache, executor)
        there = (manifest for manifest in manifests if remote.size(key(MANIFESTS, manifest)) is not None)
        self._trees = [self._reader.open(manifest) for manifest in there]
        self.pages = {page for tree in self._trees for page in (*tree.inner, *(leaf.ref.page for leaf in tree.leaves))}
        """Ids of their pages."""

    def without(self, packs: dict[bytes, PackRow], tree: Tree) -> dict[bytes, PackRow]:
        """Leave out packs that those pages name which a tree has changed.

        A change in each page names all old packs anew, and a large dataset has a hundred for each page. Where they
        are fewer than the pages that would have to be read, they all stay, to be asked for.
        """
        own = {leaf.ref.page for leaf in tree.leaves}
        for known in self._trees:
            changed = [leaf for leaf in known.leaves if leaf.ref.page not in own]
            if len(packs) <= max(_ASKED_FOR, len(changed)):
                continue
            named: set[bytes] = set()
            with suppress(ObjectMissing, IntegrityError, FormatError):  # what is lost or damaged says nothing
                now = self._reader.open(known.manifest, fresh=True)  # a map from the cache may name what is gone
                places = {leaf.ref.page: leaf for leaf in now.leaves}
                for content in self._reader.pages(now, [places[leaf.ref.page] for leaf in changed], maps=True):
                    named.update(extent.pack.id for row in content.extents for extent in row)
            packs = {pack: row for pack, row in packs.items() if pack not in named}
        return packs
