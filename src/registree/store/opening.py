"""From a URL to a store. The one lazy door behind which fsspec and its backends are imported."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from registree.store.base import OfflineStore, Store
from registree.store.directory import DirectoryStore
from registree.store.layout import redact


def is_local(url: str) -> bool:
    """Tell whether a URL is a path of this machine."""
    return "://" not in url or url.startswith("file://")


def local_path(url: str, base: str) -> str:
    """Return the path of a local URL; a relative one starts at `base`."""
    path = unquote(urlsplit(url).path) if url.startswith("file://") else url
    return os.path.normpath(os.path.join(base, os.path.expanduser(path)))


def open_store(url: str, base: str, options: Mapping[str, Any] | None = None, *, offline: bool = False) -> Store:
    """Open the store at a URL or a path.

    Parameters
    ----------
    url
        A path, a ``file://`` URL or any URL that fsspec knows.
    base
        Where relative paths start: the root of the registry.
    options
        Options of the filesystem, from `reg.yaml`.
    offline
        Ask no network: a store that is not on this machine then holds nothing.

    Raises
    ------
    InvalidInput
        When no package for that kind of URL is installed.
    """
    if is_local(url):
        return DirectoryStore(local_path(url, base))
    if offline:
        return OfflineStore(redact(url))
    remote = importlib.import_module("registree.store.remote")
    store: Store = remote.FsspecStore(url, options)
    return store
