"""Getting and importing: what may be named, where it goes, and what holds when registries and remotes go astray."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from blake3 import blake3

from registree.store import gathering
from registree.store.base import PIECE
from registree.store.cache import Cache
from registree.store.payload import LargeFile
from tests.conftest import Reg, file_limit, git, tree, write
from tests.servers.git_servers import git_daemon, git_http
from tests.servers.published import Published, one_sentence, publish

ONE, TWO, THREE = b"one" * 3000, b"two" * 3000, b"three" * 3000
CATS: dict[str, bytes | str] = {"train/1.png": ONE, "train/2.png": TWO, "test/3.png": THREE}
KINDS = ["path", "file", "url"]
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 12\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("served")
    with git_daemon(folder) as url:
        yield folder, url


Make = Callable[..., Published]


@pytest.fixture
def make(tmp_path: Path, reg: Reg, daemon: tuple[Path, str]) -> Make:
    def made(kind: str = "path", name: str = "acme") -> Published:
        folder = tmp_path / f"{tmp_path.name}-{name}"
        folder.mkdir()
        return publish(folder, reg, kind=kind, served=daemon[0] if kind == "url" else None, base_url=daemon[1])

    return made


Shared = Callable[[str], Published]


@pytest.fixture(scope="module")
def kept() -> dict[str, Published]:
    return {}


@pytest.fixture
def shared(
    kept: dict[str, Published], tmp_path_factory: pytest.TempPathFactory, reg: Reg, daemon: tuple[Path, str]
) -> Shared:
    """One registry for all the tests that only read; named as a path, a file URL or a served URL."""
    if not kept:
        acme = publish(tmp_path_factory.mktemp("shared"), reg, kind="url", served=daemon[0], base_url=daemon[1])
        acme.add("tables/prices.csv", {"": "a,b\n1,2\n"})
        acme.add("images/labels.csv", {"": "1,cat\n"}, tag="release-1")
        acme.add("images/cats", CATS, tag="images/cats@v1.2.0")
        (acme.root / "docs").mkdir()
        (acme.root / "docs/index.md").symlink_to("guide.md")
        write(acme.root, {"docs/bin/run": "#!/bin/sh\n"})
        (acme.root / "docs/bin/run").chmod(0o755)
        git(acme.root, "add", "docs")
        files: dict[str, bytes | str] = {
            "docs/guide.md": "# Guide\n",
            "ignores/Python.gitignore": "*.pyc\n",
            "images/notes/README.md": "Notes\n",
            "weights/model.bin": LFS,
            "weights/README": "weights\n",
        }
        acme.commit(files)
        kept["acme"] = acme
    return lambda kind: replace(kept["acme"], kind=kind, reg=reg)


@pytest.fixture
def cats(make: Make) -> Published:
    made = make()
    made.add("images/cats", CATS)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    place = tmp_path / "elsewhere"
    place.mkdir()
    return place


def there(consumer: Path) -> dict[str, bytes]:
    """What lies in a consumer, without Git's and reg's own folders."""
    return {path: content for path, content in tree(consumer).items() if not path.startswith((".git/", ".reg/"))}


def untouched(consumer: Path) -> None:
    """Fail when anything was left in a consumer that was empty."""
    assert there(consumer) == {}
    assert git(consumer, "status", "--porcelain") == ""


def git_error(cwd: Path, *args: str) -> str:
    done = subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode
    return done.stderr.lower()


def fresh_cache(home: Path) -> None:
    shutil.rmtree(home / "cache", ignore_errors=True)


def paths_of(files: dict[str, bytes | str]) -> dict[str, bytes]:
    return {path: content.encode() if isinstance(content, str) else content for path, content in files.items()}


# --- what may be named ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_directory_dataset_comes_whole(shared: Shared, consumer: Path, reg: Reg, kind: str, verb: str) -> None:
    acme = shared(kind)
    reg(consumer, verb, acme.url, "images/cats")
    assert tree(consumer / "cats") == paths_of(CATS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_file_dataset_comes_as_a_file(shared: Shared, consumer: Path, reg: Reg, kind: str, verb: str) -> None:
    acme = shared(kind)
    reg(consumer, verb, acme.url, "tables/prices.csv")
    assert (consumer / "prices.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize("verb", ["get", "import"])
def test_trailing_slash_means_the_same(shared: Shared, consumer: Path, reg: Reg, verb: str) -> None:
    reg(consumer, verb, shared("path").url, "images/cats/")
    assert tree(consumer / "cats") == paths_of(CATS)


@pytest.mark.parametrize("verb", ["get", "import"])
def test_metafile_may_be_named_in_place_of_its_dataset(shared: Shared, consumer: Path, reg: Reg, verb: str) -> None:
    reg(consumer, verb, shared("path").url, "images/cats.reg.yaml")
    assert tree(consumer / "cats") == paths_of(CATS)


@pytest.mark.parametrize("target", ["images/cats:train/1.png", "images/cats/train/1.png"])
@pytest.mark.parametrize("verb", ["get", "import"])
def test_file_inside_a_dataset_comes_alone(shared: Shared, consumer: Path, reg: Reg, verb: str, target: str) -> None:
    reg(consumer, verb, shared("path").url, target)
    assert (consumer / "1.png").read_bytes() == ONE
    assert not (consumer / "cats").exists()


@pytest.mark.parametrize(
    "target", ["images/cats:train", "images/cats:train/", "images/cats/train", "images/cats/train/"]
)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_directory_inside_a_dataset_comes_alone(
    shared: Shared, consumer: Path, reg: Reg, verb: str, target: str
) -> None:
    reg(consumer, verb, shared("path").url, target)
    assert tree(consumer / "train") == {"1.png": ONE, "2.png": TWO}


def test_part_of_a_dataset_that_is_not_there_is_not_found(shared: Shared, consumer: Path, reg: Reg) -> None:
    for verb in ("get", "import"):
        ran = reg(consumer, verb, shared("path").url, "images/cats:trian", code=3)
        assert "trian" in one_sentence(ran.err)
    untouched(consumer)


def test_include_and_exclude_choose_files(shared: Shared, consumer: Path, reg: Reg) -> None:
    reg(consumer, "import", shared("path").url, "images/cats", "--include", "train/*", "--exclude", "2.png")
    assert tree(consumer / "cats") == {"train/1.png": ONE}
    reg(consumer, "sync", "--check")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_file_that_only_git_tracks_comes(shared: Shared, consumer: Path, reg: Reg, kind: str, verb: str) -> None:
    acme = shared(kind)
    reg(consumer, verb, acme.url, "docs/guide.md")
    assert (consumer / "guide.md").read_text() == "# Guide\n"


@pytest.mark.parametrize("target", ["docs", "docs/"])
@pytest.mark.parametrize("verb", ["get", "import"])
def test_directory_that_only_git_tracks_comes_with_links_and_modes(
    shared: Shared, consumer: Path, reg: Reg, verb: str, target: str
) -> None:
    acme = shared("url")
    reg(consumer, verb, acme.url, target)
    assert tree(consumer / "docs") == {
        "guide.md": b"# Guide\n",
        "bin/run": b"#!/bin/sh\n",
        "index.md": b"-> guide.md",
    }
    assert os.access(consumer / "docs/bin/run", os.X_OK)
    assert not (consumer / "docs/guide.md").stat().st_mode & 0o111


@pytest.mark.parametrize("verb", ["get", "import"])
def test_file_whose_name_ends_in_gitignore_is_data(shared: Shared, consumer: Path, reg: Reg, verb: str) -> None:
    acme = shared("path")
    reg(consumer, verb, acme.url, "ignores")
    assert tree(consumer / "ignores") == {"Python.gitignore": b"*.pyc\n"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_directory_that_mixes_git_and_datasets_comes_whole(
    shared: Shared, consumer: Path, reg: Reg, kind: str, verb: str
) -> None:
    acme = shared(kind)
    reg(consumer, verb, acme.url, "images")
    assert tree(consumer / "images") == {
        **{f"cats/{path}": content for path, content in paths_of(CATS).items()},
        "labels.csv": b"1,cat\n",
        "notes/README.md": b"Notes\n",
    }
    if verb == "import":
        shutil.rmtree(consumer / "images")
        reg(consumer, "sync")
        assert (consumer / "images/cats/train/1.png").read_bytes() == ONE


@pytest.mark.parametrize("verb", ["get", "import"])
def test_repository_that_is_no_registry_can_be_read(
    tmp_path: Path, daemon: tuple[Path, str], consumer: Path, reg: Reg, verb: str
) -> None:
    plain = daemon[0] / f"{tmp_path.name}-plain"
    plain.mkdir()
    git(plain, "init", "-q")
    write(plain, {"src/main.c": "int main;\n", "top.txt": "top\n"})
    git(plain, "add", ".")
    git(plain, "commit", "-q", "-m", "First")
    for at, url in enumerate((plain, f"{daemon[1]}/{plain.name}")):
        reg(consumer, verb, url, "src", "-o", f"src{at}")
        reg(consumer, verb, url, "top.txt", "-o", f"top{at}.txt")
        assert tree(consumer / f"src{at}") == {"main.c": b"int main;\n"}
        assert (consumer / f"top{at}.txt").read_text() == "top\n"


def test_modes_links_empty_folders_and_odd_names_survive(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make("url")
    write(acme.root, {"set/run": "#!/bin/sh\n", "set/ä ö/#1 'x'.txt": "odd\n", "set/empty.txt": ""})
    (acme.root / "set/run").chmod(0o755)
    (acme.root / "set/link").symlink_to("run")
    (acme.root / "set/nothing/inside").mkdir(parents=True)
    acme.add("set", {})
    reg(consumer, "import", acme.url, "set")
    assert tree(consumer / "set") == tree(acme.root / "set")
    assert os.access(consumer / "set/run", os.X_OK)


# --- revisions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "url"])
def test_no_revision_means_the_default_branch_whatever_its_name(
    make: Make, consumer: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    acme.add("prices", {"": "main\n"})
    git(acme.root, "checkout", "-q", "-b", "trunk")
    acme.add("prices", {"": "trunk\n"})
    acme.set_default("trunk")
    reg(consumer, "import", acme.url, "prices")
    assert (consumer / "prices").read_text() == "trunk\n"
    acme.add("prices", {"": "trunk again\n"})
    reg(consumer, "update")
    assert (consumer / "prices").read_text() == "trunk again\n"


def test_default_branch_that_changed_is_followed(make: Make, elsewhere: Path, reg: Reg) -> None:
    acme = make("url")
    acme.add("prices", {"": "main\n"})
    reg(elsewhere, "get", acme.url, "prices", "-o", "before")
    git(acme.root, "checkout", "-q", "-b", "trunk")
    acme.add("prices", {"": "trunk\n"})
    acme.set_default("trunk")
    reg(elsewhere, "get", acme.url, "prices", "-o", "after")
    assert [(elsewhere / name).read_text() for name in ("before", "after")] == ["main\n", "trunk\n"]


@pytest.mark.parametrize("kind", ["path", "url"])
def test_branches_tags_commits_and_steps_are_revisions(make: Make, consumer: Path, reg: Reg, kind: str) -> None:
    acme = make(kind)
    first = acme.add("prices", {"": "first\n"})
    git(acme.root, "tag", "light")
    acme.add("prices", {"": "second\n"}, tag="annotated")
    acme.add("prices", {"": "third\n"}, tag="prices@v1.2.0")
    git(acme.root, "checkout", "-q", "-b", "topic/dev")
    acme.add("prices", {"": "dev\n"})
    git(acme.root, "checkout", "-q", "main")
    wanted = {
        "light": "first\n",
        "annotated": "second\n",
        "topic/dev": "dev\n",
        "main": "third\n",
        first: "first\n",
        first[:8]: "first\n",
        "HEAD~1": "second\n",
        "main~2": "first\n",
        "1.2.0": "third\n",
        "^1.0": "third\n",
        "latest": "third\n",
        "prices@v1.2.0": "third\n",
    }
    for at, (revision, content) in enumerate(wanted.items()):
        reg(consumer, "import", acme.url, "prices", "--rev", revision, "-o", f"got{at}")
        assert (consumer / f"got{at}").read_text() == content, revision
    reg(consumer, "get", acme.url, f"prices@{first[:8]}", "-o", "typed")
    assert (consumer / "typed").read_text() == "first\n"


@pytest.mark.parametrize("kind", ["path", "url"])
def test_registry_that_became_one_only_at_the_asked_revision(
    tmp_path: Path, daemon: tuple[Path, str], consumer: Path, reg: Reg, kind: str
) -> None:
    root, bare = tmp_path / "late", daemon[0] / f"{tmp_path.name}-late.git"
    root.mkdir()
    git(root, "init", "-q")
    write(root, {"README": "no registry\n"})
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "First")
    git(root, "checkout", "-q", "-b", "data")
    reg(root, "init", "--remote", tmp_path / "remote")
    write(root, {"prices": "1\n"})
    reg(root, "add", "prices", "-m", "Add prices")
    reg(root, "push", "--no-git")
    git(root, "checkout", "-q", "main")
    git(root, "clone", "-q", "--bare", str(root), str(bare))
    url = {"path": str(root), "file": f"file://{bare}", "url": f"{daemon[1]}/{bare.name}"}[kind]
    reg(consumer, "import", url, "prices", code=3)
    reg(consumer, "import", url, "prices", "--rev", "data")
    assert (consumer / "prices").read_text() == "1\n"
    reg(consumer, "sync", "--check")


@pytest.mark.parametrize("kind", ["path", "url"])
def test_name_that_is_branch_and_tag_means_the_tag_and_says_so(make: Make, consumer: Path, reg: Reg, kind: str) -> None:
    acme = make(kind)
    acme.add("prices", {"": "tag\n"})
    git(acme.root, "tag", "stable")
    acme.add("prices", {"": "branch\n"})
    git(acme.root, "branch", "stable")
    acme.send()
    for verb in ("get", "import"):
        ran = reg(consumer, verb, acme.url, "prices", "--rev", "stable", "-o", verb)
        assert (consumer / verb).read_text() == "tag\n"
        assert "branch and a tag" in ran.err


def test_two_revisions_that_differ_are_refused(shared: Shared, consumer: Path, reg: Reg) -> None:
    ran = reg(consumer, "import", shared("path").url, "images/cats@main", "--rev", "v1", code=2)
    assert "main" in one_sentence(ran.err)
    assert "v1" in one_sentence(ran.err)


# --- where it goes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["get", "import"])
def test_out_that_is_a_directory_takes_it_inside(shared: Shared, consumer: Path, reg: Reg, verb: str) -> None:
    (consumer / "data").mkdir()
    reg(consumer, verb, shared("path").url, "images/cats", "-o", "data")
    assert tree(consumer / "data/cats") == paths_of(CATS)
    assert (consumer / "data/cats.reg.yaml").exists() == (verb == "import")


@pytest.mark.parametrize("verb", ["get", "import"])
def test_out_with_a_missing_parent_makes_it(shared: Shared, consumer: Path, reg: Reg, verb: str) -> None:
    reg(consumer, verb, shared("path").url, "images/cats", "-o", "deep/down/felines")
    assert tree(consumer / "deep/down/felines") == paths_of(CATS)


@pytest.mark.parametrize("verb", ["get", "import"])
@pytest.mark.parametrize("there_is", ["file", "folder"])
def test_existing_target_is_refused_without_force(
    shared: Shared, consumer: Path, reg: Reg, verb: str, there_is: str
) -> None:
    write(consumer, {"cats" if there_is == "file" else "cats/mine.txt": "mine"})
    before = there(consumer)
    ran = reg(consumer, verb, shared("path").url, "images/cats", code=7)
    assert "exists already" in one_sentence(ran.err)
    assert "--force" in ran.err
    assert there(consumer) == before
    assert not list(consumer.glob(".*.reg-new"))
    reg(consumer, verb, shared("path").url, "images/cats", "--force")
    assert tree(consumer / "cats") == paths_of(CATS)


def test_import_that_is_there_already_is_refused_and_names_update(shared: Shared, consumer: Path, reg: Reg) -> None:
    reg(consumer, "import", shared("path").url, "images/cats")
    ran = reg(consumer, "import", shared("path").url, "images/cats", code=7)
    assert "reg update cats" in ran.err


def test_import_over_what_git_tracks_is_refused_with_the_way_out(shared: Shared, consumer: Path, reg: Reg) -> None:
    write(consumer, {"cats/mine.txt": "mine"})
    git(consumer, "add", "cats")
    for extra in ([], ["--force"]):
        ran = reg(consumer, "import", shared("path").url, "images/cats", *extra, code=None)
        assert ran.code in (2, 7)
        assert "git rm" in ran.err or "exists already" in ran.err
    assert (consumer / "cats/mine.txt").read_text() == "mine"


def test_import_inside_another_import_is_refused_and_both_are_named(shared: Shared, consumer: Path, reg: Reg) -> None:
    reg(consumer, "import", shared("path").url, "images/cats")
    ran = reg(consumer, "import", shared("path").url, "images/cats:train", "-o", "cats/more", code=2)
    assert "cats/more" in one_sentence(ran.err)
    assert "cats" in one_sentence(ran.err).replace("cats/more", "")
    assert tree(consumer / "cats") == paths_of(CATS)


@pytest.mark.parametrize("out", ["../outside", "sub/../../outside", "ABSOLUTE"])
def test_import_out_of_the_repository_is_refused(
    shared: Shared, consumer: Path, tmp_path: Path, reg: Reg, out: str
) -> None:
    place = str(tmp_path / "outside") if out == "ABSOLUTE" else out
    ran = reg(consumer, "import", shared("path").url, "images/cats", "-o", place, code=2)
    assert "outside the repository" in one_sentence(ran.err)
    assert not (tmp_path / "outside").exists()
    untouched(consumer)


def test_import_through_a_link_out_of_the_repository_is_refused(
    shared: Shared, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    (tmp_path / "outside").mkdir()
    (consumer / "door").symlink_to(tmp_path / "outside")
    reg(consumer, "import", shared("path").url, "images/cats", "-o", "door/cats", code=2)
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("out", [".git/cats", ".reg/cats"])
def test_import_into_git_s_or_reg_s_own_folder_is_refused(shared: Shared, consumer: Path, reg: Reg, out: str) -> None:
    reg(consumer, "import", shared("path").url, "images/cats", "-o", out, code=2)
    assert not (consumer / out).exists()


def test_import_from_a_subfolder_lands_there_and_is_updated_from_anywhere(
    cats: Published, consumer: Path, reg: Reg
) -> None:
    (consumer / "lib/deep").mkdir(parents=True)
    relative = os.path.relpath(cats.root, consumer / "lib/deep")
    reg(consumer / "lib/deep", "import", relative, "images/cats")
    assert tree(consumer / "lib/deep/cats") == paths_of(CATS)
    cats.add("images/cats", {"train/4.png": "four"})
    reg(consumer, "update")
    assert (consumer / "lib/deep/cats/train/4.png").read_text() == "four"


def test_import_needs_a_repository_and_get_does_not(shared: Shared, elsewhere: Path, reg: Reg) -> None:
    ran = reg(elsewhere, "import", shared("path").url, "images/cats", code=3)
    assert "git init" in ran.err
    reg(elsewhere, "get", shared("path").url, "images/cats")
    assert sorted(tree(elsewhere)) == sorted(f"cats/{path}" for path in CATS)


def test_import_is_ignored_by_git_and_its_metafile_is_staged(shared: Shared, consumer: Path, reg: Reg) -> None:
    reg(consumer, "import", shared("path").url, "images/cats")
    assert git(consumer, "status", "--porcelain").split() == ["A", ".gitignore", "A", "cats.reg.yaml"]
    reg(consumer, "import", shared("path").url, "images/cats:test", "-m", "Import the test set")
    assert git(consumer, "show", "--name-only", "--format=%s", "HEAD").split("\n")[0] == "Import the test set"
    committed = set(git(consumer, "show", "--name-only", "--format=", "HEAD").split())
    assert "test.reg.yaml" in committed
    assert "cats.reg.yaml" not in committed


# --- what fails leaves nothing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_wrong_name_leaves_nothing_and_names_the_nearest(
    shared: Shared, consumer: Path, reg: Reg, kind: str, verb: str
) -> None:
    acme = shared(kind)
    ran = reg(consumer, verb, acme.url, "images/cast", code=3)
    assert "images/cast" in one_sentence(ran.err)
    assert "images/cats" in ran.err.split("hint: ")[1]
    untouched(consumer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("verb", ["get", "import"])
def test_wrong_revision_leaves_nothing_and_names_the_nearest(
    shared: Shared, consumer: Path, reg: Reg, kind: str, verb: str
) -> None:
    acme = shared(kind)
    ran = reg(consumer, verb, acme.url, "images/cats", "--rev", "relaese-1", code=3)
    assert "relaese-1" in one_sentence(ran.err)
    assert "release-1" in ran.err.split("hint: ")[1]
    untouched(consumer)


def test_version_that_was_never_released_names_those_there_are(shared: Shared, consumer: Path, reg: Reg) -> None:
    acme = shared("path")
    ran = reg(consumer, "import", acme.url, "images/cats", "--rev", "^2", code=3)
    assert "1.2.0" in ran.err
    untouched(consumer)


@pytest.mark.parametrize("verb", ["get", "import"])
def test_wrong_registry_leaves_nothing(
    consumer: Path, tmp_path: Path, daemon: tuple[Path, str], reg: Reg, home: Path, verb: str
) -> None:
    for url in (tmp_path / "nowhere", f"file://{tmp_path}/nowhere"):
        ran = reg(consumer, verb, url, "cats", code=3)
        assert "nowhere" in one_sentence(ran.err)
    ran = reg(consumer, verb, f"{daemon[1]}/nowhere.git", "cats", code=None)
    assert ran.code in (3, 5)  # git daemon does not tell a repository that is not there from one that is not exported
    assert "nowhere.git" in one_sentence(ran.err)
    untouched(consumer)
    mirrors = home / "cache/mirrors"
    assert [path for path in mirrors.rglob("*") if path.name == "HEAD"] == []


@pytest.mark.parametrize("verb", ["get", "import"])
def test_missing_payload_leaves_nothing(cats: Published, consumer: Path, home: Path, reg: Reg, verb: str) -> None:
    fresh_cache(home)
    payload = max(
        (path for path in (cats.remote / "packs").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    payload.unlink()
    ran = reg(consumer, verb, cats.url, "images/cats", code=6)
    assert payload.name in one_sentence(ran.err)
    untouched(consumer)


@pytest.mark.parametrize("verb", ["get", "import"])
def test_altered_payload_is_never_accepted(cats: Published, consumer: Path, home: Path, reg: Reg, verb: str) -> None:
    fresh_cache(home)
    payload = max(
        (path for path in (cats.remote / "packs").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    content = bytearray(payload.read_bytes())
    content[100] ^= 1
    payload.chmod(0o644)
    payload.write_bytes(content)
    ran = reg(consumer, verb, cats.url, "images/cats", code=6)
    assert payload.name in one_sentence(ran.err)
    untouched(consumer)


@pytest.mark.parametrize("left", [0, 18 << 20, 20 << 20])
def test_half_a_download_that_is_not_what_its_note_says_is_brought_anew(
    make: Make, consumer: Path, home: Path, reg: Reg, left: int
) -> None:
    """A machine that lost power may have the note of a piece on its disk, and not the piece."""
    content = random.Random(3).randbytes(20 << 20)
    registry = make("file")
    registry.add("film.bin", {"": content})
    shutil.rmtree(registry.root)
    fresh_cache(home)
    partial = Path(Cache(str(home / "cache")).partial(blake3(content).digest(), len(content)))
    partial.write_bytes(bytes(left))
    partial.with_name(partial.name + ".done").write_text(f"0 {PIECE}\n{PIECE} {len(content) - PIECE}\n")
    reg(consumer, "get", registry.url, "film.bin", "-o", "film.bin")
    assert (consumer / "film.bin").read_bytes() == content
    assert list((home / "cache/partial").rglob("*.done")) == []


def test_full_disk_is_named_and_not_the_remote(make: Make, consumer: Path, home: Path, reg: Reg) -> None:
    registry = make("file")
    registry.add("film.bin", {"": random.Random(3).randbytes(20 << 20)})
    fresh_cache(home)
    with file_limit(10 << 20):
        ran = reg(consumer, "get", registry.url, "film.bin", code=5)
    assert "is full" in one_sentence(ran.err)
    assert str(registry.remote) not in ran.err
    untouched(consumer)


@pytest.mark.parametrize("meanwhile", ["cleaned", "begun anew", "begun anew at the last moment"])
def test_cache_that_is_cleaned_while_a_large_file_comes_takes_nothing_of_it(
    make: Make,
    consumer: Path,
    tmp_path: Path,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    reg: Reg,
    meanwhile: str,
) -> None:
    content = random.Random(3).randbytes(20 << 20)
    registry = make("file")
    registry.add("film.bin", {"": content})
    fresh_cache(home)
    partial = Path(Cache(str(home / "cache")).partial(blake3(content).digest(), len(content)))
    finish, look = LargeFile.finish, gathering.is_at

    def somebody_cleans() -> None:
        partial.unlink()
        if meanwhile != "cleaned":
            partial.write_bytes(bytes(len(content)))

    def finished(self: LargeFile) -> int:
        found = finish(self)
        if "moment" not in meanwhile:
            somebody_cleans()
        return found

    def looked(path: str, descriptor: int) -> bool:
        found = look(path, descriptor)
        if "moment" in meanwhile and path == str(partial) and os.fstat(descriptor).st_blocks and found:
            somebody_cleans()
        return found

    monkeypatch.setattr(LargeFile, "finish", finished)
    monkeypatch.setattr(gathering, "is_at", looked)
    reg(consumer, "import", registry.url, "film.bin", "-m", "Import")
    assert (consumer / "film.bin").read_bytes() == content
    shutil.rmtree(registry.remote)
    reg(tmp_path, "get", registry.url, "film.bin", "-o", "again")
    assert (tmp_path / "again").read_bytes() == content


def test_large_file_of_a_disk_that_is_mounted_twice_is_copied(
    make: Make, consumer: Path, home: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    """As in a container: one device, and no renaming from one mount to the other."""
    content = random.Random(3).randbytes(20 << 20)
    registry = make("file")
    registry.add("film.bin", {"": content})
    fresh_cache(home)
    rename = os.rename

    def refused(source: str, target: str) -> None:
        if "/partial/" in source:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(source, target)

    monkeypatch.setattr(gathering.os, "rename", refused)
    reg(consumer, "import", registry.url, "film.bin")
    assert (consumer / "film.bin").read_bytes() == content
    assert [path for path in (home / "cache/partial").rglob("*") if path.is_file()] == []


def test_large_file_is_on_the_disk_before_its_size_and_times_are_trusted(
    make: Make, consumer: Path, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    registry = make("file")
    registry.add("film.bin", {"": random.Random(3).randbytes(20 << 20)})
    fresh_cache(home)
    flushed: list[int] = []

    def noted(descriptor: int) -> None:
        assert not (consumer / "film.bin").exists()
        flushed.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(gathering, "flush_data", noted)
    reg(tmp_path, "get", registry.url, "film.bin", "-o", "got")
    assert flushed == []
    reg(consumer, "import", registry.url, "film.bin")
    assert flushed == [20 << 20]


# --- pins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "url"])
def test_no_download_writes_the_pin_and_sync_brings_the_locked_version(
    make: Make, consumer: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    acme.add("images/cats", CATS)
    reg(consumer, "import", acme.url, "images/cats", "--no-download")
    assert sorted(there(consumer)) == [".gitignore", "cats.reg.yaml"]
    acme.add("images/cats", {"train/4.png": "four"}, gone=("train/1.png",))
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)


def test_clone_of_a_consumer_gets_the_same_data(make: Make, consumer: Path, tmp_path: Path, reg: Reg) -> None:
    acme = make("url")
    acme.add("images/cats", CATS)
    reg(consumer, "import", acme.url, "images/cats", "-m", "Import cats")
    acme.add("images/cats", {"train/4.png": "four"})
    git(tmp_path, "clone", "-q", str(consumer), "colleague")
    reg(tmp_path / "colleague", "sync")
    assert tree(tmp_path / "colleague/cats") == paths_of(CATS)


def test_lock_says_what_was_resolved(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make("url")
    acme.add("prices", {"": "1\n"}, tag="prices@v1.2.0")
    made = reg(consumer, "import", acme.url, "prices", "--rev", "^1.0", "--json").json
    assert made["schema"] == "reg.import/1"
    text = (consumer / "prices.reg.yaml").read_text()
    for line in (
        "want: ^1.0",
        "version: 1.2.0",
        "tag: prices@v1.2.0",
        f"commit: {acme.head()}",
        f"registry: {acme.url}",
    ):
        assert line in text.replace('"', "").replace("'", ""), text


# --- the cache --------------------------------------------------------------------------------------------------


def test_what_the_cache_has_needs_no_remote(cats: Published, consumer: Path, tmp_path: Path, reg: Reg) -> None:
    reg(consumer, "import", cats.url, "images/cats")
    shutil.rmtree(cats.remote)
    shutil.rmtree(consumer / "cats")
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)
    for verb in ("import", "get"):
        place = tmp_path / f"other-{verb}"
        place.mkdir()
        git(place, "init", "-q")
        reg(place, verb, cats.url, "images/cats")
        assert tree(place / "cats") == paths_of(CATS)


def damage(path: Path) -> None:
    """Change a file's bytes, and neither its size nor its time of modification."""
    before = path.stat()
    path.chmod(0o644)
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_file_of_the_cache_that_cannot_be_read_comes_from_its_pack(
    make: Make, consumer: Path, home: Path, reg: Reg
) -> None:
    """As a link that leads nowhere, so a file of somebody else's, or of a disk that fails."""
    registry = make("file")
    files: dict[str, bytes | str] = {"a": "a" * 100, "b": "b" * 100}
    registry.add("set", files)
    fresh_cache(home)
    reg(consumer, "import", registry.url, "set")
    kept = [path for path in (home / "cache/files").rglob("*") if path.is_file()]
    assert len(kept) == 2
    for path in kept:
        path.unlink()
        path.symlink_to("x" * 100)
    shutil.rmtree(consumer / "set")
    reg(consumer, "sync")
    assert tree(consumer / "set") == paths_of(files)


