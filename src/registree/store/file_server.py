"""A store on a file server that fsspec has a package for: sftp, ftp, smb, webdav, hdfs.

Unlike a bucket, a file server shows a file while it is written: here an object gets its name when it is whole.
"""

from __future__ import annotations

import posixpath
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from registree.errors import ObjectMissing, StoreError
from registree.store.layout import TEMPORARY
from registree.store.remote import FsspecStore

_CONNECTED = frozenset({"ftp", "sftp", "ssh"})
"""Kinds that have one connection, which is not made for two threads (paramiko waits for ever)."""
_SFTP = frozenset({"sftp", "ssh"})
_PATIENCE = 60
"""Seconds without an answer after which a connection counts as lost."""
_REQUESTS = 64
"""Reads of 32 KiB that are asked for ahead."""


class FileServerStore(FsspecStore):
    """Objects as files under a folder of a file server."""

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._kind = url.split(":", 1)[0]
        self._turn = threading.RLock()
        self._is_lost = False
        patience = {"timeout": _PATIENCE} if self._kind in _SFTP else {}
        super().__init__(url, {**patience, **(options or {})})

    def _open(self) -> None:
        super()._open()
        if self._kind in _SFTP:
            channel = self._fs.ftp.get_channel()
            channel.settimeout(_PATIENCE)
            channel.get_transport().set_keepalive(_PATIENCE // 2)

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        try:
            return super().read(key, offset, length)
        except StoreError as error:
            if self.size(key) is None:  # a folder: over sftp that is just a failure
                raise ObjectMissing(key, self.address) from error
            raise

    def _cat(self, path: str, start: int, end: int) -> bytes:
        if self._kind not in _SFTP:
            return super()._cat(path, start, end)
        with self._fs.ftp.open(path) as file:  # fsspec's way asks for 32 KiB at a time and waits for each
            length = min(end, file.stat().st_size) - start
            return b"".join(file.readv([(start, length)], _REQUESTS)) if length > 0 else b""

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """See `Store.keys`."""
        return (row for row in super().keys(folder) if not posixpath.basename(row[0]).startswith(TEMPORARY))

    @contextmanager
    def _replacing(self, key: str) -> Iterator[str]:
        target = self._path(key)
        self._make_parent(key)
        temporary = f"{posixpath.dirname(target)}/{TEMPORARY}{secrets.token_hex(8)}"
        try:
            yield temporary
        except BaseException:
            self._drop(temporary)
            raise
        aside = None
        if self._kind not in _SFTP and self._fs.exists(target):  # elsewhere renaming may not take its place
            aside = f"{temporary}.old"
            self._fs.mv(target, aside)
        try:
            self._fs.mv(temporary, target)
        except BaseException:
            if aside is not None:
                self._fs.mv(aside, target)
            self._drop(temporary)
            raise
        if aside is not None:
            self._fs.rm_file(aside)

    def _drop(self, temporary: str) -> None:
        with suppress(Exception):  # what is wrong with the server is said already
            self._fs.rm_file(temporary)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        if self._kind not in _CONNECTED:
            with super()._translated(key):
                yield
            return
        with self._turn:
            if self._is_lost:
                self._open()
                self._is_lost = False
            try:
                with super()._translated(key):
                    yield
            except StoreError:
                self._is_lost = True
                raise
