"""The smallest Ceph cluster that a gateway can stand on: one monitor and one store in memory, of a folder's life.

The two intervals of Paxos are what makes it start in two seconds and not in thirteen.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from tests.servers.git_servers import free_port, wait_for_port
from tests.servers.processes import output_of, program, running

_PACKAGES = {"ceph-mon": "ceph-mon", "ceph-osd": "ceph-osd", "radosgw": "radosgw", "radosgw-admin": "radosgw"}
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon host = {monitor}
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
run dir = {folder}
log file = {folder}/$name.log
pid file = {folder}/$name.pid
admin socket = {folder}/$name.$pid.asok
crash dir = {folder}/crash
keyring = {folder}/keyring
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon pg warn min per osd = 0
mon data = {folder}/monitor
mon data avail crit = 1
mon data avail warn = 2
paxos propose interval = 0.05
paxos min wait = 0.01
osd data = {folder}/store
osd objectstore = memstore
memstore device bytes = {store_bytes}
osd memory target = 939524096
[client.rgw.a]
rgw frontends = beast {endpoints}
rgw gc obj min wait = 5
rgw thread pool size = 64
"""
_CAPABILITIES = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
}
STORE_BYTES = 8 << 30
"""What the store in memory says it can hold; no memory is taken before there are objects."""


def ceph_program(name: str) -> str:
    """Return the path of a program of Ceph's."""
    return program(name, _PACKAGES.get(name, "ceph-common"))


def start_cluster(folder: Path, endpoints: str, servers: ExitStack) -> Path:
    """Start the monitor and the store; return the configuration, in which the gateway listens on `endpoints`."""
    first, second, fsid = free_port(), free_port(), str(uuid4())
    address = f"[v2:127.0.0.1:{first},v1:127.0.0.1:{second}]"
    configuration = folder / "ceph.conf"
    configuration.write_text(
        _CONFIGURATION.format(fsid=fsid, monitor=address, folder=folder, endpoints=endpoints, store_bytes=STORE_BYTES)
    )
    keys = folder / "keyring"
    output_of([ceph_program("ceph-authtool"), "--create-keyring", keys])
    for name, capabilities in _CAPABILITIES.items():
        granted = [word for service, allowed in capabilities.items() for word in ("--cap", service, allowed)]
        output_of([ceph_program("ceph-authtool"), keys, "--gen-key", "-n", name, *granted])
    monitor_map = folder / "monmap"
    output_of([ceph_program("monmaptool"), "--create", "--fsid", fsid, "--addv", "a", address, monitor_map])
    monitor = [ceph_program("ceph-mon"), "-i", "a", "-c", configuration]
    output_of([*monitor, "--mkfs", "--monmap", monitor_map, "--keyring", keys])
    process = servers.enter_context(running([*monitor, "-f"], folder / "ceph-mon.out", patience=0))
    wait_for_port(first, process)
    store_id = str(uuid4())
    output_of([ceph_program("ceph"), "-c", configuration, "osd", "new", store_id])
    (folder / "store").mkdir()
    store = [ceph_program("ceph-osd"), "-i", "0", "-c", configuration]
    output_of([*store, "--mkfs", "--osd-uuid", store_id])
    servers.enter_context(running([*store, "-f"], folder / "ceph-osd.out", patience=0))
    deadline = time.monotonic() + 30
    while "1 up" not in output_of([ceph_program("ceph"), "-c", configuration, "osd", "stat"]):
        assert time.monotonic() < deadline, (folder / "osd.0.log").read_text()[-2000:]
    return configuration
