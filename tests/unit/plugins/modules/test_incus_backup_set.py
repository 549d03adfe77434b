# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import LEASE
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import described
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    SERVER,
    a_set,
    an_artifact,
    put,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import Runner, Server

SET = "incus_backup_set"
RUN = "run-1"


@pytest.fixture
def store(run: Runner, server: Server) -> Runner:
    """A runner with a store, that talks to the server."""
    DirectoryStore.attach(str(run.store), create=True)
    run.url = server.url
    server.instances([described("web")])
    server.exports("web")
    return run


def export(store: Runner, **options: Any) -> dict[str, Any]:
    return store("incus_export", run_id=RUN, compression="none", state_directory=str(store.home / "state"), **options)


def directories(store: Runner) -> list[str]:
    """The sets in the site, as they lie there."""
    return sorted(path.name for path in (store.store / "site1").iterdir() if path.is_dir())


def test_a_set_is_opened_filled_and_published_by_three_modules(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    assert (opened["changed"], opened["state"], opened["run_id"], opened["resumed_from"]) == (
        True,
        "incomplete",
        RUN,
        [],
    )
    filled = export(store, set=opened["set"])
    assert (filled["set"], filled["set_path"], filled["succeeded"]) == (opened["set"], None, 1)
    assert directories(store) == [f"{opened['set']}.incomplete"]
    published = store(SET, run_id=RUN, state="published")
    assert (published["changed"], published["state"], published["set"]) == (True, "complete", opened["set"])
    assert published["succeeded"] == 1
    assert directories(store) == [opened["set"]]
    assert not (store.store / "site1" / LEASE).exists()


def test_opening_publishing_and_aborting_again_is_no_change(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    again = store(SET, run_id=RUN)
    assert (again["changed"], again["set"]) == (False, opened["set"])
    export(store, set=opened["set"])
    store(SET, run_id=RUN, state="published")
    for named in ({}, {"set": opened["set"]}):
        again = store(SET, run_id=RUN, state="published", **named)
        assert (again["changed"], again["set"], again["state"]) == (False, opened["set"], "complete")
    other = store(SET, run_id="run-2")
    assert store(SET, run_id="run-2", state="aborted")["changed"]
    for named in ({}, {"set": other["set"]}):
        again = store(SET, run_id="run-2", state="aborted", **named)
        assert (again["changed"], again["state"]) == (False, "absent")


def test_an_aborted_set_is_gone_with_all_that_was_in_it(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    export(store, set=opened["set"])
    aborted = store(SET, run_id=RUN, state="aborted")
    assert (aborted["changed"], aborted["set"], aborted["state"]) == (True, opened["set"], "absent")
    assert directories(store) == []
    assert not (store.store / "site1" / LEASE).exists()


def test_a_published_set_is_never_aborted(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    export(store, set=opened["set"])
    store(SET, run_id=RUN, state="published")
    for named in ({}, {"set": opened["set"]}):
        answer = store(SET, run_id=RUN, state="aborted", **named)
        assert (answer["failed"], answer["error"]) == (True, "SetInvalid")
        assert "is published and is not aborted" in answer["msg"]
    assert directories(store) == [opened["set"]]


def test_a_suspended_set_waits_for_the_next_run_without_a_lease(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    export(store, set=opened["set"])
    assert store(SET, run_id="run-2")["error"] == "LeaseHeld"
    assert store(SET, run_id=RUN, state="suspended")["changed"]
    assert not store(SET, run_id=RUN, state="suspended")["changed"]
    resumed = store(SET, run_id="run-2")
    assert (resumed["set"], resumed["resumed_from"]) == (opened["set"], [RUN])
    published = store(SET, run_id="run-2", state="published")
    assert (published["state"], published["succeeded"]) == ("complete", 1)


def test_a_run_finds_its_set_also_when_its_lease_has_lapsed(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    export(store, set=opened["set"])
    (store.store / "site1" / LEASE).unlink()
    assert store(SET, run_id=RUN, state="published")["set"] == opened["set"]


def test_an_empty_set_is_not_published(store: Runner) -> None:
    store(SET, run_id=RUN)
    answer = store(SET, run_id=RUN, state="published")
    assert (answer["failed"], answer["operation"]) == (True, "publish the set")


@pytest.mark.parametrize("state", ["published", "suspended", "aborted"])
def test_a_run_must_be_named_to_end_a_set(store: Runner, state: str) -> None:
    answer = store(SET, state=state)
    assert (answer["failed"], answer["error"]) == (True, "UsageError")
    assert "run_id is required" in answer["msg"] or "needs its run_id" in answer["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_a_set_that_is_not_there_cannot_be_published(store: Runner, check: bool) -> None:
    for named in ({}, {"set": "20261123T141500Z-partial-7f3a"}):
        answer = store(SET, run_id=RUN, state="published", check=check, **named)
        assert (answer["failed"], answer["error"]) == (True, "SetInvalid")


def test_another_runs_set_is_not_to_be_touched(store: Runner) -> None:
    opened = store(SET, run_id=RUN)
    export(store, set=opened["set"])
    store(SET, run_id=RUN, state="suspended")
    for state in ("published", "aborted"):
        answer = store(SET, run_id="run-2", set=opened["set"], state=state)
        assert (answer["failed"], answer["error"]) == (True, "SetInvalid")
        assert f"belongs to run {RUN}" in answer["msg"]
    assert directories(store) == [f"{opened['set']}.incomplete"]


def test_dead_sets_go_once_a_newer_one_is_published(store: Runner) -> None:
    with a_set(DirectoryStore.attach(str(store.store), create=False), run_id="run-0") as writer:
        put(writer, an_artifact("web"))
    dead = store.store / "site1" / f"{writer.head.name}.incomplete"
    old = dead.rename(dead.with_name("20200101T000000Z-partial-0000.incomplete"))
    head = json.loads((old / "set.json").read_text())
    (old / "set.json").write_text(json.dumps({**head, "name": "20200101T000000Z-partial-0000"}))
    opened = store(SET, run_id=RUN)
    assert opened["resumed_from"] == []
    export(store, set=opened["set"])
    assert len(directories(store)) == 2
    store(SET, run_id=RUN, state="published")
    assert directories(store) == [opened["set"]]


def test_check_mode_changes_nothing_in_any_state(store: Runner, server: Server) -> None:
    before = store.contents()
    would = store(SET, run_id=RUN, check=True)
    assert (would["changed"], would["set"], would["state"]) == (True, None, "would be opened")
    assert store.contents() == before
    opened = store(SET, run_id=RUN)
    export(store, set=opened["set"])
    before = store.contents()
    for state, told in (
        ("published", "would be published"),
        ("suspended", "would be suspended"),
        ("aborted", "would be aborted"),
    ):
        would = store(SET, run_id=RUN, state=state, check=True)
        assert (would["changed"], would["set"], would["state"]) == (True, opened["set"], told)
        assert store.contents() == before


def test_check_mode_makes_no_store_either(run: Runner, server: Server) -> None:
    would = run(SET, url=server.url, store_create=True, check=True)
    assert would["state"] == "would be opened"
    assert not run.store.exists()


def test_a_new_store_is_made_only_where_that_was_asked_for(run: Runner, server: Server) -> None:
    answer = run(SET, url=server.url)
    assert (answer["failed"], answer["operation"]) == (True, "open the store")
    assert "store_create=true" in answer["hint"]
    assert not run.store.exists()
    assert run(SET, url=server.url, store_create=True)["changed"]


def test_the_server_is_remembered_as_the_sites_owner(store: Runner) -> None:
    store(SET, run_id=RUN)
    owner = json.loads((store.store / "site1/site.json").read_text())
    assert (owner["site"], owner["server_name"], owner["fingerprints"]) == (
        "site1",
        "fake",
        [SERVER.certificate_fingerprint],
    )
