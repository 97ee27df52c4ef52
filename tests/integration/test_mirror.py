"""The mirror of a registry: its refs are those of the registry, however many and however they change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Reg, git, write
from tests.servers.git_servers import git_daemon


def mirror_of(home: Path) -> Path:
    """Return the folder of the only mirror."""
    (found,) = (home / "cache/mirrors").glob("*.git")
    return found


@pytest.fixture
def url(published: Path) -> Iterator[str]:
    """Where the registry is served: what lies on this disk needs no mirror."""
    with git_daemon(published.parent) as place:
        yield f"{place}/{published.name}"


@pytest.fixture
def published(registry: Path, reg: Reg) -> Path:
    """A registry with one dataset that has a version."""
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add")
    reg(registry, "push")
    git(registry, "tag", "set@v1.0.0")
    return registry


def test_thousand_tags_are_one_file_that_is_written_when_they_change(
    published: Path, consumer: Path, home: Path, url: str, reg: Reg
) -> None:
    head = git(published, "rev-parse", "HEAD").strip()
    made = "".join(f"create refs/tags/set@v2.{number}.0 {head}\n" for number in range(1000))
    subprocess.run(["git", "-C", published, "update-ref", "--stdin"], input=made, text=True, check=True)
    assert "2.999.0" in reg(consumer, "list", url).out
    mirror = mirror_of(home)
    assert [path for path in (mirror / "refs").rglob("*") if path.is_file()] == []
    before = {path: path.stat().st_ctime_ns for path in mirror.rglob("*") if path.is_file()}
    reg(consumer, "list", url)
    assert {path: path.stat().st_ctime_ns for path in mirror.rglob("*") if path.is_file()} == before
    git(published, "tag", "set@v3.0.0")
    assert "3.0.0" in reg(consumer, "list", url).out


def test_refs_that_go_or_move_or_become_folders_do_so_in_the_mirror(
    published: Path, consumer: Path, home: Path, url: str, reg: Reg
) -> None:
    git(published, "branch", "side")
    git(published, "tag", "moves")
    reg(consumer, "list", url)
    write(published, {"set/b": "b"})
    reg(published, "add", "set", "-m", "More")
    reg(published, "push")
    git(published, "branch", "-D", "side")
    git(published, "branch", "side/way")
    git(published, "tag", "-d", "set@v1.0.0")
    git(published, "tag", "-f", "moves")
    git(published, "tag", "-a", "set@v1.1.0", "-m", "annotated")
    assert "2 files" in reg(consumer, "show", "set@v1.1.0", "--registry", url).out
    reg(consumer, "show", "set@v1.0.0", "--registry", url, code=3)
    theirs = git(published, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
    ours = git(mirror_of(home), "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
    assert ours == theirs


def test_mirror_whose_refs_are_files_is_taken_over(
    published: Path, consumer: Path, home: Path, url: str, reg: Reg
) -> None:
    reg(consumer, "list", url)
    mirror = mirror_of(home)
    old = git(published, "rev-parse", "HEAD").strip()
    (mirror / "packed-refs").unlink()
    for name in ("refs/heads/main", "refs/heads/gone", "refs/tags/set@v0.9.0"):
        path = mirror / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(old + "\n")
    write(published, {"set/b": "b"})
    reg(published, "add", "set", "-m", "More")
    reg(published, "push")
    assert "1.0.0" in reg(consumer, "list", url).out
    theirs = git(published, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
    ours = git(mirror, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags")
    assert ours == theirs


def test_default_branch_that_changes_is_followed(
    published: Path, consumer: Path, home: Path, url: str, reg: Reg
) -> None:
    reg(consumer, "list", url)
    git(published, "branch", "-m", "main", "trunk")
    assert "set" in reg(consumer, "list", url).out
    assert (mirror_of(home) / "HEAD").read_text() == "ref: refs/heads/trunk\n"
