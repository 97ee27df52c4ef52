"""The main job over S3, plain HTTP and memory; remotes that can only be read, refuse, misbehave or are not there."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

from tests.conftest import Reg, git, tree, write
from tests.servers.git_servers import free_port
from tests.servers.http_files import HttpFiles, http_files
from tests.servers.published import one_sentence
from tests.servers.s3 import s3_server

ONE, TWO, THREE, FOUR = b"one" * 3000, b"two" * 3000, b"three" * 3000, b"four" * 3000
CATS: dict[str, bytes | str] = {"train/1.png": ONE, "train/2.png": TWO, "test/3.png": THREE, "empty.txt": b""}


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket; this process has credentials for it, and forgets the connections of other tests."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")  # no test asks the real S3
    name = f"bucket-{uuid4().hex[:12]}"
    urllib.request.urlopen(urllib.request.Request(f"{s3_url}/{name}", method="PUT")).close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield name
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def s3_registry(registry: Path, bucket: str, s3_url: str, reg: Reg) -> Path:
    """A registry whose default remote is the bucket, with one dataset added and not pushed."""
    options = ["-O", f"endpoint_url={s3_url}", "-O", "region=us-east-1", "-O", "addressing=path"]
    reg(registry, "remote", "add", "default", f"s3://{bucket}/data", *options, "-m", "Remote in a bucket")
    write(registry, {f"cats/{path}": content for path, content in CATS.items()})
    reg(registry, "add", "cats", "-m", "Add cats")
    return registry


@pytest.fixture
def web(registry: Path, tmp_path: Path, reg: Reg) -> Iterator[HttpFiles]:
    """A registry that is written to a folder and read over HTTP, with one dataset that was pushed."""
    remote = tmp_path / "www/data"
    remote.mkdir(parents=True)
    with http_files(tmp_path / "www") as server:
        reg(registry, "remote", "add", "default", f"{server.url}/data", "-m", "Read over HTTP")
        write(registry, {f"cats/{path}": content for path, content in CATS.items()})
        reg(registry, "add", "cats", "-m", "Add cats")
        upload(registry, remote, reg)
        server.forget()
        yield server


def upload(registry: Path, folder: Path, reg: Reg) -> None:
    """Push to the folder that is served, which no commit names, and empty the outbox: readers see HTTP alone."""
    reg(registry, "remote", "add", "upload", folder)
    reg(registry, "push", "--remote", "upload")
    reg(registry, "remote", "remove", "upload")
    shutil.rmtree(registry / ".reg/outbox", ignore_errors=True)


def forget(home: Path) -> None:
    shutil.rmtree(home / "cache", ignore_errors=True)


def expected() -> dict[str, bytes]:
    return {path: content for path, content in CATS.items() if isinstance(content, bytes)}


def there(consumer: Path) -> list[str]:
    return [path for path in tree(consumer) if not path.startswith((".git/", ".reg/"))]


def objects_of(s3_url: str, bucket: str) -> dict[str, int]:
    fs = fsspec.filesystem("s3", endpoint_url=s3_url, skip_instance_cache=True, use_listings_cache=False)
    return {path: int(row["size"]) for path, row in fs.find(f"{bucket}/data", detail=True).items()}


# --- S3 ---------------------------------------------------------------------------------------------------------


def test_main_job_over_s3(
    s3_registry: Path, consumer: Path, tmp_path: Path, home: Path, bucket: str, s3_url: str, reg: Reg
) -> None:
    reg(s3_registry, "push")
    assert [path for path in (s3_registry / ".reg/outbox/packs").rglob("*") if path.is_file()] == []
    assert f"{bucket}/data/reg-store.json" in objects_of(s3_url, bucket)
    git(s3_registry, "tag", "v1")
    forget(home)
    reg(consumer, "import", s3_registry, "cats", "--rev", "v1")
    assert tree(consumer / "cats") == expected()
    write(s3_registry, {"cats/train/4.png": FOUR})
    (s3_registry / "cats/test/3.png").unlink()
    reg(s3_registry, "add", "cats", "-m", "More cats")
    reg(s3_registry, "push")
    forget(home)
    reg(consumer, "update", "--rev", "main")
    assert tree(consumer / "cats") == tree(s3_registry / "cats")
    forget(home)
    reg(tmp_path, "get", s3_registry, "cats@v1:train", "-o", "part")
    assert tree(tmp_path / "part") == {"1.png": ONE, "2.png": TWO}
    reg(s3_registry, "verify", "--remote", "--deep")


def test_second_push_to_s3_sends_nothing(s3_registry: Path, bucket: str, s3_url: str, reg: Reg) -> None:
    sent = reg(s3_registry, "push", "--json").json
    assert sent["size"] >= sum(map(len, expected().values()))
    before = objects_of(s3_url, bucket)
    again = reg(s3_registry, "push", "--json").json
    assert (again["packs"], again["size"]) == (0, 0)
    assert objects_of(s3_url, bucket) == before


def test_large_file_travels_over_s3_and_an_append_sends_little(
    s3_registry: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    write(s3_registry, {"big.bin": os.urandom(20_000_000)})
    reg(s3_registry, "add", "big.bin", "-m", "Add a large file")
    reg(s3_registry, "push")
    forget(home)
    reg(consumer, "import", s3_registry, "big.bin")
    assert (consumer / "big.bin").read_bytes() == (s3_registry / "big.bin").read_bytes()
    with (s3_registry / "big.bin").open("ab") as file:
        file.write(os.urandom(100_000))
    reg(s3_registry, "add", "big.bin", "-m", "Append")
    assert reg(s3_registry, "push", "--json").json["size"] < 5_000_000
    (row,) = reg(consumer, "update", "--json").json["imports"]
    assert row["fetched"] >= 100_000
    assert (consumer / "big.bin").read_bytes() == (s3_registry / "big.bin").read_bytes()


def test_many_small_files_are_few_objects_on_s3(s3_registry: Path, bucket: str, s3_url: str, reg: Reg) -> None:
    write(s3_registry, {f"many/{number}.txt": f"file {number}\n" * 20 for number in range(2500)})
    reg(s3_registry, "add", "many", "-m", "Add many")
    reg(s3_registry, "push")
    assert len(objects_of(s3_url, bucket)) < 20


def test_vanished_registry_still_downloads_from_its_bucket(
    s3_registry: Path, consumer: Path, home: Path, reg: Reg
) -> None:
    reg(s3_registry, "push")
    reg(consumer, "import", s3_registry, "cats", "--no-download")
    shutil.rmtree(s3_registry)
    forget(home)
    reg(consumer, "sync")
    assert tree(consumer / "cats") == expected()


def test_no_credentials_for_s3_is_one_sentence(
    s3_registry: Path, consumer: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    ran = reg(s3_registry, "push", code=4)
    assert "credentials" in one_sentence(ran.err)
    assert "AWS_PROFILE" in ran.err
    shutil.rmtree(s3_registry / ".reg/outbox")
    ran = reg(consumer, "import", s3_registry, "cats", code=4)
    assert "credentials" in one_sentence(ran.err)
    assert there(consumer) == []


def test_bucket_that_is_not_there_is_one_sentence(
    registry: Path, consumer: Path, bucket: str, s3_url: str, reg: Reg
) -> None:
    url = f"s3://{bucket}-not-there/data"
    reg(registry, "remote", "add", "default", url, "-O", f"endpoint_url={s3_url}", "-m", "A bucket")
    write(registry, {"prices": "1\n"})
    reg(registry, "add", "prices", "-m", "Add prices")
    ran = reg(registry, "push", code=5)
    assert f"{bucket}-not-there" in one_sentence(ran.err)
    shutil.rmtree(registry / ".reg/outbox")
    ran = reg(consumer, "import", registry, "prices", code=5)
    assert f"{bucket}-not-there" in one_sentence(ran.err)
    assert there(consumer) == []


def test_push_that_failed_keeps_the_outbox_and_the_next_one_completes(
    s3_registry: Path, consumer: Path, home: Path, bucket: str, s3_url: str, reg: Reg
) -> None:
    good = (s3_registry / "reg.yaml").read_text()
    (s3_registry / "reg.yaml").write_text(good.replace(s3_url, f"http://127.0.0.1:{free_port()}"))
    reg(s3_registry, "push", code=5)
    (s3_registry / "reg.yaml").write_text(good)
    reg(s3_registry, "push")
    forget(home)
    reg(consumer, "import", s3_registry, "cats")
    assert tree(consumer / "cats") == expected()


def test_secret_in_the_options_of_a_remote_is_refused(registry: Path, reg: Reg) -> None:
    before = (registry / "reg.yaml").read_text()
    ran = reg(registry, "remote", "add", "default", "s3://bucket/data", "-O", "secret=hunter2", code=2)
    assert "secret" in one_sentence(ran.err)
    assert "hunter2" not in ran.err
    reg(registry, "remote", "add", "default", "https://me:hunter2@example.org/data", code=2)
    assert (registry / "reg.yaml").read_text() == before


# --- plain HTTP -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranges", [True, False])
def test_main_job_over_http(
    web: HttpFiles, registry: Path, consumer: Path, tmp_path: Path, home: Path, reg: Reg, ranges: bool
) -> None:
    web.ranges = ranges
    git(registry, "tag", "v1")
    forget(home)
    reg(consumer, "import", registry, "cats", "--rev", "v1")
    assert tree(consumer / "cats") == expected()
    assert web.asked
    write(registry, {"cats/train/4.png": FOUR})
    reg(registry, "add", "cats", "-m", "More cats")
    upload(registry, tmp_path / "www/data", reg)
    reg(consumer, "update", "--rev", "main")
    assert tree(consumer / "cats") == tree(registry / "cats")
    forget(home)
    reg(tmp_path, "get", registry, "cats@v1:train/2.png", "-o", "two.png")
    assert (tmp_path / "two.png").read_bytes() == TWO


def test_update_over_http_with_nothing_new_asks_the_remote_for_nothing(
    web: HttpFiles, registry: Path, consumer: Path, reg: Reg
) -> None:
    reg(consumer, "import", registry, "cats")
    write(registry, {"README.md": "Read me\n"})
    git(registry, "add", "README.md")
    git(registry, "commit", "-q", "-m", "Read me")
    web.forget()
    assert "nothing new" in reg(consumer, "update").out
    reg(consumer, "status")
    reg(consumer, "sync", "--check")
    assert web.asked == []


def test_what_the_cache_has_is_not_asked_of_http_again(
    web: HttpFiles, registry: Path, consumer: Path, tmp_path: Path, reg: Reg
) -> None:
    reg(consumer, "import", registry, "cats")
    web.forget()
    reg(consumer, "import", registry, "cats", "-o", "again")
    reg(tmp_path, "get", registry, "cats", "-o", "got")
    assert tree(consumer / "again") == tree(tmp_path / "got") == expected()
    assert web.asked == []


def test_one_file_over_http_costs_its_bytes_and_little_more(
    web: HttpFiles, registry: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    forget(home)
    reg(tmp_path, "get", registry, "cats:train/1.png", "-o", "one.png")
    assert (tmp_path / "one.png").read_bytes() == ONE
    assert web.sent < len(ONE) + 5000
    assert len(web.asked) <= 8


@pytest.mark.parametrize("ranges", [True, False])
def test_large_file_over_http(
    web: HttpFiles, registry: Path, consumer: Path, tmp_path: Path, home: Path, reg: Reg, ranges: bool
) -> None:
    web.ranges = ranges
    write(registry, {"big.bin": os.urandom(20_000_000)})
    reg(registry, "add", "big.bin", "-m", "Add a large file")
    upload(registry, tmp_path / "www/data", reg)
    forget(home)
    reg(consumer, "import", registry, "big.bin")
    assert (consumer / "big.bin").read_bytes() == (registry / "big.bin").read_bytes()


def test_push_to_http_is_refused_as_read_only(web: HttpFiles, registry: Path, tmp_path: Path, reg: Reg) -> None:
    before = tree(tmp_path / "www")
    write(registry, {"cats/train/4.png": FOUR})
    reg(registry, "add", "cats", "-m", "More cats")
    waiting = tree(registry / ".reg/outbox")
    ran = reg(registry, "push", code=4)
    assert "can only be read" in one_sentence(ran.err)
    assert "reg remote add" in ran.err
    assert tree(tmp_path / "www") == before
    assert tree(registry / ".reg/outbox") == waiting


@pytest.mark.parametrize("status", [401, 403])
def test_http_remote_that_refuses_is_an_auth_error(
    web: HttpFiles, registry: Path, consumer: Path, home: Path, reg: Reg, status: int
) -> None:
    forget(home)
    reg(consumer, "config", "retries", "1")
    web.status = status
    ran = reg(consumer, "import", registry, "cats", code=4)
    assert web.url in one_sentence(ran.err)
    assert there(consumer) == []


@pytest.mark.parametrize("status", [500, 503])
def test_http_remote_that_fails_is_worth_a_retry(
    web: HttpFiles, registry: Path, consumer: Path, home: Path, reg: Reg, status: int
) -> None:
    forget(home)
    web.status = status
    ran = reg(consumer, "import", registry, "cats", code=5)
    assert web.url in one_sentence(ran.err)
    assert there(consumer) == []
    web.status = 0
    reg(consumer, "import", registry, "cats")


def test_object_that_http_does_not_have_is_named(
    web: HttpFiles, registry: Path, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    forget(home)
    payload = max((p for p in (tmp_path / "www/data/packs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    payload.unlink()
    ran = reg(consumer, "import", registry, "cats", code=6)
    assert payload.name in one_sentence(ran.err)
    assert there(consumer) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_truncated_answer_of_http_is_never_accepted(
    web: HttpFiles, registry: Path, consumer: Path, home: Path, reg: Reg, ranges: bool
) -> None:
    forget(home)
    reg(consumer, "config", "retries", "1")
    web.ranges, web.cut = ranges, 7
    ran = reg(consumer, "import", registry, "cats", code=5 if ranges else 6)  # 5: the answer says it was cut
    assert web.url in one_sentence(ran.err)
    assert there(consumer) == []
    web.cut = 0
    reg(consumer, "import", registry, "cats")
    assert tree(consumer / "cats") == expected()


def test_altered_object_of_http_is_never_accepted(
    web: HttpFiles, registry: Path, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    forget(home)
    payload = max((p for p in (tmp_path / "www/data/packs").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(payload.read_bytes())
    content[50] ^= 1
    payload.write_bytes(content)
    ran = reg(consumer, "import", registry, "cats", code=6)
    assert payload.name in one_sentence(ran.err)
    assert there(consumer) == []


# --- memory, and what can only be read --------------------------------------------------------------------------


def test_main_job_over_memory(registry: Path, consumer: Path, home: Path, reg: Reg) -> None:
    url = f"memory://{uuid4().hex}/data"
    reg(registry, "remote", "add", "default", url, "-m", "Remote in memory")
    write(registry, {f"cats/{path}": content for path, content in CATS.items()})
    reg(registry, "add", "cats", "-m", "Add cats")
    reg(registry, "push")
    git(registry, "tag", "v1")
    forget(home)
    reg(consumer, "import", registry, "cats")
    assert tree(consumer / "cats") == expected()
    write(registry, {"cats/train/4.png": FOUR})
    reg(registry, "add", "cats", "-m", "More cats")
    reg(registry, "push")
    reg(consumer, "update")
    assert tree(consumer / "cats") == tree(registry / "cats")
    reg(consumer, "get", registry, "cats@v1", "-o", "first")
    assert tree(consumer / "first") == expected()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_cannot_be_written_is_one_sentence(registry: Path, tmp_path: Path, reg: Reg) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote").chmod(0o555)
    reg(registry, "remote", "add", "default", tmp_path / "remote", "-m", "Remote")
    write(registry, {"prices": "1\n"})
    reg(registry, "add", "prices", "-m", "Add prices")
    ran = reg(registry, "push", code=4)
    assert str(tmp_path / "remote") in one_sentence(ran.err)
    (tmp_path / "remote").chmod(0o755)
    reg(registry, "push")


def test_folder_that_can_only_be_read_serves_readers(
    registry: Path, consumer: Path, tmp_path: Path, home: Path, reg: Reg
) -> None:
    reg(registry, "remote", "add", "default", tmp_path / "remote", "-m", "Remote")
    write(registry, {f"cats/{path}": content for path, content in CATS.items()})
    reg(registry, "add", "cats", "-m", "Add cats")
    reg(registry, "push")
    forget(home)
    folders = [path for path in (tmp_path / "remote").rglob("*") if path.is_dir()]
    before = tree(tmp_path / "remote")
    for folder in folders:
        folder.chmod(0o555)
    try:
        reg(consumer, "import", registry, "cats")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert tree(consumer / "cats") == expected()
    assert tree(tmp_path / "remote") == before


@pytest.mark.parametrize("below", ["", "deeper"])
def test_remote_that_is_a_file_is_one_sentence(registry: Path, tmp_path: Path, reg: Reg, below: str) -> None:
    (tmp_path / "file").write_text("not a folder\n")
    place = tmp_path / "file" / below if below else tmp_path / "file"
    reg(registry, "remote", "add", "default", place, "-m", "Remote")
    write(registry, {"prices": "1\n"})
    reg(registry, "add", "prices", "-m", "Add prices")
    ran = reg(registry, "push", code=5)
    assert str(tmp_path / "file") in one_sentence(ran.err)
    assert (tmp_path / "file").read_text() == "not a folder\n"


# --- what cannot be reached -------------------------------------------------------------------------------------


def unreachable(registry: Path, reg: Reg, kind: str) -> str:
    """Have the default remote be somewhere that nobody listens, with a dataset waiting; return the address."""
    port = free_port()
    if kind == "s3":
        options = ["-O", f"endpoint_url=http://127.0.0.1:{port}"]
        reg(registry, "remote", "add", "default", "s3://bucket/data", *options, "-m", "Remote")
        address = "s3://bucket/data"
    else:
        address = f"http://127.0.0.1:{port}/data"
        reg(registry, "remote", "add", "default", address, "-m", "Remote")
    write(registry, {"prices": "1\n"})
    reg(registry, "add", "prices", "-m", "Add prices")
    return address


@pytest.mark.parametrize(("kind", "verb"), [("s3", "import"), ("http", "import"), ("http", "get")])
def test_unreachable_remote_is_one_sentence_for_readers(
    registry: Path, consumer: Path, bucket: str, reg: Reg, kind: str, verb: str
) -> None:
    address = unreachable(registry, reg, kind)
    shutil.rmtree(registry / ".reg/outbox")
    ran = reg(consumer, verb, registry, "prices", code=5)
    assert address in one_sentence(ran.err)
    assert "run it again" in ran.err
    assert there(consumer) == []


def test_unreachable_bucket_is_one_sentence_for_a_push_and_loses_nothing(registry: Path, bucket: str, reg: Reg) -> None:
    address = unreachable(registry, reg, "s3")
    waiting = tree(registry / ".reg/outbox")
    ran = reg(registry, "push", code=5)
    assert address in one_sentence(ran.err)
    assert tree(registry / ".reg/outbox") == waiting


@pytest.mark.parametrize("scheme", ["git", "http"])
def test_unreachable_registry_is_one_sentence(consumer: Path, reg: Reg, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}/registry.git"
    for verb in ("get", "import"):
        ran = reg(consumer, verb, url, "cats", code=5)
        assert url in one_sentence(ran.err)
    assert there(consumer) == []


def test_registry_at_an_http_address_without_one_is_not_found(consumer: Path, tmp_path: Path, reg: Reg) -> None:
    with http_files(tmp_path) as server:
        ran = reg(consumer, "import", f"{server.url}/registry.git", "cats", code=3)
        assert f"{server.url}/registry.git" in one_sentence(ran.err)
    assert there(consumer) == []


def test_registry_that_closes_the_connection_is_one_sentence(consumer: Path, reg: Reg) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.listen()
        port = listening.getsockname()[1]
        listening.setblocking(True)

        def hang_up() -> None:
            for _ in range(2):
                listening.accept()[0].close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        ran = reg(consumer, "import", f"git://127.0.0.1:{port}/registry.git", "cats", code=5)
        assert "registry.git" in one_sentence(ran.err)


@pytest.mark.parametrize("dead_first", [True, False])
def test_second_remote_serves_while_the_first_cannot_be_reached(
    registry: Path, consumer: Path, tmp_path: Path, home: Path, reg: Reg, dead_first: bool
) -> None:
    dead = f"http://127.0.0.1:{free_port()}/data"
    order = [("dead", dead), ("alive", str(tmp_path / "alive"))]
    reg(registry, "remote", "remove", "default")
    for name, url in order if dead_first else reversed(order):
        reg(registry, "remote", "add", name, url)
    git(registry, "commit", "-q", "-a", "-m", "Two remotes")
    write(registry, {f"cats/{path}": content for path, content in CATS.items()})
    reg(registry, "add", "cats", "-m", "Add cats")
    reg(registry, "push", "--remote", "alive")
    shutil.rmtree(registry / ".reg/outbox")
    forget(home)
    reg(consumer, "import", registry, "cats")
    assert tree(consumer / "cats") == expected()


def test_scheme_that_nobody_knows_is_one_sentence(registry: Path, tmp_path: Path, reg: Reg) -> None:
    ran = reg(tmp_path, "init", tmp_path / "other", "--remote", "nosuch://place/data", code=2)
    assert "nosuch" in one_sentence(ran.err)
    write(registry, {"prices": "1\n"})
    reg(registry, "add", "prices", "-m", "Add prices")
    reg(registry, "remote", "add", "default", "nosuch://place/data", "-m", "Remote", code=None)
    if "nosuch" in (registry / "reg.yaml").read_text():
        ran = reg(registry, "push", code=2)
        assert "nosuch" in one_sentence(ran.err)
