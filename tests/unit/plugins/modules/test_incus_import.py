# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module on a server that is strict about what it is asked; what real servers do is tested on the lab."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Dependencies, SnapshotRecord
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_plan import MARKER
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import (
    Exchange,
    background,
    operation_envelope,
    refusal,
    sync,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import (
    MAC,
    described,
    snapshot,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    a_failure,
    a_set,
    an_artifact,
    put,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import (
    Runner,
    Server,
    an_archive,
    warned,
    without_end,
)

IMPORT = "incus_import"
UPLOAD = ("POST", "/1.0/instances")
EXPIRY = "2090-01-01T00:00:00Z"
MONDAY = SnapshotRecord("monday", "2026-11-20T00:00:00Z", EXPIRY)
PAST = SnapshotRecord("sunday", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z")


@pytest.fixture
def store(run: Runner, server: Server) -> Runner:
    """A runner with a store, that talks to the server, to which anything may be restored."""
    DirectoryStore.attach(str(run.store), create=True)
    run.url = server.url
    run.defaults = {"state_directory": str(run.home / "state")}
    server.fake.on(*UPLOAD, background("op-1"))
    server.fake.on("GET", "/1.0/operations/op-1/wait", sync({"id": "op-1", "status_code": 200, "status": "Success"}))
    for name in ("web", "db"):
        after(server, name)
    return run


def after(server: Server, name: str, *snapshots: str) -> None:
    """What the server says of an instance that was restored, and that it may be changed."""
    path = f"/1.0/instances/{name}"
    server.fake.on("GET", path, sync(described(name, status="Stopped", snapshots=list(map(snapshot, snapshots)))))
    server.fake.on("PATCH", path, sync({}))
    server.fake.on("PUT", f"{path}/state", sync({}))


def published(run: Runner, *names: str, content: bytes | None = None, failed: str = "", **changes: Any) -> str:
    """A set with whole archives of these instances (or with this one content)."""
    changes = {"compression": "none", "snapshots": (), "power_state": "Stopped", **changes}
    with a_set(DirectoryStore.attach(str(run.store), create=False)) as writer:
        for name in names:
            data = an_archive(name) if content is None else content
            artifact = an_artifact(name, data, path=f"instances/default/{name}.tar", **changes)
            put(writer, artifact, data)
        if failed:
            writer.note_failures([a_failure(failed)])
        writer.publish()
        return writer.head.name


def patches(server: Server, name: str = "web") -> list[Any]:
    return [json.loads(request.body) for request in server.fake.seen("PATCH", f"/1.0/instances/{name}")]


def test_an_instance_is_sent_mended_and_left_as_it_was(store: Runner, server: Server) -> None:
    name = published(store, "web")
    answer = store(IMPORT)
    assert (answer["changed"], answer["set"], answer["succeeded"], answer["left_alone"]) == (True, name, 1, 0)
    assert [(one["name"], one["identity"], one["started"]) for one in answer["restored"]] == [("web", "keep", False)]
    (request,) = server.fake.seen(*UPLOAD)
    assert request.body_complete
    assert request.body_length == len(an_archive("web"))
    assert request.query == {"project": "default"}
    assert (request.headers["x-incus-name"], request.headers["x-incus-pool"]) == ("web", "default")
    assert request.headers["x-incus-config"].split(" ") == [f"{MARKER}={name}", "volatile.last_state.power=STOPPED"]
    # The marker goes last, and then backup.yaml is written once more.
    assert patches(server) == [{"config": {MARKER: ""}}, {}]
    assert not server.fake.seen("PUT", "/1.0/instances/web/state")


def test_the_bytes_that_are_sent_are_those_of_the_store(store: Runner, server: Server) -> None:
    published(store, "web")
    received = []

    def act(exchange: Exchange) -> None:
        exchange.read_body()
        received.append(hashlib.sha256(exchange.request.body).hexdigest())
        exchange.json(202, operation_envelope("op-1"))

    server.fake.on(*UPLOAD, act)
    store(IMPORT)
    assert received == [hashlib.sha256(an_archive("web")).hexdigest()]


def test_snapshots_get_back_the_expiry_that_is_lost_on_the_way(store: Runner, server: Server) -> None:
    published(store, "web", content=an_archive("web", snapshots=("monday", "sunday")), snapshots=(MONDAY, PAST))
    after(server, "web", "monday", "sunday")
    server.fake.on("PUT", "/1.0/instances/web/snapshots/monday", sync({}))
    answer = store(IMPORT)
    (request,) = server.fake.seen("PUT", "/1.0/instances/web/snapshots/monday")
    assert json.loads(request.body) == {"expires_at": EXPIRY}
    assert len(warned(answer, "the snapshot sunday expired meanwhile")) == 1


def test_what_ran_is_started_at_the_very_end(store: Runner, server: Server) -> None:
    published(store, "web", power_state="Running")
    assert store(IMPORT)["restored"][0]["started"] is True
    assert [change[0] for change in server.changes] == ["POST", "PATCH", "PATCH", "PUT"]
    (request,) = server.fake.seen("PUT", "/1.0/instances/web/state")
    assert json.loads(request.body)["action"] == "start"


def test_a_start_that_fails_is_told_as_just_that(store: Runner, server: Server) -> None:
    published(store, "web", power_state="Running")
    server.fake.on("PUT", "/1.0/instances/web/state", refusal(400, "MAC address in use"))
    (failure,) = store(IMPORT)["failures"]
    assert (failure["operation"], failure["entity"], failure["server_said"]) == (
        "start the restored instance",
        "default/web",
        "MAC address in use",
    )
    assert "It is restored" in failure["hint"]


def test_a_new_identity_is_asked_for_where_the_old_one_is_taken(store: Runner, server: Server) -> None:
    published(store, "web")
    twin = described("twin", config={"volatile.uuid": "uuid-of-web", "volatile.eth0.hwaddr": MAC})
    server.fake.on("GET", "/1.0/instances", sync([twin]))
    answer = store(IMPORT)
    assert answer["restored"][0]["identity"] == "regenerate"
    (request,) = server.fake.seen(*UPLOAD)
    assert request.headers["x-incus-config"].split(" ")[2:] == ["volatile.uuid=", "volatile.eth0.hwaddr="]


def test_an_older_server_gets_the_same_a_moment_later(store: Runner, server: Server) -> None:
    server.fake.extensions.remove("backup_override_config")
    name = published(store, "web")
    store(IMPORT)
    (request,) = server.fake.seen(*UPLOAD)
    assert "x-incus-config" not in request.headers
    assert patches(server)[0] == {"config": {MARKER: name, "volatile.last_state.power": "STOPPED"}}


@pytest.mark.parametrize("damage", ["flipped", "cut", "grown", "gone"])
def test_a_damaged_archive_is_found_before_anything_is_sent(store: Runner, server: Server, damage: str) -> None:
    name = published(store, "web", "db")
    path = store.store / "site1" / name / "instances/default/web.tar"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[1000] ^= 1
    path.write_bytes({"cut": content[:-512], "grown": content + b"\0" * 512}.get(damage, content))
    if damage == "gone":
        path.unlink()
    answer = store(IMPORT)
    assert answer["failed"]
    assert [(one["entity"], one["operation"]) for one in answer["failures"]] == [
        ("default/web", "read" if damage == "gone" else "import instance")
    ]
    # The other one is none the worse for it.
    assert [one["name"] for one in answer["restored"]] == ["db"]
    assert [request.headers["x-incus-name"] for request in server.fake.seen(*UPLOAD)] == ["db"]


def test_an_archive_that_was_stored_without_its_end_is_not_sent(store: Runner, server: Server) -> None:
    # Its checksum fits: only reading it to its end tells.
    published(store, "web", content=without_end(an_archive("web")))
    (failure,) = store(IMPORT)["failures"]
    assert failure["error"] == "ArchiveInvalid"
    assert server.changes == []


def test_all_that_stands_in_the_way_is_told_at_once_and_nothing_is_done(store: Runner, server: Server) -> None:
    published(store, "web", "db", dependencies=Dependencies(profiles=("gone",), networks=("gone",), pools=("gone",)))
    server.fake.on("GET", "/1.0/instances", sync([described("web", config={})]))
    for check in (True, False):
        answer = store(IMPORT, check=check)
        assert (answer["failed"], answer["error"], answer["operation"]) == (
            True,
            "PreflightFailed",
            "check the restore",
        )
        assert [(one["entity"], one["code"]) for one in answer["problems"]] == [
            ("default/db", "profile_missing"),
            ("default/db", "network_missing"),
            ("default/db", "pool_missing"),
            ("default/web", "name_taken"),
            ("default/web", "profile_missing"),
            ("default/web", "network_missing"),
            ("default/web", "pool_missing"),
        ]
        assert "7 problem(s) stand in the way, nothing was changed" in answer["msg"]
    assert server.changes == []


def test_what_is_there_is_left_alone_where_that_was_asked_for(store: Runner, server: Server) -> None:
    published(store, "web", "db")
    server.fake.on("GET", "/1.0/instances", sync([described("web", config={})]))
    answer = store(IMPORT, conflict="skip")
    assert (answer["succeeded"], answer["left_alone"]) == (1, 1)
    assert [request.headers["x-incus-name"] for request in server.fake.seen(*UPLOAD)] == ["db"]


def test_nothing_left_to_restore_is_no_change(store: Runner, server: Server) -> None:
    published(store, "web")
    server.fake.on("GET", "/1.0/instances", sync([described("web")]))
    answer = store(IMPORT, conflict="skip")
    assert (answer["changed"], answer["restored"]) == (False, [])
    assert server.changes == []


def test_an_interrupted_restore_is_finished_without_sending_it_again(store: Runner, server: Server) -> None:
    name = published(store, "web", power_state="Running")
    half = described("web", status="Stopped", config={"volatile.uuid": "uuid-of-web", MARKER: name})
    server.fake.on("GET", "/1.0/instances", sync([half]))
    answer = store(IMPORT)
    assert [(one["action"], one["start"]) for one in answer["plan"]] == [("finish", True)]
    assert [change[0] for change in server.changes] == ["PATCH", "PATCH", "PUT"]


def test_an_instance_that_came_back_without_its_snapshots_keeps_its_marker(store: Runner, server: Server) -> None:
    published(store, "web", content=an_archive("web", snapshots=("monday",)), snapshots=(MONDAY,))
    (failure,) = store(IMPORT)["failures"]
    assert failure["error"] == "OperationFailed"
    assert "should have ['monday']" in failure["message"]
    assert [change[0] for change in server.changes] == ["POST"]


def test_the_servers_words_come_through_when_it_fails_half_way(store: Runner, server: Server) -> None:
    published(store, "web", "db")
    failed = {"id": "op-1", "status_code": 400, "status": "Failure", "err": "Create instance: no space"}
    success = {"id": "op-1", "status_code": 200, "status": "Success"}
    server.fake.on("GET", "/1.0/operations/op-1/wait", sync(failed), sync(success))
    answer = store(IMPORT, parallel=1)
    assert [(one["entity"], one["error"], one["server_said"]) for one in answer["failures"]] == [
        ("default/db", "OperationFailed", "Create instance: no space")
    ]
    assert [one["name"] for one in answer["restored"]] == ["web"]


def test_check_mode_tells_the_plan_and_changes_nothing(store: Runner, server: Server) -> None:
    published(store, "web")
    before = store.contents()
    answer = store(IMPORT, check=True)
    assert answer["changed"]
    assert [(one["action"], one["name"]) for one in answer["plan"]] == [("import", "web")]
    assert answer["restored"] == []
    assert server.changes == []
    assert store.contents() == before
    assert not (store.home / "state").exists()


def test_the_newest_complete_set_is_taken_unless_another_is_named(store: Runner) -> None:
    older = published(store, "web")
    newest = published(store, "web")
    flawed = published(store, "web", failed="db")
    # Sets of one second are told apart by their names only.
    assert store(IMPORT, check=True)["set"] == max(older, newest)
    assert store(IMPORT, check=True, set=older)["set"] == older
    assert store(IMPORT, check=True, set=flawed)["set"] == flawed


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"instances": ["gone"]}, "NothingSelected", "no instance is called gone"),
        ({"include": ["x*"]}, "NothingSelected", "Other sets may have it"),
        ({"project": "shop"}, "NothingSelected", "matches no instance"),
        ({"set": "20261123T141500Z-partial-7f3a"}, "SetInvalid", "has no published set"),
        ({"set": "../site2/x"}, "UsageError", "is not a set's name"),
        ({"before": "2000-01-01"}, "SetInvalid", "has no complete set before that moment"),
        ({"site": "site2"}, "SetInvalid", "has no complete set"),
        ({"site": None}, "UsageError", "site is required"),
        ({"set": "20261123T141500Z-partial-7f3a", "before": "2026-11-23"}, "UsageError", "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    store: Runner, server: Server, options: dict[str, Any], error: str, said: str
) -> None:
    published(store, "web")
    answer = store(IMPORT, **options)
    assert (answer["failed"], answer["error"]) == (True, error)
    assert said in answer["msg"]
    assert server.changes == []


def test_an_unfinished_set_is_never_restored_from(store: Runner, server: Server) -> None:
    with a_set(DirectoryStore.attach(str(store.store), create=False)) as writer:
        put(writer, an_artifact("web"))
    for named in ({}, {"set": writer.head.name}):
        assert store(IMPORT, **named)["error"] == "SetInvalid"
    assert server.changes == []
