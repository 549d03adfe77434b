# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an export takes, in which form, and what it leaves on the server meanwhile and afterwards."""

from __future__ import annotations

import json

import pytest

from fleetkit.ansible import task
from fleetkit.guests import fill, look, make_guest, weigh
from fleetkit.hosts import BACKUPS, until

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("options", "suffix", "test"),
    [
        ({"optimized_storage": True}, ".tar.zst", "zstd -dc"),
        ({"compression": "gzip"}, ".tar.gz", "gzip -dc"),
        ({"compression": "none"}, ".tar", "cat"),
    ],
    ids=["optimized", "gzip", "none"],
)
def test_every_form_goes_out_and_back(both, options, suffix, test):
    make_guest(both.host, "web", running=True)
    fill(both.host, "web")
    seen = look(both.host, "web")
    both.host.incus("snapshot", "create", "web", "one")
    exported, deleted, imported = both.play(
        both.task("incus_export", store_create=True, **options),
        task("ansible.builtin.command", argv=["incus", "delete", "--force", "web"]),
        both.task("incus_import"),
    )
    assert (exported.ok, deleted.ok, imported.ok) == (True, True, True), (exported, imported)
    path = both.artifact(exported, "web")
    assert path.endswith("/web" + suffix)
    assert "backup/index.yaml" in both.host.sh(f'{test} "$1" | tar -t', path).splitlines()
    assert exported["artifacts"][0]["optimized"] is options.get("optimized_storage", False)
    assert look(both.host, "web") == seen
    assert [item["name"] for item in both.host.instances()["default/web"]["snapshots"]] == ["one"]


def test_without_snapshots_none_is_in_the_archive_and_none_comes_back(both):
    make_guest(both.host, "web")
    both.host.incus("snapshot", "create", "web", "one")
    exported, _deleted, imported = both.play(
        both.task("incus_export", store_create=True, instance_only=True),
        task("ansible.builtin.command", argv=["incus", "delete", "--force", "web"]),
        both.task("incus_import"),
    )
    assert imported.ok, imported
    assert both.manifest(exported)["artifacts"][0]["snapshots"] == []
    members = both.host.sh('tar -tf "$1"', both.artifact(exported, "web")).splitlines()
    assert not [member for member in members if "snapshots" in member]
    assert not both.host.instances()["default/web"]["snapshots"]


def test_a_driver_without_optimized_format_is_named_and_the_others_are_taken(fleet):
    make_guest(fleet.host, "plainly", pool="plain")
    make_guest(fleet.host, "quick")
    refused, fallen_back = fleet.play(
        fleet.task("incus_export", store_create=True, optimized_storage=True),
        fleet.task("incus_export", optimized_storage=True, optimized_fallback=True),
    )
    assert not refused.ok
    assert [item["name"] for item in refused["artifacts"]] == ["quick"]
    [failure] = refused["failures"]
    assert (failure["name"], failure["error"], failure["entity"]) == ("plainly", "Refused", "default/plainly")
    assert "dir" in failure["message"]
    assert "optimized_fallback" in failure["hint"]
    assert refused["result"] == "with_failures"
    assert fallen_back.ok, fallen_back
    records = {item["name"]: item for item in fleet.manifest(fallen_back)["artifacts"]}
    assert (records["plainly"]["optimized"], records["quick"]["optimized"]) == (False, True)
    assert "has no optimized format" in records["plainly"]["warnings"][0]


def test_a_server_that_streams_stages_not_one_byte(fleet):
    """What the server stages goes to a file system that has no room for it."""
    make_guest(fleet.host, "web")
    weigh(fleet.host, "web", 4)
    fleet.host.run("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", BACKUPS)
    exported = fleet.export()
    assert exported["artifacts"][0]["transport"] == "direct"
    assert exported["plain_bytes"] > 4 * MIB
    assert fleet.host.sh(f"find {BACKUPS} -type f") == ""


