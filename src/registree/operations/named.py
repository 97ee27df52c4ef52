"""Which versions of which datasets commits name: what a push must send, and what a remote must hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from registree.errors import FormatError
from registree.model.ids import ContentId
from registree.model.metafile import DatasetFile, parse_metafile
from registree.model.paths import METAFILE_SUFFIX
from registree.model.selectors import not_found
from registree.model.targets import Target
from registree.operations.content import resolve_target
from registree.workspace import Workspace


def named_manifests(
    workspace: Workspace, names: Sequence[str], head: str | None, upstream: tuple[str, str] | None
) -> dict[ContentId, str]:
    """Return the manifests of the work tree and of commits the upstream may not have, each with a dataset's name.

    Parameters
    ----------
    head
        The commit that is to be pushed.
    upstream
        Where it goes to: a Git remote's name and a ref.

    Raises
    ------
    NotFound
        When there is no dataset of a name asked for.
    """
    found: dict[ContentId, str] = {}
    current = workspace.metafiles({})
    for name in names:
        if not isinstance(current.get(name), DatasetFile):
            there = [other for other, file in current.items() if isinstance(file, DatasetFile)]
            raise not_found("dataset", name, workspace.root, there)
    for name, metafile in current.items():
        if isinstance(metafile, DatasetFile) and (not names or name in names):
            found.setdefault(metafile.manifest, name)
    repository = workspace.repository
    if head is None:
        return found
    known = repository.remote_branch(*upstream) if upstream else None
    tagged = [commit for ref, commit in repository.refs().items() if ref.startswith("refs/tags/")]
    _collect(workspace, [*repository.history(head, known), *tagged], names, found)
    left = set(workspace.outbox.manifests()) - set(found)
    if left and not names:  # commits that plain `git push` sent before, or of other branches
        found |= {manifest: name for manifest, name in all_manifests(workspace).items() if manifest in left}
    return found


def _collect(workspace: Workspace, commits: Iterable[str], names: Sequence[str], found: dict[ContentId, str]) -> None:
    repository = workspace.repository
    for path, blob in repository.blobs_named(commits, METAFILE_SUFFIX):
        name = path.removesuffix(METAFILE_SUFFIX)
        if names and name not in names:
            continue
        try:
            metafile = parse_metafile(repository.blob(blob).decode(errors="replace"), path)
        except FormatError as error:
            workspace.machine.warn(f"{error.message}: a commit holds it, and what it names is not looked at")
            continue
        if isinstance(metafile, DatasetFile):
            found.setdefault(metafile.manifest, name)


def all_manifests(workspace: Workspace) -> dict[ContentId, str]:
    """Return the manifests of the work tree and of the whole history of all branches and tags, with a name each."""
    found = {
        metafile.manifest: name
        for name, metafile in workspace.metafiles({}).items()
        if isinstance(metafile, DatasetFile)
    }
    commits: dict[str, None] = {}
    for commit in workspace.repository.refs().values():
        if commit not in commits:
            commits |= workspace.repository.history(commit)
    _collect(workspace, commits, (), found)
    return found


def manifests_at(workspace: Workspace, targets: Sequence[Target]) -> dict[ContentId, str]:
    """Return the manifests of datasets at revisions; of all their versions when no revision is named.

    Raises
    ------
    NotFound
        When there is no such dataset or revision.
    """
    source = workspace.registry()
    found: dict[ContentId, str] = {}
    whole: list[str] = []
    for target in targets:
        if not target.selector:
            workspace.dataset(target.name)
            whole.append(target.name)
            continue
        commit = resolve_target(source, target, target.selector).commit
        metafile = source.metafile(commit, target.name)
        if not isinstance(metafile, DatasetFile):
            raise not_found("dataset", target.name, f"{target.selector}", source.dataset_names(commit))
        found[metafile.manifest] = f"{target.name}@{target.selector}"
    if whole:
        found |= {manifest: name for manifest, name in all_manifests(workspace).items() if name in whole}
    return found


def refs_naming(workspace: Workspace, manifests: Iterable[bytes]) -> dict[bytes, list[str]]:
    """Return the branches and tags that name manifests at their tips: ``images/cats@main``."""
    wanted = set(manifests)
    found: dict[bytes, list[str]] = {manifest: [] for manifest in wanted}
    for ref, commit in workspace.repository.refs().items():
        rows: dict[ContentId, str] = {}
        _collect(workspace, [commit], (), rows)
        for manifest in wanted & set(rows):
            found[manifest].append(f"{rows[ContentId(manifest)]}@{ref.split('/', 2)[-1]}")
    return found
