"""What people and programs read: results on stdout, everything else on stderr, exit codes by kind of error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from registree.errors import (
    AlreadyExists,
    AuthError,
    Conflict,
    FormatError,
    IntegrityError,
    InvalidInput,
    NotFound,
    ReadOnly,
    RegError,
    StateError,
    StoreError,
)
from registree.model.diff import Change, DiffSummary
from registree.model.ids import id_text
from registree.model.paths import printable

if TYPE_CHECKING:
    from registree.source import Machine

EXIT_CODES: dict[type[RegError], int] = {
    InvalidInput: 2,
    StateError: 2,
    FormatError: 2,
    NotFound: 3,
    AuthError: 4,
    ReadOnly: 4,
    StoreError: 5,
    IntegrityError: 6,
    Conflict: 7,
    AlreadyExists: 7,
}
"""The one table from kinds of errors to exit codes; 1 is an expected "no", 130 an interruption."""
INTEGRITY = EXIT_CODES[IntegrityError]


def exit_code(error: RegError) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 2)


def report_error(error: RegError, *, json: bool = False, name: str = "") -> int:
    """Write an error, with the name of what it is about when it does not say it, and return its exit code."""
    about = f"{name}: " if name and name not in error.message else ""
    with suppress(OSError):  # where nobody listens, the exit code says it
        sys.stderr.write(f"reg: {printable(about + error.message)}\n")
        if error.hint:
            sys.stderr.write(f"hint: {printable(error.hint)}\n")
        if json:
            fields = {"schema": "reg.error/1", "kind": error.kind, "message": error.message, "hint": error.hint}
            write_json({**fields, "paths": list(error.paths)})
    return exit_code(error)


def fail_with_rows(failures: Sequence[tuple[str, RegError]]) -> None:
    """Write each failure with the name of its dataset; the first one decides the exit code."""
    for name, error in failures:
        report_error(error, name=name)
    if failures:
        raise typer.Exit(exit_code(failures[0][1]))


def warn(text: str) -> None:
    """Write a warning."""
    sys.stderr.write(f"warning: {printable(text)}\n")


def write_json(fields: Mapping[str, Any]) -> None:
    """Write one object."""
    sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")


class Output(msgspec.Struct, frozen=True):
    """How one command answers: as JSON, or as lines; `quiet` leaves out all but errors."""

    verb: str
    json: bool = False
    quiet: bool = False

    def answer(self, fields: Mapping[str, Any], lines: Sequence[str], *, following: str = "") -> None:
        """Write a result: `fields` as one JSON object, or `lines` and then the next command."""
        if self.json:
            write_json({"schema": f"reg.{self.verb}/1", **fields})
            return
        if self.quiet:
            return
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
        if following:
            sys.stderr.write(f"next: {following}\n")


def transferred(machine: Machine) -> dict[str, Any]:
    """Return what was asked of the network so far, for the end of an answer."""
    return {"transfer": plain(machine.meter.so_far)}


def plain(value: Any) -> Any:
    """Turn a result into what JSON can say: ids as text, values as objects, enumerations as their values."""
    if isinstance(value, bytes):
        return id_text(value) if len(value) == 32 else value.decode(errors="replace")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, RegError):
        return {"kind": value.kind, "message": value.message, "hint": value.hint}
    if isinstance(value, Change):
        return change_fields(value)
    if isinstance(value, msgspec.Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__ if name != "text"}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return value


def change_fields(change: Change) -> dict[str, Any]:
    """Return a change as JSON says it."""
    fields: dict[str, Any] = {"kind": change.kind.value, "path": change.path}
    if change.before is not None and change.before.path != change.path:
        fields["from"] = change.before.path
    fields["before"] = change.before.size if change.before is not None else None
    fields["after"] = change.after.size if change.after is not None else None
    return fields


SIGNS = {"added": "+", "removed": "-", "modified": "~", "renamed": ">"}


def change_line(change: Change, name: str = "") -> str:
    """Return a change in one line."""
    path = printable(change.path or name)
    if change.before is not None and change.after is not None and change.before.path != change.after.path:
        path = f"{printable(change.before.path)} -> {path}"
    return f"  {SIGNS[change.kind.value]} {path}"


def summary_text(summary: DiffSummary) -> str:
    """Return the counts of a diff in words."""
    counts = [
        f"{count} {word}"
        for count, word in (
            (summary.added, "added"),
            (summary.removed, "removed"),
            (summary.modified, "modified"),
            (summary.renamed, "renamed"),
        )
        if count
    ]
    return f"{', '.join(counts) or 'no files'} ({'+' if summary.growth >= 0 else '-'}{size_text(abs(summary.growth))})"


def size_text(size: float) -> str:
    """Return a number of bytes as people read it.

    >>> size_text(64421888)
    '64.4 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def count_text(count: int, word: str) -> str:
    """Return a count with its noun: ``1 file``, ``2 files``."""
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}s"


def shown(path: str) -> str:
    """Return a path as short as it can be said from the working directory."""
    relative = os.path.relpath(path)
    return printable(relative if len(relative) < len(path) else path)
