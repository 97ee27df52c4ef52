"""A certificate authority of the tests' own, and a certificate of it for loopback, made with `openssl`.

Clients that are not told of the authority's file must refuse the server.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.servers.processes import output_of, program


@dataclass(frozen=True)
class Certificate:
    """Files in PEM: the authority that clients must trust, the server's certificate, its key, and both in one."""

    ca_file: Path
    certificate: Path
    key: Path
    both: Path


def make_certificate(folder: Path) -> Certificate:
    """Make an authority and a certificate for 127.0.0.1 and localhost in a folder."""
    openssl = program("openssl", "openssl")
    made = Certificate(folder / "ca.pem", folder / "server.pem", folder / "server.key", folder / "server-both.pem")
    bare = folder / "openssl.cnf"
    bare.write_text("[req]\ndistinguished_name = name\n[name]\n")
    fresh = [openssl, "req", "-x509", "-config", bare, "-days", "2", "-nodes"]
    fresh += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    authority = ["-keyout", folder / "ca.key", "-out", made.ca_file, "-subj", "/CN=Authority of the tests"]
    authority += ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    output_of([*fresh, *authority])
    signed = ["-CA", made.ca_file, "-CAkey", folder / "ca.key", "-keyout", made.key, "-out", made.certificate]
    signed += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    signed += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "extendedKeyUsage=serverAuth"]
    output_of([*fresh, *signed])
    made.both.write_bytes(made.certificate.read_bytes() + made.key.read_bytes())
    return made
