"""Send several versions to a store, what they share once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from registree.store.base import Store
from registree.store.copying import CopyPlan, copy_manifest
from registree.store.state import file_stat
from registree.workspace import Workspace


def send(
    workspace: Workspace,
    sources: Sequence[Store],
    store: Store,
    plans: Sequence[tuple[str, CopyPlan]],
    verb: str,
    *,
    share: bool = False,
) -> None:
    """Send what was planned, one version after the other; the caller holds the repository's lock.

    Parameters
    ----------
    plans
        With the name of each one's dataset, for errors.
    share
        See `copy_manifest`.
    """
    machine = workspace.machine
    packs = {pack.id: pack.size for _, plan in plans for pack in (*plan.payload, *plan.pages)}
    machine.progress.begin(verb, sum(plan.files for _, plan in plans), sum(packs.values()))
    scratch = workspace.outbox.begin()
    workspace.outbox.trust(_unchanged(workspace, packs))
    done: set[bytes] = set()
    try:
        for name, plan in plans:
            left = plan.without(done)
            copy_manifest(
                sources, store, left, machine.executor, machine.progress, scratch=scratch, name=name, share=share
            )
            done |= {pack.id for pack in (*left.payload, *left.pages)}
    finally:
        machine.progress.end()
        workspace.outbox.abandon()


def _unchanged(workspace: Workspace, packs: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the packs in the outbox that are on the disk what `add` noted of them."""
    for pack in packs:
        place = workspace.outbox.place_of(pack)
        noted = workspace.state.stat(place)
        with suppress(FileNotFoundError, NotADirectoryError):
            found = file_stat(os.stat(os.path.join(workspace.root, place), follow_symlinks=False))
            if noted is not None and found.ctime and noted.content == pack and noted.matches(found):
                yield pack
