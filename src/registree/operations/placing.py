"""Put content into a work tree: staged and verified beside its place, then swapped in; local edits are never lost."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress

import msgspec

from registree.errors import AlreadyExists, Conflict, IntegrityError, translate_os_error
from registree.model.checkout import Step
from registree.model.manifest import Entry, Kind
from registree.model.paths import join
from registree.model.places import Extents
from registree.operations.content import Content, Item
from registree.operations.observing import is_behind_link, place_of
from registree.operations.planning import Plan, changed_since, has_changed
from registree.source import Machine
from registree.store.file_stat import Stat, as_row, clock_step, wait_for_clock
from registree.store.files import LinkKind
from registree.store.payload import Wanted
from registree.store.placing import Placer, Reuse, choose_link
from registree.store.staging import MOVED_AWAY, empty, remove, staging
from registree.store.state import Learning
from registree.store.tree_reader import Leaf
from registree.workspace import Workspace

_WORTH_WAITING = 64 << 20
"""Bytes that take longer to hash than a step of the clock."""


class Placement(msgspec.Struct, frozen=True):
    """How content is placed.

    `links` are the ways allowed to get files from the cache; `keep` says whether what is brought is kept there.
    """

    links: tuple[LinkKind, ...]
    keep: bool


class Applied(msgspec.Struct, frozen=True):
    """What was done to a work tree: files written and deleted, bytes that came from a remote.

    `at` is when all was verified, before anything got its name (nanoseconds since the epoch): what changed later is
    not ours. `rows` are what files are that a plan placed, by their paths in the dataset.
    """

    written: int
    deleted: int
    fetched_bytes: int
    at: int
    rows: tuple[tuple[str, Stat], ...] = ()


def place_new(
    machine: Machine,
    content: Content,
    target: str,
    placement: Placement,
    *,
    replace: bool,
    verb: str,
    announced: AbstractContextManager[None] | None = None,
    learning: Learning | None = None,
) -> Applied:
    """Make a target of content, whole or not at all.

    Parameters
    ----------
    replace
        Whether what is there may be replaced; it is gone only when its successor is whole.
    announced
        Entered when all is there and verified, before the target gets its name: what must not come later than that.
    learning
        Told what the files are that were placed.

    Raises
    ------
    AlreadyExists
        When something is there and may not be replaced.
    """
    if not replace:
        _refuse_existing(target)
    _make_parent(target)
    with staging(target) as folder:
        if not replace:
            _refuse_existing(target)  # a killed run had moved it away
        tree = os.path.join(folder, "tree")
        try:
            fetched = _bring_tree(machine, content, tree, placement, verb, learning)
        except IntegrityError:  # a cached map may be older than the store's, or damaged
            again = content.refreshed()
            if again is None:
                raise
            remove(tree)
            fetched = _bring_tree(machine, again, tree, placement, verb, learning)
        at = _verified_at(content.totals.size) if learning is not None else time.time_ns()
        with announced or nullcontext():
            if not replace:
                _refuse_existing(target)
            elif os.path.lexists(target):
                os.rename(target, os.path.join(folder, MOVED_AWAY))
            os.rename(tree, target)
    return Applied(content.totals.entries, 0, fetched, at)


def _refuse_existing(target: str) -> None:
    if os.path.lexists(target):
        raise AlreadyExists(f"{target} exists already", hint="--force replaces it; -o PATH puts it elsewhere")


def _bring_tree(
    machine: Machine, content: Content, tree: str, placement: Placement, verb: str, learning: Learning | None
) -> int:
    totals = content.totals
    learn = learning.add if learning is not None else None
    placer = _placer(machine, content, os.path.dirname(tree), placement, learn, totals.files)
    is_file = False
    machine.progress.begin(verb, totals.files, totals.size)
    try:
        for item in content.items():
            is_file = not item.entry.path
            placer.place(_wanted(content, item, place_of(tree, item.entry.path)))
        if not is_file:
            os.makedirs(tree, exist_ok=True)
        placer.finish()
    finally:
        placer.close()
        machine.progress.end()
    return placer.placed_bytes


def _make_parent(target: str) -> None:
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
    except OSError as error:
        raise translate_os_error(error, os.path.basename(target), os.path.dirname(target)) from error


def _placer(
    machine: Machine,
    content: Content,
    folder: str,
    placement: Placement,
    learn: Callable[[str, Stat], None] | None,
    expected: int,
) -> Placer:
    link = choose_link(machine.cache, folder, placement.links)
    return Placer(
        content.reader, machine.cache, machine.executor, machine.progress, link,
        processes=machine.processes, expected=expected, keep=placement.keep, learn=learn,
    )  # fmt: skip


def _wanted(content: Content, item: Item, path: str) -> Wanted:
    if item.blob and item.entry.is_file and content.source is not None:
        return Wanted(item.entry, (), path, content.source.repository.blob(item.blob))
    return Wanted(item.entry, item.extents, path)


def apply_plan(
    machine: Machine,
    content: Content,
    leaves: Sequence[Leaf] | None,
    plan: Plan,
    root: str,
    placement: Placement,
    reuse: Reuse | None,
    look: Callable[[str], Entry | None],
    *,
    verb: str,
    confirm: Callable[[], None] = lambda: None,
) -> Applied:
    """Bring what is to be written, and only when all of it is there and verified, change the work tree.

    Parameters
    ----------
    leaves
        The leaf pages that hold what `plan.write` names; None for all.
    look
        Tells what a path of the work tree is now.
    confirm
        Called before anything changes; it raises when that is not wanted any more.

    Raises
    ------
    Conflict
        When somebody changed meanwhile what it would change, or put something where it would write.
    """
    _make_parent(root)
    with staging(root) as folder:
        try:
            staged, known, fetched = _stage(machine, content, leaves, plan, folder, placement, reuse, verb)
        except IntegrityError:  # a cached map may be older than the store's, or damaged
            again = content.refreshed()
            if again is None:
                raise
            empty(folder)
            staged, known, fetched = _stage(machine, again, None, plan, folder, placement, reuse, verb)
        at = _verified_at(sum(entry.size for entry, _ in staged))
        changed = changed_since(plan, root, look)
        if changed:
            raise Conflict(
                f"{len(changed)} files changed meanwhile, and nothing was touched: {', '.join(changed[:5])}",
                hint="run it again when nothing writes to them",
                paths=tuple(changed),
            )
        confirm()

        def look_again(step: Step) -> None:
            """Look at a file once more, for changing many takes its time; of a folder only an empty one is removed."""
            place = place_of(root, step.path)
            is_folder = os.path.isdir(place) and not os.path.islink(place)
            if not is_folder and has_changed(plan, step, root, look):
                raise Conflict(
                    f"{step.path or root} changed meanwhile, and is left as it is",
                    hint="some files before it were changed: run it again when nothing writes to them",
                    paths=(step.path,),
                )

        _delete(root, plan.delete, {entry.path for entry, _ in staged}, look_again)
        rows, steps = [], {step.path: step for step in plan.write}
        remove_folder = shutil.rmtree if plan.looked_at is None else _remove_empty
        for entry, path in staged:
            look_again(steps[entry.path])
            _swap_in(root, entry, path, remove_folder)
            row = known.get(entry.path)
            if row is not None and row.mtime <= at - clock_step(row.mtime):
                with suppress(OSError):  # it is gone already
                    now = as_row(os.stat(place_of(root, entry.path), follow_symlinks=False), entry.content)
                    if now._replace(ctime=row.ctime) == row:  # getting its name has changed that
                        rows.append((entry.path, now))
    return Applied(len(staged), len(plan.delete), fetched, at, tuple(rows))


def _stage(
    machine: Machine,
    content: Content,
    leaves: Sequence[Leaf] | None,
    plan: Plan,
    folder: str,
    placement: Placement,
    reuse: Reuse | None,
    verb: str,
) -> tuple[list[tuple[Entry, str]], dict[str, Stat], int]:
    by_path = {step.path for step in plan.write}
    size = sum(step.after.size for step in plan.write if step.after is not None)
    known: dict[str, Stat] = {}
    placer = _placer(machine, content, folder, placement, known.__setitem__, len(plan.write))
    staged: list[tuple[Entry, str]] = []
    machine.progress.begin(verb, len(plan.write), size)
    try:
        for item in content.items(leaves):
            if item.entry.path in by_path:
                path = os.path.join(folder, str(len(staged)))
                placer.place(_wanted(content, item, path), reuse)
                staged.append((item.entry, path))
        placer.finish()
    finally:
        placer.close()
        machine.progress.end()
    return staged, known, placer.placed_bytes


def _verified_at(size: int) -> int:
    """Return the time now, in nanoseconds since the epoch, when so many bytes were written and verified.

    When they are many, this waits so long that the last of them show any later change: else they were read again.
    """
    now = time.time_ns()
    return wait_for_clock(now) if size >= _WORTH_WAITING else now


def _delete(root: str, steps: Sequence[Step], coming: set[str], look_again: Callable[[Step], None]) -> None:
    folders = set()
    for step in steps:
        path = step.path
        place = place_of(root, path)
        if is_behind_link(root, path):
            continue  # not the dataset's
        look_again(step)
        if os.path.isdir(place) and not os.path.islink(place):
            with suppress(OSError):
                os.rmdir(place)
        else:
            with suppress(FileNotFoundError):
                os.unlink(place)
        folders.add(os.path.dirname(path))
    for folder in sorted(folders, key=len, reverse=True):
        current = folder
        while current and current not in coming:
            try:
                os.rmdir(place_of(root, current))
            except OSError:
                break
            current = os.path.dirname(current)


def _swap_in(root: str, entry: Entry, path: str, remove_folder: Callable[[str], None]) -> None:
    place = place_of(root, entry.path)
    if os.path.isdir(place) and not os.path.islink(place):
        if entry.kind == Kind.DIRECTORY:
            return
        remove_folder(place)
    _clear_above(root, entry.path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    if entry.kind == Kind.DIRECTORY and os.path.lexists(place):
        os.unlink(place)
    os.rename(path, place)


def _remove_empty(folder: str) -> None:
    """Remove a folder that holds nothing but folders: what was in it has gone by its name."""
    try:
        for inner, _, _ in os.walk(folder, topdown=False):
            os.rmdir(inner)
    except OSError:
        raise Conflict(f"something was put into {folder} meanwhile", hint="move it away and run it again") from None


def _clear_above(root: str, path: str) -> None:
    """Remove a file or a link that stands where a folder of the dataset belongs: no write follows a link."""
    parts = path.split("/") if path else []
    for depth in range(len(parts)):
        place = place_of(root, "/".join(parts[:depth]))
        if os.path.islink(place) or (os.path.lexists(place) and not os.path.isdir(place)):
            os.unlink(place)
            return


def note_applied(workspace: Workspace, name: str, content: Content, applied: Applied) -> None:
    """Note in the state what `apply_plan` wrote."""
    rows = ((join(name, path) if path else name, row) for path, row in applied.rows)
    workspace.state.update(stats=rows, placed=[(name, content.manifest)])


def reuse_from(root: str, gone: Iterable[tuple[Entry, Extents]]) -> Reuse:
    """Find content among files of the work tree that this move deletes or replaces: renames and grown files."""
    by_content: dict[bytes, str] = {}
    by_path: dict[str, tuple[str, Extents]] = {}
    for entry, extents in gone:
        if entry.is_file:
            by_content.setdefault(entry.content, place_of(root, entry.path))
            by_path[entry.path] = (place_of(root, entry.path), extents)

    def find(entry: Entry) -> tuple[str, Extents | None] | None:
        same = by_content.get(entry.content)
        if same is not None:
            return same, None
        return by_path.get(entry.path)

    return find
