# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Which Incus daemon to talk to, and with which credentials: what the options say, checked before anything is sent."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    PermissionDenied,
    ServerUnreachable,
    UsageError,
)

SOCKET_HINT = (
    "Check that Incus is installed and running on this host, or say where its socket is (INCUS_SOCKET, INCUS_DIR), "
    "or give a url"
)
RIGHTS_HINT = "Run as root (become: true) or as a member of the group incus-admin"


@dataclass(frozen=True)
class Connection:
    """One server's endpoint and credentials.

    ``url`` is ``https://host:port``, a socket's path (alone or as ``unix:///path``), or None for this host's daemon.
    Certificates and the key are PEM, each as a path or as its content, never both.  ``server_cert`` is pinned: the
    server must present exactly this certificate, whatever its name or issuer; without it the server's chain and
    name are checked against the certificate authorities that the requests library trusts.
    Seconds: ``stall_timeout`` without a byte on a stream or an answer to a request, ``operation_timeout`` for a
    background operation as a whole, ``connect_timeout`` for the connection itself.

    Raises UsageError where the options contradict each other.
    """

    url: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    server_cert: str | None = None
    client_cert_content: str | None = field(default=None, repr=False)
    client_key_content: str | None = field(default=None, repr=False)
    server_cert_content: str | None = field(default=None, repr=False)
    stall_timeout: float = 300
    operation_timeout: float = 86400
    connect_timeout: float = 30

    def __post_init__(self) -> None:
        for name in ("client_cert", "client_key", "server_cert"):
            if getattr(self, name) and getattr(self, f"{name}_content"):
                raise UsageError(f"{name} and {name}_content exclude each other")
        for name in ("stall_timeout", "operation_timeout", "connect_timeout"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be more than 0 seconds")
        has_cert = bool(self.client_cert or self.client_cert_content)
        has_key = bool(self.client_key or self.client_key_content)
        if has_cert != has_key:
            raise UsageError("a client certificate needs its key, and a key its certificate")
        if self.is_remote:
            self._check_url()
            if not has_cert:
                raise UsageError(
                    "an https url needs a client certificate and its key",
                    server=self.server,
                    hint="Set client_cert and client_key (or their _content); the server must trust the certificate",
                )
        elif has_cert or self.server_cert or self.server_cert_content:
            raise UsageError("certificates make sense with an https url only", server=self.server)

    @property
    def is_remote(self) -> bool:
        """Whether the server is reached over HTTPS rather than over a socket of this host."""
        return self.url is not None and "://" in self.url and not self.url.startswith("unix://")

    @property
    def server(self) -> str:
        """The endpoint as messages name it."""
        return self.url.rstrip("/") if self.url else "the Incus daemon of this host"

    @property
    def socket(self) -> str | None:
        """The path of the socket that ``url`` names, None where it names none."""
        if self.url is None or self.is_remote:
            return None
        return self.url.removeprefix("unix://")

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.url or "")
            port = parts.port
        except ValueError as error:
            raise UsageError(f"the url {self.url!r} cannot be read: {error}") from error
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
            raise UsageError(
                f"the url {self.url!r} is not of the form https://host:port",
                hint="Incus listens on port 8443 unless core.https_address says otherwise",
            )
        if port is None:
            raise UsageError(f"the url {self.url!r} has no port", hint="Incus usually listens on port 8443")


def _exists(path: str) -> bool:
    return os.path.lexists(path)


def _writable(path: str) -> bool:
    return os.access(path, os.W_OK)


def find_socket(
    environ: Mapping[str, str],
    *,
    exists: Callable[[str], bool] = _exists,
    is_writable: Callable[[str], bool] = _writable,
) -> str:
    """The path of the socket that the ``incus`` command would use here (Incus: client/connection.go).

    ``INCUS_SOCKET`` wins, then ``INCUS_DIR``, then /run/incus where its socket exists, then /var/lib/incus; in a
    directory the restricted ``unix.socket.user`` is taken where only that one may be written to.
    Raises ServerUnreachable with every path that was tried.
    """
    explicit = environ.get("INCUS_SOCKET")
    if explicit:
        if exists(explicit):
            return explicit
        raise ServerUnreachable(f"the socket {explicit} (from INCUS_SOCKET) does not exist", hint=SOCKET_HINT)
    given = environ.get("INCUS_DIR")
    tried: list[str] = []
    for directory in [given] if given else ["/run/incus", "/var/lib/incus"]:
        main = str(Path(directory, "unix.socket"))
        user = str(Path(directory, "unix.socket.user"))
        tried += [main, user]
        # As the incus command does: without INCUS_DIR, /run/incus counts only when the main socket is there.
        is_last = bool(given) or directory != "/run/incus"
        if not exists(main) and not is_last:
            continue
        if not is_writable(main) and is_writable(user):
            return user
        if exists(main):
            return main
    raise ServerUnreachable(f"no socket of Incus was found (tried {', '.join(tried)})", hint=SOCKET_HINT)


@dataclass(frozen=True)
class Credentials:
    """Paths of PEM files, checked: they can be read, the key fits the certificate and needs no passphrase."""

    client_cert: str
    client_key: str
    server_cert: str | None


def prepare_credentials(connection: Connection, workdir: Path) -> Credentials:
    """Write contents to files (0600) below ``workdir`` and check everything that TLS will need.

    Raises UsageError for what cannot be used, PermissionDenied for what cannot be read.
    """

    def path_of(name: str, given: str | None, content: str | None) -> str | None:
        if content is None or given:
            return str(Path(given).expanduser()) if given else None
        path = workdir / f"{name}.pem"
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(content if content.endswith("\n") else content + "\n")
        return str(path)

    cert = path_of("client-cert", connection.client_cert, connection.client_cert_content)
    key = path_of("client-key", connection.client_key, connection.client_key_content)
    server = path_of("server-cert", connection.server_cert, connection.server_cert_content)
    if cert is None or key is None:
        raise UsageError("an https url needs a client certificate and its key", server=connection.server)
    _check_pair(cert, key, connection.server)
    if server is not None:
        _check_certificate(server, connection.server)
    return Credentials(cert, key, server)


def _refuse_passphrase() -> str:
    # OpenSSL would ask on the terminal and hang an unattended run.
    raise UsageError("the client key is protected by a passphrase, which an unattended run cannot type")


def _check_pair(cert: str, key: str, server: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(cert, key, password=_refuse_passphrase)
    except UsageError as error:
        raise error.within(server=server) from None
    except PermissionError as error:
        raise PermissionDenied(f"{cert} or {key} may not be read", server=server) from error
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise UsageError(
            f"the client certificate {cert} and its key {key} cannot be used: {error}", server=server
        ) from error


def _check_certificate(path: str, server: str) -> None:
    try:
        ssl.PEM_cert_to_DER_cert(Path(path).read_text(encoding="ascii"))
    except PermissionError as error:
        raise PermissionDenied(f"the server certificate {path} may not be read", server=server) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"the server certificate {path} cannot be used: {error}", server=server) from error
