# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import MARKER, DirectoryStore
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    a_failure,
    a_set,
    an_artifact,
    put,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import Runner


@pytest.fixture
def store(run: Runner) -> DirectoryStore:
    return DirectoryStore.attach(str(run.store), create=True)


def published(
    store: DirectoryStore, *names: str, failed: str = "", directory: str = "site1", run_id: str = "run-1"
) -> str:
    """A published set with artifacts of these names."""
    with a_set(store, directory, run_id=run_id) as writer:
        for name in names:
            put(writer, an_artifact(name))
        if failed:
            writer.note_failures([a_failure(failed)])
        writer.publish()
        return writer.head.name


def left_open(store: DirectoryStore) -> str:
    """A set whose run died."""
    with a_set(store, run_id="run-2") as writer:
        put(writer, an_artifact("web"))
        return writer.head.name


def test_sets_and_recovery_points_are_told(run: Runner, store: DirectoryStore) -> None:
    name = published(store, "web", "web-prod")
    answer = run("incus_backup_info")
    assert not answer["changed"]
    (found,) = answer["sets"]
    assert found == answer["newest"]
    assert {
        key: found[key] for key in ("set", "set_path", "site", "member", "kind", "result", "run_id", "artifacts")
    } == {
        "set": name,
        "set_path": f"site1/{name}",
        "site": "site1",
        "member": None,
        "kind": "partial",
        "result": "complete",
        "run_id": "run-1",
        "artifacts": 2,
    }
    assert sorted((point["set"], point["name"], point["guarantee"]) for point in answer["recovery_points"]) == [
        (name, "web", "crash"),
        (name, "web-prod", "crash"),
    ]
    assert (answer["incomplete"], answer["broken"]) == ([], [])


def test_an_empty_store_has_nothing_to_tell(run: Runner, store: DirectoryStore) -> None:
    answer = run("incus_backup_info")
    keys = ("sets", "newest", "recovery_points", "incomplete", "broken")
    assert [answer[key] for key in keys] == [[], None, [], [], []]


def test_it_needs_no_server_and_no_rights_to_one(run: Runner, store: DirectoryStore) -> None:
    published(store, "web")
    assert run("incus_backup_info", env={"INCUS_SOCKET": "/nonexistent"})["sets"]


def test_one_instances_recovery_points_are_found_by_its_exact_name(run: Runner, store: DirectoryStore) -> None:
    published(store, "web-prod")
    name = published(store, "web", "web-prod")
    answer = run("incus_backup_info", project="default", name="web")
    assert [point["name"] for point in answer["recovery_points"]] == ["web"]
    assert [found["set"] for found in answer["sets"]] == [name]
    assert run("incus_backup_info", project="shop", name="web")["sets"] == []


def test_all_sites_are_told_where_none_is_named(run: Runner, store: DirectoryStore) -> None:
    published(store, "web", directory="site1")
    published(store, "web", directory="site2")
    assert {found["site"] for found in run("incus_backup_info", site=None)["sets"]} == {"site1", "site2"}
    assert {found["site"] for found in run("incus_backup_info", site="site2")["sets"]} == {"site2"}


def test_a_set_with_failures_is_told_as_such_and_is_not_the_newest_complete_one(
    run: Runner, store: DirectoryStore
) -> None:
    good = published(store, "web")
    bad = published(store, "web", failed="db")
    answer = run("incus_backup_info")
    assert answer["newest"]["set"] == good
    (told,) = (found for found in answer["sets"] if found["set"] == bad)
    assert told["result"] == "with_failures"
    assert [failure["name"] for failure in told["failures"]] == ["db"]
    assert [found["set"] for found in run("incus_backup_info", result="with_failures")["sets"]] == [bad]
    assert run("incus_backup_info", result="with_failures")["newest"] is None


