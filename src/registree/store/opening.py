"""From a URL to a store. The one lazy door behind which fsspec and its backends are imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from registree.errors import InvalidInput
from registree.execute import Meter
from registree.network import Network
from registree.store.base import OfflineStore, Store
from registree.store.directory import DirectoryStore
from registree.store.layout import redact
from registree.store.retrying import RetryingStore
from registree.store.s3 import S3Options

_FILE_SERVERS = frozenset({"ftp", "hdfs", "sftp", "smb", "ssh", "webdav", "webhdfs"})


def is_local(url: str) -> bool:
    """Tell whether a URL is a path of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str, base: str) -> str:
    """Return the path of a local URL; a relative one starts at `base`."""
    path = unquote(urlsplit(url).path) if url.startswith("file://") else url
    return os.path.normpath(os.path.join(base, os.path.expanduser(path)))


def open_store(
    url: str,
    base: str,
    options: Mapping[str, Any] | None = None,
    *,
    network: Network | None = None,
    meter: Meter | None = None,
    retries: int = 0,
    offline: bool = False,
) -> Store:
    """Open the store at a URL or a path.

    Parameters
    ----------
    url
        A path, a ``file://`` URL or any URL that fsspec knows.
    base
        Where relative paths start: the root of the registry.
    options
        Options of the store, from `reg.yaml`.
    network
        Proxies, certificates and credentials; None for none.
    meter
        Counts what is asked of it; None to count nothing.
    retries
        How often an operation that failed for the moment is tried again.
    offline
        Ask no network: a store that is not on this machine then holds nothing.

    Raises
    ------
    InvalidInput
        When no package for that kind of URL is installed, or there is no such option.
    """
    if is_local(url):
        return DirectoryStore(local_path(url, base))
    if offline:
        return OfflineStore(redact(url))
    check_store(url, options or {})

    def make() -> Store:
        return _remote(url, options or {}, network or Network())

    if url.startswith("memory://"):
        return make()
    writable = not url.startswith(("http://", "https://"))
    return RetryingStore(make, redact(url), meter or Meter(), retries, writable=writable)


def check_store(url: str, options: Mapping[str, Any]) -> None:
    """Refuse a URL or options that no store can have on this machine; nothing is opened or asked.

    Raises
    ------
    InvalidInput
        For an option that there is not, or a package that is not installed.
    """
    protocol = url.split(":", 1)[0]
    if is_local(url) or protocol in ("http", "https"):
        _refuse_options(url, options)
    elif protocol in ("s3", "s3a"):
        S3Options.parse(options, redact(url))
        if not any(importlib.util.find_spec(name) for name in ("obstore", "s3fs")):
            raise InvalidInput(
                f"{redact(url)} needs a package that is not installed: s3fs", hint="pip install 'registree[s3]'"
            )
    else:
        importlib.import_module("registree.store.remote").check_package(url)


def _refuse_options(url: str, options: Mapping[str, Any]) -> None:
    if options:
        raise InvalidInput(f"{redact(url)} has no option {next(iter(options))!r}: it has none")


def _remote(url: str, options: Mapping[str, Any], network: Network) -> Store:
    protocol = url.split(":", 1)[0]
    if protocol in ("http", "https"):
        module, name = "http", "HttpStore"
    elif protocol in ("s3", "s3a"):
        fast = importlib.util.find_spec("obstore") is not None
        module, name = ("s3_obstore", "ObstoreS3") if fast else ("s3_s3fs", "S3fsStore")
    else:
        module, name = ("file_server", "FileServerStore") if protocol in _FILE_SERVERS else ("remote", "FsspecStore")
    made = getattr(importlib.import_module(f"registree.store.{module}"), name)
    if module == "http":
        return cast(Store, made(url, network))
    return cast(Store, made(url, options, network) if module.startswith("s3") else made(url, options))
