"""`reg checkout`: make the work tree be what metafiles say, of now or of another revision. And `reg pull`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from registree.errors import FormatError, NotFound, RegError
from registree.git.fast_forward import fast_forward
from registree.git.ignore import gitignore_edits
from registree.git.repository import Edit
from registree.git.upstream import fetch_upstream
from registree.model.metafile import DatasetFile
from registree.model.paths import METAFILE_SUFFIX, DatasetName, parse_dataset_name
from registree.model.selection import Selection
from registree.model.selectors import not_found
from registree.model.targets import Target
from registree.operations.content import Content, resolve_target
from registree.operations.get import COPIES
from registree.operations.guarding import refuse_edited, refuse_uncommitted
from registree.operations.sync import Restored, restore
from registree.workspace import Workspace


def checkout(
    workspace: Workspace, names: Sequence[str] = (), *, revision: str = "", force: bool = False, dry_run: bool = False
) -> tuple[Restored, ...]:
    """Make datasets on this disk be what their metafiles say.

    Parameters
    ----------
    names
        Datasets; empty for all of this repository.
    revision
        Take the metafiles of that revision first, and stage them.

    Returns
    -------
    A row for each dataset: one that fails does not stop the others.
    """
    workspace.registry_file()
    with workspace.writing():
        broken: dict[str, FormatError] = {}
        chosen = _choose(workspace, names, revision, broken)
        failed = [Restored(name, "failed", error=error) for name, error in broken.items()]
        before = {name: workspace.metafile_bytes(name) for name in chosen}
        if revision and not force:
            refuse_uncommitted(workspace, chosen)
        return (
            *failed,
            *(
                _checkout_one(workspace, name, file, revision, before[name], force=force, dry_run=dry_run)
                for name, file in chosen.items()
            ),
        )


def _choose(
    workspace: Workspace, names: Sequence[str], revision: str, broken: dict[str, FormatError]
) -> dict[str, DatasetFile]:
    wanted = [parse_dataset_name(name) for name in names]
    if not revision:
        if wanted:
            return {name: workspace.dataset(name) for name in wanted}
        return {name: file for name, file in workspace.metafiles(broken).items() if isinstance(file, DatasetFile)}
    source = workspace.registry()
    chosen: dict[str, DatasetFile] = {}
    for name in wanted or source.dataset_names(resolve_target(source, Target(DatasetName("")), revision).commit):
        commit = resolve_target(source, Target(DatasetName(name)), revision).commit
        try:
            file = source.metafile(commit, name)
        except FormatError as error:
            broken[name] = error
            continue
        if isinstance(file, DatasetFile):
            chosen[name] = file
        elif wanted:
            raise not_found("dataset", name, f"{workspace.root} at {revision}", source.dataset_names(commit))
    return chosen


def _checkout_one(
    workspace: Workspace,
    name: str,
    file: DatasetFile,
    revision: str,
    before: bytes | None,
    *,
    force: bool,
    dry_run: bool,
) -> Restored:
    confirm = partial(refuse_edited, workspace, name, before)
    try:
        reader = workspace.reader()
        content = Content(workspace.registry(), reader, reader.open(file.manifest), Selection(), file.manifest)
        result = restore(workspace, name, content, COPIES, check=dry_run, force=force, confirm=confirm)
        if revision and not dry_run:
            confirm()  # once more: changing many files took its time
            edits: dict[str, Edit] = {name + METAFILE_SUFFIX: file.text.encode(), **gitignore_edits(name, ignored=True)}
            workspace.repository.edit(edits, None)
    except RegError as error:
        return Restored(name, "failed", error=error)
    return result


class PullResult(msgspec.Struct, frozen=True):
    """What a pull changed: the commit it came to, tracked files, and datasets."""

    commit: str
    paths: tuple[str, ...]
    datasets: tuple[Restored, ...]


def pull(workspace: Workspace, names: Sequence[str] = (), *, force: bool = False, dry_run: bool = False) -> PullResult:
    """Fast-forward the current branch to its upstream, if it has one, then bring the payload of datasets.

    Parameters
    ----------
    names
        Datasets whose payload is wanted; empty for all.
    dry_run
        Only say which commit it would come to, or which files differ when there is no newer one.

    Raises
    ------
    Conflict
        When histories have parted; nothing is changed then.
    """
    workspace.registry_file()
    paths: list[str] = []
    with workspace.writing():
        if workspace.repository.upstream() is not None:
            commit = fetch_upstream(workspace.repository, workspace.machine.access)
            if commit is not None and dry_run:
                return PullResult(commit, (), ())
            if commit is not None:
                paths = fast_forward(workspace.repository, commit)
    results = checkout(workspace, names, force=force, dry_run=dry_run)
    head = workspace.repository.head()
    if head is None:
        raise NotFound(f"{workspace.root} has no commit yet", hint="reg add PATH -m MESSAGE makes one")
    return PullResult(head, tuple(paths), results)
