"""`reg remove` and `reg move`: of whole datasets and imports. Payload in stores is left alone."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from registree.errors import AlreadyExists, Conflict, InvalidInput
from registree.git.ignore import gitignore_edits
from registree.git.repository import Edit, chain
from registree.model.manifest import Kind
from registree.model.metafile import DatasetFile, Metafile, parse_metafile
from registree.model.paths import METAFILE_SUFFIX, DatasetName, is_within, parse_dataset_name
from registree.model.selectors import not_found
from registree.model.yamltext import decoding
from registree.operations.guarding import only_copies, refuse_uncommitted
from registree.operations.observing import left_out
from registree.operations.status import status_of
from registree.store.file_stat import clock_step, wait_for_clock
from registree.workspace import Workspace


class RemoveResult(msgspec.Struct, frozen=True):
    """A dataset that is tracked no longer: whether its files were deleted, and the commit when one was made."""

    name: DatasetName
    deleted: bool
    commit: str | None


def remove(
    workspace: Workspace,
    name: DatasetName,
    *,
    message: str | None = None,
    keep: bool = False,
    force: bool = False,
    dry_run: bool = False,
) -> RemoveResult:
    """Stop tracking a dataset or an import, and delete its files here; older commits still name its payload.

    Parameters
    ----------
    keep
        Leave the files.
    force
        Delete files even when no store holds them.

    Raises
    ------
    Conflict
        When files have changes that no store holds, or are changed meanwhile; those are kept.
    """
    with workspace.writing():
        metafile = _metafile(workspace, name, committed=message is not None)
        place = os.path.join(workspace.root, name)
        delete = os.path.lexists(place) and not keep
        looked_at = wait_for_clock(time.time_ns()) if delete and not force else None
        if delete and not force:
            _require_stored(workspace, name, metafile)
            if isinstance(metafile, DatasetFile):
                refuse_uncommitted(workspace, {name: None})
        if dry_run:
            return RemoveResult(name, delete, None)
        if delete:
            _delete(place, looked_at)
        edits: dict[str, Edit] = {name + METAFILE_SUFFIX: None, **gitignore_edits(name, ignored=False)}
        commit = workspace.repository.edit(edits, message)
    return RemoveResult(name, delete, commit)


def _require_stored(workspace: Workspace, name: str, metafile: Metafile) -> None:
    place = os.path.join(workspace.root, name)
    waiting = only_copies(workspace, name)
    if waiting:
        raise Conflict(
            f"{len(waiting)} files of {name} are the only copy: they were added in place and not pushed, or what was "
            "stored of them is lost",
            hint=f"reg add {name}, then reg push {name}; or --keep leaves the files",
            paths=tuple(sorted(waiting)),
        )
    hidden = left_out(place, workspace.root)
    if hidden:
        raise Conflict(
            f"{len(hidden)} files in {name} are left out by .regignore, and no store holds them: "
            f"{', '.join(sorted(hidden)[:5])}",
            hint="move them away, or --force deletes them; --keep leaves the files",
            paths=tuple(sorted(hidden)),
        )
    found = status_of(workspace, name, metafile, [], compare=True)
    unknown = [change for change in found.changes if change.after and change.after.kind != Kind.DIRECTORY]
    if unknown or found.problem or found.disk == "unknown":
        raise Conflict(
            f"{name} has changes that no store holds"
            if found.changes
            else f"{name} cannot be compared: {found.problem}",
            hint=f"reg add {name} stores them; reg remove --force {name} deletes them; --keep leaves the files",
            paths=tuple(change.path for change in unknown),
        )


def _delete(place: str, looked_at: int | None) -> None:
    """Delete a dataset's files, but none that changed since they were looked at (None: whatever they are)."""
    if looked_at is not None:
        for path in _bottom_up(place):
            _refuse_changed(path, looked_at, "nothing was deleted")
    for path in _bottom_up(place):
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
            continue
        if looked_at is not None:  # once more: deleting many takes its time
            _refuse_changed(path, looked_at, f"reg checkout brings back what was deleted of {place}")
        os.unlink(path)


def _bottom_up(place: str) -> Iterator[str]:
    """Give the paths of all files, links and folders at a place, what is in a folder before the folder."""
    if os.path.islink(place) or not os.path.isdir(place):
        yield place
        return

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, names in os.walk(place, topdown=False, onerror=fail):
        yield from (os.path.join(folder, name) for name in names)
        yield from filter(os.path.islink, (os.path.join(folder, name) for name in folders))
        yield folder


