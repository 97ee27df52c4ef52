"""Manifests: one encoding for each state, pages that an edit far away leaves alone, and laws of diff and merge."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registree.errors import FormatError, IntegrityError
from registree.model import manifest
from registree.model.checkout import Action, decide, join_three
from registree.model.contents import MAX_ROWS, adjust, contents_of
from registree.model.diff import Change, ChangeKind, diff_entries, differing_pages, find_renames, summarize
from registree.model.ids import hash_bytes
from registree.model.manifest import (
    MAX_SIZE,
    PAGE_LIMIT,
    Entry,
    Kind,
    LeafCutter,
    PageRef,
    boundary_level,
    check_entries,
    cut_inner,
    cut_leaves,
    decode_page,
    encode_inner,
    encode_leaf,
    manifest_id,
    seal_leaf,
)
from registree.model.places import (
    ChildPlace,
    Extent,
    PackRow,
    decode_inner_map,
    decode_leaf_map,
    encode_inner_map,
    encode_leaf_map,
    merge_extents,
)
from registree.model.ranges import GAP, RANGE_LIMIT, plan_ranges
from tests.property.strategies import entries_of, entry, files, short_path

ID = bytes(range(32))


@given(files)
def test_page_is_read_as_it_was_written(found: dict[str, bytes]) -> None:
    entries = entries_of(found)
    leaf = seal_leaf(entries)
    page = decode_page(leaf.content, leaf.ref.page)
    assert page.entries == entries
    assert leaf.ref.size == sum(map(len, found.values()))
    assert leaf.ref.files == leaf.ref.entries == len(found)


@given(files, st.integers(0), st.integers(1, 255))
def test_no_byte_of_a_page_can_change(found: dict[str, bytes], at: int, flip: int) -> None:
    leaf = seal_leaf(entries_of(found))
    altered = bytearray(leaf.content)
    altered[at % len(altered)] ^= flip
    with pytest.raises((FormatError, IntegrityError)):
        decode_page(bytes(altered), leaf.ref.page)


@given(files, st.integers(0), st.integers(1, 255))
def test_altered_page_under_its_own_id_is_canonical_or_refused(found: dict[str, bytes], at: int, flip: int) -> None:
    altered = bytearray(seal_leaf(entries_of(found)).content)
    altered[at % len(altered)] ^= flip
    content = bytes(altered)
    try:
        page = decode_page(content, hash_bytes(content))
    except FormatError:
        return
    assert (encode_inner(page.level, page.children) if page.level else encode_leaf(page.entries)) == content
    assert [e.path for e in page.entries] == sorted({e.path for e in page.entries})
    assert all(e.kind in list(Kind) for e in page.entries)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_page_or_a_format_error(content: bytes) -> None:
    for head in (b"", b"\x93\x01\x00", b"\x93\x01\x01"):
        try:
            decode_page(head + content, hash_bytes(head + content))
        except FormatError:
            continue


def _refused(content: bytes) -> None:
    with pytest.raises(FormatError):
        decode_page(content, hash_bytes(content))


FILE = Entry("a", 0, 1, ID)


@pytest.mark.parametrize(
    "bad",
    [
        [Entry("b", 0, 1, ID), Entry("a", 0, 1, ID)],
        [FILE, FILE],
        [Entry("../a", 0, 1, ID)],
        [Entry("/a", 0, 1, ID)],
        [Entry("a", 4, 1, ID)],
        [Entry("a", -1, 1, ID)],
        [Entry("a", 0, -1, ID)],
        [Entry("a", 0, MAX_SIZE + 1, ID)],
        [Entry("a", 0, 1, ID[:31])],
        [Entry("a", 0, 1, b"")],
        [Entry("a", 3, 0, ID)],
        [Entry("a", 3, 1, b"")],
        [Entry("a", 2, 3, b"../b")],
        [Entry("a", 2, 4, b"../b")],
        [Entry("a", 2, 2, b"/b")],
        [Entry("a", 2, 0, b"")],
        [Entry("", 0, 1, ID), FILE],
    ],
)
def test_page_with_what_no_dataset_holds_is_refused(bad: list[Entry]) -> None:
    _refused(encode_leaf(bad))


@pytest.mark.parametrize("kind", [Kind.FILE, Kind.LINK, Kind.DIRECTORY])
@pytest.mark.parametrize("between", [[], ["a!"], ["a!", "a!/x", "a."]])
def test_page_with_a_path_below_a_file_a_link_or_an_empty_folder_is_refused(kind: Kind, between: list[str]) -> None:
    content = {Kind.FILE: ID, Kind.LINK: b"b", Kind.DIRECTORY: b""}[kind]
    first = Entry("a", kind, 1 if content else 0, content)
    rest = [Entry(path, 0, 1, ID) for path in (*between[:1], *between[2:], "a/b")]
    _refused(encode_leaf([first, *rest]))


def _may_follow(paths: list[str]) -> bool:
    """Tell by the definition whether paths are sorted and none lies below another."""
    return all(a < b for a, b in pairwise(paths)) and not any(b.startswith(f"{a}/") for a in paths for b in paths)


@given(st.lists(short_path, min_size=1, max_size=8), st.booleans())
def test_order_of_a_page_is_what_the_format_says(paths: list[str], in_order: bool) -> None:
    entries = [Entry(path, Kind.FILE, 1, b"c" * 32) for path in (sorted(paths) if in_order else paths)]
    if _may_follow([entry.path for entry in entries]):
        check_entries(entries)
    else:
        with pytest.raises(FormatError):
            check_entries(entries)


@pytest.mark.parametrize("lone", [Entry("", 2, 1, b"b"), Entry("", 3, 0, b"")])
def test_dataset_that_is_itself_a_link_or_an_empty_folder_is_refused(lone: Entry) -> None:
    _refused(encode_leaf([lone]))


def test_empty_file_has_the_content_id_of_nothing() -> None:
    _refused(encode_leaf([Entry("a", 0, 0, ID)]))


@pytest.mark.parametrize(
    "bad",
    [
        [],
        [PageRef("b", ID, 1, 1, 1), PageRef("a", ID, 1, 1, 1)],
        [PageRef("a", ID[1:], 1, 1, 1)],
        [PageRef("a", ID, -1, 1, 1)],
    ],
)
def test_page_of_pages_that_cannot_be_is_refused(bad: list[PageRef]) -> None:
    _refused(encode_inner(1, bad))


def test_too_high_a_level_and_too_long_a_page_are_refused() -> None:
    _refused(encode_inner(4, [PageRef("a", ID, 1, 1, 1)]))
    _refused(encode_leaf([Entry(f"{i:05}", 0, 1, ID) for i in range(PAGE_LIMIT + 1)]))


def test_newer_format_is_refused_with_the_way_to_mend_it() -> None:
    content = b"\x93\x02" + encode_leaf([FILE])[2:]
    with pytest.raises(FormatError, match="format 2") as caught:
        decode_page(content, hash_bytes(content))
    assert "upgrade" in caught.value.hint


@pytest.mark.parametrize(
    "spelled",
    [
        b"\x93\x01\x00\xdc\x00\x01",  # a list of one with a length of two bytes
        b"\x93\x01\xcc\x00\x91",  # a level of two bytes
    ],
)
def test_other_spelling_of_the_same_values_is_refused(spelled: bytes) -> None:
    canonical = encode_leaf([FILE])
    assert canonical.startswith(b"\x93\x01\x00\x91")
    _refused(spelled + canonical[4:])
    _refused(canonical + b"\x00")


# --- pages ------------------------------------------------------------------------------------------------------------


def _many(count: int, seed: int = 7) -> list[Entry]:
    draw = random.Random(seed)
    paths = {f"{draw.randrange(16):x}/{draw.randrange(1 << 40):x}" for _ in range(count)}
    return [entry(path, path.encode()) for path in sorted(paths)]


MANY = _many(6000)
MANY_PAGES = list(cut_leaves(MANY))


@settings(max_examples=25)
@given(
    st.sets(st.integers(0, len(MANY) - 1), max_size=4),
    st.sets(st.integers(0, len(MANY) - 1), max_size=4),
    st.lists(st.text("0123456789abcdef/", min_size=1, max_size=6).filter(lambda t: "//" not in t), max_size=4),
)
def test_edit_changes_only_the_pages_around_it(gone: set[int], changed: set[int], added: list[str]) -> None:
    by_path = {e.path: e for e in MANY}
    edited = {MANY[i].path for i in gone | changed}
    for index in changed:
        by_path[MANY[index].path] = entry(MANY[index].path, b"edited")
    for index in gone:
        by_path.pop(MANY[index].path)
    for path in added:
        new = f"0/{path.strip('/')}z"
        by_path[new] = entry(new, b"new")
        edited.add(new)
    after = list(cut_leaves(by_path[path] for path in sorted(by_path)))
    old, new_pages = differing_pages([p.ref for p in MANY_PAGES], [p.ref for p in after])
    assert len(old) <= 2 * len(edited)
    assert len(new_pages) <= 2 * len(edited)
    assert [e for p in after for e in p.entries] == [by_path[path] for path in sorted(by_path)]


def test_change_of_content_moves_no_boundary() -> None:
    after = list(cut_leaves(entry(e.path, b"other") for e in MANY))
    assert [p.ref.last for p in after] == [p.ref.last for p in MANY_PAGES]


def test_boundaries_follow_from_the_path_alone() -> None:
    for leaf in MANY_PAGES[:-1]:
        assert boundary_level(leaf.ref.last)
        assert not any(boundary_level(e.path) for e in leaf.entries[:-1])


def test_run_without_a_boundary_is_cut_at_the_limit() -> None:
    paths = [path for path in (f"{i:06}" for i in range(PAGE_LIMIT + 40)) if not boundary_level(path)]
    paths += [path for path in (f"x{i:06}" for i in range(200)) if not boundary_level(path)]
    pages = list(cut_leaves(entry(path, b"") for path in paths))
    assert [len(p.entries) for p in pages] == [PAGE_LIMIT, len(paths) - PAGE_LIMIT]


def test_cutter_and_pages_agree() -> None:
    cutter = LeafCutter()
    ends = [e.path for e in MANY if cutter.ends_page(e.path)]
    assert ends == [p.ref.last for p in MANY_PAGES if boundary_level(p.ref.last)]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of four items on average, so that a small dataset has all levels."""

    def level(path: str) -> int:
        value = int.from_bytes(hash_bytes(path.encode())[:4], "little")
        return next((n for n in range(3) if value >> 2 * n & 3), 3)

    monkeypatch.setattr(manifest, "boundary_level", level)


