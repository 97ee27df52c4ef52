"""A store behind any URL for which fsspec has a package: gcs, abfs, sftp, webdav, hdfs, memory."""

from __future__ import annotations

import importlib
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fsspec
from fsspec.callbacks import Callback
from fsspec.registry import get_filesystem_class, known_implementations

from registree.errors import AuthError, InvalidInput, ObjectMissing, RegError, StoreError
from registree.store.base import WHOLE_LIMIT, Sent, Store, check_whole, nobody
from registree.store.layout import redact

_INSTALL = re.compile(r"""(?:[Ii]nstall (?:the )?|requires )["'`]?([\w.\[\]-]+)""")
_LATE = {"hdfs": "pyarrow"}
"""Packages that fsspec itself misses only when it connects."""


class _Counted(Callback):  # type: ignore[misc] # fsspec has no types
    """Passes on what fsspec tells of an upload."""

    def __init__(self, sent: Sent) -> None:
        super().__init__()
        self._sent = sent

    def relative_update(self, inc: int = 1) -> None:
        self.value += inc
        self._sent(inc)


def package_of(protocol: str, error: ImportError) -> str:
    """Name what has to be installed for a kind of URL; fsspec's own message does: ``Please install gcsfs to …``."""
    texts = (str(error), str(known_implementations.get(protocol, {}).get("err", "")))
    found = next((found for text in texts if (found := _INSTALL.search(text))), None)
    return found[1] if found else str(error.name or protocol)


def check_package(url: str) -> None:
    """Refuse a URL whose package is not installed.

    Raises
    ------
    InvalidInput
        Naming the package, or when fsspec knows no such kind.
    """
    protocol = url.split(":", 1)[0]
    try:
        get_filesystem_class(protocol)
        if protocol in _LATE:
            importlib.import_module(_LATE[protocol])
    except ImportError as error:
        package = package_of(protocol, error)
        raise InvalidInput(
            f"{redact(url)} needs a package that is not installed: {package}", hint=f"pip install '{package}'"
        ) from None
    except ValueError as error:
        raise InvalidInput(f"{redact(url)} is not an address that fsspec knows ({error})") from None


class FsspecStore(Store):
    """Objects under a prefix of an fsspec filesystem.

    Parameters
    ----------
    url
        ``gs://bucket/prefix``, ``sftp://host/path``, ``memory://x``, ….
    options
        Options of the filesystem, as its package names them.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.address = redact(url)
        self._url = url.rstrip("/")
        self._options = options or {}
        self._open()

    def _open(self) -> None:
        """Make the filesystem; some kinds connect now.

        Raises
        ------
        InvalidInput
            When there is no such kind, or it does not take an option.
        StoreError, AuthError
            When there is no connection.
        """
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self._url, skip_instance_cache=True, **self._options)
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"{self.address} cannot be opened ({error})", hint="reg remote list shows its URL and options"
            ) from None
        except Exception as error:
            raise self._failed(error, "a connection") from error
        self._fs.dircache.use_listings_cache = False  # not every package takes that as an option

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        if length == 0:
            return b""
        with self._translated(key):
            if length is None:
                content = self._cat(self._path(key), offset, offset + WHOLE_LIMIT + 1)
                check_whole(len(content), key, self.address)
                return content
            content = self._cat(self._path(key), offset, offset + length)
        if len(content) > length:  # a server that does not know ranges answers with the whole object
            content = content[offset : offset + length]
        if len(content) < length:
            raise ObjectMissing(key, self.address, shorter=True)
        return content

    def _cat(self, path: str, start: int, end: int) -> bytes:
        content: bytes = self._fs.cat_file(path, start=start, end=end)
        return content

    def size(self, key: str) -> int | None:
        """See `Store.size`."""
        try:
            with self._translated(key):
                found = self._fs.info(self._path(key))
        except ObjectMissing:
            return None
        if found.get("type") == "directory":
            return None
        size = found.get("size")
        return int(size) if size is not None else len(self.read(key))

    def write(self, key: str, content: bytes) -> None:
        """See `Store.write`."""
        with self._translated(key), self._replacing(key) as path:
            self._fs.pipe_file(path, content)

    def upload(self, key: str, path: str, sent: Sent = nobody) -> None:
        """See `Store.upload`."""
        with self._translated(key), self._replacing(key) as target:
            self._put(target, path, sent)

    @contextmanager
    def _replacing(self, key: str) -> Iterator[str]:
        """Give the path to write an object to; a bucket shows it when it is whole."""
        self._make_parent(key)
        yield self._path(key)

    def _put(self, target: str, path: str, sent: Sent, **options: int) -> None:
        counted = _Counted(sent)
        self._fs.put_file(path, target, callback=counted, **options)
        sent(max(os.stat(path).st_size - counted.value, 0))  # not every package tells

    def _make_parent(self, key: str) -> None:
        self._fs.makedirs(posixpath.dirname(self._path(key)), exist_ok=True)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        try:
            with self._translated(key):
                self._fs.rm_file(self._path(key))
        except ObjectMissing:
            return

    def keys(self, folder: str) -> Iterator[tuple[str, int]]:
        """See `Store.keys`."""
        try:
            with self._translated(folder):
                found = self._fs.find(self._path(folder), detail=True)
        except ObjectMissing:
            return
        prefix = len(self._root) + 1
        for path, row in found.items():
            yield self._fs._strip_protocol(path)[prefix:], int(row["size"] or 0)

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except RegError:
            raise
        except Exception as error:
            raise self._failed(error, key) from error

    def _failed(self, error: Exception, key: str) -> RegError:
        """Say what went wrong with an object."""
        name = type(error).__name__
        text = " ".join(str(error).split())[:200]
        if isinstance(error, FileNotFoundError):
            return ObjectMissing(key, self.address)
        if isinstance(error, PermissionError) or re.search(
            "credential|authentication|password", f"{name} {text}", re.I
        ):
            return AuthError(f"{self.address} refused {key}: {text}", hint="check the credentials of that store")
        return StoreError(
            f"{self.address} failed for {key}: {text or name}",
            hint="run it again: it goes on where it stopped",
            transient=True,
            unreachable=isinstance(error, ConnectionRefusedError) or name == "NoValidConnectionsError",  # paramiko's
        )
