"""`reg add`, `remove`, `move` and what a commit of theirs holds, in the odd cases too."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from blake3 import blake3

from registree import Registry
from registree.errors import RegError
from registree.store.open_pack import OpenPack
from registree.store.packing import Packer
from registree.store.scanning import Scan
from tests.conftest import Reg, file_limit, git, tree, write


def metafile(root: Path, name: str) -> Path:
    """Return the place of a dataset's metafile."""
    return root / f"{name}.reg.yaml"


def fields(root: Path, name: str) -> dict[str, object]:
    """Return what a metafile says."""
    found = yaml.safe_load(metafile(root, name).read_text())
    assert isinstance(found, dict)
    return found


def committed(root: Path, revision: str = "HEAD") -> list[str]:
    """Return the paths that one commit changed."""
    return sorted(git(root, "-c", "core.quotePath=false", "show", "--format=", "--name-only", revision).split())


def fetched(reg: Reg, registry: Path, name: str, place: Path) -> Path:
    """Push and get a dataset from a folder without a repository."""
    reg(registry, "push")
    place.mkdir()
    reg(place, "get", registry, name, "-o", "out")
    return place / "out"


def packs(root: Path) -> list[Path]:
    """Return the packs below a store's root."""
    return sorted(path for path in root.glob("packs/*/*") if path.is_file())


def objects(root: Path) -> list[str]:
    """Return all that a store holds, its marker apart."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "reg-store.json")


def tracked_state(root: Path) -> tuple[str, str]:
    """Return what Git says of a repository, and the names in its root."""
    return git(root, "status", "--porcelain", "--untracked-files=all"), "\n".join(sorted(os.listdir(root)))


def embedded_remote(root: Path) -> Path:
    """Return the folder of the remote that `init` made."""
    found = yaml.safe_load((root / "reg.yaml").read_text())["remotes"]["default"]
    url = found if isinstance(found, str) else found["url"]
    return root / url


def tree_without_state(root: Path) -> dict[str, bytes]:
    """Return a repository's files, `.git` and `.reg` apart."""
    return {path: content for path, content in tree(root).items() if not path.startswith((".git/", ".reg/"))}


@pytest.fixture
def absent(registry: Path, tmp_path: Path, reg: Reg) -> Path:
    """A clone of a registry whose dataset `images/cats` is pushed and not on the clone's disk."""
    write(registry, {"images/cats/train/1.png": b"one" * 500, "images/cats/train/2.png": b"two" * 500})
    write(registry, {"images/cats/test/3.png": b"three" * 500, "images/cats/labels.csv": "1,cat\n"})
    reg(registry, "add", "images/cats", "-m", "Add cats")
    reg(registry, "push")
    place = tmp_path / "clone"
    git(tmp_path, "clone", "-q", str(registry), str(place))
    return place


# --- what a dataset may hold --------------------------------------------------------------------------------------


def test_executable_bit_survives(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"tools/run.sh": "#!/bin/sh\n", "tools/deep/inner.sh": "#!/bin/sh\n", "tools/notes.txt": "n"})
    (registry / "tools/run.sh").chmod(0o755)
    (registry / "tools/deep/inner.sh").chmod(0o755)
    reg(registry, "add", "tools", "-m", "Add tools")
    out = fetched(reg, registry, "tools", tmp_path / "elsewhere")
    assert (out / "run.sh").stat().st_mode & stat.S_IXUSR
    assert (out / "deep/inner.sh").stat().st_mode & stat.S_IXUSR
    assert not (out / "notes.txt").stat().st_mode & 0o111


def test_executable_bit_of_a_single_file_survives(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"run.sh": "#!/bin/sh\n"})
    (registry / "run.sh").chmod(0o755)
    reg(registry, "add", "run.sh", "-m", "Add a script")
    assert fetched(reg, registry, "run.sh", tmp_path / "elsewhere").stat().st_mode & stat.S_IXUSR


def test_change_of_the_executable_bit_alone_is_a_version(registry: Path, reg: Reg) -> None:
    write(registry, {"tools/run.sh": "#!/bin/sh\n"})
    reg(registry, "add", "tools", "-m", "Add tools")
    before = fields(registry, "tools")["manifest"]
    (registry / "tools/run.sh").chmod(0o755)
    assert "changed" in reg(registry, "status").out
    reg(registry, "add", "tools", "-m", "It runs")
    assert fields(registry, "tools")["manifest"] != before


def test_links_that_stay_inside_are_kept_as_links(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"set/a/real.txt": "real"})
    (registry / "set/link.txt").symlink_to("a/real.txt")
    (registry / "set/a/up.txt").symlink_to("../a/real.txt")
    (registry / "set/folder").symlink_to("a")
    reg(registry, "add", "set", "-m", "Add links")
    out = fetched(reg, registry, "set", tmp_path / "elsewhere")
    assert tree(out) == tree(registry / "set")
    assert os.readlink(out / "folder") == "a"


@pytest.mark.parametrize("target", ["../outside.txt", "/etc/hostname", "a/../../outside.txt"])
def test_link_that_leaves_the_dataset_is_refused_by_name(registry: Path, reg: Reg, target: str) -> None:
    write(registry, {"outside.txt": "secret", "set/a/real.txt": "real"})
    (registry / "set/bad-link").symlink_to(target)
    ran = reg(registry, "add", "set", code=2)
    assert "bad-link" in ran.err
    assert target in ran.err
    assert not metafile(registry, "set").exists()


def test_links_that_leave_the_dataset_together_are_refused_by_name(registry: Path, reg: Reg) -> None:
    write(registry, {"secret.txt": "secret", "set/sub/real.txt": "real"})
    (registry / "set/sub/up").symlink_to("..")
    (registry / "set/chain").symlink_to("sub/up/../secret.txt")  # inside as text, outside on the disk
    assert (registry / "set/chain").read_text() == "secret"
    assert "chain" in reg(registry, "add", "set", code=2).err


def test_dataset_that_is_a_link_is_refused_by_name(registry: Path, reg: Reg) -> None:
    write(registry, {"real/a": "a"})
    (registry / "alias").symlink_to("real")
    for path in ("alias", "alias/"):
        assert "alias" in reg(registry, "add", path, code=2).err
    assert not metafile(registry, "alias").exists()


def test_dataset_that_is_a_broken_link_is_refused_by_name(registry: Path, reg: Reg) -> None:
    (registry / "dangling").symlink_to("nowhere")
    ran = reg(registry, "add", "dangling", code=2)
    assert "dangling" in ran.err
    assert "link" in ran.err


@pytest.mark.parametrize("inside", [False, True])
def test_socket_is_refused_by_name(registry: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch, inside: bool) -> None:
    write(registry, {"set/a": "a"})
    monkeypatch.chdir(registry / "set" if inside else registry)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("ear")  # a short relative path: the limit is 107 bytes
        ran = reg(registry, "add", "set" if inside else "ear", code=2)
    assert "ear" in ran.err
    assert "socket" in ran.err


