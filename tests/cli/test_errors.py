"""Bad input gets one sentence, a hint and the right exit code, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from registree import errors
from registree.cli.app import VERBS, build
from registree.cli.output import EXIT_CODES
from tests.conftest import Reg, git, tree, write


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


@pytest.fixture
def published(registry: Path, reg: Reg) -> Path:
    """A registry with one dataset, pushed and tagged."""
    write(registry, {"images/cats-dogs/a.txt": "a", "images/cats-dogs/b.txt": "b"})
    reg(registry, "add", "images/cats-dogs", "-m", "Add")
    reg(registry, "push")
    git(registry, "tag", "v1")
    return registry


def test_every_kind_of_error_has_an_exit_code() -> None:
    kinds = [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.RegError) and value is not errors.RegError
    ]
    assert len(kinds) >= 10
    for kind in kinds:
        assert any(issubclass(kind, known) for known in EXIT_CODES), kind
    assert len({kind.kind for kind in kinds}) == len(kinds)


def test_unknown_dataset_names_the_nearest(published: Path, tmp_path: Path, reg: Reg) -> None:
    ran = reg(tmp_path, "get", published, "images/cats-dgos", code=3)
    assert "images/cats-dogs" in ran.err
    assert not (tmp_path / "cats-dgos").exists()


def test_unknown_revision_names_the_nearest(published: Path, tmp_path: Path, reg: Reg) -> None:
    git(published, "tag", "spring-2024")
    ran = reg(tmp_path, "get", published, "images/cats-dogs@spring-2025", code=3)
    assert "spring-2024" in ran.err
    assert not [path for path in tmp_path.iterdir() if "cats-dogs" in path.name]


@pytest.mark.parametrize("name", ["../x", "/etc", "a/../../b", "", ".git/x", "a//b"])
def test_name_that_no_dataset_can_have_is_refused(published: Path, tmp_path: Path, reg: Reg, name: str) -> None:
    ran = reg(tmp_path, "get", published, name, code=None)
    assert ran.code in (2, 3)
    assert "Traceback" not in ran.err


def test_error_is_an_object_with_json(published: Path, tmp_path: Path, reg: Reg) -> None:
    ran = reg(tmp_path, "get", published, "nothing", "--json", code=3)
    assert ran.json["schema"] == "reg.error/1"
    assert ran.json["kind"] == "not-found"
    assert ran.json["message"] in ran.err


def test_metafile_that_is_not_yaml_is_named_and_does_not_stop_the_others(published: Path, reg: Reg) -> None:
    (published / "broken.reg.yaml").write_text("reg: [1\n")
    ran = reg(published, "status")
    assert "broken.reg.yaml" in ran.out
    assert "Traceback" not in ran.err


def test_metafile_of_a_newer_version_says_to_upgrade(published: Path, reg: Reg) -> None:
    path = published / "images/cats-dogs.reg.yaml"
    path.write_text(path.read_text().replace("reg: 1", "reg: 2"))
    ran = reg(published, "checkout", "images/cats-dogs", code=2)
    assert "format 2" in ran.err
    assert "pip install --upgrade" in ran.err


def test_registry_file_with_a_secret_is_refused(published: Path, reg: Reg) -> None:
    ran = reg(published, "remote", "add", "s3", "s3://bucket/x", "--option", "secret=hunter2", code=2)
    assert "looks like a secret" in ran.err
    assert "hunter2" not in ran.err + ran.out + (published / "reg.yaml").read_text()
    ran = reg(published, "remote", "add", "web", "https://user:hunter2@example.org/x", code=2)
    assert "hunter2" not in ran.err + ran.out + (published / "reg.yaml").read_text()


def test_command_outside_a_repository_says_so(tmp_path: Path, reg: Reg) -> None:
    ran = reg(tmp_path, "status", code=3)
    assert "not in a Git repository" in ran.err
    assert "hint:" in ran.err


def test_add_where_there_is_no_registry_says_reg_init(consumer: Path, reg: Reg) -> None:
    (consumer / "file").write_text("x")
    ran = reg(consumer, "add", "file", code=2)
    assert "reg init" in ran.err
    assert git(consumer, "status", "--short").split() == ["??", "file"]


def test_usage_errors_are_exit_code_2(tmp_path: Path, reg: Reg) -> None:
    assert reg(tmp_path, "nonsense", code=2).out == ""
    assert reg(tmp_path, "get", code=2).out == ""
    assert reg(tmp_path, "diff", "--format", "pdf", code=2).out == ""


def test_get_of_an_existing_target_is_refused_and_forced(published: Path, tmp_path: Path, reg: Reg) -> None:
    write(tmp_path / "cats-dogs", {"own.txt": "mine"})
    reg(tmp_path, "get", published, "images/cats-dogs", code=7)
    assert tree(tmp_path / "cats-dogs") == {"own.txt": b"mine"}
    reg(tmp_path, "get", published, "images/cats-dogs", "--force")
    assert tree(tmp_path / "cats-dogs") == {"a.txt": b"a", "b.txt": b"b"}


def test_names_are_escaped_on_the_terminal(registry: Path, reg: Reg) -> None:
    write(registry, {"d/evil\x1b[2J.txt": "x"})
    reg(registry, "add", "d", "-m", "Add")
    ran = reg(registry, "files", "d")
    assert "\x1b" not in ran.out
    assert "evil" in ran.out
    assert ran.code == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_remote_is_one_sentence(registry: Path, reg: Reg) -> None:
    write(registry, {"a.txt": "a"})
    reg(registry, "add", "a.txt", "-m", "Add")
    os.chmod(registry / ".reg/remote", 0o555)
    try:
        ran = reg(registry, "push", code=4)
    finally:
        os.chmod(registry / ".reg/remote", 0o755)
    assert len(_lines(ran.err)) <= 2


def test_version_imports_next_to_nothing() -> None:
    code = """