def _levels(entries: list[Entry]) -> list[list[PageRef]]:
    levels = [[leaf.ref for leaf in cut_leaves(entries)]]
    while len(levels[-1]) > 1:
        levels.append([inner.ref for inner in cut_inner(len(levels), levels[-1])])
    return levels


def test_tree_of_many_levels_counts_all_below_it(narrow: None) -> None:
    entries = MANY[:1500]
    levels = _levels(entries)
    assert len(levels) > 3
    for row in levels:
        assert sum(ref.entries for ref in row) == len(entries)
        assert sum(ref.size for ref in row) == sum(e.size for e in entries)
        assert [ref.last for ref in row] == sorted(ref.last for ref in row)
    assert manifest_id(entries) == levels[-1][0].page


def test_one_edit_changes_one_path_through_the_tree(narrow: None) -> None:
    before = _levels(MANY[:1500])
    edited = [e if index != 700 else entry(e.path, b"edited") for index, e in enumerate(MANY[:1500])]
    after = _levels(edited)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert len({ref.page for ref in new} - {ref.page for ref in old}) == 1


@given(files)
def test_manifest_does_not_depend_on_how_it_came_about(found: dict[str, bytes]) -> None:
    assert manifest_id(entries_of(found)) == manifest_id(entries_of(dict(reversed(found.items()))))


