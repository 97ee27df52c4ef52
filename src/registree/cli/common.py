"""What the commands share: their options, and the way from where the user stands to a workspace."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from msgspec.structs import replace

from registree.cli import early
from registree.cli.output import warn
from registree.cli.progress import TerminalProgress
from registree.execute import Counted
from registree.model.paths import METAFILE_SUFFIX, DatasetName, parse_dataset_name
from registree.model.targets import Target
from registree.source import Machine
from registree.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Answer with one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Message = Annotated[
    str | None,
    typer.Option("--message", "-m", metavar="MSG", help="Commit with this message; without it, changes are staged."),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what no store holds.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Rev = Annotated[str, typer.Option("--rev", metavar="SEL", help="Version, range, label, tag, branch or commit.")]
Include = Annotated[
    list[str] | None, typer.Option("--include", metavar="GLOB", help="Only files that fit (repeatable).")
]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", metavar="GLOB", help="No files that fit (repeatable).")]
Out = Annotated[str | None, typer.Option("--out", "-o", metavar="PATH", help="Where to put it.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask no registry: use what was fetched before.")]


def machine(*, quiet: bool = False, offline: bool = False) -> Machine:
    """Return the machine as the environment describes it, with progress for people."""
    made = replace(Machine.from_environment(os.environ, offline=offline), spares=early.spares())
    if sys.stdin.isatty() and sys.stderr.isatty():
        made = replace(made, ask=_ask)
    made = made if quiet else replace(made, progress=TerminalProgress(), warn=warn)
    return replace(made, progress=Counted(made.progress, made.meter))


def _ask(question: str, secret: bool) -> str:
    """Ask on the terminal; what is asked for goes to stderr, and a secret is not shown."""
    return str(typer.prompt(question, hide_input=secret, prompt_suffix="", err=True))


def workspace(*, quiet: bool = False, offline: bool = False) -> Workspace:
    """Return the repository around the working directory."""
    return Workspace.find(os.getcwd(), machine(quiet=quiet, offline=offline))


def name_here(found: Workspace, text: str) -> DatasetName:
    """Read a dataset's name: from the working directory when there is one of that name, else from the root."""
    place = os.path.realpath(os.path.join(os.getcwd(), text.removesuffix(METAFILE_SUFFIX).rstrip("/")))
    if place.startswith(found.root + os.sep):
        relative = os.path.relpath(place, found.root)
        if os.path.exists(found.metafile_path(relative)):
            return parse_dataset_name(relative)
    return parse_dataset_name(text)


def targets_here(found: Workspace, texts: Sequence[str]) -> list[Target]:
    """Read targets, their names as `name_here` does."""
    parsed = [Target.parse(text) for text in texts]
    return [Target(name_here(found, target.name), target.selector, target.part) for target in parsed]


def absolute(path: str) -> str:
    """Return a path from the working directory; a link at its end is not followed."""
    return os.path.join(os.getcwd(), path)
