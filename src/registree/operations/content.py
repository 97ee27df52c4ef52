"""What a target holds at one revision of a registry: a dataset or a part of it, files of Git, or both together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from registree.config import Remote, make_remote
from registree.errors import AuthError, IntegrityError, ObjectMissing, RegError, StoreError
from registree.model.ids import ContentId, hash_bytes
from registree.model.manifest import Entry, Kind, Totals, check_entries, manifest_id
from registree.model.metafile import DatasetFile, ImportFile, Lock
from registree.model.paths import METAFILE_SUFFIX, DatasetName, join
from registree.model.places import Extents
from registree.model.selection import Selection
from registree.model.selectors import Resolution, not_found, resolve
from registree.model.targets import Target, parse_part
from registree.source import RegistrySource
from registree.store.tree_reader import Leaf, Tree, TreeReader

_Version = TypeVar("_Version")
_Compared = TypeVar("_Compared")
_LFS = b"version https://git-lfs.github.com/spec/v1\n"


class Item(NamedTuple):
    """An entry and where its bytes are: extents of packs, or a blob of the registry's Git (else empty)."""

    entry: Entry
    extents: Extents
    blob: str = ""


class Resolved(NamedTuple):
    """A target's revision: how the selector was understood, and the commit."""

    resolution: Resolution
    commit: str


def resolve_target(source: RegistrySource, target: Target, selector: str) -> Resolved:
    """Find the commit that a selector means for a target.

    Raises
    ------
    NotFound
        When there is no such revision; the nearest branches and tags are named.
    """
    repository = source.repository
    refs = repository.refs()
    found = resolve(selector, target.name, refs, repository.default_branch())
    if found.ref in refs:
        return Resolved(found, refs[found.ref])
    try:
        return Resolved(found, repository.commit_of(found.ref))
    except RegError:
        names = sorted({ref.split("/", 2)[2] for ref in refs})
        raise not_found("revision", selector or found.ref, source.url, names) from None


def as_far_as_known(before: _Version | None, compare: Callable[[_Version | None], _Compared]) -> _Compared:
    """Compare with an older version, or with None when a part of it turns out to be lost or out of reach."""
    try:
        return compare(before)
    except (ObjectMissing, StoreError, AuthError):
        if before is None:
            raise
        return compare(None)


class Content(msgspec.Struct, frozen=True, dict=True):
    """What is to be placed: entries with their places.

    `dataset_manifest` is the manifest of the whole dataset; None for what Git itself holds.
    """

    source: RegistrySource | None
    reader: TreeReader | None
    tree: Tree | None
    selection: Selection
    dataset_manifest: ContentId | None
    items_in_git: Sequence[Item] = ()

    @cached_property
    def manifest(self) -> ContentId:
        """The id of what is to be placed."""
        if self.tree is not None and self.selection.is_all:
            return ContentId(self.tree.manifest)
        return manifest_id(self.entries())

    @cached_property
    def totals(self) -> Totals:
        """Counts of what is to be placed."""
        if self.tree is not None and self.selection.is_all:
            return self.tree.totals
        entries = files = size = 0
        for entry in self.entries():
            entries, files, size = entries + 1, files + (entry.kind != Kind.DIRECTORY), size + entry.size
        return Totals(entries, files, size)

    def refreshed(self) -> Content | None:
        """Return it with its places read from the stores themselves; None when they are already."""
        if self.reader is None or self.tree is None or self.tree.fresh:
            return None
        return replace(self, tree=self.reader.open(self.tree.manifest, fresh=True))

    def leaves(self) -> list[Leaf]:
        """Return the leaf pages that may hold something wanted."""
        if self.tree is None:
            return []
        chosen, first = [], ""
        for leaf in self.tree.leaves:
            if self.selection.may_hold(first, leaf.ref.last):
                chosen.append(leaf)
            first = leaf.ref.last
        return chosen

    def entries(self) -> Iterator[Entry]:
        """Stream the entries, sorted."""
        if self.tree is None or self.reader is None:
            yield from (item.entry for item in self.items_in_git)
            return
        for content in self.reader.pages(self.tree, self.leaves(), maps=False):
            if self.selection.is_all:
                yield from content.entries
            else:
                yield from filter(None, map(self.selection.apply, content.entries))

    def items(self, leaves: Sequence[Leaf] | None = None) -> Iterator[Item]:
        """Stream entries with their places, sorted; of some leaf pages only when they are given."""
        if self.tree is None or self.reader is None:
            yield from self.items_in_git
            return
        for content in self.reader.pages(self.tree, self.leaves() if leaves is None else leaves, maps=True):
            every = self.selection.is_all
            for entry, extents in zip(content.entries, content.extents, strict=True):
                wanted = entry if every else self.selection.apply(entry)
                if wanted is not None:
                    yield Item(wanted, extents)


def content_of_dataset(
    source: RegistrySource,
    manifest: ContentId,
    commit: str | None,
    selection: Selection,
    *,
    noted: Remote | None = None,
) -> Content:
    """Return what a dataset's manifest holds, less what a selection leaves out.

    Parameters
    ----------
    noted
        The remote that a lock noted, to look in last.
    """
    reader = source.reader(source.remotes(commit, noted))
    return Content(source, reader, reader.open(manifest), selection, manifest)


