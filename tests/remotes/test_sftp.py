"""A remote behind OpenSSH's file server, through fsspec's own package for it."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from registree.errors import AuthError, InvalidInput, RegError, StoreError
from registree.store.opening import open_store
from tests.conftest import Reg, git, tree, write
from tests.servers.sshd import SshServer

pytestmark = pytest.mark.servers


class _Relay(socketserver.ThreadingTCPServer):
    """Passes bytes on to a port; `cut` ends all connections, as a router that forgets them does."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        self.port = port
        self.open: list[socket.socket] = []

    def cut(self) -> None:
        for one in self.open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self.open.clear()


class _Passing(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, _Relay)
        with socket.create_connection(("127.0.0.1", self.server.port)) as there:
            self.server.open += [self.request, there]
            back = threading.Thread(target=_pass_on, args=(there, self.request), daemon=True)
            back.start()
            _pass_on(self.request, there)
            back.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while content := source.recv(1 << 16):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)


_UPLOAD = """
import sys
from registree.errors import AuthError, InvalidInput, RegError, StoreError
from registree.store.opening import open_store
url, user, key, path = sys.argv[1:]
store = open_store(url, "/", {"username": user, "key_filename": key})
print("begins", flush=True)
store.upload("packs/ab/" + "ab" * 32, path, lambda count: None)
"""


def test_data_goes_there_and_comes_back(
    registry: Path, consumer: Path, sshd_server: SshServer, tmp_path: Path, home: Path, reg: Reg
) -> None:
    url = f"sftp://127.0.0.1:{sshd_server.port}{tmp_path}/store"
    options = ("-O", f"username={sshd_server.user}", "-O", f"key_filename={sshd_server.key}")
    reg(registry, "remote", "add", "default", url, *options, "-m", "sftp")
    files = {f"{number % 7}/{number}": os.urandom(number) for number in range(200)} | {"large": os.urandom(3 << 20)}
    write(registry / "D", {**files})
    reg(registry, "add", "D", "-m", "v1")
    reg(registry, "push")
    write(registry, {"D/0/0": "changed"})
    reg(registry, "add", "D", "-m", "v2")
    reg(registry, "push")
    reg(registry, "verify", "--remote", "--deep")
    git(tmp_path, "clone", "-q", "--bare", str(registry), "bare.git")
    reg(consumer, "import", tmp_path / "bare.git", "D")
    assert tree(consumer / "D") == files | {"0/0": b"changed"}
    assert not list((tmp_path / "store").rglob(".tmp-*"))


def test_connection_that_is_lost_is_made_again(sshd_server: SshServer, tmp_path: Path) -> None:
    options = {"username": sshd_server.user, "key_filename": str(sshd_server.key)}
    with _Relay(sshd_server.port) as relay:
        threading.Thread(target=relay.serve_forever, daemon=True).start()
        url = f"sftp://127.0.0.1:{relay.server_address[1]}{tmp_path}/store"
        store = open_store(url, "/", options, retries=2)
        store.write("packs/a", b"content")
        relay.cut()
        assert store.read("packs/a") == b"content"
        store = open_store(url, "/", options)
        assert store.size("packs/a") == len(b"content")
        relay.cut()
        with pytest.raises(StoreError):
            store.read("packs/a")
        assert store.read("packs/a") == b"content", "it is made again for the next, too"
        relay.shutdown()


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [("username", "nobody-of-that-name", AuthError), ("colour", "red", InvalidInput), ("timeout", "ten", RegError)],
)
def test_what_cannot_be_connected_is_said(
    sshd_server: SshServer, tmp_path: Path, option: str, value: str, expected: type[RegError]
) -> None:
    options = {"username": sshd_server.user, "key_filename": str(sshd_server.key), option: value}
    with pytest.raises(expected):
        open_store(f"sftp://127.0.0.1:{sshd_server.port}{tmp_path}/store", "/", options).read("packs/a")


def test_server_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(StoreError) as caught:
        open_store(f"sftp://127.0.0.1:{port}{tmp_path}/store", "/", {"username": "x"}).read("packs/a")
    assert caught.value.unreachable


def test_upload_that_is_killed_leaves_the_object_that_was_there(sshd_server: SshServer, tmp_path: Path) -> None:
    url = f"sftp://127.0.0.1:{sshd_server.port}{tmp_path}/store"
    store = open_store(url, "/", {"username": sshd_server.user, "key_filename": str(sshd_server.key)})
    key = "packs/ab/" + "ab" * 32
    store.write(key, b"whole")
    (tmp_path / "new").write_bytes(os.urandom(256 << 20))
    command = [sys.executable, "-c", _UPLOAD, url, sshd_server.user, sshd_server.key, tmp_path / "new"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        folder = (tmp_path / "store" / key).parent
        end = time.monotonic() + 60
        while not [path for path in folder.glob(".tmp-*") if path.stat().st_size > 1 << 20]:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert store.read(key) == b"whole"
    assert [name for name, _ in store.keys("packs")] == [key]
