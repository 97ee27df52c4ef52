"""`reg update`: move imports to what their selectors mean now."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial

import msgspec

from registree.errors import (
    AuthError,
    Conflict,
    FormatError,
    IntegrityError,
    NotFound,
    ObjectMissing,
    RegError,
    StoreError,
)
from registree.git.repository import Edit
from registree.model.checkout import Step, join_three
from registree.model.diff import Change, DiffSummary, diff_entries, differing_pages, find_renames, summarize
from registree.model.manifest import Entry
from registree.model.metafile import ImportFile, Lock
from registree.model.paths import METAFILE_SUFFIX, parse_dataset_name
from registree.model.places import Extents
from registree.model.selection import Selection
from registree.model.selectors import RevisionKind
from registree.model.targets import Target
from registree.operations.content import Content, Item, Resolved, as_far_as_known, content_at, resolve_target
from registree.operations.guarding import refuse_edited
from registree.operations.imports import import_placement, locked_content, make_lock
from registree.operations.observing import observe_path, observe_tree, unhidden
from registree.operations.placing import Applied, apply_plan, note_applied, reuse_from
from registree.operations.planning import Plan, plan_steps
from registree.source import RegistrySource
from registree.store.tree_reader import Leaf
from registree.workspace import Workspace


class UpdatedImport(msgspec.Struct, frozen=True):
    """One import after `update`.

    `state` is ``current`` (nothing new), ``fixed`` (a fixed revision stays), ``updated``, ``would update`` or
    ``failed`` (then `error` says why). `on_disk` is False for one whose files are not here: then its pin alone moves.
    """

    name: str
    state: str
    want: str
    before: Lock | None = None
    after: Lock | None = None
    changes: DiffSummary | None = None
    fetched: int = 0
    note: str = ""
    error: RegError | None = None
    on_disk: bool = True


def update(
    workspace: Workspace,
    targets: Sequence[str] = (),
    *,
    selector: str = "",
    dry_run: bool = False,
    force: bool = False,
    message: str | None = None,
) -> tuple[UpdatedImport, ...]:
    """Move imports to what their selectors mean now; local edits are kept, or stop it.

    Parameters
    ----------
    targets
        Names of imports; empty for all of them.
    selector
        Switches to another revision and records it.

    Returns
    -------
    A row for each import: one that fails does not stop the others.
    """
    broken: dict[str, FormatError] = {}
    names: list[str] = list(dict.fromkeys(map(parse_dataset_name, targets))) or [
        name for name, file in workspace.metafiles(broken).items() if isinstance(file, ImportFile)
    ]
    results = [UpdatedImport(name, "failed", "", error=problem) for name, problem in broken.items()]
    written: dict[str, bytes] = {}
    if not names and not broken:
        raise NotFound(f"{workspace.root} imports nothing", hint="reg import REGISTRY NAME")
    with workspace.writing():
        for name, metafile in [(name, workspace.imported(name)) for name in names]:
            try:
                result, after = _update_one(workspace, name, metafile, selector, dry_run=dry_run, force=force)
                refuse_edited(workspace, name, metafile.text.encode())
                if after is not None:
                    with workspace.repository.edited_files({name + METAFILE_SUFFIX: after.render().encode()}):
                        pass  # all are staged at once, in the end
            except RegError as error:
                result, after = (
                    UpdatedImport(name, "failed", metafile.want, metafile.lock, metafile.lock, error=error),
                    None,
                )
            results.append(result)
            if result.error is None and not dry_run:  # also what a killed run wrote and did not stage or commit
                written[name] = (after or metafile).render().encode()
        edits: dict[str, Edit] = {
            name + METAFILE_SUFFIX: content
            for name, content in written.items()
            if workspace.metafile_bytes(name) == content  # else somebody has edited it since
        }
        if edits:
            workspace.repository.edit(edits, None)
        if message is not None and edits:
            workspace.repository.commit(edits, message)
    return tuple(results)


def _update_one(
    workspace: Workspace, name: str, metafile: ImportFile, selector: str, *, dry_run: bool, force: bool
) -> tuple[UpdatedImport, ImportFile | None]:
    machine = workspace.machine
    lock = metafile.lock
    source = RegistrySource.open(metafile.registry, machine, base=workspace.root)
    target = Target(metafile.dataset, "", metafile.part)
    root = os.path.join(workspace.root, name)
    on_disk = os.path.lexists(root)
    want = selector or metafile.want
    found = resolve_target(source, target, want)
    _check_tag(source, name, lock, switching=bool(selector))
    if not selector and not found.resolution.kind.moves:
        return UpdatedImport(name, "fixed", want, lock, lock, note=found.resolution.kind.value, on_disk=on_disk), None
    if not selector and not force and found.resolution.kind in (RevisionKind.DEFAULT, RevisionKind.BRANCH):
        _check_history(source, name, lock, found)
    selection = Selection(metafile.part, metafile.include, metafile.exclude)
    content = content_at(source, found.commit, target, selection)
    same_version = (found.resolution.tag, found.resolution.version) == (lock.tag, lock.version)
    if content.manifest == lock.manifest and same_version and want == metafile.want:
        return UpdatedImport(name, "current", want, lock, lock, note=found.resolution.note, on_disk=on_disk), None
    after = metafile.relocked(make_lock(content, found), want)
    before = _readable(workspace, metafile)
    if content.manifest == lock.manifest:
        changes, applied = DiffSummary(0, 0, 0, 0, 0), Applied(0, 0, 0, 0)
    elif not on_disk:  # the pin was written with --no-download: it stays a pin
        changes, applied = as_far_as_known(before, partial(_summary, after=content)), Applied(0, 0, 0, 0)
    else:
        planned = partial(_plan_update, workspace, name, after=content, force=force)
        plan, changes, leaves, gone = as_far_as_known(before, planned)
        if plan.conflicts:
            raise Conflict(
                f"{name} has local edits in {len(plan.conflicts)} files that the update would touch: "
                f"{', '.join(plan.conflicts[:5])}",
                hint="--force overwrites them; to keep them, put them elsewhere first",
                paths=plan.conflicts,
            )
        applied = Applied(0, 0, 0, 0)
        if not dry_run:
            applied = apply_plan(
                machine,
                content,
                leaves,
                plan,
                root,
                import_placement(machine),
                reuse_from(root, gone),
                partial(observe_path, workspace.state, root, name),
                verb="update",
                confirm=partial(refuse_edited, workspace, name, metafile.text.encode()),
            )
            note_applied(workspace, name, content, applied)
    state = "would update" if dry_run else "updated"
    fetched, note = applied.fetched_bytes, found.resolution.note
    result = UpdatedImport(name, state, want, lock, after.lock, changes, fetched, note, on_disk=on_disk)
    return result, None if dry_run else after


def _check_tag(source: RegistrySource, name: str, lock: Lock, *, switching: bool) -> None:
    if not lock.tag or switching:
        return
    now = source.repository.refs().get(f"refs/tags/{lock.tag}")
    if now is not None and now != lock.commit:
        raise IntegrityError(
            f"tag {lock.tag} moved from {lock.commit[:10]} to {now[:10]} since {name} was locked",
            hint=f"ask its owner why; to accept it: reg update {name} --rev {lock.tag}",
        )


def _check_history(source: RegistrySource, name: str, lock: Lock, found: Resolved) -> None:
    if found.commit != lock.commit and not source.repository.is_ancestor(lock.commit, found.commit):
        raise Conflict(
            f"commit {lock.commit[:10]} that {name} is locked to is no longer in "
            f"{found.resolution.ref.split('/', 2)[-1]} of {source.url}: its history was rewritten",
            hint=f"reg update {name} --force follows the new history, and overwrites local edits; "
            "--rev TAG goes to a release; else the lock stays",
        )


def _readable(workspace: Workspace, metafile: ImportFile) -> Content | None:
    try:
        return locked_content(workspace, metafile)
    except (ObjectMissing, NotFound, StoreError, AuthError):
        return None


def _summary(before: Content | None, after: Content) -> DiffSummary:
    if before is None:
        return summarize(find_renames(diff_entries((), after.entries())))
    return summarize(find_renames(change for change, _ in _changes(before, after, *_differing(before, after))))


def _plan_update(
    workspace: Workspace, name: str, before: Content | None, *, after: Content, force: bool
) -> tuple[Plan, DiffSummary, list[Leaf] | None, list[tuple[Entry, Extents]]]:
    """Compare two versions by the pages they do not share, and look at the work tree only where they differ."""
    root = os.path.join(workspace.root, name)
    began = time.time_ns()
    if before is None:
        found = (observed.entry for observed in observe_tree(workspace, name, 0, lenient=True))
        steps = [unhidden(workspace, name, step) for step in join_three((), after.entries(), found)]
        plan = plan_steps(steps, root, restore=True, force=force, looked_at=began)
        return plan, _summary(None, after), None, []
    old_leaves, new_leaves = _differing(before, after)
    found_changes = list(_changes(before, after, old_leaves, new_leaves))
    changes = [change for change, _ in found_changes]
    gone = [(change.before, extents) for change, extents in found_changes if change.before is not None]
    steps = [Step(c.path, c.before, c.after, observe_path(workspace.state, root, name, c.path)) for c in changes]
    plan = plan_steps(steps, root, restore=False, force=force, looked_at=began)
    return plan, summarize(find_renames(changes)), new_leaves if after.tree is not None else None, gone


def _differing(before: Content, after: Content) -> tuple[list[Leaf], list[Leaf]]:
    """Return the leaf pages of two versions that they do not share."""
    old_leaves, new_leaves = before.leaves(), after.leaves()
    if before.tree is None or after.tree is None:
        return old_leaves, new_leaves
    old_refs, new_refs = differing_pages([x.ref for x in old_leaves], [x.ref for x in new_leaves])
    old_ids, new_ids = {ref.page for ref in old_refs}, {ref.page for ref in new_refs}
    return (
        [leaf for leaf in old_leaves if leaf.ref.page in old_ids],
        [leaf for leaf in new_leaves if leaf.ref.page in new_ids],
    )


def _changes(
    before: Content, after: Content, old_leaves: Sequence[Leaf], new_leaves: Sequence[Leaf]
) -> Iterator[tuple[Change, Extents]]:
    """Stream what differs between some pages of two versions, and where the older content is."""
    taken: Item | None = None

    def old_entries() -> Iterator[Entry]:
        nonlocal taken
        for taken in before.items(old_leaves):
            yield taken.entry

    for change in diff_entries(old_entries(), (item.entry for item in after.items(new_leaves))):
        yield change, taken.extents if taken is not None and change.before is not None else ()
