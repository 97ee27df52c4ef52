"""`reg checkout`, `status`, `pull`, `push` and their locks, in the odd cases too."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from registree.store.locking import held_lock
from tests.conftest import Reg, git, tree, write


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The folder of a remote that several clones share."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What was made once for all tests: `hub`, a folder to copy."""
    return {"place": tmp_path_factory.mktemp("made")}


@pytest.fixture
def hub(tmp_path: Path, made: dict[str, Path], reg: Reg) -> Path:
    """A registry with an upstream (`tmp_path/upstream.git`) and a remote (`tmp_path/store`), both shared."""
    if "hub" not in made:
        top = made["place"]
        git(top, "init", "-q", "--bare", "upstream.git")
        reg(top, "init", "hub", "--remote", "file-of-nobody")
        (top / "hub/reg.yaml").write_text("reg: 1\nremotes:\n  default: {url: ../store}\n")
        git(top / "hub", "commit", "-qam", "Share a remote")
        git(top / "hub", "remote", "add", "origin", "../upstream.git")
        git(top / "hub", "push", "-qu", "origin", "main")
        made["hub"] = top / "hub"
    for name in ("upstream.git", "hub"):
        shutil.copytree(made["place"] / name, tmp_path / name, symlinks=True)
    return tmp_path / "hub"


def clone(tmp_path: Path, name: str = "clone") -> Path:
    """Return a clone of the upstream."""
    git(tmp_path, "clone", "-q", "upstream.git", name)
    return tmp_path / name


def publish(reg: Reg, root: Path, name: str, files: dict[str, bytes | str]) -> None:
    """Write files of a dataset, add, commit and push it."""
    write(root, {f"{name}/{path}": content for path, content in files.items()})
    reg(root, "add", name, "-m", f"Add {name}")
    reg(root, "push")


def manifest(root: Path, name: str) -> str:
    """Return the manifest that a metafile names."""
    return str(yaml.safe_load((root / f"{name}.reg.yaml").read_text())["manifest"])


def disk(reg: Reg, root: Path) -> dict[str, str]:
    """Return what `status` says of each dataset's files."""
    return {row["name"]: row["disk"] for row in reg(root, "status", "--json").json["datasets"]}


def row_of(reg: Reg, root: Path, name: str, *options: str) -> dict[str, object]:
    """Return the row of `status` for one dataset."""
    rows = reg(root, "status", "--json", *options).json["datasets"]
    found = next(row for row in rows if row["name"] == name)
    assert isinstance(found, dict)
    return found


def objects(root: Path, folder: str) -> list[Path]:
    """Return the objects of one folder of a store."""
    return sorted(path for path in root.glob(f"{folder}/*/*") if path.is_file())


def pack_with(root: Path, content: bytes) -> Path:
    """Return the pack of a store that holds some bytes."""
    return next(path for path in objects(root, "packs") if content in path.read_bytes())


def flip(path: Path, position: int = 0) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(content)


@contextmanager
def counting_server() -> Iterator[tuple[str, list[str]]]:
    """Serve nothing over HTTP, and note who asked for what."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def write_protected(*roots: Path) -> Iterator[None]:
    """Take the right to write from folders and what is in them."""
    before: list[tuple[Path, int]] = []
    for root in roots:
        for folder, _, names in os.walk(root):
            for path in (Path(folder), *(Path(folder, name) for name in names)):
                if not path.is_symlink():
                    before.append((path, path.stat().st_mode))
                    path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in before:
            path.chmod(mode)


def reg_as_user(cwd: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `reg ARGS` bound by permissions, as root is not."""
    bound = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"] if not os.geteuid() else []
    command = [*bound, sys.executable, "-m", "registree", *args]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


