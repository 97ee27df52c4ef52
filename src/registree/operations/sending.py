"""Send several versions to a store, what they share once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from registree.model.places import PackRow
from registree.store.base import Store
from registree.store.copying import CopyPlan, copy_manifest
from registree.store.file_stat import as_row, file_stat, wait_for_clock
from registree.store.state import ANYTHING
from registree.workspace import Workspace

_NOTED_FROM = 16 << 20
"""Bytes of packs that take longer to hash than to note."""


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

    Raises
    ------
    StoreError
        When the store got data before and is empty now.
    """
    machine = workspace.machine
    packs = {pack.id: pack.size for _, plan in plans for pack in (*plan.payload, *plan.pages)}
    if plans:
        store.ensure_marker(got_data=workspace.state.was_sent(store.address, ANYTHING))
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
        if plans:
            workspace.state.update(sent=[(store.address, ANYTHING)])
    finally:
        machine.progress.end()
        workspace.outbox.trust(())  # they may change before the next time
        workspace.outbox.abandon()


def note_packs(workspace: Workspace, packs: Sequence[PackRow]) -> None:
    """Note what packs that were just published in the outbox are on the disk: `send` need not hash them again then.

    It waits until a later change would show in their times, 20 ms after they were published.
    """
    if sum(pack.size for pack in packs) < _NOTED_FROM:
        return
    rows = []
    for pack in packs:
        place = workspace.outbox.place_of(pack.id)
        with suppress(FileNotFoundError):  # nothing was new, or its bytes are in the work tree alone
            rows.append((place, as_row(os.stat(os.path.join(workspace.root, place)), pack.id)))
    now = wait_for_clock(max((row.ctime for _, row in rows), default=0))
    workspace.state.update(stats=[item for item in rows if item[1].is_older(now)])


def _unchanged(workspace: Workspace, packs: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the packs in the outbox that are on the disk what was noted of them."""
    for pack in packs:
        place = workspace.outbox.place_of(pack)
        noted = workspace.state.stat(place)
        with suppress(FileNotFoundError, NotADirectoryError):
            found = file_stat(os.stat(os.path.join(workspace.root, place), follow_symlinks=False))
            if noted is not None and found.ctime and noted.content == pack and noted.matches(found):
                yield pack
