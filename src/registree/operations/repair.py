"""Send again what a remote lost, from wherever it still is: outbox, other remotes, this machine's files and cache."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import msgspec

from registree.errors import AuthError, IntegrityError, RegError, StoreError
from registree.model.ids import ContentId
from registree.model.places import Extent, PackRow
from registree.operations.verify import remote_state
from registree.source import Machine
from registree.store.base import Store, write_at
from registree.store.copying import CopyPlan, copy_manifest, pack_file, plan_missing, refuse_missing
from registree.store.directory import DirectoryStore
from registree.store.files import hash_file
from registree.store.layout import MANIFESTS, MAPS, PACKS, key
from registree.store.open_pack import read_sources
from registree.store.tree_reader import Tree, TreeReader
from registree.workspace import Workspace


class RepairResult(msgspec.Struct, frozen=True):
    """What was sent again (packs, and bytes of them), and which versions nobody known here has whole any more."""

    remote: str
    versions: int
    packs: int
    size: int
    lost: tuple[str, ...]
    dry_run: bool


class _Piece(NamedTuple):
    """Where bytes of a pack may be found: in a file of that content, from a position on, or here."""

    offset: int
    length: int
    content: bytes
    size: int
    position: int
    blob: bytes | None


class _Lost(msgspec.Struct):
    """Packs that no store holds, and what is known of their bytes."""

    rows: dict[bytes, PackRow] = msgspec.field(default_factory=dict)
    pieces: defaultdict[bytes, set[_Piece]] = msgspec.field(default_factory=lambda: defaultdict(set))

    def note(self, extent: Extent, piece: _Piece) -> None:
        self.rows[extent.pack.id] = extent.pack
        self.pieces[extent.pack.id].add(piece)


def repair(
    workspace: Workspace,
    store: Store,
    others: Sequence[Store],
    wanted: Mapping[ContentId, str],
    *,
    deep: bool,
    dry_run: bool,
) -> RepairResult:
    """Send again what a remote lacks of some manifests, in the order of a push.

    Parameters
    ----------
    others
        Stores that may hold it: the outbox, then other remotes.
    deep
        Read every pack of the remote, to find those that are damaged too.
    """
    machine = workspace.machine
    state = remote_state(store, wanted, machine, deep=deep)
    manifests = state.bad_manifests()
    bad = [manifest for manifest in wanted if manifest in manifests]
    scratch = workspace.outbox.begin()
    rebuilt = DirectoryStore(os.path.join(scratch, "rebuilt"))
    packs: dict[bytes, int] = {}
    lost = []
    sources = (*others, rebuilt)

    def mend(manifest: ContentId) -> CopyPlan:
        name, again = wanted[manifest], state.bad_packs.keys() - packs.keys()
        plan = plan_missing(sources, store, manifest, machine.executor, again=again)
        refuse_missing(plan, store, name)
        send = partial(
            copy_manifest, sources, store, plan, machine.executor, machine.progress, scratch=scratch, name=name
        )
        if not dry_run:
            store.ensure_marker()
            try:
                send()
            except IntegrityError:  # a copy that has the right size is damaged
                _rebuild(workspace, store, others, rebuilt, [manifest], state.bad_packs, read=True)
                send()
        return plan

    try:
        if wanted and not bad and not dry_run:
            store.ensure_marker()
        _rebuild(workspace, store, others, rebuilt, bad, state.bad_packs)
        for manifest in bad:
            try:
                plan = mend(manifest)
            except IntegrityError as error:
                lost.append(error.message)
                continue
            packs |= {pack.id: pack.size for pack in (*plan.payload, *plan.pages)}
    finally:
        workspace.outbox.abandon()
    if lost:
        workspace.state.update(lost=[(store.address, pack) for pack in state.bad_packs if pack not in packs])
    return RepairResult(store.address, len(bad) - len(lost), len(packs), sum(packs.values()), tuple(lost), dry_run)


def _rebuild(
    workspace: Workspace,
    store: Store,
    others: Sequence[Store],
    rebuilt: DirectoryStore,
    manifests: Sequence[ContentId],
    bad: Collection[bytes],
    *,
    read: bool = False,
) -> None:
    """Make packs that no store holds once more, of files and pages that are still on this machine.

    Parameters
    ----------
    read
        Whether what stores hold is read, too; else its size is believed.
    """
    machine = workspace.machine
    reader = TreeReader((*others, store), machine.cache, machine.executor)
    lost = _Lost()

    def is_lost(pack: PackRow) -> bool:
        where = key(PACKS, pack.id)
        if pack.id not in bad and store.size(where) == pack.size:
            return False
        if not read:
            return all(other.size(where) != pack.size for other in others)
        return not _held_whole(others, pack, f"{rebuilt.root}-check")

    for manifest in manifests:
        with suppress(RegError):  # what cannot be read here either is named as lost in the end
            tree = reader.open(manifest)
            for folder, kept in ((MANIFESTS, MANIFESTS), (MAPS, reader.map_folder(tree.store))):
                blob = machine.cache.get(kept, manifest)
                if blob is not None:
                    rebuilt.write(key(folder, manifest), blob)
            _note_pieces(reader, tree, machine, lost, is_lost)
    files = _LocalFiles(workspace, {piece.content for rows in lost.pieces.values() for piece in rows if piece.content})
    for identifier, pieces in lost.pieces.items():
        path = f"{rebuilt.root}-pack"
        if _written(lost.rows[identifier], pieces, files, path):
            rebuilt.adopt(key(PACKS, identifier), path)


def _held_whole(stores: Sequence[Store], pack: PackRow, scratch: str) -> bool:
    """Tell whether one of some stores has a pack whole, by reading it."""
    try:
        pack_file(stores, pack, scratch)
    except (IntegrityError, StoreError, AuthError):
        return False
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch)
    return True


def _note_pieces(
    reader: TreeReader, tree: Tree, machine: Machine, lost: _Lost, is_lost: Callable[[PackRow], bool]
) -> None:
    known: dict[bytes, bool] = {}

    def wanted(pack: PackRow) -> bool:
        if pack.id not in known:
            known[pack.id] = is_lost(pack)
        return known[pack.id]

    places = {leaf.ref.page: leaf.place for leaf in tree.leaves if leaf.place is not None} | tree.inner
    for page, place in places.items():
        for folder, extent in (("pages", place.page), (reader.map_folder(tree.store), place.map)):
            blob = machine.cache.get(folder, page)
            if wanted(extent.pack) and blob is not None and len(blob) == extent.length:
                lost.note(extent, _Piece(extent.offset, extent.length, b"", 0, 0, blob))
    for content in reader.pages(tree, tree.leaves, maps=True):
        for entry, extents in zip(content.entries, content.extents, strict=True):
            position = 0
            for extent in extents:
                if wanted(extent.pack):
                    row = _Piece(extent.offset, extent.length, entry.content, entry.size, position, None)
                    lost.note(extent, row)
                position += extent.length


def _written(pack: PackRow, pieces: Collection[_Piece], files: _LocalFiles, path: str) -> bool:
    """Gather a pack at a path; False when not all of its bytes are here."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        for piece in pieces:
            position = piece.offset
            for block in (piece.blob,) if piece.blob is not None else files.read(piece):
                write_at(descriptor, block, position)
                position += len(block)
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size == pack.size and hash_file(path) == pack.id
    finally:
        os.close(descriptor)


