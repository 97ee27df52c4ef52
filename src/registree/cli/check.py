"""The verbs that look at a repository and change nothing: `status`, `verify`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from registree.cli.common import Json, Quiet, targets_here, workspace
from registree.cli.output import INTEGRITY, Output, change_line, count_text, plain, size_text, transferred
from registree.errors import InvalidInput
from registree.model.paths import printable
from registree.operations.status import DatasetStatus, Status, status
from registree.operations.verify import verify_disk, verify_remote

_SHOWN = 20
_REFS = 5


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("status")(status_command)
    app.command("verify")(verify_command)


def status_command(
    remote: Annotated[
        bool, typer.Option("--remote", help="Also ask registries for newer versions of imports.")
    ] = False,
    fail: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 when anything differs.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what differs: files, metafiles, Git, outbox."""
    found = status(workspace(quiet=quiet), remote=remote)
    Output("status", json, quiet).answer(plain(found), _status_lines(found), following=_after_status(found))
    if fail and (found.staged or not all(row.clean for row in found.datasets)):
        raise typer.Exit(1)


def _status_lines(found: Status) -> list[str]:
    lines = [f"on {found.branch}, {count_text(len(found.datasets), 'dataset')}"]
    for row in found.datasets:
        if row.clean and row.disk == "clean":
            continue
        lines.append(f"{printable(row.name)}: {', '.join(_words(row))}")
        lines += [change_line(change, row.name) for change in row.changes[:_SHOWN]]
        if len(row.changes) > _SHOWN:
            lines.append(f"  … and {len(row.changes) - _SHOWN} more (--json lists all)")
    others = [path for path in found.staged if not path.endswith(".reg.yaml")]
    if others:
        lines.append(f"staged: {', '.join(map(printable, others))}")
    if found.waiting_packs:
        lines.append(f"outbox: {count_text(found.waiting_packs, 'pack')}, {size_text(found.waiting_bytes)} to push")
    if len(lines) == 1:
        lines.append("nothing changed")
    return lines


def _words(row: DatasetStatus) -> list[str]:
    words = [] if row.disk == "clean" else [{"absent": "not on this disk"}.get(row.disk, row.disk)]
    if row.changes:
        words[-1] = f"changed ({count_text(len(row.changes), 'file')})"
    words += ["not committed"] * row.staged + ["not pushed"] * row.unpushed
    words += [f"newer: {row.newer}"] if row.newer else []
    words += [row.problem] if row.problem else []
    return words


def _after_status(found: Status) -> str:
    changed = next((row for row in found.datasets if row.disk == "changed" and row.kind == "dataset"), None)
    if changed is not None:
        return f"reg add {changed.name} -m MESSAGE"
    if found.staged:
        return "reg commit -m MESSAGE"
    if any(row.unpushed for row in found.datasets):
        return "reg push"
    newer = next((row for row in found.datasets if row.newer), None)
    return f"reg update {newer.name}" if newer is not None else ""


def verify_command(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME[@REV]]...", help="Datasets; with --remote at a revision or in all versions. Default: all."
        ),
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Check the remote in place of this disk.")] = False,
    of: Annotated[str | None, typer.Option("--of", metavar="REMOTE", help="Another remote than the first.")] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Read and hash every byte, whatever sizes and times say.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check that files, or versions on the remote, are what the metafiles name."""
    found = workspace(quiet=quiet)
    parsed = targets_here(found, targets or [])
    on_remote = remote or of is not None
    if not on_remote and any(target.selector for target in parsed):
        raise InvalidInput("a revision is checked on the remote", hint="reg verify --remote NAME@REV")
    result = (
        verify_remote(found, parsed, remote=of, deep=deep)
        if on_remote
        else verify_disk(found, [target.name for target in parsed], deep=deep)
    )
    what = f"{count_text(result.versions, 'version')}, {count_text(result.files, 'file')}, {size_text(result.size)}"
    lines = [f"{what}: {'all there' if not result.problems else count_text(len(result.problems), 'problem')}"]
    for problem in result.problems:
        lines.append(f"  {printable(problem.dataset)}: {printable(problem.what)}")
        if problem.needed_by:
            more = f" and {len(problem.needed_by) - _REFS} more" if len(problem.needed_by) > _REFS else ""
            lines.append(f"    needed by {', '.join(map(printable, problem.needed_by[:_REFS]))}{more}")
    Output("verify", json, quiet).answer({**plain(result), **transferred(found.machine)}, lines)
    if result.problems:
        again = f"reg push --repair{' --deep' if deep else ''}{f' --remote {of}' if of else ''}"
        sys.stderr.write(
            f"hint: {again} sends what this machine or another remote still has\n"
            if on_remote
            else "hint: reg checkout --force restores files\n"
        )
        raise typer.Exit(INTEGRITY)
