"""Bytes that exist nowhere else are never deleted, overwritten or left without a name, unless somebody says so."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from registree.operations.writing import OutboxWriter
from registree.store.file_stat import wait_for_clock
from tests.conftest import Reg, git, tree, write

REFUSED = 7


def test_edit_whose_add_failed_is_not_overwritten(pushed: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg) -> None:
    monkeypatch.setattr("registree.git.repository._LOCK_WAIT", 0.1)
    write(pushed, {"D/a": "mine", "D/new": "mine"})
    (pushed / ".git/index.lock").touch()
    reg(pushed, "add", "D", "-m", "v3", code=REFUSED)
    (pushed / ".git/index.lock").unlink()
    reg(pushed, "checkout", "D", code=REFUSED)
    assert tree(pushed / "D") == {"a": b"mine", "new": b"mine"}


def test_dataset_that_no_commit_names_is_not_removed(pushed: Path, reg: Reg) -> None:
    write(pushed, {"D/a": "mine"})
    reg(pushed, "add", "D")
    assert "not committed" in reg(pushed, "remove", "D", code=REFUSED).err
    write(pushed, {"E/a": "mine"})
    reg(pushed, "add", "E")
    reg(pushed, "remove", "E", code=REFUSED)
    assert tree(pushed / "D") == tree(pushed / "E") == {"a": b"mine"}
    reg(pushed, "remove", "E", "--force")
    reg(pushed, "commit", "-m", "v3")
    reg(pushed, "remove", "D", "-m", "Gone")


def test_move_that_fails_leaves_what_was_added_in_place_guarded(
    registry: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(registry, {"D/a": "only"})
    reg(registry, "add", "--in-place", "D", "-m", "v1")
    real = os.rename

    def on_another_disk(source: str, target: str) -> None:
        if str(source).endswith("/D"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), source)
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", on_another_disk)
        reg(registry, "move", "D", "E", code=5)
    reg(registry, "remove", "D", code=REFUSED)
    assert tree(registry / "D") == {"a": b"only"}
    reg(registry, "push")
    reg(registry, "remove", "D", "-m", "Gone")


def test_file_that_shares_its_pack_in_place_with_another_dataset_is_not_removed(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "only"})
    reg(registry, "add", "--in-place", "D", "-m", "D")
    shutil.copytree(registry / "D", registry / "E")
    reg(registry, "add", "--in-place", "E", "-m", "E")
    write(registry, {"D/a": "another"})
    reg(registry, "remove", "E", code=REFUSED)
    assert tree(registry / "E") == {"a": b"only"}


def test_link_to_a_folder_in_a_folder_where_a_file_is_to_be_is_kept(pushed: Path, tmp_path: Path, reg: Reg) -> None:
    (pushed / "D/b").mkdir()
    (pushed / "D/b/link").symlink_to(tmp_path)
    reg(pushed, "checkout", "D", "--rev", "HEAD~1", code=REFUSED)
    assert (pushed / "D/b/link").is_symlink()


def test_what_another_remote_got_is_stored_again(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"D/a": "old" * 1000})
    reg(registry, "remote", "add", "default", tmp_path / "A", "-m", "A")
    reg(registry, "add", "D", "-m", "D")
    reg(registry, "push")
    shutil.rmtree(tmp_path / "A")
    reg(registry, "remote", "add", "default", tmp_path / "B", "-m", "B")
    write(registry, {"D/a": "new", "E/a": "old" * 1000})
    reg(registry, "add", "E", "-m", "E")
    reg(registry, "push", "E")
    reg(registry, "remove", "E", "-m", "Gone")
    reg(registry, "checkout", "E", "--rev", "HEAD~1")
    assert (registry / "E/a").read_text() == "old" * 1000


def test_ignored_file_of_one_s_own_is_kept_although_the_older_version_is_lost(
    registry: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    reg(consumer, "import", registry, "D")
    write(consumer, {".regignore": "*.log\n", "D/own.log": "mine"})
    write(registry, {"D/own.log": "theirs"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    manifest = git(registry, "show", "HEAD~1:D.reg.yaml").split("manifest: b3:")[1].split()[0]
    for path in (registry / ".reg/remote/manifests").rglob(f"{manifest}*"):
        path.unlink()
    shutil.rmtree(home / "cache")
    reg(consumer, "update", code=REFUSED)
    assert (consumer / "D/own.log").read_text() == "mine"


def test_cache_in_a_folder_with_files_of_one_s_own_takes_away_its_own_alone(
    pushed: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    cache = home / "cache"
    write(cache, {"files/report.txt": "mine", "pages/ab/index.html": "mine", "mirrors/there/a": "mine"})
    reg(consumer, "import", pushed, "D")
    assert len(tree(cache)) > 3
    reg(consumer, "cache", "prune", "--days", "0")
    reg(consumer, "cache", "clean")
    assert tree(cache) == {"files/report.txt": b"mine", "pages/ab/index.html": b"mine", "mirrors/there/a": b"mine"}


@pytest.mark.parametrize("count", [2, 3000])
def test_repair_never_brings_a_damaged_map(registry: Path, tmp_path: Path, reg: Reg, count: int) -> None:
    write(registry, {f"D/{number:04}": str(number) for number in range(count)})
    reg(registry, "remote", "add", "default", tmp_path / "A", "-m", "A")
    reg(registry, "remote", "add", "b", tmp_path / "B", "-m", "B")
    reg(registry, "add", "D", "-m", "D")
    reg(registry, "push", "--remote", "b")
    reg(registry, "push")
    (mine,) = [path for path in (tmp_path / "B/maps").rglob("*") if path.is_file()]
    good = mine.read_bytes()
    damaged = tmp_path / "A" / mine.relative_to(tmp_path / "B")
    damaged.chmod(0o644)
    damaged.write_bytes(good[:-5])
    next(path for path in (tmp_path / "B/packs").rglob("*") if path.is_file()).unlink()
    reg(registry, "push", "--repair", "--remote", "b")
    assert mine.read_bytes() == good
    assert len([path for path in (tmp_path / "B/packs").rglob("*") if path.is_file()]) == 1 + (count > 1000)


def test_outbox_is_no_remote(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "only"})
    reg(registry, "remote", "add", "default", registry / ".reg/outbox", "-m", "oops")
    reg(registry, "add", "D", "-m", "D")
    assert "outbox" in reg(registry, "push", code=2).err
    (registry / "D/a").unlink()
    reg(registry, "checkout", "D")
    assert (registry / "D/a").read_text() == "only"


def test_update_of_a_name_that_is_none_updates_nothing(pushed: Path, consumer: Path, reg: Reg) -> None:
    reg(consumer, "import", pushed, "D")
    write(pushed, {"D/a": "three"})
    reg(pushed, "add", "D", "-m", "v3")
    reg(pushed, "push")
    reg(consumer, "update", "D", "typo", code=3)
    assert (consumer / "D/a").read_text() == "two"


def test_bytes_that_were_in_place_once_are_stored_again(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "one" * 100})
    reg(registry, "add", "--in-place", "D", "-m", "v1")
    write(registry, {"D/a": "two" * 100})
    wait_for_clock(time.time_ns())
    reg(registry, "add", "--in-place", "D", "-m", "v2")
    write(registry, {"D/b": "one" * 100})
    wait_for_clock(time.time_ns())
    reg(registry, "add", "--in-place", "D", "-m", "v3")
    reg(registry, "push")
    shutil.rmtree(registry / "D")
    reg(registry, "checkout", "D")
    assert (registry / "D/b").read_text() == "one" * 100


def test_what_the_embedded_remote_got_goes_on_to_the_next(
    registry: Path, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    write(registry, {"D/a": "first" * 1000})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    said = reg(registry, "remote", "add", "default", tmp_path / "A", "-m", "A").out
    assert ".reg/remote got stays there" in said
    reg(consumer, "import", registry, "D")
    shutil.rmtree(registry / "D")
    reg(registry, "checkout", "D")
    reg(registry, "push")
    shutil.rmtree(registry / ".reg/remote")
    reg(registry, "verify", "--remote", "--deep")


@pytest.mark.parametrize("upstream", [False, True])
def test_remote_whose_disk_is_not_mounted_is_not_begun_anew(
    registry: Path, upstream: bool, tmp_path: Path, reg: Reg
) -> None:
    reg(registry, "remote", "add", "default", tmp_path / "disk/A", "-m", "A")
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    if upstream:
        git(tmp_path, "init", "-q", "--bare", "upstream.git")
        git(registry, "remote", "add", "origin", str(tmp_path / "upstream.git"))
        git(registry, "push", "-q", "-u", "origin", "main")
    (tmp_path / "disk").rename(tmp_path / "unplugged")
    write(registry, {"D/a": "two"})
    reg(registry, "add", "D", "-m", "v2")
    assert "mounted" in reg(registry, "push", code=5).err
    assert not (tmp_path / "disk").exists()
    (tmp_path / "unplugged").rename(tmp_path / "disk")
    reg(registry, "push")
    shutil.rmtree(tmp_path / "disk")
    write(registry, {"D/a": "three"})
    reg(registry, "add", "D", "-m", "v3")
    reg(registry, "push", "--repair", code=6)  # the first version is nowhere
    shutil.rmtree(registry / "D")
    shutil.rmtree(registry / ".reg/outbox")
    reg(registry, "checkout", "D")
    assert (registry / "D/a").read_text() == "three"


def test_what_a_killed_get_moved_away_is_back_when_the_next_one_fails(pushed: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"here/D/mine": "mine"})
    (tmp_path / "here/.D.reg-new").mkdir()
    (tmp_path / "here/D").rename(tmp_path / "here/.D.reg-new/old")  # killed between two renames
    shutil.rmtree(pushed / ".reg/remote/packs")
    shutil.rmtree(pushed / ".reg/outbox", ignore_errors=True)
    reg(tmp_path / "here", "get", pushed, "D", "--force", code=6)
    assert tree(tmp_path / "here") == {"D/mine": b"mine"}


def test_import_by_force_brings_the_files_again_although_nothing_is_committed(
    pushed: Path, consumer: Path, reg: Reg
) -> None:
    reg(consumer, "import", pushed, "D")
    (consumer / "D/a").unlink()
    write(consumer, {"D/a": "damaged"})
    reg(consumer, "import", pushed, "D", "--force", "-m", "anew")
    assert tree(consumer / "D") == {"a": b"two"}


def test_what_was_added_in_place_and_is_gone_comes_from_another_remote(
    registry: Path, tmp_path: Path, reg: Reg
) -> None:
    reg(registry, "remote", "add", "second", tmp_path / "second", "-m", "second")
    write(registry, {"D/a": "only", "D/b": "b"})
    reg(registry, "add", "--in-place", "D", "-m", "v1")
    (registry / "D/a").unlink()
    reg(registry, "checkout", "D", code=6)
    write(registry, {"D/a": "only"})
    reg(registry, "push", "--remote", "second")
    (registry / "D/a").unlink()
    reg(registry, "checkout", "D")
    assert tree(registry / "D") == {"a": b"only", "b": b"b"}
    (registry / "D/a").unlink()
    (registry / "D/a").symlink_to("a")  # cannot be read
    reg(tmp_path, "get", registry, "D", "-o", "got")
    assert tree(tmp_path / "got") == {"a": b"only", "b": b"b"}


def test_file_edited_while_it_is_added_in_place_is_stored_by_the_next_add(
    registry: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    real = OutboxWriter.publish

    def publish(self: OutboxWriter) -> None:
        write(registry, {"D/a": "mine"})
        wait_for_clock(time.time_ns())
        real(self)

    write(registry, {"D/a": "only"})
    wait_for_clock(time.time_ns())
    with monkeypatch.context() as patch:
        patch.setattr(OutboxWriter, "publish", publish)
        reg(registry, "add", "--in-place", "D")
    reg(registry, "status")
    write(registry, {"D/b": "only"})
    wait_for_clock(time.time_ns())
    reg(registry, "add", "--in-place", "D", "-m", "v2")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def lose_pack(remote: Path, *, damaged_in: Path) -> None:
    """Take the one pack out of a remote, and give another's copy of it other bytes."""
    (lost,) = (path for path in (remote / "packs").rglob("*") if path.is_file())
    damaged = damaged_in / lost.relative_to(remote)
    lost.unlink()
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * damaged.stat().st_size)