def content_at(source: RegistrySource, commit: str, target: Target, selection: Selection) -> Content:
    """Return what a target is at a commit: a dataset, a file or folder of Git, or a folder that mixes both.

    Raises
    ------
    NotFound
        When there is nothing of that name; the nearest are named.
    IntegrityError
        When Git holds a pointer of Git LFS in place of data.
    """
    metafile = source.metafile(commit, target.name) if target.name else None
    if isinstance(metafile, DatasetFile):
        return content_of_dataset(source, metafile.manifest, commit, selection)
    if isinstance(metafile, ImportFile):
        return _content_of_import(source, metafile, selection, ())
    inner = _inside_dataset(source, commit, target)
    if inner is not None:
        return content_at(source, commit, inner, Selection(inner.part, selection.include, selection.exclude))
    return _content_in_git(source, commit, target, selection)


def _inside_dataset(source: RegistrySource, commit: str, target: Target) -> Target | None:
    """``images/cats/train`` may be typed for ``images/cats:train``."""
    parts = target.name.split("/")
    for depth in range(len(parts) - 1, 0, -1):
        name = DatasetName("/".join(parts[:depth]))
        if source.metafile(commit, name) is not None:
            below = "/".join(parts[depth:])
            return Target(name, "", parse_part(join(below, target.part) if target.part else below))
    return None


def _content_of_import(
    source: RegistrySource, metafile: ImportFile, selection: Selection, seen: tuple[str, ...]
) -> Content:
    """An import of an import reads the original's registry."""
    here = f"{metafile.registry} {metafile.dataset}"
    if here in seen or len(seen) > 16:
        raise IntegrityError(f"imports go in a circle: {' -> '.join((*seen, here))}", hint="import from the original")
    original = RegistrySource.open(metafile.registry, source.machine, base=source.repository.root)
    lock = metafile.lock
    own = Selection(metafile.part, metafile.include, metafile.exclude)
    if not own.is_all or lock.dataset_manifest is None:
        target = Target(metafile.dataset, "", metafile.part)
        whole = content_at(original, lock.commit, target, own)
        items = []
        for item in whole.items():
            wanted = selection.apply(item.entry)
            if wanted is not None:
                items.append(Item(wanted, item.extents, item.blob))
        return Content(original, whole.reader, None, selection, None, items)
    found = original.metafile(lock.commit, metafile.dataset) if original.repository.has_commit(lock.commit) else None
    if isinstance(found, ImportFile):
        return _content_of_import(original, found, selection, (*seen, here))
    return content_of_dataset(original, lock.dataset_manifest, lock.commit, selection, noted=noted_remote(lock))


def noted_remote(lock: Lock) -> Remote | None:
    """Return the remote that a lock notes, checked like any other."""
    return make_remote("noted", lock.remote, lock.remote_options, "the lock") if lock.remote else None


def _content_in_git(source: RegistrySource, commit: str, target: Target, selection: Selection) -> Content:
    path = join(target.name, target.part) if target.part else target.name
    found = source.repository.lookup(commit, path)
    if found is None:
        names = source.dataset_names(commit)
        error = not_found("dataset or path", path, f"{source.url} at {commit[:10]}", names)
        if not names:
            error.hint = error.hint or "it has no datasets at that revision"
        raise error
    below = Selection(include=selection.include, exclude=selection.exclude)
    items: list[Item] = []
    readers: list[TreeReader] = []
    files = list(source.repository.walk(commit, path)) or [found]
    for file in files:
        inner = file.path[len(path) + 1 :] if path else file.path
        if file.path.endswith(METAFILE_SUFFIX):
            name = DatasetName(file.path.removesuffix(METAFILE_SUFFIX))
            content = content_at(source, commit, Target(name), Selection())
            readers += [content.reader] if content.reader is not None else []
            prefix = name[len(path) + 1 :] if path else name
            for item in content.items():
                inside = item.entry
                path_here = join(prefix, inside.path) if inside.path else prefix
                moved = Entry(path_here, inside.kind, inside.size, inside.content)
                items.append(Item(moved, item.extents, item.blob))
        elif file.path.rsplit("/", 1)[-1] != ".gitignore":
            items.append(_item_of_blob(source, file.blob, inner, file.mode, file.path))
    wanted = [Item(entry, i.extents, i.blob) for i in items if (entry := below.apply(i.entry)) is not None]
    wanted.sort(key=lambda item: item.entry.path)
    check_entries([item.entry for item in wanted])
    stores = dict.fromkeys(store for reader in readers for store in reader.stores)
    reader = TreeReader(list(stores), source.machine.cache, source.machine.executor) if stores else None
    return Content(source, reader, None, below, None, wanted)


def _item_of_blob(source: RegistrySource, blob: str, path: str, mode: int, place: str) -> Item:
    content = source.repository.blob(blob)
    if mode & 0o170000 == 0o120000:
        return Item(Entry(path, Kind.LINK, len(content), content), (), blob)
    if content.startswith(_LFS):
        raise IntegrityError(
            f"{place} in {source.url} is a pointer of Git LFS, not the data",
            hint="its owner can put it into the registry: git lfs pull, then reg add",
        )
    kind = Kind.EXECUTABLE if mode & 0o111 else Kind.FILE
    return Item(Entry(path, kind, len(content), hash_bytes(content)), (), blob)
