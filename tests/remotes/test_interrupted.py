"""Pushes and imports that are cut off half way: by a person, by a kill, and by a disk that is full.

What was done counts: the next run completes, sends again at most what was in flight, and nothing has a name that is not
whole.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import Reg, git, tree, write
from tests.remotes.payloads import (
    CLIENTS,
    IN_FLIGHT,
    OWN_PACK,
    STORE,
    From,
    Payload,
    add,
    contents,
    forget,
    in_bucket,
    left_behind,
    noise,
    photos,
    speak_with,
    started,
    wait_for,
)
from tests.servers.faults import Stall, faulty
from tests.servers.processes import output_of
from tests.servers.published import one_sentence
from tests.servers.radosgw import S3Server

pytestmark = pytest.mark.servers

INTERRUPTED = 130
SOON = 2.0
"""Seconds in which a command ends that is interrupted."""
FILMS: dict[str, bytes | str] = {f"{number}.bin": noise(OWN_PACK, number) for number in range(6)}
TOTAL = sum(map(len, FILMS.values()))


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Who speaks S3."""
    return str(request.param)


@pytest.fixture
def payload(
    client: str, registry: Path, ceph: S3Server, bucket: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Payload]:
    """A registry with films that are to be pushed to a bucket."""
    speak_with(client, monkeypatch)
    with faulty(ceph.url) as faults:
        found = in_bucket(registry, ceph, bucket, faults, reg)
        add(found, "films", FILMS, reg)
        yield found


@pytest.fixture
def pushed(payload: Payload, home: Path, reg: Reg) -> Payload:
    """The same, pushed, of which nothing is on this machine."""
    reg(payload.registry, "push")
    forget(home)
    payload.faults.clear()
    return payload


def is_whole(payload: Payload, consumer: Path, home: Path, reg: Reg) -> None:
    """What was pushed is there to the last byte, and the outbox waits with nothing."""
    payload.faults.clear()
    reg(payload.registry, "verify", "--remote", "--deep")
    assert [path for path in (payload.registry / ".reg/outbox/packs").rglob("*") if path.is_file()] == []
    forget(home)
    reg(consumer, "get", payload.registry, "films", "-o", "whole")
    assert tree(consumer / "whole") == contents(FILMS)


# --- a person interrupts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, OWN_PACK // 2])
def test_push_that_is_interrupted_ends_at_once_and_the_next_one_goes_on(
    payload: Payload, consumer: Path, home: Path, reg: Reg, client: str, after: int
) -> None:
    payload.faults.rules.append(slow_from(3, Stall(60, after=after, of="request"), "PUT"))
    process = started(payload.registry, client, "push")
    wait_for(lambda: len(payload.packs()) >= 2 and payload.sent() >= 2 * OWN_PACK + 3 * after, process)
    assert interrupted_in(process) < SOON
    arrived, first = payload.packs(), payload.sent()
    assert [key for key in payload.objects() if key.startswith(("maps/", "manifests/"))] == []
    payload.faults.clear()
    reg(payload.registry, "push")
    assert payload.sent() == TOTAL - sum(arrived.values()) + pages(payload)
    assert first + payload.sent() <= TOTAL + pages(payload) + IN_FLIGHT * OWN_PACK
    is_whole(payload, consumer, home, reg)