def test_a_server_that_cannot_stage_is_told_in_its_own_words(staging):
    make_guest(staging.host, "web")
    staging.host.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", BACKUPS)
    failed = staging.run("incus_export", store_create=True)
    assert not failed.ok
    [failure] = failed["failures"]
    assert (failure["operation"], failure["entity"]) == ("create backup", "default/web")
    assert "read-only file system" in failure["server_said"]
    assert failed["set"] is None
    assert staging.open_sets() == []
    staging.host.run("umount", BACKUPS)
    assert staging.nothing_left()


def test_a_staged_backup_is_recognisable_expires_and_goes_with_the_run(staging):
    make_guest(staging.host, "web")
    weigh(staging.host, "web", 6)
    running = staging.start(staging.task("incus_export", store_create=True, run_id="tonight", rate_limit=2 * MIB))
    staging.until_mid_stream("web")
    [name] = staging.host.backups_of("web")
    staged = staging.host.api(f"/1.0/instances/web/backups/{name}")
    assert name.startswith("incus-fleet-tonight")
    hours = staging.host.sh('echo $(( ($(date -d "$1" +%s) - $(date +%s)) / 3600 ))', staged["expires_at"])
    assert 1 <= int(hours) <= 48
    assert running.one().ok
    assert staging.nothing_left()


def test_only_staged_backups_of_dead_runs_are_swept(staging):
    make_guest(staging.host, "web")
    weigh(staging.host, "web", 8)
    for name in ("backup0", "incus-fleet-x", "incus-fleet_tonight"):
        body = json.dumps({"name": name, "compression_algorithm": "none", "expires_at": "2999-01-01T00:00:00Z"})
        staging.host.run("incus", "query", "--wait", "-X", "POST", "-d", body, "/1.0/instances/web/backups")
    running = staging.start(staging.task("incus_export", store_create=True, run_id="tonight", rate_limit=MIB))
    staging.until_mid_stream("web")
    staging.kill("KILL")
    running.wait()
    left = set(staging.host.backups_of("web")) - {"backup0", "incus-fleet-x", "incus-fleet_tonight"}
    assert len(left) == 1
    again = staging.export()
    assert again["swept"] == [f"default/web/{left.pop()}"]
    assert sorted(staging.host.backups_of("web")) == ["backup0", "incus-fleet-x", "incus-fleet_tonight"]
    assert any("incus-fleet-x" in words for words in again.words)


def requests(host, during) -> list[str]:
    """The requests (method and path) that the server itself saw meanwhile."""
    log = "/root/monitor.log"
    host.sh(f"incus monitor --type=logging --format=json >{log} 2>&1 & echo $! >/root/monitor.pid")
    try:
        until(lambda: host.succeeds(f"incus query /1.0 >/dev/null; test -s {log}"), "the server's log")
        host.sh(f": >{log}")
        during()
    finally:
        host.sh("kill $(cat /root/monitor.pid); rm /root/monitor.pid")
    found = []
    for line in host.sh(f"cat {log}; rm {log}").splitlines():
        context = json.loads(line).get("metadata", {}).get("context", {}) if line.startswith("{") else {}
        if "method" in context and "url" in context:
            found.append(f"{context['method']} {context['url'].partition('?')[0]}")
    return found


def test_the_number_of_requests_does_not_grow_beyond_two_for_each_instance(fleet):
    for name in ("one", "two", "three"):
        make_guest(fleet.host, name)
    seen = requests(fleet.host, fleet.export)
    for name in ("one", "two", "three"):
        assert len([item for item in seen if item.rpartition("/1.0/instances/")[2].startswith(name)]) == 2, seen
    shared = [item for item in seen if "/1.0/instances/" not in item]
    assert 1 <= len(shared) <= 5, seen


