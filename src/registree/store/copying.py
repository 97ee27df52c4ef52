"""Copy a manifest with all it names from the outbox to a remote, in an order in which no name ever dangles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from registree.errors import IntegrityError, ReadOnly
from registree.execute import Progress
from registree.model.ids import id_text
from registree.model.places import PackRow
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.layout import CHUNKS, MANIFESTS, MAPS, PACKS, key
from registree.store.outbox import Outbox
from registree.store.tree_reader import TreeReader


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What one manifest still needs on a remote.

    `payload` and `pages` are packs of the outbox that are to be sent; `missing` are packs that neither side holds.
    """

    manifest: bytes
    payload: tuple[PackRow, ...]
    pages: tuple[PackRow, ...]
    missing: tuple[PackRow, ...]

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(pack.size for pack in (*self.payload, *self.pages))


def plan_copy(outbox: Outbox, remote: Store, manifest: bytes, executor: Executor) -> CopyPlan | None:
    """Find out what a manifest in the outbox still needs on a remote; None when it is there already.

    A pack of pages that is on the remote came there after all that its maps name, so those need no look.
    """
    if remote.size(key(MANIFESTS, manifest)) is not None:
        return None
    reader = TreeReader((outbox, remote), None, executor)
    tree = reader.open(manifest)
    pages = {pack.id: pack for place in tree.inner.values() for pack in (place.page.pack, place.map.pack)}
    new_leaves = []
    for leaf in tree.leaves:
        if leaf.place is None:
            new_leaves.append(leaf)
        else:
            pages |= {place.pack.id: place.pack for place in leaf.place}
            if outbox.size(key(PACKS, leaf.place.page.pack.id)) is not None:
                new_leaves.append(leaf)
    payload: dict[bytes, PackRow] = {}
    for content in reader.pages(tree, new_leaves, maps=True):
        payload |= {extent.pack.id: extent.pack for row in content.extents for extent in row}
    absent = _absent(remote, [*payload.values(), *pages.values()], executor)
    in_outbox = {pack for pack in absent if outbox.size(key(PACKS, pack)) is not None}
    return CopyPlan(
        manifest,
        tuple(pack for pack in payload.values() if pack.id in in_outbox),
        tuple(pack for pack in pages.values() if pack.id in in_outbox),
        tuple(pack for pack in (*payload.values(), *pages.values()) if pack.id in absent - in_outbox),
    )


def _absent(remote: Store, packs: Sequence[PackRow], executor: Executor) -> set[bytes]:
    sizes = executor.map(lambda pack: remote.size(key(PACKS, pack.id)), packs)
    return {pack.id for pack, size in zip(packs, sizes, strict=True) if size != pack.size}


def copy_manifest(outbox: Outbox, remote: Store, plan: CopyPlan, executor: Executor, progress: Progress) -> None:
    """Send packs of payload, their chunk lists, packs of pages, the map and the manifest, each step after the last.

    Raises
    ------
    IntegrityError
        When a pack is held by nobody, or the outbox's copy of it is damaged.
    ReadOnly
        When the remote takes no writes.
    """
    if plan.missing:
        names = tuple(id_text(pack.id) for pack in plan.missing)
        raise IntegrityError(
            f"manifest {id_text(plan.manifest)} needs {len(names)} packs that are neither in the outbox "
            f"nor in {remote.address}",
            hint="check out that data and run reg add again, or push from where it was added",
            paths=names,
        )
    if not remote.writable:
        raise ReadOnly(
            f"{remote.address} can only be read", hint="reg remote add NAME URL adds one that can be written"
        )

    def send(pack: PackRow) -> None:
        where = key(PACKS, pack.id)
        scratch = f"{outbox.root}/gathered-{pack.id.hex()}"
        try:
            remote.upload(where, outbox.pack_file(where, scratch))
        finally:
            if os.path.exists(scratch):
                os.unlink(scratch)
        progress.advance(0, pack.size)

    list(executor.map(send, plan.payload))
    lists = [key(CHUNKS, pack.id) for pack in plan.payload if outbox.size(key(CHUNKS, pack.id)) is not None]
    list(executor.map(lambda name: remote.write(name, outbox.read(name)), lists))
    list(executor.map(send, plan.pages))
    for folder in (MAPS, MANIFESTS):
        where = key(folder, plan.manifest)
        remote.write(where, outbox.read(where))


def seed_cache(outbox: Outbox, remote: Store, manifest: bytes, cache: Cache, executor: Executor) -> tuple[bytes, ...]:
    """Keep the pages and maps of a manifest that was sent, and return the packs of the outbox that it names.

    So the next `add` finds its base without asking the remote.

    Raises
    ------
    ObjectMissing
        When the outbox does not hold the manifest.
    """
    local = TreeReader((outbox,), None, executor)
    tree = TreeReader((outbox, remote), None, executor).open(manifest)
    folder = TreeReader.map_folder(remote)
    cache.put(MANIFESTS, manifest, outbox.read(key(MANIFESTS, manifest)))
    cache.put(folder, manifest, outbox.read(key(MAPS, manifest)))
    packs: dict[bytes, None] = {}
    own = []
    for leaf in tree.leaves:
        if leaf.place is None or outbox.size(key(PACKS, leaf.place.page.pack.id)) is not None:
            own.append(leaf)
        if leaf.place is not None and own and own[-1] is leaf:
            packs |= {leaf.place.page.pack.id: None, leaf.place.map.pack.id: None}
            for kind, extent in (("pages", leaf.place.page), (folder, leaf.place.map)):
                cache.put(kind, leaf.ref.page, local.read_pack(extent.pack, extent.offset, extent.length))
    for page, place in tree.inner.items():
        for kind, extent in (("pages", place.page), (folder, place.map)):
            if outbox.size(key(PACKS, extent.pack.id)) is not None:
                packs[extent.pack.id] = None
                cache.put(kind, page, local.read_pack(extent.pack, extent.offset, extent.length))
    for content in TreeReader((outbox,), None, executor).pages(tree, own, maps=True):
        packs |= {extent.pack.id: None for row in content.extents for extent in row}
    return tuple(packs)
