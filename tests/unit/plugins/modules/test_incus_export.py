# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module on a server that is strict about what it is asked; what real servers do is tested on the lab."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import LEASE
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import refusal, sync
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import (
    described,
    snapshot,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    SERVER,
    a_set,
    an_artifact,
    put,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import (
    Runner,
    Server,
    an_archive,
    endless,
    streamed,
    wait_for,
    warned,
    without_end,
)

EXPORT = "incus_export"


@pytest.fixture
def store(run: Runner, server: Server) -> Runner:
    """A runner with a store, that talks to the server."""
    DirectoryStore.attach(str(run.store), create=True)
    run.url = server.url
    run.defaults = {"compression": "none", "state_directory": str(run.home / "state")}
    return run


def manifest(run: Runner, answer: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run.store / answer["set_path"] / "manifest.json").read_text())
    return told


def incomplete(run: Runner) -> list[Path]:
    return list(run.store.glob("*/*.incomplete"))


def test_an_instance_becomes_an_artifact_of_a_published_set(store: Runner, server: Server) -> None:
    server.instances([described("web", snapshots=[snapshot("monday", expires_at="2030-01-01T00:00:00Z")])])
    content = an_archive("web", snapshots=("monday",))
    server.exports("web", streamed(content))
    answer = store(EXPORT)
    assert (answer["changed"], answer["result"], answer["succeeded"], answer["failures"]) == (True, "complete", 1, [])
    assert (answer["stored_bytes"], answer["plain_bytes"]) == (len(content), len(content))
    (artifact,) = manifest(store, answer)["artifacts"]
    assert (store.store / answer["set_path"] / artifact["path"]).read_bytes() == content
    assert artifact["stored_sha256"] == hashlib.sha256(content).hexdigest()
    assert artifact["snapshots"] == [
        {
            "name": "monday",
            "created_at": "2026-11-20T00:00:00Z",
            "expires_at": "2030-01-01T00:00:00Z",
            "stateful": False,
        }
    ]
    assert (artifact["method"], artifact["power_state"], artifact["transport"]) == ("snapshot", "Running", "direct")
    assert server.changes == [("POST", "/1.0/instances/web/backups")]
    (request,) = server.fake.seen("POST", "/1.0/instances/web/backups")
    assert request.headers["accept"] == "application/octet-stream"
    assert request.query == {"project": "default"}
    assert request.json == {"instance_only": False, "optimized_storage": False, "compression_algorithm": "none"}
    assert not (store.store / "site1" / LEASE).exists()
    assert not list((store.home / "state").rglob("*.json*"))


def test_one_request_lists_all_and_each_instance_costs_two_more(store: Runner, server: Server) -> None:
    names = [f"web-{number}" for number in range(4)]
    server.instances([described(name) for name in names])
    for name in names:
        server.exports(name)
    store(EXPORT)
    paths = [request.path for request in server.fake.requests]
    assert paths.count("/1.0/instances") == 1
    # The greeting, instances, pools and projects; then the export and a look at the instance afterwards.
    assert len(paths) == 4 + 2 * len(names)


def test_one_bad_instance_does_not_hide_the_good_ones(store: Runner, server: Server) -> None:
    server.instances([described("bad"), described("good")])
    server.exports("bad", refusal(500, "disk on fire"))
    server.exports("good")
    answer = store(EXPORT)
    assert answer["failed"]
    assert answer["msg"].startswith("1 failed, 1 done. Failed: default/bad (")
    (failure,) = answer["failures"]
    assert {key: failure[key] for key in ("error", "operation", "entity", "server_said")} == {
        "error": "ServerError",
        "operation": "export instance",
        "entity": "default/bad",
        "server_said": "disk on fire",
    }
    told = manifest(store, answer)
    assert (told["result"], [one["name"] for one in told["artifacts"]]) == ("with_failures", ["good"])
    assert [one["name"] for one in told["failures"]] == ["bad"]


