"""What each tool does for each job: shell commands, run in a folder of the tool's own.

In them stand ``{reg}`` and other commands, ``{data}`` (what is to be stored), ``{place}`` (the tool's folder),
``{bucket}`` and ``{endpoint}`` (an S3 server). A tool that has no command for a job is not measured in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import append, change, write_files

REG, DVC, LFS, GIT, LIMIT = "reg", "DVC", "Git LFS", "Git", "limit"
S5CMD = "s5cmd"
"""`limit` is what the machine can do: reading the bytes into one file that is on the disk then, or `cp -r`."""


@dataclass(frozen=True)
class Job:
    """One step of a script. Without a name it prepares, and is not measured.

    `edit` changes a tool's work tree before the commands run.
    """

    name: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    edit: Callable[[Path], None] | None = None


_STORE = "find {data} -type f -exec cat {{}} + > stored && sync stored"
_COMMIT = "git add -A && git commit -qm"
_DVC_ADD = "cd registry && {dvc} add -q data && " + _COMMIT
_GIT_ADD = "cd registry && " + _COMMIT
_GIT_INIT = "git init -q registry; git init -q --bare hub; cd registry; git remote add hub ../hub; "
_LFS_INIT = _GIT_INIT + "git lfs install --local >/dev/null; git lfs track 'data/**' data >/dev/null; "
_DVC_INIT = (
    "git init -q consumer; (cd consumer; {dvc} init -q; git commit -qm init); " + _GIT_INIT + "{dvc} init -q; "
    "{dvc} remote add -q -d r REMOTE; "
)


def _script(remote: str, dvc_remote: str, reg_remote: str = "") -> list[Job]:
    """Return the jobs up to import, on one kind of remote."""
    return [
        Job(
            commands={
                REG: f"{{reg}} init registry --remote {remote}; git init -q --bare hub; git init -q consumer; "
                f"cd registry; git remote add hub ../hub; {reg_remote}cp -r {{data}} data",
                DVC: _DVC_INIT.replace("REMOTE", dvc_remote) + "git commit -qm init; cp -r {data} data",
                LFS: _LFS_INIT + "cp -r {data} data",
                GIT: _GIT_INIT + "cp -r {data} data",
            }
        ),
        Job(
            "add",
            {
                REG: "cd registry && {reg} add data -m one",
                DVC: _DVC_ADD + " one",
                LFS: _GIT_ADD + " one",
                GIT: _GIT_ADD + " one",
                LIMIT: _STORE,
            },
        ),
    ]


_PUSH_AND_IMPORT = [
    Job(
        "push",
        {
            REG: "cd registry && {reg} push",
            DVC: "cd registry && {dvc} push -q",
            LFS: "cd registry && git push -q hub HEAD",
            GIT: "cd registry && git push -q hub HEAD",
            LIMIT: "cp -r {data} pushed",
            S5CMD: "{s5cmd} --endpoint-url {endpoint} cp {data_s5} s3://{bucket}/data/",
        },
    ),
    Job(commands={REG: "cd registry && git push -q hub HEAD", DVC: "cd registry && git push -q hub HEAD"}),
    Job(
        "import",
        {
            REG: "cd consumer && {reg} import file://{place}/hub data",
            DVC: "cd consumer && {dvc} import -q file://{place}/hub data",
            LFS: "git clone -q file://{place}/hub consumer",
            GIT: "git clone -q file://{place}/hub consumer",
            LIMIT: "cp -r {data} imported",
            S5CMD: "{s5cmd} --endpoint-url {endpoint} cp 's3://{bucket}/data/*' got/",
        },
    ),
]
_SHARE = "git push -q hub HEAD"
_UPDATE = {
    REG: "cd consumer && {reg} update",
    DVC: "cd consumer && {dvc} update -q data.dvc",
    LFS: "cd consumer && git pull -q",
    GIT: "cd consumer && git pull -q",
}
_ADD_AGAIN = {
    REG: "cd registry && {reg} add data -m next",
    DVC: _DVC_ADD + " next",
    LFS: _GIT_ADD + " next",
    GIT: _GIT_ADD + " next",
}
_PUSH_AGAIN = {
    REG: "cd registry && {reg} push",
    DVC: "cd registry && {dvc} push -q",
    LFS: "cd registry && git push -q hub HEAD",
    GIT: "cd registry && git push -q hub HEAD",
}
_SHARE_AGAIN = Job(commands={REG: "cd registry && " + _SHARE, DVC: "cd registry && " + _SHARE})


def _new_files(count: int, size: int) -> Callable[[Path], None]:
    """Return an edit that adds files."""

    def edit(place: Path) -> None:
        write_files(place / "registry/data", range(5_000_000, 5_000_000 + count), size, seed=7)

    return edit


def _change(share: float) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        change(place / "registry/data", share)

    return edit


def on_a_directory(count: int, size: int) -> list[Job]:
    """Return the whole script: many files, in a remote that is a directory."""
    return [
        *_script("{place}/remote", "{place}/remote"),
        Job(
            "add again, nothing changed",
            {
                REG: "cd registry && {reg} add data -m none",
                DVC: "cd registry && {dvc} add -q data",
                LFS: "cd registry && git add -A",
                GIT: "cd registry && git add -A",
            },
        ),
        Job(
            "status, nothing changed",
            {
                REG: "cd registry && {reg} status",
                DVC: "cd registry && {dvc} status -q",
                LFS: "cd registry && git status",
                GIT: "cd registry && git status",
            },
        ),
        *_PUSH_AND_IMPORT,
        Job(
            "get",
            {
                REG: "{reg} get file://{place}/hub data -o got",
                DVC: "{dvc} get -q file://{place}/hub data -o got",
                LIMIT: "cp -r {data} got",
            },
        ),
        Job("add, 1 % changed", _ADD_AGAIN, _change(0.01)),
        Job("push, 1 % changed", _PUSH_AGAIN),
        _SHARE_AGAIN,
        Job("update, 1 % changed", _UPDATE),
        Job(commands=_ADD_AGAIN, edit=_new_files(max(1, count // 100), size)),
        Job(commands=_PUSH_AGAIN),
        _SHARE_AGAIN,
        Job("update, 1 % new", _UPDATE),
        Job(commands=_ADD_AGAIN, edit=_new_files(max(1, count // 20), size)),
        Job(commands=_PUSH_AGAIN),
        _SHARE_AGAIN,
        Job("update, 5 % new", _UPDATE),
        Job(
            "diff of two versions",
            {
                REG: "cd registry && {reg} diff HEAD~1 HEAD",
                DVC: "cd registry && {dvc} diff HEAD~1 HEAD",
                LFS: "cd registry && git diff --stat HEAD~1 HEAD",
                GIT: "cd registry && git diff --stat HEAD~1 HEAD",
            },
        ),
        Job(
            "checkout of the version before",
            {
                REG: "cd registry && {reg} checkout data --rev HEAD~1",
                DVC: "cd registry && git checkout -q HEAD~1 -- data.dvc && {dvc} checkout -q",
                LFS: "cd registry && git checkout -q HEAD~1",
                GIT: "cd registry && git checkout -q HEAD~1",
            },
        ),
    ]


def one_large_file() -> list[Job]:
    """Return the script for one large file that grows by 10 MB."""

    def grow(place: Path) -> None:
        append(place / "registry/data", 10_000_000)

    return [
        *_script("{place}/remote", "{place}/remote"),
        *_PUSH_AND_IMPORT,
        Job("add, 10 MB appended", _ADD_AGAIN, grow),
        Job("push, 10 MB appended", _PUSH_AGAIN),
        _SHARE_AGAIN,
        Job("update, 10 MB appended", _UPDATE),
    ]


def on_s3() -> list[Job]:
    """Return the script for a bucket."""
    options = "-O endpoint_url={endpoint} -O addressing=path"
    jobs = [
        *_script(
            "s3://{bucket}/data",
            "s3://{bucket}/data; {dvc} remote modify -q r endpointurl {endpoint}",
            f"{{reg}} remote add default s3://{{bucket}}/data {options} -m remote; ",
        ),
        *_PUSH_AND_IMPORT,
        Job("add, 1 % changed", _ADD_AGAIN, _change(0.01)),
        Job("push, 1 % changed", _PUSH_AGAIN),
        _SHARE_AGAIN,
        Job("update, 1 % changed", _UPDATE),
    ]
    return [_for_tools(job, (REG, DVC, S5CMD)) for job in jobs]


def _for_tools(job: Job, tools: tuple[str, ...]) -> Job:
    return Job(job.name, {tool: job.commands[tool] for tool in tools if tool in job.commands}, job.edit)


STARTING = {
    "--version": {REG: "{reg} --version", DVC: "{dvc} --version", LIMIT: "{python} -c 'import typer'"},
    "--help": {REG: "{reg} --help", DVC: "{dvc} --help", LIMIT: "{python} -c 'import typer'"},
    "status of a small registry": {
        REG: "cd small && {reg} status",
        DVC: "cd smalldvc && {dvc} status -q",
        LIMIT: "{python} -c 'import typer'",
    },
}
"""What is over before one notices; the limit is importing the library that reads the command line."""
