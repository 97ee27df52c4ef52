"""Updating imports: what moves and what stays, what becomes of local edits, and what a failure leaves behind."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registree.model.manifest import Entry
from registree.operations import placing
from tests.conftest import Ran, Reg, git, tree, write
from tests.servers.git_servers import git_daemon
from tests.servers.published import Published, one_sentence, publish

ONE, TWO, THREE, FOUR = b"one" * 3000, b"two" * 3000, b"three" * 3000, b"four" * 3000
CATS: dict[str, bytes | str] = {"train/1.png": ONE, "train/2.png": TWO, "test/3.png": THREE}
KINDS = ["path", "url"]

Make = Callable[..., Published]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("served")
    with git_daemon(folder) as url:
        yield folder, url


@pytest.fixture
def make(tmp_path: Path, reg: Reg, daemon: tuple[Path, str]) -> Make:
    def made(kind: str = "path", name: str = "acme") -> Published:
        folder = tmp_path / f"{tmp_path.name}-{name}"
        folder.mkdir()
        return publish(folder, reg, kind=kind, served=daemon[0] if kind == "url" else None, base_url=daemon[1])

    return made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template")


@pytest.fixture
def cats(template: Path, consumer: Path, reg: Reg) -> Published:
    """A registry with one dataset, imported by the consumer from its default branch; made once and then copied."""
    place, saved = template / "acme", template / "saved"
    if not saved.exists():
        place.mkdir()
        publish(place, reg).add("cats", CATS)
        shutil.copytree(place, saved, symlinks=True)
    shutil.rmtree(place)
    shutil.copytree(saved, place, symlinks=True)
    made = Published(place / "registry", place / "acme.git", place / "remote", "path", "", reg)
    reg(consumer, "import", made.url, "cats", "-m", "Import cats")
    return made


def edit(path: Path, content: bytes | str) -> None:
    """Change a file as editors do: imported files may be links into the cache, which nobody writes through."""
    path.unlink(missing_ok=True)
    write(path.parent, {path.name: content})


def whole(consumer: Path) -> dict[str, bytes]:
    """All that an update may change: the work tree with its metafiles, and what Git has staged."""
    found = {path: content for path, content in tree(consumer).items() if not path.startswith((".git/", ".reg/"))}
    return found | {"(staged)": git(consumer, "diff", "--cached").encode()}


def row(ran: Ran) -> dict[str, object]:
    (found,) = ran.json["imports"]
    assert isinstance(found, dict)
    return found


def newest_payload(acme: Published, before: set[Path]) -> list[Path]:
    return [path for path in (acme.remote / "packs").rglob("*") if path.is_file() and path not in before]


def packs(acme: Published) -> set[Path]:
    return {path for path in (acme.remote / "packs").rglob("*") if path.is_file()}


# --- what moves and what stays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("revision", ["", "main"])
def test_branch_moves(make: Make, consumer: Path, reg: Reg, kind: str, revision: str) -> None:
    acme = make(kind)
    acme.add("cats", CATS)
    reg(consumer, "import", acme.url, "cats", *(["--rev", revision] if revision else []))
    head = acme.add("cats", {"train/4.png": FOUR, "train/1.png": b"new"}, gone=("train/2.png",))
    ran = reg(consumer, "update")
    assert head[:10] in ran.out
    assert "1 added, 1 removed, 1 modified" in ran.out
    assert tree(consumer / "cats") == tree(acme.root / "cats")
    assert f"commit: {head}" in (consumer / "cats.reg.yaml").read_text()
    assert "nothing new" in reg(consumer, "update").out


@pytest.mark.parametrize("kind", KINDS)
def test_fixed_revision_stays_and_the_answer_says_how_to_move_it(
    make: Make, consumer: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    first = acme.add("cats", {"1.png": ONE}, tag="v1")
    git(acme.root, "tag", "light")
    git(acme.root, "tag", "cats@v1.0.0")
    acme.add("cats", {"2.png": TWO}, tag="cats@v1.1.0")
    revisions = ["v1", "light", "1.0.0", first, first[:9]]
    for at, revision in enumerate(revisions):
        reg(consumer, "import", acme.url, "cats", "--rev", revision, "-o", f"cats{at}")
    before = whole(consumer)
    lines = reg(consumer, "update").out.splitlines()
    assert len(lines) == len(revisions)
    for at, line in enumerate(lines):
        assert line.startswith(f"cats{at}: stays at")
        assert f"reg update cats{at} --rev" in line
    assert {each["state"] for each in reg(consumer, "update", "--json").json["imports"]} == {"fixed"}
    assert whole(consumer) == before


def test_version_range_moves_to_the_newest_release_in_it(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make("url")
    acme.add("cats", {"1.png": ONE}, tag="cats@v1.0.0")
    ranges = ["^1.0", "latest", "1.x", ">=1,<2"]
    for at, wanted in enumerate(ranges):
        reg(consumer, "import", acme.url, "cats", "--rev", wanted, "-o", f"cats{at}")
    acme.add("cats", {"2.png": TWO})
    assert reg(consumer, "update").out.count("nothing new") == len(ranges)
    acme.add("cats", {"3.png": THREE}, tag="cats@v1.1.0")
    expected = tree(acme.root / "cats")
    acme.add("cats", {"4.png": FOUR}, tag="cats@v2.0.0-rc.1")
    assert reg(consumer, "update").out.count("to cats@v1.1.0") == len(ranges)
    for at, wanted in enumerate(ranges):
        assert tree(consumer / f"cats{at}") == expected
        text = (consumer / f"cats{at}.reg.yaml").read_text()
        assert "version: 1.1.0" in text
        assert wanted in text


@pytest.mark.parametrize("kind", KINDS)
def test_rev_switches_and_records_it(make: Make, consumer: Path, reg: Reg, kind: str) -> None:
    acme = make(kind)
    acme.add("cats", {"1.png": ONE}, tag="v1")
    acme.add("cats", {"2.png": TWO}, tag="v2")
    reg(consumer, "import", acme.url, "cats", "--rev", "v1")
    reg(consumer, "update", "cats", "--rev", "v2")
    assert "want: v2" in (consumer / "cats.reg.yaml").read_text()
    assert tree(consumer / "cats") == {"1.png": ONE, "2.png": TWO}
    reg(consumer, "update", "--rev", "v1")
    assert tree(consumer / "cats") == {"1.png": ONE}
    assert "stays at v1" in reg(consumer, "update").out
    reg(consumer, "update", "--rev", "main")
    acme.add("cats", {"3.png": THREE})
    reg(consumer, "update")
    assert tree(consumer / "cats") == {"1.png": ONE, "2.png": TWO, "3.png": THREE}


def test_rev_that_is_not_there_changes_nothing_and_names_the_nearest(cats: Published, consumer: Path, reg: Reg) -> None:
    git(cats.root, "tag", "release-1")
    before = whole(consumer)
    ran = reg(consumer, "update", "--rev", "relaese-1", code=3)
    assert "relaese-1" in one_sentence(ran.err)
    assert "release-1" in ran.err.split("hint: ")[1]
    assert whole(consumer) == before


@pytest.mark.parametrize(("kind", "annotated"), [("path", False), ("url", True)])
def test_moved_tag_is_an_integrity_error_that_shows_both_commits(
    make: Make, consumer: Path, reg: Reg, kind: str, annotated: bool
) -> None:
    acme = make(kind)
    extra = ["-a", "-m", "x"] if annotated else []
    first = acme.add("cats", {"1.png": ONE})
    git(acme.root, "tag", *extra, "v1")
    acme.send()
    reg(consumer, "import", acme.url, "cats", "--rev", "v1")
    second = acme.add("cats", {"2.png": TWO})
    git(acme.root, "tag", "-f", *extra, "v1")
    acme.send()
    before = whole(consumer)
    ran = reg(consumer, "update", code=6)
    sentence = one_sentence(ran.err)
    assert first[:7] in sentence
    assert second[:7] in sentence
    assert "v1" in sentence
    assert whole(consumer) == before
    reg(consumer, "update", "--rev", "v1")
    assert tree(consumer / "cats") == {"1.png": ONE, "2.png": TWO}


def test_part_and_globs_hold_for_updates(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make()
    acme.add("cats", CATS)
    reg(consumer, "import", acme.url, "cats:train", "--exclude", "2.png")
    acme.add("cats", {"train/4.png": FOUR, "train/2.png": b"new", "test/5.png": b"five"})
    reg(consumer, "update")
    assert tree(consumer / "train") == {"1.png": ONE, "4.png": FOUR}
    assert "nothing new" in reg(consumer, "update").out


@pytest.mark.parametrize("kind", KINDS)
def test_what_git_itself_holds_is_updated_too(make: Make, consumer: Path, reg: Reg, kind: str) -> None:
    acme = make(kind)
    acme.add("docs/set", {"a": "a\n"})
    acme.commit({"docs/guide.md": "one\n", "docs/old.md": "old\n"})
    reg(consumer, "import", acme.url, "docs")
    git(acme.root, "rm", "-q", "docs/old.md")
    write(acme.root, {"docs/set/b": "b\n"})
    reg(acme.root, "add", "docs/set", "-m", "More")
    acme.commit({"docs/guide.md": "two\n"})
    reg(consumer, "update")
    assert tree(consumer / "docs") == {"guide.md": b"two\n", "set/a": b"a\n", "set/b": b"b\n"}
    assert "nothing new" in reg(consumer, "update").out


def test_update_with_a_message_commits_the_metafiles_alone(cats: Published, consumer: Path, reg: Reg) -> None:
    cats.add("cats", {"train/4.png": FOUR})
    write(consumer, {"own.txt": "own\n"})
    git(consumer, "add", "own.txt")
    reg(consumer, "update", "-m", "Newer cats")
    assert git(consumer, "show", "--name-only", "--format=%s", "HEAD").split() == ["Newer", "cats", "cats.reg.yaml"]
    assert git(consumer, "status", "--porcelain").split() == ["A", "own.txt"]


def test_dry_run_says_what_would_change_and_changes_nothing(cats: Published, consumer: Path, reg: Reg) -> None:
    cats.add("cats", {"train/4.png": FOUR}, gone=("train/2.png",))
    before = whole(consumer)
    ran = reg(consumer, "update", "--dry-run")
    assert "would update" in ran.out
    assert "1 added, 1 removed" in ran.out
    assert whole(consumer) == before
    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(cats.root / "cats")


def test_pin_without_data_moves_and_stays_a_pin(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make()
    acme.add("cats", CATS)
    reg(consumer, "import", acme.url, "cats", "--no-download")
    head = acme.add("cats", {"train/4.png": FOUR})
    assert "next: reg sync cats brings what is not on this disk" in reg(consumer, "update").err
    assert f"commit: {head}" in (consumer / "cats.reg.yaml").read_text()
    assert not (consumer / "cats").exists()
    reg(consumer, "sync")
    assert tree(consumer / "cats") == tree(acme.root / "cats")


def test_offline_update_works_with_what_is_here(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make("url")
    acme.add("cats", CATS)
    reg(consumer, "import", acme.url, "cats")
    acme.add("cats", {"train/4.png": FOUR})
    assert "nothing new" in reg(consumer, "update", "--offline").out
    reg(consumer, "update")
    assert (consumer / "cats/train/4.png").read_bytes() == FOUR


# --- nothing new ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_new_downloads_nothing_and_keeps_the_metafile_as_it_is(
    make: Make, consumer: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    acme.add("cats", CATS)
    reg(consumer, "import", acme.url, "cats")
    metafile = consumer / "cats.reg.yaml"
    metafile.write_text("# ours, keep\n" + metafile.read_text() + "note: {kept: true}\n")
    content, stat = metafile.read_bytes(), metafile.stat()
    away = acme.remote.with_name("away")
    for news in ("none", "another dataset", "a file of Git", "metadata"):
        if news == "another dataset":
            acme.add("dogs", {"1.png": b"dog"})
        elif news == "a file of Git":
            acme.commit({"README.md": "Read me\n"})
        elif news == "metadata":
            text = (acme.root / "cats.reg.yaml").read_text()
            acme.commit({"cats.reg.yaml": text + "meta: {owner: vision}\n"})
        acme.remote.rename(away)  # whoever downloads fails
        ran = reg(consumer, "update", "--json")
        assert (row(ran)["state"], row(ran)["fetched"]) == ("current", 0), news
        assert "nothing new" in reg(consumer, "update").out
        assert metafile.read_bytes() == content
        assert (metafile.stat().st_mtime_ns, metafile.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino)
        away.rename(acme.remote)


def test_metafile_keeps_comments_and_fields_of_the_user_s_when_it_moves(
    cats: Published, consumer: Path, reg: Reg
) -> None:
    metafile = consumer / "cats.reg.yaml"
    metafile.write_text("# ours, keep\n" + metafile.read_text() + "note: {kept: true}  # and this\n")
    cats.add("cats", {"train/4.png": FOUR})
    reg(consumer, "update")
    assert "# ours, keep\n" in metafile.read_text()
    assert "note: {kept: true}  # and this\n" in metafile.read_text()
    assert cats.head() in metafile.read_text()


# --- local edits ------------------------------------------------------------------------------------------------


def local_edit(consumer: Path, kind: str) -> str:
    """Make one local edit that `upstream_edit` of the same kind collides with; return the path."""
    place = consumer / "cats"
    if kind in ("edited and changed", "edited and deleted"):
        edit(place / "train/1.png", "mine")
        return "train/1.png"
    if kind == "added and added":
        edit(place / "train/4.png", "mine")
        return "train/4.png"
    if kind == "deleted and changed":
        (place / "train/1.png").unlink()
        return "train/1.png"
    if kind == "executable and changed":
        edit(place / "train/1.png", ONE)
        (place / "train/1.png").chmod(0o755)
        return "train/1.png"
    if kind == "added where a folder comes":
        edit(place / "new", "mine")
        return "new"
    if kind == "link in place of a file":
        (place / "train/1.png").unlink()
        (place / "train/1.png").symlink_to("2.png")
        return "train/1.png"
    assert kind == "folder in place of a file"
    (place / "train/1.png").unlink()
    edit(place / "train/1.png/inner.txt", "mine")
    return "train/1.png"


def upstream_edit(acme: Published, kind: str) -> None:
    if kind == "edited and deleted":
        acme.add("cats", {}, gone=("train/1.png",))
    elif kind == "added and added":
        acme.add("cats", {"train/4.png": FOUR})
    elif kind == "added where a folder comes":
        acme.add("cats", {"new/5.png": b"five"})
    else:
        acme.add("cats", {"train/1.png": b"changed upstream", "test/9.png": b"nine"})


EDITS = [
    "edited and changed",
    "edited and deleted",
    "added and added",
    "deleted and changed",
    "executable and changed",
    "added where a folder comes",
    "link in place of a file",
    "folder in place of a file",
]


@pytest.mark.parametrize("kind", EDITS)
def test_local_edit_that_the_update_would_touch_stops_it_unless_forced(
    cats: Published, consumer: Path, reg: Reg, kind: str
) -> None:
    path = local_edit(consumer, kind)
    upstream_edit(cats, kind)
    before = whole(consumer)
    ran = reg(consumer, "update", code=7)
    assert path in one_sentence(ran.err)
    assert "--force" in ran.err
    assert whole(consumer) == before
    reg(consumer, "update", "--dry-run", code=7)
    assert whole(consumer) == before
    reg(consumer, "update", "--force")
    assert tree(consumer / "cats") == tree(cats.root / "cats")


@pytest.mark.parametrize("kind", ["edited and changed", "edited and deleted", "added and added"])
def test_local_edit_of_a_file_dataset_stops_the_update(make: Make, consumer: Path, reg: Reg, kind: str) -> None:
    acme = make()
    acme.add("prices", {"": "1\n"})
    reg(consumer, "import", acme.url, "prices")
    edit(consumer / "prices", kind)
    acme.add("prices", {"": "2\n"})
    ran = reg(consumer, "update", code=7)
    assert "prices" in one_sentence(ran.err)
    assert (consumer / "prices").read_text() == kind
    reg(consumer, "update", "--force")
    assert (consumer / "prices").read_text() == "2\n"


def test_local_edits_that_the_update_does_not_touch_are_kept(cats: Published, consumer: Path, reg: Reg) -> None:
    edit(consumer / "cats/train/1.png", "mine")
    edit(consumer / "cats/notes.txt", "mine too")
    edit(consumer / "cats/own/deep.txt", "and mine")
    (consumer / "cats/test/3.png").unlink()
    cats.add("cats", {"train/4.png": FOUR, "train/2.png": b"changed upstream"})
    reg(consumer, "update")
    assert tree(consumer / "cats") == {
        "train/1.png": b"mine",
        "train/2.png": b"changed upstream",
        "train/4.png": FOUR,
        "notes.txt": b"mine too",
        "own/deep.txt": b"and mine",
        "test/": b"",
    }


def test_own_file_in_a_folder_that_upstream_deleted_is_kept(cats: Published, consumer: Path, reg: Reg) -> None:
    edit(consumer / "cats/train/notes.txt", "mine")
    cats.add("cats", {}, gone=("train",))
    reg(consumer, "update")
    assert tree(consumer / "cats") == {"train/notes.txt": b"mine", "test/3.png": THREE}


def test_own_file_under_a_folder_that_becomes_a_file_stops_the_update(
    cats: Published, consumer: Path, reg: Reg
) -> None:
    edit(consumer / "cats/train/notes.txt", "mine")
    cats.add("cats", {}, gone=("train",))
    cats.add("cats", {"train": "a file now\n"})
    before = whole(consumer)
    ran = reg(consumer, "update", code=7)
    assert "train" in one_sentence(ran.err)
    assert whole(consumer) == before


def test_same_edit_on_both_sides_is_no_conflict(cats: Published, consumer: Path, reg: Reg) -> None:
    edit(consumer / "cats/train/1.png", "same")
    edit(consumer / "cats/train/4.png", FOUR)
    (consumer / "cats/train/2.png").unlink()
    cats.add("cats", {"train/1.png": "same", "train/4.png": FOUR}, gone=("train/2.png",))
    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(cats.root / "cats")


def test_edit_in_place_of_the_same_size_is_seen(cats: Published, consumer: Path, reg: Reg) -> None:
    reg(consumer, "status")
    edit(consumer / "cats/train/1.png", b"eno" * 3000)
    os.utime(consumer / "cats/train/1.png", ns=(1, 1))
    cats.add("cats", {"train/1.png": b"changed upstream"})
    reg(consumer, "update", code=7)
    assert (consumer / "cats/train/1.png").read_bytes() == b"eno" * 3000


def test_link_in_place_of_a_folder_is_never_followed(cats: Published, consumer: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path, {"outside/1.png": ONE, "outside/2.png": TWO})
    shutil.rmtree(consumer / "cats/train")
    (consumer / "cats/train").symlink_to(tmp_path / "outside")
    cats.add("cats", {"train/1.png": b"changed upstream", "train/4.png": FOUR}, gone=("train/2.png",))
    reg(consumer, "update", code=7)
    assert tree(tmp_path / "outside") == {"1.png": ONE, "2.png": TWO}
    assert (consumer / "cats/train").is_symlink()
    reg(consumer, "update", "--force")
    assert tree(tmp_path / "outside") == {"1.png": ONE, "2.png": TWO}
    assert tree(consumer / "cats") == tree(cats.root / "cats")


def test_nothing_is_deleted_through_a_link_in_place_of_a_folder(
    cats: Published, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    write(tmp_path, {"outside/1.png": ONE, "outside/2.png": TWO})
    shutil.rmtree(consumer / "cats/train")
    (consumer / "cats/train").symlink_to(tmp_path / "outside")
    cats.add("cats", {}, gone=("train",))
    reg(consumer, "update", code=None)
    assert tree(tmp_path / "outside") == {"1.png": ONE, "2.png": TWO}
    reg(consumer, "update", "--force")
    assert tree(tmp_path / "outside") == {"1.png": ONE, "2.png": TWO}


# --- failures ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", ["payload missing", "payload altered", "payload cut", "remote gone"])
def test_failing_update_leaves_the_old_tree_and_the_old_metafile(
    cats: Published, consumer: Path, home: Path, reg: Reg, failure: str
) -> None:
    old = packs(cats)
    cats.add("cats", {"train/4.png": os.urandom(9000), "train/1.png": b"new" * 100}, gone=("test/3.png",))
    reg(consumer, "update", "--dry-run")  # now the cache has the manifest, and only payload is missing
    before = whole(consumer)
    payload = max(newest_payload(cats, old), key=lambda path: path.stat().st_size)
    content = payload.read_bytes()
    assert len(content) >= 9000
    away = cats.remote.with_name("away")
    if failure == "payload missing":
        payload.unlink()
    elif failure == "remote gone":
        cats.remote.rename(away)
    else:
        payload.unlink()
        payload.write_bytes(content[:-10] if failure == "payload cut" else b"X" + content[1:])
    ran = reg(consumer, "update", code=6)
    if failure != "remote gone":
        assert payload.name in one_sentence(ran.err)
    assert whole(consumer) == before
    assert list(consumer.glob(".*reg-new*")) == []
    if failure == "remote gone":
        away.rename(cats.remote)
    payload.unlink(missing_ok=True)
    payload.write_bytes(content)
    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(cats.root / "cats")


def test_update_whose_manifest_is_missing_upstream_leaves_all_as_it_was(
    cats: Published, consumer: Path, home: Path, reg: Reg
) -> None:
    old = {path for path in (cats.remote / "manifests").rglob("*") if path.is_file()}
    cats.add("cats", {"train/4.png": FOUR})
    shutil.rmtree(home / "cache")
    for path in (cats.remote / "manifests").rglob("*"):
        if path.is_file() and path not in old:
            path.unlink()
    before = whole(consumer)
    ran = reg(consumer, "update", code=6)
    assert "reg push" in ran.err
    one_sentence(ran.err)
    assert whole(consumer) == before


def test_update_that_cannot_write_leaves_all_as_it_was(cats: Published, consumer: Path, reg: Reg) -> None:
    cats.add("cats", {"big.bin": os.urandom(3_000_000), "train/1.png": b"new"}, gone=("train/2.png",))
    before = whole(consumer)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    done = subprocess.run(
        [sys.executable, "-m", "registree", "update"],
        cwd=consumer,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert done.returncode == 5, done.stderr
    one_sentence(done.stderr)
    assert whole(consumer) == before
    assert list(consumer.glob(".*reg-new*")) == []
    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(cats.root / "cats")


def test_unreachable_registry_leaves_all_as_it_was(tmp_path: Path, consumer: Path, reg: Reg) -> None:
    (tmp_path / "served").mkdir()
    (tmp_path / "acme").mkdir()
    with git_daemon(tmp_path / "served") as url:
        acme = publish(tmp_path / "acme", reg, kind="url", served=tmp_path / "served", base_url=url)
        acme.add("cats", CATS)
        reg(consumer, "import", acme.url, "cats")
        acme.add("cats", {"train/4.png": FOUR})
    before = whole(consumer)
    ran = reg(consumer, "update", code=5)
    assert acme.url in one_sentence(ran.err)
    assert "--offline" in ran.err
    assert whole(consumer) == before


def test_update_works_though_the_old_version_s_manifest_is_nowhere(
    cats: Published, consumer: Path, home: Path, reg: Reg
) -> None:
    old = [path for path in cats.remote.rglob("*") if path.is_file() and path.name != "reg-store.json"]
    cats.add("cats", {"train/1.png": b"n1", "train/2.png": b"n2"}, gone=("test/3.png",))
    shutil.rmtree(home / "cache")
    for path in old:
        if path.parent.parent.name == "manifests":
            path.unlink()
    ran = reg(consumer, "update", code=None)
    if ran.code:  # what the work tree holds is in no version that can be read: then it is kept
        assert ran.code == 7
        assert "train/1.png" in one_sentence(ran.err)
        assert tree(consumer / "cats") == {k: v for k, v in CATS.items() if isinstance(v, bytes)}
        reg(consumer, "update", "--force")
    assert (consumer / "cats/train/1.png").read_bytes() == b"n1"
    assert (consumer / "cats/train/2.png").read_bytes() == b"n2"


# --- a history that was rewritten -------------------------------------------------------------------------------


def rewrite(acme: Published, files: dict[str, bytes | str]) -> None:
    """Force another history onto the default branch, and forget the old commits for good."""
    git(acme.root, "checkout", "-q", "--orphan", "other")
    git(acme.root, "commit", "-q", "-m", "Another beginning")
    git(acme.root, "branch", "-M", "main")
    acme.add("cats", files)
    for place in (acme.root, acme.bare):
        if place.exists():
            git(place, "reflog", "expire", "--expire=now", "--all")
            git(place, "gc", "-q", "--prune=now")


@pytest.mark.parametrize(("kind", "cleaned"), [("path", True), ("url", False), ("url", True)])
def test_lock_whose_commit_was_force_pushed_away_is_explained_with_the_choices(
    make: Make, consumer: Path, home: Path, reg: Reg, kind: str, cleaned: bool
) -> None:
    acme = make(kind)
    locked = acme.add("cats", CATS)
    reg(consumer, "import", acme.url, "cats")
    rewrite(acme, {"train/1.png": b"rewritten"})
    if cleaned:
        shutil.rmtree(home / "cache")
    before = whole(consumer)
    ran = reg(consumer, "update", code=7)
    sentence = one_sentence(ran.err)
    assert locked[:7] in sentence
    assert "rewritten" in sentence
    assert "--force" in ran.err
    assert "--rev" in ran.err
    assert whole(consumer) == before
    reg(consumer, "sync", "--check")
    shutil.rmtree(consumer / "cats")
    reg(consumer, "sync")
    assert tree(consumer / "cats") == {k: v for k, v in CATS.items() if isinstance(v, bytes)}
    reg(consumer, "update", "--force")
    assert tree(consumer / "cats") == tree(acme.root / "cats")


@pytest.mark.parametrize("kind", KINDS)
def test_lock_of_git_s_own_files_whose_commit_is_gone_is_explained(
    make: Make, consumer: Path, home: Path, reg: Reg, kind: str
) -> None:
    acme = make(kind)
    acme.add("cats", CATS)
    locked = acme.commit({"docs/guide.md": "one\n"})
    reg(consumer, "import", acme.url, "docs")
    git(acme.root, "rm", "-q", "--cached", "docs/guide.md")
    rewrite(acme, {})
    acme.commit({"docs/guide.md": "two\n"})
    shutil.rmtree(home / "cache")
    ran = reg(consumer, "update", code=7)
    assert locked[:7] in one_sentence(ran.err)
    assert (consumer / "docs/guide.md").read_text() == "one\n"
    shutil.rmtree(consumer / "docs")
    ran = reg(consumer, "sync", code=3)
    assert locked[:7] in one_sentence(ran.err)
    ran = reg(consumer, "status")
    assert "Traceback" not in ran.err
    reg(consumer, "update", "--force")
    reg(consumer, "sync")
    assert (consumer / "docs/guide.md").read_text() == "two\n"


def test_tag_that_was_deleted_upstream_keeps_the_import_and_says_so(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make("url")
    acme.add("cats", CATS, tag="v1")
    reg(consumer, "import", acme.url, "cats", "--rev", "v1")
    acme.add("cats", {"train/4.png": FOUR})
    git(acme.root, "tag", "-d", "v1")
    acme.send()
    before = whole(consumer)
    ran = reg(consumer, "update", code=3)
    assert "v1" in one_sentence(ran.err)
    assert whole(consumer) == before


# --- only what changed is touched -------------------------------------------------------------------------------


def test_renamed_files_are_moved_and_not_downloaded_again(
    cats: Published, consumer: Path, home: Path, reg: Reg
) -> None:
    write(cats.root, {"cats/large.bin": os.urandom(6_000_000)})
    cats.add("cats", {})
    reg(consumer, "update")
    (cats.root / "cats/train").rename(cats.root / "cats/training")
    (cats.root / "cats/large.bin").rename(cats.root / "cats/moved.bin")
    cats.add("cats", {})
    shutil.rmtree(home / "cache")
    ran = reg(consumer, "update", "--json")
    found = row(ran)
    assert found["fetched"] == 0
    assert found["changes"] is not None
    changes = found["changes"]
    assert isinstance(changes, dict)
    assert (changes["added"], changes["removed"], changes["renamed"]) == (0, 0, 3)
    assert tree(consumer / "cats") == tree(cats.root / "cats")


def test_same_content_under_other_names_is_a_change(cats: Published, consumer: Path, reg: Reg) -> None:
    before = (consumer / "cats.reg.yaml").read_text()
    for old, new in (("1.png", "tmp"), ("2.png", "1.png"), ("tmp", "2.png")):
        (cats.root / "cats/train" / old).rename(cats.root / "cats/train" / new)
    cats.add("cats", {})
    assert row(reg(consumer, "update", "--json"))["state"] == "updated"
    assert (consumer / "cats.reg.yaml").read_text() != before
    assert (consumer / "cats/train/1.png").read_bytes() == TWO
    assert (consumer / "cats/train/2.png").read_bytes() == ONE


def test_file_becomes_a_directory_and_the_other_way(cats: Published, consumer: Path, reg: Reg) -> None:
    cats.add("cats", {}, gone=("train", "test/3.png"))
    cats.add("cats", {"train": "a file now\n", "test/3.png/inside/deep.png": FOUR})
    reg(consumer, "update")
    assert tree(consumer / "cats") == {"train": b"a file now\n", "test/3.png/inside/deep.png": FOUR}
    reg(consumer, "update", "--rev", "HEAD~2")
    assert tree(consumer / "cats") == {k: v for k, v in CATS.items() if isinstance(v, bytes)}


@pytest.mark.parametrize("first", ["file", "directory"])
def test_dataset_itself_becomes_a_directory_and_the_other_way(make: Make, consumer: Path, reg: Reg, first: str) -> None:
    versions: dict[str, dict[str, bytes | str]] = {"file": {"": "one file\n"}, "directory": {"a": "a\n", "b/c": "c\n"}}
    acme = make()
    acme.add("thing", versions[first])
    reg(consumer, "import", acme.url, "thing")
    place = acme.root / "thing"
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    acme.add("thing", versions["directory" if first == "file" else "file"])
    reg(consumer, "update")
    if first == "file":
        assert tree(consumer / "thing") == {"a": b"a\n", "b/c": b"c\n"}
    else:
        assert (consumer / "thing").read_text() == "one file\n"
    assert "nothing new" in reg(consumer, "update").out
    reg(consumer, "sync", "--check")


def test_links_modes_and_empty_folders_are_updated(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make()
    place = acme.root / "set"
    write(place, {"run": "#!/bin/sh\n", "other": "other\n", "target": "t\n"})
    (place / "link").symlink_to("run")
    (place / "to-file").symlink_to("target")
    (place / "empty").mkdir()
    (place / "filled").mkdir()
    acme.add("set", {})
    reg(consumer, "import", acme.url, "set")
    (place / "run").chmod(0o755)
    (place / "link").unlink()
    (place / "link").symlink_to("other")
    (place / "to-file").unlink()
    (place / "empty").rmdir()
    (place / "new/empty").mkdir(parents=True)
    acme.add("set", {"to-file": "a file now\n", "filled/x": "x\n"})
    reg(consumer, "update")
    assert tree(consumer / "set") == tree(place)
    assert os.access(consumer / "set/run", os.X_OK)
    assert not (consumer / "set/to-file").is_symlink()
    assert not (consumer / "set/empty").exists()
    reg(consumer, "sync", "--check")


@pytest.mark.parametrize("link", ["hardlink", "copy"])
def test_only_changed_files_are_touched(make: Make, consumer: Path, reg: Reg, link: str) -> None:
    acme = make()
    acme.add("cats", {f"{number:03}.txt": f"file {number}\n" for number in range(300)})
    reg(consumer, "config", "link", link)
    reg(consumer, "import", acme.url, "cats")

    def stats() -> dict[str, tuple[int, int]]:
        found = {path.name: path.stat() for path in (consumer / "cats").iterdir()}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in found.items()}

    before = stats()
    acme.add("cats", {"007.txt": "changed\n", "300.txt": "new\n"}, gone=("100.txt",))
    reg(consumer, "update")
    after = stats()
    assert {name for name in before | after if before.get(name) != after.get(name)} == {"007.txt", "100.txt", "300.txt"}


def test_only_what_changed_is_fetched(cats: Published, consumer: Path, home: Path, reg: Reg) -> None:
    cats.add("cats", {"big.bin": os.urandom(5_000_000)})
    reg(consumer, "update")
    shutil.rmtree(home / "cache")
    cats.add("cats", {"train/4.png": FOUR})
    fetched = row(reg(consumer, "update", "--json"))["fetched"]
    assert isinstance(fetched, int)
    assert len(FOUR) <= fetched < 100_000


# --- several imports --------------------------------------------------------------------------------------------


def test_one_import_that_cannot_be_updated_does_not_stop_the_others(make: Make, consumer: Path, reg: Reg) -> None:
    good, gone = make("path", "good"), make("path", "gone")
    good.add("apples", {"a": "1\n"})
    good.add("zebras", {"z": "1\n"})
    gone.add("middle", {"m": "1\n"})
    for acme, name in ((good, "apples"), (gone, "middle"), (good, "zebras")):
        reg(consumer, "import", acme.url, name)
    good.add("apples", {"a": "2\n"})
    good.add("zebras", {"z": "2\n"})
    shutil.rmtree(gone.root)
    ran = reg(consumer, "update", code=3)
    assert str(gone.root) in one_sentence(ran.err)
    assert (consumer / "apples/a").read_text() == (consumer / "zebras/z").read_text() == "2\n"
    assert (consumer / "middle/m").read_text() == "1\n"
    states = {each["name"]: each["state"] for each in reg(consumer, "update", "--json", code=3).json["imports"]}
    assert states == {"apples": "current", "middle": "failed", "zebras": "current"}


def test_error_of_one_import_names_it(make: Make, consumer: Path, reg: Reg) -> None:
    acme = make()
    acme.add("prices", {"": "1\n"})
    reg(consumer, "import", acme.url, "prices", "-o", "vendor-prices")
    shutil.rmtree(acme.root)
    assert "vendor-prices" in reg(consumer, "update", code=3).err


def test_local_edits_in_one_import_do_not_stop_the_others(cats: Published, consumer: Path, reg: Reg) -> None:
    cats.add("dogs", {"1.png": b"dog"})
    reg(consumer, "import", cats.url, "dogs")
    edit(consumer / "cats/train/1.png", "mine")
    cats.add("cats", {"train/1.png": b"changed"})
    cats.add("dogs", {"1.png": b"new dog"})
    reg(consumer, "update", code=7)
    assert (consumer / "cats/train/1.png").read_text() == "mine"
    assert (consumer / "dogs/1.png").read_bytes() == b"new dog"


def test_broken_metafile_does_not_stop_the_others_and_the_exit_code_says_so(
    cats: Published, consumer: Path, reg: Reg
) -> None:
    (consumer / "broken.reg.yaml").write_text("reg: 1\npath: [\n")
    cats.add("cats", {"train/4.png": FOUR})
    ran = reg(consumer, "update", code=2)
    assert "broken.reg.yaml" in ran.err
    assert (consumer / "cats/train/4.png").read_bytes() == FOUR


def test_only_the_named_imports_are_updated(cats: Published, consumer: Path, reg: Reg) -> None:
    cats.add("dogs", {"1.png": b"dog"})
    reg(consumer, "import", cats.url, "dogs")
    cats.add("dogs", {"1.png": b"new dog"})
    cats.add("cats", {"train/4.png": FOUR})
    reg(consumer, "update", "dogs.reg.yaml")
    assert (consumer / "dogs/1.png").read_bytes() == b"new dog"
    assert not (consumer / "cats/train/4.png").exists()


def test_name_that_is_no_import_is_not_found_and_the_nearest_is_named(
    cats: Published, consumer: Path, reg: Reg
) -> None:
    ran = reg(consumer, "update", "cast", code=3)
    assert "cast" in one_sentence(ran.err)
    assert "cats" in ran.err.split("hint: ")[1]


def test_repository_that_imports_nothing_says_so(consumer: Path, reg: Reg) -> None:
    ran = reg(consumer, "update", code=3)
    assert "imports nothing" in one_sentence(ran.err)


@pytest.fixture
def behind(registry: Path, consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg) -> Path:
    """A consumer whose import of two files has another version, and that waits for the clock after it placed them."""
    monkeypatch.setattr(placing, "_WORTH_WAITING", 0)
    write(registry, {"data/a": "a", "data/b": "b"})
    reg(registry, "add", "data", "-m", "One")
    reg(registry, "push")
    reg(consumer, "import", registry, "data", "-m", "Import")
    reg(consumer, "status")
    write(registry, {"data/a": "1", "data/b": "2"})
    reg(registry, "add", "data", "-m", "Two")
    reg(registry, "push")
    return consumer


def test_what_an_update_placed_is_not_read_again(behind: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg) -> None:
    reg(behind, "update", "-m", "Update")

    def fail(path: str) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr("registree.operations.observing.hash_file", fail)
    assert "nothing changed" in reg(behind, "status").out


def test_edit_of_a_file_that_an_update_just_placed_is_seen(
    behind: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    real = placing._swap_in

    def disturbed(root: str, entry: Entry, path: str, remove_folder: Callable[[str], None]) -> None:
        real(root, entry, path, remove_folder)
        if entry.path == "a":  # as tools do that keep times
            (behind / "data/a").unlink()
            (behind / "data/a").write_bytes(b"x")
            os.utime(behind / "data/a", (1_000_000_000, 1_000_000_000))

    monkeypatch.setattr(placing, "_swap_in", disturbed)
    reg(behind, "update", "-m", "Update")
    assert "~ a" in reg(behind, "status").out