@pytest.mark.parametrize(
    ("content", "whole", "error"),
    [
        pytest.param(an_archive("web"), False, "StreamBroken", id="the daemon died"),
        pytest.param(without_end(an_archive("web")), True, "ArchiveInvalid", id="a clean end, but no end marker"),
        pytest.param(an_archive("web-prod"), True, "ArchiveInvalid", id="another instance's archive"),
        pytest.param(an_archive("web", snapshots=("x",)), True, "ArchiveInvalid", id="a snapshot that never was"),
        pytest.param(b"not an archive" * 100, True, "ArchiveInvalid", id="no archive at all"),
        pytest.param(b"", True, "ArchiveInvalid", id="nothing"),
    ],
)
def test_what_is_not_a_whole_archive_of_the_instance_never_counts(
    store: Runner, server: Server, content: bytes, whole: bool, error: str
) -> None:
    server.instances([described("web")])
    server.exports("web", streamed(content, whole=whole))
    answer = store(EXPORT)
    assert answer["failed"]
    assert [(one["error"], one["entity"]) for one in answer["failures"]] == [(error, "default/web")]
    assert (answer["set"], answer["changed"]) == (None, False)
    assert [name for name in store.contents() if name.startswith("site1/2")] == []


def test_a_set_without_anything_in_it_is_not_published(store: Runner, server: Server) -> None:
    answer = store(EXPORT, allow_empty=True)
    assert (answer["changed"], answer["set"], answer["reason"]) == (
        False,
        None,
        "nothing was taken, so no set was published",
    )
    assert incomplete(store) == []


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({}, "NothingSelected", "the selection matches no instance"),
        ({"instances": ["db"]}, "NothingSelected", "no instance is called db"),
        ({"instances": ["db"], "allow_empty": True}, "NothingSelected", "no instance is called db"),
        ({"site": None}, "UsageError", "site is required"),
        ({"set": "20261123T141500Z-partial-7f3a"}, "UsageError", "needs its run_id too"),
        ({"compression": "lz4"}, "UsageError", "lz4"),
        ({"max_age": ""}, "UsageError", "max_age: '' is not a duration"),
        ({"resume_within": "soon"}, "UsageError", "resume_within: 'soon' is not a duration"),
        ({"target": "node1"}, "UsageError", "makes sense with a cluster only"),
        ({"run_id": "a b"}, "UsageError", "run_id 'a b' is not usable"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_done(
    store: Runner, server: Server, options: dict[str, Any], error: str, said: str
) -> None:
    before = store.contents()
    answer = store(EXPORT, **options)
    assert (answer["failed"], answer["error"]) == (True, error)
    assert said in answer["msg"]
    assert server.changes == []
    assert store.contents() == before


def test_check_mode_tells_the_plan_and_changes_nothing(store: Runner, server: Server) -> None:
    server.instances([described("web")])
    before = store.contents()
    answer = store(EXPORT, check=True)
    assert answer["changed"]
    assert [(one["action"], one["name"]) for one in answer["plan"]] == [("export", "web")]
    assert server.changes == []
    assert store.contents() == before
    assert not (store.home / "state").exists()


def test_check_mode_makes_no_store_either(run: Runner, server: Server) -> None:
    server.instances([described("web")])
    answer = run(EXPORT, url=server.url, check=True, store_create=True)
    assert [one["action"] for one in answer["plan"]] == ["export"]
    assert not run.store.exists()


def test_a_plan_that_refuses_something_fails_in_check_mode_too(store: Runner, server: Server) -> None:
    server.instances([described("web")])
    server.fake.on("GET", "/1.0/projects", sync([{"name": "default", "config": {"restricted": "true"}}]))
    for check in (True, False):
        answer = store(EXPORT, check=check)
        assert answer["failed"]
        assert [(one["error"], one["operation"]) for one in answer["failures"]] == [("Refused", "plan the export")]


@pytest.mark.parametrize(("options", "exported"), [({}, 1), ({"instance_only": True}, 2)])
def test_a_young_set_is_enough_unless_it_was_made_otherwise(
    store: Runner, server: Server, options: dict[str, Any], exported: int
) -> None:
    server.instances([described("web")])
    server.exports("web")
    first = store(EXPORT)
    second = store(EXPORT, max_age="1h", **options)
    assert len(server.changes) == exported
    if exported == 1:
        assert (second["changed"], second["set"]) == (False, first["set"])
        assert "is younger than max_age" in second["reason"]


def test_a_set_with_failures_is_never_young_enough(store: Runner, server: Server) -> None:
    server.instances([described("bad"), described("good")])
    server.exports("bad", refusal(500, "disk on fire"))
    server.exports("good")
    store(EXPORT)
    answer = store(EXPORT, max_age="1h", instances=["good"])
    assert (answer["changed"], answer["result"]) == (True, "complete")


DB_RECORD = "site1/*.incomplete/instances/default/db.tar.json"
WEB = ("POST", "/1.0/instances/web/backups")


def at_work(store: Runner, server: Server) -> Any:
    """An export in the middle of one archive, the other one being recorded."""
    server.instances([described("web"), described("db")])
    server.exports("db")
    server.exports("web", endless("web"))
    child = store.start(EXPORT, run_id="run-ended")
    wait_for(lambda: child.poll() is not None or (list(store.store.glob(DB_RECORD)) and server.fake.seen(*WEB)))
    assert child.poll() is None, child.stdout.read()
    return child


def test_a_run_that_was_killed_is_gone_on_with(store: Runner, server: Server) -> None:
    with at_work(store, server) as child:
        child.kill()
    (left,) = incomplete(store)
    server.exports("web")
    answer = store(EXPORT)
    assert [(one["name"], one["action"]) for one in answer["plan"]] == [("db", "reuse"), ("web", "export")]
    assert (answer["result"], answer["succeeded"], answer["resumed_from"]) == ("complete", 2, ["run-ended"])
    assert answer["set"] == left.name.removesuffix(".incomplete")
    assert len(server.fake.seen("POST", "/1.0/instances/db/backups")) == 1
    assert incomplete(store) == []
    assert not [name for name in store.contents() if name.endswith(".part")]


def test_a_run_that_is_told_to_stop_keeps_what_is_finished_and_gives_its_lease_back(
    store: Runner, server: Server
) -> None:
    with at_work(store, server) as child:
        child.terminate()
        child.stdin = None
        told, _errors = child.communicate(timeout=60)
    answer = json.loads(told)
    assert (answer["failed"], answer["error"]) == (True, "Interrupted")
    assert "received SIGTERM" in answer["msg"]
    assert "Run again" in answer["hint"]
    (left,) = incomplete(store)
    assert sorted(path.name for path in left.rglob("*.tar*")) == ["db.tar", "db.tar.json"]
    assert not (store.store / "site1" / LEASE).exists()
    assert not list((store.home / "state").rglob("*.json*"))


def test_a_second_run_at_the_same_time_is_refused(store: Runner, server: Server) -> None:
    with at_work(store, server) as child:
        answer = store(EXPORT)
        child.kill()
    assert (answer["failed"], answer["error"]) == (True, "LeaseHeld")
    assert "run run-ended is at work in site1" in answer["msg"]


def test_other_options_take_what_a_dead_run_left_anew_and_keep_one_artifact_of_each(
    store: Runner, server: Server
) -> None:
    server.instances([described("web")])
    server.exports("web")
    # As the dead run wrote it: with zstd, so under another name.
    with a_set(DirectoryStore.attach(str(store.store), create=False), off_host=False, same_device=True) as writer:
        put(writer, an_artifact("web"))
    answer = store(EXPORT)
    assert (answer["set"], answer["resumed_from"]) == (writer.head.name, ["run-1"])
    assert [one["path"] for one in manifest(store, answer)["artifacts"]] == ["instances/default/web.tar"]
    found = [path.name for path in (store.store / answer["set_path"]).rglob("web.*")]
    assert sorted(found) == ["web.tar", "web.tar.json"]


def test_another_server_under_the_same_name_is_refused_until_it_is_adopted(store: Runner, server: Server) -> None:
    stranger = replace(SERVER, name="host9", certificate_fingerprint="cd" * 32)
    with a_set(DirectoryStore.attach(str(store.store), create=False), server=stranger) as writer:
        put(writer, an_artifact("web"))
        writer.publish()
    server.instances([described("web")])
    server.exports("web")
    before = store.contents()
    answer = store(EXPORT)
    assert (answer["failed"], answer["error"], answer["entity"]) == (True, "OwnerMismatch", "site1")
    assert "belongs to the server 'host9'" in answer["msg"]
    assert store.contents() == before
    assert store(EXPORT, adopt=True)["result"] == "complete"


def test_what_a_dead_run_left_on_the_server_is_swept_and_nothing_else(store: Runner, server: Server) -> None:
    left = {"backups": [{"name": name} for name in ("incus-fleet-run-ended", "incus-fleet-elsewhere", "backup0")]}
    with at_work(store, server) as child:
        child.kill()
    server.instances([described("web", **left), described("db")])
    server.exports("web")
    server.fake.on("DELETE", "/1.0/instances/web/backups/incus-fleet-run-ended", sync({}))
    answer = store(EXPORT)
    assert answer["swept"] == ["default/web/incus-fleet-run-ended"]
    assert [change for change in server.changes if change[0] == "DELETE"] == [
        ("DELETE", "/1.0/instances/web/backups/incus-fleet-run-ended")
    ]
    (warning,) = warned(answer, "the temporary backup")
    assert "default/web/incus-fleet-elsewhere belongs to a run that is not of this store" in warning


def test_a_member_of_a_cluster_takes_and_sweeps_its_own_part_only(store: Runner, server: Server) -> None:
    # All members work under one run id: what the neighbour has on the server at this moment must not be swept.
    busy = [{"name": "incus-fleet-run-7"}]
    server.instances([described("mine", location="fake"), described("theirs", location="node2", backups=busy)])
    server.exports("mine")
    server.fake.on(
        "GET",
        "/1.0",
        sync({**hello(server), "environment": {**hello(server)["environment"], "server_clustered": True}}),
    )
    answer = store(EXPORT, run_id="run-7")
    assert [one["name"] for one in answer["plan"]] == ["mine"]
    assert answer["swept"] == []
    assert answer["set_path"].startswith("site1/fake/")


def hello(server: Server) -> dict[str, Any]:
    told: dict[str, Any] = server.fake._hello()
    return told


def test_a_state_directory_that_cannot_be_written_is_a_warning(store: Runner, server: Server) -> None:
    server.instances([described("web")])
    server.exports("web")
    (store.home / "file").write_text("not a directory")
    answer = store(EXPORT, state_directory=str(store.home / "file"))
    assert answer["result"] == "complete"
    assert len(warned(answer, "progress is not shown")) == 1


def test_a_store_beside_the_server_is_recorded_and_told(store: Runner, server: Server) -> None:
    server.instances([described("web")])
    server.exports("web")
    answer = store(EXPORT)
    assert warned(answer, "this backup dies with the server")
    head = manifest(store, answer)["set"]
    assert (head["off_host"], head["same_device"]) == (False, True)


def test_a_store_within_the_servers_directory_is_refused(run: Runner, server: Server) -> None:
    run.store = run.home / "incus/backups/store"
    run.store.parent.mkdir()
    DirectoryStore.attach(str(run.store), create=True)
    answer = run(EXPORT, url=server.url)
    assert (answer["failed"], answer["error"], answer["operation"]) == (True, "StoreError", "check the store's place")
    assert server.changes == []
