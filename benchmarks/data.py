"""The data that all tools get: the same bytes each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

PER_FOLDER = 200
SMALL = 10_240
GIB = 1 << 30


def write_files(root: Path, numbers: range, size: int, seed: int = 0) -> None:
    """Write files of noise, 200 a folder."""
    for number in numbers:
        folder = root / f"c{number // PER_FOLDER:04d}"
        if number == numbers.start or number % PER_FOLDER == 0:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:07d}.bin").write_bytes(random.Random(seed + number).randbytes(size))


def write_large(path: Path, size: int, seed: int = 0) -> None:
    """Write one file of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = random.Random(seed)
    with path.open("wb") as file:
        for _ in range(size // (1 << 22)):
            file.write(noise.randbytes(1 << 22))


def change(root: Path, share: float, seed: int = 1) -> None:
    """Give a share of the files below a folder other bytes: each a new file, as editors and tools write them."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    noise = random.Random(f"change {seed}")  # numbers are the seeds of files
    for path in noise.sample(files, max(1, round(len(files) * share))):
        size = path.stat().st_size
        path.unlink()
        path.write_bytes(noise.randbytes(size))


def append(path: Path, size: int, seed: int = 1) -> None:
    """Append noise to a file, which is written anew when tools have made it read-only or a link."""
    content = path.read_bytes() if path.is_symlink() or not path.stat().st_mode & 0o200 else None
    if content is not None:
        path.unlink()
        path.write_bytes(content)
    with path.open("ab") as file:
        file.write(random.Random(f"append {seed}").randbytes(size))


def grow_csv(path: Path, size: int, seed: int) -> None:
    """Append lines to a table until it has grown by some bytes."""
    numbers = random.Random(seed)
    with path.open("a", encoding="ascii") as file:
        end = (path.stat().st_size if path.exists() else 0) + size
        while file.tell() < end:
            file.writelines(
                f"{numbers.getrandbits(40)},{numbers.random():.6f},{numbers.choice(('cat', 'dog', 'bird'))},"
                f"2026-{numbers.randrange(1, 13):02d}-{numbers.randrange(1, 29):02d}\n"
                for _ in range(2000)
            )


def catalog(metafile: str, suffix: str, numbers: range) -> Iterator[tuple[str, str]]:
    """Make the metafiles of many datasets, all with the payload of one: their paths and what is in them."""
    for number in numbers:
        yield (
            f"area{number // 50:03d}/set{number:05d}{suffix}",
            metafile.replace("path: data", f"path: set{number:05d}"),
        )


def history(metafile: str, suffix: str, datasets: int, commits: int) -> Iterator[str]:
    """Make a history for `git fast-import` in which datasets come one by one, each with a tag for its first version."""
    for number in range(commits):
        new = dict(catalog(metafile, suffix, range(number * datasets // commits, (number + 1) * datasets // commits)))
        yield f"commit refs/heads/main\ncommitter B <b@example.org> {1_700_000_000 + number} +0000\ndata 4\nnext\n"
        if not number:
            yield "from refs/heads/main^0\n"
        for path, content in {"README.md": f"{number}\n", **new}.items():
            yield f"M 644 inline {path}\ndata {len(content)}\n{content}\n"
        for path in new:
            yield f"reset refs/tags/{path.removesuffix(suffix)}@v1.0.0\nfrom refs/heads/main\n\n"