def _refuse_changed(path: str, looked_at: int, what: str) -> None:
    with suppress(FileNotFoundError):
        changed = os.lstat(path).st_ctime_ns
        if changed > looked_at - clock_step(changed):
            raise Conflict(f"{path} changed meanwhile, and {what}", hint="run it again when nothing writes there")


def _metafile(workspace: Workspace, name: str, *, committed: bool = True) -> Metafile:
    """Read a metafile; one that a killed run took from the work tree alone is found in the index or in HEAD."""
    found = workspace.read_metafile(name)
    if found is None:
        path = name + METAFILE_SUFFIX
        repository = workspace.repository
        blob, head = repository.staged().get(path), repository.head()
        content = repository.blob(blob) if blob else repository.read(head, path) if head and committed else None
        with decoding(path):
            found = parse_metafile(content.decode(), path) if content is not None else None
    if found is None:
        raise not_found("dataset", name, workspace.root, workspace.metafile_names())
    return found


class MoveResult(msgspec.Struct, frozen=True):
    """A dataset under its new name, and the commit when one was made."""

    source: DatasetName
    target: DatasetName
    commit: str | None


def move(
    workspace: Workspace, name: DatasetName, target: str, *, message: str | None = None, dry_run: bool = False
) -> MoveResult:
    """Give a dataset or an import another name; its payload is not read.

    Parameters
    ----------
    target
        The new name; an existing folder takes it under its old one.

    Raises
    ------
    AlreadyExists
        When something is there.
    """
    with workspace.writing():
        metafile = _metafile(workspace, name, committed=message is not None)
        new = _begun_move(workspace, name, metafile, target)
        if new is None:
            new = _new_name(workspace, name, target)
        if dry_run:
            return MoveResult(name, new, None)
        moved = replace(metafile, path=new.rsplit("/", 1)[-1])
        source, place = os.path.join(workspace.root, name), os.path.join(workspace.root, new)
        edits: dict[str, Edit] = {new + METAFILE_SUFFIX: moved.render().encode()}
        for path, edit in (*gitignore_edits(name, ignored=False).items(), *gitignore_edits(new, ignored=True).items()):
            edits[path] = chain(edits[path], edit) if path in edits else edit
        with workspace.repository.edited_files(edits):  # the new metafile first: at no moment does none name the data
            workspace.outbox.move_in_place(source, place)
            try:
                if os.path.lexists(source):
                    os.makedirs(os.path.dirname(place), exist_ok=True)
                    os.rename(source, place)
            except BaseException:
                workspace.outbox.move_in_place(place, source)
                raise
        workspace.state.rename(name, new)
        commit = workspace.repository.edit({**edits, name + METAFILE_SUFFIX: None}, message)
    return MoveResult(name, new, commit)


def _inside(name: str, target: str) -> DatasetName:
    return parse_dataset_name(f"{target.rstrip('/')}/{name.rsplit('/', 1)[-1]}")


def _begun_move(workspace: Workspace, name: str, metafile: Metafile, target: str) -> DatasetName | None:
    """Return the new name when a run that was killed had begun the same move, which is not in HEAD then."""
    repository = workspace.repository
    head = repository.head()
    for new in [_inside(name, target)] if target.endswith("/") else [parse_dataset_name(target), _inside(name, target)]:
        there = workspace.read_metafile(new)
        if head is not None and repository.read(head, new + METAFILE_SUFFIX) is not None:
            continue
        same = there is not None and replace(there, path=metafile.path, text="") == replace(metafile, text="")
        if same and new != name and not os.path.lexists(os.path.join(workspace.root, name)):
            return new
        if same and new != name and not os.path.lexists(os.path.join(workspace.root, new)):
            return new
    return None


def _new_name(workspace: Workspace, name: str, target: str) -> DatasetName:
    place = os.path.join(workspace.root, target)
    is_folder = os.path.isdir(place) and not os.path.exists(workspace.metafile_path(target))
    new = _inside(name, target) if target.endswith("/") or is_folder else parse_dataset_name(target)
    for other in workspace.metafile_names():
        if other != name and (is_within(new, other) or is_within(other, new)):
            raise AlreadyExists(f"{new} would overlap the dataset {other}", hint="choose another name")
    if is_within(new, name):
        raise InvalidInput(f"{new} lies inside {name} itself", hint="choose another name")
    if os.path.lexists(os.path.join(workspace.root, new)):
        raise AlreadyExists(f"{new} exists already", hint="choose another name")
    return new
