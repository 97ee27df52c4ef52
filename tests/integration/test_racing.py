"""Two commands at the same time: nothing is lost, no byte is wrong, and both end well or one is told."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Reg, git, tree, write
from tests.integration.crashing import Command, Forks, git_said, objects, residue

FILES = 12
CONFLICT = 7


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All commands of a test share one cache."""
    place = tmp_path / "area/cache"
    monkeypatch.setenv("REG_CACHE_DIR", str(place))
    return place


@pytest.fixture
def forks(tmp_path: Path, cache: Path) -> Iterator[Forks]:
    """A process that forks commands."""
    started = Forks(tmp_path)
    yield started
    started.close()


class Race:
    """Repositories for one round, and what is said of two commands that ran at once."""

    def __init__(self, base: Path, reg: Reg, forks: Forks, number: int) -> None:
        self.root = base / "area"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self.reg = reg
        self._forks = forks
        self._chance = random.Random(number)
        self.registry, self.remote = self.root / "registry", self.root / "remote"
        reg(self.root, "init", self.registry, "--remote", self.remote)

    def dataset(self, repository: Path, name: str) -> dict[str, bytes]:
        """Write a dataset of small files and a larger one; return what is in it."""
        files = {f"{number}.bin": self._chance.randbytes(3000) for number in range(FILES)}
        files["large.bin"] = self._chance.randbytes(1_500_000)
        write(repository / name, dict(files))
        return files

    def repository(self, name: str) -> Path:
        """Make an empty repository."""
        place = self.root / name
        place.mkdir()
        git(place, "init", "-q")
        return place

    def both(self, *commands: tuple[Path, tuple[str, ...]]) -> list[int]:
        """Run commands at once, one a little later than the other; return the codes: 0, or 7 for one that is told."""
        done = self._forks.run(*(Command(cwd, args, delay=self._chance.uniform(0, 0.03)) for cwd, args in commands))
        for code, said in done:
            assert code in (0, CONFLICT), f"-> {code}: {said}"
            if code == CONFLICT:
                assert "reg: " in said
                assert "Traceback" not in said
        codes = [code for code, _ in done]
        assert 0 in codes, [said for _, said in done]
        return codes

    def check(self, repository: Path) -> None:
        """A repository is sound, and nothing lies about in it."""
        git_said(repository, "fsck", "--full", "--no-dangling")
        assert git_said(repository, "status", "--porcelain") == ""
        assert residue(self.root) == []
        objects(self.remote)

    def got(self, name: str) -> dict[str, bytes]:
        """Return what somebody with an empty cache gets of a dataset, from the remote alone."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        shutil.rmtree(self.root / "got", ignore_errors=True)
        self.reg(self.root, "get", self.registry, f"{name}@HEAD", "-o", "got")
        return tree(self.root / "got")


def race_to_add_different_datasets(race: Race) -> None:
    """Two processes add two datasets in one registry."""
    cats, dogs = race.dataset(race.registry, "pets/cats"), race.dataset(race.registry, "pets/dogs")
    codes = race.both(
        (race.registry, ("add", "pets/cats", "-m", "Add cats")),
        (race.registry, ("add", "pets/dogs", "-m", "Add dogs")),
    )
    assert codes == [0, 0], "waiting for the lock is enough"
    race.check(race.registry)
    subjects = git_said(race.registry, "log", "--format=%s").splitlines()
    assert sorted(subjects[:-1]) == ["Add cats", "Add dogs"]
    assert sorted((race.registry / "pets/.gitignore").read_text().split()) == ["/cats", "/dogs"]
    race.reg(race.registry, "push")
    race.reg(race.registry, "verify", "--remote", "--deep")
    assert race.got("pets/cats") == cats
    assert race.got("pets/dogs") == dogs


def race_to_add_one_dataset(race: Race) -> None:
    """Two processes add the same dataset."""
    cats = race.dataset(race.registry, "cats")
    add = (race.registry, ("add", "cats", "-m", "Add cats"))
    assert race.both(add, add) == [0, 0], "waiting for the lock is enough"
    race.check(race.registry)
    assert git_said(race.registry, "log", "--format=%s").splitlines()[:-1] == ["Add cats"], "one commit, not two"
    race.reg(race.registry, "push")
    race.reg(race.registry, "verify", "--remote", "--deep")
    assert race.got("cats") == cats


def race_to_push_from_one_registry(race: Race) -> None:
    """Two processes push what one registry's outbox holds."""
    git(race.root, "init", "-q", "--bare", "upstream.git")
    git(race.registry, "remote", "add", "origin", "../upstream.git")
    git(race.registry, "push", "-q", "-u", "origin", "main")
    cats, dogs = race.dataset(race.registry, "cats"), race.dataset(race.registry, "dogs")
    race.reg(race.registry, "add", "cats", "dogs", "-m", "Add pets")
    push = (race.registry, ("push",))
    assert race.both(push, push) == [0, 0], "waiting for the lock is enough"
    race.check(race.registry)
    race.reg(race.registry, "verify", "--remote", "--deep")
    assert git_said(race.root / "upstream.git", "rev-parse", "main") == git_said(race.registry, "rev-parse", "HEAD")
    assert race.got("cats") == cats
    assert race.got("dogs") == dogs


