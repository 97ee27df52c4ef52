"""What each tool does for each job: shell commands, run in a folder of the tool's own.

In them stand ``{reg}`` and other commands, ``{data}`` (what is to be stored), ``{place}`` (the tool's folder),
``{bucket}`` and ``{endpoint}`` (an S3 server). A tool that has no command for a job is not measured in it. Who
consumes has another cache than who publishes, as on another machine.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.data import append, change, write_files

REG, DVC, LFS, GIT, S5CMD, COPIES = "reg", "DVC", "Git LFS", "Git", "s5cmd", "copies"
LIMIT = "limit"
"""What the machine can do: see the head of the page."""
VERSIONS = 10
"""Versions of a table that grows."""


@dataclass(frozen=True)
class Job:
    """One step of a script. Without a name it prepares, and is not measured.

    `edit` changes a tool's work tree before the commands run. What changes nothing may be done several `times`.
    """

    name: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    edit: Callable[[Path], None] | None = None
    times: int = 1


_FRESH = "export REG_CACHE_DIR=$(mktemp -d -p {place}); "
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
    """Return the jobs that all scripts begin with, on one kind of remote: what prepares, and `add`."""
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


_REG_CONSUMER = "export REG_CACHE_DIR={place}/theirs; cd consumer && "
_DVC_CONSUMER = "export DVC_SITE_CACHE_DIR={place}/theirsite; cd consumer && "
_PUSH = {
    REG: "cd registry && {reg} push",
    DVC: "cd registry && {dvc} push -q",
    LFS: "cd registry && git push -q hub HEAD",
    GIT: "cd registry && git push -q hub HEAD",
}
_SHARE = Job(commands=dict.fromkeys((REG, DVC), "cd registry && git push -q hub HEAD"))
_PUSH_AND_IMPORT = [
    Job(
        "push",
        {
            **_PUSH,
            LIMIT: "cp -r {data} pushed",
            S5CMD: "{s5cmd} --endpoint-url {endpoint} cp {data_s5} s3://{bucket}/data/",
        },
    ),
    _SHARE,
    Job(
        "import",
        {
            REG: _REG_CONSUMER + "{reg} import {hub} data",
            DVC: _DVC_CONSUMER + "{dvc} import -q {hub} data",
            LFS: "git clone -q file://{place}/hub consumer",
            GIT: "git clone -q {hub} consumer",
            LIMIT: "cp -r {data} imported",
            S5CMD: "{s5cmd} --endpoint-url {endpoint} cp 's3://{bucket}/data/*' got/",
        },
    ),
]
_GET = Job(
    "get",
    {
        REG: "export REG_CACHE_DIR={place}/another; {reg} get {hub} data -o got",
        DVC: "export DVC_SITE_CACHE_DIR={place}/anothersite; {dvc} get -q {hub} data -o got",
        LIMIT: "cp -r {data} got",
    },
)
_UPDATE = {
    REG: _REG_CONSUMER + "{reg} update",
    DVC: _DVC_CONSUMER + "{dvc} update -q data.dvc",
    LFS: "cd consumer && git pull -q",
    GIT: "cd consumer && git pull -q",
}
_ADD_AGAIN = {
    REG: "cd registry && {reg} add data -m next",
    DVC: _DVC_ADD + " next",
    LFS: _GIT_ADD + " next",
    GIT: _GIT_ADD + " next",
}
_LOOK_AT_ALL = "find {data} -size +1000G"
_UNCHANGED = [
    Job(
        "add again, nothing changed",
        {
            REG: "cd registry && {reg} add data -m none",
            DVC: "cd registry && {dvc} add -q data",
            LFS: "cd registry && git add -A",
            GIT: "cd registry && git add -A",
            LIMIT: _LOOK_AT_ALL,
        },
    ),
    Job(
        "status, nothing changed",
        {
            REG: "cd registry && {reg} status",
            DVC: "cd registry && {dvc} status -q",
            LFS: "cd registry && git status",
            GIT: "cd registry && git status",
            LIMIT: _LOOK_AT_ALL,
        },
    ),
]
_DIFF = Job(
    "diff of two versions",
    {
        REG: "cd registry && {reg} diff HEAD~1 HEAD",
        DVC: "cd registry && {dvc} diff HEAD~1 HEAD",
        LFS: "cd registry && git diff --stat HEAD~1 HEAD",
        GIT: "cd registry && git diff --stat HEAD~1 HEAD",
    },
)


def _checkout(back: int) -> Job:
    return Job(
        "checkout of the first version",
        {
            REG: f"cd registry && {{reg}} checkout data --rev HEAD~{back}",
            DVC: f"cd registry && git checkout -q HEAD~{back} -- data.dvc && {{dvc}} checkout -q",
            LFS: f"cd registry && git checkout -q HEAD~{back}",
            GIT: f"cd registry && git checkout -q HEAD~{back}",
        },
    )


def _new_files(first: int, count: int, size: int) -> Callable[[Path], None]:
    """Return an edit that adds files, numbered from the first on."""

    def edit(place: Path) -> None:
        write_files(place / "registry/data", range(first, first + count), size)

    return edit


def _change(share: float) -> Callable[[Path], None]:
    def edit(place: Path) -> None:
        change(place / "registry/data", share)

    return edit


def _next_version(what: str, edit: Callable[[Path], None], *, all_measured: bool = True) -> list[Job]:
    """Return the jobs of one version more, which is an edit of what the registry holds."""
    return [
        Job(f"add, {what}" if all_measured else "", _ADD_AGAIN, edit),
        Job(f"push, {what}" if all_measured else "", _PUSH),
        _SHARE,
        Job(f"update, {what}", _UPDATE),
    ]


def on_a_directory(count: int, size: int) -> list[Job]:
    """Return the whole script: many files, in a remote that is a directory."""
    return [
        *_script("{place}/remote", "{place}/remote"),
        *_UNCHANGED,
        *_PUSH_AND_IMPORT,
        _GET,
        *_next_version("1 % changed", _change(0.01)),
        *_next_version("1 % new", _new_files(5_000_000, max(1, count // 100), size), all_measured=False),
        *_next_version("5 % new", _new_files(6_000_000, max(1, count // 20), size), all_measured=False),
        _DIFF,
        _checkout(3),
    ]


def a_hundred_edits(count: int) -> list[Job]:
    """Return what shows a diff of a large dataset to somebody who has nothing of it; it follows `on_a_directory`."""
    return [
        Job(commands={REG: "cd registry && git checkout -q HEAD -- data.reg.yaml && {reg} checkout data"}),
        Job(commands={REG: _ADD_AGAIN[REG]}, edit=_change(100 / (count + count // 100 + count // 20))),
        Job(commands={REG: _PUSH[REG]}),
        Job(commands={REG: "cd registry && git push -q hub HEAD; git clone -q {place}/hub {place}/elsewhere"}),
        Job(
            "diff, 100 files changed, nothing in the cache",
            {REG: _FRESH + "cd elsewhere && {reg} diff HEAD~1 HEAD"},
            times=5,
        ),
    ]


def one_large_file() -> list[Job]:
    """Return the script for one large file that grows by 10 MB."""
    return [
        *_script("{place}/remote", "{place}/remote"),
        *_UNCHANGED,
        *_PUSH_AND_IMPORT,
        _GET,
        *_next_version("10 MB appended", _append),
        _DIFF,
        _checkout(1),
    ]


def one_huge_file() -> list[Job]:
    """Return the script for a file that is too large to be brought here twice."""
    return [
        *_script("{place}/remote", "{place}/remote"),
        *_UNCHANGED,
        Job("push", _PUSH),
        Job("read all of it", {REG: "cd registry && {reg} cat data"}),
        *_next_version("10 MB appended", _append)[:2],
    ]


def _append(place: Path) -> None:
    append(place / "registry/data", 10_000_000)


def growing(versions: Path) -> list[Job]:
    """Return the script for a table that grows, whose versions lie in a folder by their numbers, from 0 on."""
    setup, add = _script("{place}/remote", "{place}/remote")
    publish = {tool: f"{add.commands[tool]} && {_PUSH[tool].partition('&& ')[2]}" for tool in (REG, DVC, LFS)}
    publish[COPIES] = "mkdir -p remote && cp registry/data remote/$(ls remote | wc -l)"
    start = {**setup.commands, COPIES: "mkdir registry && cp {data} registry/data"}

    def put(number: int) -> Callable[[Path], None]:
        def edit(place: Path) -> None:
            target = place / "registry/data"
            target.unlink()
            shutil.copyfile(versions / str(number), target)

        return edit

    more = [Job("add and push, 1 % more, each of nine", publish, put(number)) for number in range(1, VERSIONS)]
    return [Job(commands=start), Job("add and push the first version", publish), *more]


def _on_s3(next_version: list[Job]) -> list[Job]:
    options = "-O endpoint_url={endpoint} -O addressing=path"
    return [
        *_script(
            "s3://{bucket}/data",
            "s3://{bucket}/data; {dvc} remote modify -q r endpointurl {endpoint}",
            f"{{reg}} remote add default s3://{{bucket}}/data {options} -m remote; ",
        ),
        *_PUSH_AND_IMPORT,
        _GET,
        *next_version,
        _checkout(1),
    ]


def files_on_s3() -> list[Job]:
    """Return the script for many files, in a bucket."""
    return _on_s3(_next_version("1 % changed", _change(0.01)))


def one_large_file_on_s3() -> list[Job]:
    """Return the script for one large file that grows by 10 MB, in a bucket."""
    return _on_s3(_next_version("10 MB appended", _append))


CATALOG = {
    "list all": {
        REG: "{reg} list {hub}",
        DVC: "{dvc} list -R --dvc-only {hub}dvc",
        LIMIT: "git -C hub ls-tree -r main",
    },
    "list all, never seen before": {REG: _FRESH + "{reg} list {hub}", DVC: "{dvc} list -R --dvc-only {hub}dvc"},
    "show one of them": {
        REG: "{reg} show {one} --registry {hub}",
        DVC: "{dvc} get --show-url {hub}dvc {one}",
        LIMIT: "git -C hub cat-file -p main:{one}.reg.yaml",
    },
    "show one at its tag": {
        REG: "{reg} show {one}@v1.0.0 --registry {hub}",
        DVC: "{dvc} get --show-url {hub}dvc {one} --rev {one}@v1.0.0",
        LIMIT: "git -C hub cat-file -p {one}@v1.0.0:{one}.reg.yaml",
    },
    "show one at its tag, never seen before": {
        REG: _FRESH + "{reg} show {one}@v1.0.0 --registry {hub}",
        DVC: "{dvc} get --show-url {hub}dvc {one} --rev {one}@v1.0.0",
    },
}
"""What is asked of a registry of many datasets and commits. DVC clones it each time, whatever it has seen."""
STARTING = {
    "--version": {REG: "{reg} --version", DVC: "{dvc} --version", LIMIT: "{python} -c 'import typer'"},
    "--help": {REG: "{reg} --help", DVC: "{dvc} --help", LIMIT: "{python} -c 'import typer'"},
    "status of a small registry": {
        REG: "cd small && {reg} status",
        DVC: "cd smalldvc && {dvc} status -q",
        LIMIT: "{python} -c 'import typer'",
    },
}
"""What is over before one notices."""
