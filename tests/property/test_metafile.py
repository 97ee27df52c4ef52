"""Metafiles: what is written is read back, and a rewrite leaves alone every byte that is the user's."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from registree.errors import FormatError
from registree.model.contents import Row
from registree.model.ids import hash_bytes, id_text
from registree.model.metafile import DatasetFile, ImportFile, Lock, parse_metafile
from registree.model.paths import DatasetName, EntryPath, parse_dataset_name
from registree.model.yamltext import load_mapping
from tests.property.strategies import good_path

ONE, TWO = hash_bytes(b"1"), hash_bytes(b"2")
names = good_path.map(lambda path: path.rsplit("/", 1)[-1]).filter(lambda name: not name.endswith(".reg.yaml"))
counts = st.integers(0, 1 << 62)
ids = st.binary(min_size=32, max_size=32)
contents = st.dictionaries(st.one_of(st.just("."), good_path), st.builds(Row, counts, counts), max_size=5)
texts = st.text(max_size=20)


def _is_name(text: str) -> bool:
    try:
        return parse_dataset_name(text) == text
    except Exception:  # noqa: BLE001 -- any refusal means no
        return False


dataset_names = good_path.filter(_is_name)
commits = st.binary(min_size=20, max_size=20).map(bytes.hex)
locks = st.builds(Lock, commits, ids, counts, counts, st.one_of(st.none(), ids), tag=texts, version=texts, remote=texts)


@given(names, ids, counts, counts, contents)
@example("1.0", ONE, 1, 1, {"1": Row(1, 1), "true": Row(1, 2), "~": Row(1, 3), "<<": Row(1, 4), "=": Row(1, 5)})
@example("null", ONE, 1, 1, {"2001-01-01": Row(1, 1), "0x1f": Row(1, 1), "1e3": Row(1, 1), "1:30": Row(1, 1)})
@example("a\x85b", ONE, 1, 1, {"a\u2028b": Row(1, 1)})
@example("*", ONE, 1, 1, {"&a": Row(1, 1), "*a": Row(1, 1)})
@example("a" * 200, ONE, 1, 1, {"b" * 200: Row(1, 1), "c " * 100: Row(2, 2)})
def test_dataset_file_is_read_as_it_was_written(
    path: str, manifest: bytes, files: int, size: int, rows: dict[str, Row]
) -> None:
    written = DatasetFile(path, manifest, files, size, rows)
    text = written.render()
    found = parse_metafile(text, f"folder/{path}.reg.yaml")
    assert replace(found, text="") == written
    assert found.render() == text
    assert len(text.split("\n")) == 6 + (len(rows) + 1 if rows else 0)


@given(names, texts, dataset_names, texts, locks, good_path, st.lists(texts, max_size=2), st.lists(texts, max_size=2))
def test_import_file_is_read_as_it_was_written(
    path: str,
    registry: str,
    dataset: str,
    want: str,
    lock: Lock,
    part: str,
    include: list[str],
    exclude: list[str],
) -> None:
    written = ImportFile(
        path, registry, DatasetName(dataset), want, lock, EntryPath(part), tuple(include), tuple(exclude)
    )
    text = written.render()
    found = parse_metafile(text, f"{path}.reg.yaml")
    assert replace(found, text="") == written
    assert found.render() == text


COMMENTS = st.sampled_from(["", "# mine\n", "\n", "# a: b\n", "#\n\n", "   # far in\n"])
META = st.sampled_from(
    ["meta: {title: Cats, license: CC-BY-4.0}  # ours\n", "meta:\n  title: Cats\n  # why\n  owner: team\n"]
)
NOTES = st.sampled_from(["notes: |\n  one\n\n  two\n", "notes: >-\n  folded\n  text\n"])
OTHERS = st.permutations(
    [
        *[""] * 5,
        "list:\n- a\n- b\n",
        '"quoted key": 1\n',
        "text: 'it''s'\n",
        "plain: over\n  two lines\n",
        "empty:\n",
        "umlaut: ä日😀\n",
    ]
)
MINE = st.tuples(META, NOTES, OTHERS).flatmap(lambda drawn: st.permutations([drawn[0], drawn[1], *drawn[2][:5]]))
"""Seven places for lines of the user's own, no key twice."""


