"""One suite that every kind of store must pass; the kinds that need a server's program are for `make test-servers`."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from registree.errors import FormatError, IntegrityError, ObjectMissing, ReadOnly, RegError
from registree.execute import Meter
from registree.network import Network
from registree.store.base import Store
from registree.store.layout import MARKER
from registree.store.opening import open_store
from registree.store.retrying import RetryingStore
from tests.servers.nginx import nginx
from tests.servers.radosgw import REGION, S3Server, radosgw
from tests.servers.sshd import sshd

Fill = Callable[[str, bytes], None]
SERVERS = ("radosgw", "radosgw-s3fs", "nginx", "sftp")
READ_ONLY = ("http", "nginx")
KINDS = (
    "directory",
    "memory",
    "s3",
    "s3fs",
    "http",
    *(pytest.param(kind, marks=pytest.mark.servers) for kind in SERVERS),
)
S3_CLIENTS = {
    "s3": ("obstore", "s3_obstore", "ObstoreS3"),
    "s3fs": ("s3fs", "s3_s3fs", "S3fsStore"),
    "radosgw": ("obstore", "s3_obstore", "ObstoreS3"),
    "radosgw-s3fs": ("s3fs", "s3_s3fs", "S3fsStore"),
}
"""The package, the module and the class that speak S3, by the kind of store."""


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files, without ranges: the plainest web server there is."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base class names it so
        return


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    """A moto server."""
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def ceph() -> Iterator[S3Server]:
    """Ceph's gateway."""
    with radosgw() as server:
        yield server


