"""Refs that come from elsewhere: a mirror's are those of its registry, however many and however they change."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dulwich.refs import DiskRefsContainer, Ref

from registree.git import fast_forward
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
def published(registry: Path, tmp_path: Path, reg: Reg) -> Path:
    """A registry with one dataset that has a version."""
    reg(registry, "remote", "add", "default", tmp_path / "remote", "-m", "Remote")
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


def test_pull_takes_no_lock_for_a_tag_that_is_here(
    published: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    git(tmp_path, "clone", "-q", url, "clone")
    asked: list[bytes] = []
    add_if_new = DiskRefsContainer.add_if_new

    def noted(self: DiskRefsContainer, name: Ref, *args: Any, **options: Any) -> bool:
        asked.append(name)
        return add_if_new(self, name, *args, **options)

    monkeypatch.setattr(DiskRefsContainer, "add_if_new", noted)
    git(published, "tag", "set@v1.1.0")
    reg(tmp_path / "clone", "pull")
    assert asked == [b"refs/tags/set@v1.1.0"]
    assert git(tmp_path / "clone", "tag").split() == ["set@v1.0.0", "set@v1.1.0"]


def test_locks_that_a_killed_fetch_left_in_a_mirror_are_gone(
    published: Path, consumer: Path, home: Path, url: str, reg: Reg
) -> None:
    reg(consumer, "list", url)
    for name in ("HEAD.lock", "packed-refs.lock"):
        (mirror_of(home) / name).touch()
    git(published, "tag", "set@v1.1.0")
    assert "1.1.0" in reg(consumer, "list", url).out


def test_release_that_is_another_one_upstream_is_not_pushed_past(
    published: Path, tmp_path: Path, url: str, reg: Reg
) -> None:
    git(tmp_path, "clone", "-q", "--bare", published, "hub.git")
    for name in ("ours", "theirs"):
        git(tmp_path, "clone", "-q", tmp_path / "hub.git", name)
        write(tmp_path / name, {f"notes-{name}": name})
        git(tmp_path / name, "add", "-A")
        git(tmp_path / name, "commit", "-qm", name)
        git(tmp_path / name, "tag", "set@v2.0.0")
    git(tmp_path / "theirs", "push", "-q", "origin", "HEAD", "--tags")
    git(tmp_path / "ours", "pull", "-q", "--rebase", "--no-tags")
    git(tmp_path / "ours", "tag", "-f", "set@v2.0.0")
    git(tmp_path / "ours", "tag", "newest")
    ran = reg(tmp_path / "ours", "push", code=7)
    assert "set@v2.0.0" in ran.err
    git(tmp_path / "ours", "fetch", "-q", "--tags", "--force")
    git(tmp_path / "ours", "tag", "-f", "-a", "-m", "the same, annotated", "set@v2.0.0", "set@v2.0.0^{}")
    reg(tmp_path / "ours", "push")
    assert "newest" in git(tmp_path / "hub.git", "tag")


def test_tag_that_is_no_utf8_and_a_submodule_stop_nobody(published: Path, consumer: Path, url: str, reg: Reg) -> None:
    head = git(published, "rev-parse", "HEAD").strip()
    subprocess.run(["git", "-C", published, "update-ref", b"refs/tags/caf\xe9", head], check=True)
    git(published, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},vendored")
    git(published, "commit", "-qm", "Submodule")
    assert "set" in reg(consumer, "list", url).out
    assert "set" in reg(published, "list").out
    for place in ("vendored", "vendored/inside"):
        reg(consumer, "get", url, place, code=3)
    git(published.parent, "clone", "-q", "--bare", published, "hub.git")
    git(published, "remote", "add", "hub", published.parent / "hub.git")
    git(published, "config", "branch.main.remote", "hub")
    git(published, "config", "branch.main.merge", "refs/heads/main")
    subprocess.run(["git", "-C", published, "update-ref", b"refs/tags/th\xe9", head], check=True)
    reg(published, "push")
    tags = subprocess.run(["git", "-C", published.parent / "hub.git", "tag"], check=True, capture_output=True).stdout
    assert b"th\xe9" in tags


def test_git_server_that_says_nothing_is_given_up(consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg) -> None:
    monkeypatch.setattr("registree.git.connection._PATIENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        ran = reg(consumer, "list", f"http://127.0.0.1:{silent.getsockname()[1]}/registry", code=5)
        assert time.monotonic() - began < 20
    assert "could not be reached" in ran.err


def test_interruption_while_the_index_is_written_is_one(
    published: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(published, {"set/b": "b"})
    head = git(published, "rev-parse", "HEAD")
    index = (published / ".git/index").read_bytes()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("registree.git.repository.write_index_dict", interrupted)
        reg(published, "add", "set", "-m", "More", code=130)
    assert git(published, "rev-parse", "HEAD") == head
    assert (published / ".git/index").read_bytes() == index
    assert not (published / ".git/index.lock").exists()
    reg(published, "add", "set", "-m", "More")
    assert git(published, "status", "--porcelain") == ""


def test_pull_brings_submodules_as_git_does_without_what_is_in_them(published: Path, tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "clone", "-q", published, "clone")
    for number in (1, 2):
        git(published, "update-index", "--add", "--cacheinfo", f"160000,{str(number) * 40},vendored")
        git(published, "commit", "-qm", "Submodule")
        reg(tmp_path / "clone", "pull")
        assert git(tmp_path / "clone", "ls-files", "-s", "vendored").split()[1] == str(number) * 40
    write(tmp_path / "clone", {"vendored/mine": "mine"})
    git(published, "rm", "-q", "--cached", "vendored")
    git(published, "commit", "-qm", "None")
    reg(tmp_path / "clone", "pull")
    assert (tmp_path / "clone/vendored/mine").read_text() == "mine"
    assert git(tmp_path / "clone", "status", "--porcelain") == "?? vendored/\n"


def test_pull_looks_for_edits_when_it_has_the_index(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    """Another program had the index when the pull began, and staged something."""
    write(published, {"notes": "one"})
    git(published, "add", "notes")
    git(published, "commit", "-qm", "Notes")
    git(tmp_path, "clone", "-q", published, "clone")
    write(published, {"notes": "two"})
    git(published, "commit", "-qam", "More")
    clone = tmp_path / "clone"
    wait = fast_forward.retry_locked

    def waited(act: Callable[[], None], what: str) -> None:
        write(clone, {"notes": "mine"})
        git(clone, "add", "notes")
        wait(act, what)

    monkeypatch.setattr(fast_forward, "retry_locked", waited)
    assert "notes" in reg(clone, "pull", code=7).err
    assert (clone / "notes").read_text() == "mine"
    assert git(clone, "status", "--porcelain") == "M  notes\n"


def test_old_object_that_is_named_again_is_young(published: Path, reg: Reg) -> None:
    """`git gc` may be about to prune it."""
    blob = git(published, "hash-object", "-w", "set.reg.yaml").strip()
    loose = published / ".git/objects" / blob[:2] / blob[2:]
    os.utime(loose, (0, 0))
    write(published, {"set/b": "b"})
    reg(published, "add", "set", "-m", "More")
    (published / "set/b").unlink()
    reg(published, "add", "set", "-m", "Less")
    assert time.time() - loose.stat().st_mtime < 60
