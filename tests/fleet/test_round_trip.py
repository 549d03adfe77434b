# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Out and back: everything is as it was, by the guests' own word and that of the incus command."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from fleetkit.ansible import Result
from fleetkit.fleet import VERSIONS, Fleet
from fleetkit.guests import fill, look, make_guest
from fleetkit.hosts import Host, until

# Far enough away not to come true while this runs.
EXPIRY = "2999-05-06T07:08:09Z"
WEB, IDLE, LOUD, DB = "default/web", "default/idle", "default/loud", "shop/db"
GUESTS = (WEB, IDLE, LOUD, DB)
STILL = "default/still"  # never starts in here: a start makes its backup.yaml true, whatever the restore did
# What Incus makes up anew by itself.
PASSING = ("volatile.last_state.", "volatile.eth0.host_name", "volatile.eth0.last_state", "volatile.eth0.name")


@dataclass
class Journey:
    """A server's instances before their backup and after their restore."""

    fleet: Fleet
    exported: Result = field(default_factory=lambda: Result("", {}))
    imported: Result = field(default_factory=lambda: Result("", {}))
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    after: dict[str, dict[str, Any]] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)


def prepare(host: Host) -> dict[str, str]:
    """Guests of all sorts; returns what each says of its contents."""
    host.sh(
        "incus project create shop -c features.images=false -c features.profiles=true\n"
        "incus profile device add default root disk path=/ pool=default --project shop\n"
        "incus profile create fast --project shop\n"
        "incus profile set fast limits.cpu=1 'user.note=of the profile' --project shop\n"
    )
    make_guest(host, "web", running=True, config={"user.note": "two words, and = too", "boot.autostart": "true"})
    make_guest(host, "idle", pool="plain", running=True)
    make_guest(host, "loud", pool="plain", running=True)
    make_guest(host, "db", project="shop", running=True)
    host.incus("profile", "add", "db", "fast", project="shop")
    contents = {}
    for guest in GUESTS:
        project, name = guest.split("/")
        fill(host, name, project)
        contents[guest] = look(host, name, project)
        if guest == WEB:
            host.incus("snapshot", "create", "web", "forever")
            host.incus("snapshot", "create", "web", "expiring")
            host.incus("exec", "web", "--", "sync")
        host.incus("exec", name, "--", "sync", project=project)
    make_guest(host, "still")
    host.incus("snapshot", "create", "still", "one")
    host.incus("snapshot", "create", "still", "two")
    body = json.dumps({"expires_at": EXPIRY})
    host.run("incus", "query", "--wait", "-X", "PUT", "-d", body, "/1.0/instances/web/snapshots/expiring")
    host.incus("stop", "--force", "idle")
    host.incus("stop", "--force", "db", project="shop")
    return contents


def travel(fleet: Fleet, journey: Journey, **options: Any) -> None:
    """Back everything up, delete it, and restore it."""
    journey.exported = fleet.export(**options)
    journey.before = fleet.host.instances()
    for guest in journey.before:
        project, name = guest.split("/")
        fleet.host.incus("delete", "--force", name, project=project)
    journey.imported = fleet.do("incus_import")
    journey.after = fleet.host.instances()


@pytest.fixture(scope="module", params=list(VERSIONS))
def journey(request: pytest.FixtureRequest, fleet_on: Callable[[str], Fleet]) -> Iterator[Journey]:
    fleet = fleet_on(request.param)
    fleet.host.reset()
    there_and_back = Journey(fleet, contents=prepare(fleet.host))
    travel(fleet, there_and_back)
    yield there_and_back
    fleet.host.reset()


def told(instance: dict[str, Any]) -> dict[str, Any]:
    """What makes an instance what it is, without what Incus makes up at each start."""
    config = {key: value for key, value in instance["config"].items() if not key.startswith(PASSING)}
    keys = (
        "name",
        "project",
        "description",
        "profiles",
        "devices",
        "expanded_devices",
        "type",
        "ephemeral",
        "stateful",
    )
    return {**{key: instance.get(key) for key in keys}, "config": config}


