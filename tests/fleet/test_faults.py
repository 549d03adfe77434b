# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What goes wrong in the middle: the old is untouched, the error says what happened, the next run goes on."""

from __future__ import annotations

import json

import pytest

from fleetkit.ansible import task
from fleetkit.guests import make_guest, weigh
from fleetkit.hosts import STORES, lab, until

MIB = 1024 * 1024


def stamps(fleet, base: str) -> dict[str, str]:
    """Inode, size and time of every finished artifact in a set."""
    listed = fleet.host.sh(f"find {base}/instances -name '*.tar.zst' -printf '%P|%i|%s|%T@\\n'")
    return dict(line.split("|", 1) for line in listed.splitlines())


def slow_fleet(fleet, *, small=("a1", "a2", "a3"), slow="z", weight=16) -> None:
    for name in small:
        make_guest(fleet.host, name)
    make_guest(fleet.host, slow)
    weigh(fleet.host, slow, weight)


def test_after_a_kill_the_next_run_takes_only_what_was_not_finished(both):
    slow_fleet(both, weight=32)
    make_guest(both.host, "busy", running=True)
    running = both.start(both.task("incus_export", store_create=True, run_id="killed", rate_limit=3 * MIB))

    def finished() -> bool:
        return both.host.sh(f"find {both.site} -name '*.tar.zst.json' | wc -l") == "4"

    until(finished, "the export of the small ones")
    both.until_mid_stream("z")
    both.kill("KILL")
    running.wait()
    [unfinished] = both.open_sets()
    before = stamps(both, f"{both.site}/{unfinished}")
    kept = [name for name in before if "/z." not in name]
    assert len(kept) == 4
    info = both.info()
    assert (info["sets"], info["newest"], info["recovery_points"]) == ([], None, [])
    assert [(item["run_id"], item["alive"]) for item in info["incomplete"]] == [("killed", False)]

    resumed = both.export()
    assert resumed["resumed_from"] == ["killed"]
    assert f"{resumed['set']}.incomplete" == unfinished
    actions = {step["name"]: step["action"] for step in resumed["plan"]}
    assert actions == {"a1": "reuse", "a2": "reuse", "a3": "reuse", "busy": "reuse", "z": "export"}
    after = stamps(both, f"{both.store}/{resumed['set_path']}")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (resumed["result"], resumed["succeeded"]) == ("complete", 5)
    assert both.open_sets() == []
    assert both.nothing_left()
    assert both.host.states()["default/busy"] == "Running"


def test_another_instance_of_the_same_name_is_taken_anew(fleet):
    """What a dead run finished belongs to an instance that is gone."""
    slow_fleet(fleet, small=("a",))
    running = fleet.start(fleet.task("incus_export", store_create=True, rate_limit=MIB))
    fleet.until_recorded("a")
    fleet.until_mid_stream("z")
    fleet.kill("KILL")
    running.wait()
    fleet.host.sh("incus delete a && incus delete z")
    make_guest(fleet.host, "a")
    resumed = fleet.export()
    assert [step["action"] for step in resumed["plan"]] == ["export"]
    [artifact] = fleet.manifest(resumed)["artifacts"]
    assert artifact["uuid"] == fleet.host.instances()["default/a"]["config"]["volatile.uuid"]


def test_a_run_that_is_told_to_stop_cleans_up_and_can_be_gone_on_with(both):
    slow_fleet(both, small=("a",))
    running = both.start(both.task("incus_export", store_create=True, rate_limit=MIB))
    both.until_recorded("a")
    both.until_mid_stream("z")
    both.kill("TERM")
    stopped = running.one()
    assert (stopped.ok, stopped["error"]) == (False, "Interrupted")
    assert "SIGTERM" in f"{stopped['msg']} {stopped['server_said']}"
    assert stopped["hint"]
    assert both.nothing_left()
    assert both.host.sh(f"find {both.store} -name '*.part'") == ""
    assert not both.host.succeeds(f"test -e {both.site}/lease.json")
    assert both.host.sh("find /var/lib/incus-fleet -type f") == ""
    assert both.published() == []
    resumed = both.export()
    assert [(step["name"], step["action"]) for step in resumed["plan"]] == [("a", "reuse"), ("z", "export")]


@pytest.mark.usefixtures("mended")
def test_a_cut_connection_leaves_a_run_that_is_found_alive_and_ends_well(fleet):
    slow_fleet(fleet, small=("a",), weight=32)
    impatient = "-o ControlMaster=no -o ServerAliveInterval=1 -o ServerAliveCountMax=2"
    running = fleet.start(fleet.task("incus_export", store_create=True, rate_limit=2 * MIB), ssh_args=impatient)
    fleet.until_mid_stream("z")
    lab("cut", fleet.host.name)
    lost = running.one()
    lab("mend", fleet.host.name)
    assert lost.outcome == "unreachable", lost
    second = fleet.run("incus_export")
    assert (second.ok, second["error"]) == (False, "LeaseHeld"), second
    assert fleet.published() == []
    fleet.until_alone()
    again = fleet.do("incus_export", max_age="1h")
    assert (again["changed"], again["result"]) == (False, "complete")
    assert fleet.open_sets() == []
    assert fleet.nothing_left()


