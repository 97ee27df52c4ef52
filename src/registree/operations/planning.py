"""Decide what a move of a work tree from one version to another writes and deletes, and what stands in its way."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import msgspec

from registree.model.checkout import Action, Step, decide
from registree.model.manifest import Kind
from registree.operations.observing import place_of


class Plan(msgspec.Struct, frozen=True):
    """Which paths of a work tree are written and deleted, and which stand in the way."""

    write: tuple[Step, ...]
    delete: tuple[Step, ...]
    conflicts: tuple[str, ...]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.write or self.delete or self.conflicts)


def plan_steps(
    steps: Iterable[Step], root: str, *, restore: bool, force: bool, only_copies: frozenset[str] = frozenset()
) -> Plan:
    """Decide about each path, and about folders that stand where files come and the other way.

    With `force`, what stands in the way is replaced.

    Parameters
    ----------
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
        free = []
        for step in write:
            blocked = _in_the_way(root, step, going)
            conflicts += blocked
            free += [] if blocked else [step]
        write = free
    return Plan(tuple(write), tuple(delete), tuple(sorted(set(conflicts))))


def _in_the_way(root: str, step: Step, going: set[str]) -> list[str]:
    parts = step.path.split("/") if step.path else []
    for depth in range(len(parts)):
        above = "/".join(parts[:depth])
        try:
            mode = os.stat(place_of(root, above), follow_symlinks=False).st_mode
        except (FileNotFoundError, NotADirectoryError):
            break
        if not stat.S_ISDIR(mode):
            return [] if above in going else [above]
    place = place_of(root, step.path)
    if step.after is None or step.after.kind == Kind.DIRECTORY or os.path.islink(place) or not os.path.isdir(place):
        return []
    inside = [
        os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(place) for name in names
    ]
    return [path for path in inside if path not in going]
