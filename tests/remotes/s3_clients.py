"""Both clients that speak S3, each as on a machine where it is the one that is taken, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest

from registree.network import Network
from registree.store.base import Store
from registree.store.opening import open_store
from tests.conftest import Reg

CLIENTS = ["obstore", "s3fs"]
_BEGIN = "import sys\nif sys.argv.pop(1) == 's3fs':\n    sys.modules['obstore'] = None\n"
"""A module that is None cannot be imported, as on a machine where it is not installed."""


def take_client(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process speak S3 through a client, and forget the connections of other tests."""
    pytest.importorskip("s3fs")
    if client == "obstore":
        pytest.importorskip("obstore")
    else:
        monkeypatch.setitem(sys.modules, "obstore", None)
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def opened(url: str, **options: Any) -> Store:
    """Open a bucket as this process's environment has it; nothing is tried again."""
    return open_store(url, "/", options, network=Network.from_environment(os.environ))


def name_bucket(reg: Reg, registry: Path, url: str, **options: str) -> None:
    """Make a bucket the default remote of a registry."""
    words = [word for name, value in options.items() for word in ("-O", f"{name}={value}")]
    reg(registry, "remote", "add", "default", url, *words, "-m", "A bucket")


def child(
    client: str, code: str, *args: object, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own that speaks S3 through a client, with more in its environment."""
    return subprocess.run(
        [sys.executable, "-c", _BEGIN + code, client, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def reg_child(
    client: str, cwd: Path, *args: object, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `reg ARGS` in a process of its own."""
    return child(client, "from registree.cli import main\nmain()", *args, cwd=cwd, environment=environment)
