"""Paths of any Unicode: what is accepted survives a trip through a registry, what is not is refused in one way."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from registree import Registry
from registree.errors import FormatError, InvalidInput, RegError
from registree.model.manifest import link_stays_inside
from registree.model.paths import check_entry_path, check_entry_paths, parse_dataset_name, printable
from registree.registry import get
from tests.conftest import tree
from tests.property.strategies import any_path, any_text, good_path, is_accepted, short_path, without_clashes


@given(any_path)
@example("a" * 255)
@example("a" * 256)
@example("é" * 127 + "a")
@example("é" * 128)
@example("/".join(["a" * 255] * 16))
@example("/".join(["a" * 255] * 16) + "a")
@example("a\udc80b")
@example("a\0b")
def test_path_is_taken_as_it_is_or_refused_as_format_error(path: str) -> None:
    try:
        accepted = check_entry_path(path)
    except FormatError:
        return
    assert accepted == path
    parts = path.encode().split(b"/")
    assert all(0 < len(part) <= 255 and part not in (b".", b"..") for part in parts)
    assert not any(part.lower() in (b".git", b".reg") for part in parts)
    assert b"\0" not in path.encode()
    assert len(path.encode()) <= 4096


@given(st.lists(st.one_of(good_path, good_path, any_path), min_size=1, max_size=6))
@example(["a", ""])
@example(["a", "b\0c"])
@example(["a/", "b"])
@example(["a", "/b"])
@example(["Git~1", "b"])
@example(["a/\u200c.git"])
@example(["\u0130" * 60])
@example(["a" * 63, "b" * 256])
def test_many_paths_at_once_are_taken_when_each_of_them_is(paths: list[str]) -> None:
    try:
        check_entry_paths(paths)
    except FormatError:
        assert not all(is_accepted(path) for path in paths)
    else:
        assert all(is_accepted(path) for path in paths)


@pytest.mark.parametrize(
    "path", ["", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a", "a/./b", ".git/x", "A/.Reg", "a\0"]
)
def test_path_out_of_normal_form_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        check_entry_path(path)


@pytest.mark.parametrize(
    "path",
    [".git.", "a/.git . /x", "GIT~1/hooks", ".git::$INDEX_ALLOCATION", ".g\u200cit/x", "\ufeff.Git", "a/.reg :s"],
)
def test_path_that_another_disk_takes_for_git_s_own_folder_is_refused(path: str) -> None:
    with pytest.raises(FormatError):
        check_entry_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "a b",
        "...",
        ".gitignore",
        ".github/x",
        "git",
        "git~2",
        " .git",
        "a\nb",
        " ",
        "-",
        "é/日本/😀",
        "a" * 255,
    ],
)
def test_path_that_disks_take_is_accepted(path: str) -> None:
    assert check_entry_path(path) == path


@given(any_text)
def test_dataset_name_is_parsed_or_refused_as_invalid_input(text: str) -> None:
    try:
        name = parse_dataset_name(text)
    except InvalidInput:
        return
    assert is_accepted(name)
    assert parse_dataset_name(name + ".reg.yaml") == name


@given(any_text)
def test_printable_text_cannot_move_the_cursor(text: str) -> None:
    assert printable(text).isprintable()


@given(st.lists(st.sampled_from(["..", ".", "a", "b", ""]), max_size=6).map("/".join), short_path)
def test_link_is_inside_exactly_when_it_resolves_inside(target: str, path: str) -> None:
    assume(target)
    place = "/top/" * 1 + path
    resolved = os.path.normpath(os.path.join(os.path.dirname(place), target))
    steps = target.split("/")
    inside = link_stays_inside(path, target.encode())
    if inside:
        assert resolved == "/top" or resolved.startswith("/top/")
        assert not target.startswith("/")
    elif not target.startswith("/"):
        assert ".." in steps


@settings(max_examples=12)
@given(st.sets(st.one_of(good_path, short_path), min_size=1, max_size=8), st.data())
def test_accepted_paths_survive_add_push_and_get(paths: set[str], data: st.DataObject) -> None:
    names = [path for path in without_clashes(paths) if not path.endswith(".reg.yaml") and ".regignore" not in path]
    assume(names)
    with tempfile.TemporaryDirectory() as top:
        registry = Registry.init(Path(top) / "registry")
        for index, name in enumerate(names):
            place = registry.root / "d" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            if data.draw(st.booleans(), label=f"{name!r} is an empty folder"):
                place.mkdir()
            else:
                place.write_bytes(bytes([index]) * data.draw(st.sampled_from([0, 1, 300])))
        registry.add("d", message="Add")
        registry.push()
        get(str(registry.root), "d", out=str(Path(top) / "got"))
        assert tree(Path(top) / "got") == tree(registry.root / "d")


@pytest.mark.parametrize("sibling", ["a!", "a-b", "a.txt", "a b", "a\n"])
def test_empty_folder_beside_a_name_that_sorts_before_its_slash_survives(sibling: str, tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    (registry.root / "d" / "a").mkdir(parents=True)
    (registry.root / "d" / sibling).write_bytes(b"x")
    registry.add("d", message="Add")
    get(str(registry.root), "d", out=str(tmp_path / "got"))
    assert tree(tmp_path / "got") == {"a/": b"", sibling: b"x"}


def test_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    registry = Registry.init(tmp_path / "registry")
    (registry.root / "d").mkdir()
    with open(os.fsencode(registry.root / "d") + b"/\xff", "wb"):
        pass
    with pytest.raises(RegError, match="not UTF-8"):
        registry.add("d")
