"""Commands that are cut off: a process that forks `reg` and ends it at its N-th change to the disk; states to compare.

Run as a program, it is the process that forks: it has imported the command line once, reads one JSON line for each
request and answers with one. A command that is to crash ends, without any clean-up, before its N-th call of one of
the functions in `STEPS`: as a kill at that moment would end it.
"""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

STEPS = ("rename", "replace", "link", "symlink", "unlink", "remove", "mkdir", "rmdir", "fsync", "ftruncate", "chmod")
CRASHED = 137


def _serve() -> None:
    from registree.cli import app  # noqa: PLC0415 -- the tests import this module too

    for module in (*{f"registree.cli.{verb.module}" for verb in app.VERBS.values()}, "dulwich.porcelain", "sqlite3"):
        importlib.import_module(module)
    for line in sys.stdin:
        children = [_start(app.run, **request) for request in json.loads(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(json.dumps(codes) + "\n")
        sys.stdout.flush()


def _start(
    run: Callable[[Sequence[str]], int], cwd: str, args: list[str], said: str, crash_at: int, delay: float
) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.setsid()
        os.chdir(cwd)
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        time.sleep(delay)
        if crash_at:
            _crash_before(crash_at)
        code = run(args)
    except BaseException:  # noqa: BLE001 -- it is shown with what the command said
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _crash_before(number: int) -> None:
    steps = itertools.count(1)

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            if next(steps) == number:
                os._exit(CRASHED)
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


@dataclass(frozen=True)
class Command:
    """A `reg` command line, the folder it runs in, the step it crashes before (0: none), and seconds it waits."""

    cwd: Path
    args: tuple[str, ...]
    crash_at: int = 0
    delay: float = 0


class Forks:
    """The process that forks commands, with the environment of the moment it was started in."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *commands: Command) -> list[tuple[int, str]]:
        """Run commands at the same time; return the exit code and the output of each."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        requests = [
            {
                "cwd": str(command.cwd),
                "args": list(command.args),
                "said": str(self._place / f"said-{index}"),
                "crash_at": command.crash_at,
                "delay": command.delay,
            }
            for index, command in enumerate(commands)
        ]
        self._process.stdin.write(json.dumps(requests) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return [(code, Path(str(request["said"])).read_text()) for code, request in zip(codes, requests, strict=True)]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def git_said(cwd: Path, *args: str) -> str:
    """Run `git ARGS` and return all it said; it must succeed."""
    done = subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(args)} in {cwd.name}: {done.stdout}{done.stderr}"
    return done.stdout


def listing(root: Path, without: Sequence[str] = ()) -> dict[str, str]:
    """Return what lies under a folder: files by their hash and executable bit, links by their target, empty folders."""
    found: dict[str, str] = {}
    for folder, folders, names in os.walk(root):
        place = Path(folder)
        if place == root:
            folders[:] = [name for name in folders if name not in without]
        links = [name for name in folders if (place / name).is_symlink()]
        for name in (*names, *links):
            path = place / name
            mode = path.lstat().st_mode
            if stat.S_ISLNK(mode):
                found[str(path.relative_to(root))] = f"-> {os.readlink(path)}"
            else:
                word = "program" if mode & 0o100 else "file"
                found[str(path.relative_to(root))] = f"{word} {blake3(path.read_bytes()).hexdigest()}"
        if not folders and not names and place != root:
            found[str(place.relative_to(root))] = "folder"
    return found


def objects(root: Path) -> dict[str, str]:
    """Return the objects of a store by key; temporary names are left out, and a pack must be what its name says."""
    found = {
        name: text
        for name, text in listing(root).items()
        if not Path(name).name.startswith(".tmp-") and text != "folder"
    }
    for name, text in found.items():
        if name.startswith("packs/"):
            assert text == f"file {Path(name).name}", f"pack {name} of {root} is not whole"
    return found


def state(area: Path) -> dict[str, Any]:
    """Return all that a command may change in an area: repositories with their history, index and files, and stores."""
    found: dict[str, Any] = {}
    for place in sorted(area.iterdir()):
        if place.name == "remote":
            found["remote"] = objects(place)
        elif place.suffix == ".git":
            found[place.name] = git_said(place, "log", "--all", "--format=%D %s %T").splitlines()
        elif (place / ".git").exists():
            history = git_said(place, "log", "--format=%s %T").splitlines()
            found[place.name] = {
                "files": listing(place, (".git", ".reg")),
                "history": history,
                "index": git_said(place, "ls-files", "-s").splitlines(),
                "status": git_said(place, "status", "--porcelain").splitlines(),
                "tags": git_said(place, "tag").splitlines(),
                "outbox": sorted(objects(place / ".reg/outbox")),
            }
    return found


def difference(found: dict[str, Any], expected: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line for each thing in which two states differ."""
    lines: list[str] = []
    for key in sorted({*found, *expected}):
        one, other = found.get(key), expected.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            lines += difference(one, other, f"{prefix}{key}: ")
        elif one != other:
            lines.append(f"{prefix}{key}: {one!r} in place of {other!r}")
    return lines


_RESIDUE = re.compile(
    r"""
    (^|/)\.[^/]*\.reg-new(/|$)     # staging beside a target
    | \.reg-\d+$                   # a tracked file that was being written
    | (/|upstream)\.git/(.*/)?[^/]*\.lock$  # a lock of Git's, which stops the next writer
    | /outbox/(tmp|gathered-)      # packs that were being written
    | /outbox/.*/\.tmp-            # an object of the outbox that was being written
    | ^cache/partial/.*/[^/]*$     # the download of a large file
    | \.git\.[0-9a-f]{12}$         # a mirror that was being made
    """,
    re.VERBOSE,
)


def residue(area: Path) -> list[str]:
    """Return what an interrupted command left that no later one will use."""
    found = []
    for folder, folders, names in os.walk(area):
        place = Path(folder)
        paths = [str((place / name).relative_to(area)) for name in (*names, *folders)]
        found += [path for path in paths if _RESIDUE.search(path) and not path.startswith("cache/mirrors/")]
    return [path for path in found if not (path.startswith("cache/partial/") and (area / path).is_dir())]


if __name__ == "__main__":
    _serve()
