"""The main job, start to end, on real data: `make demo`.

A curator publishes handwritten digits and a few tables; a consumer imports them; the curator adds a second version;
the consumer updates. Every command is printed with what it answers, and the folders stay to play with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import vega_datasets
from PIL import Image
from sklearn.datasets import load_digits

EXAMPLES = Path(__file__).parent
TABLES = Path(vega_datasets.__file__).parent / "_data"


class Terminal:
    """Runs commands in a folder and shows them as a terminal would."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.environment = {
            **os.environ,
            "REG_CACHE_DIR": str(top / "cache"),
            "GIT_AUTHOR_NAME": "Demo",
            "GIT_AUTHOR_EMAIL": "demo@example.org",
            "GIT_COMMITTER_NAME": "Demo",
            "GIT_COMMITTER_EMAIL": "demo@example.org",
        }

    def say(self, text: str) -> None:
        """Print a heading."""
        print(f"\n# {text}", flush=True)

    def run(self, folder: str, command: str) -> None:
        """Print a command, run it, print its answer; a failure ends the demo."""
        print(f"\n{folder}$ {command}", flush=True)
        done = subprocess.run(command, shell=True, cwd=self.top / folder, env=self.environment, check=False)
        if done.returncode:
            sys.exit(f"the demo failed: {command} ended with {done.returncode}")


def write_digits(folder: Path, first: int, last: int) -> None:
    """Write some of the 1,797 scanned digits as PNG files, enlarged to 32 x 32 pixels, one folder a class."""
    digits = load_digits()
    for index in range(first, min(last, len(digits.images))):
        place = folder / str(digits.target[index])
        place.mkdir(parents=True, exist_ok=True)
        pixels = (255 - digits.images[index] * 255 / 16).astype("uint8")
        Image.fromarray(pixels).resize((32, 32)).save(place / f"{index:04d}.png")


def main(top: Path) -> None:
    """Run the demo in a fresh folder."""
    if top.exists():
        shutil.rmtree(top)
    top.mkdir(parents=True)
    terminal = Terminal(top)

    terminal.say("A curator makes a registry; payload goes to a directory that stands for a bucket")
    terminal.run(".", "reg init registry --remote remote --template")
    shutil.copytree(EXAMPLES / "registry", top / "registry", dirs_exist_ok=True)
    write_digits(top / "registry/images/digits", 0, 1000)
    (top / "registry/tables").mkdir()
    for name in ("seattle-weather.csv", "airports.csv", "cars.json"):
        shutil.copy(TABLES / name, top / "registry/tables" / name)
    terminal.run("registry", "ls images/digits tables")
    terminal.run("registry", "reg add images/digits tables/*.csv tables/*.json -m 'Add digits and tables'")
    terminal.run("registry", "cat images/digits.reg.yaml")
    terminal.run("registry", "git status --short")
    terminal.run("registry", "reg push")
    terminal.run("registry", "git tag images/digits@v1.0.0")
    terminal.run("registry", "reg list")

    terminal.say("A consumer, in another Git repository, imports a pinned version")
    shutil.copytree(EXAMPLES / "consumer", top / "consumer")
    terminal.run("consumer", "git init -q -b main .")
    terminal.run("consumer", "reg import ../registry images/digits --rev 1.0.0 -o data/digits")
    terminal.run("consumer", "reg import ../registry tables/seattle-weather.csv -o data/seattle-weather.csv")
    terminal.run("consumer", "git add -A && git commit -qm 'Use digits and weather' && git status --short")
    terminal.run("consumer", "cat data/digits.reg.yaml")
    terminal.run("consumer", f"{sys.executable} count.py")

    terminal.say("The curator adds a second version")
    write_digits(top / "registry/images/digits", 1000, 1797)
    (top / "registry/images/digits/0/0000.png").unlink()
    terminal.run("registry", "reg status | head -5")
    terminal.run("registry", "reg add images/digits -m 'All 1,797 digits, less a bad scan'")
    terminal.run("registry", "reg push")
    terminal.run("registry", "git tag images/digits@v1.1.0")
    terminal.run("registry", "git log -p -1 --format=%s -- images/digits.reg.yaml")
    terminal.run("registry", "reg diff HEAD~1 HEAD --format markdown | head -12")

    terminal.say("The consumer updates: a fixed version stays until it is told to move")
    terminal.run("consumer", "reg update")
    terminal.run("consumer", "reg update data/digits --rev '^1.0'")
    terminal.run("consumer", f"{sys.executable} count.py")
    terminal.run("consumer", "reg status")

    terminal.say("Whoever has no repository at all")
    terminal.run(".", "reg get registry images/digits@1.0.0 -o digits-1.0.0")
    terminal.run(".", "reg files registry images/digits:7 | head -3")
    terminal.run(".", "reg cat registry tables/cars.json | head -c 120")

    print(f"\n\nEverything is in {top}: registry, consumer, remote, cache. Go on playing with it.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".demo").resolve())