def test_repair_looks_further_when_one_copy_is_damaged(registry: Path, tmp_path: Path, reg: Reg) -> None:
    for name in "ABC":
        reg(registry, "remote", "add", "default" if name == "A" else name, tmp_path / name, "-m", name)
    write(registry, {"D/a": "one" * 100})
    reg(registry, "add", "D", "-m", "v1")
    for name in ("B", "C", "default"):
        reg(registry, "push", "--remote", name)
    shutil.rmtree(registry / "D")
    lose_pack(tmp_path / "A", damaged_in=tmp_path / "B")
    reg(registry, "push", "--repair")
    reg(registry, "verify", "--remote", "--deep")


def test_repair_makes_a_pack_again_of_files_when_every_copy_is_damaged(
    registry: Path, tmp_path: Path, reg: Reg
) -> None:
    reg(registry, "remote", "add", "default", tmp_path / "A", "-m", "A")
    reg(registry, "remote", "add", "b", tmp_path / "B", "-m", "B")
    write(registry, {"D/a": "one" * 100})
    wait_for_clock(time.time_ns())
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push", "--remote", "b")
    reg(registry, "push")
    lose_pack(tmp_path / "A", damaged_in=tmp_path / "B")
    reg(registry, "push", "--repair")
    reg(registry, "verify", "--remote", "--deep")


