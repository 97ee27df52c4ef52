"""A command that is killed leaves what was there before intact, and the same command run again completes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Reg, git, write
from tests.integration.crashing import CRASHED, Command, Forks, difference, listing, objects, residue, state

LARGE = 21 << 20
"""Bytes of a file that has a pack of its own and takes a while to store, send and bring."""
MEDIUM = 5 << 20
"""Bytes of a file that is cut into chunks and is brought by itself."""
State = dict[str, Any]
ALREADY = {"import": 7, "move": 3, "remove": 3}
"""What a command answers when it is run again after it has done all of its work."""


def noise(size: int, seed: int) -> bytes:
    """Return bytes that do not compress."""
    return random.Random(seed).randbytes(size)


class Area:
    """A folder with a registry, a consumer, a clone, a remote and a cache, which can be put back as it was."""

    def __init__(self, base: Path, reg: Reg, large: int, small: int) -> None:
        self.root = base / "area"
        self.registry, self.consumer, self.clone = (self.root / name for name in ("registry", "consumer", "clone"))
        self.remote, self.upstream = self.root / "remote", self.root / "upstream.git"
        self._saved = base / "saved"
        self._reg = reg
        self._large = large
        self._small = small

    def begin(self) -> None:
        """Make a registry with a remote, an upstream, another dataset, and a file of the user's that is staged."""
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        self._reg(self.root, "init", self.registry, "--remote", self.remote)
        git(self.root, "init", "-q", "--bare", "upstream.git")
        git(self.registry, "remote", "add", "origin", "../upstream.git")
        git(self.registry, "push", "-q", "-u", "origin", "main")
        write(self.registry, {"other.csv": "a,b\n1,2\n", "notes.txt": "mine\n"})
        self._reg(self.registry, "add", "other.csv", "-m", "Add other")
        self._reg(self.registry, "push")
        git(self.registry, "add", "notes.txt")

    def write_first(self) -> None:
        """Write the dataset's first version: every kind of entry that the second one turns into another."""
        cats = self.registry / "images/cats"
        files = {f"many/{number}.txt": noise(2000, number) for number in range(self._small)}
        write(
            cats,
            {
                **files,
                "kept.txt": b"kept",
                "changed.txt": b"before",
                "gone.txt": b"gone",
                "old-name.txt": b"renamed" * 100,
                "file-to-folder": b"file",
                "folder-to-file/a.txt": b"a",
                "file-to-hollow": b"file",
                "link-to-file": b"",
                "file-to-link": b"file",
                "tool.sh": b"#!/bin/sh\n",
                "large.bin": noise(self._large, 1),
            },
        )
        (cats / "link-to-file").unlink()
        (cats / "link-to-file").symlink_to("kept.txt")
        (cats / "hollow-to-file").mkdir()

    def write_second(self) -> None:
        """Write the dataset's second version."""
        cats = self.registry / "images/cats"
        for name in ("gone.txt", "file-to-folder", "file-to-hollow", "link-to-file", "file-to-link"):
            (cats / name).unlink()
        shutil.rmtree(cats / "folder-to-file")
        (cats / "hollow-to-file").rmdir()
        (cats / "old-name.txt").rename(cats / "new-name.txt")
        (cats / "file-to-hollow").mkdir()
        (cats / "file-to-link").symlink_to("kept.txt")
        large = noise(self._large, 1)
        middle = self._large // 2
        write(
            cats,
            {
                "changed.txt": b"after",
                "file-to-folder/b.txt": b"b",
                "folder-to-file": b"file",
                "link-to-file": b"file",
                "hollow-to-file": b"file",
                "large.bin": large[:middle] + noise(300_000, 2) + large[middle:],
                "more.bin": noise(2 << 20, 3),
            },
        )
        (cats / "tool.sh").chmod(0o755)

    def store_first(self, *, push: bool = True) -> None:
        """Add the first version, tag it, and push it."""
        self.write_first()
        self._reg(self.registry, "add", "images/cats", "-m", "Add cats")
        git(self.registry, "tag", "v1")
        if push:
            self._reg(self.registry, "push")

    def store_second(self) -> None:
        """Add the second version and push it."""
        self.write_second()
        self._reg(self.registry, "add", "images/cats", "-m", "Change cats")
        self._reg(self.registry, "push")

    def make_consumer(self) -> None:
        """Make a repository that has imported another dataset."""
        self.consumer.mkdir()
        git(self.consumer, "init", "-q")
        self._reg(self.consumer, "import", "../registry", "other.csv", "-m", "Import other")

    def save(self) -> None:
        """Remember the area as it is."""
        shutil.rmtree(self._saved, ignore_errors=True)
        subprocess.run(["cp", "-a", str(self.root), str(self._saved)], check=True)

    def put_back(self) -> None:
        """Make the area what it was when it was saved."""
        shutil.rmtree(self.root)
        subprocess.run(["cp", "-a", str(self._saved), str(self.root)], check=True)


