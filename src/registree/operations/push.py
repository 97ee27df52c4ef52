"""`reg push`: payload first, then the branch and its tags."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

import msgspec

from registree.errors import FormatError, IntegrityError, ObjectMissing
from registree.git.upstream import push_branch
from registree.model.ids import ContentId, id_text
from registree.model.metafile import DatasetFile
from registree.model.paths import parse_dataset_name
from registree.model.targets import Target
from registree.operations.named import all_manifests, manifests_at, named_manifests
from registree.operations.repair import RepairResult, repair
from registree.operations.sending import send
from registree.store.base import Store
from registree.store.copying import CopyPlan, confirmed_packs, plan_copy, refuse_missing, seed_cache
from registree.store.layout import MANIFESTS, key
from registree.store.published import Published
from registree.store.state import ANYTHING
from registree.workspace import Workspace

_TRUSTED = 4


class PushResult(msgspec.Struct, frozen=True):
    """What a push sent: datasets, packs and bytes of payload; and the Git refs that moved, if there is an upstream."""

    remote: str
    datasets: tuple[str, ...]
    packs: int
    size: int
    upstream: str
    refs: tuple[str, ...]
    dry_run: bool


def push(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    remote: str | None = None,
    git: bool = True,
    dry_run: bool = False,
) -> PushResult:
    """Send what the remote lacks, then the current branch and its tags to its upstream, if it has one.

    Parameters
    ----------
    names
        Datasets to send payload of; empty for all.
    remote
        Name of the remote; None for the first.
    git
        Whether to push commits.

    Raises
    ------
    IntegrityError
        When payload of a commit is nowhere, the outbox's copy is damaged, or the remote lost a part just now.
    StoreError
        When the remote cannot be reached, or got data before and is empty now.
    Conflict
        When somebody pushed commits first; payload that was sent stays sent.
    """
    repository = workspace.repository
    with workspace.writing():
        head, upstream = repository.head(), repository.upstream()  # commits that come later wait for the next push
        store, others, is_default = _target(workspace, remote)
        wanted = named_manifests(workspace, names, head, upstream)
        plans = _plan(workspace, store, others, wanted, upstream)
        packs = {pack.id: pack for _, plan in plans for pack in (*plan.payload, *plan.pages)}
        size = sum(pack.size for pack in packs.values())
        sent = tuple(dict.fromkeys(name for name, _ in plans))
        if dry_run:
            return PushResult(store.address, sent, len(packs), size, "", (), dry_run=True)
        send(workspace, (workspace.outbox, *others), store, plans, "push", share=is_default)
        if is_default:
            _drop_confirmed(workspace, store, wanted, {plan.manifest for _, plan in plans})
        where, refs = "", list[str]()
        if upstream is not None and git and not names:
            where, refs = push_branch(repository, head, upstream, workspace.machine.access, workspace.note_git_folder)
    return PushResult(store.address, sent, len(packs), size, where, tuple(refs), dry_run=False)


def repair_remote(
    workspace: Workspace,
    names: Sequence[str] = (),
    *,
    remote: str | None = None,
    deep: bool = False,
    dry_run: bool = False,
) -> RepairResult:
    """Send again what a remote lost of all versions that branches, tags and the work tree name; no commits.

    Parameters
    ----------
    deep
        Read every pack of the remote, to find those that are damaged too.
    """
    with workspace.writing():
        store, others, _ = _target(workspace, remote)
        targets = [Target(parse_dataset_name(name)) for name in names]
        wanted = manifests_at(workspace, targets) if targets else all_manifests(workspace)
        return repair(workspace, store, (workspace.outbox, *others), wanted, deep=deep, dry_run=dry_run)


def _target(workspace: Workspace, remote: str | None) -> tuple[Store, list[Store], bool]:
    """Open the remote to send to and the others; say whether it is the first, which the outbox waits for."""
    registry_file = workspace.registry_file()
    chosen = registry_file.remote(remote)
    store = workspace.target(chosen)
    others = [other for other in workspace.stores() if other is not store]
    return store, others, chosen.name == registry_file.remotes[0].name


def _plan(
    workspace: Workspace,
    store: Store,
    others: Sequence[Store],
    wanted: Mapping[ContentId, str],
    upstream: tuple[str, str] | None,
) -> list[tuple[str, CopyPlan]]:
    """Plan what is sent; what the commits name must be on the remote, in the outbox, or on another remote."""
    executor = workspace.machine.executor
    waiting = set(workspace.outbox.manifests())
    sizes = executor.map(lambda manifest: store.size(key(MANIFESTS, manifest)), wanted)
    rows = [(name, manifest, size is not None) for (manifest, name), size in zip(wanted.items(), sizes, strict=True)]
    todo = [(name, manifest) for name, manifest, there in rows if not there or manifest in waiting]
    if not todo:
        return []
    before = [
        manifest for manifest in _published(workspace, {name for name, _ in todo}, upstream) if manifest not in waiting
    ]
    before += [manifest for _, manifest, there in rows if there and manifest not in waiting][:_TRUSTED]
    published = Published(store, workspace.machine.cache, dict.fromkeys(before), executor)
    plans: list[tuple[str, CopyPlan]] = []
    missing = []
    for name, manifest in todo:
        try:
            plan = plan_copy((workspace.outbox, *others), store, manifest, executor, published)
        except ObjectMissing:
            missing.append((name, manifest))
            continue
        if plan is not None:
            plans.append((name, plan))
    if missing:
        if workspace.state.was_sent(store.address, ANYTHING):
            store.ensure_marker(got_data=True)  # it says so when all of it is gone
        name, manifest = missing[0]
        raise IntegrityError(
            f"{len(missing)} versions named by commits are neither in the outbox nor in {store.address}, "
            f"the first is {id_text(manifest)[:15]}… of {name}",
            hint="push from where they were added, or check them out and run reg add again",
            paths=tuple(f"{name} {id_text(manifest)}" for name, manifest in missing),
        )
    if any(plan.missing for _, plan in plans):  # `add` stores again what the remote is not known to have
        workspace.state.update(lost=[(store.address, pack.id) for _, plan in plans for pack in plan.missing])
    for name, plan in plans:
        refuse_missing(plan, store, name)
    return plans


def _published(workspace: Workspace, names: Collection[str], upstream: tuple[str, str] | None) -> list[ContentId]:
    """Return the manifests that the upstream's branch had of some datasets when it was last seen."""
    repository = workspace.repository
    known = repository.remote_branch(*upstream) if upstream else None
    if known is None or not repository.has_commit(known):
        return []
    source = workspace.registry()
    found = []
    for name in names:
        with suppress(FormatError):  # then all of it is asked for
            file = source.metafile(known, name)
            if isinstance(file, DatasetFile):
                found.append(file.manifest)
    return found


