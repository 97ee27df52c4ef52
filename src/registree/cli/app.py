"""The application: which verb lives in which module, and what becomes of errors."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import NamedTuple

import typer
from typer.main import get_command

from registree import __version__
from registree.cli import early
from registree.cli.output import report_error
from registree.errors import RegError, StoreError, translate_os_error

INTERRUPTED = 130
_GO_ON = "\nreg: interrupted; run the same command again to go on\n"
_PATIENCE = 1.5
"""Seconds in which an interrupted command has to end by itself."""


class Verb(NamedTuple):
    """The module that holds a verb, and what it is for."""

    module: str
    summary: str


VERBS = {
    "init": Verb("setup", "Make a registry of a new or an existing Git repository."),
    "config": Verb("setup", "Read or write this machine's settings."),
    "add": Verb("curate", "Store files as datasets, or as their next versions."),
    "commit": Verb("curate", "Commit what reg staged, and nothing else."),
    "status": Verb("check", "Show what differs: files, metafiles, Git, outbox."),
    "push": Verb("curate", "Send payload to the remote, then commits and tags."),
    "pull": Verb("curate", "Fast-forward from the upstream, then bring payload."),
    "checkout": Verb("curate", "Make files be what their metafiles say."),
    "remove": Verb("curate", "Stop tracking a dataset, or take files out of one without having it."),
    "move": Verb("curate", "Give a dataset another name."),
    "verify": Verb("check", "Check that files, or versions on the remote, are what the metafiles name."),
    "mirror": Verb("remotes", "Copy what one remote lacks of another, from remote to remote."),
    "list": Verb("browse", "List the datasets of a registry."),
    "show": Verb("browse", "Describe a dataset: its size, folders, versions and labels."),
    "files": Verb("browse", "List the files in a dataset, without fetching them."),
    "cat": Verb("browse", "Write one file of a dataset to stdout, verified."),
    "diff": Verb("browse", "Compare two revisions of datasets, file by file."),
    "get": Verb("consume", "Fetch data once, anywhere, with no connection kept."),
    "import": Verb("consume", "Bring data in, pinned, and keep the connection."),
    "update": Verb("consume", "Move imports to what they want now; local edits are never lost."),
    "sync": Verb("consume", "Make files be what the locks say."),
    "cache": Verb("setup", "The cache of files and registries; always safe to delete."),
    "remote": Verb("remotes", "Where payload lives: list, add, remove or override remotes."),
    "auth": Verb("remotes", "Which credentials are used where."),
}
"""Every verb, so that one does not import what another needs, and the list of them imports none."""

HELP = """A package manager for data, on plain Git and a plain bucket.

\b
In a registry:  reg init, reg add PATH -m MESSAGE, reg push.
In a consumer:  reg import REGISTRY NAME --rev TAG, reg update.
Anywhere:       reg get REGISTRY NAME@REV.
"""


def build(verb: str = "", *, listing: bool = False) -> typer.Typer:
    """Return the application with one verb, or with all of them; `listing` is enough to list them."""
    app = typer.Typer(
        name="reg",
        help=HELP,
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", "-V", help="Print the version.", is_eager=True),
        directory: str = typer.Option("", "--directory", "-C", metavar="DIR", help="Run as if started in DIR."),
    ) -> None:
        if version:
            typer.echo(f"reg {__version__}")
            raise typer.Exit
        if directory:
            try:
                os.chdir(directory)
            except OSError as error:
                raise typer.BadParameter(f"{directory}: {error.strerror}", param_hint="--directory") from None

    if listing:
        for name, known in VERBS.items():
            app.command(name, help=known.summary)(_listed)
        return app
    for module in dict.fromkeys(known.module for known in ([VERBS[verb]] if verb in VERBS else VERBS.values())):
        importlib.import_module(f"registree.cli.{module}").register(app)
    order = [verb] if verb in VERBS else list(VERBS)
    commands = {command.name: command for command in app.registered_commands}
    app.registered_commands = [commands[name] for name in order if name in commands]
    return app


def _listed() -> None:
    raise AssertionError("a verb was only listed")


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    verb = _verb(arguments)
    listing = verb not in VERBS and "_REG_COMPLETE" not in os.environ
    json = "--json" in arguments
    signal.signal(signal.SIGTERM, interrupted)
    try:
        early.begin(verb, arguments)
        code = get_command(build(verb, listing=listing))(list(arguments), prog_name="reg", standalone_mode=False)
        sys.stdout.flush()
        if code == INTERRUPTED:  # typer has turned the interrupt into its code
            sys.stderr.write(_GO_ON)
        return code if isinstance(code, int) else 0
    except RegError as error:
        return report_error(error, json=json)
    except (KeyboardInterrupt, typer.Abort):
        sys.stderr.write(_GO_ON)
        return INTERRUPTED
    except typer.Exit as stop:
        return stop.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:  # a disk may fail anywhere
        return report_error(_said(error), json=json)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(error, "exit_code", 2))
    finally:
        early.end()


def _said(error: OSError) -> RegError:
    if error.filename is None:
        hint = "is the folder still there that reg was started in?" if error.errno == errno.ENOENT else ""
        return StoreError(error.strerror or str(error), hint=hint)
    place, name = os.path.split(str(error.filename))
    return translate_os_error(error, name, place or ".")


def interrupted(signum: int, frame: object) -> None:
    """End what is running; what takes too long to end is left as after a crash, which the next run cleans up."""
    timer = threading.Timer(_PATIENCE, _give_up)
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt


def _give_up() -> None:
    os.write(2, _GO_ON.encode())
    os._exit(INTERRUPTED)


def _verb(arguments: Sequence[str]) -> str:
    words = iter(arguments)
    for word in words:
        if word in ("-C", "--directory"):
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""
