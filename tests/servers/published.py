"""A registry whose payload lies in a folder of its own and whose commits go to a bare repository that may be served."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Reg, git, write


@dataclass(frozen=True)
class Published:
    """A curator's work tree `root`, its bare upstream `bare`, its `remote` folder and the `url` for consumers.

    `kind` is how consumers name it: ``path`` (the work tree), ``file`` (``file://`` the upstream) or ``url`` (the
    upstream, served at `base_url`).
    """

    root: Path
    bare: Path
    remote: Path
    kind: str
    base_url: str
    reg: Reg

    @property
    def url(self) -> str:
        """What a consumer types."""
        urls = {"path": str(self.root), "file": f"file://{self.bare}", "url": f"{self.base_url}/{self.bare.name}"}
        return urls[self.kind]

    def add(self, name: str, files: dict[str, bytes | str], *, gone: tuple[str, ...] = (), tag: str = "") -> str:
        """Make the next version of a dataset (files below it; the key "" for a dataset that is a file), and send it."""
        place = self.root / name
        for path in gone:
            found = place / path
            shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()
        write(self.root, {f"{name}/{path}" if path else name: content for path, content in files.items()})
        self.reg(self.root, "add", name, "-m", f"Change {name}")
        if tag:
            git(self.root, "tag", "-a", "-m", tag, tag)
        self.send()
        return self.head()

    def commit(self, files: dict[str, bytes | str], message: str = "Change files of Git") -> str:
        """Commit files to Git itself, and send them."""
        write(self.root, files)
        git(self.root, "add", *files)
        git(self.root, "commit", "-q", "-m", message)
        self.send()
        return self.head()

    def send(self, *, payload: bool = True) -> None:
        """Send payload, then make the branches and tags of the upstream what they are here."""
        if payload:
            self.reg(self.root, "push", "--no-git")
        if self.kind != "path":
            refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
            git(self.root, "push", "-q", "--prune", "origin", *refs)

    def set_default(self, branch: str) -> None:
        """Make a branch the default one for consumers."""
        git(self.root if self.kind == "path" else self.bare, "symbolic-ref", "HEAD", f"refs/heads/{branch}")

    def head(self) -> str:
        """Return the commit that HEAD is at."""
        return git(self.root, "rev-parse", "HEAD").strip()


def publish(folder: Path, reg: Reg, *, kind: str = "path", served: Path | None = None, base_url: str = "") -> Published:
    """Make a registry without datasets in a folder; its upstream goes into `served`, the folder behind `base_url`."""
    root, remote = folder / "registry", folder / "remote"
    bare = (served or folder) / f"{folder.name}.git"
    reg(folder, "init", root, "--remote", remote)
    if kind != "path":
        git(folder, "init", "-q", "--bare", str(bare))
        git(root, "remote", "add", "origin", str(bare))
    return Published(root, bare, remote, kind, base_url, reg)


def one_sentence(text: str) -> str:
    """Return the error on stderr, which must be one line, with one hint at most and no traceback."""
    lines = text.splitlines()
    errors = [line.removeprefix("reg: ") for line in lines if line.startswith("reg: ")]
    assert len(errors) == 1, text
    assert sum(line.startswith("hint: ") for line in lines) <= 1, text
    assert "Traceback" not in text, text
    return errors[0]
