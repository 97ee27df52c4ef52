"""A bucket that is busy, breaks connections or refuses half way, for pushes and for imports, over both clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Reg, tree, write
from tests.remotes.payloads import (
    AUTH,
    CLIENTS,
    IN_FLIGHT,
    INTEGRITY,
    OWN_PACK,
    PACK,
    STORE,
    From,
    Payload,
    add,
    contents,
    ended,
    forget,
    in_bucket,
    left_behind,
    noise,
    photos,
    retries,
    s3_error,
    speak_with,
)
from tests.servers.faults import SLOW_DOWN, Answer, Flip, Reset, Stall, Truncate, faulty
from tests.servers.published import one_sentence
from tests.servers.radosgw import S3Server

pytestmark = pytest.mark.servers

FILMS: dict[str, bytes | str] = {f"{number}.bin": noise(OWN_PACK, number) for number in range(5)}
UNAVAILABLE = s3_error(503, "ServiceUnavailable")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Who speaks S3."""
    return str(request.param)


@pytest.fixture
def payload(
    client: str, registry: Path, ceph: S3Server, bucket: str, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Payload]:
    """A registry whose remote is an empty bucket."""
    speak_with(client, monkeypatch)
    with faulty(ceph.url) as faults:
        yield in_bucket(registry, ceph, bucket, faults, reg)


@pytest.fixture
def waiting(payload: Payload, reg: Reg) -> Payload:
    """A dataset that is to be pushed."""
    add(payload, "photos", photos(), reg)
    return payload


@pytest.fixture
def pushed(waiting: Payload, home: Path, reg: Reg) -> Payload:
    """The same, pushed, of which nothing is on this machine."""
    reg(waiting.registry, "push")
    forget(home)
    waiting.faults.clear()
    return waiting


def is_whole(payload: Payload, consumer: Path, home: Path, reg: Reg, name: str = "photos") -> None:
    """What was pushed is there to the last byte."""
    payload.faults.clear()
    reg(payload.registry, "verify", "--remote", "--deep")
    forget(home)
    reg(consumer, "get", payload.registry, name, "-o", "whole")
    assert tree(consumer / "whole") == tree(payload.registry / name)


# --- busy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", [SLOW_DOWN, UNAVAILABLE, Answer(500), Answer(429)], ids=["slow", "503", "500", "429"])
def test_push_goes_on_when_the_bucket_is_busy_for_a_while(
    waiting: Payload, consumer: Path, home: Path, reg: Reg, busy: Answer
) -> None:
    rules = [waiting.faults.add(busy, method=method, first=3) for method in ("PUT", "HEAD")]
    reg(waiting.registry, "push")
    assert [rule.applied for rule in rules] == [3, 3]
    is_whole(waiting, consumer, home, reg)


@pytest.mark.parametrize("busy", [SLOW_DOWN, UNAVAILABLE, Answer(500), Answer(429)], ids=["slow", "503", "500", "429"])
def test_import_goes_on_when_the_bucket_is_busy_for_a_while(
    pushed: Payload, consumer: Path, reg: Reg, busy: Answer
) -> None:
    rule = pushed.faults.add(busy, method="GET", first=4)
    reg(consumer, "import", pushed.registry, "photos")
    assert rule.applied == 4
    assert tree(consumer / "photos") == contents(photos())


def test_requests_that_are_refused_now_and_then_fail_nothing(
    waiting: Payload, consumer: Path, home: Path, reg: Reg
) -> None:
    waiting.faults.add(SLOW_DOWN, every=4)
    reg(waiting.registry, "push")
    forget(home)
    reg(consumer, "import", waiting.registry, "photos")
    assert tree(consumer / "photos") == contents(photos())


