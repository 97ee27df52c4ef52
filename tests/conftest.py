"""Fixtures: a command line in this process, and fresh repositories with a cache of their own."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registree.cli.app import run


@dataclass(frozen=True)
class Ran:
    """What a command answered."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def json(self) -> Any:
        """The object on stdout."""
        return json.loads(self.out)


Reg = Callable[..., Ran]


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of the test's own: no cache, configuration or Git identity of the machine gets in."""
    place = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(("GIT_", "REG_", "AWS_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("REG_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    (place / ".gitconfig").write_text(
        "[user]\n\tname = Test\n\temail = test@example.org\n"
        '[init]\n\tdefaultBranch = main\n[protocol "file"]\n\tallow = always\n'
    )
    yield place
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def reg(monkeypatch: pytest.MonkeyPatch) -> Iterator[Reg]:
    """Run `reg ARGS` in a folder, in this process; a code that was not expected fails the test with what was said."""
    start = os.getcwd()

    def invoke(cwd: Path, *args: str | Path, code: int | None = 0) -> Ran:
        os.chdir(cwd)
        raw = io.BytesIO()
        out, err = io.TextIOWrapper(raw, encoding="utf-8", newline=""), io.StringIO()
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = out, err
        try:
            found = run([str(arg) for arg in args])
            out.flush()
        finally:
            sys.stdout, sys.stderr = before
            os.chdir(start)
        ran = Ran(found, raw.getvalue().decode(errors="replace"), err.getvalue(), raw.getvalue())
        if code is not None:
            assert found == code, f"reg {' '.join(map(str, args))} -> {found}\n{ran.out}\n{ran.err}"
        return ran

    yield invoke
    os.chdir(start)


def git(cwd: Path, *args: str, check: bool = True) -> str:
    """Run `git ARGS` and return its output."""
    done = subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr}")
    return done.stdout


def write(root: Path, files: dict[str, bytes | str]) -> None:
    """Write files under a folder."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def tree(root: Path) -> dict[str, bytes]:
    """Read all files under a folder, links as ``-> target``, empty folders as ``name/``."""
    found: dict[str, bytes] = {}
    for folder, folders, names in os.walk(root):
        place = Path(folder)
        for name in [*names, *(f for f in folders if (place / f).is_symlink())]:
            path = place / name
            content = b"-> " + os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(root))] = content
        if not folders and not names and place != root:
            found[str(place.relative_to(root)) + "/"] = b""
    return found


@pytest.fixture
def registry(tmp_path: Path, reg: Reg) -> Path:
    """A new registry with the embedded remote."""
    place = tmp_path / "registry"
    reg(tmp_path, "init", place)
    return place


@pytest.fixture
def pushed(registry: Path, reg: Reg) -> Path:
    """A registry with two versions of a dataset, both pushed."""
    write(registry, {"D/a": "one", "D/b": "one"})
    reg(registry, "add", "D", "-m", "v1")
    write(registry, {"D/a": "two"})
    (registry / "D/b").unlink()
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    return registry


@pytest.fixture
def consumer(tmp_path: Path) -> Path:
    """A new Git repository that is no registry."""
    place = tmp_path / "consumer"
    place.mkdir()
    git(place, "init", "-q")
    return place


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Let no file grow past a size in bytes, as a full disk would not."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