@contextmanager
def writer(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that writes to a registry until it is told to stop."""
    code = (
        "import sys; from registree.store.locking import held_lock\n"
        "with held_lock(sys.argv[1], 'it', 5, print): print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(root / ".reg/lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.communicate()


# --- check out ----------------------------------------------------------------------------------------------------


def test_checkout_brings_what_is_not_on_this_disk(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"1.png": b"one" * 1000, "deep/2.png": "two", "empty": ""})
    place = clone(tmp_path)
    reg(place, "checkout")
    assert tree(place / "cats") == tree(hub / "cats")
    assert disk(reg, place) == {"cats": "clean"}
    assert git(place, "status", "--porcelain") == ""


def test_checkout_of_names_brings_those_alone(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"1": "1"})
    publish(reg, hub, "dogs", {"2": "2"})
    place = clone(tmp_path)
    reg(place, "checkout", "dogs")
    assert disk(reg, place) == {"cats": "absent", "dogs": "clean"}
    assert "dogs" in reg(place, "checkout", "dosg", code=3).err


def test_checkout_restores_missing_files(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "b/c": "c"})
    os.unlink(hub / "cats/b/c")
    reg(hub, "checkout", "cats")
    assert tree(hub / "cats") == {"a": b"a", "b/c": b"c"}


def test_checkout_of_a_revision_and_back(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "old", "gone": "gone", "kept": "kept"})
    git(hub, "tag", "v1")
    os.unlink(hub / "cats/gone")
    publish(reg, hub, "cats", {"a": "new", "come": "come"})
    inode = (hub / "cats/kept").stat().st_ino
    reg(hub, "checkout", "cats", "--rev", "v1")
    assert tree(hub / "cats") == {"a": b"old", "gone": b"gone", "kept": b"kept"}
    assert git(hub, "status", "--porcelain") == "M  cats.reg.yaml\n"
    assert (hub / "cats/kept").stat().st_ino == inode
    reg(hub, "checkout", "--rev", "HEAD")
    assert tree(hub / "cats") == {"a": b"new", "come": b"come", "kept": b"kept"}
    assert git(hub, "status", "--porcelain") == ""


def test_checkout_after_git_checkout_follows_the_metafiles(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "old"})
    publish(reg, hub, "cats", {"a": "new"})
    git(hub, "checkout", "-q", "HEAD~1")
    reg(hub, "checkout")
    assert tree(hub / "cats") == {"a": b"old"}


def test_checkout_of_a_revision_works_without_the_state(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "old"})
    publish(reg, hub, "cats", {"a": "new"})
    for path in (hub / ".reg").glob("state.sqlite*"):
        path.unlink()
    reg(hub, "checkout", "--rev", "HEAD~1")
    assert tree(hub / "cats") == {"a": b"old"}


def test_checkout_keeps_edited_files_and_restores_the_others(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "b": "b", "c": "c"})
    write(hub, {"cats/a": "mine"})
    os.unlink(hub / "cats/b")
    ran = reg(hub, "checkout", code=7)
    assert "cats" in ran.err
    assert "a" in ran.err.split("what no store has:")[1]
    assert "--force" in ran.err
    assert tree(hub / "cats") == {"a": b"mine", "b": b"b", "c": b"c"}
    assert reg(hub, "checkout", code=7)  # and again: it is still no version's
    reg(hub, "checkout", "--force")
    assert tree(hub / "cats") == {"a": b"a", "b": b"b", "c": b"c"}


def test_checkout_keeps_files_that_no_version_has(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "old"})
    publish(reg, hub, "cats", {"a": "new"})
    write(hub, {"cats/mine": "mine", "cats/own/too": "mine too"})
    reg(hub, "checkout", "--rev", "HEAD~1")
    assert tree(hub / "cats") == {"a": b"old", "mine": b"mine", "own/too": b"mine too"}


def test_checkout_keeps_an_edited_file_that_the_other_version_deleted(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    publish(reg, hub, "cats", {"b": "b"})
    write(hub, {"cats/b": "mine"})
    reg(hub, "checkout", "--rev", "HEAD~1", code=7)
    assert (hub / "cats/b").read_text() == "mine"


def test_checkout_keeps_files_that_were_added_in_place_and_not_pushed(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "old"})
    write(hub, {"cats/a": "new, and nowhere else"})
    reg(hub, "add", "--in-place", "cats", "-m", "More")
    reg(hub, "checkout", "--rev", "HEAD~1", code=7)
    assert (hub / "cats/a").read_text() == "new, and nowhere else"


def test_checkout_keeps_a_users_folder_where_a_file_belongs(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "b": "b"})
    os.unlink(hub / "cats/a")
    write(hub, {"cats/a/mine": "mine"})
    reg(hub, "checkout", code=7)
    assert (hub / "cats/a/mine").read_text() == "mine"
    reg(hub, "checkout", "--force")
    assert tree(hub / "cats") == {"a": b"a", "b": b"b"}


def test_checkout_keeps_a_users_file_where_the_dataset_belongs(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    place = clone(tmp_path)
    write(place, {"cats": "mine"})
    reg(place, "checkout", code=7)
    assert (place / "cats").read_text() == "mine"
    reg(place, "checkout", "--force")
    assert tree(place / "cats") == {"a": b"a"}


def test_checkout_writes_through_no_link_that_leaves_the_dataset(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"deep/a": "a"})
    (tmp_path / "outside").mkdir()
    os.unlink(hub / "cats/deep/a")
    (hub / "cats/deep").rmdir()
    (hub / "cats/deep").symlink_to(tmp_path / "outside")
    assert "deep" in reg(hub, "checkout", code=None).err
    assert (hub / "cats/deep").is_symlink()
    assert not list((tmp_path / "outside").iterdir())
    reg(hub, "checkout", "--force")
    assert not list((tmp_path / "outside").iterdir())
    assert not (hub / "cats/deep").is_symlink()
    assert (hub / "cats/deep/a").read_text() == "a"


def test_file_that_became_a_directory_and_back(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"x": "file", "y/a": "a", "y/b": "b"})
    os.unlink(hub / "cats/x")
    for path in (hub / "cats/y").iterdir():
        path.unlink()
    (hub / "cats/y").rmdir()
    publish(reg, hub, "cats", {"x/a": "a", "x/deep/b": "b", "y": "file"})
    reg(hub, "checkout", "--rev", "HEAD~1")
    assert tree(hub / "cats") == {"x": b"file", "y/a": b"a", "y/b": b"b"}
    reg(hub, "checkout", "--rev", "HEAD")
    assert tree(hub / "cats") == {"x/a": b"a", "x/deep/b": b"b", "y": b"file"}


def test_dataset_that_became_a_directory_and_back(hub: Path, reg: Reg) -> None:
    write(hub, {"table": "a file"})
    reg(hub, "add", "table", "-m", "A file")
    os.unlink(hub / "table")
    write(hub, {"table/part-1": "1", "table/deep/part-2": "2"})
    reg(hub, "add", "table", "-m", "A folder")
    reg(hub, "checkout", "--rev", "HEAD~1")
    assert (hub / "table").read_text() == "a file"
    reg(hub, "checkout", "--rev", "HEAD")
    assert tree(hub / "table") == {"part-1": b"1", "deep/part-2": b"2"}


def test_executable_bit_and_links_are_checked_out(hub: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"tools/run": "#!/bin/sh\n"})
    (hub / "tools/run").chmod(0o755)
    (hub / "tools/link").symlink_to("run")
    (hub / "tools/hollow").mkdir()
    reg(hub, "add", "tools", "-m", "Add tools")
    reg(hub, "push")
    place = clone(tmp_path)
    reg(place, "checkout")
    assert tree(place / "tools") == {"run": b"#!/bin/sh\n", "link": b"-> run", "hollow/": b""}
    assert (place / "tools/run").stat().st_mode & 0o100


def test_missing_payload_of_one_dataset_does_not_block_the_rest(
    hub: Path, store: Path, tmp_path: Path, reg: Reg
) -> None:
    publish(reg, hub, "cats", {"a": b"payload of cats"})
    publish(reg, hub, "dogs", {"b": b"payload of dogs"})
    pack_with(store, b"payload of cats").unlink()
    place = clone(tmp_path)
    ran = reg(place, "checkout", code=6)
    assert "cats" in ran.out + ran.err
    assert "packs/" in ran.err
    assert tree(place / "dogs") == {"b": b"payload of dogs"}
    assert not (place / "cats").exists()


def test_missing_manifest_does_not_block_the_rest(hub: Path, store: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    digits = manifest(hub, "cats").removeprefix("b3:")
    publish(reg, hub, "dogs", {"b": "b"})
    (store / "manifests" / digits[:2] / digits).unlink()
    reg(hub, "cache", "clean")
    place = clone(tmp_path)
    ran = reg(place, "checkout", code=6)
    assert digits[:12] in ran.err
    assert tree(place / "dogs") == {"b": b"b"}


def test_broken_metafile_does_not_block_the_checkout_of_others(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "dogs", {"b": "b"})
    place = clone(tmp_path)
    write(place, {"cats.reg.yaml": "reg: 1\nmanifest: [\n"})
    ran = reg(place, "checkout", code=2)
    assert "cats.reg.yaml" in ran.err
    assert tree(place / "dogs") == {"b": b"b"}


def test_failed_checkout_of_a_revision_leaves_files_and_metafile_as_they_were(hub: Path, store: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": b"the old payload", "b": b"old b" * 100})
    publish(reg, hub, "cats", {"a": b"the new payload", "b": b"new b" * 100})
    pack_with(store, b"the old payload").unlink()
    before = tree(hub / "cats"), (hub / "cats.reg.yaml").read_bytes()
    reg(hub, "checkout", "--rev", "HEAD~1", code=6)
    assert (tree(hub / "cats"), (hub / "cats.reg.yaml").read_bytes()) == before
    assert git(hub, "status", "--porcelain", "--untracked-files=all") == ""


# --- status -------------------------------------------------------------------------------------------------------


def test_status_tells_a_dataset_that_is_not_on_this_disk(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    place = clone(tmp_path)
    assert "cats: not on this disk" in reg(place, "status").out
    assert disk(reg, place) == {"cats": "absent"}


def test_status_tells_changes_by_file(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"edited": "a", "deleted": "b", "kept": "c"})
    write(hub, {"cats/edited": "A", "cats/added": "d"})
    os.unlink(hub / "cats/deleted")
    lines = reg(hub, "status").out.splitlines()
    assert {"  ~ edited", "  - deleted", "  + added"} <= set(lines)
    assert not any("kept" in line for line in lines)
    changes = row_of(reg, hub, "cats")["changes"]
    assert isinstance(changes, list)
    assert [(c["kind"], c["path"]) for c in changes] == [
        ("added", "added"),
        ("removed", "deleted"),
        ("modified", "edited"),
    ]
    assert reg(hub, "status", "--exit-code", code=1)


def test_status_tells_not_committed_and_not_pushed(hub: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "add", "cats")
    row = row_of(reg, hub, "cats")
    assert (row["disk"], row["staged"], row["unpushed"]) == ("clean", True, True)
    reg(hub, "commit", "-m", "Add cats")
    ran = reg(hub, "status")
    assert "not pushed" in ran.out
    assert "not committed" not in ran.out
    assert "reg push" in ran.err
    reg(hub, "push")
    assert "nothing changed" in reg(hub, "status", "--exit-code").out


def test_status_of_an_import_tells_what_is_newer_only_when_asked(hub: Path, consumer: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    reg(consumer, "import", hub, "cats", "--rev", "main")
    assert row_of(reg, consumer, "cats", "--remote")["newer"] == ""
    publish(reg, hub, "cats", {"b": "b"})
    assert row_of(reg, consumer, "cats")["newer"] == ""
    ran = reg(consumer, "status", "--remote")
    assert "newer" in ran.out


def test_status_says_unknown_when_the_manifest_is_missing(hub: Path, store: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    publish(reg, hub, "dogs", {"b": "b"})
    digits = manifest(hub, "cats").removeprefix("b3:")
    (store / "manifests" / digits[:2] / digits).unlink()
    reg(hub, "cache", "clean")
    assert disk(reg, hub) == {"cats": "unknown", "dogs": "clean"}
    assert "cats: unknown" in reg(hub, "status").out


def test_status_says_unknown_when_the_manifest_is_damaged(hub: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "add", "cats", "-m", "Add cats")
    for path in objects(hub / ".reg/outbox", "manifests"):
        flip(path, 12)
    assert disk(reg, hub) == {"cats": "unknown"}


def test_status_works_with_a_damaged_or_missing_state(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    (hub / ".reg/state.sqlite").write_bytes(b"no database at all" * 100)
    assert disk(reg, hub) == {"cats": "clean"}
    os.unlink(hub / ".reg/state.sqlite")
    assert disk(reg, hub) == {"cats": "clean"}


def test_status_names_a_broken_metafile_and_shows_the_others(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    write(hub, {"cats/a": "A", "dogs.reg.yaml": "not yaml: [\n", "later.reg.yaml": "reg: 99\npath: later\n"})
    ran = reg(hub, "status")
    assert "cats: changed (1 file)" in ran.out
    assert "dogs.reg.yaml is not valid YAML" in ran.out
    assert "format 99" in ran.out


def test_status_says_what_came_into_a_dataset_that_none_may_hold(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    os.mkfifo(hub / "cats/pipe")
    assert disk(reg, hub) == {"cats": "changed"}
    assert "pipe" in reg(hub, "status").out


@pytest.mark.parametrize("how", ["hard link", "copy", "rename over", "touch"])
def test_relinking_is_no_change(hub: Path, tmp_path: Path, reg: Reg, how: str) -> None:
    publish(reg, hub, "cats", {"a": "content", "b": "other"})
    place = hub / "cats/a"
    if how == "touch":
        os.utime(place, (1, 1))
    else:
        (tmp_path / "spare").write_bytes(place.read_bytes())
        place.unlink()
        if how == "hard link":
            os.link(tmp_path / "spare", place)
        elif how == "copy":
            place.write_bytes((tmp_path / "spare").read_bytes())
        else:
            os.rename(tmp_path / "spare", place)
    assert disk(reg, hub) == {"cats": "clean"}
    assert "unchanged" in reg(hub, "add", "cats").out


def test_edit_that_keeps_size_and_time_is_a_change(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "content"})
    reg(hub, "status")
    before = (hub / "cats/a").stat()
    (hub / "cats/a").write_text("CONTENT")
    os.utime(hub / "cats/a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert disk(reg, hub) == {"cats": "changed"}


def test_renames_are_seen_duplicates_included(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "twin", "b": "twin", "c": "single", "stays": "twin"})
    for old, new in (("a", "x/a2"), ("b", "x/b2"), ("c", "c2")):
        (hub / "cats/x").mkdir(exist_ok=True)
        os.rename(hub / "cats" / old, hub / "cats" / new)
    changes = row_of(reg, hub, "cats")["changes"]
    assert isinstance(changes, list)
    assert [(c["kind"], c["from"], c["path"]) for c in changes] == [
        ("renamed", "c", "c2"),
        ("renamed", "a", "x/a2"),
        ("renamed", "b", "x/b2"),
    ]


def test_status_never_writes_to_git(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    write(hub, {"cats/a": "A", "notes": "n"})
    before = {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in [hub / ".git", *(hub / ".git").rglob("*")]
    }
    reg(hub, "status")
    after = {
        str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in [hub / ".git", *(hub / ".git").rglob("*")]
    }
    assert after == before


def test_status_works_read_only(hub: Path, tmp_path: Path, home: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "b": "b"})
    write(hub, {"cats/a": "A"})
    before = tree(tmp_path)
    with write_protected(tmp_path, home):
        ran = reg_as_user(hub, "status")
    assert ran.returncode == 0, ran.stderr
    assert "cats: changed (1 file)" in ran.stdout
    assert tree(tmp_path) == before


def test_status_works_read_only_without_a_state(hub: Path, tmp_path: Path, home: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    os.unlink(hub / ".reg/state.sqlite")
    with write_protected(tmp_path, home):
        ran = reg_as_user(hub, "status")
    assert (ran.returncode, ran.stdout.splitlines()[1:]) == (0, ["nothing changed"])


@pytest.mark.parametrize("cached", [True, False])
def test_status_costs_no_network(hub: Path, reg: Reg, cached: bool) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    with counting_server() as (url, asked):
        reg(hub, "remote", "add", "default", f"{url}/one", "-m", "Move the remote")
        reg(hub, "remote", "add", "second", f"{url}/two", "-m", "And another")
        if not cached:
            reg(hub, "cache", "clean")
        found = disk(reg, hub)
    assert asked == []
    assert found == {"cats": "clean" if cached else "unknown"}


def test_status_of_an_import_costs_no_network(hub: Path, consumer: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    reg(consumer, "import", hub, "cats")
    place = consumer / "cats.reg.yaml"
    with counting_server() as (url, asked):
        place.write_text(place.read_text().replace(str(hub), f"{url}/registry.git"))
        assert url in place.read_text()
        ran = reg(consumer, "status")
    assert asked == []
    assert "cats" in ran.out or "nothing changed" in ran.out


# --- pull ---------------------------------------------------------------------------------------------------------


def test_pull_fast_forwards_and_brings_payload(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "old", "gone": "gone"})
    place = clone(tmp_path)
    reg(place, "checkout")
    os.unlink(hub / "cats/gone")
    write(hub, {"notes.txt": "n"})
    git(hub, "add", "notes.txt")
    git(hub, "commit", "-qm", "Notes")
    publish(reg, hub, "cats", {"a": "new"})
    reg(place, "pull")
    assert tree(place / "cats") == {"a": b"new"}
    assert (place / "notes.txt").read_text() == "n"
    assert git(place, "rev-parse", "HEAD", "origin/main").split() == git(hub, "rev-parse", "HEAD", "HEAD").split()
    assert git(place, "status", "--porcelain") == ""
    git(place, "fsck", "--strict")


def test_pull_again_changes_nothing(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    place = clone(tmp_path)
    reg(place, "pull")
    inode = (place / "cats/a").stat().st_ino
    assert "in sync" in reg(place, "pull").out
    assert (place / "cats/a").stat().st_ino == inode


def test_pull_of_names_brings_their_payload_alone(hub: Path, tmp_path: Path, reg: Reg) -> None:
    place = clone(tmp_path)
    publish(reg, hub, "cats", {"a": "a"})
    publish(reg, hub, "dogs", {"b": "b"})
    reg(place, "pull", "dogs")
    assert disk(reg, place) == {"cats": "absent", "dogs": "clean"}


def test_pull_brings_tags(hub: Path, tmp_path: Path, reg: Reg) -> None:
    place = clone(tmp_path)
    write(hub, {"cats/a": "a"})
    reg(hub, "add", "cats", "-m", "Add cats")
    git(hub, "tag", "-a", "cats@v1.0.0", "-m", "First")
    reg(hub, "push")
    reg(place, "pull")
    assert git(place, "rev-parse", "cats@v1.0.0") == git(hub, "rev-parse", "cats@v1.0.0")


def test_pull_without_an_upstream_brings_payload(hub: Path, store: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    place = clone(tmp_path)
    git(place, "branch", "--unset-upstream")
    reg(place, "pull")
    assert tree(place / "cats") == {"a": b"a"}


def test_pull_of_parted_histories_is_refused_and_changes_nothing(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    place = clone(tmp_path)
    reg(place, "checkout")
    publish(reg, hub, "cats", {"a": "theirs"})
    write(place, {"dogs/b": "mine"})
    reg(place, "add", "dogs", "-m", "Add dogs")
    head = git(place, "rev-parse", "HEAD")
    ran = reg(place, "pull", code=7)
    assert "parted" in ran.err
    assert "rebase" in ran.err
    assert git(place, "rev-parse", "HEAD") == head
    assert tree(place / "cats") == {"a": b"a"}
    assert git(place, "status", "--porcelain") == ""


@pytest.mark.parametrize("staged", [False, True])
def test_pull_refuses_to_overwrite_an_edited_metafile(hub: Path, tmp_path: Path, reg: Reg, staged: bool) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    place = clone(tmp_path)
    reg(place, "checkout")
    publish(reg, hub, "cats", {"a": "theirs"})
    write(place, {"notes.txt": "n", "cats/a": "mine"})
    if staged:
        reg(place, "add", "cats")
    else:
        (place / "cats.reg.yaml").write_text("# mine\n" + (place / "cats.reg.yaml").read_text())
    before = (place / "cats.reg.yaml").read_bytes(), git(place, "rev-parse", "HEAD"), git(place, "status", "-s")
    ran = reg(place, "pull", code=7)
    assert "cats.reg.yaml" in ran.err
    after = (place / "cats.reg.yaml").read_bytes(), git(place, "rev-parse", "HEAD"), git(place, "status", "-s")
    assert after == before
    assert (place / "cats/a").read_text() == "mine"


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_pull_refuses_to_overwrite_what_git_does_not_track(hub: Path, tmp_path: Path, reg: Reg, kind: str) -> None:
    place = clone(tmp_path)
    write(hub, {"notes": "theirs"})
    git(hub, "add", "notes")
    git(hub, "commit", "-qm", "Notes")
    git(hub, "push", "-q")
    if kind == "link":
        (place / "notes").symlink_to("nowhere")
    else:
        write(place, {"notes" if kind == "file" else "notes/mine": "mine"})
    head, before = git(place, "rev-parse", "HEAD"), tree(place / "notes") if kind == "folder" else None
    ran = reg(place, "pull", code=7)
    assert "notes" in ran.err
    assert git(place, "rev-parse", "HEAD") == head
    if kind == "folder":
        assert tree(place / "notes") == before
    elif kind == "link":
        assert os.readlink(place / "notes") == "nowhere"
    else:
        assert (place / "notes").read_text() == "mine"


def test_pull_refuses_to_lose_what_is_staged_only(hub: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"notes": "old\n"})
    git(hub, "add", "notes")
    git(hub, "commit", "-qm", "Notes")
    git(hub, "push", "-q")
    place = clone(tmp_path)
    write(hub, {"notes": "theirs\n"})
    git(hub, "commit", "-qam", "More notes")
    git(hub, "push", "-q")
    write(place, {"notes": "mine\n"})
    git(place, "add", "notes")
    write(place, {"notes": "old\n"})
    ran = reg(place, "pull", code=7)
    assert "notes" in ran.err
    assert git(place, "show", ":notes") == "mine\n"


def test_pull_keeps_other_staged_and_edited_files(hub: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"notes": "old\n"})
    git(hub, "add", "notes")
    git(hub, "commit", "-qm", "Notes")
    git(hub, "push", "-q")
    place = clone(tmp_path)
    publish(reg, hub, "cats", {"a": "a"})
    write(place, {"notes": "mine\n", "new": "new\n"})
    git(place, "add", "new")
    reg(place, "pull")
    assert sorted(git(place, "status", "--porcelain").splitlines()) == [" M notes", "A  new"]
    assert tree(place / "cats") == {"a": b"a"}


def test_pull_keeps_edited_payload_and_says_so(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "b": "b"})
    publish(reg, hub, "dogs", {"c": "c"})
    place = clone(tmp_path)
    reg(place, "checkout")
    write(place, {"cats/a": "mine"})
    publish(reg, hub, "cats", {"a": "theirs", "b": "theirs too"})
    publish(reg, hub, "dogs", {"c": "theirs"})
    ran = reg(place, "pull", code=7)
    assert "cats" in ran.err
    assert tree(place / "cats")["a"] == b"mine"
    assert tree(place / "dogs") == {"c": b"theirs"}
    reg(place, "pull", "--force")
    assert tree(place / "cats") == {"a": b"theirs", "b": b"theirs too"}


def test_pull_follows_files_that_became_folders_and_modes(hub: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"x": "file", "y/a": "a", "y/b": "b", "run": "#!/bin/sh\n", "deep/er/only": "o"})
    git(hub, "add", "x", "y", "run", "deep")
    git(hub, "commit", "-qm", "Before")
    git(hub, "push", "-q")
    place = clone(tmp_path)
    git(hub, "rm", "-rq", "x", "y", "deep")
    write(hub, {"x/inner": "i", "y": "file"})
    (hub / "run").chmod(0o755)
    (hub / "link").symlink_to("run")
    git(hub, "add", "x", "y", "run", "link")
    git(hub, "commit", "-qm", "After")
    git(hub, "push", "-q")
    reg(place, "pull")
    assert git(place, "status", "--porcelain", "--ignored") in ("", "!! .reg/\n")
    assert (place / "x/inner").read_text() == "i"
    assert (place / "y").read_text() == "file"
    assert (place / "run").stat().st_mode & 0o100
    assert os.readlink(place / "link") == "run"
    assert not (place / "deep").exists()


def test_pull_while_another_program_holds_the_index_changes_nothing(
    hub: Path, tmp_path: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registree.git.repository._LOCK_WAIT", 0.1)
    place = clone(tmp_path)
    publish(reg, hub, "cats", {"a": "a"})
    (place / ".git/index.lock").touch()
    head = git(place, "rev-parse", "HEAD")
    assert "index" in reg(place, "pull", code=7).err
    assert git(place, "rev-parse", "HEAD") == head
    assert not (place / "cats.reg.yaml").exists()
    os.unlink(place / ".git/index.lock")
    reg(place, "pull")
    assert git(place, "status", "--porcelain") == ""


def test_pull_when_ahead_keeps_the_commits(hub: Path, tmp_path: Path, reg: Reg) -> None:
    place = clone(tmp_path)
    write(place, {"cats/a": "a"})
    reg(place, "add", "cats", "-m", "Add cats")
    head = git(place, "rev-parse", "HEAD")
    reg(place, "pull")
    assert git(place, "rev-parse", "HEAD") == head


def test_pull_from_an_upstream_that_is_gone_says_so(hub: Path, tmp_path: Path, reg: Reg) -> None:
    place = clone(tmp_path)
    os.rename(tmp_path / "upstream.git", tmp_path / "moved.git")
    ran = reg(place, "pull", code=3)
    assert "upstream.git" in ran.err


# --- push ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blocked", ["packs", "maps", "manifests"])
def test_push_sends_payload_before_manifest_before_git(
    hub: Path, store: Path, tmp_path: Path, reg: Reg, blocked: str
) -> None:
    order = ["packs", "maps", "manifests"]
    write(hub, {"cats/a": "a", "cats/b": "b"})
    reg(hub, "add", "cats", "-m", "Add cats")
    write(store, {blocked: "a file where a folder belongs"})
    before = git(tmp_path / "upstream.git", "rev-parse", "main")
    ran = reg(hub, "push", code=None)
    assert ran.code != 0
    assert ran.err.startswith("reg: ")
    for folder in order[: order.index(blocked)]:
        assert objects(store, folder)
    for folder in order[order.index(blocked) + 1 :]:
        assert not objects(store, folder)
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == before
    (store / blocked).unlink()
    reg(hub, "push")
    reg(hub, "verify", "--remote", "--deep")
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == git(hub, "rev-parse", "HEAD")


def test_manifest_is_the_last_object_that_a_push_writes(hub: Path, store: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {f"{number:04}": f"{number}" for number in range(3000)})
    times = {folder: [p.stat().st_mtime_ns for p in objects(store, folder)] for folder in ("packs", "maps")}
    last = [p.stat().st_mtime_ns for p in objects(store, "manifests")]
    assert max(times["packs"]) <= min(times["maps"])
    assert max(times["maps"]) <= min(last)


def test_push_names_payload_that_is_missing_and_moves_nothing(hub: Path, store: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"cats/a": b"payload of cats"})
    reg(hub, "add", "cats", "-m", "Add cats")
    pack_with(hub / ".reg/outbox", b"payload of cats").unlink()
    before = git(tmp_path / "upstream.git", "rev-parse", "main")
    ran = reg(hub, "push", code=6)
    assert "cats" in ran.err.replace(str(hub), "")
    assert not objects(store, "manifests")
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == before


def test_push_names_a_manifest_that_is_missing(hub: Path, store: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "add", "cats", "-m", "Add cats")
    for path in objects(hub / ".reg/outbox", "manifests"):
        path.unlink()
    before = git(tmp_path / "upstream.git", "rev-parse", "main")
    assert "cats" in reg(hub, "push", code=6).err
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == before


@pytest.mark.parametrize("lost", ["pack", "manifest"])
def test_push_finds_and_names_missing_payload_of_an_older_commit(
    hub: Path, tmp_path: Path, reg: Reg, lost: str
) -> None:
    write(hub, {"cats/a": b"payload of the first version"})
    reg(hub, "add", "cats", "-m", "First")
    digits = manifest(hub, "cats").removeprefix("b3:")
    write(hub, {"cats/a": b"payload of the second version"})
    reg(hub, "add", "cats", "-m", "Second")
    outbox = hub / ".reg/outbox"
    gone = outbox / "manifests" / digits[:2] / digits
    (pack_with(outbox, b"payload of the first version") if lost == "pack" else gone).unlink()
    before = git(tmp_path / "upstream.git", "rev-parse", "main")
    ran = reg(hub, "push", code=6)
    assert "cats" in ran.err
    assert digits[:10] in ran.err
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == before


def test_push_sends_the_payload_of_every_commit_and_tag(hub: Path, tmp_path: Path, reg: Reg) -> None:
    for number in range(3):
        write(hub, {"cats/a": f"version {number}"})
        reg(hub, "add", "cats", "-m", f"Version {number}")
    git(hub, "checkout", "-qb", "side")
    write(hub, {"cats/a": "version of a tag"})
    reg(hub, "add", "cats", "-m", "On the side")
    git(hub, "tag", "side-tag")
    git(hub, "checkout", "-q", "main")
    reg(hub, "push")
    place = clone(tmp_path)
    for number in range(3):
        reg(place, "checkout", "--force", "--rev", f"HEAD~{2 - number}")
        assert (place / "cats/a").read_text() == f"version {number}"
    reg(hub, "verify", "--remote", "--deep")


@pytest.mark.parametrize("how", ["altered", "truncated"])
@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_corrupt_outbox_pack_is_never_uploaded(
    hub: Path, store: Path, tmp_path: Path, reg: Reg, how: str, size: int
) -> None:
    content = os.urandom(size)
    write(hub, {"cats/a": content})
    reg(hub, "add", "cats", "-m", "Add cats")
    pack = pack_with(hub / ".reg/outbox", content[:500])
    whole = pack.read_bytes()
    if how == "altered":
        flip(pack, size // 2)
    else:
        os.truncate(pack, size // 2)
    before = git(tmp_path / "upstream.git", "rev-parse", "main")
    ran = reg(hub, "push", code=6)
    assert pack.name in ran.err
    assert not (store / "packs" / pack.name[:2] / pack.name).exists()
    assert not objects(store, "manifests")
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == before
    pack.write_bytes(whole)
    reg(hub, "push")
    reg(hub, "verify", "--remote", "--deep")


def test_corrupt_outbox_pack_is_mended_as_the_hint_says(hub: Path, reg: Reg) -> None:
    write(hub, {"cats/a": b"payload of cats"})
    reg(hub, "add", "cats", "-m", "Add cats")
    pack = pack_with(hub / ".reg/outbox", b"payload of cats")
    flip(pack)
    assert "reg add" in reg(hub, "push", code=6).err
    pack.unlink()
    reg(hub, "add", "cats")
    reg(hub, "push")
    reg(hub, "verify", "--remote", "--deep")


@pytest.mark.parametrize("folder", ["manifests", "maps"])
def test_corrupt_outbox_manifest_or_map_is_never_uploaded(hub: Path, store: Path, reg: Reg, folder: str) -> None:
    write(hub, {f"cats/{number:04}": "" for number in range(3000)})
    reg(hub, "add", "cats", "-m", "Add cats")
    (path,) = objects(hub / ".reg/outbox", folder)
    flip(path, path.stat().st_size - 5)
    ran = reg(hub, "push", code=None)
    assert ran.code in (2, 6)
    assert ran.err.startswith("reg: ")
    assert not objects(store, "manifests")


@pytest.mark.parametrize("how", ["altered", "truncated", "empty"])
@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_damaged_remote_pack_is_never_accepted_and_is_named(
    hub: Path, store: Path, tmp_path: Path, reg: Reg, how: str, size: int
) -> None:
    content = os.urandom(size)
    publish(reg, hub, "cats", {"a": content})
    pack = pack_with(store, content[:500])
    whole = pack.read_bytes()
    if how == "altered":
        flip(pack, size // 2)
    else:
        os.truncate(pack, size // 2 if how == "truncated" else 0)
    place = clone(tmp_path)
    ran = reg(place, "checkout", code=6)
    assert pack.name[:12] in ran.err
    assert not (place / "cats").exists()
    assert git(place, "status", "--porcelain", "--untracked-files=all") == ""
    assert pack.name[:12] in reg(hub, "verify", "--remote", "--deep", code=6).out
    pack.write_bytes(whole)
    reg(place, "checkout")
    assert tree(place / "cats") == {"a": content}


@pytest.mark.parametrize("how", ["altered", "truncated", "empty"])
def test_damaged_remote_manifest_is_never_accepted_and_is_named(
    hub: Path, store: Path, tmp_path: Path, reg: Reg, how: str
) -> None:
    publish(reg, hub, "cats", {"a": "a", "b": "b"})
    (path,) = objects(store, "manifests")
    if how == "altered":
        flip(path, path.stat().st_size - 8)
    else:
        os.truncate(path, path.stat().st_size // 2 if how == "truncated" else 0)
    reg(hub, "cache", "clean")
    place = clone(tmp_path)
    ran = reg(place, "checkout", code=None)
    assert ran.code in (2, 6)
    assert path.name[:12] in ran.err
    assert not (place / "cats").exists()


def test_push_replaces_a_truncated_pack_that_the_remote_has(hub: Path, store: Path, reg: Reg) -> None:
    write(hub, {"cats/a": b"payload of cats"})
    reg(hub, "add", "cats", "-m", "Add cats")
    pack = pack_with(hub / ".reg/outbox", b"payload of cats")
    write(store, {f"packs/{pack.name[:2]}/{pack.name}": b"payl"})
    reg(hub, "push")
    reg(hub, "verify", "--remote", "--deep")


def test_object_deleted_on_the_remote_is_noticed_by_verify(hub: Path, store: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": b"payload of cats"})
    pack = pack_with(store, b"payload of cats")
    reg(hub, "verify", "--remote")
    pack.unlink()
    ran = reg(hub, "verify", "--remote", code=6)
    assert pack.name in ran.out
    assert "cats" in ran.out


def test_rejected_push_says_what_to_do_and_payload_is_not_sent_again(
    hub: Path, store: Path, tmp_path: Path, reg: Reg
) -> None:
    other = clone(tmp_path)
    publish(reg, hub, "one/cats", {"a": "a"})
    write(other, {"two/dogs/b": b"payload of dogs"})
    reg(other, "add", "two/dogs", "-m", "Add dogs")
    ran = reg(other, "push", code=7)
    assert "somebody pushed first" in ran.err
    assert "reg pull" in ran.err
    pack = pack_with(store, b"payload of dogs")
    sent = pack.stat().st_mtime_ns, pack.stat().st_ino
    git(other, "pull", "-q", "--rebase")
    again = reg(other, "push", "--json").json
    assert again["packs"] == 0
    assert (pack.stat().st_mtime_ns, pack.stat().st_ino) == sent
    reg(hub, "pull")
    assert tree(hub / "two/dogs") == {"b": b"payload of dogs"}


def test_two_people_push_the_same_dataset_and_one_is_told(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    other = clone(tmp_path)
    reg(other, "checkout")
    publish(reg, hub, "cats", {"b": "first"})
    write(other, {"cats/c": "second"})
    reg(other, "add", "cats", "-m", "Mine")
    assert "somebody pushed first" in reg(other, "push", code=7).err
    assert "parted" in reg(other, "pull", code=7).err
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == git(hub, "rev-parse", "HEAD")
    assert (other / "cats/c").read_text() == "second"


def test_two_people_push_the_same_payload(hub: Path, store: Path, tmp_path: Path, reg: Reg) -> None:
    other = clone(tmp_path)
    for place, name in ((hub, "cats"), (other, "dogs")):
        write(place, {f"sub-{name}/{name}/a": "the same payload"})
        reg(place, "add", f"sub-{name}/{name}", "-m", f"Add {name}")
    reg(hub, "push")
    reg(other, "push", code=7)
    git(other, "pull", "-q", "--rebase")
    reg(other, "push")
    assert len([p for p in objects(store, "packs") if b"the same payload" in p.read_bytes()]) == 1
    reg(other, "verify", "--remote", "--deep")


def test_push_to_a_checked_out_branch_is_refused(hub: Path, tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "clone", "-q", str(hub), "clone")
    place = tmp_path / "clone"
    write(place, {"cats/a": "a"})
    reg(place, "add", "cats", "-m", "Add cats")
    head = git(hub, "rev-parse", "HEAD")
    assert "checked out" in reg(place, "push", code=7).err
    assert git(hub, "rev-parse", "HEAD") == head


def test_push_to_a_second_remote_sends_what_the_first_has(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": b"payload of cats"})
    reg(hub, "remote", "add", "backup", tmp_path / "backup", "-m", "A backup")
    reg(hub, "push", "--remote", "backup")
    assert pack_with(tmp_path / "backup", b"payload of cats")
    assert len(objects(tmp_path / "backup", "manifests")) == 1


def test_dry_run_sends_nothing(hub: Path, store: Path, tmp_path: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "add", "cats", "-m", "Add cats")
    before = git(tmp_path / "upstream.git", "rev-parse", "main")
    assert "would send 1 pack" in reg(hub, "push", "--dry-run").out
    assert not objects(store, "packs")
    assert git(tmp_path / "upstream.git", "rev-parse", "main") == before


def test_push_drops_from_the_outbox_what_the_remote_confirmed(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "large": os.urandom(2_000_000)})
    for folder in ("packs", "maps", "manifests", "chunks"):
        assert objects(hub / ".reg/outbox", folder) == []


def test_remote_without_write_permission_is_one_sentence(hub: Path, store: Path, reg: Reg) -> None:
    publish(reg, hub, "dogs", {"b": "b"})
    write(hub, {"cats/a": "a"})
    reg(hub, "add", "cats", "-m", "Add cats")
    with write_protected(store):
        ran = reg_as_user(hub, "push", "-q")
    assert ran.returncode == 4
    assert str(store) in ran.stderr
    assert [line.split(":")[0] for line in ran.stderr.splitlines()] == ["reg", "hint"]
    reg(hub, "push")


def test_repository_without_write_permission_is_one_sentence(hub: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    write(hub, {"cats/a": "A"})
    with write_protected(hub):
        ran = reg_as_user(hub, "add", "cats", "-q")
    assert ran.returncode == 4
    assert str(hub) in ran.stderr
    assert [line.split(":")[0] for line in ran.stderr.splitlines()] == ["reg", "hint"]


def test_checkout_works_with_a_cache_that_cannot_be_written(hub: Path, tmp_path: Path, home: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a", "large": os.urandom(2_000_000)})
    place = clone(tmp_path)
    (home / "cache").mkdir(exist_ok=True)
    with write_protected(home / "cache"):
        ran = reg_as_user(place, "checkout")
    assert ran.returncode == 0, ran.stderr
    assert tree(place / "cats") == tree(hub / "cats")


# --- locks --------------------------------------------------------------------------------------------------------


def test_reading_never_waits(hub: Path, tmp_path: Path, reg: Reg) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    reg(hub, "config", "lock.wait", "0")
    verbs = ("status", "list", "files cats", "cat cats:a", "show cats", "diff", "verify", "verify --remote", "config")
    with held_lock(str(hub / ".reg/lock"), "it", 1, str):
        for verb in verbs:
            reg(hub, *verb.split())
        reg(tmp_path, "get", hub, "cats", "-o", "out")
        reg(hub, "add", "cats", code=7)  # a writer would


def test_writer_gives_up_and_says_for_whom_it_waited(hub: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "config", "lock.wait", "0.2")
    with writer(hub) as child:
        started = time.monotonic()
        ran = reg(hub, "add", "cats", "-m", "Add cats", code=7)
        assert time.monotonic() - started >= 0.2
    assert f"process {child.pid}" in ran.err
    assert not (hub / "cats.reg.yaml").exists()
    reg(hub, "add", "cats", "-m", "Add cats")


@pytest.mark.parametrize("verb", ["add cats", "commit -m x", "push", "pull", "checkout", "remove cats", "move cats x"])
def test_every_writer_waits_for_another(hub: Path, reg: Reg, verb: str) -> None:
    publish(reg, hub, "cats", {"a": "a"})
    reg(hub, "config", "lock.wait", "0")
    with held_lock(str(hub / ".reg/lock"), "it", 1, str):
        assert f"process {os.getpid()}" in reg(hub, *verb.split(), code=7).err


def test_writer_waits_until_another_is_done(hub: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "config", "lock.wait", "20")
    with writer(hub) as child:
        timer = threading.Timer(1, lambda: child.stdin and child.stdin.close())
        timer.start()
        ran = reg(hub, "add", "cats", "-m", "Add cats")
        timer.join()
        assert ran.err.count(f"waiting for process {child.pid}, which is writing to {hub}") == 1
        assert child.wait() == 0
        child.stdin = None


def test_lock_of_a_dead_process_is_taken_over(hub: Path, reg: Reg) -> None:
    write(hub, {"cats/a": "a"})
    reg(hub, "config", "lock.wait", "0.5")
    with writer(hub) as child:
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert (hub / ".reg/lock").read_text() == f"process {child.pid}"
        reg(hub, "add", "cats", "-m", "Add cats")


def test_two_writers_at_once_both_end_well(hub: Path, reg: Reg) -> None:
    names = [f"sets/{number}" for number in range(4)]
    before = git(hub, "rev-parse", "HEAD").strip()
    for name in names:
        write(hub, {f"{name}/a": name * 1000})
    children = [
        subprocess.Popen([sys.executable, "-m", "registree", "add", name, "-m", f"Add {name}", "-q"], cwd=hub)
        for name in names
    ]
    assert [child.wait() for child in children] == [0] * len(names)
    assert git(hub, "status", "--porcelain") == ""
    assert git(hub, "rev-list", "--count", f"{before}..HEAD").strip() == str(len(names))
    reg(hub, "push")
    reg(hub, "verify", "--remote", "--deep")
