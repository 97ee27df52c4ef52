"""Metafiles: the small YAML files that Git tracks in place of data (docs/formats/metafile-v1.md).

``NAME.reg.yaml`` in a registry is a `DatasetFile`: which manifest the dataset is at. In a consumer it is an
`ImportFile`: what is wanted, from where, and what is locked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from registree.errors import FormatError, InvalidInput
from registree.model.contents import Row
from registree.model.ids import ContentId, id_text, parse_id
from registree.model.paths import METAFILE_SUFFIX, DatasetName, EntryPath, parse_dataset_name
from registree.model.targets import parse_part
from registree.model.yamltext import load_mapping, render

FORMAT = 1
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")


class DatasetFile(msgspec.Struct, frozen=True):
    """A dataset that this repository publishes.

    `files` counts files and links; `size` is in bytes. `text` is the document it was read from, empty for a new one.
    """

    path: str
    manifest: ContentId
    files: int
    size: int
    contents: Mapping[str, Row]
    meta: Mapping[str, Any] = msgspec.field(default_factory=dict)
    text: str = ""

    def render(self) -> str:
        """Return the document: the one it was read from, with what changed of ours written into it."""
        owned: dict[str, object] = {
            "reg": FORMAT,
            "path": self.path,
            "manifest": id_text(self.manifest),
            "files": self.files,
            "size": self.size,
            "contents": {name: {"files": row.files, "size": row.size} for name, row in self.contents.items()} or None,
        }
        return render(owned, self.text or None, frozenset({"contents"}))


class Lock(msgspec.Struct, frozen=True):
    """What an import is pinned to.

    `manifest` is the id of what was placed (after `part`, `include` and `exclude`). `dataset_manifest` is the id of
    the whole dataset, by which its payload is found; it is None for what Git itself holds.
    """

    commit: str
    manifest: ContentId
    files: int
    size: int
    dataset_manifest: ContentId | None
    tag: str = ""
    version: str = ""
    remote: str = ""
    remote_options: Mapping[str, Any] = msgspec.field(default_factory=dict)


class ImportFile(msgspec.Struct, frozen=True):
    """A dataset, or a part of one, that this repository uses from a registry."""

    path: str
    registry: str
    dataset: DatasetName
    want: str
    lock: Lock
    part: EntryPath = EntryPath("")
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    text: str = ""

    def render(self) -> str:
        """Return the document: the one it was read from, with what changed of ours written into it."""
        lock = self.lock
        wanted: dict[str, object] = {"registry": self.registry, "dataset": str(self.dataset)}
        if self.part:
            wanted["part"] = str(self.part)
        wanted["want"] = self.want
        if self.include:
            wanted["include"] = list(self.include)
        if self.exclude:
            wanted["exclude"] = list(self.exclude)
        locked: dict[str, object] = {}
        if lock.version:
            locked["version"] = lock.version
        if lock.tag:
            locked["tag"] = lock.tag
        locked |= {"commit": lock.commit, "manifest": id_text(lock.manifest)}
        if lock.dataset_manifest is not None and lock.dataset_manifest != lock.manifest:
            locked["of"] = id_text(lock.dataset_manifest)
        if lock.dataset_manifest is None:
            locked["of"] = "git"
        locked |= {"files": lock.files, "size": lock.size}
        if lock.remote:
            locked["remote"] = {"url": lock.remote, **lock.remote_options} if lock.remote_options else lock.remote
        owned: dict[str, object] = {"reg": FORMAT, "path": self.path, "import": wanted, "locked": locked}
        return render(owned, self.text or None)

    def relocked(self, lock: Lock, want: str) -> ImportFile:
        """Return it at another lock, wanting `want`."""
        return replace(self, lock=lock, want=want)


Metafile = DatasetFile | ImportFile


def parse_metafile(text: str, place: str) -> Metafile:
    """Read a metafile.

    Parameters
    ----------
    text
        The document.
    place
        Its path, for errors; a metafile describes the path beside it that has its name without the suffix.

    Raises
    ------
    FormatError
        When it is no metafile of this version.
    """
    fields = load_mapping(text, place)
    version = fields.get("reg")
    if version != FORMAT or isinstance(version, bool):
        if isinstance(version, int) and FORMAT < version < 1 << 31:
            raise FormatError(
                f"{place} has metafile format {version}, and this version of reg reads format {FORMAT}",
                newer=True,
            )
        raise FormatError(f"{place} is not a metafile (it does not say 'reg: {FORMAT}')")
    expected = place.rsplit("/", 1)[-1].removesuffix(METAFILE_SUFFIX)
    if fields.get("path") != expected:
        raise FormatError(f"{place} describes path {fields.get('path')!r}, and its name says {expected!r}")
    try:
        return _import_file(fields, text) if "import" in fields else _dataset_file(fields, text)
    except (FormatError, InvalidInput) as error:
        raise FormatError(f"{place}: {error.message}") from None


def _dataset_file(fields: Mapping[str, Any], text: str) -> DatasetFile:
    contents = _mapping(fields, "contents", {})
    return DatasetFile(
        path=fields["path"],
        manifest=parse_id(fields.get("manifest")),
        files=_count(fields, "files"),
        size=_count(fields, "size"),
        contents={str(name): Row(_count(row, "files"), _count(row, "size")) for name, row in contents.items()},
        meta=_mapping(fields, "meta", {}),
        text=text,
    )


def _import_file(fields: Mapping[str, Any], text: str) -> ImportFile:
    wanted = _mapping(fields, "import")
    locked = _mapping(fields, "locked")
    commit = locked.get("commit")
    if not isinstance(commit, str) or _COMMIT.match(commit) is None:
        raise FormatError(f"locked commit {commit!r} is not a full commit id (quote it if it is all digits)")
    manifest = parse_id(locked.get("manifest"))
    whole = locked.get("of")
    noted = locked.get("remote", "")
    options = dict(noted) if isinstance(noted, Mapping) else {}
    lock = Lock(
        commit=commit,
        manifest=manifest,
        files=_count(locked, "files"),
        size=_count(locked, "size"),
        dataset_manifest=None if whole == "git" else manifest if whole is None else parse_id(whole),
        tag=_text(locked, "tag", ""),
        version=_text(locked, "version", ""),
        remote=_text(options or {"url": noted}, "url"),
        remote_options={str(name): value for name, value in options.items() if name != "url"},
    )
    return ImportFile(
        path=fields["path"],
        registry=_text(wanted, "registry"),
        dataset=parse_dataset_name(_text(wanted, "dataset")) if wanted.get("dataset") else DatasetName(""),
        want=_text(wanted, "want", ""),
        lock=lock,
        part=parse_part(_text(wanted, "part", "")),
        include=_texts(wanted, "include"),
        exclude=_texts(wanted, "exclude"),
        text=text,
    )


def _mapping(fields: Mapping[str, Any], key: str, default: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
    value = fields.get(key, default)
    if not isinstance(value, Mapping):
        raise FormatError(f"its {key!r} is not a mapping")
    return value


def _count(fields: object, key: str) -> int:
    value = fields.get(key) if isinstance(fields, Mapping) else None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FormatError(f"its {key!r} is not a count")
    return value


def _text(fields: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise FormatError(f"its {key!r} is not a text")
    return value


def _texts(fields: Mapping[str, Any], key: str) -> tuple[str, ...]:
    value = fields.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError(f"its {key!r} is not a list of texts")
    return tuple(value)