@dataclass(frozen=True)
class Scene:
    """A command with what was there before, and what must hold at any moment it is cut off."""

    cwd: str
    args: tuple[str, ...]
    build: Callable[[Area], None]
    between: Callable[[Area, State, State, State], None]

    @property
    def already(self) -> int:
        """The exit code that is right as well when the killed run had done all."""
        return ALREADY.get(self.args[0], 0)


def _build_add_first(area: Area) -> None:
    area.write_first()


def _build_add_next(area: Area) -> None:
    area.store_first()
    area.write_second()


def _build_push(area: Area) -> None:
    area.store_first(push=False)
    area.write_second()
    area._reg(area.registry, "add", "images/cats", "-m", "Change cats")


def _build_import(area: Area) -> None:
    area.store_first()
    area.make_consumer()


def _build_update(area: Area) -> None:
    area.store_first()
    area.make_consumer()
    area._reg(area.consumer, "import", "../registry", "images/cats", "-o", "data/cats", "-m", "Import cats")
    area.store_second()
    kept = area.consumer / "data/cats/kept.txt"
    kept.unlink()
    kept.write_text("edited here")


def _build_checkout(area: Area) -> None:
    area.store_first()
    area.store_second()


def _build_pull(area: Area) -> None:
    area.store_first()
    git(area.root, "clone", "-q", "upstream.git", "clone")
    area._reg(area.clone, "checkout")
    area.store_second()


def _between_add(area: Area, found: State, before: State, after: State) -> None:
    own = ("images/cats.reg.yaml", "images/.gitignore", ".gitignore")
    files, was = found["registry"]["files"], before["registry"]["files"]
    assert {n: t for n, t in files.items() if n in was and n not in own} == {
        n: t for n, t in was.items() if n not in own
    }
    for name in own:
        assert files.get(name) in (was.get(name), after["registry"]["files"].get(name))
    assert found["registry"]["history"] in (before["registry"]["history"], after["registry"]["history"])
    assert found["remote"] == before["remote"]
    assert found["upstream.git"] == before["upstream.git"]


def _between_push(area: Area, found: State, before: State, after: State) -> None:
    assert found["registry"]["files"] == before["registry"]["files"]
    assert found["registry"]["history"] == before["registry"]["history"]
    assert before["remote"].items() <= found["remote"].items() <= after["remote"].items()
    manifests = {name for name in after["remote"] if name.startswith("manifests/")}
    if manifests <= set(found["remote"]):
        assert found["remote"] == after["remote"], "a manifest is on the remote before what it names"
    if found["upstream.git"] != before["upstream.git"]:
        assert found["remote"] == after["remote"], "commits were pushed before the payload they name"


def _between_import(area: Area, found: State, before: State, after: State) -> None:
    assert found["registry"] == before["registry"]
    assert found["remote"] == before["remote"]
    was, files = before["consumer"]["files"], found["consumer"]["files"]
    own = ("data/.gitignore", "data/cats.reg.yaml", ".gitignore")
    assert {n: t for n, t in files.items() if n in was and n not in own} == {
        n: t for n, t in was.items() if n not in own
    }
    if (area.consumer / "data/cats").exists():
        assert listing(area.consumer / "data/cats") == listing(area.registry / "images/cats"), "half an import"


def _between_versions(place: str, repository: str, found: State, before: State, after: State) -> None:
    """Every file is as it was or as it will be, and files that both have alike were not touched."""
    files, was, will = (found[repository]["files"], before[repository]["files"], after[repository]["files"])
    for name in {*was, *will}:
        inside = name == place or name.startswith(f"{place}/")
        if inside and was.get(name) == will.get(name):
            assert files.get(name) == was.get(name), name
        elif name in files:
            assert files[name] in (was.get(name), will.get(name), "folder"), name
    assert found["remote"] == before["remote"]


def _between_update(area: Area, found: State, before: State, after: State) -> None:
    _between_versions("data/cats", "consumer", found, before, after)


def _between_checkout(area: Area, found: State, before: State, after: State) -> None:
    _between_versions("images/cats", "registry", found, before, after)


def _between_pull(area: Area, found: State, before: State, after: State) -> None:
    _between_versions("images/cats", "clone", found, before, after)


