"""Several remotes, and one that lost something: `verify --remote`, `push --repair`, `mirror`, `remote override`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Reg, git, tree, write

FILES = {f"D/{folder}/{index:04}.txt": f"{folder} {index}" * 50 for folder in "ab" for index in range(700)}


def objects(store: Path, folder: str) -> list[Path]:
    """List the objects of a kind that a directory remote holds, the largest first."""
    found = [path for path in (store / folder).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_size)


def flip(path: Path) -> None:
    """Alter one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.fixture
def hub(registry: Path, tmp_path: Path, reg: Reg) -> Path:
    """A registry with two versions of a dataset on its remote, `tmp_path/one`; the first is tagged D@v1.0.0."""
    reg(registry, "remote", "add", "default", tmp_path / "one", "-m", "One")
    write(registry, {**FILES, "D/large.bin": os.urandom(3 << 20)})
    reg(registry, "add", "D", "-m", "v1")
    git(registry, "tag", "-a", "-m", "v1", "D@v1.0.0")
    reg(registry, "push")
    write(registry, {"D/c/new.txt": "new"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    return registry


@pytest.mark.parametrize("folder", ["packs", "manifests", "maps"])
@pytest.mark.parametrize("cached", [True, False])
def test_what_the_remote_lost_is_named_and_sent_again_from_this_machine(
    hub: Path, tmp_path: Path, home: Path, consumer: Path, reg: Reg, folder: str, cached: bool
) -> None:
    if not cached:
        shutil.rmtree(home / "cache", ignore_errors=True)
        if folder != "packs":
            pytest.skip("without the cache nothing here knows the manifest any more")
    before = {path.relative_to(tmp_path): path.read_bytes() for path in objects(tmp_path / "one", "")}
    gone = objects(tmp_path / "one", folder)[0]
    gone.unlink()
    ran = reg(hub, "verify", "--remote", code=6)
    assert gone.name[:12] in ran.out
    assert "reg push --repair" in ran.err
    assert any(ref in ran.out for ref in ("D@main", "D@D@v1.0.0"))
    reg(hub, "push", "--repair")
    reg(hub, "verify", "--remote", "--deep")
    assert gone.read_bytes() == before[gone.relative_to(tmp_path)]
    shutil.rmtree(home / "cache", ignore_errors=True)
    reg(consumer, "get", hub, "D@v1.0.0")


def test_damage_is_found_by_a_deep_look_alone_and_mended(hub: Path, tmp_path: Path, reg: Reg) -> None:
    flip(objects(tmp_path / "one", "packs")[0])
    reg(hub, "verify", "--remote")
    ran = reg(hub, "verify", "--remote", "--deep", code=6)
    assert "reg push --repair --deep" in ran.err
    reg(hub, "push", "--repair")
    reg(hub, "verify", "--remote", "--deep", code=6)
    answer = reg(hub, "push", "--repair", "--deep", "--json").json
    assert answer["packs"] == 1
    assert answer["lost"] == []
    reg(hub, "verify", "--remote", "--deep")


def test_what_nobody_has_is_named_as_lost_and_the_rest_is_mended(
    hub: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    shutil.rmtree(home / "cache", ignore_errors=True)
    (hub / "D/large.bin").unlink()
    for path in objects(tmp_path / "one", "packs"):
        path.unlink()
    ran = reg(hub, "push", "--repair", code=6)
    assert "lost" in ran.out
    reg(hub, "verify", "--remote", code=6)


def test_repair_takes_from_another_remote(hub: Path, tmp_path: Path, home: Path, reg: Reg) -> None:
    reg(hub, "remote", "add", "second", tmp_path / "two", "-m", "Two")
    reg(hub, "mirror", "default", "second")
    shutil.rmtree(home / "cache", ignore_errors=True)
    shutil.rmtree(hub / "D")
    for path in objects(tmp_path / "one", "packs"):
        path.unlink()
    reg(hub, "verify", "--remote", code=6)
    reg(hub, "push", "--repair")
    reg(hub, "verify", "--remote", "--deep")


def test_only_the_named_version_is_verified(hub: Path, tmp_path: Path, reg: Reg) -> None:
    assert reg(hub, "verify", "--remote", "--json").json["versions"] == 2
    answer = reg(hub, "verify", "--remote", "D@v1.0.0", "--json").json
    assert answer["versions"] == 1
    assert answer["files"] == len(FILES) + 1
    assert reg(hub, "verify", "--remote", "D", "--json").json["versions"] == 2
    reg(hub, "verify", "--remote", "D@v9.0.0", code=3)
    reg(hub, "verify", "D@v1.0.0", code=2)


def test_mirror_copies_what_the_other_lacks_and_no_more(
    hub: Path, tmp_path: Path, home: Path, consumer: Path, reg: Reg
) -> None:
    reg(hub, "remote", "add", "second", tmp_path / "two", "-m", "Two")
    shutil.rmtree(hub / "D")
    plan = reg(hub, "mirror", "default", "second", "--dry-run", "--json").json
    assert plan["versions"] == 2
    assert not (tmp_path / "two").exists()
    done = reg(hub, "mirror", "default", "second", "--json").json
    assert (done["packs"], done["size"]) == (plan["packs"], plan["size"])
    for folder in ("packs", "manifests", "maps", "chunks"):
        assert tree(tmp_path / "two" / folder) == tree(tmp_path / "one" / folder)
    assert "lacks nothing" in reg(hub, "mirror", "default", "second").out
    reg(hub, "verify", "--of", "second", "--deep")
    shutil.rmtree(tmp_path / "one")
    shutil.rmtree(home / "cache", ignore_errors=True)
    reg(consumer, "import", hub, "D@v1.0.0")
    assert (consumer / "D/a/0001.txt").read_text() == FILES["D/a/0001.txt"]


def test_mirror_of_a_remote_that_lost_something_says_so_and_copies_the_rest(
    hub: Path, tmp_path: Path, reg: Reg
) -> None:
    reg(hub, "remote", "add", "second", tmp_path / "two", "-m", "Two")
    objects(tmp_path / "one", "manifests")[0].unlink()
    ran = reg(hub, "mirror", "default", "second", code=6)
    assert "missing" in ran.out
    assert len(objects(tmp_path / "two", "manifests")) == 1
    reg(hub, "mirror", "default", "default", code=2)
    reg(hub, "mirror", "default", "third", code=3)


@pytest.mark.parametrize("damage", ["gone", "truncated", "flipped"])
def test_reading_falls_back_to_the_next_remote(
    hub: Path, tmp_path: Path, home: Path, consumer: Path, reg: Reg, damage: str
) -> None:
    reg(hub, "remote", "add", "second", tmp_path / "two", "-m", "Two")
    reg(hub, "mirror", "default", "second")
    shutil.rmtree(home / "cache", ignore_errors=True)
    for path in objects(tmp_path / "one", "packs"):
        if damage == "gone":
            path.unlink()
        elif damage == "truncated":
            os.truncate(path, path.stat().st_size // 2)
        else:
            flip(path)
    reg(consumer, "import", hub, "D")
    assert tree(consumer / "D") == tree(hub / "D")


def test_overridden_remote_is_read_in_place_of_the_registry_s_own(
    hub: Path, tmp_path: Path, home: Path, consumer: Path, reg: Reg
) -> None:
    os.rename(tmp_path / "one", tmp_path / "near")
    shutil.rmtree(home / "cache", ignore_errors=True)
    reg(consumer, "import", hub, "D", code=6)
    reg(consumer, "remote", "override", tmp_path / "one", tmp_path / "near")
    before = git(hub, "status", "--porcelain")
    reg(consumer, "import", hub, "D", "-m", "Import D")
    assert tree(consumer / "D") == tree(hub / "D")
    assert git(hub, "status", "--porcelain") == before
    assert "near" not in git(consumer, "show")
    shutil.rmtree(home / "cache", ignore_errors=True)
    shutil.rmtree(consumer / "D")
    reg(consumer, "sync")
    assert tree(consumer / "D") == tree(hub / "D")
    reg(consumer, "remote", "override", tmp_path / "one", "--unset")
    reg(consumer, "remote", "override", tmp_path / "one", "--unset", code=3)
    reg(consumer, "remote", "override", tmp_path / "one", code=2)


def test_auth_status_names_sources_and_no_secret(
    registry: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(registry, "remote", "add", "origin", "https://git.example.org/acme/data.git")
    git(registry, "remote", "add", "other", "git@ssh.example.org:acme/data.git")
    reg(registry, "remote", "add", "web", "https://data.example.org/acme", "-m", "Web")
    (home / ".netrc").write_text("machine git.example.org login eve password hunter2\n")
    (home / ".netrc").chmod(0o600)
    monkeypatch.setenv("REG_TOKEN_DATA_EXAMPLE_ORG", "hunter3")
    ran = reg(registry, "auth", "status")
    assert "hunter" not in ran.out + ran.err
    rows = {row["place"]: row for row in reg(registry, "auth", "status", "--json").json["hosts"]}
    assert rows["git.example.org"]["source"].endswith(".netrc")
    assert rows["git.example.org"]["user"] == "eve"
    assert rows["https://data.example.org/acme"]["source"] == "REG_TOKEN_DATA_EXAMPLE_ORG"
    assert "ssh" in rows["git@ssh.example.org"]["source"]
    monkeypatch.setenv("REG_TOKEN_GIT_EXAMPLE_ORG", "hunter4")
    rows = {row["place"]: row for row in reg(registry, "auth", "status", "--json").json["hosts"]}
    assert rows["git.example.org"]["source"] == "REG_TOKEN_GIT_EXAMPLE_ORG"


def test_json_ends_with_what_was_moved(hub: Path, consumer: Path, reg: Reg) -> None:
    answer = reg(consumer, "import", hub, "D", "--json").json
    assert list(answer)[-1] == "transfer"
    moved = answer["transfer"]
    assert moved["files"] == len(FILES) + 2
    assert moved["bytes"] == sum(path.stat().st_size for path in (hub / "D").rglob("*") if path.is_file())
    assert (moved["requests"], moved["retries"]) == (0, 0)  # of stores behind a network
    assert 0 < moved["seconds"] < 60
    write(hub, {"D/more.txt": "more"})
    reg(hub, "add", "D", "-m", "v3")
    moved = reg(hub, "push", "--json").json["transfer"]
    assert moved["files"] == len(FILES) + 3
    assert moved["bytes"] > 4


def test_dry_run_of_a_repair_sends_nothing(hub: Path, tmp_path: Path, reg: Reg) -> None:
    objects(tmp_path / "one", "packs")[0].unlink()
    before = tree(tmp_path / "one")
    planned = reg(hub, "push", "--repair", "--dry-run", "--json").json
    assert planned["dry_run"]
    assert planned["packs"] == 1
    assert tree(tmp_path / "one") == before
    assert reg(hub, "push", "--repair", "--json").json["packs"] == 1


@pytest.mark.parametrize("command", ["push", "push --repair", "verify --remote"])
def test_registry_without_a_remote_is_one_sentence(hub: Path, reg: Reg, command: str) -> None:
    reg(hub, "remote", "remove", "default", "-m", "None")
    ran = reg(hub, *command.split(), code=2)
    assert "has no remote" in ran.err
    assert "hint: reg remote add" in ran.err


@pytest.mark.parametrize("command", ["add E -m x", "add E", "status", "list", "show D"])
def test_what_asks_no_bucket_needs_neither_its_package_nor_its_profile(hub: Path, command: str) -> None:
    (hub / "reg.yaml").write_text("reg: 1\nremotes:\n  default: {url: s3://nowhere/data, profile: nobody}\n")
    git(hub, "commit", "-q", "-am", "A bucket")
    write(hub, {"E/b/0001.txt": "new"})
    code = (
        "import sys; from registree.cli.app import run; code = run(sys.argv[1:])\n"
        "loaded = {'s3fs', 'obstore', 'botocore', 'aiobotocore', 'boto3'} & set(sys.modules)\n"
        "print(sorted(loaded), file=sys.stderr); sys.exit(bool(loaded))"
    )
    arguments = command.split()
    ran = subprocess.run([sys.executable, "-c", code, *arguments], cwd=hub, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "nobody" not in ran.stderr


def test_folder_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"rmdir {gone}; {sys.executable} -m registree status"
    done = subprocess.run(["sh", "-c", script], cwd=gone, capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr == ("reg: No such file or directory\nhint: is the folder still there that reg was started in?\n")


def test_override_is_for_reading_and_what_is_pushed_goes_to_the_remote_itself(
    hub: Path, tmp_path: Path, home: Path, consumer: Path, reg: Reg
) -> None:
    shutil.copytree(tmp_path / "one", tmp_path / "near")
    reg(hub, "remote", "override", "default", tmp_path / "near")
    near = {path.relative_to(tmp_path) for path in objects(tmp_path / "near", "")}
    write(hub, {"D/more": "more"})
    reg(hub, "add", "D", "-m", "v3")
    assert str(tmp_path / "one") in reg(hub, "push").out
    assert {path.relative_to(tmp_path) for path in objects(tmp_path / "near", "")} == near
    reg(hub, "verify", "--remote", "--deep")
    shutil.rmtree(tmp_path / "near")
    shutil.rmtree(home / "cache")
    reg(consumer, "import", hub, "D")
    assert tree(consumer / "D") == tree(hub / "D")
    objects(tmp_path / "one", "packs")[0].unlink()
    reg(hub, "verify", "--remote", code=6)


def test_every_reader_of_a_remote_goes_where_this_machine_finds_it(
    hub: Path, tmp_path: Path, home: Path, consumer: Path, reg: Reg
) -> None:
    reg(consumer, "import", hub, "D", "-m", "Import")
    os.rename(tmp_path / "one", tmp_path / "near")
    shutil.rmtree(home / "cache")
    shutil.rmtree(consumer / "D")
    reg(tmp_path, "cat", "D:c/new.txt", "--registry", hub, code=6)
    reg(consumer, "config", "--user", f"remote.{tmp_path / 'one'}", tmp_path / "near")
    assert reg(tmp_path, "cat", "D:c/new.txt", "--registry", hub).out == "new"
    shutil.rmtree(home / "cache")
    (tmp_path / "second").mkdir()
    git(tmp_path / "second", "init", "-q")
    reg(tmp_path / "second", "import", consumer, "D")  # of an import: the original's remote
    assert tree(tmp_path / "second/D") == tree(hub / "D")
    os.rename(hub, tmp_path / "vanished")
    shutil.rmtree(home / "cache")
    reg(consumer, "sync")
    assert tree(consumer / "D") == tree(tmp_path / "vanished/D")


def test_pack_that_the_remote_lost_is_stored_again_by_what_push_says(
    registry: Path, tmp_path: Path, consumer: Path, reg: Reg
) -> None:
    reg(registry, "remote", "add", "default", tmp_path / "one", "-m", "One")
    write(registry, {"D/a": b"a" * 5000, "D/b": b"b" * 5000, "E/e": "e"})
    reg(registry, "add", "D", "E", "-m", "v1")
    reg(registry, "push")
    for pack in objects(tmp_path / "one", "packs"):
        pack.unlink()
    (registry / "D/b").unlink()
    write(registry, {"D/c": b"c" * 5000, "E/f": "f"})
    reg(registry, "add", "E", "D", "-m", "v2")
    before = objects(tmp_path / "one", "")
    for dry_run in (["--dry-run"], []):
        assert "reg add" in reg(registry, "push", *dry_run, code=6).err
        assert objects(tmp_path / "one", "") == before
    reg(registry, "add", "D", "E")
    reg(registry, "push")
    reg(consumer, "import", registry, "D")
    assert tree(consumer / "D") == tree(registry / "D")


def test_dataset_of_one_page_is_added_again_in_other_places(registry: Path, consumer: Path, reg: Reg) -> None:
    write(registry, {"A/f": b"f" * 5000, "B/f": b"f" * 5000, "B/g": b"g" * 5000})
    reg(registry, "add", "--in-place", "A", "-m", "A")
    reg(registry, "add", "B", "-m", "B")
    reg(registry, "add", "A")
    write(registry, {"A/f": b"changed" * 1000})
    reg(registry, "add", "A", "-m", "A again")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep", "A@HEAD~2", "A", "B")


def test_checkout_keeps_files_whose_stored_bytes_are_lost(registry: Path, reg: Reg) -> None:
    write(registry, {"D/a": "one"})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    write(registry, {"D/a": "two"})
    reg(registry, "add", "D", "-m", "v2")
    for pack in objects(registry / ".reg/outbox", "packs"):
        pack.unlink()
    reg(registry, "checkout", "D", "--rev", "HEAD~1", code=7)
    assert (registry / "D/a").read_text() == "two"
    reg(registry, "add", "D")
    reg(registry, "checkout", "D", "--rev", "HEAD~1")
    assert (registry / "D/a").read_text() == "one"
    reg(registry, "checkout", "D", "--rev", "HEAD")
    assert (registry / "D/a").read_text() == "two"


@pytest.mark.parametrize("verb", ["update", "pull", "checkout"])
def test_version_that_lost_its_pages_stops_nobody_who_goes_on_to_a_whole_one(
    registry: Path, tmp_path: Path, consumer: Path, home: Path, reg: Reg, verb: str
) -> None:
    reg(registry, "remote", "add", "default", tmp_path / "one", "-m", "One")
    git(tmp_path, "init", "-q", "--bare", "upstream.git")
    git(registry, "remote", "add", "origin", str(tmp_path / "upstream.git"))
    git(registry, "push", "-qu", "origin", "main")
    write(registry, {f"D/{index:05}": str(index) for index in range(6000)})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    pages = objects(tmp_path / "one", "packs")
    elsewhere = tmp_path / "elsewhere"
    git(tmp_path, "clone", "-q", "upstream.git", str(elsewhere))
    reg(elsewhere, "checkout", "D")
    reg(consumer, "import", registry, "D", "-m", "Import")
    write(registry, {f"D/{index:05}": f"new {index}" for index in range(0, 6000, 2)})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    shutil.rmtree(home / "cache")
    for pack in pages:
        pack.unlink()
    write(registry, {f"D/{index:05}": f"new {index}" for index in range(6000)})
    reg(registry, "add", "D", "-m", "v3")
    reg(registry, "push")
    if verb == "checkout":
        git(elsewhere, "pull", "-q")
    place, command = (consumer, ["update"]) if verb == "update" else (elsewhere, [verb, "D"])
    reg(place, *command, code=7)  # nobody knows which files were edited
    reg(place, *command, "--force")
    assert tree(place / "D") == tree(registry / "D")
