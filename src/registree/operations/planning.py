"""Decide what a move of a work tree from one version to another writes and deletes, and what stands in its way."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator

import msgspec

from registree.model.checkout import Action, Step, decide
from registree.model.manifest import Entry, Kind
from registree.operations.observing import place_of
from registree.store.file_stat import clock_step


class Plan(msgspec.Struct, frozen=True):
    """Which paths of a work tree are written and deleted, and which stand in the way."""

    write: tuple[Step, ...]
    delete: tuple[Step, ...]
    conflicts: tuple[str, ...]
    looked_at: int | None = None
    """When the work tree was looked at (nanoseconds since the epoch); None when what changes later may be replaced."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.write or self.delete or self.conflicts)


def plan_steps(
    steps: Iterable[Step],
    root: str,
    *,
    restore: bool,
    force: bool,
    looked_at: int,
    only_copies: frozenset[str] = frozenset(),
) -> Plan:
    """Decide about each path, and about folders that stand where files come and the other way.

    With `force`, what stands in the way is replaced.

    Parameters
    ----------
    looked_at
        When looking at the work tree began (nanoseconds since the epoch).
    only_copies
        Paths that hold bytes no store holds yet (`add --in-place`): they stand in the way too.
    """
    write: list[Step] = []
    delete: list[Step] = []
    conflicts: list[str] = []
    for step in steps:
        action = decide(step.before, step.after, step.found, restore=restore)
        if step.path in only_copies and step.found is not None and action in (Action.WRITE, Action.DELETE):
            action = Action.CONFLICT
        if action is Action.CONFLICT:
            if not force:
                conflicts.append(step.path)
                continue
            action = Action.DELETE if step.after is None else Action.WRITE
        if action is Action.WRITE:
            write.append(step)
        elif action is Action.DELETE and step.found is not None:
            delete.append(step)
    if not force:
        going = {step.path for step in delete}
        free, folders = [], set[str]()
        for step in write:
            blocked = _in_the_way(root, step, going, folders)
            conflicts += blocked
            free += [] if blocked else [step]
        write = free
    return Plan(tuple(write), tuple(delete), tuple(sorted(set(conflicts))), None if force else looked_at)


def changed_since(plan: Plan, root: str, look: Callable[[str], Entry | None]) -> list[str]:
    """Return what is not as it was when the plan was made, sorted: what was edited, what was put in its way.

    Parameters
    ----------
    look
        Tells what a path of the work tree is now.
    """
    if plan.looked_at is None:
        return []
    changed = {step.path for step in (*plan.write, *plan.delete) if has_changed(plan, step, root, look)}
    going, folders = {step.path for step in plan.delete}, set[str]()
    for step in plan.write:
        changed.update(_in_the_way(root, step, going, folders))
    return sorted(changed)


def has_changed(plan: Plan, step: Step, root: str, look: Callable[[str], Entry | None]) -> bool:
    """Tell whether what a step of a plan changes is not as it was when the plan was made; see `changed_since`."""
    if plan.looked_at is None:
        return False
    try:
        now = os.lstat(place_of(root, step.path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    is_young = max(now.st_mtime_ns, now.st_ctime_ns) > plan.looked_at - clock_step(now.st_ctime_ns)
    return (is_young or step.found is None) and look(step.path) != step.found


def _in_the_way(root: str, step: Step, going: set[str], folders: set[str]) -> list[str]:
    """Return what stands where a step writes, or where a folder of it belongs, but for what goes.

    `folders` are those that were seen to be folders; it is added to.
    """
    parts = step.path.split("/") if step.path else []
    for depth in range(len(parts)):
        above = "/".join(parts[:depth])
        if above in folders:
            continue
        try:
            mode = os.stat(place_of(root, above), follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return []
        if not stat.S_ISDIR(mode):
            return [] if above in going else [above]
        folders.add(above)
    place = place_of(root, step.path)
    if step.after is None or step.after.kind == Kind.DIRECTORY or os.path.islink(place) or not os.path.isdir(place):
        return []
    return [path for path in _inside(root, place) if path not in going]


def _inside(root: str, folder: str) -> Iterator[str]:
    """Give the paths of all files and links in a folder, from the root."""
    for current, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(current, name))]
        for name in (*names, *links):
            yield os.path.relpath(os.path.join(current, name), root)
