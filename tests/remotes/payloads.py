"""Payload behind a proxy that misbehaves: in a bucket, spoken to by either client, or behind a web server.

What comes in are servers and a registry's folder; what goes out is a registry whose remote is reached through the
proxy, and words for its objects: packs of payload, packs of pages, manifests and maps.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from registree.model.manifest import boundary_level
from tests.conftest import Reg, git, write
from tests.servers.fault_rules import Action
from tests.servers.faults import Answer, Faults, Rule
from tests.servers.radosgw import REGION, S3Server

CLIENTS = ["obstore", "s3fs"]
AUTH, STORE, INTEGRITY, CONFLICT = 4, 5, 6, 7
PACK, PAGES, MANIFEST, MAP = "pack", "pages", "manifest", "map"
OBJECTS = [PACK, PAGES, MANIFEST, MAP]
IN_FLIGHT = 3
"""Packs that a push sends at once."""
OWN_PACK = 17 << 20
"""Bytes of a file that gets a pack of its own."""


def speak_with(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process speak S3 with a client; without obstore, s3fs is what is left."""
    if client == "s3fs":
        monkeypatch.setitem(sys.modules, "obstore", None)


def command(client: str, *words: object) -> list[str]:
    """Return a command line that runs `reg` in a process of its own, with a client."""
    without = "sys.modules['obstore'] = None; " if client == "s3fs" else ""
    start = f"import sys; {without}from registree.cli import main; main()"
    return [sys.executable, "-c", start, *map(str, words)]


def started(cwd: Path, client: str, *words: object) -> subprocess.Popen[str]:
    """Start `reg` in a process of its own."""
    return subprocess.Popen(
        command(client, *words), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
        text=True, start_new_session=True,
    )  # fmt: skip


def ended(cwd: Path, client: str, *words: object, code: int) -> str:
    """Run `reg` in a process of its own, whose requests end with it, and return what it said on stderr."""
    process = started(cwd, client, *words)
    out, err = process.communicate(timeout=100)
    assert process.returncode == code, (process.returncode, out, err)
    return err


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[str] | None = None, seconds: float = 60
) -> None:
    """Wait for a condition; a process that ends before it holds fails the test with what it said."""
    deadline = time.monotonic() + seconds
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"ended with {process.returncode}: {process.communicate()}")
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.005)


def noise(size: int, seed: int) -> bytes:
    """Return bytes that do not compress."""
    return random.Random(seed).randbytes(size)


def photos(seed: int = 0) -> dict[str, bytes | str]:
    """Return a dataset of several pages, with small files and one that is brought in pieces."""
    names = [name for number in range(9000) if boundary_level(name := f"{number:05}.jpg")]  # each ends a page
    files: dict[str, bytes | str] = {name: noise(3000, seed * 10_000 + at) for at, name in enumerate(names)}
    return {**files, "film.bin": noise(5 << 20, seed + 77), "last.txt": f"the last of {seed}\n"}


def contents(files: dict[str, bytes | str]) -> dict[str, bytes]:
    """Return what lies in a folder when these files were placed there."""
    return {name: content.encode() if isinstance(content, str) else content for name, content in files.items()}


@dataclass(frozen=True)
class Payload:
    """A registry with one dataset, and its remote behind a proxy.

    `address` is how errors name the remote, `objects` lists its keys with their sizes in bytes.
    """

    registry: Path
    faults: Faults
    address: str
    objects: Callable[[], dict[str, int]]

    def key(self, kind: str) -> str:
        """Return the key of the only object of a kind."""
        keys = sorted(self.objects().items(), key=lambda row: row[1])
        folder = {PACK: "packs", PAGES: "packs", MANIFEST: "manifests", MAP: "maps"}[kind]
        found = [key for key, _ in keys if key.startswith(f"{folder}/")]
        assert len(found) == (2 if folder == "packs" else 1), keys
        return found[0] if kind == PAGES else found[-1]

    def largest(self) -> str:
        """Return the key of the largest object."""
        found = self.objects()
        return max(found, key=lambda key: found[key])

    def packs(self) -> dict[str, int]:
        """Return the keys of packs on the remote with their sizes in bytes."""
        return {key: size for key, size in self.objects().items() if key.startswith("packs/")}

    def sent(self, pattern: str = "/packs/") -> int:
        """Return the bytes of bodies that were sent through the proxy for paths with a pattern."""
        return sum(row.up for row in self.faults.requests if row.method in ("PUT", "POST") and pattern in row.path)

    def received(self, pattern: str = "/packs/") -> int:
        """Return the bytes of bodies that came through the proxy for paths with a pattern."""
        return sum(row.down for row in self.faults.requests if row.method == "GET" and pattern in row.path)