def _between_move(area: Area, found: State, before: State, after: State) -> None:
    old, new = area.registry / "images/cats", area.registry / "pets/cats"
    assert old.exists() != new.exists()
    assert listing(old if old.exists() else new) == {
        name.removeprefix("images/cats/"): text
        for name, text in before["registry"]["files"].items()
        if name.startswith("images/cats/")
    }
    texts = {p: (area.registry / p).exists() for p in ("images/cats.reg.yaml", "pets/cats.reg.yaml")}
    assert any(texts.values()), "no metafile names the dataset"
    assert found["remote"] == before["remote"]


def _between_remove(area: Area, found: State, before: State, after: State) -> None:
    assert found["remote"] == before["remote"]
    files, was, will = found["registry"]["files"], before["registry"]["files"], after["registry"]["files"]
    assert {name: files.get(name) for name in will if name in was and not name.endswith(".gitignore")} == {
        name: text for name, text in will.items() if name in was and not name.endswith(".gitignore")
    }


SCENES = {
    "add": Scene("registry", ("add", "images/cats", "-m", "Add cats"), _build_add_first, _between_add),
    "add-next": Scene("registry", ("add", "images/cats", "-m", "Change cats"), _build_add_next, _between_add),
    "push": Scene("registry", ("push",), _build_push, _between_push),
    "import": Scene(
        "consumer",
        ("import", "../registry", "images/cats", "-o", "data/cats", "-m", "Import cats"),
        _build_import,
        _between_import,
    ),
    "update": Scene("consumer", ("update", "-m", "Update cats"), _build_update, _between_update),
    "checkout": Scene("registry", ("checkout", "images/cats", "--rev", "v1"), _build_checkout, _between_checkout),
    "pull": Scene("clone", ("pull",), _build_pull, _between_pull),
    "move": Scene("registry", ("move", "images/cats", "pets/cats", "-m", "Move cats"), _build_checkout, _between_move),
    "remove": Scene("registry", ("remove", "images/cats", "-m", "Remove cats"), _build_checkout, _between_remove),
}
KILLED = ("add", "add-next", "push", "import", "update")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache lies in the area, so that it is put back with the rest."""
    monkeypatch.setenv("REG_CACHE_DIR", str(tmp_path / "area/cache"))


@pytest.fixture
def forks(tmp_path: Path, cache: None) -> Iterator[Forks]:
    """A process that forks commands."""
    started = Forks(tmp_path)
    yield started
    started.close()


def unsound(area: Area) -> list[str]:
    """Return what is wrong with the repositories of an area, whatever state they are in."""
    wrong = []
    for place in (area.registry, area.consumer, area.clone, area.upstream):
        if place.exists():
            done = subprocess.run(
                ["git", "fsck", "--full", "--no-dangling"], cwd=place, capture_output=True, text=True, check=False
            )
            if done.returncode or "missing" in done.stderr or "corrupt" in done.stderr:
                wrong.append(f"git fsck in {place.name}: {done.stderr}")
    return wrong


@dataclass(frozen=True)
class Wrong:
    """Something that is wrong after a command was cut off at a moment."""

    what: str
    moment: str


_CHANCE = re.compile(r"(?<=\.tmp-)[0-9a-f]{16}|(?<=\.reg-)\d+")
"""The part of a temporary name that is another one each time."""


def report(wrong: Sequence[Wrong], count: int) -> str:
    """Return what is wrong, each thing once with the moments it was seen at."""
    moments: dict[str, list[str]] = {}
    for one in wrong:
        moments.setdefault(one.what, []).append(one.moment)
    lines = [f"{what}\n    when {', '.join(dict.fromkeys(seen[:12]))}" for what, seen in moments.items()]
    return f"{len(lines)} things are wrong after {count} trials:\n" + "\n".join(lines[:40])


class Trial:
    """One scene: what was there before, what an uninterrupted run gives, and the check after a run was cut off."""

    def __init__(self, scene: Scene, area: Area, reg: Reg) -> None:
        self.scene = scene
        self.area = area
        self._reg = reg
        area.begin()
        scene.build(area)
        area.save()
        self.cwd = area.root / scene.cwd
        self.before = state(area.root)
        reg(self.cwd, *scene.args)
        self.after = state(area.root)
        assert self.after != self.before
        assert residue(area.root) == []

    def check(self, again: Callable[[], tuple[int, str]], moment: str, *, fetch: bool = True) -> list[Wrong]:
        """Check what a killed run left, run it again, and return what is wrong; with `fetch`, also read the remote."""
        wrong = self._wrong(again)
        if fetch and not wrong and self.scene.args[0] in ("add", "push"):
            wrong = self._fetched()
        area = str(self.area.root) + "/"
        return [Wrong(_CHANCE.sub("*", text.replace(area, ""))[:500], moment) for text in wrong]

    def _wrong(self, again: Callable[[], tuple[int, str]]) -> list[str]:
        try:
            left = state(self.area.root)
            self.scene.between(self.area, left, self.before, self.after)
        except AssertionError as error:
            return [f"not intact: {error}"]
        wrong = unsound(self.area)
        done = left == self.after
        code, said = again()
        found = state(self.area.root)
        if self.scene.args[0] in ("move", "remove"):  # what is completed by the lock's next holder is completed
            done = found == self.after
        if code != 0 and not (done and code == self.scene.already):
            return [*wrong, f"run again -> {code}: {said.strip()[-300:]}"]
        wrong += [f"left behind: {path}" for path in residue(self.area.root)]
        wrong += difference(found, self.after)[:4]
        return wrong + unsound(self.area)

    def _fetched(self) -> list[str]:
        """What the commits name can be fetched from the remote, and is what the curator has."""
        self._reg(self.cwd, "push")
        checked = self._reg(self.cwd, "verify", "--remote", "--deep", code=None)
        waiting = [name for name in objects(self.area.registry / ".reg/outbox") if name != "reg-store.json"]
        self._reg(self.area.root, "get", self.area.registry, "images/cats@main", "-o", "fetched")
        same = listing(self.area.root / "fetched") == listing(self.area.registry / "images/cats")
        return [
            *([f"verify --remote: {checked.out}{checked.err}"] if checked.code else []),
            *(f"still in the outbox after a push: {name}" for name in waiting),
            *([] if same else ["what is got is not what was added"]),
        ]


def run_for(cwd: Path, args: tuple[str, ...], seconds: float | None) -> tuple[int, str]:
    """Run `reg ARGS` as its own process group, and kill the whole of it after some time."""
    process = subprocess.Popen(
        [sys.executable, "-m", "registree", *args],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
    return process.returncode, said


def kill_often(name: str, area: Area, reg: Reg, kills: int) -> None:
    """Kill one scene's command at random moments, and check each time."""
    trial = Trial(SCENES[name], area, reg)
    moments = random.Random(name)
    area.put_back()
    started = time.monotonic()
    assert run_for(trial.cwd, trial.scene.args, None)[0] == 0
    duration = time.monotonic() - started
    wrong: list[Wrong] = []
    hits = 0
    for number in range(kills):
        delay = moments.uniform(0, duration)
        area.put_back()
        code, _ = run_for(trial.cwd, trial.scene.args, delay)
        hits += code == -signal.SIGKILL
        wrong += trial.check(
            lambda: run_for(trial.cwd, trial.scene.args, None),
            f"killed after {delay * 1000:.0f} ms",
            fetch=number % 4 == 0,
        )
    assert not wrong, report(wrong, kills)
    assert hits >= kills // 3, "the command was over before most of the kills"


