"""The verbs that change a registry: `add`, `commit`, `push`, `pull`, `checkout`, `remove`, `move`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from registree.cli.common import DryRun, Force, Json, Message, Quiet, absolute, name_here, targets_here, workspace
from registree.cli.output import (
    INTEGRITY,
    Output,
    count_text,
    fail_with_rows,
    plain,
    size_text,
    summary_text,
    transferred,
)
from registree.errors import InvalidInput
from registree.model.ids import id_text
from registree.model.paths import printable
from registree.operations.add import add
from registree.operations.checkout import checkout, pull
from registree.operations.commit import commit
from registree.operations.editing import EditResult, add_into, refuse_selectors, remove_from
from registree.operations.moving import move, remove
from registree.operations.push import push, repair_remote
from registree.operations.repair import RepairResult
from registree.operations.sync import Restored
from registree.workspace import Workspace


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("add")(add_command)
    app.command("commit")(commit_command)
    app.command("push")(push_command)
    app.command("pull")(pull_command)
    app.command("checkout")(checkout_command)
    app.command("remove")(remove_command)
    app.command("move")(move_command)


def add_command(
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files or directories.")],
    into: Annotated[
        str,
        typer.Option(
            "--into", metavar="NAME[:SUBDIR]", help="Put the files into a dataset that need not be on this disk."
        ),
    ] = "",
    in_place: Annotated[bool, typer.Option("--in-place", help="Keep no copy: push reads the files again.")] = False,
    message: Message = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Store files as datasets, or as their next versions."""
    found = workspace(quiet=quiet)
    output = Output("add", json, quiet)
    if into:
        (target,) = targets_here(found, [into])
        _answer_edit(output, add_into(found, target, [absolute(path) for path in paths], message=message), message)
        return
    result = add(found, [absolute(path) for path in paths], message=message, in_place=in_place, dry_run=dry_run)
    lines = []
    for row in result.datasets:
        word = "unchanged" if not row.changed else "updated" if row.existed else "added"
        word = f"would be {word}:" if dry_run and row.changed else word
        lines.append(
            f"{word} {printable(row.name)}: {count_text(row.files, 'file')}, {size_text(row.size)}"
            f" ({size_text(row.stored)} new, {id_text(row.manifest)[:15]})"
        )
    if result.commit:
        lines.append(f"committed {result.commit[:10]}")
    following = "reg push" if result.commit or message is not None else "reg commit -m MESSAGE, then reg push"
    output.answer(plain(result), lines, following=following)


def _answer_edit(output: Output, result: EditResult, message: str | None) -> None:
    lines = [
        f"{printable(result.name)}: {summary_text(result.changes)}; "
        f"now {count_text(result.files, 'file')}, {size_text(result.size)}"
    ]
    if result.commit:
        lines.append(f"committed {result.commit[:10]}")
    output.answer(plain(result), lines, following="reg push" if message else "reg commit -m MESSAGE, then reg push")