def _document(pieces: list[str], manifest: bytes, *, flow: bool, ends: str, comment: str) -> str:
    rows = "contents: {a: {files: 1, size: 2}}\n" if flow else "contents:\n  a: {files: 1, size: 2}  # old\n"
    own = [
        f"reg: 1{comment}\n",
        "path: d\n",
        f"manifest: {id_text(manifest)}{comment}\n",
        "files: 1\n",
        "size:   2\n",
        rows,
    ]
    text = "".join(piece + line for piece, line in zip(pieces, [*own, ""], strict=True))
    return text.replace("\n", ends)


documents = st.builds(
    _document,
    st.tuples(st.tuples(*([COMMENTS] * 7)), MINE).map(lambda drawn: list(map("".join, zip(*drawn, strict=True)))),
    st.just(ONE),
    flow=st.booleans(),
    ends=st.sampled_from(["\n", "\r\n"]),
    comment=st.sampled_from(["", "  # why", " #"]),
)


def _is_valid(text: str) -> bool:
    keys = [line.split(":")[0] for line in text.splitlines() if line[:1].isalpha() or line[:1] == '"']
    if len(keys) != len(set(keys)):
        return False
    try:
        load_mapping(text, "it")
    except FormatError:
        return False
    return True


@settings(max_examples=60)
@given(documents.filter(_is_valid))
def test_rewrite_that_changes_nothing_changes_no_byte(text: str) -> None:
    assert parse_metafile(text, "d.reg.yaml").render() == text


@settings(max_examples=60)
@given(documents.filter(_is_valid), st.booleans())
def test_rewrite_keeps_every_line_that_is_not_of_a_changed_value(text: str, rows_too: bool) -> None:
    before = parse_metafile(text, "d.reg.yaml")
    assert isinstance(before, DatasetFile)
    changed = replace(before, manifest=TWO, files=3, **({"contents": {"b": Row(3, 2)}} if rows_too else {}))
    after_text = changed.render()
    after = parse_metafile(after_text, "d.reg.yaml")
    assert replace(after, text="") == replace(changed, text="")
    mine = {key: value for key, value in yaml.safe_load(text).items() if key not in ("manifest", "files", "contents")}
    kept = yaml.safe_load(after_text)
    assert {key: kept.get(key) for key in mine} == mine
    old, new = text.splitlines(keepends=True), after_text.splitlines(keepends=True)
    own = ("manifest:", "files:", "contents:", "  a: {files", "  b: {files")
    assert [line for line in new if not line.startswith(own)] == [line for line in old if not line.startswith(own)]
    endings = {line[len(line.rstrip("\r\n")) :] for line in new}
    assert endings <= {line[len(line.rstrip("\r\n")) :] for line in old}


def test_comment_behind_a_changed_value_stays() -> None:
    text = f"reg: 1\npath: d\nmanifest: {id_text(ONE)}  # release\nfiles: 1 # few\nsize: 2\n"
    before = parse_metafile(text, "d.reg.yaml")
    after = replace(before, manifest=TWO, files=3).render()
    assert after == f"reg: 1\npath: d\nmanifest: {id_text(TWO)}  # release\nfiles: 3 # few\nsize: 2\n"


def test_same_key_twice_is_refused() -> None:
    text = f"reg: 1\npath: d\nmanifest: {id_text(ONE)}\nmanifest: {id_text(TWO)}\nfiles: 1\nsize: 2\n"
    with pytest.raises(FormatError):
        parse_metafile(text, "d.reg.yaml")


def test_document_without_a_last_line_end_can_be_rewritten() -> None:
    text = f"reg: 1\npath: d\nmanifest: {id_text(ONE)}\nfiles: 1\nsize: 2\nmeta: {{a: 1}}"
    after = replace(parse_metafile(text, "d.reg.yaml"), size=5).render()
    assert after.rstrip("\n") == text.replace("size: 2", "size: 5")


def test_rewrite_of_an_import_keeps_what_stands_behind_it() -> None:
    lock = Lock("a" * 40, ONE, 1, 2, ONE, tag="d@v1.0.0", version="1.0.0")
    written = ImportFile("d", "../registry", DatasetName("d"), "é日", lock).render()
    text = written.replace("want: é日}", "want: é日}  # ä日")
    assert text != written
    found = parse_metafile(text, "d.reg.yaml")
    assert isinstance(found, ImportFile)
    after = found.relocked(replace(lock, manifest=TWO, dataset_manifest=TWO), "^1").render()
    assert "want: ^1}  # ä日\n" in after
    assert parse_metafile(after, "d.reg.yaml").render() == after