def snapshots(instance: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Creation and expiry by name, cut to whole seconds."""
    return {
        item["name"]: (item["created_at"][:19], item["expires_at"][:19]) for item in instance.get("snapshots") or []
    }


@pytest.mark.parametrize("guest", GUESTS)
def test_the_guest_finds_its_own_files_bit_for_bit(journey, guest):
    project, name = guest.split("/")
    host = journey.fleet.host
    running = journey.after[guest]["status"] == "Running"
    if not running:
        host.incus("start", name, project=project)
    try:
        assert look(host, name, project) == journey.contents[guest]
    finally:
        if not running:
            host.incus("stop", "--force", name, project=project)


def test_extended_attributes_links_and_holes_are_part_of_what_is_compared(journey):
    seen = journey.contents[WEB]
    assert 'user.fleet="kept"' in seen
    assert "./linked|regular file|640|12|34|2|" in seen
    assert "'./dangling' -> '/nowhere/at/all'" in seen
    assert "./setuid|regular file|4755|1000|1000|" in seen


def test_what_ran_runs_and_what_was_stopped_is_stopped(journey):
    states = {guest: instance["status"] for guest, instance in journey.after.items()}
    assert states == {WEB: "Running", IDLE: "Stopped", LOUD: "Running", DB: "Stopped", STILL: "Stopped"}
    assert states == {guest: instance["status"] for guest, instance in journey.before.items()}


@pytest.mark.parametrize("guest", GUESTS)
def test_configuration_devices_and_profiles_are_the_same(journey, guest):
    assert told(journey.after[guest]) == told(journey.before[guest])


def test_snapshots_come_back_with_their_expiry_and_those_without_have_none(journey):
    assert snapshots(journey.after[WEB]) == snapshots(journey.before[WEB])
    assert snapshots(journey.after[WEB])["expiring"][1] == EXPIRY[:19]
    assert snapshots(journey.after[WEB])["forever"][1].startswith("0001-01-01")


def test_pools_are_the_same(journey):
    pools = {guest: instance["expanded_devices"]["root"]["pool"] for guest, instance in journey.after.items()}
    assert pools == {WEB: "default", IDLE: "plain", LOUD: "plain", DB: "default", STILL: "default"}


def test_nothing_of_ours_is_left_on_the_server(journey):
    """Neither after the export (``before`` was taken then) nor after the import."""
    for guest, instance in [*journey.before.items(), *journey.after.items()]:
        assert not [key for key in instance["config"] if "incus-fleet" in key], guest
        assert not instance.get("backups"), guest
    assert journey.fleet.host.sh("find /var/lib/incus/backups -type f") == ""


def test_the_set_says_how_it_was_taken_and_what_that_is_worth(journey):
    by_name = {f"{item['project']}/{item['name']}": item for item in journey.exported["artifacts"]}
    worth = {name: (item["method"], item["guarantee"]) for name, item in by_name.items()}
    assert worth == {
        WEB: ("snapshot", "crash"),
        IDLE: ("cold", "application"),
        LOUD: ("live", "none"),
        DB: ("cold", "application"),
        STILL: ("cold", "application"),
    }
    transport = "direct" if journey.fleet.host.streams else "staged"
    assert {item["transport"] for item in by_name.values()} == {transport}


def test_the_manifest_has_what_a_restore_needs(journey):
    manifest = journey.fleet.manifest(journey.exported)
    artifacts = {f"{item['project']}/{item['name']}": item for item in manifest["artifacts"]}
    assert sorted(artifacts) == sorted([*GUESTS, STILL])
    assert artifacts[DB]["dependencies"]["profiles"] == ["default", "fast"]
    assert artifacts[WEB]["dependencies"]["networks"] == ["incusbr0"]
    assert {item["name"]: item["expires_at"] for item in artifacts[WEB]["snapshots"]} == {
        "expiring": EXPIRY,
        "forever": None,
    }
    assert artifacts[WEB]["uuid"] == journey.before[WEB]["config"]["volatile.uuid"]
    assert artifacts[WEB]["power_state"] == "Running"


def test_sizes_and_checksums_are_those_that_other_tools_find(journey):
    host, directory = journey.fleet.host, f"{journey.fleet.store}/{journey.exported['set_path']}"
    for artifact in journey.fleet.manifest(journey.exported)["artifacts"]:
        path = f"{directory}/{artifact['path']}"
        stored = host.sh('sha256sum <"$1" && stat -c %s "$1"', path).split()
        assert stored == [artifact["stored_sha256"], "-", str(artifact["stored_bytes"])]
        plain = host.sh('zstd -dc "$1" | sha256sum && zstd -dc "$1" | wc -c', path).split()
        assert plain == [artifact["plain_sha256"], "-", str(artifact["plain_bytes"])]
        assert "backup/index.yaml" in host.sh('tar -tf "$1"', path).splitlines()


def test_nobody_but_the_owner_reads_the_store(journey):
    listed = journey.fleet.host.sh(f"find {journey.fleet.store} -printf '%y %m\\n' | sort -u").splitlines()
    assert listed == ["d 700", "f 600"]


def test_a_pool_can_be_recovered_from_what_lies_on_it_after_the_restore(journey):
    """Comes last here: it makes Incus forget the instance.  `recover` refuses a backup.yaml that is not true."""
    host = journey.fleet.host
    before = host.instances()[STILL]
    for table in ("instances", "storage_volumes"):
        host.run("incus", "admin", "sql", "global", f"DELETE FROM {table} WHERE name = 'still'")
    assert STILL not in host.instances()
    body = json.dumps({"pools": [{"name": "default"}, {"name": "plain"}]})
    asked = ("incus", "query", "-X", "POST", "-d", body)
    found = json.loads(host.run(*asked, "/internal/recover/validate").stdout)
    assert not found["DependencyErrors"]
    unknown = [(item["name"], item["snapshotCount"]) for item in found["UnknownVolumes"]]
    assert unknown == [("still", 2)]
    host.run(*asked, "/internal/recover/import")
    again = until(lambda: host.instances().get(STILL), "the recovery")
    assert sorted(snapshots(again)) == sorted(snapshots(before))
    assert again["config"]["volatile.uuid"] == before["config"]["volatile.uuid"]
    assert not [key for key in again["config"] if "incus-fleet" in key]
