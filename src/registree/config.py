"""Configuration: text in, values out.

Three files, the later before the earlier: the user's own (``~/.config/registree/config.yaml``), the registry's tracked
``reg.yaml`` (remotes and policy), and this machine's ``.reg/config.yaml``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from registree.errors import FormatError, InvalidInput, NotFound, StateError
from registree.model.yamltext import load_mapping, render

FORMAT = 1
REGISTRY_FILE = "reg.yaml"
LOCAL_DIRECTORY = ".reg"
EMBEDDED_REMOTE = ".reg/remote"
DEFAULT_REMOTE = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_SECRET = re.compile(
    r"secret|password|passwd|passphrase|token|credential|access_?key|\bkey\b|sas|private", re.IGNORECASE
)
PROTOCOLS = frozenset(
    [
        "file",
        "s3",
        "s3a",
        "http",
        "https",
        "gs",
        "gcs",
        "abfs",
        "abfss",
        "az",
        "adl",
        "oci",
        "oss",
        "sftp",
        "ssh",
        "ftp",
        "hdfs",
        "webhdfs",
        "webdav",
        "webdavs",
        "dav",
        "davs",
        "hf",
        "box",
        "dropbox",
        "gdrive",
        "smb",
        "memory",
    ]
)
"""Kinds of stores that a registry may name; wrappers of other stores (caches, archives) could write to this machine."""
LINKS = ("reflink", "hardlink", "copy")
SETTINGS = ("cache.dir", "link", "jobs", "lock.wait", "retries")


class Remote(msgspec.Struct, frozen=True):
    """Where payload lives: a URL or path, and options of its fsspec filesystem. Never a secret."""

    name: str
    url: str
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)


class RegistryFile(msgspec.Struct, frozen=True):
    """What `reg.yaml` says: the remotes, the first one being the default, and the text it was read from."""

    remotes: tuple[Remote, ...]
    text: str = ""

    def remote(self, name: str | None) -> Remote:
        """Return the remote of a name; None for the first one.

        Raises
        ------
        NotFound
            When there is none of that name.
        StateError
            When there is none at all.
        """
        if not self.remotes:
            raise StateError("this registry has no remote", hint="reg remote add NAME URL")
        if name is None:
            return self.remotes[0]
        for remote in self.remotes:
            if remote.name == name:
                return remote
        there = ", ".join(remote.name for remote in self.remotes) or "none"
        raise NotFound(f"there is no remote {name!r} (there are: {there})", hint=f"reg remote add {name} URL")

    def render(self) -> str:
        """Return the document with these remotes in it, keeping what else stands there."""
        remotes = {remote.name: {"url": remote.url, **remote.options} for remote in self.remotes}
        return render({"reg": FORMAT, "remotes": remotes}, self.text or None, frozenset({"remotes"}))


def parse_registry_file(text: str, place: str = REGISTRY_FILE) -> RegistryFile:
    """Read `reg.yaml`.

    Raises
    ------
    FormatError
        When it is malformed or of a newer version.
    InvalidInput
        When it holds something that looks like a secret.
    """
    fields = load_mapping(text, place)
    version = fields.get("reg")
    if version != FORMAT:
        newer = isinstance(version, int) and version > FORMAT
        raise FormatError(
            f"{place} has format {version!r}, and this version of reg reads format {FORMAT}",
            hint=f"it has to say 'reg: {FORMAT}'",
            newer=newer,
        )
    rows = fields.get("remotes") or {}
    if not isinstance(rows, dict):
        raise FormatError(f"the remotes in {place} are not a mapping of names to URLs")
    remotes = []
    for name, given in rows.items():
        row = {"url": given} if isinstance(given, str) else given
        if not isinstance(row, dict) or not isinstance(row.get("url"), str):
            raise FormatError(f"remote {name!r} in {place} has no url")
        remotes.append(make_remote(str(name), row["url"], {k: v for k, v in row.items() if k != "url"}, place))
    return RegistryFile(tuple(remotes), text)


def make_remote(name: str, url: str, options: Mapping[str, Any], place: str = REGISTRY_FILE) -> Remote:
    """Make a remote of checked values.

    Raises
    ------
    InvalidInput
        For a malformed name or URL, or when the URL or an option looks like a secret.
    """
    if _NAME.match(name) is None:
        raise InvalidInput(f"{name!r} is not a name for a remote", hint="letters, digits, '.', '_' and '-'")
    parts = urlsplit(url)
    if not url or "\n" in url:
        raise InvalidInput(f"{url!r} is not a URL or a path")
    if parts.scheme and "@" in parts.netloc and ":" in parts.netloc.rsplit("@", 1)[0]:
        raise InvalidInput(
            f"the URL of remote {name!r} holds a password, and {place} is tracked by Git",
            hint="leave it out: credentials come from the environment or the cloud's own tools",
        )
    if parts.scheme in ("http", "https") and "@" in parts.netloc:
        raise InvalidInput(
            f"the URL of remote {name!r} names a user, which may be a token, and {place} is tracked by Git",
            hint="leave it out: credentials come from the environment",
        )
    if parts.scheme and (parts.query or parts.fragment):
        raise InvalidInput(
            f"the URL of remote {name!r} has a query, which may hold a signature, and {place} is tracked by Git",
            hint="name the store without it; options go beside the URL",
        )
    if "::" in url or (parts.scheme and "://" in url and parts.scheme not in PROTOCOLS):
        raise InvalidInput(
            f"remote {name!r} cannot be of kind {url.split('://', 1)[0]!r}",
            hint=f"there are {', '.join(sorted(PROTOCOLS))}",
        )
    for option in _option_names(options):
        if _SECRET.search(option):
            raise InvalidInput(
                f"option {option!r} of remote {name!r} looks like a secret, and {place} is tracked by Git",
                hint="leave it out: credentials come from the environment or the cloud's own tools",
            )
    return Remote(name, url, dict(options))


def _option_names(options: Mapping[str, Any]) -> list[str]:
    names = []
    for name, value in options.items():
        names.append(str(name))
        if isinstance(value, Mapping):
            names += _option_names(value)
    return names


class Settings(msgspec.Struct, frozen=True):
    """What a machine or a user decides.

    `link` lists how files may come from the cache, the best first; `jobs` is the number of transfers at once, and of
    processes that work on files (0: as the machine suggests); `lock_wait` is in seconds; `retries` is how often a
    request to a remote is tried again.
    """

    cache_dir: str = ""
    link: tuple[str, ...] = LINKS
    jobs: int = 0
    lock_wait: float = 30.0
    retries: int = 6
    overrides: Mapping[str, str] = msgspec.field(default_factory=dict)


def parse_settings(texts: Mapping[str, str]) -> Settings:
    """Read settings from the contents of configuration files, by place; the later files go before the earlier.

    Raises
    ------
    FormatError, InvalidInput
        When a file is malformed or a value cannot be.
    """
    values: dict[str, str] = {}
    for place, text in texts.items():
        if not text.strip():
            continue
        for name, value in load_mapping(text, place).items():
            values[name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    for name, value in values.items():
        check_setting(name, value)
    prefix = "remote."
    return Settings(
        cache_dir=values.get("cache.dir", ""),
        link=tuple(part.strip() for part in values["link"].split(",")) if "link" in values else LINKS,
        jobs=int(values.get("jobs", "0")),
        lock_wait=float(values.get("lock.wait", "30")),
        retries=int(values.get("retries", "6")),
        overrides={name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)},
    )


def check_setting(name: str, value: str) -> None:
    """Refuse a setting that does not exist or a value that cannot be.

    Raises
    ------
    InvalidInput
        Naming what there is.
    """
    if name == "link":
        kinds = [part.strip() for part in value.split(",")]
        if not kinds or any(kind not in LINKS for kind in kinds):
            raise InvalidInput(f"link cannot be {value!r}", hint=f"it is a list of {', '.join(LINKS)}")
    elif name == "jobs":
        if not value.isdigit() or int(value) > 256:
            raise InvalidInput(f"jobs cannot be {value!r}", hint="it is a number of transfers at once, up to 256")
    elif name == "retries":
        if not value.isdigit() or int(value) > 100:
            raise InvalidInput(f"retries cannot be {value!r}", hint="it is a number of tries, up to 100")
    elif name == "lock.wait":
        if not re.fullmatch(r"\d{1,6}(\.\d+)?", value):
            raise InvalidInput(f"lock.wait cannot be {value!r}", hint="it is a number of seconds")
    elif name != "cache.dir" and not name.startswith("remote."):
        raise InvalidInput(f"there is no setting {name!r}", hint=f"there are {', '.join(SETTINGS)}, remote.NAME")
