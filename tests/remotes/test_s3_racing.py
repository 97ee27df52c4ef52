"""Two at one bucket at the same time: both end well or one is told, and afterwards everything is there."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Reg, git, tree, write
from tests.remotes.payloads import (
    CLIENTS,
    CONFLICT,
    Payload,
    add,
    contents,
    forget,
    in_bucket,
    photos,
    speak_with,
    started,
    wait_for,
)
from tests.remotes.upstreams import follow
from tests.servers.faults import Delay, faulty
from tests.servers.radosgw import S3Server

pytestmark = pytest.mark.servers


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Who speaks S3."""
    return str(request.param)


@pytest.fixture
def payload(
    client: str,
    registry: Path,
    ceph: S3Server,
    bucket: str,
    tmp_path: Path,
    reg: Reg,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Payload]:
    """A registry with one version of a dataset, pushed to a bucket that takes its time, and to an upstream."""
    speak_with(client, monkeypatch)
    git(tmp_path, "init", "-q", "--bare", "upstream.git")
    with faulty(ceph.url) as faults:
        found = in_bucket(registry, ceph, bucket, faults, reg)
        follow(registry, str(tmp_path / "upstream.git"))
        add(found, "photos", photos(), reg)
        reg(registry, "push")
        faults.clear()
        faults.add(Delay(0.05))
        yield found


@pytest.fixture
def other(payload: Payload, tmp_path: Path) -> Path:
    """Another curator's clone of it."""
    git(tmp_path, "clone", "-q", "upstream.git", "other")
    return tmp_path / "other"


def both_end(*processes: subprocess.Popen[str]) -> list[int]:
    said = [process.communicate(timeout=100) for process in processes]
    codes = [process.returncode for process in processes]
    assert set(codes) <= {0, CONFLICT}, said
    assert codes.count(0), said
    assert all("Traceback" not in err for _, err in said)
    return codes


def change(place: Path, name: str, seed: int, reg: Reg) -> None:
    write(place, {f"{name}/{path}": content for path, content in photos(seed).items()})
    reg(place, "add", name, "-m", f"Change {name}")


def nothing_is_lost(payload: Payload, repositories: list[Path], home: Path, consumer: Path, reg: Reg) -> None:
    """Who was told brings both together; then all that anybody added is on the remote."""
    payload.faults.clear()
    for place in (*repositories, *repositories):
        git(place, "pull", "-q", "--rebase", "origin", "main")
        reg(place, "pull")
        reg(place, "push")
    assert len({git(place, "rev-parse", "HEAD") for place in repositories}) == 1
    for place in repositories:
        assert [path for path in (place / ".reg/outbox/packs").rglob("*") if path.is_file()] == []
        reg(place, "verify", "--remote", "--deep")
    forget(home)
    for metafile in repositories[0].rglob("*.reg.yaml"):
        name = str(metafile.relative_to(repositories[0])).removesuffix(".reg.yaml")
        reg(consumer, "get", repositories[0], name)


@pytest.mark.parametrize("same", [True, False])
def test_payload_of_two_pushes_at_once_is_all_there(
    payload: Payload, other: Path, client: str, home: Path, reg: Reg, same: bool
) -> None:
    change(payload.registry, "films", 1, reg)
    change(other, "films", 1 if same else 2, reg)
    places = [payload.registry, other]
    codes = both_end(*(started(place, client, "push", "--no-git") for place in places))
    assert codes == [0, 0]
    payload.faults.clear()
    for place, seed in zip(places, (1, 1 if same else 2), strict=True):
        reg(place, "verify", "--remote", "--deep")
        forget(home)
        reg(place.parent, "get", place, "films", "-o", f"from-{place.name}")
        assert tree(place.parent / f"from-{place.name}") == contents(photos(seed))


def test_of_two_pushes_of_different_datasets_one_is_told_and_nothing_is_lost(
    payload: Payload, other: Path, client: str, home: Path, consumer: Path, reg: Reg
) -> None:
    change(payload.registry, "moving/films", 1, reg)
    change(other, "still/scans", 2, reg)
    places = [payload.registry, other]
    codes = both_end(*(started(place, client, "push") for place in places))
    assert sorted(codes) == [0, CONFLICT]
    nothing_is_lost(payload, places, home, consumer, reg)
    assert tree(consumer / "films") == contents(photos(1))
    assert tree(consumer / "scans") == contents(photos(2))


def test_import_of_a_version_while_the_next_is_pushed_is_whole(
    payload: Payload, client: str, consumer: Path, home: Path, reg: Reg
) -> None:
    forget(home)
    asked = len(payload.faults.requests)
    process = started(consumer, client, "import", payload.registry, "photos")
    wait_for(lambda: len(payload.faults.requests) > asked, process)
    change(payload.registry, "photos", 3, reg)
    reg(payload.registry, "push")
    both_end(process)
    assert tree(consumer / "photos") == contents(photos())
    payload.faults.clear()
    reg(payload.registry, "verify", "--remote", "--deep")
    reg(consumer, "update")
    assert tree(consumer / "photos") == contents(photos(3))


def test_pull_while_another_pushes_is_one_version_or_the_next(
    payload: Payload, other: Path, client: str, home: Path, consumer: Path, reg: Reg
) -> None:
    change(payload.registry, "photos", 3, reg)
    processes = [started(payload.registry, client, "push"), started(other, client, "pull")]
    assert both_end(*processes) == [0, 0]
    nothing_is_lost(payload, [payload.registry, other], home, consumer, reg)
    assert tree(consumer / "photos") == contents(photos(3))
