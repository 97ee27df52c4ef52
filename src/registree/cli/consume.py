"""The consumer's verbs: `get`, `import`, `update`, `sync`."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from registree.cli.common import (
    DryRun,
    Exclude,
    Force,
    Include,
    Json,
    Message,
    Offline,
    Out,
    Quiet,
    Rev,
    machine,
    name_here,
    workspace,
)
from registree.cli.output import (
    Output,
    count_text,
    fail_with_rows,
    plain,
    shown,
    size_text,
    summary_text,
    transferred,
    warn,
)
from registree.model.paths import printable
from registree.model.targets import Target
from registree.operations.get import get
from registree.operations.imports import import_dataset
from registree.operations.sync import sync
from registree.operations.update import UpdatedImport, update

RegistryArgument = Annotated[str, typer.Argument(metavar="REGISTRY", help="A Git URL, or the path of a repository.")]
TargetArgument = Annotated[
    str, typer.Argument(metavar="NAME[@REV][:PATH]", help="A dataset, a version of it, a part of it.")
]
Targets = Annotated[list[str] | None, typer.Argument(metavar="[TARGET]...", help="Imports; all when none is named.")]


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("get")(get_command)
    app.command("import")(import_command)
    app.command("update")(update_command)
    app.command("sync")(sync_command)


def get_command(
    registry: RegistryArgument,
    target: TargetArgument,
    out: Out = None,
    rev: Rev = "",
    include: Include = None,
    exclude: Exclude = None,
    force: Force = False,
    dry_run: DryRun = False,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fetch data once, anywhere, with no connection kept."""
    own = machine(quiet=quiet, offline=offline)
    made = get(
        own,
        registry,
        Target.parse(target).with_selector(rev),
        base=os.getcwd(),
        out=out,
        include=include or (),
        exclude=exclude or (),
        force=force,
        dry_run=dry_run,
    )
    if made.note:
        warn(made.note)
    amount = f"{count_text(made.files, 'file')}, {size_text(made.size)}"
    text = f"{shown(made.path)}: {amount} ({made.kind.value} at {made.commit[:10]})"
    Output("get", json, quiet).answer(
        {**plain(made), **transferred(own)}, [text], following=f"reg import {registry} {target} keeps the connection"
    )


def import_command(
    registry: RegistryArgument,
    target: TargetArgument,
    out: Out = None,
    rev: Rev = "",
    include: Include = None,
    exclude: Exclude = None,
    no_download: Annotated[
        bool, typer.Option("--no-download", help="Write the pin only; reg sync brings the data.")
    ] = False,
    force: Force = False,
    dry_run: DryRun = False,
    message: Message = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring data in, pinned, and keep the connection."""
    found = workspace(quiet=quiet, offline=offline)
    made = import_dataset(
        found,
        registry,
        Target.parse(target).with_selector(rev),
        base=os.getcwd(),
        out=out,
        include=include or (),
        exclude=exclude or (),
        download=not no_download,
        force=force,
        dry_run=dry_run,
        message=message,
    )
    if made.note:
        warn(made.note)
    lock = made.metafile.lock
    pin = lock.tag or f"{made.kind.value} at {lock.commit[:10]}"
    amount = f"{count_text(lock.files, 'file')}, {size_text(lock.size)}"
    lines = [f"{printable(made.name)}: {amount}, {'would be ' if dry_run else ''}locked to {pin}"]
    if made.commit:
        lines.append(f"committed {made.commit[:10]}")
    following = f"reg update {made.name}" if made.downloaded else f"reg sync {made.name}"
    if message is None:
        following = f"git commit -m 'Import {made.name}' keeps the pin; later: {following}"
    answer = {**plain(made), **transferred(found.machine)}
    Output("import", json, quiet).answer(answer, lines, following=following)


def update_command(
    targets: Targets = None,
    rev: Rev = "",
    dry_run: DryRun = False,
    force: Force = False,
    message: Message = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Move imports to what they want now; local edits are never lost."""
    found = workspace(quiet=quiet, offline=offline)
    rows = update(
        found,
        [name_here(found, text) for text in targets or []],
        selector=rev,
        dry_run=dry_run,
        force=force,
        message=message,
    )
    lines = [_update_line(row) for row in rows if row.error is None]
    moved = any(row.state == "updated" for row in rows)
    away = [row.name for row in rows if row.error is None and not row.on_disk]
    following = "git commit keeps the new pins" if moved and message is None else ""
    if away:
        following = f"reg sync {' '.join(map(printable, away))} brings what is not on this disk"
    Output("update", json, quiet).answer(
        {"imports": plain(rows), **transferred(found.machine)}, lines, following=following
    )
    fail_with_rows([(row.name, row.error) for row in rows if row.error is not None])


def _update_line(row: UpdatedImport) -> str:
    name = printable(row.name)
    if row.before is None or row.after is None:
        return f"{name}: {row.state}"
    here = row.before.tag or row.before.commit[:10]
    if row.state == "fixed":
        return f"{name}: stays at {here}, a fixed revision; reg update {name} --rev REV moves it"
    if row.state == "current":
        return f"{name}: nothing new ({'the default branch' if row.want == 'HEAD' else row.want} is at {here})"
    there = row.after.tag or row.after.commit[:10]
    changes = summary_text(row.changes) if row.changes is not None else ""
    return f"{name}: {row.state} from {here} to {there}: {changes}, {size_text(row.fetched)} fetched"


def sync_command(
    targets: Targets = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only tell: exit with 1 when files differ from the locks.")
    ] = False,
    force: Force = False,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make files be what the locks say."""
    found = workspace(quiet=quiet, offline=offline)
    rows = sync(found, [name_here(found, text) for text in targets or []], check=check, force=force)
    lines = []
    for row in rows:
        if row.error is None:
            done = f"{row.written} written, {row.deleted} deleted, {size_text(row.fetched)} fetched"
            lines.append(f"{printable(row.name)}: {done if row.state == 'synced' else row.state}")
            lines += [f"  {printable(path)}" for path in row.paths[:20]]
    Output("sync", json, quiet).answer(
        {"imports": plain(rows), **transferred(found.machine)}, lines, following="reg sync" if check else ""
    )
    fail_with_rows([(row.name, row.error) for row in rows if row.error is not None])
    if check and any(row.state == "differs" for row in rows):
        raise typer.Exit(1)