def in_bucket(
    registry: Path, ceph: S3Server, bucket: str, faults: Faults, reg: Reg, options: tuple[str, ...] = ()
) -> Payload:
    """Have a registry's default remote be a bucket behind a proxy."""
    url = f"s3://{bucket}/data"
    chosen = [word for option in options for word in ("-O", option)]
    settings = ["-O", f"endpoint_url={faults.url}", "-O", f"region={REGION}", "-O", "addressing=path", *chosen]
    reg(registry, "remote", "add", "default", url, *settings, "-m", "Remote in a bucket")

    def objects() -> dict[str, int]:
        rows: list[dict[str, Any]] = ceph.client().list_objects_v2(Bucket=bucket).get("Contents", [])
        return {row["Key"].removeprefix("data/"): row["Size"] for row in rows}

    return Payload(registry, faults, url, objects)


def on_web(registry: Path, folder: Path, faults: Faults, reg: Reg, page: str = "plain") -> Payload:
    """Have a registry's default remote be a folder that a web server serves behind a proxy."""
    url = f"{faults.url}/{page}/{folder.name}"
    reg(registry, "remote", "add", "default", url, "-m", "Read over HTTP")

    def objects() -> dict[str, int]:
        return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}

    return Payload(registry, faults, url, objects)


def add(payload: Payload, name: str, files: dict[str, bytes | str], reg: Reg) -> None:
    """Make the next version of a dataset."""
    write(payload.registry, {f"{name}/{path}": content for path, content in files.items()})
    reg(payload.registry, "add", name, "-m", f"Change {name}")


def upload(payload: Payload, folder: Path, reg: Reg) -> None:
    """Push to the folder behind a web server, which no commit names, and leave nothing of it here."""
    reg(payload.registry, "remote", "add", "upload", folder)
    reg(payload.registry, "push", "--remote", "upload")
    reg(payload.registry, "remote", "remove", "upload")
    shutil.rmtree(payload.registry / ".reg/outbox", ignore_errors=True)


def forget(home: Path) -> None:
    """Empty the cache, as on a machine that has seen nothing of it."""
    shutil.rmtree(home / "cache", ignore_errors=True)


def retries(place: Path, number: int, reg: Reg) -> None:
    """Set how often a request is tried again from a repository."""
    reg(place, "config", "retries", str(number))


class From(Rule):
    """A rule that holds from the so-many-th request on that it fits."""

    def __init__(self, number: int, action: Action, *, method: str = "", path: str = "") -> None:
        super().__init__(action, method, path)
        self.number = number

    def takes(self, method: str, path: str) -> bool:
        """See `Rule.takes`."""
        if not super().takes(method, path):
            return False
        self.applied -= self.matched < self.number
        return self.matched >= self.number


def s3_error(status: int, code: str) -> Answer:
    """Return an error as S3 says it."""
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Answer(status, text.encode(), "application/xml")


def left_behind(place: Path) -> list[str]:
    """List what lies in a repository's work tree, staging included, without Git's and reg's own folders."""
    return [path.name for path in place.iterdir() if path.name not in (".git", ".reg")]


def clone(payload: Payload, place: Path) -> Path:
    """Clone a registry as another curator of it."""
    git(place.parent, "clone", "-q", os.fspath(payload.registry), os.fspath(place))
    return place
