# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The module on a server that is strict about what it is asked; what real servers do is tested on the lab."""

from __future__ import annotations

import hashlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import LEASE
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import Exchange, refusal, sync
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import (
    described,
    snapshot,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    a_set,
    an_artifact,
    put,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import (
    Runner,
    Server,
    an_archive,
    streamed,
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


def cut_at_a_member(content: bytes) -> bytes:
    """The archive without its end marker, which looks whole to many tools."""
    return content.rstrip(b"\0")[:-1].rsplit(b"\0" * 512, 1)[0] if False else content[: 512 * 2]


@pytest.mark.parametrize(
    ("content", "whole", "error"),
    [
        pytest.param(an_archive("web"), False, "StreamBroken", id="the daemon died"),
        pytest.param(cut_at_a_member(an_archive("web")), True, "ArchiveInvalid", id="a clean end, but no end marker"),
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


def dead_set(run: Runner, *names: str, **changes: Any) -> str:
    """What a run left that died: artifacts with records, in a set that is not published."""
    store = DirectoryStore.attach(str(run.store), create=False)
    with a_set(store, server=SERVER, run_id="run-dead", off_host=False, same_device=True) as writer:
        for name in names:
            put(writer, an_artifact(name, **changes))
        return writer.head.name


def test_a_dead_runs_set_is_gone_on_with(store: Runner, server: Server) -> None:
    server.instances([described("web"), described("db")])
    server.exports("web", refusal(500, "the daemon is restarting"))
    server.exports("db")
    # The lease of a run that was killed is not in the way of the next one.
    child = hang(store, server)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    (left,) = incomplete(store)
    assert [path.name for path in left.rglob("*.tar")] == ["db.tar"]
    server.exports("web")
    answer = store(EXPORT)
    assert [(one["name"], one["action"]) for one in answer["plan"]] == [("db", "reuse"), ("web", "export")]
    assert (answer["result"], answer["succeeded"]) == ("complete", 2)
    assert answer["set"] == left.name.removesuffix(".incomplete")
    assert answer["resumed_from"] == ["run-killed"]
    assert server.changes.count(("POST", "/1.0/instances/db/backups")) == 1
    assert incomplete(store) == []


def hang(store: Runner, server: Server) -> Any:
    """An export whose second archive never ends, once the first is recorded."""
    server.exports("web", endless)
    child = store.start(EXPORT, parallel=1, run_id="run-killed", stall_timeout=60)
    wait_for(lambda: list(store.store.glob("*/*/instances/default/db.tar.json")) and server.fake.seen(*WEB))
    return child


WEB = ("POST", "/1.0/instances/web/backups")


def endless(exchange: Exchange) -> None:
    """An archive that begins well and then trickles until the client goes away."""
    exchange.read_body()
    exchange.head(200, Content_Type="application/octet-stream", Transfer_Encoding="chunked")
    exchange.chunk(an_archive("web", size=10_000_000)[:8192])
    while True:
        exchange.chunk(b"x" * 512)


def test_a_stop_leaves_what_is_finished_and_says_so(store: Runner, server: Server) -> None:
    server.instances([described("web"), described("db")])
    server.exports("db")
    child = hang(store, server)
    child.send_signal(signal.SIGTERM)
    told, _errors = child.communicate(timeout=60)
    answer = json.loads(told)
    assert (answer["failed"], answer["error"]) == (True, "Interrupted")
    assert "received SIGTERM" in answer["msg"]
    assert "Run again" in answer["msg"]
    (left,) = incomplete(store)
    assert sorted(path.name for path in left.rglob("*.tar*")) == ["db.tar", "db.tar.json"]
    assert not (store.store / "site1" / LEASE).exists()
    assert not list((store.home / "state").rglob("*.json*"))
