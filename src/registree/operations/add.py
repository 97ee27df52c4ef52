"""`reg add`: a file or a directory becomes a dataset, or the next version of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from registree.errors import Conflict, InvalidInput, NotFound, ObjectMissing, StoreError
from registree.git.ignore import gitignore_edits, regignore
from registree.git.repository import Edit, chain
from registree.model.contents import ContentsCounter
from registree.model.ids import EMPTY, ContentId, hash_bytes
from registree.model.manifest import Entry, Kind, LeafCutter, manifest_id, seal_leaf
from registree.model.metafile import DatasetFile
from registree.model.paths import METAFILE_SUFFIX, DatasetName, is_within, join, parse_dataset_name
from registree.model.places import Extents
from registree.operations.observing import observed_entries, place_of
from registree.store.chunk_index import decode_chunks
from registree.store.directory import translate_os_error
from registree.store.layout import CHUNKS, decompress, key
from registree.store.packing import CHUNKED_FROM, Packer, Placed
from registree.store.scanning import Found, scan
from registree.store.state import Stat, stat_row
from registree.store.tree_reader import Tree, TreeReader
from registree.store.tree_writer import TreeWriter, WrittenTree
from registree.workspace import Workspace

_TRIES = 3
_LEARN_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class AddedDataset:
    """A dataset after `add`: its manifest, counts, the bytes that were new, and whether anything changed."""

    name: DatasetName
    manifest: ContentId
    files: int
    size: int
    stored: int
    changed: bool
    existed: bool


@dataclass(frozen=True, slots=True)
class AddResult:
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
        names = [check_new_name(workspace, path) for path in paths]
        if dry_run:
            return AddResult(tuple(_would_add(workspace, name) for name in names), None)
        added = [_add_one(workspace, name, in_place) for name in names]
        edits: dict[str, Edit] = {}
        for result, metafile in added:
            edits[result.name + METAFILE_SUFFIX] = metafile.render().encode()
            for path, edit in gitignore_edits(result.name, ignored=True).items():
                edits[path] = chain(edits[path], edit) if path in edits else edit
        commit = workspace.repository.edit(edits, message)
    return AddResult(tuple(result for result, _ in added), commit)


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
        raise InvalidInput(f"{name} belongs to the registry itself")
    if workspace.read_metafile(name) is not None and not isinstance(workspace.read_metafile(name), DatasetFile):
        raise InvalidInput(f"{name} is an import, which follows its registry", hint=f"reg update {name}")
    tracked = workspace.repository.tracked(name)
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


def _add_one(workspace: Workspace, name: DatasetName, in_place: bool) -> tuple[AddedDataset, DatasetFile]:
    old = workspace.read_metafile(name)
    base = old if isinstance(old, DatasetFile) else None
    writer = DatasetWriter(workspace, name, base.manifest if base else None, in_place=in_place)
    try:
        tree, contents = writer.write_work_tree()
    except BaseException:
        workspace.outbox.abandon()
        raise
    changed = base is None or base.manifest != tree.manifest
    writer.publish(tree, needed=changed or not workspace.reader().holds(tree.manifest))
    totals = tree.totals
    metafile = base if base is not None else DatasetFile(name.rsplit("/", 1)[-1], tree.manifest, 0, 0, {})
    if changed:
        metafile = replace(
            metafile, manifest=tree.manifest, files=totals.files, size=totals.size, contents=contents.rows()
        )
    result = AddedDataset(
        name, tree.manifest, totals.files, totals.size, writer.stored, changed=changed, existed=base is not None
    )
    return result, metafile


def _would_add(workspace: Workspace, name: DatasetName) -> AddedDataset:
    old = workspace.read_metafile(name)
    base = old if isinstance(old, DatasetFile) else None
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


class DatasetWriter:
    """Writes the next version of one dataset into the outbox, reading only what is new."""

    def __init__(
        self, workspace: Workspace, name: DatasetName, base: ContentId | None, *, in_place: bool = False
    ) -> None:
        self._workspace = workspace
        self._name = name
        self._root = os.path.join(workspace.root, name)
        self._reader = workspace.reader()
        self._base = self._open_base(base)
        folder = workspace.outbox.begin()
        self.packer = Packer(folder, workspace.state.place, in_place=in_place)
        known = {leaf.ref.page: leaf.place for leaf in self._base.leaves if leaf.place} if self._base else {}
        inner = self._base.inner if self._base else {}
        self._tree = TreeWriter(folder, {**known, **inner})
        self._learnt: list[tuple[str, Stat]] = []
        self._now = time.time_ns()

    def _open_base(self, base: ContentId | None) -> Tree | None:
        if base is None:
            return None
        try:
            return self._reader.open(base)
        except (ObjectMissing, StoreError, NotFound) as error:
            self._workspace.machine.warn(
                f"the last version of {self._name} cannot be read here ({error.message}): all of it is stored again"
            )
            return None

    @property
    def base(self) -> Tree | None:
        """The version this one follows."""
        return self._base

    @property
    def reader(self) -> TreeReader:
        """Reads the base."""
        return self._reader

    @property
    def tree(self) -> TreeWriter:
        """Takes the pages."""
        return self._tree

    @property
    def stored(self) -> int:
        """Bytes of payload that were new."""
        return sum(pack.size for pack in self.packer.closed)

    def write_work_tree(self) -> tuple[WrittenTree, ContentsCounter]:
        """Walk the dataset's work tree and write all its pages."""
        contents = ContentsCounter()
        cutter = LeafCutter()
        run: list[Entry] = []
        placed: list[tuple[Placed, ...]] = []
        empty = True
        try:
            for entry, places in self._walk():
                contents.add(entry)
                run.append(entry)
                if entry.is_file and entry.size:
                    placed.append(places)
                if cutter.ends_page(entry.path):
                    self._tree.add(seal_leaf(run), placed)
                    run, placed, empty = [], [], False
        except OSError as error:
            raise translate_os_error(error, os.path.basename(str(error.filename or self._name)), self._root) from error
        if run or empty:
            self._tree.add(seal_leaf(run), placed)
        self.packer.finish()
        return self._tree.finish(), contents

    def _walk(self) -> Iterator[tuple[Entry, tuple[Placed, ...]]]:
        workspace = self._workspace
        base = self._base_rows()
        known = workspace.state.stats(self._name)
        base_row = next(base, None)
        stat_found = next(known, None)
        for found in scan(self._root, regignore(self._root), workspace.machine.warn):
            path = found.path
            if path.endswith(METAFILE_SUFFIX):
                inner = join(self._name, path.removesuffix(METAFILE_SUFFIX))
                raise InvalidInput(
                    f"{self._name} lies around the dataset {inner}", hint=f"move that out: reg move {inner} NEW-NAME"
                )
            while base_row is not None and base_row[0].path < path:
                base_row = next(base, None)
            while stat_found is not None and stat_found[0] < path:
                stat_found = next(known, None)
            cached = stat_found[1] if stat_found is not None and stat_found[0] == path else None
            if not path:
                cached = workspace.state.stat(self._name)
            older = base_row if base_row is not None and base_row[0].path == path else None
            yield self._entry(found, cached, older)

    def _base_rows(self) -> Iterator[tuple[Entry, Extents]]:
        if self._base is not None:
            for content in self._reader.pages(self._base, self._base.leaves, maps=True):
                yield from zip(content.entries, content.extents, strict=True)

    def _entry(
        self, found: Found, cached: Stat | None, older: tuple[Entry, Extents] | None
    ) -> tuple[Entry, tuple[Placed, ...]]:
        if found.kind == Kind.DIRECTORY:
            return Entry(found.path, found.kind, 0, b""), ()
        if found.kind == Kind.LINK:
            return Entry(found.path, found.kind, len(found.target), found.target), ()
        size = found.stat.st_size
        if cached is not None and cached.matches(found.stat):
            places = self._places_of(cached.content, size, older)
            if places is not None:
                return Entry(found.path, found.kind, size, cached.content), places
        if older is not None and size >= CHUNKED_FROM:
            self._learn_chunks(older[1])
        for _ in range(_TRIES):
            now = time.time_ns()
            stored = self.store_file(place_of(self._root, found.path), found.stat.st_size)
            if stored is not None:
                content, places, after = stored
                row = stat_row(after, content, now)
                if row is not None:
                    self._learn(join(self._name, found.path) if found.path else self._name, row)
                kind = Kind.EXECUTABLE if after.st_mode & 0o100 else Kind.FILE
                return Entry(found.path, kind, after.st_size, content), places
            found = found._replace(stat=os.stat(place_of(self._root, found.path)))
        raise Conflict(
            f"{join(self._name, found.path)} keeps changing while it is read",
            hint="run it again when nothing writes to it",
        )

    def _learn(self, path: str, row: Stat) -> None:
        """Note what a file is; the state learns it even when the rest fails, since it stays true."""
        self._learnt.append((path, row))
        if len(self._learnt) >= _LEARN_AT_ONCE:
            self._workspace.state.update(stats=self._learnt)
            self._learnt.clear()

    def _places_of(self, content: bytes, size: int, older: tuple[Entry, Extents] | None) -> tuple[Placed, ...] | None:
        if not size:
            return ()
        if older is not None and older[0].content == content and older[0].is_file:
            return older[1]
        found = self.packer.find(content)
        return (found,) if found is not None and found.length == size else None

    def store_file(self, path: str, size: int) -> tuple[ContentId, tuple[Placed, ...], os.stat_result] | None:
        """Read, hash and pack one file; None when it changed meanwhile."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            before = os.fstat(descriptor)
            if before.st_size >= CHUNKED_FROM:
                try:
                    identifier, places = self.packer.store_large(descriptor, before.st_size, path)
                except Conflict:
                    return None
            else:
                content = os.read(descriptor, before.st_size + 1)
                if len(content) != before.st_size:
                    return None
                identifier = hash_bytes(content) if content else EMPTY
                places = self.packer.store_small(content, identifier, path)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return (identifier, places, after) if unchanged else None

    def _learn_chunks(self, extents: Extents) -> None:
        """Note which chunks the older version of a large file has, from the lists beside its packs."""
        packs = {extent.pack.id: extent.pack for extent in extents}
        for pack in packs.values():
            if self.packer.knows_pack(pack):
                continue
            try:
                blob = self._reader.pack_store(pack).read(key(CHUNKS, pack.id))
            except (ObjectMissing, StoreError):
                continue
            self.packer.learn(pack, decode_chunks(decompress(blob, "a chunk list")))

    def publish(self, tree: WrittenTree, *, needed: bool) -> None:
        """Move it into the outbox, unless a store has it, and note what was learnt."""
        outbox = self._workspace.outbox
        if needed:
            outbox.publish(self.packer.closed, tree)
        places = self.packer.places() if needed else ()
        self._workspace.state.update(stats=self._learnt, places=places, placed=[(self._name, tree.manifest)])
        outbox.abandon()
