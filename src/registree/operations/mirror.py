"""`reg mirror`: one remote gets what another has, without the work tree."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from registree.errors import IntegrityError, InvalidInput
from registree.model.ids import id_text
from registree.model.targets import Target
from registree.operations.named import all_manifests, manifests_at
from registree.operations.sending import send
from registree.store.copying import CopyPlan, plan_copy
from registree.workspace import Workspace


class MirrorResult(msgspec.Struct, frozen=True):
    """What was copied: versions, packs and bytes; and the versions that the source itself does not have whole."""

    source: str
    target: str
    versions: int
    packs: int
    size: int
    missing: tuple[str, ...]
    dry_run: bool


def mirror(
    workspace: Workspace, source: str, target: str, targets: Sequence[Target] = (), *, dry_run: bool = False
) -> MirrorResult:
    """Copy what one remote lacks of another.

    Parameters
    ----------
    source, target
        Names of remotes.
    targets
        Datasets, at a revision or in all their versions; empty for all that branches and tags name.

    Raises
    ------
    InvalidInput
        When both are one.
    ReadOnly
        When the target cannot be written.
    """
    registry_file = workspace.registry_file()
    here, there = workspace.store(registry_file.remote(source)), workspace.target(registry_file.remote(target))
    if here.address == there.address:
        raise InvalidInput(f"{source} and {target} are one place: {here.address}", hint="reg remote list")
    machine = workspace.machine
    wanted = manifests_at(workspace, targets) if targets else all_manifests(workspace)
    plans: list[tuple[str, CopyPlan]] = []
    missing = []
    for manifest, name in wanted.items():
        try:
            plan = plan_copy((here,), there, manifest, machine.executor)
        except IntegrityError as error:
            missing.append(f"{name} ({id_text(manifest)[:15]}…): {error.message}")
            continue
        if plan is not None and plan.missing:
            missing.append(f"{name} ({id_text(manifest)[:15]}…): {len(plan.missing)} packs are not in {here.address}")
        elif plan is not None:
            plans.append((name, plan))
    packs = {pack.id: pack.size for _, plan in plans for pack in (*plan.payload, *plan.pages)}
    if not dry_run and plans:
        with workspace.writing():
            send(workspace, (here,), there, plans, "mirror")
    size = sum(packs.values())
    return MirrorResult(here.address, there.address, len(plans), len(packs), size, tuple(missing), dry_run)