@pytest.mark.parametrize("inside", [False, True])
def test_named_pipe_is_refused_by_name(registry: Path, reg: Reg, inside: bool) -> None:
    write(registry, {"set/a": "a"})
    os.mkfifo(registry / ("set/hose" if inside else "hose"))
    ran = reg(registry, "add", "set" if inside else "hose", code=2)
    assert "hose" in ran.err
    assert "pipe" in ran.err


def test_device_is_refused_by_name(registry: Path, reg: Reg) -> None:
    try:
        os.mknod(registry / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device")
    ran = reg(registry, "add", "null", code=2)
    assert "null is a device" in ran.err


def test_empty_files_and_empty_directories_survive(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"set/empty.txt": "", "set/deep/er/empty.bin": ""})
    (registry / "set/hollow").mkdir()
    (registry / "set/nested/one/two").mkdir(parents=True)
    reg(registry, "add", "set", "-m", "Add nothing much")
    out = fetched(reg, registry, "set", tmp_path / "elsewhere")
    found = tree(out)
    assert found == tree(registry / "set")
    assert "hollow/" in found
    assert "nested/one/two/" in found


def test_empty_directory_is_a_dataset(registry: Path, tmp_path: Path, reg: Reg) -> None:
    (registry / "hollow").mkdir()
    reg(registry, "add", "hollow", "-m", "Add an empty folder")
    out = fetched(reg, registry, "hollow", tmp_path / "elsewhere")
    assert out.is_dir()
    assert not list(out.iterdir())


def test_empty_file_is_a_dataset(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"empty.bin": b""})
    reg(registry, "add", "empty.bin", "-m", "Add an empty file")
    assert fetched(reg, registry, "empty.bin", tmp_path / "elsewhere").read_bytes() == b""


NAMES = [
    "with space",
    "trailing space ",
    'it\'s "quoted"',
    "#hash",
    "!bang",
    "-dash",
    "--help",
    "line\nbreak",
    "tab\tbed",
    "star*[a-z]?",
    "back\\slash",
    "naïve-データ-🐈",
    unicodedata.normalize("NFD", "décomposé"),
    ".hidden",
    "%20percent",
    "true",
    "0x10",
]


def test_odd_names_inside_a_dataset_survive(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {f"set/{name}": name for name in [*NAMES, "x" * 255, "ü" * 127]})
    reg(registry, "add", "set", "-m", "Add odd names")
    assert tree(fetched(reg, registry, "set", tmp_path / "elsewhere")) == tree(registry / "set")


@pytest.mark.parametrize("name", NAMES)
def test_dataset_with_an_odd_name_travels_and_git_ignores_it(
    registry: Path, tmp_path: Path, reg: Reg, name: str
) -> None:
    write(registry, {f"{name}/file": name, f"{name}-neighbour": "not a dataset", "plain": "not a dataset"})
    reg(registry, "add", "-m", "Add it", "--", name)
    status = git(registry, "-c", "core.quotePath=false", "status", "--porcelain", "-z").split("\0")
    assert sorted(status) == sorted(["", f"?? {name}-neighbour", "?? plain"])
    reg(registry, "push")
    (tmp_path / "elsewhere").mkdir()
    reg(tmp_path / "elsewhere", "get", "-o", "out", "--", registry, name)
    assert (tmp_path / "elsewhere/out/file").read_text() == name


def test_dataset_name_too_long_for_its_metafile_is_refused(registry: Path, reg: Reg) -> None:
    name = "n" * 250  # a name of its own is fine, with .reg.yaml it is none
    write(registry, {name: "x"})
    ran = reg(registry, "add", name, code=2)
    assert "nnnn" in ran.err


