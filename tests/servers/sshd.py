"""OpenSSH's server with a configuration and keys of its own: any repository of this machine is reached by its path.

Its client reads the home of the password database and not $HOME, so that the client's configuration is named with -F.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.servers.git_servers import free_port, wait_for_port
from tests.servers.processes import output_of, program, running

ALIAS = "registry-host"
_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {own}/host_key
PidFile none
AuthorizedKeysFile {own}/authorized_keys
AuthenticationMethods publickey
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
UseDNS no
PrintMotd no
AcceptEnv GIT_PROTOCOL
# SHLVL keeps bash from reading .bashrc, which may be slow or say something
SetEnv GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null SHLVL=1
Subsystem sftp internal-sftp
"""
_CLIENT = """\
Host {alias} 127.0.0.1
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {key}
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    HostKeyAlias {alias}
    StrictHostKeyChecking yes
    BatchMode yes
"""


@dataclass(frozen=True)
class SshServer:
    """A running server: its port, the user to log in as, and files that a client needs.

    `key` may log in, `stranger_key` may not; `known_hosts` holds the server's key. `log` is what the server says.
    """

    port: int
    user: str
    key: Path
    stranger_key: Path
    known_hosts: Path
    log: Path
    alias: str = ALIAS

    def configuration(self, *, key: Path | None = None, known_hosts: Path | None = None) -> str:
        """Return what stands in a client's configuration; another key or other known hosts where they are given."""
        return _CLIENT.format(
            alias=self.alias,
            port=self.port,
            user=self.user,
            key=key or self.key,
            known_hosts=known_hosts or self.known_hosts,
        )

    def command(self, folder: Path, *, key: Path | None = None) -> str:
        """Write a configuration into a folder and return the value of GIT_SSH_COMMAND that uses it."""
        place = folder / "ssh_config"
        place.write_text(self.configuration(key=key))
        return f"ssh -F {place}"

    def url(self, path: Path) -> str:
        """Return the ``ssh://`` URL of a repository."""
        return f"ssh://{self.alias}{path}"

    def scp_like(self, path: Path) -> str:
        """Return the short form of a repository's URL: ``host:path``."""
        return f"{self.alias}:{path}"


@contextmanager
def sshd() -> Iterator[SshServer]:
    """Run a server that lets one key in, as the user who runs the tests."""
    server, keygen = program("sshd", "openssh-server"), program("ssh-keygen", "openssh-client")
    program("ssh", "openssh-client")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, parents=True, exist_ok=True)  # OpenSSH insists on it, for root
    with tempfile.TemporaryDirectory(prefix="ssh-", ignore_cleanup_errors=True) as name:
        own, port = Path(name), free_port()
        for key in ("host_key", "key", "stranger_key"):
            output_of([keygen, "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", own / key])
        (own / "authorized_keys").write_bytes((own / "key.pub").read_bytes())
        (own / "known_hosts").write_text(f"{ALIAS} {(own / 'host_key.pub').read_text()}")
        (own / "sshd_config").write_text(_SERVER.format(own=own, port=port))
        log = own / "sshd.log"
        with running([server, "-D", "-e", "-f", own / "sshd_config"], log) as process:
            wait_for_port(port, process)
            user = pwd.getpwuid(os.geteuid()).pw_name
            yield SshServer(port, user, own / "key", own / "stranger_key", own / "known_hosts", log)
