# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    PermissionDenied,
    ServerError,
    ServerUnreachable,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import (
    Connection,
    find_socket,
    prepare_credentials,
)
from ansible_collections.incus_fleet.backup.tests.unit.fakes.certificates import Pair, make_pair
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import FakeIncus, refusal

Connect = Callable[..., IncusClient]

VAR = "/var/lib/incus/unix.socket"
RUN = "/run/incus/unix.socket"


def search(environ: dict[str, str], there: set[str], writable: set[str] | None = None) -> str:
    found = there if writable is None else writable
    return find_socket(environ, exists=there.__contains__, is_writable=found.__contains__)


@pytest.mark.parametrize(
    ("environ", "there", "writable", "expected"),
    [
        ({}, {VAR}, {VAR}, VAR),
        ({}, {RUN, VAR}, {RUN, VAR}, RUN),
        ({}, {RUN}, set(), RUN),
        ({}, {VAR, VAR + ".user"}, {VAR, VAR + ".user"}, VAR),
        ({}, {VAR, VAR + ".user"}, {VAR + ".user"}, VAR + ".user"),
        ({}, {RUN, RUN + ".user", VAR}, {RUN + ".user", VAR}, RUN + ".user"),
        ({"INCUS_DIR": "/d"}, {"/d/unix.socket", VAR}, {"/d/unix.socket", VAR}, "/d/unix.socket"),
        ({"INCUS_SOCKET": "/s", "INCUS_DIR": "/d"}, {"/s", "/d/unix.socket"}, {"/s"}, "/s"),
        ({"LXD_DIR": "/lxd"}, {"/lxd/unix.socket", VAR}, {VAR}, VAR),
    ],
)
def test_the_socket_is_searched_as_the_incus_command_does(
    environ: dict[str, str], there: set[str], writable: set[str], expected: str
) -> None:
    assert search(environ, there, writable) == expected


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, [RUN, RUN + ".user", VAR, VAR + ".user"]),
        ({"INCUS_DIR": "/d"}, ["/d/unix.socket", "/d/unix.socket.user"]),
        ({"INCUS_SOCKET": "/s"}, ["/s", "INCUS_SOCKET"]),
    ],
)
def test_a_missing_socket_is_an_error_that_names_every_path_tried(environ: dict[str, str], named: list[str]) -> None:
    with pytest.raises(ServerUnreachable) as caught:
        search(environ, set())
    assert all(path in caught.value.message for path in named)
    assert caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"url": "http://h:8443", "client_cert": "c", "client_key": "k"},
        {"url": "https://h", "client_cert": "c", "client_key": "k"},
        {"url": "https://h:8443/1.0", "client_cert": "c", "client_key": "k"},
        {"url": "https://h:99999", "client_cert": "c", "client_key": "k"},
        {"url": "https://h:8443"},
        {"url": "https://h:8443", "client_cert": "c"},
        {"url": "https://h:8443", "client_cert": "c", "client_cert_content": "x", "client_key": "k"},
        {"url": "/run/incus/unix.socket", "server_cert": "c"},
        {"client_cert": "c", "client_key": "k"},
        {"stall_timeout": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Connection(**options)  # type: ignore[arg-type]


def test_a_key_given_as_content_never_shows_in_a_representation() -> None:
    connection = Connection(url="https://h:1", client_cert_content="C", client_key_content="SECRET")
    assert "SECRET" not in repr(connection)


def test_contents_are_written_where_nobody_else_reads_them(tmp_path: Path, client_pair: Pair) -> None:
    cert, key = client_pair
    connection = Connection(
        url="https://h:1", client_cert_content=cert.read_text(), client_key_content=key.read_text().strip()
    )
    credentials = prepare_credentials(connection, tmp_path)
    assert Path(credentials.client_key).parent == tmp_path
    assert stat.S_IMODE(os.stat(credentials.client_key).st_mode) == 0o600
    prepare_credentials(connection, tmp_path)  # a second connection of the same task


def test_a_key_that_does_not_fit_its_certificate_is_refused(tmp_path: Path, client_pair: Pair) -> None:
    other_key = make_pair(tmp_path, "other")[1]
    with pytest.raises(UsageError, match="cannot be used"):
        prepare_credentials(
            Connection(url="https://h:1", client_cert=str(client_pair[0]), client_key=str(other_key)), tmp_path
        )


def test_a_key_with_a_passphrase_is_refused_rather_than_asked_for(tmp_path: Path, client_pair: Pair) -> None:
    key = tmp_path / "locked.key"
    key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(UsageError, match="an unattended run cannot type"):
        prepare_credentials(
            Connection(url="https://h:1", client_cert=str(client_pair[0]), client_key=str(key)), tmp_path
        )


@pytest.mark.parametrize("content", ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAA\n-----END CERTIFICATE-----\n"])
def test_a_server_certificate_that_is_none_is_refused(
    tmp_path: Path, fake_tls: FakeIncus, connect: Connect, content: str
) -> None:
    path = tmp_path / "server.pem"
    path.write_text(content)
    with pytest.raises((UsageError, ServerUnreachable)):
        connect(fake_tls, server_cert=str(path))


def test_the_facts_of_a_server_are_read_with_one_request(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.extensions = ["direct_backup"]
    client = connect(any_fake)
    assert (client.facts.name, client.facts.version, client.requests_made) == ("fake", "7.0.2", 1)
    assert client.facts.certificate_fingerprint == "ab" * 32
    assert client.facts.pool_drivers == {"btrfs", "dir"}
    assert client.facts.storage_drivers == {"btrfs", "dir", "zfs"}
    assert client.has("direct_backup")
    assert len(any_fake.requests) == 1


def test_a_pinned_certificate_counts_whatever_its_name_and_issuer(fake_tls: FakeIncus, connect: Connect) -> None:
    # The fixture's certificate is self-signed and names neither 127.0.0.1 nor localhost.
    assert connect(fake_tls).server == fake_tls.url


def test_another_certificate_than_the_pinned_one_is_refused_before_anything_is_sent(
    fake_tls: FakeIncus, connect: Connect, tmp_path: Path
) -> None:
    other = make_pair(tmp_path, "other")[0]
    with pytest.raises(ServerUnreachable, match="another certificate than the pinned one") as caught:
        connect(fake_tls, server_cert=str(other))
    assert caught.value.server == fake_tls.url
    assert caught.value.hint
    assert fake_tls.requests == []


def test_without_a_pinned_certificate_the_issuer_must_be_known(fake_tls: FakeIncus, connect: Connect) -> None:
    with pytest.raises(ServerUnreachable, match="could not be verified") as caught:
        connect(fake_tls, server_cert=None)
    assert "server_cert" in (caught.value.hint or "")


def test_nothing_of_the_environment_changes_where_the_bytes_go(
    fake_tls: FakeIncus, connect: Connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "unix.socket").touch()
    monkeypatch.setenv("LXD_DIR", str(tmp_path))
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    assert connect(fake_tls).facts.name == "fake"


def test_a_server_that_does_not_trust_us_is_a_refusal(fake: FakeIncus, connect: Connect) -> None:
    fake.auth = "untrusted"
    with pytest.raises(PermissionDenied, match="does not trust") as caught:
        connect(fake)
    assert caught.value.operation == "connect"


def test_another_product_is_refused(fake: FakeIncus, connect: Connect) -> None:
    fake.kind = "lxd"
    with pytest.raises(ServerError, match="lxd"):
        connect(fake)


def test_a_refusal_while_connecting_carries_the_words_of_the_server(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0", refusal(503, "Daemon is starting up"))
    with pytest.raises(ServerError) as caught:
        connect(fake)
    assert (caught.value.status, caught.value.server_said) == (503, "Daemon is starting up")


def test_a_missing_socket_is_an_unreachable_server(tmp_path: Path) -> None:
    with pytest.raises(ServerUnreachable, match="does not exist") as caught:
        IncusClient.connect(Connection(url=str(tmp_path / "none")), workdir=tmp_path)
    assert caught.value.hint
    assert str(tmp_path) in (caught.value.server or "")


def test_a_socket_that_nobody_listens_on_is_an_unreachable_server(tmp_path: Path, fake: FakeIncus) -> None:
    fake.stop()
    with pytest.raises(ServerUnreachable, match="nothing listens"):
        IncusClient.connect(Connection(url=fake.url), workdir=tmp_path)


def test_no_rights_on_the_socket_is_a_refusal_with_a_way_out(tmp_path: Path, fake: FakeIncus) -> None:
    path = fake.url.removeprefix("unix://")
    os.chmod(path, 0)
    for parent in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(parent, 0o755)
    pid = os.fork()
    if not pid:
        # Root may write to everything, so the child becomes somebody else.
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            IncusClient.connect(Connection(url=fake.url), workdir=tmp_path)
        except PermissionDenied as error:
            code = 0 if "incus-admin" in (error.hint or "") else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_path_that_is_too_long_for_a_socket_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="too long"):
        IncusClient.connect(Connection(url=str(tmp_path / ("x" * 120))), workdir=tmp_path)


def test_a_silent_server_is_unreachable(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0", lambda exchange: exchange.wait_for_hangup() and None)
    with pytest.raises(ServerUnreachable, match="no answer"):
        connect(fake, stall_timeout=0.3)


def test_a_web_server_that_is_not_incus_is_recognised(fake: FakeIncus, connect: Connect) -> None:
    def page(exchange: object) -> None:
        exchange.head(200, Content_Type="text/html", Content_Length="6")  # type: ignore[attr-defined]
        exchange.send(b"<html>")  # type: ignore[attr-defined]

    fake.on("GET", "/1.0", page)
    with pytest.raises(ServerError, match="not one of the Incus API"):
        connect(fake)
