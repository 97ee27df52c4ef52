"""Copy a manifest with all it names from the outbox to a remote, in an order in which no name ever dangles."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from registree.errors import AuthError, IntegrityError, ObjectMissing, RegError, StoreError
from registree.execute import Progress, run_all
from registree.model.ids import id_text
from registree.model.places import ChildPlace, PackRow
from registree.store.base import Store
from registree.store.cache import Cache
from registree.store.files import hash_file
from registree.store.layout import CHUNKS, MANIFESTS, MAPS, PACKS, compress, key
from registree.store.outbox import Outbox
from registree.store.published import Published
from registree.store.tree_reader import Leaf, Tree, TreeReader


class CopyPlan(msgspec.Struct, frozen=True):
    """What one manifest still needs on a remote.

    `payload` and `pages` are packs that are to be sent, `lists` packs whose chunk lists may be, `missing` packs that
    nobody holds. `holder` is the store that has the manifest, and `root_map` the map by which this was planned, as it
    is to be written (empty when no file needs one); `files` are those of the whole version.
    """

    manifest: bytes
    holder: Store
    root_map: bytes
    lists: tuple[PackRow, ...]
    payload: tuple[PackRow, ...]
    pages: tuple[PackRow, ...]
    missing: tuple[PackRow, ...]
    files: int

    def without(self, done: Collection[bytes]) -> CopyPlan:
        """Return it without packs that were sent since."""
        return replace(
            self,
            payload=tuple(pack for pack in self.payload if pack.id not in done),
            pages=tuple(pack for pack in self.pages if pack.id not in done),
        )


def plan_copy(
    sources: Sequence[Store], remote: Store, manifest: bytes, executor: Executor, published: Published | None = None
) -> CopyPlan | None:
    """Find out what a manifest still needs on a remote; None when all of it is there.

    Parameters
    ----------
    sources
        Where it may be read from: the outbox, then other remotes.
    published
        What the remote has for certain. That a pack of pages is there says nothing of what its maps name: it may have
        come with another version.
    """
    if remote.size(key(MANIFESTS, manifest)) is not None and (
        sources[0].size(key(MANIFESTS, manifest)) is None or _is_whole(remote, manifest, executor)
    ):
        return None
    return plan_missing(sources, remote, manifest, executor, published)


def plan_missing(
    sources: Sequence[Store],
    remote: Store,
    manifest: bytes,
    executor: Executor,
    published: Published | None = None,
    again: Collection[bytes] = (),
) -> CopyPlan:
    """Ask a remote for each pack that a manifest needs.

    Parameters
    ----------
    again
        Packs to be sent although the remote has them: its own are damaged.
    """
    reader = TreeReader((*sources, remote), None, executor)
    tree = reader.open(manifest)
    trusted = published.places if published is not None else set()
    new = [leaf for leaf in tree.leaves if leaf.place not in trusted]
    pages, payload = packs_of(reader, tree, new, trusted)
    if published is not None:
        payload = published.without(payload, tree)
    every = (*payload.values(), *pages.values())
    absent = _absent(remote, every, executor) | (set(again) & {*pages, *payload})
    held = _held(sources, [pack for pack in every if pack.id in absent], executor)
    # a push may have ended between packs that are there and their lists
    listed = held | _held(sources[:1], [pack for pack in payload.values() if pack.id not in absent], executor)
    return CopyPlan(
        manifest,
        tree.store,
        compress(tree.root_map) if tree.root_map else b"",
        tuple(pack for pack in payload.values() if pack.id in listed),
        tuple(pack for pack in payload.values() if pack.id in held),
        tuple(pack for pack in pages.values() if pack.id in held),
        tuple(pack for pack in every if pack.id in absent - held),
        tree.totals.files,
    )


def packs_of(
    reader: TreeReader, tree: Tree, leaves: Sequence[Leaf], trusted: Collection[ChildPlace]
) -> tuple[dict[bytes, PackRow], dict[bytes, PackRow]]:
    """Return the packs of pages and of payload that some leaves of a tree need, with its upper pages."""
    places = [place for place in tree.inner.values() if place not in trusted]
    places += [leaf.place for leaf in leaves if leaf.place is not None]
    pages = {extent.pack.id: extent.pack for place in places for extent in place}
    payload: dict[bytes, PackRow] = {}
    for content in reader.pages(tree, leaves, maps=True):
        payload |= {extent.pack.id: extent.pack for row in content.extents for extent in row}
    return pages, payload


def _is_whole(remote: Store, manifest: bytes, executor: Executor) -> bool:
    try:
        reader = TreeReader((remote,), None, executor)
        tree = reader.open(manifest)
        pages, payload = packs_of(reader, tree, tree.leaves, ())
    except IntegrityError:
        return False
    return not _absent(remote, [*pages.values(), *payload.values()], executor)


def _absent(remote: Store, packs: Sequence[PackRow], executor: Executor) -> set[bytes]:
    sizes = executor.map(lambda pack: remote.size(key(PACKS, pack.id)), packs)
    return {pack.id for pack, size in zip(packs, sizes, strict=True) if size != pack.size}


def _held(sources: Sequence[Store], packs: Sequence[PackRow], executor: Executor) -> set[bytes]:
    holders = executor.map(lambda pack: next(_holders(sources, key(PACKS, pack.id)), None), packs)
    return {pack.id for pack, holder in zip(packs, holders, strict=True) if holder is not None}


def _holders(sources: Sequence[Store], where: str) -> Iterator[Store]:
    """Give the stores that have an object; one that cannot be asked has nothing."""
    for store in sources:
        with suppress(StoreError, AuthError):
            if store.size(where) is not None:
                yield store


def refuse_missing(plan: CopyPlan, remote: Store, name: str) -> None:
    """Refuse a plan that needs packs which nobody holds.

    Raises
    ------
    IntegrityError
        Naming the dataset, the version and the first of them.
    """
    if plan.missing:
        names = tuple(id_text(pack.id) for pack in plan.missing)
        raise IntegrityError(
            f"{name}: version {id_text(plan.manifest)} needs {len(names)} packs that are neither in the outbox "
            f"nor in {remote.address}, the first is {names[0][:15]}…",
            hint=f"run reg add {name} again, or push from where it was added; "
            "reg push --repair looks for the bytes in every file that is here",
            paths=names,
        )


def copy_manifest(
    sources: Sequence[Store],
    remote: Store,
    plan: CopyPlan,
    executor: Executor,
    progress: Progress,
    *,
    scratch: str,
    name: str,
    share: bool = False,
) -> None:
    """Send packs of payload, their chunk lists, packs of pages, the map and the manifest, each step after the last.

    Parameters
    ----------
    scratch
        A folder for packs that are gathered before they are sent.
    name
        The dataset's name, for errors.
    share
        Whether a pack of the outbox may become the remote's own, where both lie on one disk: when the outbox drops it.

    Raises
    ------
    IntegrityError
        When a pack is held by nobody, or the copy of it is damaged.
    """
    refuse_missing(plan, remote, name)

    def send(pack: PackRow) -> None:
        path = os.path.join(scratch, f"gathered-{pack.id.hex()}")
        try:
            file = pack_file(sources, pack, path)
            if share and file != path and remote.link(key(PACKS, pack.id), file):
                progress.advance(0, pack.size)
            else:
                remote.upload(key(PACKS, pack.id), file, lambda size: progress.advance(0, size))
        finally:
            if os.path.exists(path):
                os.unlink(path)

    def send_list(pack: PackRow) -> None:
        where = key(CHUNKS, pack.id)
        holder = next(_holders(sources, where), None)
        if holder is not None and (pack.id in sent or remote.size(where) is None):
            remote.write(where, holder.read(where))

    sent = {pack.id for pack in plan.payload}
    run_all(executor, send, plan.payload)
    run_all(executor, send_list, plan.lists)
    run_all(executor, send, plan.pages)
    where = key(MAPS, plan.manifest)
    remote.write(where, plan.root_map or plan.holder.read(where))
    where = key(MANIFESTS, plan.manifest)
    remote.write(where, plan.holder.read(where))
    progress.advance(plan.files, 0)


def pack_file(sources: Sequence[Store], pack: PackRow, scratch: str) -> str:
    """Return a file with a pack's verified bytes: the outbox's own, or gathered at `scratch`.

    Raises
    ------
    IntegrityError, StoreError, AuthError
        What the first who has it said, when nobody gives it whole.
    """
    where = key(PACKS, pack.id)
    problem: RegError = ObjectMissing(where, "any store known here")
    for number, holder in enumerate(_holders(sources, where)):
        try:
            return _file_of(holder, pack, scratch)
        except (IntegrityError, StoreError, AuthError) as error:
            problem = problem if number else error
    raise problem


def _file_of(holder: Store, pack: PackRow, scratch: str) -> str:
    where = key(PACKS, pack.id)
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


def confirmed_packs(outbox: Outbox, remote: Store, manifest: bytes, executor: Executor) -> list[PackRow] | None:
    """Return the packs of the outbox that a manifest names and that the remote holds too, of the same size.

    None when the remote does not have all that it needs: then the outbox must keep everything.
    """
    reader = TreeReader((outbox, remote), None, executor)
    tree = reader.open(manifest)
    local = [
        leaf
        for leaf in tree.leaves
        if leaf.place is None or outbox.size(key(PACKS, leaf.place.page.pack.id)) is not None
    ]
    pages, payload = packs_of(reader, tree, local, ())
    rows = [row for row in {**pages, **payload}.values() if outbox.size(key(PACKS, row.id)) is not None]
    absent = _absent(remote, rows, executor)
    if absent and not _is_whole(remote, manifest, executor):  # else it came from elsewhere, in other packs
        return None
    return [row for row in rows if row.id not in absent]


def seed_cache(remote: Store, manifest: bytes, outbox: Outbox, cache: Cache, executor: Executor) -> None:
    """Keep the pages and maps of a manifest that was just sent, so that the next `add` need not ask the remote."""
    tree = TreeReader((outbox, remote), None, executor).open(manifest)
    folder = TreeReader.map_folder(remote)
    cache.put(MANIFESTS, manifest, outbox.read(key(MANIFESTS, manifest)))
    cache.put(folder, manifest, outbox.read(key(MAPS, manifest)))
    places = [(leaf.ref.page, leaf.place) for leaf in tree.leaves if leaf.place is not None]
    for page, place in (*places, *tree.inner.items()):
        for kind, extent in (("pages", place.page), (folder, place.map)):
            where = key(PACKS, extent.pack.id)
            if outbox.size(where) is not None:
                cache.put(kind, page, outbox.read(where, extent.offset, extent.length))
