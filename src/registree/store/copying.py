"""Copy a manifest with all it names from the outbox to a remote, in an order in which no name ever dangles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from registree.errors import IntegrityError, ObjectMissing
from registree.execute import Progress
from registree.model.ids import id_text
from registree.model.places import PackRow
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.files import hash_file
from registree.store.layout import CHUNKS, MANIFESTS, MAPS, PACKS, key
from registree.store.outbox import Outbox
from registree.store.tree_reader import TreeReader


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """What one manifest still needs on a remote.

    `payload` and `pages` are packs that are to be sent, `lists` packs whose chunk lists may be, `missing` packs that
    nobody holds. `holder` is the store that has the manifest and the map.
    """

    manifest: bytes
    holder: Store
    lists: tuple[PackRow, ...]
    payload: tuple[PackRow, ...]
    pages: tuple[PackRow, ...]
    missing: tuple[PackRow, ...]

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(pack.size for pack in (*self.payload, *self.pages))


def plan_copy(sources: Sequence[Store], remote: Store, manifest: bytes, executor: Executor) -> CopyPlan | None:
    """Find out what a manifest still needs on a remote; None when it is there already.

    A pack of pages that is on the remote came there after all that its maps name, so those need no look.

    Parameters
    ----------
    sources
        Where it may be read from: the outbox, then other remotes.
    """
    if remote.size(key(MANIFESTS, manifest)) is not None:
        return None
    reader = TreeReader((*sources, remote), None, executor)
    tree = reader.open(manifest)
    pages = {pack.id: pack for place in tree.inner.values() for pack in (place.page.pack, place.map.pack)}
    pages |= {place.pack.id: place.pack for leaf in tree.leaves for place in leaf.place or ()}
    absent_pages = _absent(remote, list(pages.values()), executor)
    new = [leaf for leaf in tree.leaves if leaf.place is None or leaf.place.page.pack.id in absent_pages]
    payload: dict[bytes, PackRow] = {}
    for content in reader.pages(tree, new, maps=True):
        payload |= {extent.pack.id: extent.pack for row in content.extents for extent in row}
    absent = absent_pages | _absent(remote, list(payload.values()), executor)
    held = {pack.id for pack in (*payload.values(), *pages.values()) if pack.id in absent and _find(sources, pack)}
    return CopyPlan(
        manifest,
        tree.store,
        tuple(payload.values()),
        tuple(pack for pack in payload.values() if pack.id in held),
        tuple(pack for pack in pages.values() if pack.id in held),
        tuple(pack for pack in (*payload.values(), *pages.values()) if pack.id in absent - held),
    )


def _absent(remote: Store, packs: Sequence[PackRow], executor: Executor) -> set[bytes]:
    sizes = executor.map(lambda pack: remote.size(key(PACKS, pack.id)), packs)
    return {pack.id for pack, size in zip(packs, sizes, strict=True) if size != pack.size}


def _find(sources: Sequence[Store], pack: PackRow) -> Store | None:
    return next((store for store in sources if store.size(key(PACKS, pack.id)) is not None), None)


def copy_manifest(
    sources: Sequence[Store],
    remote: Store,
    plan: CopyPlan,
    executor: Executor,
    progress: Progress,
    *,
    scratch: str,
    name: str,
) -> None:
    """Send packs of payload, their chunk lists, packs of pages, the map and the manifest, each step after the last.

    Parameters
    ----------
    scratch
        A folder for packs that are gathered before they are sent.
    name
        The dataset's name, for errors.

    Raises
    ------
    IntegrityError
        When a pack is held by nobody, or the copy of it is damaged.
    """
    if plan.missing:
        names = tuple(id_text(pack.id) for pack in plan.missing)
        raise IntegrityError(
            f"{name}: version {id_text(plan.manifest)} needs {len(names)} packs that are neither in the outbox "
            f"nor in {remote.address}, the first is {names[0][:15]}…",
            hint=f"check out that version and run reg add {name} again, or push from where it was added",
            paths=names,
        )

    def send(pack: PackRow) -> None:
        path = os.path.join(scratch, f"gathered-{pack.id.hex()}")
        try:
            remote.upload(key(PACKS, pack.id), _pack_file(sources, pack, path))
        finally:
            if os.path.exists(path):
                os.unlink(path)
        progress.advance(0, pack.size)

    def send_list(pack: PackRow) -> None:
        where = key(CHUNKS, pack.id)
        holder = next((store for store in sources if store.size(where) is not None), None)
        if holder is not None and remote.size(where) is None:
            remote.write(where, holder.read(where))

    list(executor.map(send, plan.payload))
    list(executor.map(send_list, plan.lists))
    list(executor.map(send, plan.pages))
    for folder in (MAPS, MANIFESTS):
        where = key(folder, plan.manifest)
        remote.write(where, plan.holder.read(where))


def _pack_file(sources: Sequence[Store], pack: PackRow, scratch: str) -> str:
    """Return a file with a pack's verified bytes: the outbox's own, or gathered at `scratch`."""
    holder = _find(sources, pack)
    where = key(PACKS, pack.id)
    if holder is None:
        raise ObjectMissing(where, "any store known here")
    if isinstance(holder, Outbox):
        return holder.pack_file(where, scratch)
    descriptor = os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        holder.copy_range(where, 0, pack.size, descriptor, 0)
    finally:
        os.close(descriptor)
    if hash_file(scratch) != pack.id:
        raise IntegrityError(
            f"{where} in {holder.address} is damaged and was not copied", hint="reg verify --remote --deep"
        )
    return scratch


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
