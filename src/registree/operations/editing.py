"""Change a dataset without having it: `reg add --into`, `reg remove NAME:PATH`. Only the pages touched are read."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from registree.errors import RUN_WHEN_QUIET, Conflict, InvalidInput, NotFound, StateError
from registree.git.ignore import RegIgnore
from registree.git.repository import Edit
from registree.model.contents import adjust
from registree.model.diff import Change, DiffSummary, find_renames, summarize
from registree.model.manifest import Entry, Kind, LeafCutter, check_entry, seal_leaf
from registree.model.paths import METAFILE_SUFFIX, DatasetName, is_within, join
from registree.model.targets import Target
from registree.operations.guarding import refuse_edited
from registree.operations.observing import place_of
from registree.operations.writing import DatasetWriter, OutboxWriter
from registree.store.open_pack import Placed
from registree.store.scanning import Scan
from registree.store.tree_reader import Leaf, Tree
from registree.workspace import Workspace

Addition = tuple[Entry, tuple[Placed, ...]]


class EditResult(msgspec.Struct, frozen=True):
    """A dataset after an edit: what changed in it, its counts, and the commit when one was made."""

    name: DatasetName
    changes: DiffSummary
    files: int
    size: int
    commit: str | None


def add_into(workspace: Workspace, target: Target, sources: Sequence[str], *, message: str | None = None) -> EditResult:
    """Put files and folders into a dataset, whether or not it is on this disk.

    Parameters
    ----------
    target
        The dataset, and the folder in it to put them into.
    sources
        Absolute paths of files and folders, anywhere.

    Raises
    ------
    StateError
        When the dataset has changes on this disk: they are added first.
    """
    refuse_selectors([target], "add --into")
    with workspace.writing(), OutboxWriter(workspace) as run:
        before = workspace.metafile_bytes(target.name)
        writer = _begin(run, target.name)
        additions = _read_sources(writer, target.part, sources)
        return _finish(run, writer, before, additions, (), message)


def remove_from(workspace: Workspace, targets: Sequence[Target], *, message: str | None = None) -> EditResult:
    """Take files and folders out of one dataset, whether or not it is on this disk.

    Raises
    ------
    NotFound
        When the dataset does not hold one of them.
    """
    name = targets[0].name
    if any(target.name != name or not target.part for target in targets):
        raise InvalidInput("remove takes paths of one dataset at a time", hint="reg remove NAME:PATH NAME:PATH")
    refuse_selectors(targets, "remove")
    with workspace.writing(), OutboxWriter(workspace) as run:
        before = workspace.metafile_bytes(name)
        return _finish(run, _begin(run, name), before, {}, [target.part for target in targets], message)


def refuse_selectors(targets: Sequence[Target], verb: str) -> None:
    """Refuse targets at a revision.

    Raises
    ------
    InvalidInput
        When one names one: only the version that the metafile names can be changed.
    """
    for target in targets:
        if target.selector:
            raise InvalidInput(
                f"{target}: {verb} changes the version that is there now, and no other",
                hint=f"reg checkout {target.name} --rev {target.selector} makes an older one that",
            )


def _begin(run: OutboxWriter, name: DatasetName) -> DatasetWriter:
    metafile = run.workspace.dataset(name)
    if os.path.lexists(os.path.join(run.workspace.root, name)):
        raise StateError(
            f"{name} is on this disk: change it there",
            hint=f"put files into {name}/ or delete them, then reg add {name}",
        )
    writer = run.dataset(name, metafile.manifest)
    if writer.base is None:
        raise NotFound(
            f"the manifest of {name} cannot be read here", hint="reg pull, or check the remote: reg remote list"
        )
    return writer


def _read_sources(writer: DatasetWriter, folder: str, sources: Sequence[str]) -> dict[str, Addition]:
    additions: dict[str, Addition] = {}
    for source in sources:
        top = join(folder, os.path.basename(os.path.normpath(source)))
        for found in Scan(source, RegIgnore(source)):
            path = join(top, found.path) if found.path else top
            if path.endswith(METAFILE_SUFFIX):
                raise InvalidInput(f"{source} holds the metafile {path}, and metafiles are never data")
            if path in additions:
                raise InvalidInput(f"two files would become {path}", hint="add them one at a time")
            if found.kind == Kind.DIRECTORY:
                additions[path] = Entry(path, found.kind, 0, b""), ()
            elif found.kind == Kind.LINK:
                additions[path] = Entry(path, found.kind, len(found.target), found.target), ()
            else:
                stored = writer.store_file(place_of(source, found.path))
                if stored is None:
                    raise Conflict(f"{source} changed while it was read", hint=RUN_WHEN_QUIET)
                content, places, after = stored
                kind = Kind.EXECUTABLE if after.st_mode & 0o100 else Kind.FILE
                additions[path] = Entry(path, kind, after.st_size, content), places
            check_entry(additions[path][0])
    return additions


def _finish(
    run: OutboxWriter,
    writer: DatasetWriter,
    before: bytes | None,
    additions: Mapping[str, Addition],
    removals: Sequence[str],
    message: str | None,
) -> EditResult:
    workspace, name = run.workspace, writer.name
    editor = _Editor(run, writer, additions, removals)
    editor.run()
    for path in removals:
        if path not in editor.removed:
            raise NotFound(f"{name} holds no {path}", hint=f"reg files {name} lists what it holds")
    (written,) = run.finish()
    refuse_edited(workspace, name, before)
    metafile = workspace.dataset(name)
    changed = written.manifest != metafile.manifest
    if changed:
        run.publish()
    changes = editor.changes
    commit = None
    if changed:
        metafile = replace(
            metafile,
            manifest=written.manifest,
            files=written.totals.files,
            size=written.totals.size,
            contents=adjust(metafile.contents, changes),
        )
        edits: dict[str, Edit] = {name + METAFILE_SUFFIX: metafile.render().encode()}
        refuse_edited(workspace, name, before)  # once more: the disk took its time
        commit = workspace.repository.edit(edits, message)
        run.note_placed()
    return EditResult(name, summarize(find_renames(changes)), written.totals.files, written.totals.size, commit)


class _Editor:
    """Rewrites the leaf pages that changes fall into and keeps the others."""

    def __init__(
        self, run: OutboxWriter, writer: DatasetWriter, additions: Mapping[str, Addition], removals: Sequence[str]
    ) -> None:
        if writer.base is None:
            raise AssertionError("an edit has a base")
        self.changes: list[Change] = []
        self.removed: set[str] = set()
        self._reader = run.reader
        self._writer = writer
        self._tree: Tree = writer.base.tree
        self._additions = additions
        self._removals = removals
        self._paths = sorted(additions)
        self._folders = {
            "/".join(path.split("/")[:depth]) for path in additions for depth in range(1, path.count("/") + 1)
        }
        self._waiting: Leaf | None = None
        self._written = 0

    def run(self) -> None:
        """Write all pages of the new version."""
        self._check_folders()
        cutter = LeafCutter()
        run: list[Entry] = []
        placed: list[tuple[Placed, ...]] = []
        first = ""
        for index, leaf in enumerate(self._tree.leaves):
            final = index == len(self._tree.leaves) - 1
            if not run and not self._touched(first, leaf.ref.last, final=final) and leaf.place is not None:
                self._keep(leaf)
            else:
                for entry, places in self._merged(leaf, first, final=final):
                    run.append(entry)
                    if entry.is_file and entry.size:
                        placed.append(places)
                    if cutter.ends_page(entry.path):
                        self._cut(run, placed)
                        run, placed = [], []
            first = leaf.ref.last
        if run or (self._waiting is None and not self._written):
            self._cut(run, placed)
        if self._waiting is not None:  # one page is left of several: it becomes the manifest itself
            entries, extents = self._read(self._waiting)
            self._writer.tree.add(seal_leaf(entries), [row for e, row in zip(entries, extents, strict=True) if row])

    def _keep(self, leaf: Leaf) -> None:
        if not self._written and self._waiting is None:
            self._waiting = leaf
            return
        self._flush_waiting()
        assert leaf.place is not None  # noqa: S101 -- the caller looked
        self._writer.tree.keep(leaf.ref, leaf.place)
        self._written += 1

    def _cut(self, run: list[Entry], placed: list[tuple[Placed, ...]]) -> None:
        self._flush_waiting()
        self._writer.tree.add(seal_leaf(run), placed)
        self._written += 1

    def _flush_waiting(self) -> None:
        if self._waiting is not None and self._waiting.place is not None:
            self._writer.tree.keep(self._waiting.ref, self._waiting.place)
            self._waiting, self._written = None, self._written + 1

    def _read(self, leaf: Leaf) -> tuple[list[Entry], list[tuple[Placed, ...]]]:
        content = next(self._reader.pages(self._tree, [leaf], maps=True))
        return content.entries, list(content.extents)

    def _touched(self, first: str, last: str, *, final: bool) -> bool:
        """Whether a change falls after `first` and up to `last` (the final page takes all that follows)."""
        for path in (*self._removals, *self._folders, *self._additions):
            if (last >= path or final) and first < path + "0":
                return True
        at = bisect_left(self._paths, first + "\0") if first else 0
        return at < len(self._paths) and (final or self._paths[at] <= last)

    def _merged(self, leaf: Leaf, first: str, *, final: bool) -> Iterator[tuple[Entry, tuple[Placed, ...]]]:
        entries, extents = self._read(leaf)
        low = bisect_left(self._paths, first + "\0") if first else 0
        high = len(self._paths) if final else bisect_left(self._paths, leaf.ref.last + "\0")
        coming = iter(self._paths[low:high])
        path = next(coming, None)
        for entry, places in zip(entries, extents, strict=True):
            while path is not None and path < entry.path:
                yield self._added(path, None)
                path = next(coming, None)
            if path == entry.path and path is not None:
                yield self._added(path, entry)
                path = next(coming, None)
                continue
            gone = next((part for part in self._removals if is_within(entry.path, part)), None)
            if gone is not None or (entry.kind == Kind.DIRECTORY and entry.path in self._folders):
                self.removed |= {gone} if gone is not None else set()
                self.changes.append(Change(entry, None))
                continue
            if entry.path in self._folders or any(is_within(entry.path, p) for p in self._additions_above(entry.path)):
                raise Conflict(
                    f"{entry.path} is a file and would become a folder, or the other way", hint="remove it first"
                )
            yield entry, places
        while path is not None:
            yield self._added(path, None)
            path = next(coming, None)

    def _additions_above(self, path: str) -> list[str]:
        parts = path.split("/")
        return [above for depth in range(1, len(parts)) if (above := "/".join(parts[:depth])) in self._additions]

    def _added(self, path: str, before: Entry | None) -> tuple[Entry, tuple[Placed, ...]]:
        entry, places = self._additions[path]
        if before != entry:
            self.changes.append(Change(before, entry))
        return entry, places

    def _check_folders(self) -> None:
        for path in self._paths:
            if path in self._folders:
                raise InvalidInput(f"{path} would be a file and a folder", hint="add them one at a time")
        if self._tree.leaves and not self._tree.leaves[0].ref.last and self._tree.totals.entries:
            raise InvalidInput(
                "the dataset is a single file: nothing can be put into it", hint="reg add it as a folder"
            )
