"""What nobody else has: files and versions that a command must not drop without being told to."""

from __future__ import annotations

import os
from collections.abc import Mapping

from registree.errors import Conflict, ObjectMissing
from registree.model.metafile import DatasetFile
from registree.model.paths import METAFILE_SUFFIX
from registree.store.layout import MANIFESTS, key
from registree.workspace import Workspace


def only_copies(workspace: Workspace, name: str) -> frozenset[str]:
    """Return the files of a dataset's work tree whose bytes lie nowhere else: added in place and not pushed.

    They may have been added in place as files of another dataset, too: it is the packs that count.
    """
    found = set(workspace.outbox.in_place_paths(os.path.join(workspace.root, name)))
    packs = workspace.outbox.in_place_packs()
    metafile = workspace.read_metafile(name)
    versions = {workspace.state.placed(name), metafile.manifest if isinstance(metafile, DatasetFile) else None}
    if packs:
        reader = workspace.reader()
        for manifest in filter(None, versions):
            if workspace.outbox.size(key(MANIFESTS, manifest)) is None:
                continue  # what was pushed names no pack that lies here alone
            try:
                tree = reader.open(manifest)
                for page in reader.pages(tree, tree.leaves, maps=True):
                    for entry, extents in zip(page.entries, page.extents, strict=True):
                        if any(extent.pack.id in packs for extent in extents):
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
