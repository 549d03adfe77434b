# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import FakeIncus
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import Runner, Server


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    """Runs modules of ours as a host does, with a store and a state directory of the test's."""
    return Runner(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A fake server with one project, pool, profile and network, that fails the test for every unknown request."""
    home = tmp_path / "incus"
    home.mkdir()
    fake = FakeIncus(extensions=["direct_backup", "backup_override_config"]).listen_unix(home / "unix.socket")
    yield Server(fake)
    fake.stop()
    assert fake.complaints == []
