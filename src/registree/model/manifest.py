"""Manifests: the whole state of a dataset as a Merkle tree of pages (docs/formats/manifest-v1.md).

Entries sort by the UTF-8 bytes of their paths (which is Python's order of `str`). A leaf page ends after an entry
whose path's hash says so; a page of a higher level ends after a child whose last path's hash says so with more bits.
Boundaries depend on paths alone, so two versions of a dataset share every page that no edit touched.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import IntEnum
from itertools import pairwise
from typing import Annotated, NamedTuple

import msgspec
from blake3 import blake3

from registree.errors import FormatError, IntegrityError
from registree.model.ids import EMPTY, ID_LENGTH, ContentId, hash_bytes, id_text
from registree.model.paths import check_entry_path, check_entry_paths

FORMAT = 1
BOUNDARY_BITS = 10
"""A page holds 2**10 items on average (measured in docs/decisions/0002)."""
_ENDS_LEAF, _ENDS_FIRST, _ENDS_SECOND = ((1 << BOUNDARY_BITS * level) - 1 for level in (1, 2, 3))
PAGE_LIMIT = 8192
"""A page never holds more items than this; a run without a boundary is cut here."""
MAX_LEVEL = 3
"""2**30 entries reach level 2 on average; a level past 3 has no bits left to cut by."""
MAX_PAGE_BYTES = 64 << 20
"""Bound on one decompressed page or map, checked before memory is taken."""
MAX_SIZE = (1 << 63) - 1


class Kind(IntEnum):
    """What an entry is."""

    FILE = 0
    EXECUTABLE = 1
    LINK = 2
    DIRECTORY = 3
    """An empty directory: others are implied by the paths in them."""


_EXECUTABLE = int(Kind.EXECUTABLE)
"""Looking up a member of an enumeration costs more than all that a loop over entries does with it."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One path of a dataset.

    `size` is in bytes (of a link: of its target's text; of a directory: 0). `content` is the content id of a file,
    the target's UTF-8 bytes of a link, and empty for a directory.
    """

    path: str
    kind: int
    size: int
    content: bytes

    @property
    def is_file(self) -> bool:
        """Whether it has payload of its own (an executable file has)."""
        return self.kind <= _EXECUTABLE

    def is_content(self, content: bytes | memoryview) -> bool:
        """Tell whether bytes are this file's."""
        return hash_bytes(content) == self.content

    @property
    def target(self) -> str:
        """Where a link points, relative to the link's own folder."""
        return self.content.decode()


class PageRef(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A page as its parent names it.

    `last` is the last path in it, `page` its id; `entries`, `files` and `size` (bytes) count all that is below it.
    """

    last: str
    page: bytes
    entries: int
    files: int
    size: int


class _Leaf(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    level: int
    items: Annotated[list[Entry], msgspec.Meta(max_length=PAGE_LIMIT)]


class _Inner(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    format: int
    level: int
    items: Annotated[list[PageRef], msgspec.Meta(max_length=PAGE_LIMIT)]


class Page(NamedTuple):
    """A decoded page: its level (0 is a leaf) and what it holds."""

    level: int
    entries: list[Entry]
    children: list[PageRef]


class Totals(NamedTuple):
    """What a dataset holds: entries of any kind, files, and their bytes."""

    entries: int
    files: int
    size: int


_encoder = msgspec.msgpack.Encoder()
_leaf_decoder = msgspec.msgpack.Decoder(_Leaf)
_inner_decoder = msgspec.msgpack.Decoder(_Inner)


def encode_leaf(entries: list[Entry]) -> bytes:
    """Return the one valid encoding of a leaf page."""
    return _encoder.encode(_Leaf(FORMAT, 0, entries))


def encode_inner(level: int, children: list[PageRef]) -> bytes:
    """Return the one valid encoding of a page of pages."""
    return _encoder.encode(_Inner(FORMAT, level, children))


def decode_page(content: bytes, expected: bytes) -> Page:
    """Read a page and check everything that can be checked without its neighbours.

    Parameters
    ----------
    content
        The page's canonical bytes, decompressed.
    expected
        The id that its parent, or the metafile, gave it.

    Raises
    ------
    FormatError
        When the bytes are not those of that id, not canonical, of a newer version, or hold what no page may hold.
    """
    if hash_bytes(content) != expected:
        raise IntegrityError(f"page {id_text(expected)} has other bytes than its id says")
    if len(content) < 3 or content[0] != 0x93:
        raise FormatError(f"page {id_text(expected)} is not a manifest page")
    if content[1] != FORMAT:
        raise FormatError(
            f"page {id_text(expected)} has manifest format {content[1]}, and this version of reg reads format {FORMAT}",
            newer=True,
        )
    level = content[2]
    try:
        if level == 0:
            leaf = _leaf_decoder.decode(content)
            check_entries(leaf.items)
            page = Page(0, leaf.items, [])
            canonical = encode_leaf(leaf.items)
        else:
            inner = _inner_decoder.decode(content)
            _check_children(level, inner.items)
            page = Page(level, [], inner.items)
            canonical = encode_inner(level, inner.items)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, FormatError) as error:
        raise FormatError(f"page {id_text(expected)} is malformed: {error}") from None
    if canonical != content:
        raise FormatError(f"page {id_text(expected)} is not in canonical form")
    return page


def check_entry(entry: Entry) -> None:
    """Raise `FormatError` for an entry that no dataset may hold (see docs/formats/manifest-v1.md, Limits)."""
    if entry.path:
        check_entry_path(entry.path)
    kind, size, content = entry.kind, entry.size, entry.content
    if not 0 <= size <= MAX_SIZE:
        raise FormatError(f"entry {entry.path!r} has size {size}")
    if 0 <= kind <= Kind.EXECUTABLE:
        valid = len(content) == ID_LENGTH and (size > 0 or content == EMPTY)
    elif kind == Kind.LINK:
        valid = bool(entry.path) and size == len(content) and link_stays_inside(entry.path, content)
    else:
        valid = bool(entry.path) and kind == Kind.DIRECTORY and not size and not content
    if not valid:
        raise FormatError(f"entry {entry.path!r} of kind {kind} is malformed")


def link_stays_inside(path: str, target: bytes) -> bool:
    """Tell whether a link at `path` with this target stays inside its dataset.

    A ``..`` may stand only at the start of a target, where the folders above are the dataset's own; after a name it
    could climb out through another link.
    """
    try:
        text = target.decode()
    except UnicodeDecodeError:
        return False
    if not text or text.startswith("/") or "\0" in text or len(target) > 4095:
        return False
    parts = [part for part in text.split("/") if part not in ("", ".")]
    climbs = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    return climbs <= path.count("/") and ".." not in parts[climbs:]


def check_entries(entries: list[Entry]) -> None:
    """Raise `FormatError` unless these entries may follow each other in a dataset: sorted, none below another."""
    paths = [entry.path for entry in entries]
    if entries and entries[0].path and all(map(_is_plain_file, entries)):
        check_entry_paths(paths)
    else:
        for entry in entries:
            check_entry(entry)
    every = set(paths)
    if paths != sorted(every):
        after, before = next((after, before) for before, after in pairwise(paths) if after <= before)
        raise FormatError(f"{after!r} comes after {before!r}")
    for folder in {path.rpartition("/")[0] for path in paths}:
        above = folder
        while above:
            if above in every:
                raise FormatError(f"what is below {above!r} lies below another entry")
            above = above.rpartition("/")[0]
    if len(entries) > 1 and not entries[0].path:
        raise FormatError("an entry without a path stands beside others")


def _is_plain_file(entry: Entry) -> bool:
    return bool(0 <= entry.kind <= _EXECUTABLE and 0 < entry.size <= MAX_SIZE and len(entry.content) == ID_LENGTH)


def _check_children(level: int, children: list[PageRef]) -> None:
    if not 0 < level <= MAX_LEVEL or not 0 < len(children) <= PAGE_LIMIT:
        raise FormatError(f"it is of level {level} and holds {len(children)} pages")
    last = ""
    for child in children:
        if len(child.page) != ID_LENGTH or min(child.entries, child.files, child.size) < 0 or child.last <= last:
            raise FormatError(f"its row for {child.last!r} is malformed")
        last = child.last


def totals_of(page: Page) -> Totals:
    """Count what is below a page, without reading further."""
    if page.level:
        rows = page.children
        return Totals(sum(r.entries for r in rows), sum(r.files for r in rows), sum(r.size for r in rows))
    files = [entry for entry in page.entries if entry.kind != Kind.DIRECTORY]
    return Totals(len(page.entries), len(files), sum(entry.size for entry in files))


def boundary_level(path: str) -> int:
    """Return how many levels of pages end after this path: 0 for most, 1 for one in 1024, 2 for one in 1024², ….

    The rule: in the first four bytes of BLAKE3(path), little-endian, each 10 zero bits from the lowest end one level.
    """
    value = int.from_bytes(blake3(path.encode()).digest(4), "little")
    if value & _ENDS_LEAF:
        return 0
    if value & _ENDS_FIRST:
        return 1
    return 2 if value & _ENDS_SECOND else 3


class LeafPage(NamedTuple):
    """A leaf page as cut: its entries, canonical bytes and the row its parent will have for it."""

    entries: list[Entry]
    content: bytes
    ref: PageRef


def seal_leaf(entries: list[Entry]) -> LeafPage:
    """Encode and hash one leaf page."""
    content = encode_leaf(entries)
    totals = totals_of(Page(0, entries, []))
    last = entries[-1].path if entries else ""
    return LeafPage(entries, content, PageRef(last, hash_bytes(content), *totals))


class LeafCutter:
    """Cut a sorted stream of entries into leaf pages; say where pages end.

    Feed entries with `ends_page`; it answers whether the page ends after the entry just fed.
    """

    def __init__(self) -> None:
        self.open = 0

    def ends_page(self, path: str) -> bool:
        """Count one more entry and tell whether the page ends after it."""
        self.open += 1
        if self.open >= PAGE_LIMIT or boundary_level(path):
            self.open = 0
            return True
        return False


def cut_leaves(entries: Iterable[Entry]) -> Iterator[LeafPage]:
    """Cut sorted entries into leaf pages; an empty dataset is one page with nothing in it."""
    cutter = LeafCutter()
    run: list[Entry] = []
    some = False
    for entry in entries:
        run.append(entry)
        if cutter.ends_page(entry.path):
            yield seal_leaf(run)
            run, some = [], True
    if run or not some:
        yield seal_leaf(run)


class InnerPage(NamedTuple):
    """A page of pages as cut."""

    level: int
    children: list[PageRef]
    content: bytes
    ref: PageRef


def cut_inner(level: int, children: Iterable[PageRef]) -> Iterator[InnerPage]:
    """Cut the rows of one level into pages of the next one (`level`, from 1)."""
    run: list[PageRef] = []
    for child in children:
        run.append(child)
        if len(run) >= PAGE_LIMIT or boundary_level(child.last) > level:
            yield _seal_inner(level, run)
            run = []
    if run:
        yield _seal_inner(level, run)


def _seal_inner(level: int, children: list[PageRef]) -> InnerPage:
    content = encode_inner(level, children)
    totals = totals_of(Page(level, [], children))
    return InnerPage(level, children, content, PageRef(children[-1].last, hash_bytes(content), *totals))


def manifest_id(entries: Iterable[Entry]) -> ContentId:
    """Return the id of the manifest of these sorted entries: the hash of the topmost page."""
    refs = [leaf.ref for leaf in cut_leaves(entries)]
    level = 0
    while len(refs) > 1:
        level += 1
        refs = [inner.ref for inner in cut_inner(level, refs)]
    return ContentId(refs[0].page)
