"""The state knows what it was told last, however many rows it was told at once."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registree.model.ids import hash_bytes
from registree.model.places import Extent, PackRow
from registree.store import known_chunks, known_files
from registree.store.file_stat import Stat
from registree.store.state import State

paths = st.sampled_from([f"{folder}{name}" for folder in ("a/", "a/b/", "a-b/", "a0/", "") for name in "abcdé😀"])
numbers = st.integers(1, (1 << 63) - 1)
rows = st.builds(Stat, numbers, numbers, numbers, st.integers(0, (1 << 64) - 1), st.binary(min_size=32, max_size=32))
chunks = st.lists(st.tuples(st.integers(0, 9).map(lambda n: hash_bytes(b"%d" % n)), st.integers(1, 9)), max_size=8)
updates = st.lists(
    st.tuples(st.dictionaries(paths, rows, max_size=12), st.lists(paths, max_size=3), st.lists(chunks, max_size=2)),
    max_size=8,
)
PREFIXES = ("a", "a/b", "a-b", "nothing")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let few rows be many."""
    monkeypatch.setattr(known_files, "KEPT_IN_ONE", 4)
    monkeypatch.setattr(known_chunks, "KEPT_IN_ONE", 4)
    monkeypatch.setattr(known_files, "_LIMIT", 20)
    monkeypatch.setattr(known_files, "_PARTS", 4)
    yield


@given(updates=updates, reopens=st.booleans())
def test_what_was_said_last_is_known(
    updates: list[tuple[dict[str, Stat], list[str], list[list[tuple[bytes, int]]]]], reopens: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = str(Path(folder, "state.sqlite"))
        state = State(place)
        known: dict[str, Stat] = {}
        places: dict[bytes, set[Extent]] = {}
        for number, (stats, forgotten, lists) in enumerate(updates):
            packs = [(PackRow(hash_bytes(b"%d %d" % (number, at)), 99), row) for at, row in enumerate(lists)]
            state.update(stats=stats.items(), forget=forgotten, packs=packs)
            for path in forgotten:
                known.pop(path, None)
            known |= stats
            for pack, row in packs:
                start = 0
                for chunk, length in row:
                    places.setdefault(chunk, set()).add(Extent(pack, start, length))
                    start += length
            if reopens:
                state.close()
                state = State(place)
            for prefix in PREFIXES:
                below = {path[len(prefix) + 1 :]: row for path, row in known.items() if path.startswith(prefix + "/")}
                assert list(state.stats(prefix)) == sorted(below.items())
            for path in {*known, *forgotten, "nothing"}:
                assert state.stat(path) == known.get(path)
            for chunk in map(hash_bytes, (b"%d" % n for n in range(10))):
                found = state.place(chunk)
                assert found in places.get(chunk, {None})
        state.close()


def test_part_that_is_damaged_is_not_known(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.sqlite"))
    row = Stat(1, 2, 3, 4, b"c" * 32)
    state.update(stats=[(f"a/{number}", row) for number in range(9)], placed=[("a", b"m" * 32)])
    connection = state._open(create=True)
    assert connection is not None
    connection.execute("UPDATE recent_stats SET stats = ?", (b"\x93nothing",))
    state.close()
    state = State(str(tmp_path / "state.sqlite"))
    assert list(state.stats("a")) == []
    assert State(str(tmp_path / "state.sqlite")).placed("a") == b"m" * 32
    assert list(state.stats("a")) == []  # so that this one knows
    state.update(stats=[("a/0", row)])
    assert list(State(str(tmp_path / "state.sqlite")).stats("a")) == [("0", row)]
    assert State(str(tmp_path / "state.sqlite")).placed("a") == b"m" * 32


def test_newer_pack_is_not_hidden_by_one_that_never_came(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.sqlite"))
    chunks = [(hash_bytes(b"%d" % number), 1) for number in range(9)]
    lost, stored = PackRow(hash_bytes(b"lost"), 9), PackRow(hash_bytes(b"stored"), 2)
    state.update(packs=[(lost, chunks)])
    state.update(packs=[(stored, chunks[:2])])
    assert state.place(chunks[1][0]) == Extent(stored, 1, 1)
    assert state.place(chunks[2][0]) == Extent(lost, 2, 1)
    state.update(packs=[(PackRow(hash_bytes(b"%d" % n), 9), chunks[3:]) for n in range(9)])  # more than are kept apart
    assert State(str(tmp_path / "state.sqlite")).place(chunks[1][0]) == Extent(stored, 1, 1)


def test_two_rows_for_one_file_are_the_last(tmp_path: Path) -> None:
    state = State(str(tmp_path / "state.sqlite"))
    older, newer = (Stat(size, 2, 3, 4, b"c" * 32) for size in (1, 2))
    state.update(stats=[("a/0", older), *((f"a/{number}", newer) for number in range(9))])
    assert dict(state.stats("a"))["0"] == newer == state.stat("a/0")
    assert len(list(state.stats("a"))) == 9
