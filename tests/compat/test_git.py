"""Git side by side: what reg writes is read by the `git` command, and what `git` writes is seen by reg."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import Reg, git, write

NAMES = [
    "plain",
    "two words",
    " leading space",
    "trailing space ",
    "two trailing  ",
    "#hash",
    "!bang",
    "-dash",
    "--help",
    "it's",
    'a"quote',
    "[a-z]",
    "a[1]*?",
    "back\\slash",
    "back\\",
    "new\nline",
    "carriage\rreturn",
    "tab\there",
    "ends in tab\t",
    "*",
    "?",
    "\\#",
    "\\!x",
    "ümlaut é",
    "e\u0301 decomposed",
    "日本語",
    "😀",
    "a\u2028b",
    "$HOME",
    "%s",
    "~",
    "**",
    "a,b;c|d&e",
    "x" * 240,
]
"""Names that mean something to Git, to a shell, to YAML or to an ignore file."""


def clean(place: Path) -> bool:
    """Tell whether `git` sees nothing to commit; what differs is shown when it fails."""
    found = git(place, "status", "--porcelain")
    assert found == ""
    return True


def sound(place: Path) -> bool:
    """Tell whether `git fsck --strict` finds nothing wrong."""
    done = subprocess.run(["git", "fsck", "--strict", "--full"], cwd=place, capture_output=True, text=True, check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("dangling", "notice:"))]
    assert (done.returncode, said) == (0, [])
    return True


def ignored(place: Path, name: str) -> bool:
    """Ask `git check-ignore` about one path."""
    done = subprocess.run(["git", "check-ignore", "-q", "--", name], cwd=place, check=False)
    assert done.returncode in (0, 1)
    return done.returncode == 0


def tracked_files(place: Path) -> list[str]:
    """Ask `git ls-files`, byte for byte."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=place, capture_output=True, check=True)
    return [os.fsdecode(name) for name in done.stdout.split(b"\0")]


def add(reg: Reg, place: Path, name: str, message: str | None = "Add") -> None:
    """Run `reg add` on a name that may look like an option."""
    reg(place, "add", *(["-m", message] if message is not None else []), "--", name)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_dataset_of_any_name_is_ignored_by_git_and_its_metafile_committed(registry: Path, reg: Reg, name: str) -> None:
    write(registry, {f"{name}/file": b"payload"})
    add(reg, registry, name)
    assert clean(registry)
    assert sound(registry)
    assert ignored(registry, f"{name}/file")
    tracked = tracked_files(registry)
    assert f"{name}.reg.yaml" in tracked
    assert f"{name}/file" not in tracked
    assert not ignored(registry, f"{name}.reg.yaml")


@pytest.mark.parametrize("name", [name for name in NAMES if not any(c in name for c in "\r\n")], ids=ascii)
def test_ignore_line_hides_the_dataset_and_nothing_else(registry: Path, reg: Reg, name: str) -> None:
    write(registry, {name: b"payload"})
    add(reg, registry, name)
    for other in (f"{name[:200]}x", f"x{name[:200]}", f"sub/{name}", name.strip() + "  x", name.replace("\\", "")):
        if other not in (name, ""):
            assert not ignored(registry, other), other


def test_all_names_in_one_registry_and_out_of_it_again(registry: Path, reg: Reg) -> None:
    before = (registry / ".gitignore").read_bytes()
    write(registry, dict.fromkeys(NAMES, b"payload"))
    reg(registry, "add", "-m", "Add", "--", *NAMES)
    assert clean(registry)
    assert sorted(row["name"] for row in reg(registry, "list", "--json").json["datasets"]) == sorted(NAMES)
    for name in NAMES:
        reg(registry, "remove", "-m", "Remove", "--force", "--", name)
    assert (registry / ".gitignore").read_bytes() == before
    assert clean(registry)


