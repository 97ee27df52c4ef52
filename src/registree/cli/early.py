"""Start what a large command needs while the rest of the program is still being imported."""

from __future__ import annotations

import os
from collections.abc import Sequence

from registree.execute import default_processes
from registree.store.workers import MANY, Spares

_started: list[Spares] = []


def begin(verb: str, arguments: Sequence[str]) -> None:
    """Start processes if a command will have work for them as soon as it begins."""
    if verb == "add" and any(map(_holds_many, arguments)) and (count := default_processes()):
        _started.append(Spares(count))


def spares() -> Spares | None:
    """Return what was started."""
    return _started[-1] if _started else None


def end() -> None:
    """End what nobody had work for."""
    while _started:
        _started.pop().close()


def _holds_many(path: str) -> bool:
    """Tell whether there is much below a folder, looking at no more of it than that takes."""
    seen, folders = 0, [path]
    while folders and seen < MANY:
        try:
            with os.scandir(folders.pop()) as listing:
                for entry in listing:
                    seen += 1
                    if seen == MANY:
                        break
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:  # no folder, or none of ours
            continue
    return seen == MANY