def test_name_that_is_not_utf8_is_refused(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    with open(os.fsencode(registry / "set") + b"/caf\xe9", "wb") as file:
        file.write(b"x")
    ran = reg(registry, "add", "set", code=2)
    assert "caf" in ran.err
    assert not metafile(registry, "set").exists()


@pytest.mark.parametrize(
    "names", [("Readme", "README"), (unicodedata.normalize("NFC", "é.csv"), unicodedata.normalize("NFD", "é.csv"))]
)
def test_colliding_names_are_warned_of_and_both_kept(
    registry: Path, tmp_path: Path, reg: Reg, names: tuple[str, str]
) -> None:
    write(registry, {f"set/{name}": f"content {number}" for number, name in enumerate(names)})
    ran = reg(registry, "add", "set", "-m", "Add twins")
    assert "warning:" in ran.err
    assert names[0] in unicodedata.normalize("NFC", ran.err)
    assert tree(fetched(reg, registry, "set", tmp_path / "elsewhere")) == tree(registry / "set")


def test_colliding_folders_are_warned_of(registry: Path, reg: Reg) -> None:
    write(registry, {"set/Cats/1": "1", "set/cats/2": "2"})
    ran = reg(registry, "add", "set")
    assert "warning:" in ran.err
    assert "'Cats'" in ran.err
    assert "'cats'" in ran.err


@pytest.mark.parametrize("name", ["aux.txt", "CON", "what?.csv", "ends."])
def test_names_reserved_elsewhere_are_warned_of(registry: Path, reg: Reg, name: str) -> None:
    write(registry, {f"set/{name}": "x", "set/fine.txt": "x"})
    ran = reg(registry, "add", "set")
    assert f"{name!r} is not a valid name on Windows" in ran.err
    assert "fine.txt" not in ran.err


def test_another_repository_inside_is_refused_by_name(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    git(registry, "init", "-q", "set/vendor")
    assert "vendor/.git" in reg(registry, "add", "set", code=2).err


# --- where a dataset may be ---------------------------------------------------------------------------------------


def test_target_that_git_tracks_is_refused_with_the_command_that_mends_it(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a", "set/b": "b"})
    git(registry, "add", "set/a")
    git(registry, "commit", "-qm", "Track a")
    ran = reg(registry, "add", "set", code=2)
    assert "tracked by Git" in ran.err
    assert "git rm -r --cached set" in ran.err
    git(registry, "rm", "-rq", "--cached", "set")
    reg(registry, "add", "set", "-m", "Add set")
    assert not git(registry, "ls-files", "set/")


def test_target_inside_another_dataset_is_refused_both_named(registry: Path, reg: Reg) -> None:
    write(registry, {"images/cats/1.png": "1"})
    reg(registry, "add", "images", "-m", "Add images")
    ran = reg(registry, "add", "images/cats", code=2)
    assert "images/cats lies inside the dataset images" in ran.err
    assert not metafile(registry, "images/cats").exists()


def test_target_around_another_dataset_is_refused_both_named(registry: Path, reg: Reg) -> None:
    write(registry, {"images/cats/1.png": "1", "images/dogs/2.png": "2"})
    reg(registry, "add", "images/cats", "-m", "Add cats")
    ran = reg(registry, "add", "images", code=2)
    assert "images lies around the dataset images/cats" in ran.err
    assert "git rm" not in ran.err  # would untrack the dataset that is there
    assert not metafile(registry, "images").exists()


def test_overlapping_targets_of_one_command_are_refused_both_named(registry: Path, reg: Reg) -> None:
    write(registry, {"images/cats/1.png": "1"})
    ran = reg(registry, "add", "images", "images/cats", code=2)
    assert "images/cats" in ran.err
    assert not metafile(registry, "images").exists()
    assert not metafile(registry, "images/cats").exists()


def test_target_equal_to_an_import_is_refused(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"table.csv": "a,b\n"})
    reg(registry, "add", "table.csv", "-m", "Add a table")
    reg(registry, "push")
    other = tmp_path / "other"
    reg(tmp_path, "init", other)
    reg(other, "import", registry, "table.csv")
    before = metafile(other, "table.csv").read_bytes()
    ran = reg(other, "add", "table.csv", code=2)
    assert "table.csv is an import" in ran.err
    assert metafile(other, "table.csv").read_bytes() == before


def test_metafile_is_never_added_as_data(registry: Path, reg: Reg) -> None:
    write(registry, {"table.csv": "a,b\n"})
    reg(registry, "add", "table.csv", "-m", "Add a table")
    ran = reg(registry, "add", "table.csv.reg.yaml", code=2)
    assert "metafile" in ran.err
    write(registry, {"set/stray.reg.yaml": "reg: 1\n", "set/a": "a"})
    assert "stray" in reg(registry, "add", "set", code=2).err


@pytest.mark.parametrize(
    ("path", "code"),
    [("nothing-here", 3), ("../outside", 2), (".", 2), (".git/config", 2), (".reg", 2), ("reg.yaml", 2), ("a@b", 2)],
)
def test_target_that_cannot_be_a_dataset_is_refused(
    registry: Path, tmp_path: Path, reg: Reg, path: str, code: int
) -> None:
    write(tmp_path, {"outside": "x"})
    write(registry, {"a@b": "x"})
    before = tracked_state(registry)
    ran = reg(registry, "add", path, code=code)
    assert ran.err.startswith("reg: ")
    assert "hint: " in ran.err
    assert tracked_state(registry) == before


def test_add_where_there_is_no_registry_says_how_to_make_one(consumer: Path, reg: Reg) -> None:
    write(consumer, {"a": "a"})
    assert "reg init" in reg(consumer, "add", "a", code=2).err


def test_paths_count_from_the_working_directory(registry: Path, reg: Reg) -> None:
    write(registry, {"images/cats/1.png": "1"})
    reg(registry / "images", "add", "cats/", "-m", "Add cats")
    assert fields(registry, "images/cats")["files"] == 1


# --- .regignore ---------------------------------------------------------------------------------------------------


def test_regignore_inside_a_dataset_is_honoured(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"set/.regignore": "*.tmp\n/cache/\n!keep.tmp\n"})
    write(registry, {"set/a.txt": "a", "set/b.tmp": "b", "set/keep.tmp": "k", "set/cache/c": "c", "set/d/cache/e": "e"})
    write(registry, {"set/d/.regignore": "*.log\n", "set/d/f.log": "f", "set/g.log": "g"})
    reg(registry, "add", "set", "-m", "Add set")
    found = set(tree(fetched(reg, registry, "set", tmp_path / "elsewhere")))
    assert found - {".regignore", "d/.regignore"} == {"a.txt", "keep.tmp", "d/cache/e", "g.log"}
    assert "nothing changed" in reg(registry, "status").out


def test_regignore_of_the_registry_is_honoured(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {".regignore": "*.tmp\n", "images/.regignore": "thumbs/\n"})
    write(registry, {"images/cats/1.png": "1", "images/cats/x.tmp": "x", "images/cats/thumbs/1.png": "t"})
    reg(registry, "add", "images/cats", "-m", "Add cats")
    assert set(tree(fetched(reg, registry, "images/cats", tmp_path / "elsewhere"))) == {"1.png"}


# --- failures leave nothing ---------------------------------------------------------------------------------------


def test_failed_add_leaves_no_residue(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": b"a" * 5000})
    os.mkfifo(registry / "set/z-pipe")
    before = tracked_state(registry)
    reg(registry, "add", "set", "-m", "Add set", code=2)
    assert tracked_state(registry) == before
    assert objects(registry / ".reg/outbox") == []


def test_failed_target_among_several_leaves_no_residue(registry: Path, reg: Reg) -> None:
    write(registry, {"good/a": b"a" * 5000, "bad/b": "b"})
    os.mkfifo(registry / "bad/pipe")
    before = tracked_state(registry)
    reg(registry, "add", "good", "bad", "-m", "Add both", code=2)
    assert tracked_state(registry) == before
    assert objects(registry / ".reg/outbox") == []


def test_failed_readd_leaves_the_old_metafile(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    before = metafile(registry, "set").read_bytes()
    write(registry, {"set/b": "b"})
    os.mkfifo(registry / "set/pipe")
    reg(registry, "add", "set", "-m", "More", code=2)
    assert metafile(registry, "set").read_bytes() == before
    os.unlink(registry / "set/pipe")
    reg(registry, "add", "set", "-m", "More")
    assert fields(registry, "set")["files"] == 2


def test_add_that_was_killed_leaves_no_metafile_and_completes_when_run_again(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": os.urandom(3 << 20)})
    with open(registry / "set/large", "wb") as file:
        file.truncate(4 << 30)  # no blocks on the disk, and seconds to read
    before = tracked_state(registry)
    child = subprocess.Popen(
        [sys.executable, "-m", "registree", "add", "set", "-m", "Add"],
        cwd=registry,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not list((registry / ".reg/outbox/tmp").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert tracked_state(registry) == before
    os.truncate(registry / "set/large", 0)
    reg(registry, "add", "set", "-m", "Add")
    assert not (registry / ".reg/outbox/tmp").exists()
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_interrupted_add_leaves_no_residue(registry: Path, reg: Reg) -> None:
    with open(registry / "large", "wb") as file:
        file.truncate(4 << 30)
    before = tracked_state(registry)
    child = subprocess.Popen(
        [sys.executable, "-m", "registree", "add", "large", "-m", "Add"],
        cwd=registry,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 20
    while not list((registry / ".reg/outbox/tmp").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=10)
    assert child.returncode == 130
    assert "Traceback" not in said
    assert tracked_state(registry) == before
    assert not (registry / ".reg/outbox/tmp").exists()


def test_file_that_keeps_changing_is_refused_and_leaves_no_residue(registry: Path, reg: Reg) -> None:
    place = registry / "growing"
    with open(place, "wb") as file:
        file.truncate(96 << 20)
    before = tracked_state(registry)
    stop = threading.Event()

    def grow() -> None:
        with open(place, "ab", buffering=0) as file:
            while not stop.is_set():
                file.write(b"x")
                time.sleep(0.001)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        ran = reg(registry, "add", "growing", "-m", "Add", code=7)
    finally:
        stop.set()
        writer.join()
    assert "growing" in ran.err
    assert "chang" in ran.err
    assert tracked_state(registry) == before
    assert packs(registry / ".reg/outbox") == []


def test_file_that_changes_once_while_it_is_read_is_stored_as_it_was_or_as_it_is(registry: Path, reg: Reg) -> None:
    place = registry / "log"
    content = b"\0" * (96 << 20)
    place.write_bytes(b"")
    os.truncate(place, len(content))
    started = threading.Event()

    def append() -> None:
        deadline = time.monotonic() + 20
        while not list((registry / ".reg/outbox/tmp").glob("*")) and time.monotonic() < deadline:
            time.sleep(0.001)
        with open(place, "ab") as file:
            file.write(b"the end")
        started.set()

    writer = threading.Thread(target=append)
    writer.start()
    reg(registry, "add", "log", "-m", "Add")
    writer.join()
    assert started.is_set()
    found = blake3()
    found.update(reg(registry, "cat", "log").raw)
    assert found.digest() in {blake3(content).digest(), blake3(content + b"the end").digest()}


def test_disk_that_takes_no_payload_loses_nothing(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    before = metafile(registry, "set").read_bytes()
    write(registry, {"set/b": os.urandom(300_000)})
    with file_limit(100_000):
        ran = reg(registry, "add", "set", "-m", "More", code=5)
    assert ran.err.startswith("reg: ")
    assert metafile(registry, "set").read_bytes() == before
    assert not (registry / ".reg/outbox/tmp").exists()
    reg(registry, "add", "set", "-m", "More")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_disk_that_takes_no_metafile_loses_nothing(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    place = metafile(registry, "set")
    place.write_text(place.read_text() + "# a long comment\n" * 2000)
    before = tree_without_state(registry)
    write(registry, {"set/b": "b"})
    with file_limit(20_000):
        ran = reg(registry, "add", "set", code=5)
    assert ran.err.startswith("reg: ")
    os.unlink(registry / "set/b")
    assert tree_without_state(registry) == before


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="this system does not tell what is open")
def test_add_that_fails_leaves_nothing_open(registry: Path) -> None:
    """In a notebook a file that is unlinked and open still takes its space."""
    write(registry, {"set/a": "a" * 5000, "set/z": random.Random(1).randbytes(64 << 20)})
    threads = threading.active_count()
    with file_limit(48 << 20), pytest.raises(RegError):
        Registry.open(registry).add("set", message="Add")
    found = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    assert found
    assert [path for path in found if "/outbox/" in path] == []
    assert threading.active_count() <= threads


def test_index_that_another_program_holds_leaves_the_old_metafile(
    registry: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registree.git.repository._LOCK_WAIT", 0.1)
    write(registry, {"set/a": "a"})
    (registry / ".git/index.lock").touch()
    ran = reg(registry, "add", "set", "-m", "Add", code=7)
    assert "index" in ran.err
    assert not metafile(registry, "set").exists()
    os.unlink(registry / ".git/index.lock")
    reg(registry, "add", "set", "-m", "Add")
    assert git(registry, "status", "--porcelain") == ""


def test_broken_metafile_elsewhere_does_not_stop_the_others_and_is_named(registry: Path, reg: Reg) -> None:
    write(registry, {"a/1": "1", "b/2": "2", "broken.reg.yaml": "reg: 1\nmanifest: [\n"})
    reg(registry, "add", "a", "-m", "Add a")
    reg(registry, "add", "b", "-m", "Add b")
    assert "broken" in reg(registry, "status").out
    ran = reg(registry, "push", code=None)
    assert "broken" in ran.out + ran.err
    reg(registry, "verify", "a", "b", "--remote", code=0)


def test_committed_broken_metafile_does_not_stop_the_push_of_others_and_is_named(registry: Path, reg: Reg) -> None:
    write(registry, {"a/1": "1", "broken.reg.yaml": "reg: 1\nmanifest: [\n"})
    git(registry, "add", "broken.reg.yaml")
    git(registry, "commit", "-qm", "A broken metafile")
    reg(registry, "add", "a", "-m", "Add a")
    ran = reg(registry, "push", "a")
    assert packs(embedded_remote(registry))
    assert "broken" in ran.err + reg(registry, "push", code=None).err


# --- what a metafile keeps ----------------------------------------------------------------------------------------


def test_comments_order_and_own_fields_survive_a_rewrite(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    place = metafile(registry, "set")
    lines = place.read_text().splitlines(keepends=True)
    own = "# who to ask: vision-team\n" + "meta: {license: CC-BY-4.0, title: 'A set'}  # agreed in May\n"
    place.write_text("# top\n" + own + "".join(lines) + "reviewed: yes   # twice\n# end\n")
    write(registry, {"set/b": "bb"})
    before = place.read_text().splitlines()
    reg(registry, "add", "set", "-m", "More")
    after = place.read_text().splitlines()
    changed = {line.split(":")[0].strip() for line in set(before) ^ set(after)}
    assert changed <= {"manifest", "files", "size", "."}
    assert after[:3] == before[:3]
    assert after[-2:] == before[-2:]
    assert fields(registry, "set")["files"] == 2


def test_windows_line_ends_of_a_metafile_survive_a_rewrite(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    place = metafile(registry, "set")
    place.write_bytes(b"# note\r\nowner: me\r\n" + place.read_bytes())
    write(registry, {"set/b": "bb"})
    reg(registry, "add", "set", "-m", "More")
    assert place.read_bytes().startswith(b"# note\r\nowner: me\r\n")
    assert fields(registry, "set")["files"] == 2


def test_add_that_changes_nothing_changes_no_byte(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a", "set/b/c": "c"})
    reg(registry, "add", "set", "-m", "Add set")
    place = metafile(registry, "set")
    place.write_text("# mine\n" + place.read_text().replace("files: 2\n", "files:   2  # counted\n"))
    git(registry, "commit", "-qam", "A comment")
    before = tree(registry / ".reg/outbox"), place.stat().st_mtime_ns, place.read_bytes()
    head = git(registry, "rev-parse", "HEAD")
    ran = reg(registry, "add", "set", "-m", "Nothing new")
    assert "unchanged" in ran.out
    assert (tree(registry / ".reg/outbox"), place.stat().st_mtime_ns, place.read_bytes()) == before
    assert git(registry, "rev-parse", "HEAD") == head
    assert git(registry, "status", "--porcelain") == ""


def test_metafile_counts_files_and_bytes_by_folder(registry: Path, reg: Reg) -> None:
    write(registry, {"set/train/a": b"12345", "set/train/b": b"123", "set/test/c": b"1", "set/top": b"12"})
    reg(registry, "add", "set", "-m", "Add set")
    found = fields(registry, "set")
    assert (found["files"], found["size"]) == (4, 11)
    assert found["contents"] == {
        ".": {"files": 1, "size": 2},
        "test": {"files": 1, "size": 1},
        "train": {"files": 2, "size": 8},
    }


def test_same_data_has_the_same_manifest_in_another_registry(registry: Path, tmp_path: Path, reg: Reg) -> None:
    other = tmp_path / "other"
    reg(tmp_path, "init", other)
    for place in (registry, other):
        write(place, {"set/a": b"a" * 2_000_000, "set/b/c": "c"})
        reg(place, "add", "set", "-m", "Add set")
    assert fields(registry, "set") == fields(other, "set")


def test_readding_stores_only_what_is_new(registry: Path, reg: Reg) -> None:
    write(registry, {f"set/{number}": os.urandom(10_000) for number in range(20)})
    reg(registry, "add", "set", "-m", "Add set")
    write(registry, {"set/new": b"n" * 500})
    os.unlink(registry / "set/0")
    row = reg(registry, "add", "set", "-m", "Next", "--json").json["datasets"][0]
    assert row["stored"] == 500
    assert row["files"] == 20


def test_add_again_restores_payload_that_the_outbox_lost(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": b"a" * 5000, "set/large": os.urandom(2_000_000)})
    reg(registry, "add", "set", "-m", "Add set")
    for pack in packs(registry / ".reg/outbox"):
        pack.unlink()
    ran = reg(registry, "push", code=6)
    assert "reg add" in ran.err
    reg(registry, "add", "set")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


# --- what a commit holds ------------------------------------------------------------------------------------------


def test_commit_of_add_holds_only_what_reg_changed(registry: Path, reg: Reg) -> None:
    write(registry, {"notes.txt": "first\n", "gone.txt": "x"})
    git(registry, "add", "notes.txt", "gone.txt")
    git(registry, "commit", "-qm", "Notes")
    write(registry, {"set/a": "a", "notes.txt": "second\n", "new.txt": "new"})
    git(registry, "add", "notes.txt", "new.txt")
    git(registry, "rm", "-q", "--cached", "gone.txt")
    reg(registry, "add", "set", "-m", "Add set")
    assert committed(registry) == [".gitignore", "set.reg.yaml"]
    staged = git(registry, "diff", "--cached", "--name-status").splitlines()
    assert staged == ["D\tgone.txt", "A\tnew.txt", "M\tnotes.txt"]


def test_commit_of_add_leaves_the_users_lines_of_gitignore_out(registry: Path, reg: Reg) -> None:
    start = (registry / ".gitignore").read_text()
    (registry / ".gitignore").write_text(start + "staged-line\n")
    git(registry, "add", ".gitignore")
    (registry / ".gitignore").write_text(start + "staged-line\nunstaged-line\n")
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    assert git(registry, "show", "HEAD:.gitignore") == start + "/set\n"
    assert git(registry, "show", ":.gitignore") == start + "staged-line\n/set\n"
    assert (registry / ".gitignore").read_text() == start + "staged-line\nunstaged-line\n/set\n"


def test_unstaged_edit_of_gitignore_stays_visible_to_git(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    place = registry / ".gitignore"
    place.write_text(place.read_text() + "mine\n")
    os.utime(place, (1_700_000_000, 1_700_000_000))  # old, so that Git trusts the index without reading the file
    write(registry, {"set/b": "b"})
    reg(registry, "add", "set", "-m", "More")
    assert git(registry, "status", "--porcelain") == " M .gitignore\n"


def test_unstaged_edit_of_a_neighbouring_metafile_stays_out_of_the_commit(registry: Path, reg: Reg) -> None:
    write(registry, {"a/1": "1", "b/2": "2"})
    reg(registry, "add", "a", "b", "-m", "Add both")
    place = metafile(registry, "b")
    place.write_text("# mine\n" + place.read_text())
    write(registry, {"a/3": "3"})
    reg(registry, "add", "a", "-m", "More of a")
    assert committed(registry) == ["a.reg.yaml"]
    assert git(registry, "status", "--porcelain") == " M b.reg.yaml\n"


def test_add_without_message_stages_and_commit_takes_what_reg_staged(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a", "notes.txt": "n"})
    head = git(registry, "rev-parse", "HEAD")
    reg(registry, "add", "set")
    git(registry, "add", "notes.txt")
    assert git(registry, "rev-parse", "HEAD") == head
    assert "not committed" in reg(registry, "status").out
    reg(registry, "commit", "-m", "Add set")
    assert committed(registry) == [".gitignore", "set.reg.yaml"]
    assert git(registry, "diff", "--cached", "--name-only").split() == ["notes.txt"]


def test_commit_leaves_the_users_staged_lines_of_gitignore_out(registry: Path, reg: Reg) -> None:
    start = (registry / ".gitignore").read_text()
    (registry / ".gitignore").write_text(start + "mine\n")
    git(registry, "add", ".gitignore")
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set")
    reg(registry, "commit", "-m", "Add set")
    assert git(registry, "show", "HEAD:.gitignore") == start + "/set\n"
    assert "mine" in git(registry, "diff", "--cached", ".gitignore")


def test_commit_takes_no_gitignore_that_the_user_staged(registry: Path, reg: Reg) -> None:
    (registry / ".gitignore").write_text((registry / ".gitignore").read_text() + "mine\n")
    git(registry, "add", ".gitignore")
    head = git(registry, "rev-parse", "HEAD")
    assert "nothing to commit" in reg(registry, "commit", "-m", "Mine", code=2).err
    assert git(registry, "rev-parse", "HEAD") == head


def test_commits_are_what_the_git_command_reads(registry: Path, reg: Reg) -> None:
    write(registry, {"deep/er/set/a": "a"})
    reg(registry, "add", "deep/er/set", "-m", "Add ünïcode ✓\n\nA body.")
    assert git(registry, "log", "-1", "--format=%an <%ae>%n%B").strip() == (
        "Test <test@example.org>\nAdd ünïcode ✓\n\nA body."
    )
    git(registry, "fsck", "--strict")
    assert git(registry, "status", "--porcelain") == ""


# --- --in-place ---------------------------------------------------------------------------------------------------


def test_in_place_keeps_no_copy_and_push_reads_the_files_again(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"set/small": b"s" * 100, "set/large": os.urandom(3_000_000)})
    reg(registry, "add", "--in-place", "set", "-m", "Add set")
    assert sum(path.stat().st_size for path in (registry / ".reg/outbox").rglob("*") if path.is_file()) < 50_000
    assert tree(fetched(reg, registry, "set", tmp_path / "elsewhere")) == tree(registry / "set")
    reg(registry, "verify", "--remote", "--deep")


@pytest.mark.parametrize("how", ["edited", "shorter", "deleted"])
def test_in_place_push_refuses_what_changed_and_sends_nothing_of_it(registry: Path, reg: Reg, how: str) -> None:
    write(registry, {"set/a": b"a" * 1000, "set/b": b"b" * 1000})
    reg(registry, "add", "--in-place", "set", "-m", "Add set")
    if how == "deleted":
        os.unlink(registry / "set/b")
    else:
        write(registry, {"set/b": b"c" * (1000 if how == "edited" else 10)})
    ran = reg(registry, "push", code=6)
    assert "set/b" in ran.err
    assert "reg add" in ran.err
    assert packs(embedded_remote(registry)) == []
    assert not list(embedded_remote(registry).glob("manifests/*/*"))


def test_in_place_dataset_is_not_removed_while_its_files_are_the_only_copy(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": b"a" * 1000})
    reg(registry, "add", "--in-place", "set", "-m", "Add set")
    ran = reg(registry, "remove", "set", code=7)
    assert "set" in ran.err
    assert (registry / "set/a").read_bytes() == b"a" * 1000
    reg(registry, "push")
    reg(registry, "remove", "set")
    assert not (registry / "set").exists()


def test_in_place_dataset_that_was_moved_can_be_pushed(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": b"a" * 1000})
    reg(registry, "add", "--in-place", "set", "-m", "Add set")
    reg(registry, "move", "set", "renamed", "-m", "Rename")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


def test_plain_add_after_in_place_keeps_a_copy_of_its_own(registry: Path, reg: Reg) -> None:
    write(registry, {"one/a": b"a" * 1000, "two/a": b"a" * 1000})
    reg(registry, "add", "--in-place", "one", "-m", "Add one")
    reg(registry, "add", "two", "-m", "Add two")
    write(registry, {"one/a": b"b" * 1000})
    reg(registry, "push", "two")
    assert packs(embedded_remote(registry))


@pytest.mark.parametrize("time_is_seen", [True, False])
def test_in_place_file_that_is_rewritten_while_it_is_added_is_refused(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg, time_is_seen: bool
) -> None:
    """Twice the same zeros: such a file is read a second time for the name of its pack."""
    noise = random.Random(5)
    content = noise.randbytes(9 << 20) + bytes(2 << 20) + noise.randbytes(9 << 20)
    write(registry, {"set/large": content})
    file = registry / "set/large"
    real = Packer._close

    def rewritten(self: Packer, pack: OpenPack, identifier: bytes | None = None) -> None:
        if file.read_bytes() == content:
            before = file.stat()
            with file.open("r+b") as same:
                same.write(b"shifted" + content[:-7])
            if not time_is_seen:
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        real(self, pack, identifier)

    monkeypatch.setattr(Packer, "_close", rewritten)
    assert "set/large" in reg(registry, "add", "--in-place", "set", "-m", "Add set", code=7).err
    assert not (registry / "set.reg.yaml").exists()
    monkeypatch.undo()
    reg(registry, "add", "--in-place", "set", "-m", "Add set")
    reg(registry, "push")
    file.write_bytes(content)
    reg(registry, "add", "--in-place", "set", "-m", "Undo")
    assert fetched(reg, registry, "set", tmp_path / "elsewhere").joinpath("large").read_bytes() == content


@pytest.mark.parametrize("note", ["tmp/publishing", "in-place"])
def test_damaged_note_of_the_outbox_is_said_with_what_to_do(registry: Path, reg: Reg, note: str) -> None:
    write(registry, {"set/a": b"a" * 1000})
    reg(registry, "add", "--in-place", "set", "-m", "Add set")
    path = registry / ".reg/outbox" / note
    if note == "in-place":
        (path,) = (found for found in path.rglob("*") if found.is_file())
    path.parent.mkdir(exist_ok=True)
    path.write_text("[[half")
    write(registry, {"set/b": b"b"})
    ran = reg(registry, "add", "set", "-m", "More", code=None)
    ran = reg(registry, "push", code=6) if not ran.code else ran
    assert ran.code == 6
    assert f"{path} is damaged" in ran.err
    assert "delete it" in ran.err
    path.unlink()
    reg(registry, "add", "set", "-m", "More")
    reg(registry, "push", "--repair")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")


# --- --into and remove NAME:PATH ----------------------------------------------------------------------------------


def test_add_into_a_dataset_that_is_not_on_this_disk(absent: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"new/4.png": b"four" * 500, "new/deep/5.png": b"five" * 500, "extra.csv": "x\n"})
    reg(absent, "add", "--into", "images/cats:train", tmp_path / "new", tmp_path / "extra.csv", "-m", "More")
    found = fields(absent, "images/cats")
    assert (found["files"], found["size"]) == (7, 1500 + 1500 + 2500 + 6 + 2000 + 2000 + 2)
    assert not (absent / "images/cats").exists()
    assert committed(absent) == ["images/cats.reg.yaml"]
    reg(absent, "push", "--no-git")
    reg(absent, "checkout")
    assert {"train/new/4.png", "train/new/deep/5.png", "train/extra.csv", "train/1.png"} <= set(
        tree(absent / "images/cats")
    )


def test_add_into_makes_the_version_that_adding_all_of_it_makes(
    absent: Path, registry: Path, tmp_path: Path, reg: Reg
) -> None:
    write(tmp_path, {"4.png": b"four" * 500})
    write(registry, {"images/cats/train/4.png": b"four" * 500})
    reg(absent, "add", "--into", "images/cats:train", tmp_path / "4.png")
    reg(registry, "add", "images/cats")
    assert fields(absent, "images/cats") == fields(registry, "images/cats")


def test_add_into_needs_no_payload(absent: Path, registry: Path, tmp_path: Path, reg: Reg) -> None:
    for pack in packs(embedded_remote(registry)):
        pack.unlink()
    write(tmp_path, {"4.png": b"four"})
    reg(absent, "add", "--into", "images/cats", tmp_path / "4.png")
    reg(absent, "remove", "images/cats:train/1.png")
    assert fields(absent, "images/cats")["files"] == 4


def test_add_into_replaces_a_file_and_counts_it_once(absent: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"1.png": b"new"})
    ran = reg(absent, "add", "--into", "images/cats:train", tmp_path / "1.png")
    assert "1 modified" in ran.out
    found = fields(absent, "images/cats")
    assert (found["files"], found["size"]) == (4, 3 + 1500 + 2500 + 6)


def test_add_into_what_is_there_already_changes_nothing(absent: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"labels.csv": "1,cat\n"})
    before = metafile(absent, "images/cats").read_bytes()
    reg(absent, "add", "--into", "images/cats", tmp_path / "labels.csv")
    assert metafile(absent, "images/cats").read_bytes() == before
    assert git(absent, "status", "--porcelain") == ""


def test_add_into_a_dataset_on_this_disk_is_refused_with_what_to_do(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    write(tmp_path, {"b": "b"})
    assert "reg add set" in reg(registry, "add", "--into", "set", tmp_path / "b", code=2).err


def test_add_into_a_dataset_that_there_is_not_names_the_nearest(absent: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"b": "b"})
    assert "images/cats" in reg(absent, "add", "--into", "images/cast", tmp_path / "b", code=3).err


@pytest.mark.parametrize(("name", "target"), [("train", "images/cats"), ("x", "images/cats:labels.csv")])
def test_add_into_where_a_file_and_a_folder_would_have_one_name_is_refused(
    absent: Path, tmp_path: Path, reg: Reg, name: str, target: str
) -> None:
    write(tmp_path, {name: "x"})
    before = metafile(absent, "images/cats").read_bytes()
    ran = reg(absent, "add", "--into", target, tmp_path / name, code=7)
    assert "folder" in ran.err
    assert metafile(absent, "images/cats").read_bytes() == before


def test_add_into_a_large_dataset_finds_a_folder_of_the_same_name_in_another_page(
    registry: Path, tmp_path: Path, reg: Reg
) -> None:
    write(registry, {f"set/a-{number:05}": "" for number in range(5000)} | {"set/a/b": "b"})
    reg(registry, "add", "set", "-m", "Add set")
    reg(registry, "push")
    git(tmp_path, "clone", "-q", str(registry), "clone")
    write(tmp_path, {"a": "a file"})
    assert "folder" in reg(tmp_path / "clone", "add", "--into", "set", tmp_path / "a", code=7).err


def test_add_into_refuses_a_metafile_and_a_leaving_link(absent: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"x.reg.yaml": "reg: 1\n", "folder/a": "a"})
    (tmp_path / "folder/out").symlink_to("../../secret")
    assert "metafile" in reg(absent, "add", "--into", "images/cats", tmp_path / "x.reg.yaml", code=2).err
    assert "out" in reg(absent, "add", "--into", "images/cats", tmp_path / "folder", code=2).err
    assert git(absent, "status", "--porcelain") == ""


def test_remove_path_takes_a_file_and_a_folder_out(absent: Path, reg: Reg) -> None:
    ran = reg(absent, "remove", "images/cats:train", "images/cats:labels.csv", "-m", "Less")
    assert "3 removed" in ran.out
    found = fields(absent, "images/cats")
    assert (found["files"], found["size"]) == (1, 2500)
    assert found["contents"] == {"test": {"files": 1, "size": 2500}}
    assert committed(absent) == ["images/cats.reg.yaml"]
    reg(absent, "push", "--no-git")
    reg(absent, "checkout")
    assert tree(absent / "images/cats") == {"test/3.png": b"three" * 500}


def test_remove_path_of_the_last_file_leaves_an_empty_dataset(absent: Path, reg: Reg) -> None:
    paths = [f"images/cats:{path}" for path in ("train", "test", "labels.csv")]
    reg(absent, "remove", *paths)
    assert (fields(absent, "images/cats")["files"], fields(absent, "images/cats")["size"]) == (0, 0)
    reg(absent, "checkout")
    assert (absent / "images/cats").is_dir()


def test_remove_path_that_there_is_not_changes_nothing(absent: Path, reg: Reg) -> None:
    before = metafile(absent, "images/cats").read_bytes()
    ran = reg(absent, "remove", "images/cats:train/1.png", "images/cats:train/9.png", code=3)
    assert "train/9.png" in ran.err
    assert metafile(absent, "images/cats").read_bytes() == before


def test_remove_path_in_a_large_dataset_makes_the_version_that_adding_the_rest_makes(
    registry: Path, tmp_path: Path, reg: Reg
) -> None:
    write(registry, {f"set/{number % 7}/{number:05}": str(number % 50) for number in range(4000)})
    reg(registry, "add", "set", "-m", "Add set")
    reg(registry, "push")
    git(tmp_path, "clone", "-q", str(registry), "clone")
    reg(tmp_path / "clone", "remove", "set:3", "set:5/00005")
    for path in [*(registry / "set/3").iterdir(), registry / "set/5/00005"]:
        path.unlink()
    (registry / "set/3").rmdir()
    reg(registry, "add", "set")
    assert fields(tmp_path / "clone", "set") == fields(registry, "set")


# --- remove -------------------------------------------------------------------------------------------------------


def test_remove_untracks_a_dataset_and_deletes_its_files(registry: Path, reg: Reg) -> None:
    start = (registry / ".gitignore").read_bytes()
    write(registry, {"images/cats/1.png": "1", "images/readme.md": "r"})
    git(registry, "add", "images/readme.md")
    git(registry, "commit", "-qm", "Readme")
    reg(registry, "add", "images/cats", "-m", "Add cats")
    reg(registry, "push")
    reg(registry, "remove", "images/cats", "-m", "Remove cats")
    assert not (registry / "images/cats").exists()
    assert not metafile(registry, "images/cats").exists()
    assert not (registry / "images/.gitignore").exists()
    assert (registry / ".gitignore").read_bytes() == start
    assert (registry / "images/readme.md").exists()
    assert committed(registry) == ["images/.gitignore", "images/cats.reg.yaml"]
    assert git(registry, "status", "--porcelain") == ""


def test_removed_dataset_can_still_be_had_from_an_older_commit(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"set/a": b"a" * 1000})
    reg(registry, "add", "set", "-m", "Add set")
    reg(registry, "push")
    reg(registry, "remove", "set", "-m", "Remove set")
    reg(tmp_path, "get", registry, "set@HEAD~1", "-o", "back")
    assert tree(tmp_path / "back") == {"a": b"a" * 1000}


def test_remove_keep_leaves_the_files(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    reg(registry, "remove", "--keep", "set", "-m", "Untrack set")
    assert tree(registry / "set") == {"a": b"a"}
    assert git(registry, "status", "--porcelain") == "?? set/\n"


@pytest.mark.parametrize("how", ["edited", "added"])
def test_remove_refuses_to_delete_what_no_store_holds(registry: Path, reg: Reg, how: str) -> None:
    write(registry, {"set/a": "a"})
    reg(registry, "add", "set", "-m", "Add set")
    write(registry, {"set/a" if how == "edited" else "set/b": "mine"})
    ran = reg(registry, "remove", "set", code=7)
    assert "--force" in ran.err
    assert b"mine" in tree(registry / "set").values()
    assert metafile(registry, "set").exists()
    reg(registry, "remove", "--force", "set")
    assert not (registry / "set").exists()


def test_remove_refuses_to_delete_files_that_regignore_left_out(registry: Path, reg: Reg) -> None:
    write(registry, {"set/.regignore": "*.tmp\n", "set/a": "a", "set/mine.tmp": "in no store"})
    reg(registry, "add", "set", "-m", "Add set")
    ran = reg(registry, "remove", "set", code=None)
    assert (registry / "set/mine.tmp").read_text() == "in no store", ran.err


def test_remove_of_a_dataset_that_is_not_on_this_disk(absent: Path, reg: Reg) -> None:
    reg(absent, "remove", "images/cats", "-m", "Remove cats")
    assert not metafile(absent, "images/cats").exists()
    assert git(absent, "status", "--porcelain") == ""


def test_remove_of_an_unknown_name_names_the_nearest(absent: Path, reg: Reg) -> None:
    assert "images/cats" in reg(absent, "remove", "images/cast", code=3).err


def test_commit_of_remove_holds_only_what_reg_changed(registry: Path, reg: Reg) -> None:
    write(registry, {"set/a": "a", "notes.txt": "n"})
    reg(registry, "add", "set", "-m", "Add set")
    git(registry, "add", "notes.txt")
    reg(registry, "remove", "set", "-m", "Remove set")
    assert committed(registry) == [".gitignore", "set.reg.yaml"]
    assert git(registry, "status", "--porcelain") == "A  notes.txt\n"


# --- move ---------------------------------------------------------------------------------------------------------


def test_move_renames_files_metafile_and_ignore_line(registry: Path, reg: Reg) -> None:
    write(registry, {"cats/1.png": b"one" * 100})
    reg(registry, "add", "cats", "-m", "Add cats")
    metafile(registry, "cats").write_text("# mine\n" + metafile(registry, "cats").read_text())
    git(registry, "commit", "-qam", "Comment")
    before = fields(registry, "cats")
    inode = (registry / "cats/1.png").stat().st_ino
    reg(registry, "move", "cats", "images/felines", "-m", "Move cats")
    assert fields(registry, "images/felines") == before | {"path": "felines"}
    assert metafile(registry, "images/felines").read_text().startswith("# mine\n")
    assert (registry / "images/felines/1.png").stat().st_ino == inode
    assert not (registry / "cats").exists()
    assert "/cats" not in (registry / ".gitignore").read_text().split()
    changed = git(registry, "show", "--format=", "--name-only", "--no-renames").split()
    assert changed == [".gitignore", "cats.reg.yaml", "images/.gitignore", "images/felines.reg.yaml"]
    assert git(registry, "status", "--porcelain") == ""


def test_moved_dataset_is_clean_and_can_be_fetched(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"cats/1.png": b"one" * 100, "single.csv": "a\n"})
    reg(registry, "add", "cats", "single.csv", "-m", "Add")
    reg(registry, "move", "cats", "felines", "-m", "Move")
    reg(registry, "move", "single.csv", "one.csv", "-m", "Move")
    rows = {row["name"]: row["disk"] for row in reg(registry, "status", "--json").json["datasets"]}
    assert rows == {"felines": "clean", "one.csv": "clean"}
    assert tree(fetched(reg, registry, "felines", tmp_path / "elsewhere")) == {"1.png": b"one" * 100}


def test_move_into_a_folder_keeps_the_name(registry: Path, reg: Reg) -> None:
    write(registry, {"cats/1.png": "1", "images/readme.md": "r"})
    reg(registry, "add", "cats", "-m", "Add cats")
    reg(registry, "move", "cats", "images/", "-m", "Move cats")
    assert (registry / "images/cats/1.png").exists()
    assert metafile(registry, "images/cats").exists()


def test_move_keeps_local_edits(registry: Path, reg: Reg) -> None:
    write(registry, {"cats/1.png": "1"})
    reg(registry, "add", "cats", "-m", "Add cats")
    write(registry, {"cats/1.png": "mine", "cats/2.png": "mine too"})
    reg(registry, "move", "cats", "felines", "-m", "Move")
    assert tree(registry / "felines") == {"1.png": b"mine", "2.png": b"mine too"}
    assert "changed" in reg(registry, "status").out


@pytest.mark.parametrize(
    ("target", "code"),
    [("taken", 7), ("file.txt", 7), ("taken/inner", 7), ("cats/inner", 2), ("../out", 2), (".reg/x", 2)],
)
def test_move_to_where_something_is_or_nothing_may_be_is_refused(
    registry: Path, reg: Reg, target: str, code: int
) -> None:
    write(registry, {"cats/1.png": "1", "taken/2": "2", "file.txt": "f"})
    reg(registry, "add", "cats", "taken", "-m", "Add")
    before = tracked_state(registry)
    reg(registry, "move", "cats", target, code=code)
    assert tracked_state(registry) == before
    assert (registry / "cats/1.png").exists()


def test_move_of_a_dataset_that_is_not_on_this_disk(absent: Path, reg: Reg) -> None:
    reg(absent, "move", "images/cats", "images/felines", "-m", "Move")
    reg(absent, "checkout")
    assert (absent / "images/felines/train/1.png").exists()


def test_commit_of_move_holds_only_what_reg_changed(registry: Path, reg: Reg) -> None:
    write(registry, {"cats/1.png": "1", "notes.txt": "n"})
    reg(registry, "add", "cats", "-m", "Add")
    git(registry, "add", "notes.txt")
    reg(registry, "move", "cats", "felines", "-m", "Move")
    assert "felines.reg.yaml" in committed(registry)
    assert "notes.txt" not in committed(registry)
    assert git(registry, "status", "--porcelain") == "A  notes.txt\n"


def test_disk_that_does_not_share_blocks_just_now_is_written_to(
    registry: Path, tmp_path: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZFS says so of blocks that are not on the disk yet."""

    def refuse(*_: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    content = os.urandom(20 << 20)
    write(registry, {"set/large": content})
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    reg(registry, "add", "set", "-m", "Add")
    monkeypatch.undo()
    reg(registry, "get", registry, "set", "-o", tmp_path / "got")
    assert (tmp_path / "got/large").read_bytes() == content


def test_folder_that_fills_while_it_is_added_is_no_version(
    registry: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty folder sorts elsewhere than one that holds something."""
    (registry / "set/a").mkdir(parents=True)
    write(registry, {"set/a!": "x"})
    is_empty = Scan._is_empty

    def filled(scan: Scan, folder: str) -> bool:
        found = is_empty(scan, folder)
        write(registry, {"set/a/new": "y"})
        return found

    monkeypatch.setattr(Scan, "_is_empty", filled)
    assert "changed each time" in reg(registry, "add", "set", "-m", "Add", code=7).err
    monkeypatch.undo()
    assert git(registry, "log", "-1", "--format=%s").strip() != "Add"
    reg(registry, "add", "set", "-m", "Add")
    assert reg(registry, "files", "set").out.split()[1::2] == ["a!", "a/new"]


def test_file_from_before_the_clocks_of_64_bits_is_added(reg: Reg, home: Path) -> None:
    """Windows counts from 1601; few disks keep such a time."""
    if not os.path.isdir("/dev/shm"):
        pytest.skip("no disk in memory here")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        registry = Path(place) / "registry"
        reg(Path(place), "init", registry, "--remote", Path(place) / "store")
        write(registry, {"set/old": "x"})
        os.utime(registry / "set/old", ns=(-11_644_473_600 * 10**9,) * 2)
        if os.stat(registry / "set/old").st_mtime_ns > -(1 << 63):
            pytest.skip("this disk does not keep such a time")
        time.sleep(0.05)
        reg(registry, "add", "set", "-m", "Add")
        assert "set: not pushed" in reg(registry, "status").out
        assert "not changed" in reg(registry, "add", "set").out or "unchanged" in reg(registry, "add", "set").out
