"""`reg commit`: what `reg` staged becomes a commit, whatever else is staged."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from registree.config import REGISTRY_FILE
from registree.errors import Conflict, StateError
from registree.git.ignore import gitignore_edits
from registree.git.repository import Edit, chain
from registree.model.paths import METAFILE_SUFFIX
from registree.workspace import Workspace


class CommitResult(msgspec.Struct, frozen=True):
    """A commit (empty: it was only asked what would be in it) and the tracked files it changed."""

    commit: str
    paths: tuple[str, ...]


def staged_paths(workspace: Workspace) -> dict[str, str | None]:
    """Return the metafiles and `reg.yaml` whose index differs from HEAD, with their staged blobs (None: removed)."""
    repository = workspace.repository
    head = repository.head()
    committed = {file.path: file.blob for file in repository.walk(head) if _is_own(file.path)} if head else {}
    staged = {path: blob for path, blob in repository.staged().items() if _is_own(path)}
    return {path: staged.get(path) for path in sorted({*committed, *staged}) if committed.get(path) != staged.get(path)}


def _is_own(path: str) -> bool:
    return path.endswith(METAFILE_SUFFIX) or path == REGISTRY_FILE


def _edits(workspace: Workspace, paths: Mapping[str, str | None]) -> dict[str, Edit]:
    """The commit gets what is staged of these files, and their lines of `.gitignore`, not the user's."""
    edits: dict[str, Edit] = {}
    for path, blob in paths.items():
        edits[path] = workspace.repository.blob(blob) if blob is not None else None
        if path.endswith(METAFILE_SUFFIX):
            for ignore, edit in gitignore_edits(path.removesuffix(METAFILE_SUFFIX), ignored=blob is not None).items():
                edits[ignore] = chain(edits[ignore], edit) if ignore in edits else edit
    return edits


def commit(workspace: Workspace, message: str, *, dry_run: bool = False) -> CommitResult:
    """Commit what `reg` staged.

    Raises
    ------
    StateError
        When there is nothing of `reg`'s to commit.
    """
    with workspace.writing():
        unmerged = [path for path in workspace.repository.unmerged() if _is_own(path)]
        if unmerged:
            raise Conflict(
                f"{', '.join(unmerged)} is in conflict",
                hint="choose a version and git add it, then commit",
                paths=tuple(unmerged),
            )
        paths = staged_paths(workspace)
        edits = _edits(workspace, paths)
        if dry_run:
            return CommitResult("", tuple(edits))
        made = workspace.repository.commit(edits, message) if edits else None
    if made is None:
        raise StateError("there is nothing to commit", hint="reg add PATH stages data; reg status shows what changed")
    return CommitResult(made, tuple(edits))