@pytest.mark.parametrize("after", [0, OWN_PACK // 2])
def test_import_that_is_interrupted_ends_at_once_and_the_next_one_goes_on(
    pushed: Payload, consumer: Path, reg: Reg, client: str, after: int
) -> None:
    rule = slow_from(4, Stall(60, after=after), "GET")
    pushed.faults.rules.append(rule)
    process = started(consumer, client, "import", pushed.registry, "films")
    wait_for(lambda: rule.applied and pushed.received() >= OWN_PACK, process)
    assert interrupted_in(process) < SOON
    assert [name for name in left_behind(consumer) if not name.startswith(".")] == []
    pushed.faults.clear()
    reg(consumer, "import", pushed.registry, "films")
    assert tree(consumer / "films") == contents(FILMS)
    assert pushed.received() < TOTAL  # what was brought before is not brought again
    assert sorted(left_behind(consumer)) == [".gitignore", "films", "films.reg.yaml"]


def test_command_that_is_interrupted_says_how_to_go_on(payload: Payload, client: str) -> None:
    rule = payload.faults.add(Stall(60, of="request"), method="PUT", path="/packs/")
    process = started(payload.registry, client, "push")
    wait_for(lambda: rule.applied, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert err.strip() == "reg: interrupted; run the same command again to go on"


def test_the_same_film_under_two_names_is_brought_once(payload: Payload, consumer: Path, home: Path, reg: Reg) -> None:
    add(payload, "twins", {"a.bin": FILMS["0.bin"], "b/c.bin": FILMS["0.bin"]}, reg)
    reg(payload.registry, "push")
    forget(home)
    payload.faults.clear()
    reg(consumer, "import", payload.registry, "twins")
    assert tree(consumer / "twins") == contents({"a.bin": FILMS["0.bin"], "b/c.bin": FILMS["0.bin"]})
    assert payload.received() < 1.5 * OWN_PACK


# --- kills ------------------------------------------------------------------------------------------------------


def test_push_that_is_killed_is_completed_by_the_next(
    payload: Payload, consumer: Path, home: Path, reg: Reg, client: str
) -> None:
    payload.faults.rules.append(slow_from(3, Stall(60, after=OWN_PACK // 2, of="request"), "PUT"))
    process = started(payload.registry, client, "push")
    wait_for(lambda: len(payload.packs()) >= 2 and payload.sent() >= 3 * OWN_PACK, process)
    kill(process)
    arrived, first = payload.packs(), payload.sent()
    payload.faults.clear()
    reg(payload.registry, "push")
    assert payload.sent() == TOTAL - sum(arrived.values()) + pages(payload)
    assert first + payload.sent() <= TOTAL + pages(payload) + IN_FLIGHT * OWN_PACK
    is_whole(payload, consumer, home, reg)


@pytest.mark.parametrize("folder", ["maps", "manifests"])
def test_push_that_is_killed_before_its_last_objects_is_completed_by_the_next(
    payload: Payload, consumer: Path, home: Path, reg: Reg, client: str, folder: str
) -> None:
    rule = payload.faults.add(Stall(60, of="request"), method="PUT", path=f"/{folder}/")
    process = started(payload.registry, client, "push")
    wait_for(lambda: rule.applied, process)
    kill(process)
    payload.faults.clear()
    reg(payload.registry, "push")
    assert payload.sent() == 0
    is_whole(payload, consumer, home, reg)


def test_import_that_is_killed_is_completed_by_the_next(
    pushed: Payload, consumer: Path, home: Path, reg: Reg, client: str
) -> None:
    rule = slow_from(4, Stall(60, after=OWN_PACK // 2), "GET")
    pushed.faults.rules.append(rule)
    process = started(consumer, client, "import", pushed.registry, "films")
    wait_for(lambda: rule.applied and any(whole_films(home / "cache")), process)
    kill(process)
    assert not (consumer / "films").exists()
    first = pushed.received()
    pushed.faults.clear()
    reg(consumer, "import", pushed.registry, "films")
    assert tree(consumer / "films") == contents(FILMS)
    assert first + pushed.received() <= TOTAL + 2 * IN_FLIGHT * OWN_PACK
    assert pushed.received() < TOTAL
    assert sorted(left_behind(consumer)) == [".gitignore", "films", "films.reg.yaml"]


def whole_films(cache: Path) -> Iterator[Path]:
    """Find films in a cache that are all there."""
    for path in cache.rglob("*"):
        with suppress(FileNotFoundError):
            if path.stat().st_size == OWN_PACK and "partial" not in str(path.relative_to(cache)):
                yield path


def slow_from(number: int, action: Stall, method: str) -> From:
    """Return a rule that makes packs come or go slowly, from the so-many-th on."""
    return From(number, action, method=method, path="/packs/")


def interrupted_in(process: subprocess.Popen[str]) -> float:
    """Interrupt a command and return how long it took to end (seconds)."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == INTERRUPTED, (out, err)
    assert "Traceback" not in err
    return took


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a command, as a machine that loses power does."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(10)


def pages(payload: Payload) -> int:
    """Return the bytes of packs of pages."""
    return sum(size for size in payload.packs().values() if size < OWN_PACK)


# --- disks that fill --------------------------------------------------------------------------------------------


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """Mount a disk in memory of a size in bytes."""
    place.mkdir()
    output_of(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place])
    try:
        yield place
    finally:
        output_of(["umount", "-l", place])


def grow(disk: Path, size: int) -> None:
    """Give a disk another size in bytes."""
    output_of(["mount", "-o", f"remount,size={size}", disk])


@needs_root
@pytest.mark.parametrize("cache_there", [False, True])
@pytest.mark.parametrize("verb", ["import", "get"])
def test_disk_that_fills_is_one_sentence_and_leaves_nothing_half_made(
    pushed: Payload, tmp_path: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch, verb: str, cache_there: bool
) -> None:
    with small_disk(tmp_path / "disk", 3 * OWN_PACK) as disk:
        if cache_there:
            monkeypatch.setenv("REG_CACHE_DIR", str(disk / "cache"))
        place = disk / "consumer"
        place.mkdir()
        git(place, "init", "-q")
        ran = reg(place, verb, pushed.registry, "films", code=STORE)
        assert "full" in one_sentence(ran.err)
        assert str(disk) in ran.err
        assert left_behind(place) == []
        grow(disk, 3 * TOTAL)
        reg(place, verb, pushed.registry, "films")
        assert tree(place / "films") == contents(FILMS)


@needs_root
def test_update_on_a_disk_that_fills_keeps_what_was_there(
    pushed: Payload, tmp_path: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", TOTAL + 3 * OWN_PACK) as disk:
        place = disk / "consumer"
        place.mkdir()
        git(place, "init", "-q")
        reg(place, "import", pushed.registry, "films", "-m", "Import films")
        before = tree(place / "films")
        newer = {name: noise(OWN_PACK, 100 + at) for at, name in enumerate(FILMS)}
        write(pushed.registry, {f"films/{name}": content for name, content in newer.items()})
        reg(pushed.registry, "add", "films", "-m", "Newer films")
        reg(pushed.registry, "push")
        forget(home)
        ran = reg(place, "update", code=STORE)
        assert "full" in one_sentence(ran.err)
        assert tree(place / "films") == before
        grow(disk, 4 * TOTAL)
        reg(place, "update")
        assert tree(place / "films") == newer


@needs_root
def test_push_from_a_full_disk_needs_no_room_or_says_so(
    tmp_path: Path, ceph: S3Server, bucket: str, consumer: Path, reg: Reg, home: Path
) -> None:
    with small_disk(tmp_path / "disk", 64 << 20) as disk, faulty(ceph.url) as faults:
        reg(disk, "init", disk / "registry")
        payload = in_bucket(disk / "registry", ceph, bucket, faults, reg)
        add(payload, "photos", photos(), reg)
        with (disk / "filler").open("wb") as filler:
            left = os.statvfs(disk)
            os.posix_fallocate(filler.fileno(), 0, left.f_bavail * left.f_frsize)
        ran = reg(payload.registry, "push", code=None)
        assert ran.code in (0, STORE), ran.err
        if ran.code:
            assert "full" in one_sentence(ran.err)
        (disk / "filler").unlink()
        reg(payload.registry, "push")
        reg(payload.registry, "verify", "--remote", "--deep")
        forget(home)
        reg(consumer, "get", payload.registry, "photos")
        assert tree(consumer / "photos") == contents(photos())