def commit_command(
    message: Annotated[str, typer.Option("--message", "-m", metavar="MSG", help="What the commit says.")],
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Commit what reg staged, and nothing else."""
    result = commit(workspace(quiet=quiet), message, dry_run=dry_run)
    lines = [
        "would commit" if dry_run else f"committed {result.commit[:10]}",
        *(f"  {printable(path)}" for path in result.paths),
    ]
    Output("commit", json, quiet).answer(plain(result), lines, following="reg push")


def push_command(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Datasets to send payload of, and no commits; all when none is named."
        ),
    ] = None,
    remote: Annotated[
        str | None, typer.Option("--remote", metavar="NAME", help="Another remote than the first.")
    ] = None,
    no_git: Annotated[bool, typer.Option("--no-git", help="Send payload only.")] = False,
    mend: Annotated[
        bool, typer.Option("--repair", help="Send again what the remote lost of any version, and no commits.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="With --repair: read the remote, to find damage too.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Send payload to the remote, then commits and tags.

    Commits and tags go to the upstream of the current branch, if it has one, and only when no dataset is named: so no
    commit goes before all that it names.
    """
    found = workspace(quiet=quiet)
    chosen = [name_here(found, name) for name in names or []]
    if mend:
        mended = repair_remote(found, chosen, remote=remote, deep=deep, dry_run=dry_run)
        _answer_repair(Output("push", json, quiet), found, mended)
        return
    if deep:
        raise InvalidInput("--deep goes with --repair", hint="reg push --repair --deep")
    result = push(found, chosen, remote=remote, git=not no_git, dry_run=dry_run)
    word = "would send" if dry_run else "sent"
    lines = [
        f"{word} {count_text(result.packs, 'pack')}, {size_text(result.size)} to {result.remote}"
        if result.datasets
        else f"{result.remote} has all payload"
    ]
    if result.upstream:
        lines.append(
            f"pushed {', '.join(result.refs)} to {result.upstream}"
            if result.refs
            else f"{result.upstream} has all commits"
        )
    following = "" if result.upstream or dry_run or no_git else "git push -u REMOTE BRANCH shares the commits"
    Output("push", json, quiet).answer({**plain(result), **transferred(found.machine)}, lines, following=following)


def _answer_repair(output: Output, found: Workspace, result: RepairResult) -> None:
    word = "would send" if result.dry_run else "sent"
    lines = [
        f"{word} {count_text(result.packs, 'pack')}, {size_text(result.size)} again to {result.remote}; "
        f"{count_text(result.versions, 'version')} mended"
        if result.versions or result.lost
        else f"{result.remote} lacks nothing"
    ]
    lines += [f"  lost: {printable(what)}" for what in result.lost]
    output.answer({**plain(result), **transferred(found.machine)}, lines, following="reg verify --remote")
    if result.lost:
        sys.stderr.write("hint: push from where it was added, or run reg add there again\n")
        raise typer.Exit(INTEGRITY)


def pull_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Datasets; all when none is named.")
    ] = None,
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fast-forward from the upstream, then bring payload."""
    found = workspace(quiet=quiet)
    result = pull(found, [name_here(found, name) for name in names or []], force=force, dry_run=dry_run)
    word = "would come to" if dry_run else "at"
    lines = [f"{word} {result.commit[:10]}, {count_text(len(result.paths), 'tracked file')} changed"]
    _answer_rows(Output("pull", json, quiet), found, result.datasets, lines)


def checkout_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Datasets; all when none is named.")
    ] = None,
    rev: Annotated[
        str, typer.Option("--rev", metavar="REV", help="Take the datasets as they were at a revision.")
    ] = "",
    force: Force = False,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make files be what their metafiles say."""
    found = workspace(quiet=quiet)
    rows = checkout(found, [name_here(found, name) for name in names or []], revision=rev, force=force, dry_run=dry_run)
    _answer_rows(Output("checkout", json, quiet), found, rows, [])


def _answer_rows(output: Output, found: Workspace, rows: Sequence[Restored], lines: list[str]) -> None:
    """Answer with one line for each dataset; the first failure decides the exit code."""
    failures = [row for row in rows if row.error is not None]
    for row in rows:
        if row.error is None:
            done = f"{row.written} written, {row.deleted} deleted, {size_text(row.fetched)} fetched"
            lines.append(f"{printable(row.name)}: {done if row.state == 'synced' else row.state}")
    output.answer(
        {"datasets": plain(rows), **transferred(found.machine)}, lines, following="reg status" if not failures else ""
    )
    fail_with_rows([(row.name, row.error) for row in failures if row.error is not None])


def remove_command(
    targets: Annotated[
        list[str], typer.Argument(metavar="NAME | NAME:PATH...", help="A dataset, or paths inside one.")
    ],
    keep: Annotated[bool, typer.Option("--keep", help="Leave the files.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Delete what no store holds, and a version that no commit names.")
    ] = False,
    message: Message = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stop tracking a dataset, or take files out of one without having it."""
    found = workspace(quiet=quiet)
    output = Output("remove", json, quiet)
    parsed = targets_here(found, targets)
    if any(target.part for target in parsed):
        _answer_edit(output, remove_from(found, parsed, message=message), message)
        return
    refuse_selectors(parsed, "remove")
    if len(parsed) != 1:
        raise InvalidInput("remove takes one dataset at a time", hint="reg remove NAME")
    result = remove(found, parsed[0].name, message=message, keep=keep, force=force, dry_run=dry_run)
    word = "would be" if dry_run else "is"
    lines = [f"{printable(result.name)} {word} tracked no longer{' and its files deleted' if result.deleted else ''}"]
    output.answer(plain(result), lines, following="reg push" if message else "reg commit -m MESSAGE")


def move_command(
    name: Annotated[str, typer.Argument(help="A dataset or an import.")],
    target: Annotated[str, typer.Argument(metavar="NEW", help="Its new name, or a folder.")],
    message: Message = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a dataset another name."""
    found = workspace(quiet=quiet)
    result = move(found, name_here(found, name), target, message=message, dry_run=dry_run)
    Output("move", json, quiet).answer(
        plain(result),
        [f"{printable(result.source)} {'would be' if dry_run else 'is now'} {printable(result.target)}"],
        following="reg push" if message else "reg commit -m MESSAGE",
    )
