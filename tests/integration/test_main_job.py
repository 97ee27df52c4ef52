"""The main job, end to end, through the command line."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Reg, git, tree, write


def test_dataset_travels_from_registry_to_consumer_and_is_updated(registry: Path, consumer: Path, reg: Reg) -> None:
    write(registry, {"images/cats/train/1.png": b"one" * 5000, "images/cats/train/2.png": b"two" * 5000})
    reg(registry, "add", "images/cats", "-m", "Add cats")
    reg(registry, "push")
    git(registry, "tag", "v1")
    reg(consumer, "import", registry, "images/cats", "--rev", "v1")
    assert tree(consumer / "cats") == tree(registry / "images/cats")

    write(registry, {"images/cats/train/3.png": b"three" * 5000})
    reg(registry, "add", "images/cats", "-m", "More cats")
    reg(registry, "push")
    stays = reg(consumer, "update")
    assert "stays at v1" in stays.out
    reg(consumer, "update", "--rev", "main")
    assert tree(consumer / "cats") == tree(registry / "images/cats")


def test_get_works_where_there_is_no_repository(registry: Path, tmp_path: Path, reg: Reg) -> None:
    write(registry, {"table.csv": "a,b\n1,2\n"})
    reg(registry, "add", "table.csv", "-m", "Add a table")
    reg(registry, "push")
    place = tmp_path / "elsewhere"
    place.mkdir()
    reg(place, "get", registry, "table.csv")
    assert (place / "table.csv").read_text() == "a,b\n1,2\n"


def test_new_folder_inside_a_repository_becomes_a_registry_of_its_own(consumer: Path, reg: Reg) -> None:
    reg(consumer, "init", "registry")
    assert (consumer / "registry/.git").is_dir()
    assert (consumer / "registry/reg.yaml").exists()
    assert not (consumer / "reg.yaml").exists()
