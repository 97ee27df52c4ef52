"""What the property tests draw from: paths, entries, and sets of entries that one dataset can hold."""

from __future__ import annotations

from hypothesis import strategies as st

from registree.errors import FormatError
from registree.model.ids import hash_bytes
from registree.model.manifest import Entry, Kind
from registree.model.paths import check_entry_path

AWKWARD = [
    ".",
    "..",
    ".git",
    ".GIT",
    ".reg",
    "con",
    "a b",
    " ",
    "-x",
    "#",
    "!",
    '"',
    "'",
    "\n",
    "\\",
    "*",
    "[a]",
    "~",
    ":",
]

any_text = st.text(st.characters(), max_size=80)
"""Any text at all, halves of surrogate pairs and NUL included."""
any_part = st.one_of(st.text(st.characters(blacklist_categories=()), max_size=12), st.sampled_from(AWKWARD))
any_path = st.one_of(any_text, st.lists(any_part, max_size=5).map("/".join))
"""Texts shaped like paths, good and bad."""


def is_accepted(path: str) -> bool:
    """Tell whether a path may stand in a dataset."""
    try:
        check_entry_path(path)
    except FormatError:
        return False
    return True


good_path = any_path.filter(is_accepted)
short_part = st.text("abAB09 -.!~é日😀", min_size=1, max_size=3).filter(is_accepted)
short_path = st.lists(short_part, min_size=1, max_size=3).map("/".join)
"""Paths that often share folders, prefixes and neighbours."""


def without_clashes(paths: set[str]) -> list[str]:
    """Drop the paths that lie below another one; the rest can stand side by side on a disk."""
    return sorted(path for path in paths if not any(path.startswith(f"{other}/") for other in paths))


contents = st.binary(max_size=6)
files = st.dictionaries(short_path, contents, max_size=24).map(
    lambda found: {path: found[path] for path in without_clashes(set(found))}
)
"""The files of a small dataset by path."""


def entry(path: str, content: bytes, *, executable: bool = False) -> Entry:
    """Return the entry of a file with this content."""
    return Entry(path, Kind.EXECUTABLE if executable else Kind.FILE, len(content), hash_bytes(content))


def entries_of(found: dict[str, bytes]) -> list[Entry]:
    """Return the sorted entries of some files."""
    return [entry(path, found[path]) for path in sorted(found)]
