"""Cases in which data was once lost, or a hostile registry got through: each stays mended."""

from __future__ import annotations

import os
import random
import shutil
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dulwich.objects import Blob, Commit, Tree
from dulwich.repo import Repo

from registree.errors import FormatError
from registree.model.ids import hash_bytes
from registree.model.manifest import decode_page
from registree.model.places import decode_leaf_map
from registree.store import packing
from registree.store.copying import confirmed_packs
from registree.store.directory import DirectoryStore
from registree.store.outbox import Outbox
from tests.conftest import Reg, git, tree, write


def remote_packs(registry: Path) -> list[Path]:
    """List the packs of the embedded remote."""
    return [path for path in (registry / ".reg/remote/packs").rglob("*") if path.is_file()]


def hostile_commit(repo: Repo, parent: bytes | None, top: Tree) -> bytes:
    """Commit a tree that `git` itself would refuse to make."""
    repo.object_store.add_object(top)
    commit = Commit()
    commit.tree = top.id
    commit.parents = [parent] if parent else []
    commit.author = commit.committer = b"Eve <eve@example.org>"
    commit.commit_time = commit.author_time = int(time.time())
    commit.commit_timezone = commit.author_timezone = 0
    commit.message = b"evil"
    repo.object_store.add_object(commit)
    return commit.id


def test_versions_of_two_branches_that_share_a_page_are_both_whole_on_the_remote(registry: Path, reg: Reg) -> None:
    write(registry, {f"D/{index:05}": str(index) for index in range(6000)})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    git(registry, "checkout", "-qb", "two")
    os.unlink(registry / "D/00003")
    write(registry, {"D/09999": "X"})
    reg(registry, "add", "D", "-m", "v2")
    git(registry, "checkout", "-qb", "three")
    write(registry, {"D/09999": "v3"})
    reg(registry, "add", "D", "-m", "v3")
    git(registry, "checkout", "-q", "main")
    git(registry, "merge", "-q", "--squash", "three")
    git(registry, "commit", "-qm", "v3")
    reg(registry, "push")
    git(registry, "checkout", "-q", "two")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_dataset_with_pages_of_another_one_but_in_other_packs_is_whole_on_the_remote(
    registry: Path, tmp_path: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "PACK_TARGET", 1 << 16)
    write(registry, {f"a/{number:05}": f"{number:0100}" for number in range(6000)})
    reg(registry, "add", "a", "-m", "a")
    reg(registry, "push")
    (registry / ".reg/state.sqlite").unlink()  # as in a clone: what is stored already is not known
    shutil.copytree(registry / "a", registry / "b")
    for number in range(30):
        (registry / f"b/{number:05}").unlink()
    reg(registry, "add", "b", "-m", "b")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")
    reg(tmp_path, "get", registry, "b", "-o", "got")
    assert tree(tmp_path / "got") == tree(registry / "b")


def test_outbox_keeps_a_version_that_the_remote_has_not_all_of(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"D/a": "ONLY"})
    reg(registry, "add", "D", "-m", "v1")
    outbox = Outbox(str(registry / ".reg/outbox"), str(registry))
    remote = DirectoryStore(str(tmp_path / "remote"), "the remote")
    for folder in ("maps", "manifests"):
        shutil.copytree(registry / ".reg/outbox" / folder, tmp_path / "remote" / folder)
    (manifest,) = outbox.manifests()
    with ThreadPoolExecutor(1) as executor:
        assert confirmed_packs(outbox, remote, manifest, executor) is None
        shutil.copytree(registry / ".reg/outbox/packs", tmp_path / "remote/packs")
        packs = confirmed_packs(outbox, remote, manifest, executor)
    assert [pack.id for pack in packs or ()] == [pack for pack, _ in outbox.packs()] != []