def race_to_push_from_two_clones(race: Race) -> None:
    """Two people push datasets that share most of their content, from clones, to one remote and one upstream."""
    git(race.root, "init", "-q", "--bare", "upstream.git")
    git(race.registry, "remote", "add", "origin", "../upstream.git")
    git(race.registry, "push", "-q", "-u", "origin", "main")
    git(race.root, "clone", "-q", "upstream.git", "clone")
    clone = race.root / "clone"
    cats = race.dataset(race.registry, "home/cats")
    shutil.copytree(race.registry / "home/cats", clone / "wild/dogs")
    (clone / "wild/dogs/more.bin").write_bytes(b"more" * 1000)
    race.reg(race.registry, "add", "home/cats", "-m", "Add cats")
    race.reg(clone, "add", "wild/dogs", "-m", "Add dogs")
    codes = race.both((race.registry, ("push",)), (clone, ("push",)))
    for place, code in zip((race.registry, clone), codes, strict=True):
        if code == CONFLICT:
            git(place, "pull", "-q", "--rebase")
            race.reg(place, "push")
    git(race.registry, "pull", "-q", "--rebase")
    race.check(race.registry)
    subjects = git_said(race.root / "upstream.git", "log", "--format=%s").splitlines()
    assert sorted(subjects[:-1]) == ["Add cats", "Add dogs"], "a commit is lost"
    race.reg(race.registry, "verify", "--remote", "--deep")
    assert race.got("home/cats") == cats
    assert race.got("wild/dogs") == {**cats, "more.bin": b"more" * 1000}


def race_to_import_into_two_consumers(race: Race) -> None:
    """Two repositories that share a cache import the same dataset."""
    cats = race.dataset(race.registry, "cats")
    race.reg(race.registry, "add", "cats", "-m", "Add cats")
    race.reg(race.registry, "push")
    places = [race.repository("one"), race.repository("two")]
    taking = ("import", "../registry", "cats", "-m", "Import cats")
    assert race.both(*((place, taking) for place in places)) == [0, 0]
    for place in places:
        race.check(place)
        assert tree(place / "cats") == cats
        assert race.reg(place, "sync", "--check").code == 0
    third = race.repository("three")
    race.reg(third, *taking)
    assert tree(third / "cats") == cats, "the cache holds a wrong byte"


def race_to_import_into_one_consumer(race: Race) -> None:
    """Two processes import two datasets into one repository, and two others the same one."""
    cats, dogs = race.dataset(race.registry, "cats"), race.dataset(race.registry, "dogs")
    race.reg(race.registry, "add", "cats", "dogs", "-m", "Add pets")
    race.reg(race.registry, "push")
    consumer = race.repository("consumer")
    codes = race.both(
        (consumer, ("import", "../registry", "cats", "-o", "data/cats", "-m", "Import cats")),
        (consumer, ("import", "../registry", "dogs", "-o", "data/dogs", "-m", "Import dogs")),
    )
    assert codes == [0, 0], "waiting for the lock is enough"
    again = (consumer, ("import", "../registry", "cats", "-o", "data/again", "-m", "Import cats again"))
    race.both(again, again)
    race.check(consumer)
    for name, files in (("cats", cats), ("dogs", dogs), ("again", cats)):
        assert tree(consumer / "data" / name) == files
    assert sorted(git_said(consumer, "log", "--format=%s").splitlines()) == [
        "Import cats",
        "Import cats again",
        "Import dogs",
    ]


Run = Callable[[Race], None]
RACES: tuple[Run, ...] = (
    race_to_add_different_datasets,
    race_to_add_one_dataset,
    race_to_push_from_one_registry,
    race_to_push_from_two_clones,
    race_to_import_into_two_consumers,
    race_to_import_into_one_consumer,
)


@pytest.mark.parametrize("run", RACES, ids=lambda run: run.__name__)
def test_two_at_once_lose_nothing(run: Run, tmp_path: Path, reg: Reg, forks: Forks) -> None:
    for number in range(3):
        run(Race(tmp_path, reg, forks, number))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("run", RACES, ids=lambda run: run.__name__)
def test_two_at_once_lose_nothing_in_fifty_rounds(run: Run, tmp_path: Path, reg: Reg, forks: Forks) -> None:
    for number in range(50):
        run(Race(tmp_path, reg, forks, number))
