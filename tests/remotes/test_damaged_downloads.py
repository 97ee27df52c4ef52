"""Bytes that come wrong, short, as a page for people or not at all, from a bucket and from a web server.

Whatever arrives, `reg` reads it again or says which object of which remote is wrong; no wrong byte gets a name, and the
same command works when the remote is right again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.conftest import Reg, tree
from tests.remotes.payloads import (
    CLIENTS,
    INTEGRITY,
    MANIFEST,
    MAP,
    OBJECTS,
    PACK,
    PAGES,
    STORE,
    Payload,
    add,
    contents,
    forget,
    in_bucket,
    left_behind,
    on_web,
    photos,
    retries,
    s3_error,
    speak_with,
    upload,
)
from tests.servers.faults import HTML_PAGE, Answer, Flip, Truncate, faulty
from tests.servers.published import one_sentence

pytestmark = pytest.mark.servers

PHOTOS = contents(photos())


@pytest.fixture(params=[*CLIENTS, "http"])
def payload(
    request: pytest.FixtureRequest, registry: Path, home: Path, reg: Reg, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Payload]:
    """A dataset that was pushed, of which nothing is on this machine."""
    if request.param == "http":
        folder = Path(request.getfixturevalue("web_folder")) / uuid4().hex
        with faulty(request.getfixturevalue("web").url) as faults:
            found = on_web(registry, folder, faults, reg)
            add(found, "photos", photos(), reg)
            upload(found, folder, reg)
            yield _ready(found, home)
        return
    speak_with(request.param, monkeypatch)
    ceph, bucket = request.getfixturevalue("ceph"), request.getfixturevalue("bucket")
    with faulty(ceph.url) as faults:
        found = in_bucket(registry, ceph, bucket, faults, reg)
        add(found, "photos", photos(), reg)
        reg(registry, "push")
        yield _ready(found, home)


def _ready(payload: Payload, home: Path) -> Payload:
    forget(home)
    payload.faults.clear()
    return payload


def damage(payload: Payload, kind: str, action: Answer | Flip | Truncate, first: int | None = None) -> str:
    """Do something to the downloads of an object; return its name."""
    where = payload.key(kind)
    payload.faults.add(action, method="GET", path=where, first=first)
    return where.rsplit("/", 1)[-1]


def works_again(payload: Payload, consumer: Path, reg: Reg) -> None:
    """What failed left nothing in the consumer or in the cache that a run over a good connection stumbles on."""
    assert left_behind(consumer) == []
    payload.faults.clear()
    reg(consumer, "import", payload.registry, "photos")
    assert tree(consumer / "photos") == PHOTOS
    reg(consumer, "sync", "--check")


def comes_in_the_end(payload: Payload, consumer: Path, reg: Reg, *codes: int) -> None:
    """An import with a fault that is over succeeds, or ends with a code and succeeds when it is run again."""
    retries(consumer, 2, reg)
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert ran.code in (0, *codes), ran.err
    if ran.code:
        one_sentence(ran.err)
        works_again(payload, consumer, reg)
    assert tree(consumer / "photos") == PHOTOS


@pytest.mark.parametrize("kind", OBJECTS)
def test_byte_that_is_wrong_once_is_read_again(payload: Payload, consumer: Path, reg: Reg, kind: str) -> None:
    damage(payload, kind, Flip(payload.objects()[payload.key(kind)] // 2 if kind in (MANIFEST, MAP) else 60), first=1)
    comes_in_the_end(payload, consumer, reg, INTEGRITY)


@pytest.mark.parametrize(
    ("kind", "offset"),
    [
        (PACK, 0),
        (PACK, 60),
        (PAGES, 0),
        (PAGES, 60),
        (MANIFEST, 0),
        (MANIFEST, 60),
        (MAP, 0),
        (MAP, 60),
    ],
)
def test_byte_that_is_always_wrong_is_damage_that_is_named(
    payload: Payload, consumer: Path, reg: Reg, kind: str, offset: int
) -> None:
    retries(consumer, 0, reg)
    name = damage(payload, kind, Flip(offset))
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert left_behind(consumer) == []
    assert ran.code == INTEGRITY, ran.err
    assert name in one_sentence(ran.err)
    assert payload.address in ran.err


@pytest.mark.parametrize("offset", [0, 60])
@pytest.mark.parametrize("kind", [PACK, PAGES, MANIFEST, MAP])
def test_byte_that_was_wrong_is_not_kept(payload: Payload, consumer: Path, reg: Reg, kind: str, offset: int) -> None:
    retries(consumer, 0, reg)
    damage(payload, kind, Flip(offset))
    assert reg(consumer, "import", payload.registry, "photos", code=None).code
    works_again(payload, consumer, reg)


@pytest.mark.parametrize("kind", [PAGES, MAP])
def test_no_byte_that_is_wrong_ends_in_wrong_files_or_is_kept(
    payload: Payload, consumer: Path, home: Path, reg: Reg, kind: str
) -> None:
    retries(consumer, 0, reg)
    where = payload.key(kind)
    size = payload.objects()[where]
    kept = []
    for offset in range(0, size, size // 25 or 1):
        payload.faults.clear()
        payload.faults.add(Flip(offset), method="GET", path=where)
        forget(home)
        ran = reg(consumer, "get", payload.registry, "photos", "-o", str(offset), code=None)
        assert tree(consumer / str(offset)) == ({} if ran.code else PHOTOS), ran.err
        payload.faults.clear()
        again = reg(consumer, "get", payload.registry, "photos", "-o", f"{offset}-again", code=None)
        kept += [(offset, ran.err, again.err)] if again.code else []
    assert kept == []


@pytest.mark.parametrize("kind", OBJECTS)
def test_answer_that_is_cut_short_once_is_asked_for_again(
    payload: Payload, consumer: Path, reg: Reg, kind: str
) -> None:
    damage(payload, kind, Truncate(3), first=1)
    retries(consumer, 2, reg)
    reg(consumer, "import", payload.registry, "photos")
    assert tree(consumer / "photos") == PHOTOS


@pytest.mark.parametrize("kind", OBJECTS)
def test_answer_that_is_always_cut_short_is_never_taken_for_whole(
    payload: Payload, consumer: Path, reg: Reg, kind: str
) -> None:
    retries(consumer, 0, reg)
    name = damage(payload, kind, Truncate(3))
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert ran.code in (STORE, INTEGRITY), ran.err
    assert name in one_sentence(ran.err)
    assert payload.address in ran.err
    works_again(payload, consumer, reg)


@pytest.mark.parametrize("kind", [PACK, PAGES, MANIFEST, MAP])
def test_page_for_people_in_place_of_an_object_is_never_data(
    payload: Payload, consumer: Path, reg: Reg, kind: str
) -> None:
    retries(consumer, 0, reg)
    name = damage(payload, kind, HTML_PAGE)
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert ran.code in (STORE, INTEGRITY), ran.err
    assert name in one_sentence(ran.err)
    assert payload.address in ran.err
    works_again(payload, consumer, reg)


def test_page_for_people_in_place_of_everything_is_one_sentence(payload: Payload, consumer: Path, reg: Reg) -> None:
    retries(consumer, 0, reg)
    payload.faults.add(HTML_PAGE)
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert ran.code in (STORE, INTEGRITY), ran.err
    assert payload.address in one_sentence(ran.err)
    works_again(payload, consumer, reg)


@pytest.mark.parametrize("kind", [PACK, PAGES, MANIFEST, MAP])
def test_object_that_vanished_is_named(payload: Payload, consumer: Path, reg: Reg, kind: str) -> None:
    retries(consumer, 0, reg)
    where = payload.key(kind)
    payload.faults.add(s3_error(404, "NoSuchKey"), path=where)
    ran = reg(consumer, "import", payload.registry, "photos", code=None)
    assert ran.code == INTEGRITY, ran.err
    assert where in one_sentence(ran.err)
    assert payload.address in ran.err
    works_again(payload, consumer, reg)
