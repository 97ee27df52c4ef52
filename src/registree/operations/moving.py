"""`reg remove` and `reg move`: of whole datasets and imports. Payload in stores is left alone."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace

from registree.errors import AlreadyExists, Conflict, InvalidInput
from registree.git.ignore import gitignore_edits
from registree.git.repository import Edit, chain
from registree.model.metafile import Metafile
from registree.model.paths import METAFILE_SUFFIX, DatasetName, is_within, parse_dataset_name
from registree.model.selectors import not_found
from registree.operations.observing import left_out
from registree.operations.status import status_of
from registree.workspace import Workspace


@dataclass(frozen=True, slots=True)
class RemoveResult:
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
        When files have changes that no store holds.
    """
    with workspace.writing():
        metafile = _metafile(workspace, name)
        place = os.path.join(workspace.root, name)
        delete = os.path.lexists(place) and not keep
        if delete and not force:
            _require_stored(workspace, name, metafile)
        if dry_run:
            return RemoveResult(name, delete, None)
        edits: dict[str, Edit] = {name + METAFILE_SUFFIX: None, **gitignore_edits(name, ignored=False)}
        commit = workspace.repository.edit(edits, message)
        if delete:
            _delete(place)
    return RemoveResult(name, delete, commit)


def _require_stored(workspace: Workspace, name: str, metafile: Metafile) -> None:
    place = os.path.join(workspace.root, name)
    waiting = workspace.outbox.in_place_paths(place)
    if waiting:
        raise Conflict(
            f"{len(waiting)} files of {name} were added in place and not pushed: they are the only copy",
            hint=f"reg push {name}, or --keep leaves the files",
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
    found = status_of(workspace, name, metafile, [])
    if found.disk != "clean":
        raise Conflict(
            f"{name} has changes that no store holds"
            if found.changes
            else f"{name} cannot be compared: {found.problem}",
            hint=f"reg add {name} stores them; reg remove --force {name} deletes them; --keep leaves the files",
            paths=tuple(change.path for change in found.changes),
        )


def _delete(place: str) -> None:
    if os.path.isdir(place) and not os.path.islink(place):
        shutil.rmtree(place)
    else:
        os.unlink(place)


def _metafile(workspace: Workspace, name: str) -> Metafile:
    found = workspace.read_metafile(name)
    if found is None:
        raise not_found("dataset", name, workspace.root, workspace.metafile_names())
    return found


@dataclass(frozen=True, slots=True)
class MoveResult:
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
        metafile = _metafile(workspace, name)
        inside = target.endswith("/") or (
            os.path.isdir(os.path.join(workspace.root, target)) and not os.path.exists(workspace.metafile_path(target))
        )
        last = name.rsplit("/", 1)[-1]
        new = parse_dataset_name(f"{target.rstrip('/')}/{last}" if inside else target)
        for other in workspace.metafile_names():
            if other != name and (is_within(new, other) or is_within(other, new)):
                raise AlreadyExists(f"{new} would overlap the dataset {other}", hint="choose another name")
        if is_within(new, name):
            raise InvalidInput(f"{new} lies inside {name} itself")
        if os.path.lexists(os.path.join(workspace.root, new)):
            raise AlreadyExists(f"{new} exists already", hint="choose another name")
        if dry_run:
            return MoveResult(name, new, None)
        moved = replace(metafile, path=new.rsplit("/", 1)[-1])
        edits: dict[str, Edit] = {name + METAFILE_SUFFIX: None, new + METAFILE_SUFFIX: moved.render().encode()}
        for path, edit in (*gitignore_edits(name, ignored=False).items(), *gitignore_edits(new, ignored=True).items()):
            edits[path] = chain(edits[path], edit) if path in edits else edit
        if os.path.lexists(os.path.join(workspace.root, name)):
            os.makedirs(os.path.dirname(os.path.join(workspace.root, new)), exist_ok=True)
            os.rename(os.path.join(workspace.root, name), os.path.join(workspace.root, new))
        workspace.outbox.move_in_place(os.path.join(workspace.root, name), os.path.join(workspace.root, new))
        commit = workspace.repository.edit(edits, message)
        workspace.state.rename(name, new)
    return MoveResult(name, new, commit)
