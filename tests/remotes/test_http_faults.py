"""A web server that is busy, breaks connections, forbids half way or answers something that was not asked for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from registree.errors import ObjectMissing
from registree.network import Network
from registree.store.http import HttpStore
from tests.conftest import Reg, tree
from tests.remotes.payloads import (
    AUTH,
    INTEGRITY,
    MAP,
    OBJECTS,
    PACK,
    STORE,
    Payload,
    add,
    contents,
    forget,
    left_behind,
    on_web,
    photos,
    retries,
    upload,
)
from tests.servers.faults import Answer, Reset, Stall, faulty
from tests.servers.nginx import USER, WebServer
from tests.servers.published import one_sentence

pytestmark = pytest.mark.servers

PHOTOS = contents(photos())
BUSY = [408, 429, 500, 502, 503, 504]


@pytest.fixture
def folder(web_folder: Path) -> Path:
    """A folder of the web server's that is this test's own."""
    return web_folder / uuid4().hex


@pytest.fixture(params=["plain", "moved"])
def payload(
    request: pytest.FixtureRequest, registry: Path, web: WebServer, folder: Path, home: Path, reg: Reg
) -> Iterator[Payload]:
    """A dataset behind a web server, as it is or behind redirects, of which nothing is on this machine."""
    with faulty(web.url) as faults:
        yield published(on_web(registry, folder, faults, reg, request.param), folder, home, reg)


def published(payload: Payload, folder: Path, home: Path, reg: Reg) -> Payload:
    add(payload, "photos", photos(), reg)
    upload(payload, folder, reg)
    forget(home)
    payload.faults.clear()
    return payload


def works_again(payload: Payload, consumer: Path, reg: Reg) -> None:
    assert left_behind(consumer) == []
    payload.faults.clear()
    reg(consumer, "import", payload.registry, "photos")
    assert tree(consumer / "photos") == PHOTOS


@pytest.mark.parametrize("status", BUSY)
def test_import_goes_on_when_the_server_is_busy_for_a_while(
    payload: Payload, consumer: Path, reg: Reg, status: int
) -> None:
    rule = payload.faults.add(Answer(status), path="/plain/", first=3)
    reg(consumer, "import", payload.registry, "photos")
    assert rule.applied == 3
    assert tree(consumer / "photos") == PHOTOS


@pytest.mark.parametrize("kind", OBJECTS)
def test_import_from_a_server_that_stays_busy_names_the_object_and_places_nothing(
    payload: Payload, consumer: Path, reg: Reg, kind: str
) -> None:
    retries(consumer, 1, reg)
    where = payload.key(kind)
    rule = payload.faults.add(Answer(503), path=where)
    ran = reg(consumer, "import", payload.registry, "photos", code=STORE)
    assert rule.applied >= 2
    assert where in one_sentence(ran.err)
    assert payload.address in ran.err
    works_again(payload, consumer, reg)


@pytest.mark.parametrize("after", [0, 1000, 300_000])
def test_download_that_is_reset_once_is_asked_for_again(payload: Payload, consumer: Path, reg: Reg, after: int) -> None:
    rule = payload.faults.add(Reset(after), path=f"/plain/.*{payload.key(PACK)}", first=1)
    reg(consumer, "import", payload.registry, "photos")
    assert rule.applied == 1
    assert tree(consumer / "photos") == PHOTOS


def test_download_that_is_always_reset_is_named(payload: Payload, consumer: Path, reg: Reg) -> None:
    retries(consumer, 0, reg)
    where = payload.key(PACK)
    payload.faults.add(Reset(1000), path=f"/plain/.*{where}")
    ran = reg(consumer, "import", payload.registry, "photos", code=STORE)
    assert where in one_sentence(ran.err)
    works_again(payload, consumer, reg)


@pytest.mark.timeout(200)
@pytest.mark.parametrize("payload", ["plain"], indirect=True)
def test_download_that_stalls_is_given_up_and_asked_for_again(payload: Payload, consumer: Path, reg: Reg) -> None:
    rule = payload.faults.add(Stall(600, after=1000), path=payload.key(PACK), first=1)
    reg(consumer, "import", payload.registry, "photos")
    assert rule.applied == 1
    assert tree(consumer / "photos") == PHOTOS


@pytest.mark.parametrize("status", [401, 403])
def test_server_that_forbids_half_way_is_an_auth_error(payload: Payload, consumer: Path, reg: Reg, status: int) -> None:
    where = payload.key(PACK)
    rule = payload.faults.add(Answer(status), path=f"/plain/.*{where}")
    ran = reg(consumer, "import", payload.registry, "photos", code=AUTH)
    assert where in one_sentence(ran.err)
    assert "REG_TOKEN_" in ran.err
    assert rule.applied <= 3  # it is not tried again
    works_again(payload, consumer, reg)


def test_token_that_is_revoked_half_way_is_not_shown(
    registry: Path, web: WebServer, folder: Path, consumer: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REG_TOKEN_127_0_0_1", f"{USER}:{web.password}")
    with faulty(web.url) as faults:
        payload = published(on_web(registry, folder, faults, reg, "private"), folder, home, reg)
        payload.faults.add(Answer(401), path=payload.key(PACK))
        ran = reg(consumer, "import", payload.registry, "photos", code=AUTH)
        assert "REG_TOKEN_127_0_0_1" in one_sentence(ran.err)
        assert web.password not in ran.out + ran.err
        works_again(payload, consumer, reg)


def test_answer_without_a_body_leaves_the_connection_usable(payload: Payload, folder: Path) -> None:
    where = payload.key(PACK)
    payload.faults.add(Answer(404), path=f"/plain/.*{where}")
    store = HttpStore(payload.address, Network())
    with pytest.raises(ObjectMissing) as caught:
        store.read(where)
    assert caught.value.key == where  # it is at hand while the next request is made
    assert store.read(payload.key(MAP)) == (folder / payload.key(MAP)).read_bytes()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(206, b"short"),
        Answer(200, b"short"),
        Answer(204),
        Answer(410),
        Answer(416),
    ],
    ids=lambda answer: f"{answer.status}",
)
def test_answer_that_is_not_what_was_asked_for_is_never_data(
    payload: Payload, consumer: Path, reg: Reg, answer: Answer
) -> None:
    retries(consumer, 0, reg)
    where = payload.key(PACK)
    payload.faults.add(answer, path=f"/plain/.*{where}")
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert ran.code in (STORE, INTEGRITY), ran.err
    assert where in one_sentence(ran.err)
    assert payload.address in ran.err
    works_again(payload, consumer, reg)


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_object_that_is_truncated_on_the_server_is_never_taken_for_whole(
    payload: Payload, folder: Path, consumer: Path, reg: Reg, kept: int
) -> None:
    where = payload.key(PACK)
    whole = (folder / where).read_bytes()
    (folder / where).chmod(0o644)
    (folder / where).write_bytes(whole[:kept])
    ran = reg(consumer, "import", payload.registry, "photos", code=INTEGRITY)
    assert where in one_sentence(ran.err)
    (folder / where).write_bytes(whole)
    works_again(payload, consumer, reg)


def test_local_file_that_was_truncated_is_never_said_to_be_up_to_date(
    payload: Payload, consumer: Path, reg: Reg
) -> None:
    reg(consumer, "config", "link", "copy")
    reg(consumer, "import", payload.registry, "photos")
    film = consumer / "photos/film.bin"
    film.write_bytes(film.read_bytes()[:-1])
    assert reg(consumer, "sync", "--check", code=None).code != 0
    assert "film.bin" in reg(consumer, "status").out
    assert reg(consumer, "verify", code=None).code == INTEGRITY
    reg(consumer, "sync", "--force")
    assert tree(consumer / "photos") == PHOTOS