def test_what_is_damaged_on_this_disk_comes_from_the_cache(
    cats: Published, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    """`get` reads packs on this disk rather than the cache's files."""
    reg(consumer, "import", cats.url, "images/cats")
    for pack in (cats.remote / "packs").rglob("*"):
        if pack.is_file():
            damage(pack)
    reg(tmp_path, "get", cats.url, "images/cats")
    assert tree(tmp_path / "cats") == paths_of(CATS)
    for file in (home / "cache/files").rglob("*"):
        if file.is_file():
            damage(file)
    assert "are not those of" in reg(tmp_path, "get", cats.url, "images/cats", "-o", "again", code=6).err
    assert not (tmp_path / "again").exists()


def test_offline_reads_what_was_fetched_before_and_says_when_there_is_nothing(
    make: Make, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    acme = make("url")
    acme.add("images/cats", CATS)
    ran = reg(consumer, "import", acme.url, "images/cats", "--offline", code=3)
    assert "never fetched" in one_sentence(ran.err)
    untouched(consumer)
    reg(consumer, "import", acme.url, "images/cats")
    acme.add("images/cats", {"train/4.png": "four"})
    reg(consumer, "import", acme.url, "images/cats", "--offline", "-o", "again")
    assert tree(consumer / "again") == paths_of(CATS)


_opened: list[str] = []
_listening = [False]


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _listening[0] and event == "open" and isinstance(arguments[0], str | bytes):
        _opened.append(os.fsdecode(arguments[0]))


sys.addaudithook(_audit)


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """List the files that this process opens meanwhile."""
    _opened.clear()
    _listening[0] = True
    try:
        yield _opened
    finally:
        _listening[0] = False


def test_what_is_known_is_not_hashed_again(shared: Shared, consumer: Path, home: Path, reg: Reg) -> None:
    reg(consumer, "import", shared("path").url, "images/cats")
    time.sleep(0.05)  # a file younger than the clock's step is not trusted
    reg(consumer, "status")
    for command in (["status"], ["sync"], ["sync", "--check"], ["update"]):
        with opened_files() as opened:
            reg(consumer, *command)
        assert [path for path in opened if path.endswith(".png") or "/cache/files/" in path] == [], command
    with opened_files() as opened:
        reg(consumer, "import", shared("path").url, "images/cats", "-o", "again")
    assert [path for path in opened if path.startswith(str(home / "cache/files"))] == []
    assert tree(consumer / "again") == paths_of(CATS)


def test_registry_s_cache_and_link_settings_are_not_inherited(
    cats: Published, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    reg(cats.root, "config", "cache.dir", tmp_path / "curators-cache")
    reg(cats.root, "config", "link", "copy")
    fresh_cache(home)
    for settings in ("hardlink", "copy"):
        reg(consumer, "config", "link", settings)
        reg(consumer, "import", cats.url, "images/cats", "-o", settings)
    assert not (tmp_path / "curators-cache").exists()
    assert (consumer / "hardlink/train/1.png").stat().st_nlink == 2
    assert (consumer / "copy/train/1.png").stat().st_nlink == 1


# --- odd registries ---------------------------------------------------------------------------------------------


def test_local_registry_whose_remote_is_a_relative_path(
    registry: Path, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    settings = (registry / "reg.yaml").read_text()
    assert ".reg/remote" in settings
    (registry / "reg.yaml").write_text(settings.replace(".reg/remote", "../beside"))
    git(registry, "commit", "-q", "-a", "-m", "Remote beside")
    write(registry, {"prices": "1\n"})
    reg(registry, "add", "prices", "-m", "Add prices")
    reg(registry, "push")
    assert (tmp_path / "beside/reg-store.json").exists()
    (consumer / "sub").mkdir()
    reg(consumer / "sub", "import", "../../registry", "prices")
    assert (consumer / "sub/prices").read_text() == "1\n"
    git(tmp_path, "clone", "-q", "registry", "deeper/clone")
    reg(consumer, "get", tmp_path / "deeper/clone", "prices", "-o", "from-clone")
    assert (consumer / "from-clone").read_text() == "1\n"


@pytest.mark.parametrize("verb", ["get", "import"])
def test_registry_whose_payload_is_still_in_its_outbox(registry: Path, consumer: Path, reg: Reg, verb: str) -> None:
    write(registry, {"prices": "1\n", "big": b"0123456789" * 500_000})
    reg(registry, "add", "prices", "big", "-m", "Add prices")
    for name in ("prices", "big"):
        reg(consumer, verb, registry, name)
        assert (consumer / name).read_bytes() == (registry / name).read_bytes()


def test_import_of_an_import_reads_the_original_s_remote(
    make: Make, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    original, between = make("url", "original"), make("path", "between")
    original.add("images/cats", CATS)
    (between.root / "vendor").mkdir()
    reg(between.root / "vendor", "import", original.url, "images/cats", "-m", "Import cats")
    fresh_cache(home)
    shutil.rmtree(between.root / "vendor/cats")
    reg(consumer, "import", between.url, "vendor/cats")
    assert tree(consumer / "cats") == paths_of(CATS)
    assert between.url in (consumer / "cats.reg.yaml").read_text()
    reg(consumer, "get", between.url, "vendor/cats:train", "-o", "part")
    assert tree(consumer / "part") == {"1.png": ONE, "2.png": TWO}
    fresh_cache(home)
    shutil.rmtree(consumer / "cats")
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)


def test_import_of_an_import_of_a_part_reads_the_original(make: Make, consumer: Path, home: Path, reg: Reg) -> None:
    original, between = make("url", "original"), make("path", "between")
    original.add("images/cats", CATS)
    original.commit({"docs/guide.md": "# Guide\n"})
    reg(between.root, "import", original.url, "images/cats:train", "-m", "Import a part")
    reg(between.root, "import", original.url, "docs", "-m", "Import what Git holds")
    fresh_cache(home)
    reg(consumer, "import", between.url, "train")
    reg(consumer, "import", between.url, "docs")
    assert tree(consumer / "train") == {"1.png": ONE, "2.png": TWO}
    assert tree(consumer / "docs") == {"guide.md": b"# Guide\n"}


def test_imports_in_a_circle_are_an_error_and_no_hang(make: Make, reg: Reg) -> None:
    east, west = make("path", "east"), make("path", "west")
    east.add("ball", {"": "round\n"})
    reg(west.root, "import", east.url, "ball", "-m", "From the east")
    reg(east.root, "remove", "ball", "-m", "No ball of our own")
    (east.root / "ball").unlink(missing_ok=True)
    reg(east.root, "import", west.url, "ball", "-m", "From the west")
    ran = None
    for _ in range(4):  # each lock names a commit, so a chain has to go round before it is a circle
        ran = reg(west.root, "update", "ball", "--rev", east.head(), "-m", "From the east again", code=None)
        if ran.code:
            break
        ran = reg(east.root, "update", "ball", "--rev", west.head(), "-m", "From the west again", code=None)
        if ran.code:
            break
    assert ran is not None
    assert ran.code == 6
    assert "circle" in one_sentence(ran.err)
    assert (west.root / "ball").read_text() == (east.root / "ball").read_text() == "round\n"


@pytest.mark.parametrize("way", ["dot", "path", "file-url", "link", "subfolder"])
def test_import_from_oneself_is_refused(cats: Published, tmp_path: Path, reg: Reg, way: str) -> None:
    (tmp_path / "link").symlink_to(cats.root)
    url = {
        "dot": ".",
        "path": str(cats.root),
        "file-url": f"file://{cats.root}",
        "link": str(tmp_path / "link"),
        "subfolder": "images",
    }[way]
    before = git(cats.root, "status", "--porcelain")
    ran = reg(cats.root, "import", url, "images/cats", "-o", "mine", code=2)
    assert "itself" in one_sentence(ran.err)
    assert not (cats.root / "mine.reg.yaml").exists()
    assert git(cats.root, "status", "--porcelain") == before


@pytest.mark.parametrize("target", ["weights/model.bin", "weights"])
@pytest.mark.parametrize("verb", ["get", "import"])
def test_lfs_pointer_is_refused_by_name(shared: Shared, consumer: Path, reg: Reg, verb: str, target: str) -> None:
    acme = shared("url")
    ran = reg(consumer, verb, acme.url, target, code=6)
    assert "weights/model.bin" in one_sentence(ran.err)
    assert "LFS" in ran.err
    untouched(consumer)
    reg(consumer, verb, acme.url, "weights/README")


# --- registries and remotes that moved --------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["images/cats", "images/cats:train"])
@pytest.mark.parametrize("kind", ["path", "file"])
def test_vanished_registry_still_downloads_from_its_remote(
    make: Make, consumer: Path, home: Path, reg: Reg, kind: str, target: str
) -> None:
    acme = make(kind)
    acme.add("images/cats", CATS)
    reg(consumer, "import", acme.url, target, "-o", "data")
    before = tree(consumer / "data")
    shutil.rmtree(acme.root)
    shutil.rmtree(acme.bare, ignore_errors=True)
    shutil.rmtree(consumer / "data")
    fresh_cache(home)
    reg(consumer, "sync")
    assert tree(consumer / "data") == before
    reg(consumer, "status")


def test_vanished_registry_behind_a_url_still_downloads_from_its_remote(
    tmp_path: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "acme").mkdir()
    with git_daemon(served) as url:
        acme = publish(tmp_path / "acme", reg, kind="url", served=served, base_url=url)
        acme.add("images/cats", CATS)
        reg(consumer, "import", acme.url, "images/cats", "--no-download")
    reg(consumer, "sync")  # the mirror has the commit: nobody is asked
    assert tree(consumer / "cats") == paths_of(CATS)
    shutil.rmtree(consumer / "cats")
    fresh_cache(home)
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)
    ran = reg(consumer, "update", code=5)
    assert "could not be reached" in one_sentence(ran.err)
    assert tree(consumer / "cats") == paths_of(CATS)


def test_vanished_registry_that_held_the_data_in_git_is_explained(
    make: Make, consumer: Path, home: Path, reg: Reg
) -> None:
    acme = make()
    acme.commit({"docs/guide.md": "# Guide\n"})
    reg(consumer, "import", acme.url, "docs")
    shutil.rmtree(acme.root)
    shutil.rmtree(consumer / "docs")
    fresh_cache(home)
    ran = reg(consumer, "sync", code=3)
    assert str(acme.root) in one_sentence(ran.err)


def move_remote(acme: Published, target: Path, *, move: bool = True) -> None:
    """Have the default branch name another remote."""
    if move:
        acme.remote.rename(target)
    text = (acme.root / "reg.yaml").read_text()
    (acme.root / "reg.yaml").write_text(text.replace(str(acme.remote), str(target)))
    git(acme.root, "commit", "-q", "-a", "-m", "Move the remote")
    acme.send(payload=False)


@pytest.mark.parametrize("kind", ["path", "url"])
def test_moved_remote_old_pins_follow_the_default_branch(
    make: Make, consumer: Path, tmp_path: Path, home: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    acme.add("images/cats", CATS, tag="v1")
    reg(consumer, "import", acme.url, "images/cats", "--rev", "v1", "--no-download")
    move_remote(acme, tmp_path / "moved")
    fresh_cache(home)
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)
    reg(consumer, "import", acme.url, "images/cats", "--rev", "v1", "-o", "again")
    assert tree(consumer / "again") == paths_of(CATS)


@pytest.mark.parametrize("kind", ["path", "url"])
def test_moved_remote_old_pins_then_follow_the_pinned_commit(
    make: Make, consumer: Path, tmp_path: Path, home: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    acme.add("images/cats", CATS, tag="v1")
    move_remote(acme, tmp_path / "new-and-empty", move=False)
    fresh_cache(home)
    reg(consumer, "get", acme.url, "images/cats", "--rev", "v1")
    assert tree(consumer / "cats") == paths_of(CATS)


def test_moved_remote_old_pins_then_follow_the_lock(
    make: Make, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    acme = make("file")
    acme.add("images/cats", CATS)
    reg(consumer, "import", acme.url, "images/cats", "--no-download")
    locked = acme.head()
    git(acme.root, "checkout", "-q", "--orphan", "fresh")
    git(acme.root, "commit", "-q", "-m", "Another beginning")
    git(acme.root, "branch", "-M", "main")
    move_remote(acme, tmp_path / "new-and-empty", move=False)
    git(acme.bare, "reflog", "expire", "--expire=now", "--all")
    git(acme.bare, "gc", "-q", "--prune=now")
    assert git_error(acme.bare, "cat-file", "commit", locked)
    fresh_cache(home)
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)


def test_this_machine_s_override_goes_before_all_other_remotes(
    cats: Published, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    reg(consumer, "import", cats.url, "images/cats", "--no-download")
    cats.remote.rename(tmp_path / "mounted-here")
    fresh_cache(home)
    reg(consumer, "sync", code=6)
    reg(consumer, "config", "remote.default", tmp_path / "mounted-here")
    reg(consumer, "sync")
    assert tree(consumer / "cats") == paths_of(CATS)


def test_override_in_the_user_s_own_configuration_holds_for_get(
    cats: Published, elsewhere: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    cats.remote.rename(tmp_path / "mounted-here")
    fresh_cache(home)
    reg(elsewhere, "get", cats.url, "images/cats", code=6)
    reg(elsewhere, "config", "--user", "remote.default", tmp_path / "mounted-here")
    reg(elsewhere, "get", cats.url, "images/cats")
    assert tree(elsewhere / "cats") == paths_of(CATS)


def test_override_is_this_machine_s_alone_and_no_lock_notes_it(
    cats: Published, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    shutil.copytree(cats.remote, tmp_path / "mounted-here")
    reg(consumer, "config", "remote.default", tmp_path / "mounted-here")
    reg(consumer, "import", cats.url, "images/cats")
    text = (consumer / "cats.reg.yaml").read_text()
    assert "mounted-here" not in text
    assert f"remote: {cats.remote}" in text


# --- Git over HTTP ----------------------------------------------------------------------------------------------


def test_registry_over_http_is_mirrored_once_and_then_fetched_incrementally(
    tmp_path: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "acme").mkdir()
    with git_http(served) as url:
        acme = publish(tmp_path / "acme", reg, kind="url", served=served, base_url=url)
        acme.commit({"noise.bin": os.urandom(200_000).hex()})
        acme.add("images/cats", CATS)
        reg(consumer, "import", acme.url, "images/cats")
        packs = {path: path.stat().st_size for path in (home / "cache").rglob("*.pack")}
        acme.add("images/cats", {"train/4.png": "four"})
        reg(consumer, "update")
        assert tree(consumer / "cats") == tree(acme.root / "images/cats")
        more = [path.stat().st_size for path in (home / "cache").rglob("*.pack") if path not in packs]
        assert sum(more) < 10_000
        reg(consumer, "import", acme.url, "images/cats", "--rev", "HEAD~1", "-o", "older")
        assert tree(consumer / "older") == paths_of(CATS)


def test_registry_that_wants_credentials_says_so_and_never_writes_them_down(
    tmp_path: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "acme").mkdir()
    with git_http(served, password="hunter2") as url:
        acme = publish(tmp_path / "acme", reg, kind="url", served=served, base_url=url)
        acme.add("images/cats", CATS)
        ran = reg(consumer, "import", acme.url, "images/cats", code=4)
        assert "credentials" in one_sentence(ran.err)
        untouched(consumer)
        ran = reg(consumer, "import", acme.url.replace("http://", "http://reader:hunter2@"), "images/cats")
        assert tree(consumer / "cats") == paths_of(CATS)
    assert "hunter2" not in ran.out + ran.err
    places = [consumer / "cats.reg.yaml", *(path for path in (home / "cache").rglob("*") if path.is_file())]
    assert [path for path in places if b"hunter2" in path.read_bytes()] == []