import os, sys
sys.argv = ["reg", "--version"]
os._exit = sys.exit
import registree.cli
try:
    registree.cli.main()
finally:
    print(len(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    version, modules = done.stdout.split("\n")[:2]
    assert version.startswith("reg ")
    assert int(modules) <= 75


def test_verbs_are_listed_with_what_they_say_of_themselves() -> None:
    full, listing = get_command(build()), get_command(build(listing=True))
    assert isinstance(full, TyperGroup)
    assert isinstance(listing, TyperGroup)
    assert list(full.commands) == list(listing.commands) == list(VERBS)
    for name, command in full.commands.items():
        assert command.get_short_help_str(500) == VERBS[name].summary
        assert listing.commands[name].get_short_help_str(500) == VERBS[name].summary


def test_list_of_verbs_imports_none_of_them() -> None:
    code = "import sys; from registree.cli.app import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sync" in done.stdout
    modules = done.stdout.splitlines()[-1].split()
    assert not [name for name in modules if name.startswith(("dulwich", "registree.operations", "yaml"))]


@pytest.mark.parametrize("verb", ["status", "add", "push"])
def test_verbs_on_local_data_do_not_import_what_is_slow(published: Path, verb: str) -> None:
    arguments = {"status": ["status"], "add": ["add", "images/cats-dogs"], "push": ["push"]}[verb]
    code = (
        f"import json, os, sys; os.chdir({str(published)!r}); from registree.cli.app import run; run({arguments!r});"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.strip().splitlines()[-1])
    loaded = {name.split(".")[0] for name in modules}
    assert not loaded & {"fsspec", "s3fs", "boto3", "aiohttp", "requests", "rich", "pydantic", "pyarrow"}
    assert verb != "status" or len(modules) <= 350


def test_json_answers_name_their_schema(published: Path, consumer: Path, tmp_path: Path, reg: Reg) -> None:
    for arguments in (
        ["status"],
        ["list"],
        ["show", "images/cats-dogs"],
        ["files", "images/cats-dogs"],
        ["push"],
        ["verify"],
        ["verify", "--remote"],
        ["diff"],
        ["remote", "list"],
        ["config"],
        ["cache", "size"],
        ["pull"],
        ["checkout"],
    ):
        answer = reg(published, *arguments, "--json").json
        words = [word for word in arguments if word.isalpha()]
        assert answer["schema"] == f"reg.{'.'.join(words)}/1"
    answer = reg(consumer, "import", published, "images/cats-dogs", "--json").json
    assert answer["schema"] == "reg.import/1"
    assert answer["metafile"]["lock"]["files"] == 2
    assert reg(consumer, "update", "--json").json["imports"][0]["state"] == "current"
    assert reg(consumer, "sync", "--check", "--json").json["imports"][0]["state"] == "in sync"
    assert reg(tmp_path, "get", published, "images/cats-dogs", "--json").json["files"] == 2


def test_quiet_prints_nothing(published: Path, consumer: Path, reg: Reg) -> None:
    for cwd, arguments in (
        (published, ["status"]),
        (consumer, ["import", published, "images/cats-dogs"]),
        (consumer, ["update"]),
    ):
        ran = reg(cwd, *arguments, "-q")
        assert (ran.out, ran.err) == ("", "")


@pytest.mark.parametrize("verb", ["--version", "list", "list --json", "show images/none --json", "status"])
@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "2>&-", "2>/dev/full", ">/dev/full 2>&-"])
def test_answer_that_cannot_be_written_is_no_traceback(published: Path, verb: str, streams: str) -> None:
    command = f"{sys.executable} -m registree {verb} {streams}"
    ran = subprocess.run(["bash", "-c", command], cwd=published, capture_output=True, text=True, check=False)
    assert "Traceback" not in ran.stderr
    missing = verb.startswith("show")
    unsaid = streams.startswith(">/dev/full") or (streams == "2>/dev/full" and ran.returncode == 5)
    assert ran.returncode == (3 if missing else 5 if unsaid else 0)
    assert len(_lines(ran.stderr)) <= 2
