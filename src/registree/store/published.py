"""What a remote is known to have without asking for each piece of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from contextlib import suppress

from registree.errors import FormatError, IntegrityError
from registree.model.places import ChildPlace, PackRow
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.layout import MANIFESTS, key
from registree.store.tree_reader import Tree, TreeReader

ASKED_FOR = 64
"""Packs of older versions that are simply asked for, or as many as pages changed if those are more."""


class Published:
    """What versions name that a remote has: all of that is there, because the manifest comes last.

    Parameters
    ----------
    manifests
        Of versions that may be there.
    """

    def __init__(self, remote: Store, cache: Cache, manifests: Iterable[bytes], executor: Executor) -> None:
        self._reader = TreeReader((remote,), cache, executor)
        self._trees: list[Tree] = []
        for manifest in manifests:
            if remote.size(key(MANIFESTS, manifest)) is not None:
                with suppress(IntegrityError, FormatError):  # what is lost or damaged says nothing
                    self._trees.append(self._reader.open(manifest, fresh=True))  # a cached map may name what is gone
        self.places = {place for tree in self._trees for place in _places(tree)}
        """Where their pages and maps lie. (The same page elsewhere has another map, which may name other packs.)"""

    def without(self, packs: dict[bytes, PackRow], tree: Tree) -> dict[bytes, PackRow]:
        """Leave out packs that those pages name which a tree has changed.

        A change in each page names all old packs anew, and a large dataset has a hundred for each page. Where they
        are fewer than the pages that would have to be read, they all stay, to be asked for.
        """
        own = set(_places(tree))
        for known in self._trees:
            changed = [leaf for leaf in known.leaves if leaf.place not in own]
            if len(packs) <= max(ASKED_FOR, len(changed)):
                continue
            named: set[bytes] = set()
            with suppress(IntegrityError, FormatError):  # as above
                for content in self._reader.pages(known, changed, maps=True):
                    named.update(extent.pack.id for row in content.extents for extent in row)
            packs = {pack: row for pack, row in packs.items() if pack not in named}
        return packs


def _places(tree: Tree) -> Iterator[ChildPlace]:
    yield from tree.inner.values()
    yield from filter(None, (leaf.place for leaf in tree.leaves))  # a page that is the manifest itself has none