# --- diff and merge ---------------------------------------------------------------------------------------------------


def _apply(before: list[Entry], changes: list[Change]) -> list[Entry]:
    state = {e.path: e for e in before}
    for change in changes:
        if change.before is not None:
            assert state.pop(change.before.path) == change.before
    for change in changes:
        if change.after is not None:
            assert change.after.path not in state
            state[change.after.path] = change.after
    return [state[path] for path in sorted(state)]


@given(files, files)
def test_diff_applied_gives_the_other_version(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    before, after = entries_of(a), entries_of(b)
    changes = list(diff_entries(before, after))
    assert _apply(before, changes) == after
    renamed = find_renames(changes)
    assert _apply(before, renamed) == after
    assert (
        summarize(renamed).growth == summarize(changes).growth == sum(map(len, b.values())) - sum(map(len, a.values()))
    )


@given(files, files)
def test_diff_takes_entries_one_at_a_time(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    """Of a million only what differs is kept; `update` asks for the place of what was taken last."""
    taken: list[Entry] = []

    def old() -> Iterator[Entry]:
        for one in entries_of(a):
            taken.append(one)
            yield one

    for change in diff_entries(old(), entries_of(b)):
        if change.before is not None:
            assert change.before is taken[-1]


@given(files)
def test_version_does_not_differ_from_itself(a: dict[str, bytes]) -> None:
    assert list(diff_entries(entries_of(a), entries_of(a))) == []


@given(files, files)
def test_diff_backwards_is_the_diff_turned_around(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    forth = list(diff_entries(entries_of(a), entries_of(b)))
    back = list(diff_entries(entries_of(b), entries_of(a)))
    assert [Change(change.after, change.before) for change in back] == forth


@given(files)
def test_renames_pair_up_and_leave_no_loose_end(a: dict[str, bytes]) -> None:
    moved = {f"moved/{path}": content for path, content in a.items() if content}
    before = entries_of({path: content for path, content in a.items() if content})
    changes = find_renames(diff_entries(before, entries_of(moved)))
    assert {change.kind for change in changes} <= {ChangeKind.RENAMED}
    assert len(changes) == len(moved)


@given(files, files)
def test_pages_left_out_of_a_diff_hide_no_change(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    old, new = list(cut_leaves(entries_of(a))), list(cut_leaves(entries_of(b)))
    left, right = differing_pages([p.ref for p in old], [p.ref for p in new])
    kept_old = [e for p in old if p.ref in left for e in p.entries]
    kept_new = [e for p in new if p.ref in right for e in p.entries]
    assert list(diff_entries(kept_old, kept_new)) == list(diff_entries(entries_of(a), entries_of(b)))


@given(files, files, files)
def test_update_never_touches_what_only_the_user_changed(
    before: dict[str, bytes], after: dict[str, bytes], found: dict[str, bytes]
) -> None:
    for step in join_three(entries_of(before), entries_of(after), entries_of(found)):
        action = decide(step.before, step.after, step.found, restore=False)
        if step.before == step.after or step.found == step.after:
            assert action is Action.KEEP
        elif step.found == step.before:
            assert action is (Action.WRITE if step.after is not None else Action.DELETE)
        else:
            assert action is Action.CONFLICT
        if action is Action.DELETE:
            assert step.after is None
            assert step.found == step.before


@given(files, files, files)
def test_three_runs_are_walked_path_by_path(a: dict[str, bytes], b: dict[str, bytes], c: dict[str, bytes]) -> None:
    steps = list(join_three(entries_of(a), entries_of(b), entries_of(c)))
    assert [step.path for step in steps] == sorted({*a, *b, *c})
    assert [step.before for step in steps if step.before] == entries_of(a)
    assert [step.after for step in steps if step.after] == entries_of(b)
    assert [step.found for step in steps if step.found] == entries_of(c)


@given(files, files)
def test_summary_is_short_and_adds_up_also_after_changes(a: dict[str, bytes], b: dict[str, bytes]) -> None:
    rows = adjust(contents_of(entries_of(a)), diff_entries(entries_of(a), entries_of(b)))
    for found, state in ((contents_of(entries_of(a)), a), (rows, b)):
        assert len(found) <= MAX_ROWS
        assert sum(row.files for row in found.values()) == len(state)
        assert sum(row.size for row in found.values()) == sum(map(len, state.values()))


# --- maps -------------------------------------------------------------------------------------------------------------

packs = st.sampled_from([PackRow(bytes([n]) * 32, 1 << 40) for n in range(3)])
extents = st.builds(Extent, packs, st.integers(0, 1 << 36), st.integers(1, 1 << 30))


@given(st.lists(st.lists(extents, min_size=1, max_size=4), max_size=5))
def test_map_is_read_as_it_was_written(rows: list[list[Extent]]) -> None:
    written = [tuple(row) for row in rows]
    page = [Entry(f"{i:03}", 0, sum(extent.length for extent in row), ID) for i, row in enumerate(written)]
    assert decode_leaf_map(encode_leaf_map(written), page) == written


blobs = st.builds(Extent, packs, st.integers(0, 1 << 36), st.integers(1, 64 << 20))


@given(st.lists(st.tuples(blobs, blobs), min_size=1, max_size=5))
def test_map_of_a_page_of_pages_is_read_as_it_was_written(rows: list[tuple[Extent, Extent]]) -> None:
    places = [ChildPlace(*row) for row in rows]
    assert decode_inner_map(encode_inner_map(1, places), 1, len(places)) == places


@given(st.binary(max_size=80))
def test_any_bytes_are_a_map_or_a_format_error(content: bytes) -> None:
    for read in (lambda raw: decode_leaf_map(raw, [FILE]), lambda raw: decode_inner_map(raw, 1, 1)):
        for head in (b"", b"\x94\x01\x00", b"\x94\x01\x01\x91\x92\xc4\x20" + ID):
            _reads_or_refuses(read, head + content)


def _reads_or_refuses(read: Callable[[bytes], object], content: bytes) -> None:
    try:
        read(content)
    except FormatError:
        return


@pytest.mark.parametrize(
    "places", [[[0, 99, 2]], [[0, 0, 101]], [[1, 0, 1]], [[-1, 0, 1]], [[0, -1, 1]], [[0, 0, 0]], [[0, 0]], [[]], []]
)
def test_map_past_the_end_of_a_pack_or_short_of_its_page_is_refused(places: list[list[int]]) -> None:
    content = msgspec.msgpack.encode([1, 0, [[ID, 100]], places])
    with pytest.raises(FormatError):
        decode_leaf_map(content, [Entry("a", 0, places[0][2] if places and len(places[0]) > 2 else 1, ID)])


@given(st.lists(extents, max_size=8))
def test_joined_extents_cover_the_same_bytes(row: list[Extent]) -> None:
    joined = merge_extents(row)
    assert sum(e.length for e in joined) == sum(e.length for e in row)
    assert merge_extents(joined) == joined


small = st.builds(Extent, packs, st.integers(0, 40).map(lambda n: n * GAP // 3), st.integers(1, 2 * GAP))
wide = st.builds(
    Extent, packs, st.integers(0, 8).map(lambda n: n * (RANGE_LIMIT // 2)), st.integers(1, 2 * RANGE_LIMIT)
)


@given(st.lists(st.one_of(small, wide), max_size=14))
def test_planned_reads_cover_exactly_what_is_wanted(wanted: list[Extent]) -> None:
    ranges = plan_ranges(enumerate(wanted))
    seen = {}
    for planned in ranges:
        assert planned.members
        covered = planned.offset
        for member in sorted(planned.members, key=lambda m: m.start):
            assert member.key not in seen
            seen[member.key] = Extent(planned.pack, planned.offset + member.start, member.length)
            assert planned.offset + member.start - covered <= GAP
            covered = max(covered, planned.offset + member.start + member.length)
        assert covered == planned.offset + planned.length
        assert planned.length <= max(RANGE_LIMIT, *(member.length for member in planned.members))
    assert seen == dict(enumerate(wanted))
