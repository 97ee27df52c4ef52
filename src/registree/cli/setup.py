"""`init`, `config`, `cache`: what is done once."""

from __future__ import annotations

import os
import time
from typing import Annotated

import typer

from registree.cli.common import DryRun, Json, Quiet, absolute, machine, workspace
from registree.cli.output import Output, count_text, plain, shown, size_text
from registree.errors import NotFound
from registree.operations.init import init
from registree.operations.settings import read_settings, settings_path, write_setting

_DAY = 86400


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    app.command("init")(init_command)
    app.command("config")(config_command)
    cache = typer.Typer(no_args_is_help=True, help="The cache of files and registries; always safe to delete.")
    cache.command("dir")(cache_dir)
    cache.command("size")(cache_size)
    cache.command("prune")(cache_prune)
    cache.command("clean")(cache_clean)
    app.add_typer(cache, name="cache")


def init_command(
    path: Annotated[str, typer.Argument(metavar="[DIR]", help="A new or an existing Git repository.")] = ".",
    remote: Annotated[
        str | None,
        typer.Option(
            "--remote",
            metavar="URL",
            help="Where payload goes: a directory, s3://bucket/prefix, … (default: inside .reg/).",
        ),
    ] = None,
    template: Annotated[bool, typer.Option("--template", help="Also copy a complete registry: README, CI, ….")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a registry of a new or an existing Git repository."""
    made = init(absolute(path), machine(quiet=quiet), base=os.getcwd(), remote=remote, template=template)
    lines = [f"registry at {shown(made.root)}, remote {made.remote.name}: {made.remote.url}"]
    if made.embedded:
        lines.append("the remote lies inside .reg/ of this machine; to share data: reg remote add default URL")
    Output("init", json, quiet).answer(plain(made), lines, following="reg add PATH -m MESSAGE")


def config_command(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="cache.dir, link, jobs, lock.wait, retries or remote.NAME.")
    ] = "",
    value: Annotated[str, typer.Argument(metavar="[VALUE]", help="The new value.")] = "",
    user: Annotated[bool, typer.Option("--user", help="The user's own file in place of this repository's.")] = False,
    unset: Annotated[bool, typer.Option("--unset", help="Take the setting out.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read or write this machine's settings.

    They lie in .reg/config.yaml, which Git does not track; with --user, in the user's own file.
    """
    own = machine(quiet=quiet)
    found = None if user else workspace(quiet=quiet)
    path = settings_path(found, own.config_dir)
    output = Output("config", json, quiet)
    if name and (value or unset):
        if found is not None:
            found.make_local()
        write_setting(path, name, None if unset else value)
        output.answer(
            {"file": path, "name": name, "value": None if unset else value},
            [f"{name} = {value}" if value else f"{name} is unset"],
        )
        return
    values = read_settings(path)
    if name and name not in values:
        raise NotFound(f"{name} is not set in {path}", hint=f"reg config {name} VALUE sets it")
    chosen = {name: values[name]} if name else values
    output.answer({"file": path, "settings": chosen}, [f"{key} = {text}" for key, text in chosen.items()])


def cache_dir(json: Json = False, quiet: Quiet = False) -> None:
    """Print where the cache is."""
    root = machine(quiet=quiet).cache.root
    Output("cache.dir", json, quiet).answer({"path": root}, [root])


def cache_size(json: Json = False, quiet: Quiet = False) -> None:
    """Count what the cache holds."""
    rows = machine(quiet=quiet).cache.usage()
    total = sum(row.size for row in rows)
    lines = [f"{row.part}\t{count_text(row.files, 'file')}\t{size_text(row.size)}" for row in rows]
    Output("cache.size", json, quiet).answer(
        {"parts": plain(rows), "size": total}, [*lines, f"total\t{size_text(total)}"], following="reg cache prune"
    )


def cache_prune(
    days: Annotated[int, typer.Option("--days", min=0, help="Keep what was used in this many days.")] = 30,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop files that no project links to and that were not used for a while."""
    gone = machine(quiet=quiet).cache.prune(days * _DAY, time.time(), dry_run=dry_run)
    word = "would be dropped" if dry_run else "dropped"
    Output("cache.prune", json, quiet).answer(
        {"files": gone.files, "size": gone.size, "dry_run": dry_run},
        [f"{count_text(gone.files, 'file')} {word}, {size_text(gone.size)}"],
    )


def cache_clean(dry_run: DryRun = False, json: Json = False, quiet: Quiet = False) -> None:
    """Drop all of it; projects keep their files."""
    cache = machine(quiet=quiet).cache
    gone = cache.clean(dry_run=dry_run)
    word = "would be dropped" if dry_run else "dropped"
    Output("cache.clean", json, quiet).answer(
        {"files": gone.files, "size": gone.size, "dry_run": dry_run, "path": os.path.abspath(cache.root)},
        [f"{count_text(gone.files, 'file')} {word}, {size_text(gone.size)}"],
    )
