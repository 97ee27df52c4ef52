"""Pages that moved to another pack while somebody reads the tree."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from registree.model.ids import hash_bytes
from registree.model.metafile import DatasetFile, parse_metafile
from registree.model.places import ChildPlace, Extent, PackRow, encode_inner_map
from registree.store.cache import Cache
from registree.store.directory import DirectoryStore
from registree.store.layout import MAPS, PACKS, compress, key
from registree.store.tree_reader import TreeReader
from tests.conftest import Reg, write


@pytest.mark.parametrize("batch", [1, 64])
def test_reading_goes_on_where_it_was_when_pages_have_moved(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reg: Reg, batch: int
) -> None:
    monkeypatch.setattr("registree.store.tree_reader.BATCH", batch)
    write(registry, {f"many/{number:05d}": str(number) for number in range(6000)})
    reg(registry, "remote", "add", "default", tmp_path / "remote", "-m", "Remote")
    reg(registry, "add", "many", "-m", "Add")
    reg(registry, "push")
    store = DirectoryStore(str(tmp_path / "remote"))
    metafile = parse_metafile((registry / "many.reg.yaml").read_text(), "many.reg.yaml")
    assert isinstance(metafile, DatasetFile)
    with ThreadPoolExecutor(1) as executor:
        reader = TreeReader((store,), Cache(str(tmp_path / "cache")), executor)
        tree = reader.open(metafile.manifest)
        expected = [(page.entries, page.extents) for page in reader.pages(tree, tree.leaves, maps=True)]
        assert len(expected) > 3

        places = [leaf.place for leaf in tree.leaves if leaf.place is not None]
        (old,) = {extent.pack for place in places for extent in place}
        moved = b"moved" + store.read(key(PACKS, old.id))
        new = PackRow(hash_bytes(moved), len(moved))
        store.write(key(PACKS, new.id), moved)
        there = [ChildPlace(*(Extent(new, offset + 5, length) for _, offset, length in place)) for place in places]
        store.write(key(MAPS, metafile.manifest), compress(encode_inner_map(tree.root.level, there)))
        store.delete(key(PACKS, old.id))
        third = tree.leaves[2].ref.page.hex()
        (tmp_path / f"cache/pages/{third[:2]}/{third}").write_bytes(b"damaged")

        reader = TreeReader((store,), Cache(str(tmp_path / "cache")), executor)
        tree = reader.open(metafile.manifest)
        leaves = tree.leaves
        other = reader.pages(tree, leaves, maps=True)
        first = next(other)
        found = [(page.entries, page.extents) for page in reader.pages(tree, leaves, maps=True)]
        assert found == expected
        assert tree.fresh, "the new places were read"
        assert [(page.entries, page.extents) for page in (first, *other)] == expected, "so a second reader goes on"
