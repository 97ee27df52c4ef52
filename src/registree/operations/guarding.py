"""What nobody else has: files and versions that a command must not drop without being told to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from registree.errors import Conflict, ObjectMissing
from registree.model.metafile import DatasetFile
from registree.model.paths import METAFILE_SUFFIX
from registree.model.places import PackRow
from registree.store.layout import MANIFESTS, PACKS, key
from registree.workspace import Workspace


def only_copies(workspace: Workspace, name: str) -> frozenset[str]:
    """Return the files of a dataset's work tree whose bytes lie nowhere else.

    They were not pushed, and were added in place (perhaps as files of another dataset), or their pack was lost.
    """
    found = set(workspace.outbox.in_place_paths(os.path.join(workspace.root, name)))
    metafile = workspace.read_metafile(name)
    versions = {workspace.state.placed(name), metafile.manifest if isinstance(metafile, DatasetFile) else None}
    waiting = [v for v in versions if v is not None and workspace.outbox.size(key(MANIFESTS, v)) is not None]
    if not waiting:
        return frozenset(found)  # what was pushed names no pack that lies here alone
    reader, held, in_place = workspace.reader(), workspace.held_packs(), workspace.outbox.in_place_packs()

    @cache
    def is_stored(pack: PackRow) -> bool:
        if pack.id in in_place:
            return False
        remotes = (store for store in reader.stores if not store.is_outbox)
        return held.has(pack, unsent=True) or any(store.size(key(PACKS, pack.id)) == pack.size for store in remotes)

    for manifest in waiting:
        try:
            tree = reader.open(manifest)
            for page in reader.pages(tree, tree.leaves, maps=True):
                for entry, extents in zip(page.entries, page.extents, strict=True):
                    if not all(is_stored(extent.pack) for extent in extents):
                        found.add(entry.path)
        except ObjectMissing:
            continue  # a part of it cannot be read here; what it holds in place is found by its path
    return frozenset(found)


def refuse_uncommitted(workspace: Workspace, chosen: Mapping[str, DatasetFile | None]) -> None:
    """Refuse to drop a metafile that is not committed, and with it the name of what was added.

    Parameters
    ----------
    chosen
        Names of datasets, and what their metafiles are to be.

    Raises
    ------
    Conflict
        Naming those that would be lost.
    """
    repository = workspace.repository
    head, staged = repository.head(), repository.staged()
    lost = []
    for name, file in chosen.items():
        path = name + METAFILE_SUFFIX
        committed = repository.read(head, path) if head else None
        blob = staged.get(path)
        there = workspace.read_metafile(name)
        versions = {
            there.text.encode() if there is not None else None,
            repository.blob(blob) if blob is not None else None,
        }
        strange = versions - {committed, file.text.encode() if file is not None else None, None}
        if strange and head is not None:
            history = repository.blobs_named(repository.history(head), path)
            strange -= {repository.blob(blob) for found, blob in history if found == path}
        if strange:
            lost.append(name)
    if lost:
        raise Conflict(
            f"{', '.join(lost)} has a metafile that is not committed and would be lost",
            hint="reg commit -m MESSAGE keeps it; --force drops it",
            paths=tuple(lost),
        )


def refuse_edited(workspace: Workspace, name: str, before: bytes | None) -> None:
    """Refuse to go on when a metafile is not what it was (None: there was none).

    Raises
    ------
    Conflict
        When somebody has changed it.
    """
    if workspace.metafile_bytes(name) != before:
        raise Conflict(f"{name}{METAFILE_SUFFIX} was changed meanwhile", hint="reg status says how")