def s3_store(kind: str, bucket: str, endpoint: str) -> Store:
    """A store in a bucket through the client of that kind, whichever of them `open_store` would take."""
    package, module, name = S3_CLIENTS[kind]
    pytest.importorskip(package)
    made = getattr(importlib.import_module(f"registree.store.{module}"), name)
    options = {"endpoint_url": endpoint, "region": REGION}
    found = made(f"s3://{bucket}/prefix", options, Network.from_environment(os.environ))
    return RetryingStore(lambda: found, found.address, Meter(), 0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of store."""
    return str(request.param)


@pytest.fixture
def store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """A store of that kind, empty."""
    if kind == "directory":
        yield open_store(str(tmp_path / "store"), str(tmp_path))
    elif kind == "memory":
        yield open_store(f"memory://{tmp_path.name}", "/")
    elif kind in ("s3", "s3fs"):
        endpoint = request.getfixturevalue("s3_endpoint")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        bucket = f"bucket-{tmp_path.name.replace('_', '-')}"[:60].rstrip("-").lower()
        boto3.client("s3", endpoint_url=endpoint, region_name=REGION).create_bucket(Bucket=bucket)
        yield s3_store(kind, bucket, endpoint)
    elif kind in ("radosgw", "radosgw-s3fs"):
        gateway: S3Server = request.getfixturevalue("ceph")
        for name, value in gateway.owner.environment.items():
            monkeypatch.setenv(name, value)
        yield s3_store(kind, gateway.make_bucket(), gateway.url)
    elif kind == "sftp":
        with sshd() as server:
            options = {"username": server.user, "key_filename": str(server.key)}
            yield open_store(f"sftp://127.0.0.1:{server.port}{tmp_path}/store", "/", options)
    elif kind == "nginx":
        (tmp_path / "served").mkdir()
        with nginx(tmp_path / "served") as web:
            yield open_store(f"{web.url}/plain", "/")
    else:
        (tmp_path / "served").mkdir()
        server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "served")))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield open_store(f"http://127.0.0.1:{server.server_port}", "/")
        server.shutdown()
        server.server_close()


@pytest.fixture
def fill(kind: str, store: Store, tmp_path: Path) -> Fill:
    """Put an object into the store: through it, or behind it when it can only be read."""

    def put(key: str, content: bytes) -> None:
        if kind in READ_ONLY:
            path = tmp_path / "served" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        else:
            store.write(key, content)

    return put


KEY = "packs/ab/" + "ab" * 32


def test_object_is_read_back_whole(store: Store, fill: Fill) -> None:
    fill(KEY, b"some bytes")
    assert store.read(KEY) == b"some bytes"
    assert store.size(KEY) == 10


def test_range_is_what_was_asked_for(store: Store, fill: Fill) -> None:
    content = os.urandom(100_000)
    fill(KEY, content)
    assert store.read(KEY, 0, 10) == content[:10]
    assert store.read(KEY, 99_990, 10) == content[-10:]
    assert store.read(KEY, 1000, 50_000) == content[1000:51_000]
    assert store.read(KEY, 500, 0) == b""


def test_range_past_the_end_is_an_error_and_never_short(store: Store, fill: Fill) -> None:
    fill(KEY, b"0123456789")
    with pytest.raises(ObjectMissing):
        store.read(KEY, 5, 20)


def test_missing_object_is_named(store: Store) -> None:
    assert store.size(KEY) is None
    with pytest.raises(ObjectMissing) as caught:
        store.read(KEY)
    assert caught.value.key == KEY
    assert store.address in caught.value.message


def test_range_is_copied_into_a_file(store: Store, fill: Fill, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    fill(KEY, content)
    path = tmp_path / "target"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        store.copy_range(KEY, 1000, 200_000, descriptor, 50)
    finally:
        os.close(descriptor)
    assert path.read_bytes()[50:] == content[1000:201_000]


def test_range_fills_memory_or_nothing_counts(store: Store, fill: Fill) -> None:
    content = os.urandom(300_000)
    fill(KEY, content)
    memory = bytearray(200_000)
    store.fill(KEY, 1000, memoryview(memory))
    assert memory == content[1000:201_000]
    with pytest.raises(ObjectMissing) as caught:
        store.fill(KEY, 200_000, memoryview(memory))
    assert KEY in caught.value.message
    assert store.address in caught.value.message


def test_object_is_replaced_whole(store: Store, kind: str) -> None:
    if kind in READ_ONLY:
        pytest.skip("it can only be read")
    store.write(KEY, b"first, and longer")
    store.write(KEY, b"second")
    assert store.read(KEY) == b"second"


def test_file_is_uploaded(store: Store, kind: str, tmp_path: Path) -> None:
    if kind in READ_ONLY:
        pytest.skip("it can only be read")
    path = tmp_path / "file"
    path.write_bytes(os.urandom(6_000_000))
    store.upload(KEY, str(path))
    assert store.read(KEY) == path.read_bytes()


def test_objects_are_listed_with_sizes(store: Store, kind: str) -> None:
    if kind in READ_ONLY:
        pytest.skip("a web server lists nothing")
    other = "packs/cd/" + "cd" * 32
    store.write(KEY, b"1")
    store.write(other, b"22")
    store.write("maps/ab/" + "ab" * 32, b"333")
    assert sorted(store.keys("packs")) == [(KEY, 1), (other, 2)]
    assert list(store.keys("manifests")) == []


def test_deleted_object_is_gone_and_deleting_twice_is_no_error(store: Store, kind: str) -> None:
    if kind in READ_ONLY:
        pytest.skip("it can only be read")
    store.write(KEY, b"1")
    store.delete(KEY)
    store.delete(KEY)
    assert store.size(KEY) is None


def test_read_only_store_refuses_writes(store: Store, fill: Fill, kind: str, tmp_path: Path) -> None:
    if kind not in READ_ONLY:
        pytest.skip("it can be written")
    fill(KEY, b"1")
    (tmp_path / "file").write_bytes(b"2")
    with pytest.raises(ReadOnly):
        store.write(KEY, b"2")
    with pytest.raises(ReadOnly):
        store.upload(KEY, str(tmp_path / "file"))
    with pytest.raises(ReadOnly):
        store.delete(KEY)
    assert store.read(KEY) == b"1"


def test_marker_is_made_once_and_a_newer_format_refused(store: Store, kind: str, fill: Fill) -> None:
    fill(MARKER, b'{"format": 2}')
    with pytest.raises(FormatError, match="store format 2"):
        store.check_format()
    fill(MARKER, b"<html>")
    with pytest.raises(IntegrityError, match="not a store's marker"):
        store.check_format()
    if kind not in READ_ONLY:
        store.delete(MARKER)
        store.ensure_marker()
        store.ensure_marker()
        store.check_format()


def test_file_is_linked_only_where_it_would_have_been_made_like_that(store: Store, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(b"content")
    if kind != "directory":
        assert not store.link("packs/ab/one", str(path))
        return
    for _ in range(2):  # the second time it is there already, under both names
        assert store.link("packs/ab/one", str(path))
        assert store.read("packs/ab/one") == b"content"
        assert path.stat().st_nlink == 2
    path.chmod(0o600)
    assert not store.link("packs/ab/two", str(path))
    path.chmod(0o644)
    with suppress(OSError):  # not every disk has them
        os.setxattr(path, "user.other", b"access")
        assert not store.link("packs/ab/two", str(path))
    other = tmp_path / "other"
    other.write_bytes(b"other")
    assert store.link("packs/ab/one", str(other)), "an object of that key is replaced"
    assert store.read("packs/ab/one") == b"other"
    assert [key for key, _ in store.keys("packs")] == ["packs/ab/one"]
    assert len(list((tmp_path / "store/packs/ab").iterdir())) == 1, "something is left"


def test_key_with_odd_characters_is_kept(store: Store, fill: Fill) -> None:
    key = "packs/ab/a b+c%20ü#?&=~"
    fill(key, b"odd")
    assert store.read(key) == b"odd"
    assert store.size(key) == 3


def test_empty_object_is_there_and_empty(store: Store, kind: str, fill: Fill, tmp_path: Path) -> None:
    fill(KEY, b"")
    assert store.size(KEY) == 0
    assert store.read(KEY) == b""
    if kind not in READ_ONLY:
        (tmp_path / "file").write_bytes(b"")
        store.upload(KEY + "f", str(tmp_path / "file"))
        assert store.size(KEY + "f") == 0


def test_rest_of_an_object_is_read_from_an_offset(store: Store, fill: Fill) -> None:
    content = os.urandom(100_000)
    fill(KEY, content)
    assert store.read(KEY, 90_000) == content[90_000:]


def test_folder_is_no_object(store: Store, kind: str, fill: Fill) -> None:
    if kind in READ_ONLY:
        pytest.skip("a web server may answer with a page for a folder, which is never asked for")
    fill(KEY, b"1")
    assert store.size("packs/ab") is None
    with pytest.raises(ObjectMissing):
        store.read("packs/ab")


def test_listing_of_more_than_one_page_is_whole(store: Store, kind: str) -> None:
    if kind in READ_ONLY:
        pytest.skip("a web server lists nothing")
    keys = [f"packs/{number % 100:02}/{number:04}" for number in range(1050)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: store.write(key, b"1"), keys))
    assert sorted(key for key, _ in store.keys("packs")) == sorted(keys)


def test_folder_is_listed_without_those_whose_name_begins_alike(store: Store, kind: str) -> None:
    if kind in READ_ONLY:
        pytest.skip("a web server lists nothing")
    store.write("packs/ab/1", b"1")
    store.write("packs-old/ab/1", b"1")
    assert [key for key, _ in store.keys("packs")] == ["packs/ab/1"]


def test_many_threads_read_at_once(store: Store, fill: Fill) -> None:
    content = os.urandom(64_000)
    fill(KEY, content)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: store.read(KEY, i * 1000, 1000), range(64)))
    assert b"".join(found) == content


def test_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(RegError, match=r"needs a package") as caught:
        open_store("gcs://bucket/path", "/").read(KEY)
    assert "pip install" in caught.value.hint
