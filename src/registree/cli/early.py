"""Start what a large command needs while the rest of the program is still being imported."""

from __future__ import annotations

import os
from collections.abc import Sequence

from registree.execute import default_processes
from registree.store.workers import Spares

_AT_ONCE = ("add",)
"""Verbs that have work for other processes as soon as they begin, when they are given a directory."""
_started: list[Spares] = []


def begin(verb: str, arguments: Sequence[str]) -> None:
    """Start processes for a command that will have work for them."""
    if verb in _AT_ONCE and any(map(os.path.isdir, arguments)) and (count := default_processes()):
        _started.append(Spares(count))


def spares() -> Spares | None:
    """Return what was started."""
    return _started[-1] if _started else None


def end() -> None:
    """End what nobody had work for."""
    while _started:
        _started.pop().close()
