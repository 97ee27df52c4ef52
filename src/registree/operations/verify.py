"""`reg verify`: is what the metafiles name really there, on this disk or on the remotes?"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec
from blake3 import blake3

from registree.errors import AuthError, ObjectMissing, RegError, StoreError
from registree.git.ignore import RegIgnore
from registree.model.ids import ContentId, id_text
from registree.model.metafile import DatasetFile
from registree.model.paths import parse_dataset_name
from registree.model.places import PackRow
from registree.model.targets import Target
from registree.operations.named import all_manifests, manifests_at, refs_naming
from registree.operations.observing import place_of
from registree.operations.status import status_of
from registree.source import Machine
from registree.store.base import PIECE, Store
from registree.store.copying import packs_of
from registree.store.files import hash_file
from registree.store.layout import PACKS, key
from registree.store.scanning import STRANGE, Scan
from registree.store.tree_reader import TreeReader
from registree.workspace import Workspace


class Problem(msgspec.Struct, frozen=True):
    """Something that is missing or damaged, the dataset that needs it, and the branches and tags whose versions do."""

    dataset: str
    what: str
    needed_by: tuple[str, ...] = ()


class VerifyResult(msgspec.Struct, frozen=True):
    """What was looked at, and what is wrong."""

    versions: int
    packs: int
    files: int
    size: int
    problems: tuple[Problem, ...]


def verify_disk(workspace: Workspace, names: Sequence[str] = (), *, deep: bool = False) -> VerifyResult:
    """Compare files on this disk with their metafiles.

    Parameters
    ----------
    deep
        Hash every file, whatever the stat cache says.
    """
    metafiles = workspace.metafiles()
    problems: list[Problem] = []
    files = size = versions = 0
    chosen: list[str] = [parse_dataset_name(name) for name in names] or list(metafiles)
    for name in chosen:
        metafile = metafiles.get(name) or (workspace.dataset(name))
        root = os.path.join(workspace.root, name)
        if not os.path.lexists(root):
            continue
        versions += 1
        files += metafile.files if isinstance(metafile, DatasetFile) else metafile.lock.files
        size += metafile.size if isinstance(metafile, DatasetFile) else metafile.lock.size
        if deep:
            workspace.state.update(forget=_stale(workspace, name, root))
        found = status_of(workspace, name, metafile, [], compare=True)
        problems += [Problem(name, f"{change.kind.value}: {change.path or name}") for change in found.changes]
        if found.problem:
            problems.append(Problem(name, found.problem))
    return VerifyResult(versions, 0, files, size, tuple(problems))


def _stale(workspace: Workspace, name: str, root: str) -> list[str]:
    """Find files whose times say that they are unchanged and whose bytes say otherwise."""
    known = dict(workspace.state.stats(name))
    own = workspace.state.stat(name)
    known |= {"": own} if own is not None else {}
    stale = []
    for found in Scan(root, RegIgnore(root, workspace.root), lenient=True):
        row = known.get(found.path) if found.target != STRANGE else None
        if row is not None and found.stat.size and hash_file(place_of(root, found.path)) != row.content:
            stale.append(f"{name}/{found.path}" if found.path else name)
    return stale


def verify_remote(
    workspace: Workspace, targets: Sequence[Target] = (), *, remote: str | None = None, deep: bool = False
) -> VerifyResult:
    """Check that every byte of some versions can be fetched from a remote.

    Parameters
    ----------
    targets
        Datasets, at a revision or in all their versions; empty for all that branches, tags and the work tree name.
    remote
        The remote's name; None for the first.
    deep
        Read every pack and hash it; otherwise sizes are compared.
    """
    store = workspace.store(workspace.registry_file().remote(remote))
    store.check_format()
    wanted = manifests_at(workspace, targets) if targets else all_manifests(workspace)
    state = remote_state(store, wanted, workspace.machine, deep=deep)
    naming = refs_naming(workspace, state.bad_manifests()) if state.is_bad else {}
    problems = [
        Problem(wanted[manifest], f"manifest {id_text(manifest)[:15]}…: {what}", tuple(naming[manifest]))
        for manifest, what in state.unreadable.items()
    ]
    for pack, what in state.bad_packs.items():
        users = state.users[pack]
        refs = dict.fromkeys(ref for manifest in users for ref in naming[manifest])
        problems.append(Problem(wanted[users[0]], what, tuple(refs)))
    return VerifyResult(len(wanted), len(state.packs), state.files, state.size, tuple(problems))


class RemoteState(msgspec.Struct):
    """What a remote holds of some manifests.

    `unreadable` says why manifests cannot be read, `bad_packs` what is wrong with packs; `users` are the manifests that
    need a pack. `files` and `size` (bytes) count what the readable ones hold.
    """

    packs: dict[bytes, PackRow]
    users: dict[bytes, list[ContentId]]
    unreadable: dict[ContentId, str]
    bad_packs: dict[bytes, str]
    files: int = 0
    size: int = 0

    @property
    def is_bad(self) -> bool:
        """Whether anything is wrong."""
        return bool(self.unreadable or self.bad_packs)

    def bad_manifests(self) -> set[ContentId]:
        """Return the manifests that something is wrong with."""
        return {*self.unreadable, *(user for pack in self.bad_packs for user in self.users[pack])}


def remote_state(store: Store, wanted: Iterable[ContentId], machine: Machine, *, deep: bool) -> RemoteState:
    """Look at what a remote holds of manifests; with `deep`, every pack is read and hashed."""
    state = RemoteState({}, {}, {}, {})
    reader = TreeReader((store,), None, machine.executor)
    for manifest in wanted:
        try:
            tree = reader.open(manifest)
            pages, payload = packs_of(reader, tree, tree.leaves, ())
        except RegError as error:
            if isinstance(error, StoreError | AuthError):
                raise
            state.unreadable[manifest] = error.message
            continue
        state.files, state.size = state.files + tree.totals.files, state.size + tree.totals.size
        for pack in (*pages.values(), *payload.values()):
            state.packs[pack.id] = pack
            state.users.setdefault(pack.id, []).append(manifest)
    machine.progress.begin("verify", 0, sum(pack.size for pack in state.packs.values()) if deep else 0)
    try:
        checks = machine.executor.map(lambda pack: _check_pack(store, pack, machine, deep), state.packs.values())
        state.bad_packs = {pack: what for pack, what in zip(state.packs, checks, strict=True) if what}
    finally:
        machine.progress.end()
    return state


def _check_pack(store: Store, pack: PackRow, machine: Machine, deep: bool) -> str:
    where = key(PACKS, pack.id)
    size = store.size(where)
    if size is None:
        return f"{where} is missing in {store.address}"
    if size != pack.size:
        return f"{where} in {store.address} has {size} bytes, not {pack.size}"
    if deep:
        hasher = blake3()
        try:
            for offset in range(0, size, PIECE):
                hasher.update(store.read(where, offset, min(PIECE, size - offset)))
                machine.progress.advance(0, min(PIECE, size - offset))
        except ObjectMissing as error:
            return error.message
        if hasher.digest() != pack.id:
            return f"{where} in {store.address} is damaged: its bytes have another hash"
    return ""
