"""Look without fetching payload: `list`, `show`, `files`, `diff`; and `cat`, which brings one file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from registree.errors import FormatError, IntegrityError, InvalidInput, NotFound
from registree.model.diff import Change, DiffSummary, diff_entries, differing_pages, find_renames, summarize
from registree.model.ids import ContentId
from registree.model.manifest import Entry, Kind
from registree.model.metafile import DatasetFile, ImportFile, Metafile
from registree.model.paths import DatasetName
from registree.model.places import Extents
from registree.model.selection import Selection
from registree.model.selectors import TAGS, all_releases, not_found, release_tags
from registree.model.targets import Target
from registree.operations.content import Content, Item, content_at, content_of_dataset, resolve_target
from registree.operations.imports import locked_content
from registree.operations.observing import observed_entries
from registree.source import Machine, RegistrySource
from registree.store.base import PIECE
from registree.store.file_stat import Stat
from registree.store.payload import verified_pieces
from registree.store.tree_reader import Leaf, verify_content
from registree.workspace import Workspace


class ListedDataset(msgspec.Struct, frozen=True):
    """One dataset of a registry: counts, its latest release, and what its owner says of it."""

    name: str
    kind: str
    files: int
    size: int
    version: str
    meta: Mapping[str, Any]


def list_datasets(
    source: RegistrySource, selector: str = "", *, work_tree: Workspace | None = None
) -> list[ListedDataset]:
    """List the datasets of a registry at a revision, or of a work tree as it is.

    Broken metafiles are warned of and left out.
    """
    broken: dict[str, FormatError] = {}
    if work_tree is not None and not selector:
        found = work_tree.metafiles(broken)
    else:
        commit = resolve_target(source, Target(DatasetName("")), selector).commit
        found = source.metafiles(commit, broken)
    for error in broken.values():
        source.machine.warn(error.message)
    refs = source.repository.refs()
    latest = {
        name: str(max(stable))
        for name, versions in all_releases(refs).items()
        if (stable := [version for version in versions if version.stable])
    }
    return [_listed(name, file, latest.get(name, "")) for name, file in sorted(found.items())]


def _listed(name: str, file: Metafile, version: str) -> ListedDataset:
    if isinstance(file, ImportFile):
        return ListedDataset(name, "import", file.lock.files, file.lock.size, file.lock.version, {})
    return ListedDataset(name, "dataset", file.files, file.size, version, file.meta)


class ShownDataset(msgspec.Struct, frozen=True):
    """A dataset at a revision, with all its versions and labels (tag and commit)."""

    name: DatasetName
    commit: str
    metafile: Metafile
    versions: Mapping[str, str]
    labels: Mapping[str, str]
    remotes: tuple[str, ...]


def show(source: RegistrySource, target: Target) -> ShownDataset:
    """Describe a dataset.

    Raises
    ------
    NotFound
        When there is none of that name at that revision.
    """
    commit = resolve_target(source, target, target.selector).commit
    file = source.metafile(commit, target.name)
    if file is None:
        raise not_found("dataset", target.name, f"{source.url} at {commit[:10]}", source.dataset_names(commit))
    refs = source.repository.refs()
    released = release_tags(refs, target.name)
    versions = {str(version): refs[ref] for version, ref in sorted(released.items())}
    prefix = f"{TAGS}{target.name}@"
    labels = {
        ref.removeprefix(prefix): at
        for ref, at in refs.items()
        if ref.startswith(prefix) and ref not in released.values()
    }
    addresses = tuple(source.store(remote).address for remote in source.remotes(commit))
    return ShownDataset(target.name, commit, file, versions, labels, addresses)


def open_content(source: RegistrySource, target: Target) -> Content:
    """Return what a target holds."""
    commit = resolve_target(source, target, target.selector).commit
    return content_at(source, commit, target, Selection(target.part))


def files(source: RegistrySource, target: Target) -> Iterator[Entry]:
    """Stream the entries of a target, sorted.

    Raises
    ------
    NotFound
        When the target, or the part of it that was asked for, does not exist.
    """
    content = open_content(source, target)
    some = False
    for entry in content.entries():
        some = True
        yield entry
    if target.part and not some:
        raise NotFound(f"{target.name} holds no {target.part}", hint=f"reg files {target.name} lists what it holds")


def cat(source: RegistrySource, target: Target) -> Iterator[bytes]:
    """Stream one file's bytes; a file of up to 16 MiB is verified before the first byte, a larger one at its end.

    Raises
    ------
    NotFound
        When there is no such file.
    InvalidInput
        When it is a folder.
    """
    content = open_content(source, target)
    items = list(_first_two(content))
    if not items:
        raise NotFound(f"{target.name} holds no {target.part or 'files'}", hint=f"reg files {target.name}")
    item = items[0]
    if item.entry.path or not item.entry.is_file:
        kind = "a link" if item.entry.kind == Kind.LINK and not item.entry.path else "a folder"
        raise InvalidInput(f"{target} is {kind}", hint=f"reg files {target} lists it; reg get brings it")
    if item.blob and content.source is not None:
        yield content.source.repository.blob(item.blob)
        return
    try:
        first, rest = _begin(_stream(content, item.entry, item.extents))
    except IntegrityError:  # a cached map may be older than the store's, or damaged
        again = content.refreshed()
        if again is None:
            raise
        item = next(again.items())
        first, rest = _begin(_stream(again, item.entry, item.extents))
    yield first
    yield from rest


def _begin(pieces: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    return next(pieces, b""), pieces


def _first_two(content: Content) -> Iterator[Item]:
    for index, item in enumerate(content.items()):
        yield item
        if index:
            return


def _stream(content: Content, entry: Entry, extents: Extents) -> Iterator[bytes]:
    reader = content.reader
    if reader is None or not entry.size:
        return
    if entry.size <= PIECE:
        whole = b"".join(reader.read_pack(pack, offset, length) for pack, offset, length in extents)
        verify_content(whole, entry.content, "the file", reader.pack_store(extents[0].pack).address)
        yield whole
        return
    yield from verified_pieces(reader, entry, extents)


class DatasetDiff(msgspec.Struct, frozen=True):
    """How one dataset differs between two revisions; None for a manifest that is not there."""

    name: str
    before: ContentId | None
    after: ContentId | None
    changes: tuple[Change, ...]
    summary: DiffSummary


def diff(workspace: Workspace, before: str = "", after: str = "", names: Sequence[str] = ()) -> list[DatasetDiff]:
    """Compare two revisions, dataset by dataset, by the pages they do not share.

    Parameters
    ----------
    before
        A revision; empty for HEAD.
    after
        A revision; empty for the work tree as it is on the disk.
    names
        Datasets; empty for all.
    """
    source = workspace.registry()
    first = resolve_target(source, Target(DatasetName("")), before or _head(workspace)).commit
    old = source.metafiles(first, {})
    if after:
        second = resolve_target(source, Target(DatasetName("")), after).commit
        new: Mapping[str, Metafile] = source.metafiles(second, {})
    else:
        new = workspace.metafiles({})
    wanted = list(names) or sorted({*old, *new})
    for name in names:
        if name not in old and name not in new:
            raise not_found("dataset", name, workspace.root, sorted({*old, *new}))
    found = []
    for name in wanted:
        left, right = old.get(name), new.get(name)
        left_id, right_id = _manifest(left), _manifest(right)
        if after or not os.path.lexists(os.path.join(workspace.root, name)):
            changes = [] if left_id == right_id else _diff_manifests(workspace, source, left, right)
        else:
            changes = _diff_disk(workspace, source, left, name)
        if changes or left_id != right_id:
            found.append(DatasetDiff(name, left_id, right_id, tuple(changes), summarize(changes)))
    return found


def _head(workspace: Workspace) -> str:
    head = workspace.repository.head()
    if head is None:
        raise NotFound(f"{workspace.root} has no commit yet", hint="reg add PATH -m MESSAGE makes one")
    return head


def _manifest(file: Metafile | None) -> ContentId | None:
    return file.manifest if isinstance(file, DatasetFile) else file.lock.manifest if file is not None else None


def _content(workspace: Workspace, source: RegistrySource, file: Metafile | None) -> Content | None:
    if isinstance(file, ImportFile):
        return locked_content(workspace, file)
    if file is None:
        return None
    return content_of_dataset(source, file.manifest, None, Selection())


def _diff_manifests(
    workspace: Workspace, source: RegistrySource, left: Metafile | None, right: Metafile | None
) -> list[Change]:
    old, new = _content(workspace, source, left), _content(workspace, source, right)
    plain = old is not None and new is not None and old.selection.is_all and new.selection.is_all
    if (
        not plain
        or old is None
        or new is None
        or old.tree is None
        or new.tree is None
        or old.reader is None
        or new.reader is None
    ):
        return find_renames(
            diff_entries(old.entries() if old is not None else (), new.entries() if new is not None else ())
        )
    old_leaves, new_leaves = {x.ref.page: x for x in old.tree.leaves}, {x.ref.page: x for x in new.tree.leaves}
    gone, come = differing_pages([x.ref for x in old.tree.leaves], [x.ref for x in new.tree.leaves])
    return find_renames(
        diff_entries(
            _entries_of(old, [old_leaves[ref.page] for ref in gone]),
            _entries_of(new, [new_leaves[ref.page] for ref in come]),
        )
    )


def _entries_of(content: Content, leaves: Sequence[Leaf]) -> Iterator[Entry]:
    if content.reader is not None and content.tree is not None:
        for page in content.reader.pages(content.tree, leaves, maps=False):
            yield from page.entries


def _diff_disk(workspace: Workspace, source: RegistrySource, left: Metafile | None, name: str) -> list[Change]:
    old = _content(workspace, source, left)
    learnt: list[tuple[str, Stat]] = []
    entries = observed_entries(workspace, name, learnt)
    return find_renames(diff_entries(old.entries() if old is not None else (), entries))


def open_source(machine: Machine, registry: str, base: str) -> RegistrySource:
    """Open a registry by its URL or path; the empty text is the repository around `base`."""
    if registry:
        return RegistrySource.open(registry, machine, base=base)
    return Workspace.find(base, machine).registry()
