"""`reg import`: bring a target in and keep the connection; and what an import's lock holds."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from registree.config import Remote
from registree.errors import AlreadyExists, AuthError, InvalidInput, NotFound, StoreError
from registree.git.connection import is_local_url, strip_credentials
from registree.git.ignore import gitignore_edits
from registree.git.repository import Edit
from registree.model.metafile import ImportFile, Lock
from registree.model.paths import METAFILE_SUFFIX, is_within, parse_dataset_name
from registree.model.selection import Selection
from registree.model.selectors import RevisionKind
from registree.model.targets import Target
from registree.operations.content import Content, Resolved, content_at, content_of_dataset, noted_remote, resolve_target
from registree.operations.get import output_path, require_entries
from registree.operations.placing import Placement, place_new
from registree.source import Machine, RegistrySource
from registree.store.base import Store
from registree.store.opening import is_local
from registree.store.staging import remove_stale_staging
from registree.store.state import Learning
from registree.store.tree_reader import TreeReader
from registree.workspace import Workspace


def _noted_store(workspace: Workspace, lock: Lock) -> Store:
    remote = workspace.machine.overridden(Remote("noted", lock.remote, lock.remote_options))
    return workspace.machine.open_store(remote.url, workspace.root, remote.options)


class ImportResult(msgspec.Struct, frozen=True):
    """An import as locked, and what was placed."""

    name: str
    metafile: ImportFile
    kind: RevisionKind
    note: str
    fetched: int
    downloaded: bool
    commit: str | None


def import_dataset(
    workspace: Workspace,
    registry: str,
    target: Target,
    *,
    base: str,
    out: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    download: bool = True,
    force: bool = False,
    dry_run: bool = False,
    message: str | None = None,
) -> ImportResult:
    """Bring a target in and keep the connection: a metafile says what is wanted and what is locked.

    Raises
    ------
    InvalidInput
        For a path outside the repository, or an import from oneself.
    AlreadyExists
        When something is at the target, and `force` is not given.
    """
    machine = workspace.machine
    source = RegistrySource.open(registry, machine, base=base)
    if source.repository.root == workspace.root:
        raise InvalidInput(f"{registry} is this repository itself", hint="import from another registry")
    found = resolve_target(source, target, target.selector)
    selection = Selection(target.part, tuple(include), tuple(exclude))
    content = content_at(source, found.commit, target, selection)
    require_entries(content, target)
    place = output_path(base, out, target, source)
    name = parse_dataset_name(workspace.relative(place))
    metafile = ImportFile(
        path=name.rsplit("/", 1)[-1],
        registry=_written_registry(registry, workspace.root, base),
        dataset=target.name,
        want=target.selector or "HEAD",
        lock=make_lock(content, found),
        part=content.selection.part,
        include=tuple(include),
        exclude=tuple(exclude),
    )
    with workspace.writing():
        unfinished = _is_unfinished(workspace, name, metafile, message)
        _check_import_target(workspace, name, place, force=force or unfinished)
        if dry_run:
            return ImportResult(name, metafile, found.resolution.kind, found.resolution.note, 0, download, None)
        edits: dict[str, Edit] = {name + METAFILE_SUFFIX: metafile.render().encode()}
        edits |= gitignore_edits(name, ignored=True)
        applied, learning = None, Learning(workspace.state, name)
        if download and (force or not (unfinished and os.path.lexists(place))):
            applied = place_new(
                machine,
                content,
                place,
                import_placement(machine),
                replace=force,
                verb="import",
                announced=workspace.repository.edited_files(edits),
                learning=learning,
            )
        remove_stale_staging(place)
        made = workspace.repository.edit(edits, message)
        if applied is not None:
            learning.finish(content.manifest, applied.at)
        fetched = applied.fetched_bytes if applied is not None else 0
    return ImportResult(name, metafile, found.resolution.kind, found.resolution.note, fetched, download, made)


def _is_unfinished(workspace: Workspace, name: str, wanted: ImportFile, message: str | None) -> bool:
    """Tell whether the same import was begun before and did not end: its metafile is there, and something is not."""
    there = workspace.read_metafile(name)
    if not isinstance(there, ImportFile) or replace(there, text="") != wanted:
        return False
    path = name + METAFILE_SUFFIX
    content = wanted.render().encode()
    repository = workspace.repository
    blob = repository.staged().get(path)
    head = repository.head()
    staged = blob is not None and repository.blob(blob) == content
    committed = head is not None and repository.read(head, path) == content
    present = os.path.lexists(os.path.join(workspace.root, name))
    return not (present and staged and (committed or message is None))


def import_placement(machine: Machine) -> Placement:
    """Return how imports are placed: linked from the cache where the disk can."""
    return Placement(machine.links, keep=True)


def _check_import_target(workspace: Workspace, name: str, place: str, *, force: bool) -> None:
    if os.path.exists(workspace.metafile_path(name)) and not force:
        raise AlreadyExists(
            f"{name} is tracked already by {name}{METAFILE_SUFFIX}",
            hint=f"reg update {name}, or --force to import anew",
        )
    if os.path.lexists(place) and not force:
        raise AlreadyExists(f"{place} exists already", hint="--force replaces it; -o PATH puts it elsewhere")
    tracked = workspace.repository.tracked(name)
    if tracked:
        raise InvalidInput(f"{name} is tracked by Git", hint=f"git rm -r --cached {name}, or -o PATH puts it elsewhere")
    for other in workspace.metafile_names():
        if other != name and (is_within(name, other) or is_within(other, name)):
            raise InvalidInput(f"{name} would overlap {other}", hint="-o PATH puts it elsewhere")


def _written_registry(registry: str, root: str, base: str) -> str:
    """A path relative to where it was typed becomes one relative to the repository."""
    if not is_local_url(registry) or registry.startswith("file://"):
        return strip_credentials(registry)
    return registry if os.path.isabs(registry) else os.path.relpath(os.path.join(base, registry), root)


def make_lock(content: Content, found: Resolved) -> Lock:
    """Return the lock of content at a revision; a remote is noted when its address means the same everywhere."""
    totals = content.totals
    noted = Remote("noted", "")
    if content.source is not None and content.dataset_manifest is not None:
        remotes = content.source.remotes(found.commit, overridden=False)
        noted = next((r for r in remotes if not is_local(r.url) or os.path.isabs(r.url)), noted)
    return Lock(
        commit=found.commit,
        manifest=content.manifest,
        files=totals.files,
        size=totals.size,
        dataset_manifest=content.dataset_manifest,
        tag=found.resolution.tag,
        version=found.resolution.version,
        remote=noted.url,
        remote_options=noted.options,
    )


def locked_content(workspace: Workspace, metafile: ImportFile, *, commit: str = "") -> Content:
    """Return what an import's lock says, from wherever it can be had: the registry, or the remote that the lock noted.

    Raises
    ------
    NotFound, StoreError, AuthError
        When the registry is gone and the lock notes no remote.
    """
    lock = metafile.lock
    selection = Selection(metafile.part, metafile.include, metafile.exclude)
    machine = workspace.machine
    try:
        source = RegistrySource.open(
            metafile.registry,
            machine,
            base=workspace.root,
            need=lock.commit,
        )
    except (NotFound, StoreError, AuthError) as error:
        if lock.dataset_manifest is None or not lock.remote:
            error.hint = error.hint or f"{metafile.path} is locked to commit {lock.commit[:10]} of it"
            raise
        stores: list[Store] = [_noted_store(workspace, lock)]
        reader = TreeReader(stores, machine.cache, machine.executor)
        return Content(None, reader, reader.open(lock.dataset_manifest), selection, lock.dataset_manifest)
    if lock.dataset_manifest is not None:
        original = source.metafile(lock.commit, metafile.dataset) if source.repository.has_commit(lock.commit) else None
        if isinstance(original, ImportFile):
            return content_at(source, lock.commit, Target(metafile.dataset, "", metafile.part), selection)
        return content_of_dataset(source, lock.dataset_manifest, lock.commit, selection, noted=noted_remote(lock))
    return content_at(source, lock.commit, Target(metafile.dataset, "", metafile.part), selection)
