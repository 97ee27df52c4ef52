"""Which paths a dataset may hold and which names a dataset may have, decided in one place.

Paths come from disks, metafiles and manifests, all of them untrusted: everything that becomes a path on a disk
passes through here first.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import NewType

from registree.errors import FormatError, InvalidInput

EntryPath = NewType("EntryPath", str)
"""A path inside a dataset: relative, `/` between parts, in normal form. Empty when the dataset is itself a file."""

DatasetName = NewType("DatasetName", str)
"""A dataset's path in its registry, without the metafile's suffix: ``images/cats-dogs``."""

METAFILE_SUFFIX = ".reg.yaml"
MAX_PART = 255
MAX_PATH = 4096

# A part is anything but `.`, `..`, `.git`, `.reg` and holds no NUL and no half of a surrogate pair (which is how
# Python shows a name that is not UTF-8). As git does, refused is also what other disks take for `.git`: any case; on
# NTFS dots, spaces or a stream after it, and its short name; on HFS+ what is left without what it leaves out.
_OWN = r"(?:\.git|\.reg|git~1|reg~1)[ .]*(?::[^/]*)?(?=/|\Z)"
_SAFE = re.compile(rf"(?:(?!\.\.?(?:/|\Z)|{_OWN})[^/\0\ud800-\udfff]+(?:/(?!\Z)|\Z))+\Z", re.IGNORECASE)
_LEFT_OUT = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])
_HIDDEN = re.compile(rf"(?:\A|/){_OWN}", re.IGNORECASE)
_DOUBTFUL = ("//", "/\0", "/.", "git~1", "reg~1")
"""What a path that may not stand in a manifest has in it, when ``/`` is put before it and NUL behind it."""
_SURELY_SHORT = MAX_PART // 4
"""Characters that take at most `MAX_PART` bytes."""
_RESERVED = r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\.|/|\Z)"
_UNPORTABLE = re.compile(rf'(?:\A|/){_RESERVED}|[<>:"\\|?*\x00-\x1f]|[ .](?:/|\Z)', re.IGNORECASE)
"""What no path on Windows has in it."""


def check_entry_path(path: str) -> EntryPath:
    """Return the path if it may stand in a manifest.

    Raises
    ------
    FormatError
        For an absolute path, an empty or dotted part, a part that some disk takes for ``.git`` or ``.reg``, a NUL,
        text that is not UTF-8, a part over 255 bytes or a path over 4096 bytes.
    """
    if _SAFE.match(path) is None or not (path.isascii() or _HIDDEN.search(path.translate(_LEFT_OUT)) is None):
        raise FormatError(f"path {path!r} may not stand in a dataset (it is absolute, dotted, or under .git or .reg)")
    if len(path) > _SURELY_SHORT:
        encoded = path.encode()
        if len(encoded) > MAX_PATH or any(len(part) > MAX_PART for part in encoded.split(b"/")):
            raise FormatError(f"path {path[:80]!r}… is too long (255 bytes a part, 4096 in all)")
    return EntryPath(path)


def check_entry_paths(paths: Sequence[str]) -> None:
    """Check many paths at once, as `check_entry_path` does each.

    Raises
    ------
    FormatError
        For the first that may not stand in a manifest.
    """
    text = "/" + "\0/".join(paths) + "\0"
    plain = text.isascii() and text.count("\0") == len(paths) and not any(mark in text.lower() for mark in _DOUBTFUL)
    if not plain or max(map(len, paths)) > _SURELY_SHORT:
        for path in paths:
            check_entry_path(path)


def parse_dataset_name(text: str) -> DatasetName:
    """Read a dataset's name as a person types it; its metafile's name is taken too.

    >>> parse_dataset_name("images/cats-dogs.reg.yaml")
    'images/cats-dogs'

    Raises
    ------
    InvalidInput
        When no dataset can have that name.
    """
    name = text.removesuffix(METAFILE_SUFFIX).rstrip("/")
    try:
        check_entry_path(name)
    except FormatError:
        raise InvalidInput(
            f"{text!r} is not a dataset name: it must be a relative path without '..', '.git' or '.reg' in it",
            hint="a name looks like images/cats-dogs; `reg list` shows those there are",
        ) from None
    if len(name.rsplit("/", 1)[-1].encode()) > MAX_PART - len(METAFILE_SUFFIX):
        raise InvalidInput(
            f"{name[:40]!r}… is too long for a dataset's name: with {METAFILE_SUFFIX} it passes {MAX_PART} bytes",
            hint="give it a shorter name",
        )
    if "@" in name or ":" in name:
        raise InvalidInput(
            f"{text!r} is not a dataset name: '@' and ':' separate a name from a revision and a path",
            hint="rename it, or put it into a folder and add the folder",
        )
    return DatasetName(name)


def portability_problems(folder: str, names: Collection[str]) -> list[str]:
    """Name what would go wrong on other systems with the names in one folder, one sentence a problem.

    Found are names that collide under case folding or Unicode normal form, names reserved on Windows and
    characters that it refuses.
    """
    text = "/".join(names)
    doubtful = names if _UNPORTABLE.search(text) else ()
    problems = [
        f"{join(folder, name)!r} is not a valid name on Windows" for name in doubtful if _UNPORTABLE.search(name)
    ]
    folded = set(_fold(text).split("/"))
    if len(folded) < len(names):
        first: dict[str, str] = {}
        for name in sorted(names):
            other = first.setdefault(_fold(name), name)
            if other != name:
                problems.append(
                    f"{join(folder, other)!r} and {join(folder, name)!r} are one name "
                    "on disks that fold case or Unicode forms"
                )
    return problems


def _fold(name: str) -> str:
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def join(folder: str, name: str) -> str:
    """Join a folder (which may be empty) and a name."""
    return f"{folder}/{name}" if folder else name


def printable(text: str) -> str:
    """Escape what a terminal would act on, so that a file's name cannot move the cursor."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def is_within(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or lies in it (text only, normal form on both sides)."""
    return not folder or path == folder or path.startswith(folder + "/")