@pytest.mark.parametrize("path", ["reg.yaml", ".reg/config.yaml"])
def test_file_of_one_s_own_that_is_not_utf8_is_said_in_a_sentence(registry: Path, path: str, reg: Reg) -> None:
    with (registry / path).open("ab") as file:
        file.write("# é\n".encode("latin-1"))
    assert "not UTF-8" in reg(registry, "remote", "list", code=2).err


def test_push_goes_on_although_the_upstream_has_a_broken_metafile(registry: Path, tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "init", "-q", "--bare", "upstream.git")
    git(registry, "remote", "add", "origin", str(tmp_path / "upstream.git"))
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    git(registry, "push", "-q", "-u", "origin", "main")
    reg(registry, "push")
    good = (registry / "D.reg.yaml").read_bytes()
    write(registry, {"D.reg.yaml": good + b"<<<<<<< mine\n\xe9\n"})
    git(registry, "commit", "-qam", "broken")
    git(registry, "push", "-q")
    write(registry, {"D.reg.yaml": good, "D/a": "two"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == git(registry, "rev-parse", "HEAD")


def test_files_whose_older_packs_came_from_elsewhere_are_removed(pushed: Path, tmp_path: Path, reg: Reg) -> None:
    reg(pushed, "remote", "add", "default", tmp_path / "remote", "-m", "Remote")
    reg(pushed, "push")
    write(pushed, {"D/b": os.urandom(1000)})
    reg(pushed, "add", "D", "-m", "v3")
    reg(pushed, "push")
    git(tmp_path, "clone", "-q", pushed, "clone")
    reg(tmp_path / "clone", "pull")
    write(tmp_path / "clone", {"D/c": "mine"})
    reg(tmp_path / "clone", "add", "D", "-m", "v4")
    reg(tmp_path / "clone", "remove", "D", "-m", "Remove")
    assert not (tmp_path / "clone/D").exists()


def test_files_whose_packs_are_lost_are_not_removed(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": b"a" * 1000})
    reg(registry, "add", "set", "-m", "Add")
    (pack,) = (path for path in (registry / ".reg/outbox/packs").rglob("*") if path.is_file())
    pack.unlink()
    assert "only copy" in reg(registry, "remove", "set", code=7).err
    assert (registry / "set/a").read_bytes() == b"a" * 1000
    reg(registry, "add", "set")
    reg(registry, "remove", "set", "-m", "Remove")


@pytest.mark.parametrize(
    "words", [["remove", "set@v1.0.0"], ["remove", "set@v1.0.0:a"], ["add", "--into", "set@v1.0.0", "b"]]
)
def test_only_the_version_that_is_there_can_be_changed(registry: Path, reg: Reg, words: list[str]) -> None:
    write(registry, {"set/a": "a", "b": "b"})
    reg(registry, "add", "set", "-m", "Add")
    git(registry, "tag", "set@v1.0.0")
    before = git(registry, "status", "--porcelain")
    assert "set@v1.0.0" in reg(registry, *words, code=2).err
    assert (registry / "set/a").read_text() == "a"
    assert git(registry, "status", "--porcelain") == before


def test_dataset_that_is_checked_out_again_is_ignored_by_git(pushed: Path, reg: Reg) -> None:
    reg(pushed, "remove", "D", "-m", "Remove")
    reg(pushed, "checkout", "D", "--rev", "HEAD~1")
    assert (pushed / "D/a").exists()
    assert "/D" in (pushed / ".gitignore").read_text()
    git(pushed, "add", "-A")
    assert [path for path in git(pushed, "ls-files").split() if path.startswith("D/")] == []
    reg(pushed, "commit", "-m", "Back")
    assert git(pushed, "status", "--porcelain") == ""


def test_broken_metafile_of_an_older_commit_stops_no_other_dataset(pushed: Path, reg: Reg) -> None:
    (pushed / "broken.reg.yaml").write_text("reg: [")
    git(pushed, "add", "broken.reg.yaml")
    git(pushed, "commit", "-qm", "Broken")
    shutil.rmtree(pushed / "D")
    ran = reg(pushed, "checkout", "--rev", "HEAD", code=None)
    assert ran.code
    assert "broken" in ran.err
    assert (pushed / "D/a").exists()


def test_repository_in_a_repository_has_datasets_of_its_own(registry: Path, reg: Reg) -> None:
    reg(registry, "init", "inner")
    for place in (registry, registry / "inner"):
        write(place, {"set/a": place.name})
        reg(place, "add", "set", "-m", "Add")
    (registry / "inner/other.reg.yaml").write_text("reg: [")
    assert "inner" not in reg(registry, "list").out
    reg(registry, "push")
    reg(registry, "status", "--exit-code")


def test_folders_that_come_and_go_while_datasets_are_looked_for(
    registry: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    write(registry, {"set/a": "a", "gone/inner/file": "file"})
    reg(registry, "add", "set", "-m", "Add")
    write(registry, {".other.reg-new/0/staged.reg.yaml": (registry / "set.reg.yaml").read_text()})
    scandir = os.scandir

    def scanned(folder: str | int) -> object:
        if str(folder).endswith("/gone"):
            shutil.rmtree(folder)
        return scandir(folder)

    monkeypatch.setattr("registree.workspace.os.scandir", scanned)
    ran = reg(registry, "status")
    assert "staged" not in ran.out + ran.err
    assert not (registry / "gone").exists()


def test_git_files_beside_a_local_folder_on_another_disk_are_written(tmp_path: Path, reg: Reg) -> None:
    """`.reg/` may be a link to a larger disk."""
    if not os.access("/dev/shm", os.W_OK):
        pytest.skip("this machine has no disk in memory")
    elsewhere = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
            pytest.skip("this machine has one disk")
        (tmp_path / "registry").mkdir()
        (tmp_path / "registry/.reg").symlink_to(elsewhere)
        reg(tmp_path, "init", "registry")
        write(tmp_path / "registry", {"set/a": "a"})
        reg(tmp_path / "registry", "add", "set", "-m", "Add")
        assert (tmp_path / "registry/set.reg.yaml").exists()
        assert list((tmp_path / "registry").glob("*.reg-new")) == []
    finally:
        shutil.rmtree(elsewhere)
