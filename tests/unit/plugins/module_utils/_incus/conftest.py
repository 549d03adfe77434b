# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import Connection
from ansible_collections.incus_fleet.backup.tests.unit.fakes.certificates import Pair, make_pair
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import FakeIncus


@pytest.fixture(scope="session")
def server_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("server"), "server")


@pytest.fixture(scope="session")
def client_pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return make_pair(tmp_path_factory.mktemp("client"), "client")


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeIncus]:
    """A fake server on a socket; the test fails when it saw something that was not announced."""
    server = FakeIncus().listen_unix(tmp_path / "Unix.socket")
    yield server
    server.stop()
    assert server.complaints == []


@pytest.fixture
def fake_tls(server_pair: Pair) -> Iterator[FakeIncus]:
    """The same over HTTPS."""
    server = FakeIncus().listen_tls(*server_pair)
    yield server
    server.stop()
    assert server.complaints == []


Connect = Callable[..., IncusClient]


@pytest.fixture
def connect(tmp_path: Path, client_pair: Pair) -> Connect:
    """Connects to a fake server, with the options that the test adds."""

    def connect_to(server: FakeIncus, **options: object) -> IncusClient:
        if server.url.startswith("https:"):
            cert, key = map(str, client_pair)
            options = {"client_cert": cert, "client_key": key, "server_cert": server.certificate, **options}
        connection = Connection(url=server.url, **{"connect_timeout": 5, "stall_timeout": 5, **options})  # type: ignore[arg-type]
        return IncusClient.connect(connection, workdir=tmp_path)

    return connect_to


@pytest.fixture(params=["unix", "tls"])
def any_fake(request: pytest.FixtureRequest) -> FakeIncus:
    """Once on a socket, once over HTTPS."""
    found: FakeIncus = request.getfixturevalue("fake" if request.param == "unix" else "fake_tls")
    return found