def test_the_daemon_restarted_in_mid_stream_fails_one_and_not_the_others(both):
    for name in ("a", "m", "z"):
        make_guest(both.host, name)
    weigh(both.host, "m", 32)
    make_guest(both.host, "busy", running=True)
    running = both.start(both.task("incus_export", store_create=True, rate_limit=3 * MIB, parallel=1, exclude=["busy"]))
    both.until_mid_stream("m")
    both.host.run("systemctl", "kill", "--signal=KILL", "incus.service")
    result = running.one()
    assert not result.ok
    [failure] = result["failures"]
    assert (failure["entity"], failure["error"]) == ("default/m", "StreamBroken"), failure
    assert failure["operation"]
    assert "unix.socket" in failure["server"]
    assert sorted(item["name"] for item in result["artifacts"]) == ["a", "z"]
    assert result["result"] == "with_failures"
    assert both.info()["newest"] is None
    assert both.host.states()["default/busy"] == "Running"
    assert both.export()["result"] == "complete"
    assert both.nothing_left()


def test_a_full_store_is_told_the_old_set_is_untouched_and_the_next_run_goes_on(fleet):
    host, image = fleet.host, f"{STORES}/disk.img"
    host.sh(
        f"set -e; truncate -s 48M {image}; mkfs.ext4 -q -m 0 {image}; mkdir {fleet.store}\n"
        f"mount -o loop {image} {fleet.store}; rmdir {fleet.store}/lost+found"
    )
    make_guest(host, "a")
    old = fleet.export()
    digests = host.digests(f"{fleet.store}/{old['set_path']}")
    make_guest(host, "z", running=True)
    host.incus("exec", "z", "--", "sh", "-c", "dd if=/dev/urandom of=/root/weight bs=1M count=16 && sync")
    filler = f"{fleet.store}/filler"
    host.sh(f"fallocate -l $(( $(df --output=avail -B1 {fleet.store} | tail -1) - 8 * {MIB} )) {filler}")
    full = fleet.run("incus_export", parallel=1)
    assert (full.ok, full["error"]) == (False, "StoreFull"), full
    assert (full["operation"], full["entity"]) == ("write", "default/z")
    assert full["server"]
    assert full["hint"]
    assert host.digests(f"{fleet.store}/{old['set_path']}") == digests
    assert fleet.published() == [old["set"]]
    assert host.sh(f"find {fleet.store} -name '*.part'") == ""
    assert fleet.info()["newest"]["set"] == old["set"]
    assert fleet.nothing_left()
    assert host.states()["default/z"] == "Running"
    host.run("rm", filler)
    resumed = fleet.export()
    assert {step["name"]: step["action"] for step in resumed["plan"]} == {"a": "reuse", "z": "export"}
    assert resumed["result"] == "complete"


def test_a_second_run_is_refused_while_the_first_is_alive_also_in_the_background(fleet):
    slow_fleet(fleet, small=("a",), weight=32)
    background = {**fleet.task("incus_export", store_create=True, run_id="first", rate_limit=2 * MIB)}
    background |= {"async": 120, "poll": 0}
    [started] = fleet.play(background)
    assert started.ok
    fleet.until_mid_stream("z")
    second, info = fleet.play(fleet.task("incus_export"), fleet.task("incus_backup_info"))
    assert (second.ok, second["error"]) == (False, "LeaseHeld")
    assert "first" in second["msg"]
    assert second["operation"] == "take the lease"
    assert second["entity"]
    assert second["hint"]
    assert [item["alive"] for item in info["incomplete"]] == [True]
    fleet.until_alone()
    waited = fleet.play(task("ansible.builtin.async_status", jid=started["ansible_job_id"]))[0]
    assert (waited["finished"], waited["result"], waited["succeeded"]) == (1, "complete", 2)


def test_a_set_that_broke_in_the_store_is_told_and_hides_no_other(fleet):
    make_guest(fleet.host, "a")
    first, second = (fleet.export()["set"] for _unused in range(2))
    fleet.host.sh(f": >{fleet.site}/{second}/manifest.json")
    info = fleet.info()
    assert info["newest"]["set"] == first
    [broken] = info["broken"]
    assert broken["set_path"].endswith(second)
    assert broken["error"] == "SetInvalid"


def test_files_of_a_dead_run_without_record_are_not_taken_for_artifacts(fleet):
    slow_fleet(fleet, small=("a",))
    running = fleet.start(fleet.task("incus_export", store_create=True, rate_limit=MIB))
    fleet.until_recorded("a")
    fleet.until_mid_stream("z")
    fleet.kill("KILL")
    running.wait()
    [unfinished] = fleet.open_sets()
    record = f"{fleet.site}/{unfinished}/instances/default/a.tar.zst.json"
    fleet.host.write(record, json.dumps({"name": "a"}))
    resumed = fleet.export()
    assert {step["name"]: step["action"] for step in resumed["plan"]} == {"a": "export", "z": "export"}
