"""The version of a dataset that the next one follows: what it holds, and which of that may be named again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from registree.errors import NotFound, ObjectMissing, StoreError
from registree.model.ids import ContentId
from registree.model.manifest import Entry
from registree.model.places import ChildPlace, Extents
from registree.store.held_packs import HeldPacks
from registree.store.layout import MANIFESTS, key
from registree.store.tree_reader import Tree, TreeReader
from registree.workspace import Workspace

Row: TypeAlias = tuple[Entry, Extents]
"""An entry, and where its bytes lie."""


class BaseVersion:
    """The last version of a dataset, as the stores have it."""

    def __init__(self, workspace: Workspace, name: str, tree: Tree, reader: TreeReader, held: HeldPacks) -> None:
        self.tree = tree
        self._workspace = workspace
        self._name = name
        self._reader = reader
        self._held = held
        self._unsent = workspace.outbox.size(key(MANIFESTS, tree.manifest)) is not None

    @classmethod
    def open(
        cls, workspace: Workspace, name: str, manifest: ContentId | None, reader: TreeReader, held: HeldPacks
    ) -> BaseVersion | None:
        """Open it; None when there is none, or it cannot be read here, which is said."""
        if manifest is None:
            return None
        try:
            return cls(workspace, name, reader.open(manifest), reader, held)
        except (ObjectMissing, StoreError, NotFound) as error:
            workspace.machine.warn(
                f"the last version of {name} cannot be read here ({error.message}): all of it is stored again"
            )
            return None

    def may_name(self, places: Extents | ChildPlace) -> bool:
        """Tell whether bytes of it may be named again: not when their pack was lost."""
        return self._held.usable(places, unsent=self._unsent)

    def pages(self) -> dict[bytes, ChildPlace]:
        """Return where its pages lie that may be named again, by page id."""
        leaves = {leaf.ref.page: leaf.place for leaf in self.tree.leaves if leaf.place}
        places = {**leaves, **self.tree.inner}
        return {page: place for page, place in places.items() if self.may_name(place)}

    def rows(self) -> Iterator[Row]:
        """Stream its entries with their places, as far as they can be read."""
        try:
            for content in self._reader.pages(self.tree, self.tree.leaves, maps=True):
                yield from zip(content.entries, content.extents, strict=True)
        except ObjectMissing as error:
            self._workspace.machine.warn(f"part of the last version of {self._name} is lost ({error.message})")

    def is_held(self) -> bool:
        """Tell whether all of it may be named again; what was pushed is taken to be there."""
        if not self._unsent:
            return True
        leaves = self.tree.leaves
        try:
            contents = self._reader.pages(self.tree, leaves, maps=True)
            return all(leaf.place is None or self.may_name(leaf.place) for leaf in leaves) and all(
                self.may_name(extents) for content in contents for extents in content.extents
            )
        except ObjectMissing:
            return False
