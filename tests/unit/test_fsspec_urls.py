"""A remote of any kind that fsspec knows: what has to be installed is named when it is added, and when it is used."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.conftest import Reg, write
from tests.servers.published import one_sentence

KINDS = [
    ("gs://bucket", "gcsfs"),
    ("gs://bucket/prefix", "gcsfs"),
    ("gcs://bucket/prefix", "gcsfs"),
    ("abfs://container/prefix", "adlfs"),
    ("az://container/prefix", "adlfs"),
    ("sftp://example.org/srv/data", "paramiko"),
    ("webdav://example.org/data", "webdav4"),
    ("hdfs://example.org/data", "pyarrow"),
]


@pytest.fixture(params=KINDS, ids=lambda row: row[0].replace("://", "-").replace("/", "-"))
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """A URL and the package that it needs, which is not installed."""
    url, package = request.param
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    return url, package


def test_missing_package_is_named_when_a_remote_is_added(registry: Path, kind: tuple[str, str], reg: Reg) -> None:
    url, package = kind
    before = (registry / "reg.yaml").read_text()
    ran = reg(registry, "remote", "add", "x", url, code=2)
    assert package in one_sentence(ran.err)
    assert f"hint: pip install '{package}'" in ran.err.splitlines()
    assert (registry / "reg.yaml").read_text() == before


def test_missing_package_is_named_when_a_registry_is_made(tmp_path: Path, kind: tuple[str, str], reg: Reg) -> None:
    url, package = kind
    ran = reg(tmp_path, "init", tmp_path / "new", "--remote", url, code=2)
    assert package in one_sentence(ran.err)
    assert f"hint: pip install '{package}'" in ran.err.splitlines()


def test_missing_package_is_named_when_a_remote_is_used(registry: Path, kind: tuple[str, str], reg: Reg) -> None:
    url, package = kind
    write(registry, {"cats/1.png": b"one"})
    reg(registry, "add", "cats", "-m", "Add cats")
    (registry / "reg.yaml").write_text(f"reg: 1\nremotes:\n  default:\n    url: {url}\n")
    for ran in (reg(registry, "push", code=2), reg(registry, "verify", "--remote", code=2)):
        assert package in one_sentence(ran.err)
        assert f"hint: pip install '{package}'" in ran.err.splitlines()