def test_version_is_pushed_although_the_remote_lost_the_map_of_the_one_before(
    registry: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    for path in (registry / ".reg/remote/maps").rglob("*"):
        if path.is_file():
            path.unlink()
    shutil.rmtree(home / "cache")
    write(registry, {"D/b": "two"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    shutil.rmtree(home / "cache")
    reg(tmp_path, "get", registry, "D", "-o", "got")
    assert tree(tmp_path / "got") == {"a": b"one", "b": b"two"}


@pytest.mark.parametrize("own", ["D/d", "D/d/a/mine"])
def test_update_brings_a_renamed_file_although_something_else_lies_where_it_was(
    registry: Path, consumer: Path, home: Path, reg: Reg, own: str
) -> None:
    content = os.urandom(100_000)
    write(registry, {"D/d/a": content, "D/k": "k"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    reg(consumer, "import", registry, "D")
    shutil.rmtree(consumer / "D/d")
    write(consumer, {own: "mine"})
    (registry / "D/e").mkdir()
    (registry / "D/d/a").rename(registry / "D/e/a")
    (registry / "D/d").rmdir()
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    shutil.rmtree(home / "cache")
    reg(consumer, "update")
    assert tree(consumer / "D") == {own.removeprefix("D/"): b"mine", "e/a": content, "k": b"k"}


def test_chunk_list_that_is_damaged_costs_space_and_no_more(registry: Path, reg: Reg) -> None:
    content = random.Random(1).randbytes(3 << 20)
    write(registry, {"D/film": content})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    lists = [path for path in (registry / ".reg/remote/chunks").rglob("*") if path.is_file()]
    assert lists
    for path in lists:
        path.chmod(0o644)
        path.write_bytes(b"no list")
    (registry / ".reg/state.sqlite").unlink()
    write(registry, {"D/film": content + b"more"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep", "D")


def test_pack_that_another_dataset_needs_is_kept_when_a_colleague_pushed_the_first(
    registry: Path, tmp_path: Path, reg: Reg
) -> None:
    git(tmp_path, "clone", "-q", str(registry), "other")
    other = tmp_path / "other"
    write(other, {"X/a": "the same"})
    write(registry, {"X/a": "the same", "Y/b": "only here"})
    reg(other, "remote", "add", "default", registry / ".reg/remote")
    reg(other, "add", "X", "-m", "X")
    reg(other, "push", "--no-git")
    reg(registry, "add", "X", "Y", "-m", "Both")
    reg(registry, "push", "X")
    shutil.rmtree(registry / "Y")
    reg(registry, "checkout", "Y")
    assert (registry / "Y/b").read_text() == "only here"
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_file_added_in_place_and_renamed_is_stored_and_never_deleted(registry: Path, reg: Reg) -> None:
    write(registry, {"D/keep": "x"})
    reg(registry, "add", "D", "-m", "v1")
    write(registry, {"D/a": "ONLY"})
    time.sleep(0.05)
    reg(registry, "add", "--in-place", "D", "-m", "v2")
    os.rename(registry / "D/a", registry / "D/b")
    reg(registry, "add", "--in-place", "D", "-m", "v3")
    reg(registry, "checkout", "D", "--rev", "HEAD~2", code=7)
    assert (registry / "D/b").read_text() == "ONLY"


def test_file_that_regignore_hides_is_not_overwritten(registry: Path, reg: Reg) -> None:
    write(registry, {"E/notes.txt": "one", "E/other": "x"})
    reg(registry, "add", "E", "-m", "v1")
    write(registry, {"E/.regignore": "notes.txt\n"})
    reg(registry, "add", "E", "-m", "v2")
    write(registry, {"E/notes.txt": "MY EDITS"})
    reg(registry, "checkout", "E", "--rev", "HEAD~1", code=7)
    assert (registry / "E/notes.txt").read_text() == "MY EDITS"


def test_edit_is_seen_after_an_import_that_was_repeated(registry: Path, consumer: Path, reg: Reg) -> None:
    write(registry, {"D/f": "abc"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    reg(consumer, "import", registry, "D")
    git(consumer, "rm", "-q", "--cached", "D.reg.yaml")
    os.unlink(consumer / "D/f")
    write(consumer, {"D/f": "ABC"})
    time.sleep(0.1)
    reg(consumer, "import", registry, "D")
    write(registry, {"D/f": "new"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    reg(consumer, "update", code=7)
    assert (consumer / "D/f").read_text() == "ABC"


def test_payload_is_sent_for_commits_that_git_pushed_first(registry: Path, tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "init", "-q", "--bare", "upstream.git")
    git(registry, "remote", "add", "origin", str(tmp_path / "upstream.git"))
    git(registry, "push", "-qu", "origin", "main")
    for version in ("two", "three"):
        write(registry, {"D/a": version})
        reg(registry, "add", "D", "-m", version)
    git(registry, "push", "-q")
    reg(registry, "push")
    assert not list((registry / ".reg/outbox").rglob("manifests/*/*"))
    assert reg(registry, "verify", "--remote", "--deep", "--json").json["versions"] == 2


def test_pack_that_the_remote_lost_is_sent_again_when_it_is_added_again(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": b"a" * 5000})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    for path in remote_packs(registry):
        path.unlink()
    os.unlink(registry / ".reg/state.sqlite")
    shutil.rmtree(registry / ".reg/remote/manifests")
    reg(registry, "cache", "clean")
    reg(registry, "add", "D")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_pack_that_the_outbox_lost_is_made_again(registry: Path, reg: Reg) -> None:
    write(registry, {f"D/{index:05}": str(index) for index in range(3000)})
    reg(registry, "add", "D", "-m", "v1")
    for path in (registry / ".reg/outbox/packs").rglob("*"):
        if path.is_file():
            path.unlink()
    reg(registry, "add", "D")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_adding_again_without_the_state_stores_nothing_twice(registry: Path, reg: Reg) -> None:
    write(registry, {f"D/{index:05}": str(index) for index in range(3000)})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    os.unlink(registry / ".reg/state.sqlite")
    assert reg(registry, "add", "D", "--json").json["datasets"][0]["stored"] == 0
    assert not [path for path in (registry / ".reg/outbox").rglob("packs/*/*") if path.is_file()]


def test_commit_during_a_conflict_is_refused(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    git(registry, "checkout", "-qb", "side")
    write(registry, {"D/a": "side"})
    reg(registry, "add", "D", "-m", "side")
    git(registry, "checkout", "-q", "main")
    reg(registry, "checkout")
    write(registry, {"D/a": "main"})
    reg(registry, "add", "D", "-m", "main")
    git(registry, "merge", "side", check=False)
    reg(registry, "commit", "-m", "oops", code=7)
    assert git(registry, "show", "HEAD:D.reg.yaml")


def test_checkout_of_a_revision_keeps_an_add_that_is_not_committed(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    write(registry, {"D/new": "not committed"})
    reg(registry, "add", "D")
    reg(registry, "checkout", "D", "--rev", "HEAD", code=7)
    assert (registry / "D/new").read_text() == "not committed"
    reg(registry, "checkout", "D", "--rev", "HEAD", "--force")
    assert tree(registry / "D") == {"a": b"one"}


def test_move_onto_a_twin_is_refused(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "same", "E/a": "same"})
    reg(registry, "add", "D", "E", "-m", "Twins")
    shutil.rmtree(registry / "D")
    shutil.rmtree(registry / "E")
    assert reg(registry, "move", "D", "E", "-m", "mv", code=None).code in (2, 7)
    assert (registry / "D.reg.yaml").exists()


@pytest.mark.parametrize("names", [(b".git", b"hooks", b"post-commit"), (b"..", b"evil")])
def test_pull_writes_nothing_that_a_hostile_tree_puts_outside(
    registry: Path, tmp_path: Path, reg: Reg, names: tuple[bytes, ...]
) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(registry), "upstream.git")
    git(tmp_path, "clone", "-q", str(tmp_path / "upstream.git"), "clone")
    with Repo(str(tmp_path / "upstream.git")) as repo:
        head = repo.head()
        blob = Blob.from_string(b"#!/bin/sh\nexit 1\n")
        repo.object_store.add_object(blob)
        identifier, mode = blob.id, 0o100755
        for name in reversed(names[1:]):
            folder = Tree()
            folder.add(name, mode, identifier)
            repo.object_store.add_object(folder)
            identifier, mode = folder.id, stat.S_IFDIR
        top = repo[repo[head].tree]
        assert isinstance(top, Tree)
        top.add(names[0], mode, identifier)
        repo.refs[b"refs/heads/main"] = hostile_commit(repo, head, top)
    reg(tmp_path / "clone", "pull", code=6)
    assert not (tmp_path / "clone/.git/hooks/post-commit").exists()
    assert not (tmp_path / "evil").exists()


def test_get_writes_nothing_that_a_hostile_tree_puts_outside(registry: Path, tmp_path: Path, reg: Reg) -> None:
    with Repo(str(registry)) as repo:
        blob = Blob.from_string(b"evil")
        repo.object_store.add_object(blob)
        inner, outer, top = Tree(), Tree(), repo[repo[repo.head()].tree]
        assert isinstance(top, Tree)
        inner.add(b"evil.txt", 0o100644, blob.id)
        repo.object_store.add_object(inner)
        outer.add(b"..", stat.S_IFDIR, inner.id)
        repo.object_store.add_object(outer)
        top.add(b"data", stat.S_IFDIR, outer.id)
        repo.refs[b"refs/heads/main"] = hostile_commit(repo, repo.head(), top)
    place = tmp_path / "deep/elsewhere"
    place.mkdir(parents=True)
    assert reg(place, "get", registry, "data", code=None).code in (2, 6)
    assert not list(tmp_path.rglob("evil.txt"))


def test_deeply_nested_metafile_is_refused_and_nothing_crashes(registry: Path, reg: Reg) -> None:
    (registry / "bomb.reg.yaml").write_text("reg: 1\nmanifest: " + "[" * 100_000)
    ran = reg(registry, "list")
    assert "bomb.reg.yaml" in ran.err


@pytest.mark.parametrize(
    "url",
    [
        "https://ghp_token@example.org/data",
        "https://example.org/data?sig=secret",
        "filecache::file:///etc",
        "zip://x.zip",
    ],
)
def test_remote_that_holds_a_secret_or_wraps_another_is_refused(registry: Path, reg: Reg, url: str) -> None:
    before = (registry / "reg.yaml").read_bytes()
    reg(registry, "remote", "add", "bad", url, code=2)
    assert (registry / "reg.yaml").read_bytes() == before


def test_diff_in_a_consumer_shows_no_change_of_an_import_that_has_none(
    registry: Path, consumer: Path, reg: Reg
) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    reg(consumer, "import", registry, "D", "-m", "Import")
    assert "no differences" in reg(consumer, "diff").out


def test_marker_of_endless_depth_is_no_marker(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "a"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    (registry / ".reg/remote/reg-store.json").write_text("[" * 50_000)
    assert "is not a store's marker" in reg(registry, "verify", "--remote", code=6).err


def test_maps_and_pages_of_endless_depth_are_malformed() -> None:
    nested, identifier = b"\x91" * 50_000 + b"\xc0", b"\xc4\x20" + bytes(32)
    with pytest.raises(FormatError, match="a map is malformed"):
        decode_leaf_map(b"\x94\x01\x00\x91\x93" + identifier + b"\x01" + nested + b"\x90", [])
    for page in (
        b"\x93\x01\x00\x91\x95\xa1a\x00\x01" + identifier + nested,
        b"\x93\x01\x01\x91\x96\xa1a" + identifier + b"\x01\x01\x01" + nested,
    ):
        with pytest.raises(FormatError, match="is malformed"):
            decode_page(page, hash_bytes(page))


def test_verify_reads_no_file_that_is_left_out(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "a", "D/.regignore": "out\n"})
    os.symlink("/etc", registry / "D/out")
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "verify", "--deep")
    before = (registry / "D/a").stat()
    (registry / "D/a").write_text("b")
    os.utime(registry / "D/a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "modified: a" in reg(registry, "verify", "--deep", code=6).out
    (registry / "D/.regignore").write_text("")
    assert "leaves the dataset" in reg(registry, "verify", "--deep", code=6).out


@pytest.mark.parametrize("folder", ["manifests", "maps", "reg-store.json"])
def test_object_of_absurd_length_is_refused_before_it_is_read(
    registry: Path, consumer: Path, home: Path, reg: Reg, folder: str
) -> None:
    write(registry, {"D/a": "a"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    place = registry / ".reg/remote" / folder
    path = place if place.is_file() else next(path for path in place.rglob("*") if path.is_file())
    os.truncate(path, 1 << 40)
    shutil.rmtree(home / "cache", ignore_errors=True)
    ran = reg(consumer, "import", registry, "D", code=6 if folder == "maps" else 2)
    assert path.name in ran.err
    assert "bytes long" in ran.err
    assert not (consumer / "D").exists()
