"""`reg status`: how the work tree stands to its metafiles, to Git, and to the remote. It writes nothing to Git."""

from __future__ import annotations

import os
import time

import msgspec
from msgspec.structs import replace

from registree.errors import FormatError, InvalidInput, ObjectMissing, RegError
from registree.model.diff import Change, diff_entries, find_renames
from registree.model.ids import hash_bytes
from registree.model.metafile import DatasetFile, ImportFile, Metafile
from registree.model.paths import METAFILE_SUFFIX
from registree.model.selection import Selection
from registree.model.selectors import resolve
from registree.operations.commit import staged_paths
from registree.operations.content import Content
from registree.operations.imports import locked_content
from registree.operations.observing import fingerprint_of, is_still, note_clean, observed_entries
from registree.source import Machine, RegistrySource
from registree.store.file_stat import Stat
from registree.workspace import Workspace


class DatasetStatus(msgspec.Struct, frozen=True):
    """One dataset or import.

    `disk` is ``absent``, ``clean``, ``changed`` or ``unknown`` (its manifest is not here). `changes` lists what
    differs from the metafile. `staged` says that its metafile is not committed; `unpushed` that payload waits in the
    outbox. `newer` names what an import could be updated to, when that was asked for.
    """

    name: str
    kind: str
    disk: str
    changes: tuple[Change, ...] = ()
    staged: bool = False
    unpushed: bool = False
    newer: str = ""
    problem: str = ""

    @property
    def clean(self) -> bool:
        """Whether there is nothing to say of it."""
        return self.disk in ("clean", "absent") and not (self.staged or self.unpushed or self.newer or self.problem)


class Status(msgspec.Struct, frozen=True):
    """A repository's status."""

    root: str
    branch: str
    datasets: tuple[DatasetStatus, ...]
    staged: tuple[str, ...]
    waiting_packs: int
    waiting_bytes: int


def status(workspace: Workspace, *, remote: bool = False) -> Status:
    """Compare the work tree with its metafiles.

    Parameters
    ----------
    remote
        Also ask registries whether imports have something newer: the one thing that costs network.
    """
    online = workspace.machine
    workspace = Workspace(workspace.repository, replace(online, offline=True))
    broken: dict[str, FormatError] = {}
    metafiles = workspace.metafiles(broken)
    staged = staged_paths(workspace)
    waiting = {bytes(manifest) for manifest in workspace.outbox.manifests()}
    learnt: list[tuple[str, Stat]] = []
    rows = []
    for name, metafile in metafiles.items():
        row = status_of(workspace, name, metafile, learnt)
        rows.append(
            DatasetStatus(
                name,
                row.kind,
                row.disk,
                row.changes,
                staged=name + METAFILE_SUFFIX in staged,
                unpushed=isinstance(metafile, DatasetFile) and metafile.manifest in waiting,
                newer=_newer(workspace, online, metafile) if remote and isinstance(metafile, ImportFile) else "",
                problem=row.problem,
            )
        )
    rows += [DatasetStatus(name, "broken", "unknown", problem=error.message) for name, error in broken.items()]
    if learnt:
        workspace.state.update(stats=learnt)
    packs = list(workspace.outbox.packs())
    return Status(
        workspace.root,
        workspace.repository.branch() or (workspace.repository.head() or "")[:10],
        tuple(sorted(rows, key=lambda row: row.name)),
        tuple(staged),
        len(packs),
        sum(size for _, size in packs),
    )


def status_of(
    workspace: Workspace, name: str, metafile: Metafile, learnt: list[tuple[str, Stat]], *, compare: bool = False
) -> DatasetStatus:
    """Compare one work tree with its metafile; rows for the stat cache are added to `learnt`.

    Parameters
    ----------
    compare
        Compare it although its fingerprint says that it is what it was.
    """
    kind = "dataset" if isinstance(metafile, DatasetFile) else "import"
    if not os.path.lexists(os.path.join(workspace.root, name)):
        return DatasetStatus(name, kind, "absent")
    began = time.time_ns()
    files = metafile.files if isinstance(metafile, DatasetFile) else metafile.lock.files
    version = _version(metafile)
    try:
        content = _recorded(workspace, metafile)
        known = workspace.state.clean(name, version)
        if not compare and known is not None and is_still(workspace, name, files, known):
            return DatasetStatus(name, kind, "clean")
        found = fingerprint_of(workspace, name, files) if known is None else None
        changes = find_renames(diff_entries(content.entries(), observed_entries(workspace, name, learnt)))
    except InvalidInput as error:  # something that no dataset may hold came into the folder
        return DatasetStatus(name, kind, "changed", problem=error.message)
    except ObjectMissing:
        return DatasetStatus(name, kind, "unknown", problem="its manifest is not on this machine: reg pull")
    except RegError as error:
        return DatasetStatus(name, kind, "unknown", problem=error.message)
    if known is None and not changes:
        note_clean(workspace, name, version, found, began)
    disk_lied = compare and bool(changes)  # it changed a file without its times
    only_times = not compare and not changes
    if known is not None and (disk_lied or only_times):  # the next look takes the fingerprint before it compares
        workspace.state.update(unclean=[name])
    return DatasetStatus(name, kind, "changed" if changes else "clean", tuple(changes))


def _version(metafile: Metafile) -> bytes:
    """Return what tells the content that a metafile names from any other."""
    if isinstance(metafile, DatasetFile):
        return metafile.manifest
    selection = repr((metafile.part, metafile.include, metafile.exclude))
    return hash_bytes(metafile.lock.manifest + selection.encode(errors="surrogateescape"))


def _recorded(workspace: Workspace, metafile: Metafile) -> Content:
    if isinstance(metafile, ImportFile):
        return locked_content(workspace, metafile)
    reader = workspace.reader()
    return Content(workspace.registry(), reader, reader.open(metafile.manifest), Selection(), metafile.manifest)


def _newer(workspace: Workspace, machine: Machine, metafile: ImportFile) -> str:
    source = RegistrySource.open(metafile.registry, machine, base=workspace.root)
    refs = source.repository.refs()
    found = resolve(metafile.want, metafile.dataset, refs, source.repository.default_branch())
    commit = refs.get(found.ref) or source.repository.commit_of(found.ref)
    if not found.kind.moves or commit == metafile.lock.commit:
        return ""
    now = source.metafile(commit, metafile.dataset)
    if isinstance(now, DatasetFile) and now.manifest == metafile.lock.dataset_manifest:
        return ""
    return found.version or commit[:10]