class _LocalFiles:
    """Files of this machine by content id: those of the work tree, then those of the cache. Each is hashed once."""

    def __init__(self, workspace: Workspace, wanted: Collection[bytes]) -> None:
        self._cache = workspace.machine.cache
        self._paths: dict[bytes, str] = {}
        for name in workspace.metafiles({}):
            rows = [(f"{name}/{path}", row) for path, row in workspace.state.stats(name)]
            own = workspace.state.stat(name)
            for path, row in [*rows, *([(name, own)] if own is not None else [])]:
                if row.content in wanted:
                    self._paths.setdefault(row.content, os.path.join(workspace.root, path))
        self._checked: dict[bytes, str | None] = {}

    def read(self, piece: _Piece) -> Iterator[bytes]:
        """Yield the bytes of a piece, block by block; nothing when no file here has that content."""
        if piece.content not in self._checked:
            self._checked[piece.content] = self._find(piece)
        path = self._checked[piece.content]
        return read_sources([(path, piece.position, piece.length)] if path is not None else [])

    def _find(self, piece: _Piece) -> str | None:
        path = self._paths.get(piece.content)
        if path is not None:
            with suppress(OSError):
                if hash_file(path) == piece.content:
                    return path
        kinds = (self._cache.file(piece.content, piece.size, executable=executable) for executable in (False, True))
        return next((found for found in kinds if found is not None), None)