def test_names_are_exact_and_globs_and_queries_narrow_down(fleet):
    for name in ("web", "web-prod", "db"):
        make_guest(fleet.host, name, config={"user.tier": "gold" if name == "db" else "tin"})

    def told(result):
        return sorted(item["name"] for item in result["artifacts"])

    exact, project, globbed, queried = fleet.play(
        fleet.task("incus_export", store_create=True, instances=["web"]),
        fleet.task("incus_export", instances=["default/db", "web"]),
        fleet.task("incus_export", include=["web*"], exclude=["default/*-prod"]),
        fleet.task("incus_export", query="config.\"user.tier\" == 'gold'"),
    )
    assert told(exact) == ["web"]
    assert told(project) == ["db", "web"]
    assert told(globbed) == ["web"]
    assert told(queried) == ["db"]


def test_a_name_that_is_not_there_is_an_error_and_nothing_is_taken(fleet):
    make_guest(fleet.host, "web-prod")
    unknown, none, fine = fleet.play(
        fleet.task("incus_export", store_create=True, instances=["web"], allow_empty=True),
        fleet.task("incus_export", include=["nothing*"]),
        fleet.task("incus_export", include=["nothing*"], allow_empty=True),
    )
    assert (unknown.ok, unknown["error"]) == (False, "NothingSelected")
    assert "web" in unknown["msg"]
    assert (none.ok, none["error"]) == (False, "NothingSelected")
    assert (fine.ok, fine["changed"], fine["set"]) == (True, False, None)
    assert fleet.published() == []


def test_a_young_set_is_enough_until_something_new_is_there(fleet):
    make_guest(fleet.host, "web")
    first, again, other = fleet.play(
        fleet.task("incus_export", store_create=True, max_age="1h"),
        fleet.task("incus_export", max_age="1h"),
        fleet.task("incus_export", max_age="1h", compression="gzip"),
    )
    assert first["changed"]
    assert (again["changed"], again["set"]) == (False, first["set"])
    assert "max_age" in again["reason"]
    assert other["changed"], "other options make another file"
    make_guest(fleet.host, "new")
    assert fleet.export(max_age="1h")["changed"]


def test_check_mode_shows_the_plan_with_the_same_keys_and_changes_nothing(fleet):
    make_guest(fleet.host, "web")
    fleet.export(instances=["web"])
    before = fleet.host.digests(fleet.store)
    planned = fleet.do("incus_export", check=True)
    assert fleet.host.digests(fleet.store) == before
    assert fleet.host.sh("find /var/lib/incus-fleet -type f") == ""
    real = fleet.export()
    assert planned["changed"]
    assert set(planned) - {"warnings"} == set(real) - {"warnings"}
    for key in ("action", "name", "path", "transport", "method", "guarantee"):
        assert [step[key] for step in planned["plan"]] == [step[key] for step in real["plan"]]


def test_one_that_fails_is_named_and_the_others_are_saved(both):
    for name in ("a", "bad", "c"):
        make_guest(both.host, name)
    both.host.run("btrfs", "-q", "subvolume", "delete", "/var/lib/incus/storage-pools/default/containers/bad")
    result = both.run("incus_export", store_create=True)
    assert not result.ok
    assert "default/bad" in result["msg"]
    assert result["result"] == "with_failures"
    assert sorted(item["name"] for item in result["artifacts"]) == ["a", "c"]
    [failure] = result["failures"]
    assert (failure["name"], failure["entity"]) == ("bad", "default/bad")
    assert failure["operation"]
    assert failure["server"]
    assert failure["server_said"]
    assert [item["name"] for item in both.manifest(result)["failures"]] == ["bad"]
    info = both.info()
    assert (info["newest"], info["sets"][0]["result"]) == (None, "with_failures")
    assert both.nothing_left()


def test_a_project_that_forbids_backups_is_refused_by_name(fleet):
    fleet.host.sh(
        "incus project create shop -c features.images=false -c restricted=true -c restricted.backups=block\n"
        "incus profile device add default root disk path=/ pool=default --project shop"
    )
    make_guest(fleet.host, "db", project="shop")
    result = fleet.run("incus_export", store_create=True)
    assert not result.ok
    assert "restricted.backups" in result["failures"][0]["message"]
    assert fleet.published() == []
