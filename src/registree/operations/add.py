"""`reg add`: a file or a directory becomes a dataset, or the next version of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from registree.errors import Conflict, InvalidInput, NotFound
from registree.git.ignore import gitignore_edits
from registree.git.repository import Edit, chain
from registree.model.ids import ContentId
from registree.model.manifest import Entry, Kind, manifest_id
from registree.model.metafile import DatasetFile
from registree.model.paths import METAFILE_SUFFIX, DatasetName, is_within, parse_dataset_name
from registree.operations.observing import fingerprint_of, note_clean, observed_entries
from registree.operations.sending import note_packs
from registree.operations.writing import DatasetWriter, OutboxWriter
from registree.store.file_stat import Stat
from registree.store.tree_writer import WrittenTree
from registree.workspace import Workspace


class AddedDataset(msgspec.Struct, frozen=True):
    """A dataset after `add`: its manifest, counts, the bytes that were new, and whether anything changed."""

    name: DatasetName
    manifest: ContentId
    files: int
    size: int
    stored: int
    changed: bool
    existed: bool


class AddResult(msgspec.Struct, frozen=True):
    """The datasets added, and the commit when one was made."""

    datasets: tuple[AddedDataset, ...]
    commit: str | None


def add(
    workspace: Workspace,
    paths: Sequence[str],
    *,
    message: str | None = None,
    in_place: bool = False,
    dry_run: bool = False,
) -> AddResult:
    """Store what is at these paths and write a metafile beside each.

    Parameters
    ----------
    paths
        Absolute paths in the repository.
    message
        Commits what changed with this message; None stages it.
    in_place
        Keep no copy until `push`, which reads the files again.
    dry_run
        Read the files and say what would be added, and store nothing.

    Raises
    ------
    InvalidInput
        For what cannot be a dataset, is tracked by Git, or overlaps another dataset.
    """
    workspace.registry_file()
    with workspace.writing():
        names = list(dict.fromkeys(check_new_name(workspace, path) for path in paths))
        _refuse_overlaps(names)
        if dry_run:
            return AddResult(tuple(_would_add(workspace, name) for name in names), None)
        began = time.time_ns()
        with OutboxWriter(workspace, in_place=in_place) as run:
            writers: list[DatasetWriter] = []
            others: list[DatasetName] = []
            for name in names:
                before = _tracked(workspace, name)
                if before is not None and workspace.state.placed(name) not in (None, before.manifest):
                    others.append(name)
                writer = run.dataset(name, before.manifest if before is not None else None)
                writer.write_work_tree()
                writers.append(writer)
            added = [_next_metafile(workspace, *pair) for pair in zip(writers, run.finish(), strict=True)]
            run.publish()
            for writer, (result, _) in zip(writers, added, strict=True):
                if not writer.is_kept:
                    found = fingerprint_of(workspace, writer.name, writer.files, walked=writer.fingerprint)
                    note_clean(workspace, result.name, result.manifest, found, began)
        edits: dict[str, Edit] = {}
        for result, metafile in added:
            edits[result.name + METAFILE_SUFFIX] = metafile.render().encode()
            for path, edit in gitignore_edits(result.name, ignored=True).items():
                edits[path] = chain(edits[path], edit) if path in edits else edit
        commit = workspace.repository.edit(edits, message)
        run.note_placed()
        note_packs(workspace, [pack.row for pack in run.packer.closed])
    for result, _ in added:
        if result.changed and result.name in others:
            workspace.machine.warn(
                f"the files of {result.name} were not of the version that {result.name}{METAFILE_SUFFIX} named: what "
                "that one changed is not in this one (after git pull, reg checkout brings it first)"
            )
    return AddResult(tuple(result for result, _ in added), commit)


def _refuse_overlaps(names: Sequence[DatasetName]) -> None:
    for name in names:
        for other in names:
            if other != name and is_within(name, other):
                raise InvalidInput(f"{name} lies inside {other}, which is added too", hint="add one of them")


def check_new_name(workspace: Workspace, path: str) -> DatasetName:
    """Return the name of a dataset to be at a path.

    Raises
    ------
    InvalidInput, NotFound
        When no dataset can be there.
    """
    if path.endswith(METAFILE_SUFFIX):
        raise InvalidInput(
            f"{path} is a metafile, and metafiles are never data", hint=f"reg add {path.removesuffix(METAFILE_SUFFIX)}"
        )
    relative = workspace.relative(path.rstrip("/"))
    if os.path.islink(path):
        raise InvalidInput(f"{path} is a link, and a dataset is a file or a directory", hint="add what it points to")
    if not os.path.lexists(path):
        raise NotFound(f"there is nothing at {path}", hint="ls shows what is there")
    name = parse_dataset_name(relative)
    if is_within(name, ".reg") or is_within(name, ".git") or name == "reg.yaml":
        raise InvalidInput(f"{name} belongs to the registry itself", hint="name the data: a folder or a file")
    if workspace.read_metafile(name) is not None and not isinstance(workspace.read_metafile(name), DatasetFile):
        raise InvalidInput(f"{name} is an import, which follows its registry", hint=f"reg update {name}")
    tracked = workspace.repository.tracked(name)
    inner = next((path for path in tracked if path.endswith(METAFILE_SUFFIX)), None)
    if inner is not None:
        other = inner.removesuffix(METAFILE_SUFFIX)
        raise InvalidInput(f"{name} lies around the dataset {other}", hint=f"move that out: reg move {other} NEW-NAME")
    if tracked:
        raise InvalidInput(
            f"{name} is tracked by Git already ({len(tracked)} files)",
            hint=f"git rm -r --cached {name} && reg add {name}",
        )
    parts = name.split("/")
    for depth in range(1, len(parts)):
        above = "/".join(parts[:depth])
        if os.path.exists(workspace.metafile_path(above)):
            raise InvalidInput(f"{name} lies inside the dataset {above}", hint=f"reg add {above} takes it along")
    return name


def _next_metafile(workspace: Workspace, writer: DatasetWriter, tree: WrittenTree) -> tuple[AddedDataset, DatasetFile]:
    old = _tracked(workspace, writer.name)
    changed = old is None or old.manifest != tree.manifest
    if changed and writer.is_kept:
        raise Conflict(f"{writer.name}{METAFILE_SUFFIX} changed while it was added", hint="run it again")
    totals = tree.totals
    metafile = old if old is not None else DatasetFile(writer.name.rsplit("/", 1)[-1], tree.manifest, 0, 0, {})
    if changed:
        metafile = replace(
            metafile, manifest=tree.manifest, files=totals.files, size=totals.size, contents=writer.contents.rows()
        )
    existed = old is not None
    result = AddedDataset(
        writer.name, tree.manifest, totals.files, totals.size, writer.stored, changed=changed, existed=existed
    )
    return result, metafile


def _tracked(workspace: Workspace, name: DatasetName) -> DatasetFile | None:
    found = workspace.read_metafile(name)
    return found if isinstance(found, DatasetFile) else None


def _would_add(workspace: Workspace, name: DatasetName) -> AddedDataset:
    base = _tracked(workspace, name)
    known: dict[bytes, None] = {}
    if base is not None:
        reader = workspace.reader()
        known = dict.fromkeys(entry.content for entry in reader.entries(reader.open(base.manifest)))
    learnt: list[tuple[str, Stat]] = []
    files = size = new = 0

    def counted() -> Iterator[Entry]:
        nonlocal files, size, new
        for entry in observed_entries(workspace, name, learnt):
            files += entry.kind != Kind.DIRECTORY
            size += entry.size
            new += entry.size if entry.content not in known else 0
            yield entry

    manifest = manifest_id(counted())
    workspace.state.update(stats=learnt)
    changed = base is None or base.manifest != manifest
    return AddedDataset(name, manifest, files, size, new, changed=changed, existed=base is not None)
