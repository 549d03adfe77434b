# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import PATIENCE, Act, Exchange, sync
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import described
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import Runner, Server, an_archive


def test_one_streams_at_a_time_while_the_one_before_it_is_being_finished(run: Runner, server: Server) -> None:
    DirectoryStore.attach(str(run.store), create=True)
    run.url = server.url
    both_began = threading.Event()
    began: list[str] = []
    streaming: list[str] = []
    at_a_time: list[int] = []

    def stream(name: str) -> Act:
        content = an_archive(name)

        def act(exchange: Exchange) -> None:
            exchange.read_body()
            began.append(name)
            streaming.append(name)
            at_a_time.append(len(streaming))
            if len(began) == 2:
                both_began.set()
            exchange.head(200, Content_Type="application/octet-stream", Transfer_Encoding="chunked")
            both_began.wait(0.5)  # the time in which a second stream would begin beside the first
            exchange.chunk(content)
            streaming.remove(name)
            exchange.chunk(b"")

        return act

    def held_back(one: dict[str, Any]) -> Act:
        def act(exchange: Exchange) -> None:
            assert both_began.wait(PATIENCE)  # else the module is left without an answer
            sync(one)(exchange)

        return act

    both = [described("db"), described("web")]
    server.instances(both)
    for one in both:
        server.exports(one["name"], stream(one["name"]))
        server.fake.on("GET", f"/1.0/instances/{one['name']}", held_back(one))
    answer = run("incus_export", parallel=1, compression="none", state_directory=str(run.home / "state"))
    assert (answer["succeeded"], answer["failures"], at_a_time) == (2, [], [1, 1])