@pytest.mark.parametrize("busy", [SLOW_DOWN, UNAVAILABLE], ids=["slow", "503"])
def test_push_in_a_storm_that_does_not_end_names_what_failed_and_sends_nothing_twice_later(
    payload: Payload, consumer: Path, home: Path, reg: Reg, busy: Answer
) -> None:
    add(payload, "films", FILMS, reg)
    retries(payload.registry, 1, reg)
    payload.faults.add(busy, method="PUT", path="/manifests/")
    ran = reg(payload.registry, "push", code=STORE)
    assert "manifests/" in one_sentence(ran.err)
    assert payload.address in ran.err
    assert not any(key.startswith("manifests/") for key in payload.objects())
    payload.faults.clear()
    reg(payload.registry, "push")
    assert payload.sent() == 0
    is_whole(payload, consumer, home, reg, "films")


def test_push_that_breaks_half_way_does_not_send_again_what_arrived(
    payload: Payload, consumer: Path, home: Path, reg: Reg, client: str
) -> None:
    add(payload, "films", FILMS, reg)
    retries(payload.registry, 0, reg)
    payload.faults.rules.append(From(3, Reset(OWN_PACK // 2, of="request"), method="PUT", path="/packs/"))
    one_sentence(ended(payload.registry, client, "push", code=STORE))
    arrived = payload.packs()
    assert arrived
    payload.faults.clear()
    reg(payload.registry, "push")
    assert payload.sent() == sum(payload.packs().values()) - sum(arrived.values())
    is_whole(payload, consumer, home, reg, "films")


@pytest.mark.parametrize("busy", [SLOW_DOWN, UNAVAILABLE], ids=["slow", "503"])
def test_import_in_a_storm_that_does_not_end_names_the_object_and_places_nothing(
    pushed: Payload, consumer: Path, reg: Reg, busy: Answer
) -> None:
    retries(consumer, 1, reg)
    where = pushed.key(PACK)
    pushed.faults.add(busy, path=where)
    ran = reg(consumer, "import", pushed.registry, "photos", code=STORE)
    assert where in one_sentence(ran.err)
    assert pushed.address in ran.err
    assert left_behind(consumer) == []
    pushed.faults.clear()
    reg(consumer, "import", pushed.registry, "photos")
    assert tree(consumer / "photos") == contents(photos())


# --- connections that break -------------------------------------------------------------------------------------


BREAKS: dict[str, Reset | Truncate] = {
    "reset before": Reset(of="request"),
    "reset within": Reset(100_000, of="request"),
    "cut within": Truncate(100_000, of="request"),
    "reset of the answer": Reset(),
}


@pytest.mark.parametrize("name", BREAKS)
def test_upload_that_breaks_once_is_sent_again(
    waiting: Payload, consumer: Path, home: Path, reg: Reg, name: str
) -> None:
    rule = waiting.faults.add(BREAKS[name], method="PUT", path="/packs/", first=1)
    reg(waiting.registry, "push")
    assert rule.applied == 1
    is_whole(waiting, consumer, home, reg)


@pytest.mark.parametrize("name", BREAKS)
def test_upload_that_always_breaks_leaves_no_name_and_the_next_push_completes(
    waiting: Payload, consumer: Path, home: Path, reg: Reg, name: str
) -> None:
    retries(waiting.registry, 0, reg)
    waiting.faults.add(BREAKS[name], method="PUT", path="/packs/")
    ran = reg(waiting.registry, "push", code=STORE)
    assert "packs/" in one_sentence(ran.err)
    assert waiting.address in ran.err
    assert [key for key in waiting.objects() if key.startswith(("maps/", "manifests/"))] == []
    waiting.faults.clear()
    reg(waiting.registry, "push")
    is_whole(waiting, consumer, home, reg)


@pytest.mark.parametrize("after", [0, 1000, 300_000])
def test_download_that_is_reset_once_is_asked_for_again(pushed: Payload, consumer: Path, reg: Reg, after: int) -> None:
    rule = pushed.faults.add(Reset(after), method="GET", path=pushed.key(PACK), first=1)
    reg(consumer, "import", pushed.registry, "photos")
    assert rule.applied == 1
    assert tree(consumer / "photos") == contents(photos())


def test_download_that_is_always_reset_is_named(pushed: Payload, consumer: Path, reg: Reg) -> None:
    retries(consumer, 0, reg)
    where = pushed.key(PACK)
    pushed.faults.add(Reset(100), method="GET", path=where)
    ran = reg(consumer, "import", pushed.registry, "photos", code=STORE)
    assert where in one_sentence(ran.err)
    assert pushed.address in ran.err
    assert left_behind(consumer) == []


@pytest.mark.timeout(300)
def test_stall_in_both_directions_is_waited_for_once_and_then_tried_again(
    waiting: Payload, consumer: Path, home: Path, reg: Reg
) -> None:
    stuck = waiting.faults.add(Stall(600), method="PUT", path="/packs/", first=1)
    reg(waiting.registry, "push")
    forget(home)
    silent = waiting.faults.add(Stall(600, after=1000), method="GET", path=waiting.key(PACK), first=1)
    reg(consumer, "import", waiting.registry, "photos")
    assert (stuck.applied, silent.applied) == (1, 1)
    assert tree(consumer / "photos") == contents(photos())


# --- credentials ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ExpiredToken", "InvalidToken", "TokenRefreshRequired"])
def test_credentials_that_expire_half_way_are_named_and_the_next_push_goes_on(
    payload: Payload, consumer: Path, home: Path, ceph: S3Server, reg: Reg, monkeypatch: pytest.MonkeyPatch,
    client: str, code: str,
) -> None:  # fmt: skip
    keys = f"aws_access_key_id = {ceph.access_key}\naws_secret_access_key = {ceph.secret_key}\n"
    write(home, {".aws/credentials": f"[lab]\n{keys}"})
    add(payload, "films", FILMS, reg)
    payload.faults.rules.append(From(3, s3_error(403, code), method="PUT", path="/packs/"))
    with monkeypatch.context() as environment:
        as_profile("lab", environment)
        said = ended(payload.registry, client, "push", code=AUTH)
    assert "lab" in one_sentence(said)
    assert "aws sso login --profile lab" in said
    for secret in (ceph.secret_key, ceph.access_key):
        assert secret not in said
    arrived = payload.packs()
    payload.faults.clear()
    with monkeypatch.context() as environment:
        as_profile("lab", environment)
        reg(payload.registry, "push")
    assert payload.sent() == sum(payload.packs().values()) - sum(arrived.values())
    is_whole(payload, consumer, home, reg, "films")


def as_profile(name: str, environment: pytest.MonkeyPatch) -> None:
    """Have no keys in the environment, and choose a profile."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.delenv(variable)
    environment.setenv("AWS_PROFILE", name)


def test_credentials_that_expire_within_an_import_are_named_and_the_next_one_goes_on(
    pushed: Payload, consumer: Path, reg: Reg
) -> None:
    expired = pushed.faults.add(s3_error(403, "ExpiredToken"), method="GET", path=pushed.key(PACK))
    ran = reg(consumer, "import", pushed.registry, "photos", code=AUTH)
    assert "default" in one_sentence(ran.err)
    assert "aws sso login" in ran.err
    assert expired.applied <= IN_FLIGHT  # it is not tried again
    assert left_behind(consumer) == []
    pushed.faults.clear()
    reg(consumer, "import", pushed.registry, "photos")
    assert tree(consumer / "photos") == contents(photos())


def test_profile_that_there_is_not_is_one_sentence(waiting: Payload, reg: Reg, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        as_profile("nobody", environment)
        ran = reg(waiting.registry, "push", code=AUTH)
    assert "nobody" in one_sentence(ran.err)
    reg(waiting.registry, "push")


@pytest.mark.parametrize("status", [400, 403])
def test_credentials_that_have_expired_before_a_push_are_named(waiting: Payload, reg: Reg, status: int) -> None:
    retries(waiting.registry, 1, reg)
    waiting.faults.add(s3_error(status, "ExpiredToken"))  # the answer to HEAD has no body that says why
    ran = reg(waiting.registry, "push", code=AUTH)
    assert "expired" in one_sentence(ran.err)
    assert "aws sso login" in ran.err


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "RequestInTheFuture"])
def test_clock_that_is_wrong_is_said_to_who_imports(pushed: Payload, consumer: Path, reg: Reg, code: str) -> None:
    rule = pushed.faults.add(s3_error(403, code))
    ran = reg(consumer, "import", pushed.registry, "photos", code=AUTH)
    assert "clock" in one_sentence(ran.err)
    assert rule.applied <= IN_FLIGHT  # it is not tried again
    assert left_behind(consumer) == []


def test_clock_that_is_wrong_is_said_to_who_pushes(waiting: Payload, reg: Reg) -> None:
    waiting.faults.add(s3_error(403, "RequestTimeTooSkewed"))  # the answer to HEAD has no body that says why
    ran = reg(waiting.registry, "push", code=AUTH)
    assert "clock" in one_sentence(ran.err)


# --- what a peer does wrong -------------------------------------------------------------------------------------


def test_upload_that_was_altered_is_noticed_by_verify_and_never_placed(
    waiting: Payload, consumer: Path, home: Path, ceph: S3Server, bucket: str, reg: Reg
) -> None:
    waiting.faults.add(Flip(60, of="request"), method="PUT", path="/packs/")
    ran = reg(waiting.registry, "push", code=None)
    waiting.faults.clear()
    if ran.code:  # the server had a checksum of it
        assert ran.code == STORE, ran.err
        assert waiting.packs() == {}
        return
    ran = reg(waiting.registry, "verify", "--remote", "--deep", code=INTEGRITY)
    assert waiting.key(PACK) in ran.out + ran.err
    forget(home)
    ran = reg(consumer, "import", waiting.registry, "photos", code=INTEGRITY)
    assert waiting.address in one_sentence(ran.err)
    assert left_behind(consumer) == []


def test_object_that_was_damaged_in_the_bucket_is_noticed_by_verify_and_never_placed(
    pushed: Payload, consumer: Path, ceph: S3Server, bucket: str, reg: Reg
) -> None:
    where = pushed.key(PACK)
    client = ceph.client()
    content = bytearray(client.get_object(Bucket=bucket, Key=f"data/{where}")["Body"].read())
    content[60] ^= 1
    client.put_object(Bucket=bucket, Key=f"data/{where}", Body=bytes(content))
    ran = reg(pushed.registry, "verify", "--remote", "--deep", code=INTEGRITY)
    assert where in ran.out + ran.err
    assert where in one_sentence(reg(consumer, "import", pushed.registry, "photos", code=INTEGRITY).err)
    assert left_behind(consumer) == []


@pytest.mark.parametrize("kept", [0, 1000])
def test_object_that_is_truncated_in_the_bucket_is_never_taken_for_whole(
    waiting: Payload, consumer: Path, home: Path, ceph: S3Server, bucket: str, reg: Reg, kept: int
) -> None:
    retries(waiting.registry, 0, reg)
    stop = waiting.faults.add(SLOW_DOWN, method="PUT", path="/(maps|manifests)/")
    reg(waiting.registry, "push", code=STORE)
    assert stop.applied
    where, client = waiting.largest(), ceph.client()
    whole = client.get_object(Bucket=bucket, Key=f"data/{where}")["Body"].read()
    client.put_object(Bucket=bucket, Key=f"data/{where}", Body=whole[:kept])
    waiting.faults.clear()
    reg(waiting.registry, "push")
    assert waiting.packs()[where] == len(whole)
    is_whole(waiting, consumer, home, reg)


def test_corrupt_pack_of_the_outbox_is_never_sent(waiting: Payload, reg: Reg) -> None:
    packs = [path for path in (waiting.registry / ".reg/outbox/packs").rglob("*") if path.is_file()]
    corrupt = max(packs, key=lambda path: path.stat().st_size)
    content = bytearray(corrupt.read_bytes())
    content[1000] ^= 1
    corrupt.chmod(0o644)
    corrupt.write_bytes(content)
    ran = reg(waiting.registry, "push", code=INTEGRITY)
    assert corrupt.name in one_sentence(ran.err)
    assert [key for key in waiting.objects() if corrupt.name in key] == []
    assert [key for key in waiting.objects() if key.startswith("manifests/")] == []
