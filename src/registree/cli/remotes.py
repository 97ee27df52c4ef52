"""Where payload lives and who may reach it: `remote`, `mirror`, `auth`."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from registree.cli.common import DryRun, Json, Message, Quiet, machine, targets_here, workspace
from registree.cli.output import INTEGRITY, Output, count_text, plain, size_text, transferred
from registree.errors import InvalidInput
from registree.model.paths import printable
from registree.operations.access import auth_status, override_remote
from registree.operations.init import add_remote, remove_remote
from registree.operations.mirror import mirror


def register(app: typer.Typer) -> None:
    """Add these verbs."""
    remotes = typer.Typer(no_args_is_help=True, help="Where payload lives: list, add, remove or override remotes.")
    remotes.command("add")(remote_add)
    remotes.command("list")(remote_list)
    remotes.command("remove")(remote_remove)
    remotes.command("override")(remote_override)
    app.add_typer(remotes, name="remote")
    app.command("mirror")(mirror_command)
    auth = typer.Typer(no_args_is_help=True, help="Which credentials are used where.")
    auth.command("status")(auth_status_command)
    app.add_typer(auth, name="auth")


def remote_add(
    name: Annotated[str, typer.Argument(help="The remote's name; one that exists is changed.")],
    url: Annotated[str, typer.Argument(help="A directory, s3://bucket/prefix, https://…, or another of fsspec's.")],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-O", metavar="NAME=VALUE", help="An option of the store: endpoint_url, region, profile, …."
        ),
    ] = None,
    message: Message = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add a remote to reg.yaml, or change one."""
    options = {}
    for text in option or []:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"option {text!r} has no value", hint="--option NAME=VALUE")
        options[key] = {"true": True, "false": False}.get(value, value)
    found = workspace(quiet=quiet)
    before = next((remote for remote in found.registry_file().remotes if remote.name == name), None)
    made = add_remote(found, name, url, options, base=os.getcwd(), message=message)
    lines = [f"remote {made.name}: {made.url}"]
    if before is not None and before.url != made.url:
        lines.append(f"what {before.url} got stays there: add it under another name, and reg mirror brings all of it")
    following = "reg push" if message is not None else "reg commit -m MESSAGE, then reg push"
    Output("remote.add", json, quiet).answer(plain(made), lines, following=following)


def remote_list(json: Json = False, quiet: Quiet = False) -> None:
    """List the remotes; the first is the default."""
    remotes = workspace(quiet=quiet).registry_file().remotes
    lines = [f"{remote.name}\t{remote.url}" for remote in remotes]
    Output("remote.list", json, quiet).answer({"remotes": plain(remotes)}, lines)


def remote_remove(name: str, message: Message = None, json: Json = False, quiet: Quiet = False) -> None:
    """Take a remote out of reg.yaml; what it holds stays there."""
    gone = remove_remote(workspace(quiet=quiet), name, message=message)
    Output("remote.remove", json, quiet).answer(
        plain(gone), [f"remote {gone.name} is removed; {gone.url} is left as it is"]
    )


def remote_override(
    remote: Annotated[str, typer.Argument(help="A remote's URL as its registry writes it, or its name.")],
    url: Annotated[str, typer.Argument(metavar="[URL]", help="Where this machine reads it.")] = "",
    user: Annotated[bool, typer.Option("--user", help="For all repositories of this user.")] = False,
    unset: Annotated[bool, typer.Option("--unset", help="Read it where the registry says again.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read a registry's remote from somewhere else on this machine; nothing that Git tracks changes."""
    if bool(url) == unset:
        raise InvalidInput("an override needs a URL, or --unset", hint=f"reg remote override {remote} URL")
    own = machine(quiet=quiet)
    found = None if user else workspace(quiet=quiet)
    place = url if "://" in url or not url else os.path.abspath(os.path.expanduser(url))
    path = override_remote(found, own, remote, place or None)
    text = f"{remote} is read at {place}" if place else f"{remote} is read where its registry says"
    Output("remote.override", json, quiet).answer({"remote": remote, "url": place or None, "file": path}, [text])


def mirror_command(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The name of a remote.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The name of another.")],
    targets: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME[@REV]]...", help="Datasets; all versions of all by default.")
    ] = None,
    dry_run: DryRun = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Copy what one remote lacks of another, from remote to remote."""
    found = workspace(quiet=quiet)
    result = mirror(found, source, target, targets_here(found, targets or []), dry_run=dry_run)
    word = "would be copied" if dry_run else "copied"
    amount = f"{count_text(result.versions, 'version')}, {count_text(result.packs, 'pack')}, {size_text(result.size)}"
    lines = [f"{amount} {word} to {result.target}" if result.versions else f"{result.target} lacks nothing"]
    lines += [f"  missing: {printable(what)}" for what in result.missing]
    Output("mirror", json, quiet).answer({**plain(result), **transferred(found.machine)}, lines)
    if result.missing:
        sys.stderr.write(f"hint: reg push --repair --remote {source} mends it, if anything here still has it\n")
        raise typer.Exit(INTEGRITY)


def auth_status_command(json: Json = False, quiet: Quiet = False) -> None:
    """Name the source of credentials for every host that this repository reaches; never a secret."""
    rows = auth_status(workspace(quiet=quiet))
    lines = [f"{row.place}\t{row.kind}\t{row.source}{f' (user {row.user})' if row.user else ''}" for row in rows]
    Output("auth.status", json, quiet).answer({"hosts": plain(rows)}, lines or ["nothing here reaches another host"])
