"""A store behind any fsspec URL: S3, HTTP(S), memory, and what else has a package."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import fsspec

from registree.errors import AuthError, InvalidInput, ObjectMissing, ReadOnly, RegError, StoreError
from registree.store.base import WHOLE_LIMIT, Store, check_whole
from registree.store.layout import redact

_READ_ONLY = ("http", "https", "github", "zip", "tar")
_EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}


class FsspecStore(Store):
    """Objects under a prefix of an fsspec filesystem.

    Parameters
    ----------
    url
        ``s3://bucket/prefix``, ``https://host/path``, ``memory://x``, ….
    options
        Options of the filesystem, as its package names them.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self.address = redact(url)
        protocol = url.split(":", 1)[0]
        self.writable = protocol not in _READ_ONLY
        try:
            self._fs, self._root = fsspec.core.url_to_fs(
                url.rstrip("/"), use_listings_cache=False, **_filesystem_options(protocol, options or {})
            )
        except ImportError as error:
            extra = f"registree[{_EXTRAS[protocol]}]" if protocol in _EXTRAS else str(error.name or protocol)
            raise InvalidInput(
                f"{self.address} needs a package that is not installed", hint=f"pip install '{extra}'"
            ) from None
        except ValueError as error:
            raise InvalidInput(f"{self.address} is not an address that fsspec knows ({error})") from None

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def read(self, key: str, offset: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        if length == 0:
            return b""
        with self._translated(key):
            if length is None:
                content: bytes = self._fs.cat_file(self._path(key), start=offset, end=offset + WHOLE_LIMIT + 1)
                check_whole(len(content), key, self.address)
                return content
            content = self._fs.cat_file(self._path(key), start=offset, end=offset + length)
        if len(content) > length:  # a server that does not know ranges answers with the whole object
            content = content[offset : offset + length]
        if len(content) < length:
            raise ObjectMissing(
                key, self.address, hint="it is there and shorter than it should be: reg verify --remote"
            )
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
        with self._writing(key):
            self._make_parent(key)
            self._fs.pipe_file(self._path(key), content)

    def upload(self, key: str, path: str) -> None:
        """See `Store.upload`."""
        with self._writing(key):
            self._make_parent(key)
            self._fs.put_file(path, self._path(key))

    def _make_parent(self, key: str) -> None:
        if not getattr(self._fs, "root_marker", "") and self._fs.protocol not in ("s3", ("s3", "s3a")):
            self._fs.makedirs(posixpath.dirname(self._path(key)), exist_ok=True)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        try:
            with self._writing(key):
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
    def _writing(self, key: str) -> Iterator[None]:
        if not self.writable:
            raise ReadOnly(f"{self.address} can only be read", hint="push to another remote: reg remote add NAME URL")
        with self._translated(key):
            yield

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except RegError:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error.__cause__) or "NoSuchBucket" in str(error.__context__):
                raise StoreError(
                    f"{self.address}: there is no such bucket", hint="check the bucket's name: reg remote list"
                ) from error
            raise ObjectMissing(key, self.address) from None
        except PermissionError as error:
            raise AuthError(
                f"{self.address} refused {key}: {error}", hint="check the credentials of that store"
            ) from error
        except Exception as error:
            raise _translate(error, key, self.address) from error


def _filesystem_options(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the options of `reg.yaml` into those of the backend."""
    if protocol not in ("s3", "s3a"):
        return dict(options)
    known = dict(options)
    client: dict[str, Any] = dict(known.pop("client_kwargs", {}))
    if "region" in known:
        client["region_name"] = known.pop("region")
    config: dict[str, Any] = dict(known.pop("config_kwargs", {}))
    if "addressing" in known:
        config["s3"] = {"addressing_style": known.pop("addressing")}
    # the checksums that newer SDKs add by default are not understood by many S3-compatible servers
    config.setdefault("request_checksum_calculation", "when_required")
    config.setdefault("response_checksum_validation", "when_required")
    return {**known, "client_kwargs": client, "config_kwargs": config}


def _translate(error: Exception, key: str, address: str) -> RegError:
    name = type(error).__name__
    text = " ".join(str(error).split())[:200]
    if "credential" in name.lower() or "credential" in text.lower():
        return AuthError(
            f"no valid credentials for {address} ({text})",
            hint="set AWS_PROFILE, or run: aws configure (or aws sso login)",
        )
    status = getattr(error, "status", None)
    if status in (401, 403):
        return AuthError(f"{address} refused {key} (HTTP {status})", hint="check the credentials of that store")
    return StoreError(
        f"{address} could not be reached for {key}: {text or name}",
        hint="run it again: it goes on where it stopped",
        transient=True,
    )
