"""`reg get`: fetch a target once, with no connection kept."""

from __future__ import annotations

import os
from collections.abc import Sequence

import msgspec

from registree.errors import NotFound
from registree.model.paths import METAFILE_SUFFIX
from registree.model.selection import Selection
from registree.model.selectors import RevisionKind
from registree.model.targets import Target
from registree.operations.content import Content, content_at, resolve_target
from registree.operations.placing import Placement, place_new
from registree.source import Machine, RegistrySource
from registree.store.files import LinkKind

COPIES = Placement((LinkKind.REFLINK, LinkKind.COPY), keep=False)
"""How files are placed that the user may edit: `get` and `checkout`."""


class GetResult(msgspec.Struct, frozen=True):
    """What `get` made: where, of which revision, and how much of it (bytes) came from a remote."""

    path: str
    target: Target
    commit: str
    kind: RevisionKind
    note: str
    files: int
    size: int
    fetched: int


def get(
    machine: Machine,
    registry: str,
    target: Target,
    *,
    base: str,
    out: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
) -> GetResult:
    """Fetch a target once, with no connection kept; works anywhere.

    Parameters
    ----------
    base
        The folder that relative paths start from, and where the target is placed.
    out
        Where to put it: into it, when it is a folder that exists.

    Raises
    ------
    NotFound, AlreadyExists, IntegrityError, StoreError, AuthError
        Nothing is left behind in any of these cases.
    """
    source = RegistrySource.open(registry, machine, base=base)
    found = resolve_target(source, target, target.selector)
    content = content_at(source, found.commit, target, Selection(target.part, tuple(include), tuple(exclude)))
    require_entries(content, target)
    place = output_path(base, out, target, source)
    fetched = 0
    if not dry_run:
        fetched = place_new(machine, content, place, COPIES, replace=force, verb="get").fetched_bytes
    totals = content.totals
    kind, note = found.resolution.kind, found.resolution.note
    return GetResult(place, target, found.commit, kind, note, totals.files, totals.size, fetched)


def require_entries(content: Content, target: Target) -> None:
    """Raise `NotFound` when a part or the globs leave nothing."""
    if not content.selection.is_all and not content.totals.entries:
        raise NotFound(f"{target} holds nothing that was asked for", hint=f"reg files REGISTRY {target.name} lists it")


def output_path(base: str, out: str | None, target: Target, source: RegistrySource) -> str:
    """Return where a target is placed: in `out` when that is a folder, at `out`, or under its own name."""
    name = os.path.basename(target.part or target.name) or os.path.basename(source.url.rstrip("/")).removesuffix(".git")
    if out is None:
        return os.path.join(base, name)
    place = os.path.normpath(os.path.join(base, out))
    is_dataset = os.path.exists(place + METAFILE_SUFFIX)  # then it is the target itself, not a folder around it
    return os.path.join(place, name) if os.path.isdir(place) and not is_dataset else place