def test_sets_are_picked_by_run_time_and_number(run: Runner, store: DirectoryStore) -> None:
    for run_id in ("run-1", "run-2", "run-3"):
        published(store, "web", run_id=run_id)
    assert [found["run_id"] for found in run("incus_backup_info", run_id="run-2")["sets"]] == ["run-2"]
    newest = run("incus_backup_info", limit=2, after="2000-01-01", kind="partial")
    assert (len(newest["sets"]), len(newest["recovery_points"])) == (2, 2)
    assert run("incus_backup_info", before="2000-01-01")["sets"] == []
    assert run("incus_backup_info", kind="full")["sets"] == []


def test_an_unfinished_set_is_told_apart_and_never_counts(run: Runner, store: DirectoryStore) -> None:
    name = left_open(store)
    answer = run("incus_backup_info")
    assert (answer["sets"], answer["recovery_points"], answer["newest"]) == ([], [], None)
    (told,) = answer["incomplete"]
    assert (told["set"], told["run_id"], told["alive"]) == (name, "run-2", False)


def test_a_set_that_is_being_made_is_told_to_be_alive(run: Runner, store: DirectoryStore) -> None:
    with a_set(store):
        (told,) = run("incus_backup_info")["incomplete"]
    assert told["alive"] is True


def test_a_broken_set_hides_no_other(run: Runner, store: DirectoryStore) -> None:
    good, bad = published(store, "web"), published(store, "web")
    (run.store / "site1" / bad / "manifest.json").write_text("{")
    answer = run("incus_backup_info")
    assert [found["set"] for found in answer["sets"]] == [good]
    (told,) = answer["broken"]
    assert (told["set_path"], told["error"]) == (f"site1/{bad}", "SetInvalid")


def test_a_set_of_a_later_release_says_so(run: Runner, store: DirectoryStore) -> None:
    name = published(store, "web")
    path = run.store / "site1" / name / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    (told,) = run("incus_backup_info")["broken"]
    assert "has format 99, newer than this release knows" in told["msg"]
    assert told["hint"] == "Update the collection"


def test_a_directory_without_the_marker_is_no_store(run: Runner) -> None:
    run.store.mkdir()
    answer = run("incus_backup_info")
    assert (answer["failed"], answer["error"], answer["operation"]) == (True, "StoreError", "open the store")
    assert "Is its file system mounted?" in answer["hint"]
    assert answer["hint"].rstrip(".") in answer["msg"]


def test_a_store_of_a_later_release_says_so(run: Runner, store: DirectoryStore) -> None:
    (run.store / MARKER).write_text('{"kind": "directory", "format": 99}')
    answer = run("incus_backup_info")
    assert (answer["failed"], answer["error"], answer["hint"]) == (True, "SetInvalid", "Update the collection")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"limit": 0}, "limit must be at least 1"),
        ({"before": "yesterday"}, "before: 'yesterday' is not a time"),
        ({"after": ""}, "after: '' is not a time"),
        ({"site": "../site1"}, "site '../site1' is not usable"),
        ({"site": ""}, "site '' is not usable"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(
    run: Runner, store: DirectoryStore, options: dict[str, object], said: str
) -> None:
    answer = run("incus_backup_info", **options)
    assert (answer["failed"], answer["error"]) == (True, "UsageError")
    assert said in answer["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_looking_changes_nothing(run: Runner, store: DirectoryStore, check: bool) -> None:
    published(store, "web")
    left_open(store)
    before = run.contents()
    run("incus_backup_info", check=check)
    assert run.contents() == before
    assert any(INCOMPLETE_SUFFIX in name for name in before)


def test_a_large_catalogue_is_cut_to_what_a_controller_can_hold(run: Runner, store: DirectoryStore) -> None:
    name = published(store, "web")
    path = run.store / "site1" / name / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "artifacts": manifest["artifacts"] * 400}))
    answer = run("incus_backup_info")
    answer.pop("invocation", None)  # older releases of Ansible add it
    assert len(json.dumps(answer)) <= 65 * 1024
    assert answer["truncated"] == ["recovery_points"]
    assert answer["sets"][0]["artifacts"] == 400
