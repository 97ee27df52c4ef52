"""`reg commit`: what `reg` staged becomes a commit, whatever else is staged."""

from __future__ import annotations

from dataclasses import dataclass

from registree.config import REGISTRY_FILE
from registree.errors import StateError
from registree.git.repository import Edit
from registree.model.paths import METAFILE_SUFFIX
from registree.workspace import Workspace


@dataclass(frozen=True, slots=True)
class CommitResult:
    """A commit (empty: it was only asked what would be in it) and the tracked files it changed."""

    commit: str
    paths: tuple[str, ...]


def staged_paths(workspace: Workspace) -> dict[str, str | None]:
    """Return the tracked files of `reg` whose index differs from HEAD, with their staged blobs (None: removed).

    They are metafiles, `reg.yaml`, and those `.gitignore` files that stand beside a changed metafile.
    """
    repository = workspace.repository
    head = repository.head()
    committed = {file.path: file.blob for file in repository.walk(head)} if head else {}
    staged = repository.staged()
    changed = {path: staged.get(path) for path in {*committed, *staged} if committed.get(path) != staged.get(path)}
    own = {path for path in changed if path.endswith(METAFILE_SUFFIX) or path == REGISTRY_FILE}
    folders = {path.rpartition("/")[0] for path in own}
    own |= {
        path
        for path in changed
        if path.rpartition("/")[2] == ".gitignore" and (path.rpartition("/")[0] in folders or not folders)
    }
    return {path: changed[path] for path in sorted(own)}


def commit(workspace: Workspace, message: str, *, dry_run: bool = False) -> CommitResult:
    """Commit what `reg` staged.

    Raises
    ------
    StateError
        When there is nothing of `reg`'s to commit.
    """
    with workspace.writing():
        paths = staged_paths(workspace)
        edits: dict[str, Edit] = {
            path: workspace.repository.blob(blob) if blob is not None else None for path, blob in paths.items()
        }
        if dry_run:
            return CommitResult("", tuple(paths))
        made = workspace.repository.commit(edits, message) if edits else None
    if made is None:
        raise StateError("there is nothing to commit", hint="reg add PATH stages data; reg status shows what changed")
    return CommitResult(made, tuple(paths))
