"""`reg sync`, and making any work tree what a version says."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec

from registree.errors import Conflict, FormatError, IntegrityError, NotFound, RegError
from registree.model.checkout import join_three
from registree.model.metafile import DatasetFile, ImportFile
from registree.model.paths import parse_dataset_name
from registree.operations.content import Content, as_far_as_known
from registree.operations.guarding import only_copies
from registree.operations.imports import import_placement, locked_content
from registree.operations.observing import observe_path, observed_entries, unhidden
from registree.operations.placing import Applied, Placement, apply_plan, note_applied, place_new
from registree.operations.planning import Plan, plan_steps
from registree.store.file_stat import Stat
from registree.store.staging import remove_stale_staging
from registree.store.state import Learning
from registree.workspace import Workspace


class Restored(msgspec.Struct, frozen=True):
    """One dataset or import after its files were restored.

    `state` is ``in sync``, ``synced``, ``differs`` (when it was only asked) or ``failed`` (then `error` says why).
    """

    name: str
    state: str
    written: int = 0
    deleted: int = 0
    fetched: int = 0
    paths: tuple[str, ...] = ()
    error: RegError | None = None


def sync(
    workspace: Workspace, targets: Sequence[str] = (), *, check: bool = False, force: bool = False
) -> tuple[Restored, ...]:
    """Make the work tree be what the locks say; with `check`, only tell whether it is.

    Returns
    -------
    A row for each import: one that fails does not stop the others.
    """
    broken: dict[str, FormatError] = {}
    names: list[str] = [parse_dataset_name(target) for target in targets] or [
        name for name, file in workspace.metafiles(broken).items() if isinstance(file, ImportFile)
    ]
    if not names and not broken:
        raise NotFound(f"{workspace.root} imports nothing", hint="reg import REGISTRY NAME")
    results = [Restored(name, "failed", error=problem) for name, problem in broken.items()]
    for name in names:
        workspace.imported(name)  # a name that is none stops all of it
        try:
            if check:
                results.append(_sync_one(workspace, name, check=True, force=force))
            else:
                with workspace.writing():
                    results.append(_sync_one(workspace, name, check=False, force=force))
        except RegError as error:
            results.append(Restored(name, "failed", error=error))
    return tuple(results)


def _sync_one(workspace: Workspace, name: str, *, check: bool, force: bool) -> Restored:
    metafile = workspace.imported(name)
    content = locked_content(workspace, metafile)
    if content.manifest != metafile.lock.manifest:
        raise IntegrityError(
            f"{name} at {metafile.lock.commit[:10]} is not what its lock says",
            hint=f"reg update {name} --rev REV locks it anew",
        )
    return restore(workspace, name, content, import_placement(workspace.machine), check=check, force=force)


def restore(
    workspace: Workspace,
    name: str,
    content: Content,
    placement: Placement,
    *,
    check: bool,
    force: bool,
    confirm: Callable[[], None] = lambda: None,
) -> Restored:
    """Make a work tree be what content says; files that no version has are left alone, edited ones stop it.

    Parameters
    ----------
    confirm
        See `apply_plan`.

    Raises
    ------
    Conflict
        When files are neither of the version placed last nor of this one, and `force` is not given.
    """
    root = os.path.join(workspace.root, name)
    if not check:
        remove_stale_staging(root)
    if not os.path.lexists(root):
        if check:
            return Restored(name, "differs", paths=(name,))
        learning = Learning(workspace.state, name)
        applied = place_new(
            workspace.machine, content, root, placement,
            replace=False, verb="check out", announced=_confirmed(confirm), learning=learning,
        )  # fmt: skip
        learning.finish(content.manifest, applied.at)
        return Restored(name, "synced", applied.written, 0, applied.fetched_bytes)
    manifest = _placed(workspace, name)
    plan, learnt = as_far_as_known(
        manifest if manifest != content.manifest else None, partial(_plan, workspace, name, content, force=force)
    )
    if plan.is_empty:
        workspace.state.update(stats=learnt, placed=[(name, content.manifest)])
        return Restored(name, "in sync")
    paths = tuple(step.path for step in (*plan.write, *plan.delete)) + plan.conflicts
    if check:
        return Restored(name, "differs", len(plan.write), len(plan.delete), paths=paths)
    applied = Applied(0, 0, 0, 0)
    if plan.write or plan.delete:
        look = partial(observe_path, workspace.state, root, name)
        applied = apply_plan(
            workspace.machine, content, None, plan, root, placement, None, look, verb="check out", confirm=confirm
        )
        note_applied(workspace, name, content, applied)
    if plan.conflicts:
        raise Conflict(
            f"{len(plan.conflicts)} files of {name} hold what no store has: "
            f"{', '.join(path or name for path in plan.conflicts[:5])}",
            hint="--force overwrites them; to keep them, put them elsewhere, or in a registry: reg add, then reg push",
            paths=plan.conflicts,
        )
    return Restored(name, "synced", applied.written, applied.deleted, applied.fetched_bytes)


@contextmanager
def _confirmed(confirm: Callable[[], None]) -> Iterator[None]:
    confirm()
    yield


def _placed(workspace: Workspace, name: str) -> bytes | None:
    """Return the manifest that the work tree was made from, where that is known."""
    placed = workspace.state.placed(name)
    if placed is None:
        tracked = workspace.read_metafile(name)
        placed = tracked.manifest if isinstance(tracked, DatasetFile) else None
    return placed


def _plan(
    workspace: Workspace, name: str, content: Content, placed: bytes | None, *, force: bool
) -> tuple[Plan, list[tuple[str, Stat]]]:
    """Plan what makes a work tree, made from a version or from nobody knows what, be what content says.

    Returns
    -------
    The plan, and what was learnt of the files.
    """
    learnt: list[tuple[str, Stat]] = []
    began = time.time_ns()
    found = observed_entries(workspace, name, learnt, lenient=True)
    reader = content.reader
    before = content.entries() if placed is None or reader is None else reader.entries(reader.open(placed))
    steps = join_three(before, content.entries(), found)
    plan = plan_steps(
        (unhidden(workspace, name, s) for s in steps if s.before or s.after),
        os.path.join(workspace.root, name),
        restore=True,
        force=force,
        looked_at=began,
        only_copies=only_copies(workspace, name),
    )
    return plan, learnt