def test_reg_agrees_with_git_about_an_ignore_file_of_the_users(registry: Path, reg: Reg) -> None:
    write(registry, {".gitignore": (registry / ".gitignore").read_bytes() + b"# mine\r\n*.tmp\r\nno-newline"})
    git(registry, "add", ".gitignore")
    git(registry, "commit", "-qm", "Mine")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add")
    text = (registry / ".gitignore").read_bytes()
    assert b"# mine\r\n*.tmp\r\nno-newline" in text
    assert ignored(registry, "no-newline")
    assert ignored(registry, "d/x")
    assert clean(registry)


def test_metafile_that_an_ignore_file_of_the_users_names_is_committed_all_the_same(registry: Path, reg: Reg) -> None:
    write(registry, {".gitignore": (registry / ".gitignore").read_bytes() + b"*.yaml\n"})
    git(registry, "add", "-f", ".gitignore")
    git(registry, "commit", "-qm", "Mine")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add")
    assert "d.reg.yaml" in git(registry, "ls-files").splitlines()


def test_commit_is_one_that_git_could_have_made(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d\n\nWith a body, ä.")
    shown = git(registry, "log", "-1", "--format=%an|%ae|%cn|%s|%b|%P").strip()
    parent = git(registry, "rev-parse", "HEAD~1").strip()
    assert shown == f"Test|test@example.org|Test|Add d|With a body, ä.\n|{parent}".replace("\n|", "\n|")
    assert git(registry, "show", "--stat", "--format=", "HEAD").count("|") == 2
    assert "commit: Add d" in git(registry, "reflog", "-1")
    modes = {line.split()[0] for line in git(registry, "ls-files", "-s").splitlines()}
    assert modes == {"100644"}
    assert sound(registry)


def test_author_and_time_zone_are_those_that_git_takes(
    registry: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada Änd")
    monkeypatch.setenv("GIT_AUTHOR_EMAIL", "ada@example.org")
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        write(registry, {"d/x": b"1", "e": b"2"})
        reg(registry, "add", "d", "-m", "Add d")
        git(registry, "commit", "-q", "--allow-empty", "-m", "By git")
        mine, theirs = git(registry, "log", "-2", "--format=%an <%ae> %ad", "--date=format:%z").splitlines()[::-1]
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert mine == theirs


def test_staged_work_of_the_user_stays_out_of_the_commit_and_staged(registry: Path, reg: Reg) -> None:
    write(registry, {"code.py": "one\n", "other.py": "x\n"})
    git(registry, "add", "code.py", "other.py")
    git(registry, "commit", "-qm", "Code")
    write(registry, {"code.py": "two\n", "new.py": "new\n", "d/x": b"1"})
    git(registry, "add", "code.py", "new.py")
    git(registry, "rm", "-q", "--cached", "other.py")
    reg(registry, "add", "d", "-m", "Add d")
    assert set(git(registry, "show", "--name-only", "--format=", "HEAD").split()) == {".gitignore", "d.reg.yaml"}
    assert git(registry, "status", "--porcelain").splitlines() == [
        "M  code.py",
        "A  new.py",
        "D  other.py",
        "?? other.py",
    ]
    assert sound(registry)


def test_edit_of_the_ignore_file_that_is_not_staged_stays_so(registry: Path, reg: Reg) -> None:
    with (registry / ".gitignore").open("a") as file:
        file.write("mine\n")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    assert "mine" not in git(registry, "show", "HEAD:.gitignore")
    assert "mine" in (registry / ".gitignore").read_text()
    assert git(registry, "diff", "--numstat").split() == ["1", "0", ".gitignore"]


def test_add_without_a_message_stages_what_git_then_commits(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d")
    assert set(git(registry, "diff", "--cached", "--name-only").split()) == {".gitignore", "d.reg.yaml"}
    git(registry, "commit", "-qm", "By git")
    assert clean(registry)
    found = reg(registry, "status", "--json").json
    assert "d" in str(found)
    reg(registry, "commit", "-m", "Nothing", code=None)
    assert git(registry, "log", "-1", "--format=%s").strip() == "By git"


def test_git_add_between_two_adds_is_kept(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d")
    write(registry, {"code.py": "x\n", "e/y": b"2"})
    git(registry, "add", "code.py")
    reg(registry, "add", "e")
    reg(registry, "commit", "-m", "Both")
    assert git(registry, "status", "--porcelain").splitlines() == ["A  code.py"]
    assert {"d.reg.yaml", "e.reg.yaml"} <= set(git(registry, "show", "--name-only", "--format=", "HEAD").split())


def test_git_add_all_takes_no_payload_in(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1", "f.csv": b"2", "code.py": b"3"})
    reg(registry, "add", "d", "f.csv", "-m", "Add")
    git(registry, "add", "-A")
    assert git(registry, "diff", "--cached", "--name-only").split() == ["code.py"]


def test_commit_by_git_is_seen_by_reg(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"one"})
    reg(registry, "add", "d", "-m", "One")
    metafile = (registry / "d.reg.yaml").read_text()
    write(registry, {"d/x": b"other", "d/y": b"two"})
    reg(registry, "add", "d", "-m", "Two")
    reg(registry, "push")
    git(registry, "revert", "--no-edit", "HEAD")
    assert (registry / "d.reg.yaml").read_text() == metafile
    found = reg(tmp_path, "files", f"{registry}", "d", code=None)
    listed = found.out if found.code == 0 else reg(registry, "files", "d").out
    assert "y" not in listed.split()
    reg(registry, "checkout", "--force")
    assert (registry / "d/x").read_bytes() == b"one"
    assert clean(registry)


def test_metafile_with_a_merge_conflict_is_named_and_does_not_stop_the_others(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1", "e/x": b"1"})
    reg(registry, "add", "d", "e", "-m", "Base")
    git(registry, "checkout", "-qb", "side")
    write(registry, {"d/x": b"side"})
    reg(registry, "add", "d", "-m", "Side")
    git(registry, "checkout", "-q", "main")
    write(registry, {"d/x": b"main, longer"})
    reg(registry, "add", "d", "-m", "Main")
    git(registry, "merge", "-q", "side", check=False)
    assert "<<<<<<<" in (registry / "d.reg.yaml").read_text()
    found = reg(registry, "status", code=None)
    assert "d.reg.yaml" in found.out + found.err
    assert "Traceback" not in found.err
    write(registry, {"f/x": b"new"})
    reg(registry, "add", "f")
    assert "UU d.reg.yaml" in git(registry, "status", "--porcelain").splitlines()


# --- the shapes a repository can have ---------------------------------------------------------------------------------


def test_first_commit_of_a_repository_can_be_by_reg(tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk", "r")
    place = tmp_path / "r"
    write(place, {"staged.py": "x\n"})
    git(place, "add", "staged.py")
    reg(place, "init")
    assert git(place, "rev-list", "--count", "HEAD").strip() == "1"
    assert git(place, "symbolic-ref", "HEAD").strip() == "refs/heads/trunk"
    assert git(place, "status", "--porcelain").splitlines() == ["A  staged.py"]
    assert sound(place)


def test_import_into_a_repository_without_a_commit(registry: Path, consumer: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add")
    reg(registry, "push")
    reg(consumer, "import", registry, "d")
    assert ignored(consumer, "d/x")
    git(consumer, "commit", "-qm", "First")
    assert clean(consumer)
    assert "d.reg.yaml" in git(consumer, "ls-files").split()


def test_detached_head_moves_and_no_branch_with_it(registry: Path, reg: Reg) -> None:
    git(registry, "checkout", "-q", "--detach")
    branch = git(registry, "rev-parse", "main")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Detached")
    assert git(registry, "rev-parse", "main") == branch
    assert git(registry, "log", "-1", "--format=%s").strip() == "Detached"
    assert git(registry, "symbolic-ref", "-q", "HEAD", check=False) == ""
    reg(registry, "status")
    assert clean(registry)
    assert sound(registry)


def test_linked_worktree_is_a_repository_of_its_own(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    reg(registry, "push")
    other = tmp_path / "other"
    git(registry, "worktree", "add", "-q", "-b", "side", str(other))
    main = git(registry, "rev-parse", "main")
    write(other, {"e/y": b"2"})
    reg(other, "add", "e", "-m", "Add e")
    assert git(other, "log", "-1", "--format=%s").strip() == "Add e"
    assert git(registry, "rev-parse", "main") == main
    assert git(registry, "rev-parse", "side") == git(other, "rev-parse", "HEAD")
    assert clean(other)
    assert clean(registry)
    assert reg(other, "status").code == 0
    write(registry, {"f/z": b"3"})
    reg(registry, "add", "f", "-m", "Add f")
    assert git(registry, "log", "-1", "--format=%s").strip() == "Add f"
    assert not (registry / "e.reg.yaml").exists()


def test_payload_of_the_main_work_tree_can_be_checked_out_in_a_linked_one(
    registry: Path, tmp_path: Path, reg: Reg
) -> None:
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    reg(registry, "push")
    other = tmp_path / "other"
    git(registry, "worktree", "add", "-q", "-b", "side", str(other))
    reg(other, "checkout")
    assert (other / "d/x").read_bytes() == b"1"


def test_packed_refs_and_packed_objects_are_read(registry: Path, consumer: Path, reg: Reg) -> None:
    for number in range(3):
        write(registry, {"d/x": f"{number}".encode()})
        reg(registry, "add", "d", "-m", f"Version {number}")
        git(registry, "tag", f"light-{number}")
        git(registry, "tag", "-a", f"d@v1.{number}.0", "-m", "Release")
    reg(registry, "push")
    git(registry, "pack-refs", "--all", "--prune")
    git(registry, "gc", "-q", "--prune=now")
    assert not list((registry / ".git/refs/tags").rglob("*1*"))
    for rev, content in {"light-0": b"0", "1.1.0": b"1", "latest": b"2", "^1.0": b"2", "d@v1.0.0": b"0"}.items():
        reg(consumer, "get", registry, "d", "--rev", rev, "-o", f"out-{rev.replace('@', '-')}")
        assert (consumer / f"out-{rev.replace('@', '-')}" / "x").read_bytes() == content
    write(registry, {"d/x": b"after"})
    reg(registry, "add", "d", "-m", "After packing")
    assert git(registry, "log", "-1", "--format=%s").strip() == "After packing"
    assert sound(registry)


def test_tag_of_a_tag_leads_to_the_commit(registry: Path, consumer: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"one"})
    reg(registry, "add", "d", "-m", "One")
    reg(registry, "push")
    git(registry, "tag", "-a", "inner", "-m", "Inner")
    git(registry, "tag", "-a", "outer", "-m", "Outer", "inner")
    commit = git(registry, "rev-parse", "HEAD").strip()
    write(registry, {"d/x": b"two"})
    reg(registry, "add", "d", "-m", "Two")
    reg(registry, "push")
    reg(consumer, "import", registry, "d", "--rev", "outer")
    assert (consumer / "d/x").read_bytes() == b"one"
    assert commit in (consumer / "d.reg.yaml").read_text()


def test_tag_on_something_that_is_no_commit_stops_nothing(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"one"})
    reg(registry, "add", "d", "-m", "One")
    blob = git(registry, "rev-parse", "HEAD:d.reg.yaml").strip()
    git(registry, "tag", "blob", blob)
    git(registry, "tag", "-a", "tree", "-m", "Tree", "HEAD^{tree}")
    reg(registry, "push")
    assert reg(registry, "list", "--rev", "blob", code=None).code == 3


@pytest.mark.parametrize(
    "spelled", ["HEAD", "HEAD~1", "main~1", "main^", "@{0}", "short", "full", "side", "v1", "HEAD^0"]
)
def test_revisions_mean_what_git_says(registry: Path, reg: Reg, spelled: str) -> None:
    write(registry, {"d/x": b"one"})
    reg(registry, "add", "d", "-m", "One")
    git(registry, "branch", "side")
    git(registry, "tag", "-a", "v1", "-m", "Tag")
    write(registry, {"d/x": b"two"})
    reg(registry, "add", "d", "-m", "Two")
    rev = {"short": git(registry, "rev-parse", "--short", "HEAD~1").strip()}.get(spelled, spelled)
    rev = git(registry, "rev-parse", "HEAD~1").strip() if spelled == "full" else rev
    found = reg(registry, "cat", f"d@{rev}:x", code=None)
    if spelled == "@{0}":
        assert found.code in (0, 2, 3)
        return
    expected = git(registry, "show", f"{rev}:d.reg.yaml")
    assert found.raw == (b"two" if expected == git(registry, "show", "HEAD:d.reg.yaml") else b"one")


def test_index_of_a_newer_version_and_split_index_are_read(registry: Path, reg: Reg) -> None:
    write(registry, {"code/a.py": "x\n", "code/b.py": "y\n"})
    git(registry, "add", "code")
    git(registry, "update-index", "--index-version", "4")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    assert git(registry, "status", "--porcelain").splitlines() == ["A  code/a.py", "A  code/b.py"]
    assert sound(registry)


def test_flags_that_the_user_set_in_the_index_survive(registry: Path, reg: Reg) -> None:
    write(registry, {"config.ini": "a\n", "later.py": "x\n"})
    git(registry, "add", "config.ini")
    git(registry, "commit", "-qm", "Config")
    git(registry, "update-index", "--skip-worktree", "config.ini")
    git(registry, "add", "--intent-to-add", "later.py")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    assert "S config.ini" in git(registry, "ls-files", "-v").splitlines()
    assert " A later.py" in git(registry, "status", "--porcelain").splitlines()


def test_executable_files_links_and_submodules_of_the_user_survive(registry: Path, tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "init", "-q", "library")
    git(tmp_path / "library", "commit", "-q", "--allow-empty", "-m", "Library")
    write(registry, {"run.sh": "#!/bin/sh\n"})
    (registry / "run.sh").chmod(0o755)
    (registry / "link").symlink_to("run.sh")
    git(registry, "add", "run.sh", "link")
    git(registry, "submodule", "--quiet", "add", str(tmp_path / "library"), "vendored")
    git(registry, "commit", "-qm", "Shapes")
    before = git(registry, "ls-tree", "HEAD", "run.sh", "link", "vendored")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    reg(registry, "status")
    assert git(registry, "ls-tree", "HEAD", "run.sh", "link", "vendored") == before
    assert clean(registry)


def test_deep_tree_of_a_commit_sorts_as_git_sorts(registry: Path, reg: Reg) -> None:
    names = ["a", "a.b", "a-b", "a0", "b/a", "b/a.b", "b/a-b", "b.c/d"]
    for name in names:
        write(registry, {f"{name}/x/file": name})
    reg(registry, "add", *[f"{name}/x" for name in names], "-m", "Add")
    assert sound(registry)
    assert clean(registry)


def test_lock_of_a_running_git_is_waited_for(registry: Path, reg: Reg) -> None:
    write(registry, {"d/x": b"1"})
    lock = registry / ".git/index.lock"
    lock.touch()
    waiter = subprocess.Popen(["sh", "-c", f"sleep 0.7; rm '{lock}'"])
    try:
        reg(registry, "add", "d", "-m", "Add d")
    finally:
        waiter.wait()
    assert clean(registry)


def test_git_that_was_never_told_who_commits_is_said_so_and_nothing_is_left(
    tmp_path: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    for name in ("EMAIL", "USER", "LOGNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    found = reg(tmp_path, "init", "r", code=None)
    if found.code:
        assert "git config" in found.err
    else:
        assert git(tmp_path / "r", "log", "-1", "--format=%ae").strip()


def test_separate_git_directory_is_found(tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "init", "-q", "--separate-git-dir", str(tmp_path / "control"), "r")
    reg(tmp_path / "r", "init")
    write(tmp_path / "r", {"d/x": b"1"})
    reg(tmp_path / "r", "add", "d", "-m", "Add")
    assert clean(tmp_path / "r")
    assert sound(tmp_path / "r")


def test_repository_that_lies_behind_a_link_is_one_repository(registry: Path, tmp_path: Path, reg: Reg) -> None:
    (tmp_path / "link").symlink_to(registry)
    write(registry, {"d/x": b"1"})
    reg(tmp_path / "link", "add", tmp_path / "link/d", "-m", "Add")
    assert clean(registry)
    assert os.path.exists(registry / "d.reg.yaml")


def test_sha256_repository_is_used_or_refused_in_a_sentence(tmp_path: Path, reg: Reg) -> None:
    git(tmp_path, "init", "-q", "--object-format=sha256", "r")
    found = reg(tmp_path / "r", "init", code=None)
    assert "Traceback" not in found.err
    if found.code == 0:
        write(tmp_path / "r", {"d/x": b"1"})
        reg(tmp_path / "r", "add", "d", "-m", "Add")
        assert clean(tmp_path / "r")
        assert sound(tmp_path / "r")
    else:
        assert "sha256" in found.err.lower()


def test_shallow_clone_can_be_worked_in(registry: Path, tmp_path: Path, reg: Reg) -> None:
    for number in range(3):
        write(registry, {"d/x": f"{number}".encode()})
        reg(registry, "add", "d", "-m", f"Version {number}")
    reg(registry, "push")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{registry}", "shallow")
    place = tmp_path / "shallow"
    reg(place, "pull")
    assert (place / "d/x").read_bytes() == b"2"
    write(place, {"e/x": b"new"})
    reg(place, "add", "e", "-m", "Add e")
    assert clean(place)
    reg(place, "status")


def test_partial_clone_is_told_what_is_missing(registry: Path, tmp_path: Path, reg: Reg) -> None:
    for number in range(3):
        write(registry, {"d/x": f"{number}".encode()})
        reg(registry, "add", "d", "-m", f"Version {number}")
    reg(registry, "push")
    git(registry, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{registry}", "partial")
    place = tmp_path / "partial"
    reg(place, "pull")
    ran = reg(place, "verify", "--remote", code=3)
    assert "git fetch --refetch --no-filter" in ran.err
    git(place, "fetch", "-q", "--refetch", "--no-filter")
    assert reg(place, "verify", "--remote", "--json").json["versions"] == 3


@pytest.mark.parametrize(("name", "value"), [("extensions.newFangled", "true"), ("core.repositoryFormatVersion", "9")])
def test_repository_of_an_unknown_kind_is_named(registry: Path, reg: Reg, name: str, value: str) -> None:
    git(registry, "config", "core.repositoryFormatVersion", "1")
    git(registry, "config", name, value)
    assert "which reg does not know" in reg(registry, "status", code=2).err


def test_path_that_is_no_text_is_refused_and_nothing_is_made_there(tmp_path: Path, reg: Reg) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    place.mkdir()
    ran = reg(place, "init", "registry", code=2)
    assert "no UTF-8" in ran.err
    assert not list(place.iterdir())
    git(place, "init", "-q")
    assert "no UTF-8" in reg(place, "status", code=2).err


def test_work_tree_with_line_end_conversion_stays_clean(registry: Path, reg: Reg) -> None:
    git(registry, "config", "core.autocrlf", "true")
    write(registry, {".gitattributes": "*.yaml text eol=crlf\n"})
    git(registry, "add", ".gitattributes")
    git(registry, "commit", "-qm", "Attributes")
    write(registry, {"d/x": b"1"})
    reg(registry, "add", "d", "-m", "Add d")
    assert clean(registry)
    git(registry, "checkout", "-q", "HEAD~1")
    git(registry, "checkout", "-q", "main")
    assert b"\r\n" in (registry / "d.reg.yaml").read_bytes()
    reg(registry, "status")
    write(registry, {"d/x": b"22"})
    reg(registry, "add", "d", "-m", "Again")
    assert clean(registry)
