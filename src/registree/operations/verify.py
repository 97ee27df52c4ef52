"""`reg verify`: is what the metafiles name really there, on this disk or on the remotes?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from registree.errors import RegError
from registree.model.ids import ContentId, id_text
from registree.model.metafile import DatasetFile
from registree.model.paths import parse_dataset_name
from registree.model.places import PackRow
from registree.operations.observing import place_of
from registree.operations.push import named_manifests
from registree.operations.status import status_of
from registree.store.base import PIECE, Store
from registree.store.files import hash_file
from registree.store.layout import PACKS, key
from registree.store.scanning import scan
from registree.store.tree_reader import TreeReader
from registree.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is missing or damaged, and the dataset that needs it."""

    dataset: str
    what: str


@dataclass(frozen=True, slots=True)
class VerifyResult:
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
        found = status_of(workspace, name, metafile, [])
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
    for found in scan(root):
        row = known.get(found.path)
        if row is not None and found.stat.st_size and hash_file(place_of(root, found.path)) != row.content:
            stale.append(f"{name}/{found.path}" if found.path else name)
    return stale


def verify_remote(
    workspace: Workspace, names: Sequence[str] = (), *, remote: str | None = None, deep: bool = False
) -> VerifyResult:
    """Check that a remote holds all that commits, tags and the work tree name.

    Parameters
    ----------
    deep
        Read every pack and hash it; otherwise sizes are compared.
    """
    registry_file = workspace.registry_file()
    chosen = registry_file.remote(remote) if remote else registry_file.remotes[0]
    store = workspace.store(chosen)
    store.check_format()
    wanted = named_manifests(workspace, names, everything=True)
    problems: list[Problem] = []
    packs: dict[bytes, PackRow] = {}
    owners: dict[bytes, str] = {}
    files = size = 0
    for manifest, name in wanted.items():
        try:
            found, totals = _packs_of(store, manifest, workspace)
        except RegError as error:
            problems.append(Problem(name, f"manifest {id_text(manifest)[:15]}…: {error.message}"))
            continue
        files, size = files + totals[0], size + totals[1]
        for pack in found:
            packs[pack.id] = pack
            owners.setdefault(pack.id, name)
    checks = workspace.machine.executor.map(lambda pack: _check_pack(store, pack, deep), packs.values())
    for pack, problem in zip(packs.values(), checks, strict=True):
        if problem:
            problems.append(Problem(owners[pack.id], problem))
    return VerifyResult(len(wanted), len(packs), files, size, tuple(problems))


def _packs_of(store: Store, manifest: ContentId, workspace: Workspace) -> tuple[list[PackRow], tuple[int, int]]:
    reader = TreeReader((store,), None, workspace.machine.executor)
    tree = reader.open(manifest)
    packs: dict[bytes, PackRow] = {}
    for place in (*tree.inner.values(), *(leaf.place for leaf in tree.leaves if leaf.place)):
        packs |= {extent.pack.id: extent.pack for extent in place}
    for content in reader.pages(tree, tree.leaves, maps=True):
        packs |= {extent.pack.id: extent.pack for row in content.extents for extent in row}
    totals = tree.totals
    return list(packs.values()), (totals.files, totals.size)


def _check_pack(store: Store, pack: PackRow, deep: bool) -> str:
    where = key(PACKS, pack.id)
    try:
        size = store.size(where)
        if size is None:
            return f"{where} is missing in {store.address}"
        if size != pack.size:
            return f"{where} in {store.address} has {size} bytes, not {pack.size}"
        if deep:
            hasher = blake3()
            for offset in range(0, size, PIECE):
                hasher.update(store.read(where, offset, min(PIECE, size - offset)))
            if hasher.digest() != pack.id:
                return f"{where} in {store.address} is damaged: its bytes have another hash"
    except RegError as error:
        return error.message
    return ""