def crash_everywhere(name: str, area: Area, reg: Reg, forks: Forks, every: int = 1) -> None:
    """Crash one scene's command before each of its steps, and check each time."""
    trial = Trial(SCENES[name], area, reg)
    wrong: list[Wrong] = []
    crashes = 0
    step = 1
    while True:
        area.put_back()
        ((code, said),) = forks.run(Command(trial.cwd, trial.scene.args, crash_at=step))
        if code != CRASHED:
            assert code == 0, said
            break
        crashes += 1
        wrong += trial.check(lambda: forks.run(Command(trial.cwd, trial.scene.args))[0], f"at step {step}")
        step += every
    assert not wrong, report(wrong, crashes)
    assert crashes >= 3, "no step was seen"


@pytest.mark.parametrize(("name", "kills"), [("add", 3), ("add-next", 2), ("push", 2), ("import", 3), ("update", 2)])
def test_command_killed_at_a_random_moment_completes_when_run_again(
    name: str, kills: int, tmp_path: Path, reg: Reg
) -> None:
    kill_often(name, Area(tmp_path, reg, MEDIUM, 50), reg, kills)


@pytest.mark.parametrize(("name", "every"), [("add", 8), ("update", 12)])
def test_command_crashed_between_some_steps_completes_when_run_again(
    name: str, every: int, tmp_path: Path, reg: Reg, forks: Forks
) -> None:
    crash_everywhere(name, Area(tmp_path, reg, MEDIUM, 5), reg, forks, every)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", KILLED)
def test_command_killed_at_any_of_many_random_moments_completes_when_run_again(
    name: str, tmp_path: Path, reg: Reg
) -> None:
    kill_often(name, Area(tmp_path, reg, LARGE, 200), reg, 41)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", SCENES)
def test_command_crashed_between_any_two_steps_completes_when_run_again(
    name: str, tmp_path: Path, reg: Reg, forks: Forks
) -> None:
    crash_everywhere(name, Area(tmp_path, reg, MEDIUM, 10), reg, forks)
