"""The first jobs of the main line beside DVC and `cp -r`: python benchmarks/beside_dvc.py DVC [FILES] [RUNS]

DVC is the path of a `dvc` command (``python -m venv x && x/bin/pip install dvc``). Each job runs in turn, A B A B, as
whole processes on one disk, with fresh folders and caches; printed are medians in seconds and the median of the ratios.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REG = str(Path(sys.executable).parent / "reg")
SIZE = 10_240


def write_files(root: Path, first: int, last: int) -> None:
    """Write files of 10 KB of noise, 200 a folder."""
    for index in range(first, last):
        folder = root / f"c{index // 200:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:06d}.bin").write_bytes(random.Random(index).randbytes(SIZE))


class Side:
    """One tool in a folder of its own."""

    def __init__(self, top: Path, tool: str) -> None:
        self.top = top
        self.tool = tool
        self.environment = {
            **os.environ,
            "REG_CACHE_DIR": str(top / "cache"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(top / "site"),
            "XDG_CACHE_HOME": str(top / "xdg"),
            "GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@example.org",
            "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@example.org",
        }  # fmt: skip
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(self, folder: str, *commands: str) -> float:
        """Run shell commands and return the seconds they took."""
        started = time.perf_counter()
        for command in commands:
            subprocess.run(
                command.replace("TOOL", self.tool), shell=True, cwd=self.top / folder, env=self.environment, check=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )  # fmt: skip
        return time.perf_counter() - started


def reg_jobs(side: Side, data: Path, more: Path) -> dict[str, float]:
    """Time `reg`."""
    side.run(".", "TOOL init registry --remote remote", "git init -q consumer")
    shutil.copytree(data, side.top / "registry/data")
    return {
        "add": side.run("registry", "TOOL add data -m one"),
        "status, nothing changed": side.run("registry", "TOOL status"),
        "push to a directory": side.run("registry", "TOOL push"),
        "import": side.run("consumer", "TOOL import ../registry data"),
        "get": side.run(".", "TOOL get registry data -o got"),
        **_second(side, more, ["TOOL add data -m two", "TOOL push"]),
        "update, 5 % new": side.run("consumer", "TOOL update"),
    }


def dvc_jobs(side: Side, data: Path, more: Path) -> dict[str, float]:
    """Time DVC."""
    side.run(".", "git init -q registry", "git init -q consumer")
    side.run("registry", "TOOL init -q", f"TOOL remote add -q -d r {side.top}/remote", "git commit -qm init")
    side.run("consumer", "TOOL init -q", "git commit -qm init")
    shutil.copytree(data, side.top / "registry/data")
    return {
        "add": side.run("registry", "TOOL add -q data", "git add -A", "git commit -qm one"),
        "status, nothing changed": side.run("registry", "TOOL status -q"),
        "push to a directory": side.run("registry", "TOOL push -q"),
        "import": side.run("consumer", "TOOL import -q ../registry data"),
        "get": side.run(".", "TOOL get -q registry data -o got"),
        **_second(side, more, ["TOOL add -q data", "git add -A", "git commit -qm two", "TOOL push -q"]),
        "update, 5 % new": side.run("consumer", "TOOL update -q data.dvc"),
    }


def _second(side: Side, more: Path, commands: list[str]) -> dict[str, float]:
    shutil.copytree(more, side.top / "registry/data", dirs_exist_ok=True)
    return {"add and push, 5 % new": side.run("registry", *commands)}


def copy_job(side: Side, data: Path) -> dict[str, float]:
    """Time `cp -r`, the limit for import and get."""
    seconds = side.run(".", f"cp -r {data} copied")
    return {"import": seconds, "get": seconds}


def main(dvc: str, count: int, runs: int) -> None:
    """Print the table."""
    times: dict[str, dict[str, list[float]]] = {"reg": {}, "dvc": {}, "cp -r": {}}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        write_files(top / "data", 0, count)
        write_files(top / "more", count, count + count // 20)
        for _ in range(runs):
            sides: tuple[tuple[str, str, Callable[[Side], dict[str, float]]], ...] = (
                ("reg", REG, lambda side: reg_jobs(side, top / "data", top / "more")),
                ("dvc", dvc, lambda side: dvc_jobs(side, top / "data", top / "more")),
                ("cp -r", "cp", lambda side: copy_job(side, top / "data")),
            )
            for name, tool, jobs in sides:
                place = top / "run"
                place.mkdir()
                for job, seconds in jobs(Side(place, tool)).items():
                    times[name].setdefault(job, []).append(seconds)
                subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
                shutil.rmtree(place)
    print(f"{count:,} files of {SIZE} bytes, {runs} runs, medians in seconds")
    print("| job | reg | dvc | dvc / reg | reg / cp -r |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for job, own in times["reg"].items():
        ratios = [b / a for a, b in zip(own, times["dvc"][job], strict=True)]
        copies = times["cp -r"].get(job)
        beside = f"{statistics.median(a / b for a, b in zip(own, copies, strict=True)):.1f}" if copies else ""
        print(
            f"| {job} | {statistics.median(own):.2f} | {statistics.median(times['dvc'][job]):.2f} "
            f"| {statistics.median(ratios):.1f} | {beside} |"
        )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20_000, int(sys.argv[3]) if len(sys.argv) > 3 else 3)
