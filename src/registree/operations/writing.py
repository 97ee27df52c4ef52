"""Write the next version of a dataset into the outbox, reading only what is new."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple, Self

from registree.errors import (
    RUN_WHEN_QUIET,
    AuthError,
    Conflict,
    FormatError,
    IntegrityError,
    InvalidInput,
    StoreError,
    translate_os_error,
)
from registree.git.ignore import RegIgnore
from registree.model.contents import ContentsCounter
from registree.model.ids import EMPTY, ContentId, hash_bytes
from registree.model.manifest import Entry, Kind, LeafCutter, seal_leaf
from registree.model.paths import METAFILE_SUFFIX, DatasetName, join
from registree.model.places import Extents
from registree.operations.base_version import BaseVersion, Row
from registree.operations.observing import is_still, place_of
from registree.store.chunk_list import decode_chunks
from registree.store.file_stat import Stat, file_stat, stat_row
from registree.store.fingerprint import Fingerprint
from registree.store.layout import CHUNKS, decompress, key
from registree.store.open_pack import Placed
from registree.store.packing import CHUNKED_FROM, Packer
from registree.store.reading_ahead import ReadFile, read_ahead, reading_workers
from registree.store.scanning import Found, Scan
from registree.store.state import Learning
from registree.store.tree_reader import TreeReader
from registree.store.tree_writer import TreeWriter, WrittenTree
from registree.workspace import Workspace

_TRIES = 3
"""How often a file that changes while it is read is read; once in place, where what was noted of it would be wrong."""


class OutboxWriter:
    """One run of `add` over some datasets: their new content shares packs, and all of it is published, or nothing.

    Leaving it drops what was not published.
    """

    def __init__(self, workspace: Workspace, *, in_place: bool = False) -> None:
        self.workspace = workspace
        self.reader: TreeReader = workspace.reader()
        self.held = workspace.held_packs(in_place=in_place)
        self._folder = workspace.outbox.begin()
        self.packer = Packer(self._folder, self.held.place, in_place=in_place)
        self.tries = 1 if in_place else _TRIES
        self._written: list[tuple[DatasetWriter, WrittenTree]] = []
        self._writers: list[DatasetWriter] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.packer.close()
        for writer in self._writers:
            writer.tree.abandon()
        self.workspace.outbox.abandon()

    def dataset(self, name: DatasetName, base: ContentId | None) -> DatasetWriter:
        """Begin the next version of a dataset."""
        folder = os.path.join(self._folder, f"dataset-{len(self._writers)}")
        os.mkdir(folder)
        writer = DatasetWriter(self, name, base, folder)
        self._writers.append(writer)
        return writer

    def finish(self) -> list[WrittenTree]:
        """Name the packs and make the manifests; nothing is published yet."""
        with self._writing_payload():
            self.packer.seal()
            self._written = [(writer, writer.tree.finish()) for writer in self._writers]
        return [tree for _, tree in self._written]

    def publish(self) -> None:
        """Note what was learnt while the disk writes, and move what was written into the outbox.

        What is noted of packs that never come there is harmless: nobody trusts it without looking there.
        """
        new = [tree for writer, tree in self._written if writer.is_new(tree)]
        now = time.time_ns()
        self.workspace.state.update(
            stats=chain.from_iterable(writer.learning.rows(now) for writer, _ in self._written),
            packs=self.packer.packs() if new else (),
        )
        if new:
            with self._writing_payload():
                self.packer.finish()
            self.workspace.outbox.publish(self.packer.closed, new)

    @contextmanager
    def _writing_payload(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise translate_os_error(error, "new payload", self.workspace.outbox.root) from error

    def note_placed(self) -> None:
        """Note that the work trees are what was written: when metafiles say so too, for else it is no version."""
        placed = [(writer.name, tree.manifest) for writer, tree in self._written]
        self.workspace.state.update(placed=placed)


class _Step(NamedTuple):
    """A path of the work tree, found at a time (nanoseconds since the epoch): the base's row for it, and what it is as
    far as that is known without reading it.
    """

    found: Found
    older: Row | None
    known: tuple[Entry, tuple[Placed, ...]] | None
    found_at: int


class DatasetWriter:
    """Writes the pages of one dataset's next version."""

    def __init__(self, run: OutboxWriter, name: DatasetName, base: ContentId | None, folder: str) -> None:
        self.name = name
        self.learning = Learning(run.workspace.state, name)
        self.stored = 0
        self.files = 0
        self.contents = ContentsCounter()
        self.is_kept = False
        """Whether the work tree was known to be the base, so that it was not walked."""
        self.fingerprint: Fingerprint | None = None
        """That of the work tree as it was found, if it can be told."""
        self._run = run
        self._workspace = run.workspace
        self._root = os.path.join(run.workspace.root, name)
        self.base = BaseVersion.open(run.workspace, name, base, run.reader, run.held)
        """The version this one follows, if there is one that can be read."""
        self.tree = TreeWriter(folder, self.base.pages() if self.base is not None else {})

    def is_new(self, tree: WrittenTree) -> bool:
        """Tell whether a written tree holds anything that no store has yet, or names bytes elsewhere."""
        base = self.base.tree if self.base is not None else None
        if base is None or self.stored or tree.packs:
            return True
        return (base.manifest, base.root_map or tree.root_map) != (tree.manifest, tree.root_map)

    def write_work_tree(self) -> None:
        """Write all leaf pages of the dataset's work tree: walk it, unless it is known to be the base."""
        if self.base is not None and self._keep_clean(self.base):
            return
        cutter = LeafCutter()
        run: list[Entry] = []
        placed: list[tuple[Placed, ...]] = []
        empty = as_before = True
        last: str | None = None
        before = self._run.packer.stored
        try:
            for entry, places, kept in self._walk():
                if last is not None and entry.path <= last:  # a folder that is not empty any more sorts elsewhere
                    raise _changed(join(self.name, entry.path))
                last = entry.path
                self.contents.add(entry)
                self.files += 1
                run.append(entry)
                as_before = as_before and kept
                if entry.is_file and entry.size:
                    placed.append(places)
                if cutter.ends_page(entry.path):
                    self.tree.add(seal_leaf(run), placed, keep=as_before)
                    run, placed, empty, as_before = [], [], False, True
                    if self.tree.is_full:
                        self._run.packer.seal()
            if run or empty:
                self.tree.add(seal_leaf(run), placed, keep=as_before)
        except OSError as error:
            raise translate_os_error(error, os.path.basename(str(error.filename or self.name)), self._root) from error
        self.stored = self._run.packer.stored - before

    def _keep_clean(self, base: BaseVersion) -> bool:
        """Take all pages of the base when the work tree is known to be it and all of it may be named again."""
        leaves, files = base.tree.leaves, base.tree.totals.entries
        known = self._workspace.state.clean(self.name, base.tree.manifest)
        places = [leaf.place for leaf in leaves if leaf.place is not None]  # a page that stays alone has none
        is_clean = places and known is not None and is_still(self._workspace, self.name, files, known)
        if not is_clean or not base.is_held():
            return False
        for leaf, place in zip(leaves, places, strict=True):
            self.tree.keep(leaf.ref, place)
        self.files, self.is_kept = files, True
        return True

    def _walk(self) -> Iterator[tuple[Entry, tuple[Placed, ...], bool]]:
        """Stream entries with their places, and whether those are the base's own."""
        workspace = self._workspace
        workers = reading_workers(workspace.machine.processes, workspace.machine.spares)
        scan = Scan(self._root, RegIgnore(self._root, workspace.root), workspace.machine.warn, workers=workers)
        try:
            for step, read in read_ahead(self._steps(scan), self._to_read, workers):
                entry, places = step.known or (self._pack(step, read) if read is not None else self._store(step))
                yield entry, places, not places or (step.older is not None and places is step.older[1])
        finally:
            workers.close()
        self.fingerprint = scan.fingerprint()

    def _steps(self, scan: Iterable[Found]) -> Iterator[_Step]:
        """Walk the work tree beside the base and the stat cache."""
        workspace = self._workspace
        base = self.base.rows() if self.base is not None else iter(())
        known = workspace.state.stats(self.name)
        base_row = next(base, None)
        stat_found = next(known, None)
        for found in scan:
            path = found.path
            if path.endswith(METAFILE_SUFFIX):
                inner = join(self.name, path.removesuffix(METAFILE_SUFFIX))
                raise InvalidInput(
                    f"{self.name} lies around the dataset {inner}", hint=f"move that out: reg move {inner} NEW-NAME"
                )
            while base_row is not None and base_row[0].path < path:
                base_row = next(base, None)
            while stat_found is not None and stat_found[0] < path:
                stat_found = next(known, None)
            cached = stat_found[1] if stat_found is not None and stat_found[0] == path else None
            if not path:
                cached = workspace.state.stat(self.name)
            older = base_row if base_row is not None and base_row[0].path == path else None
            yield _Step(found, older, self._known(found, cached, older), time.time_ns())

    def _to_read(self, step: _Step) -> tuple[str, int] | None:
        """Return the file that is to be read ahead: a small one that is not known."""
        size = step.found.stat.size
        return (place_of(self._root, step.found.path), size) if step.known is None and size < CHUNKED_FROM else None

    def _known(self, found: Found, cached: Stat | None, older: Row | None) -> tuple[Entry, tuple[Placed, ...]] | None:
        """Return what is known without reading, if anything is."""
        if found.kind == Kind.DIRECTORY:
            return Entry(found.path, found.kind, 0, b""), ()
        if found.kind == Kind.LINK:
            return Entry(found.path, found.kind, len(found.target), found.target), ()
        size = found.stat.size
        if not size:
            return Entry(found.path, found.kind, 0, EMPTY), ()
        if cached is not None and cached.matches(found.stat):
            places = self._places_of(cached.content, size, older)
            if places is not None:
                return Entry(found.path, found.kind, size, cached.content), places
        return None

    def _pack(self, step: _Step, read: ReadFile) -> tuple[Entry, tuple[Placed, ...]]:
        """Pack a small file that was read, unless it was changed after it was found."""
        path, before = step.found.path, step.found.stat
        row, mode, content = read
        if (row.size, row.mtime, row.inode) != (before.size, before.mtime, before.inode):
            return self._store(step)
        identifier = ContentId(row.content)
        same = self._older_places(identifier, step.older)
        places = same or self._run.packer.store_small(content, identifier, place_of(self._root, path))
        if row.is_older(step.found_at):
            self.learning.add(path, row)
        return Entry(path, _kind(mode), row.size, identifier), places

    def _store(self, step: _Step) -> tuple[Entry, tuple[Placed, ...]]:
        """Read and pack a file by itself."""
        path = step.found.path
        if step.older is not None and step.found.stat.size >= CHUNKED_FROM:
            self._learn_chunks(step.older[1])
        for _ in range(self._run.tries):
            now = time.time_ns()
            stored = self.store_file(place_of(self._root, path), step.older)
            if stored is not None:
                content, places, after = stored
                row = stat_row(file_stat(after), content, now)
                if row is not None:
                    self.learning.add(path, row)
                return Entry(path, _kind(after.st_mode), after.st_size, content), places
        raise _changed(join(self.name, path))

    def _places_of(self, content: bytes, size: int, older: Row | None) -> tuple[Placed, ...] | None:
        if not size:
            return ()
        if older is not None and older[0].content == content and older[0].is_file:
            return self._older_places(content, older)
        found = self._run.packer.find(content)
        return (found,) if found is not None and found.length == size else None

    def _older_places(self, content: bytes, older: Row | None) -> Extents | None:
        """Return where the base has this content, unless that is something else or was lost."""
        same = older is not None and older[0].content == content and older[0].is_file
        return older[1] if older and same and self.base is not None and self.base.may_name(older[1]) else None

    def store_file(
        self, path: str, older: Row | None = None
    ) -> tuple[ContentId, tuple[Placed, ...], os.stat_result] | None:
        """Read, hash and pack one file; None when it changed meanwhile.

        Parameters
        ----------
        older
            What the base has there: content that is the same keeps its place.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            before = os.fstat(descriptor)
            if before.st_size >= CHUNKED_FROM:
                try:
                    identifier, places = self._run.packer.store_large(descriptor, before.st_size, path)
                except Conflict:
                    return None
            else:
                content = os.read(descriptor, before.st_size + 1)
                if len(content) != before.st_size:
                    return None
                identifier = hash_bytes(content) if content else EMPTY
                same = self._older_places(identifier, older)
                places = same if same is not None else self._run.packer.store_small(content, identifier, path)
            after = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if sum(place.length for place in places) != before.st_size:
            raise IntegrityError(
                f"a chunk list that {path} was compared with is wrong", hint="reg verify --remote --deep"
            )
        if before.st_size >= CHUNKED_FROM:
            places = self._places_of(identifier, before.st_size, older) or places
        unchanged = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        return (identifier, places, after) if unchanged else None

    def _learn_chunks(self, extents: Extents) -> None:
        """Note which chunks the older version of a large file has, from lists beside packs that are new here."""
        packs = {extent.pack.id: extent.pack for extent in extents}
        for pack in packs.values():
            if self._run.packer.knows_pack(pack) or self._run.held.knows_chunks(pack):
                continue
            try:
                blob = self._run.reader.pack_store(pack).read(key(CHUNKS, pack.id))
                chunks = decode_chunks(decompress(blob, "a chunk list"))
            except (IntegrityError, FormatError, StoreError, AuthError):  # without it less is shared
                continue
            if sum(length for _, length in chunks) == pack.size:
                self._run.packer.learn(pack, chunks)


def _changed(path: str) -> Conflict:
    return Conflict(f"{path} changed each time that it was read", hint=RUN_WHEN_QUIET)


def _kind(mode: int) -> Kind:
    return Kind.EXECUTABLE if mode & 0o100 else Kind.FILE