def _drop_confirmed(
    workspace: Workspace, store: Store, wanted: Mapping[ContentId, str], sent: Collection[bytes]
) -> None:
    """Forget what the remote has for certain: each pack was asked for and has its size.

    Raises
    ------
    IntegrityError
        When the remote lost a part of it meanwhile; the outbox keeps that.
    """
    lost = []
    outbox, executor = workspace.outbox, workspace.machine.executor
    for manifest in map(ContentId, outbox.manifests()):
        if manifest not in wanted or store.size(key(MANIFESTS, manifest)) is None:
            continue
        try:
            packs = confirmed_packs(outbox, store, manifest, executor)
            if packs is not None and manifest in sent:
                seed_cache(store, manifest, outbox, workspace.machine.cache, executor)
        except ObjectMissing:
            packs = []  # the remote had it already, and this outbox only a part
        if packs is None:
            lost.append(wanted[manifest])
            continue
        workspace.state.update(
            sent=[(store.address, pack.id) for pack in packs], forget=[outbox.place_of(pack.id) for pack in packs]
        )
        outbox.drop_manifest(manifest)
        for pack in packs:
            outbox.drop_pack(pack.id)
    if not outbox.manifests():
        outbox.clear()
    if lost:
        raise IntegrityError(
            f"{store.address} lost a part of {', '.join(lost)} just now", hint="reg push sends it again"
        )
