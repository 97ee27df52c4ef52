"""What somebody else does while a command works is neither lost nor undone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from registree.model.manifest import Entry
from registree.operations import editing, moving, placing, push
from registree.store.file_stat import wait_for_clock
from registree.workspace import Workspace
from tests.conftest import Reg, git, tree, write

REFUSED = 7
Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Let something happen when all that a command brings is there, and before it changes the work tree."""
    real = placing._verified_at

    def arrange(act: Callable[[], object]) -> None:
        def verified_at(size: int) -> int:
            act()
            return real(size)

        monkeypatch.setattr(placing, "_verified_at", verified_at)

    return arrange


@pytest.mark.parametrize("path", ["a", "b"])
def test_edit_while_another_version_comes_is_kept(pushed: Path, path: str, meanwhile: Meanwhile, reg: Reg) -> None:
    """`a` would be written over; where `b` comes from the older version there was nothing before."""
    before = {"a": b"two"}
    meanwhile(lambda: write(pushed, {f"D/{path}": "mine"}))
    ran = reg(pushed, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert "meanwhile" in ran.err
    assert tree(pushed / "D") == {**before, path: b"mine"}


def test_file_that_comes_into_a_folder_where_a_file_is_to_be_is_kept(
    registry: Path, meanwhile: Meanwhile, reg: Reg
) -> None:
    write(registry, {"D/a": "file", "D/k": "k"})
    reg(registry, "add", "D", "-m", "v1")
    (registry / "D/a").unlink()
    write(registry, {"D/a/inner": "inner"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    meanwhile(lambda: write(registry, {"D/a/mine": "mine"}))
    reg(registry, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert (registry / "D/a/mine").read_text() == "mine"


def test_file_that_comes_where_a_folder_is_to_be_is_kept(pushed: Path, meanwhile: Meanwhile, reg: Reg) -> None:
    write(pushed, {"D/sub/inner": "inner"})
    reg(pushed, "add", "D", "-m", "v3")
    shutil.rmtree(pushed / "D/sub")
    reg(pushed, "add", "D", "-m", "v4")
    meanwhile(lambda: write(pushed, {"D/sub": "mine"}))
    reg(pushed, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert (pushed / "D/sub").read_text() == "mine"


def test_update_leaves_a_metafile_alone_that_was_changed_meanwhile(
    pushed: Path, consumer: Path, meanwhile: Meanwhile, reg: Reg
) -> None:
    reg(consumer, "import", pushed, "D")
    write(pushed, {"D/a": "three"})
    reg(pushed, "add", "D", "-m", "v3")
    reg(pushed, "push")
    metafile = consumer / "D.reg.yaml"
    edited = metafile.read_text() + "# mine\n"
    meanwhile(lambda: metafile.write_text(edited))
    reg(consumer, "update", code=REFUSED)
    assert metafile.read_text() == edited
    assert tree(consumer / "D") == {"a": b"two"}


@pytest.mark.parametrize("revision", ["v2", "main"])
def test_update_keeps_an_edit_of_the_metafile_that_was_moved_before(
    pushed: Path, consumer: Path, revision: str, meanwhile: Meanwhile, reg: Reg
) -> None:
    git(pushed, "tag", "v2")
    reg(consumer, "import", pushed, "D", "-o", "A", "--rev", revision, "-m", "A")
    reg(consumer, "import", pushed, "D", "-o", "B")
    write(pushed, {"D/a": "three"})
    reg(pushed, "add", "D", "-m", "v3")
    reg(pushed, "push")
    metafile = consumer / "A.reg.yaml"

    def edit() -> None:
        if tree(consumer / "A") == {"a": b"three" if revision == "main" else b"two"}:
            metafile.write_text(metafile.read_text() + "# mine\n")

    meanwhile(edit)
    reg(consumer, "update", "-m", "all")
    assert metafile.read_text().endswith("# mine\n")
    assert "# mine" not in git(consumer, "show", "HEAD:A.reg.yaml")
    assert tree(consumer / "B") == {"a": b"three"}


def test_checkout_keeps_a_metafile_that_was_changed_meanwhile(pushed: Path, meanwhile: Meanwhile, reg: Reg) -> None:
    metafile = pushed / "D.reg.yaml"
    edited = metafile.read_text() + "# mine\n"
    meanwhile(lambda: metafile.write_text(edited))
    assert "meanwhile" in reg(pushed, "checkout", "D", "--rev", "HEAD~1", code=REFUSED).err
    assert metafile.read_text() == edited
    assert tree(pushed / "D") == {"a": b"two"}


@pytest.mark.parametrize("path", ["D/a", "D/new", "D/sub/new"])
def test_remove_keeps_what_was_written_while_it_compared(
    pushed: Path, path: str, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    real = moving._require_stored

    def require_stored(*args: object) -> None:
        real(*args)  # type: ignore[arg-type]
        write(pushed, {path: "mine"})

    monkeypatch.setattr(moving, "_require_stored", require_stored)
    assert "meanwhile" in reg(pushed, "remove", "D", "-m", "gone", code=REFUSED).err
    assert tree(pushed / "D") == {"a": b"two"} | {path[2:]: b"mine"}
    assert (pushed / "D.reg.yaml").exists()


def test_remove_keeps_what_was_written_while_it_deleted(
    pushed: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(pushed, {"D/b": "b", "D/sub/c": "c"})
    reg(pushed, "add", "D", "-m", "v3")
    real = os.unlink
    left = {"a", "b", "c"}

    def unlink(path: str) -> None:
        real(path)
        left.discard(os.path.basename(path))
        if len(left) == 2:
            for name in left:
                write(pushed, {f"D/{'sub/' if name == 'c' else ''}{name}": "mine"})

    monkeypatch.setattr(moving.os, "unlink", unlink)
    assert "reg checkout" in reg(pushed, "remove", "D", "-m", "gone", code=REFUSED).err
    monkeypatch.undo()
    assert sorted(tree(pushed / "D").values()) == [b"mine", b"mine"]


def test_remove_of_files_with_times_to_come(pushed: Path, reg: Reg) -> None:
    os.utime(pushed / "D/a", (2**31, 2**31))
    reg(pushed, "add", "D")
    wait_for_clock(time.time_ns())
    reg(pushed, "remove", "D", "-m", "gone")
    assert not (pushed / "D").exists()


def test_update_of_one_import_named_twice_is_one_update(pushed: Path, consumer: Path, reg: Reg) -> None:
    reg(consumer, "import", pushed, "D")
    write(pushed, {"D/a": "three"})
    reg(pushed, "add", "D", "-m", "v3")
    reg(pushed, "push")
    reg(consumer, "update", "D", "D.reg.yaml")
    assert tree(consumer / "D") == {"a": b"three"}


def test_checkout_of_what_is_not_here_keeps_a_metafile_that_was_changed_meanwhile(
    pushed: Path, meanwhile: Meanwhile, reg: Reg
) -> None:
    shutil.rmtree(pushed / "D")
    metafile = pushed / "D.reg.yaml"
    edited = metafile.read_text() + "# mine\n"
    meanwhile(lambda: metafile.write_text(edited))
    reg(pushed, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert metafile.read_text() == edited
    assert not (pushed / "D").exists()


def test_push_sends_the_commits_that_it_looked_at(
    pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    git(tmp_path, "init", "-q", "--bare", "upstream.git")
    git(pushed, "remote", "add", "origin", str(tmp_path / "upstream.git"))
    git(pushed, "push", "-q", "-u", "origin", "main")
    write(pushed, {"D/a": "three"})
    reg(pushed, "add", "D", "-m", "v3")
    looked_at = git(pushed, "rev-parse", "HEAD")
    real = push.send

    def send(*args: object, **options: object) -> None:
        real(*args, **options)  # type: ignore[arg-type]
        git(pushed, "commit", "-q", "--allow-empty", "-m", "later")

    monkeypatch.setattr(push, "send", send)
    reg(pushed, "push")
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == looked_at


def test_sync_makes_files_be_what_the_lock_says_when_its_turn_comes(
    pushed: Path, consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    reg(consumer, "import", pushed, "D")
    write(pushed, {"D/a": "three"})
    reg(pushed, "add", "D", "-m", "v3")
    reg(pushed, "push")
    real = Workspace.writing

    @contextmanager
    def writing(self: Workspace) -> Iterator[None]:
        monkeypatch.setattr(Workspace, "writing", real)
        reg(consumer, "update")
        with real(self):
            yield

    monkeypatch.setattr(Workspace, "writing", writing)
    reg(consumer, "sync")
    assert tree(consumer / "D") == {"a": b"three"}


def test_file_that_is_edited_while_those_before_it_are_changed_is_kept(
    registry: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(registry, {f"D/{name}": "one" for name in "abcd"})
    reg(registry, "add", "D", "-m", "v1")
    write(registry, {f"D/{name}": "two" for name in "abcd"} | {"D/e": "two", "D/f": "two"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    real, done = placing._swap_in, list[str]()

    def swapped(root: str, entry: Entry, path: str, remove_folder: Callable[[str], None]) -> None:
        if not done:
            write(registry, {"D/c": "mine"})
        done.append(entry.path)
        real(root, entry, path, remove_folder)

    monkeypatch.setattr(placing, "_swap_in", swapped)
    ran = reg(registry, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert done == ["a", "b"]
    assert "c changed meanwhile" in ran.err
    assert (registry / "D/c").read_text() == "mine"
    monkeypatch.undo()
    reg(registry, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    reg(registry, "checkout", "D", "--rev", "HEAD~1", "--force")
    assert tree(registry / "D") == dict.fromkeys("abcd", b"one")


def test_file_that_is_edited_while_others_are_deleted_is_kept(
    registry: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    write(registry, {"D/b": "two", "D/c": "two"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    unlink = os.unlink

    def unlinked(path: str, **options: Any) -> None:
        if str(path).endswith("D/b"):
            write(registry, {"D/c": "mine"})
        unlink(path, **options)

    monkeypatch.setattr(placing.os, "unlink", unlinked)
    ran = reg(registry, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert "c changed meanwhile" in ran.err
    assert (registry / "D/c").read_text() == "mine"


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_version_that_comes_while_another_is_made_of_the_one_before_is_kept(
    pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg, verb: str
) -> None:
    shutil.rmtree(pushed / "D")
    metafile = pushed / "D.reg.yaml"
    theirs = git(pushed, "show", "HEAD~1:D.reg.yaml")
    real = editing._Editor.run

    def edited(self: editing._Editor) -> None:
        real(self)
        metafile.write_text(theirs)

    monkeypatch.setattr(editing._Editor, "run", edited)
    write(tmp_path, {"new": "new"})
    ran = (
        reg(pushed, "add", "--into", "D", tmp_path / "new", "-m", "More", code=REFUSED)
        if verb == "add"
        else reg(pushed, "remove", "D:a", "-m", "Less", code=REFUSED)
    )
    assert "was changed meanwhile" in ran.err
    assert metafile.read_text() == theirs


def test_add_of_files_of_another_version_than_the_metafile_names_says_so(pushed: Path, reg: Reg) -> None:
    assert "named" not in reg(pushed, "add", "D", "-m", "None").err
    git(pushed, "checkout", "-q", "HEAD~1", "--", "D.reg.yaml")  # as `git pull` brings one
    write(pushed, {"D/c": "mine"})
    assert "not of the version that D.reg.yaml named" in reg(pushed, "add", "D", "-m", "Mine").err
    write(pushed, {"D/d": "mine"})
    assert "named" not in reg(pushed, "add", "D", "-m", "More").err
