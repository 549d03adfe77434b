# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whose a store is, who is at work in it, and where it must not lie."""

from __future__ import annotations

import pytest

from fleetkit.fleet import SITE
from fleetkit.guests import make_guest
from fleetkit.hosts import BACKUPS, STORES


def test_an_empty_mount_point_is_not_taken_for_a_store(fleet):
    make_guest(fleet.host, "web")
    fleet.host.run("mkdir", "-p", fleet.store)
    for module in ("incus_export", "incus_import", "incus_backup_info", "incus_backup_set"):
        options = {"run_id": "r"} if module == "incus_backup_set" else {}
        refused = fleet.run(module, **options)
        assert (refused.ok, refused["error"]) == (False, "StoreError"), refused
        assert "mount" in f"{refused['msg']} {refused['hint']}"
    assert fleet.host.sh(f"ls -A {fleet.store}") == ""


def test_a_store_is_not_made_in_a_directory_with_something_in_it(fleet):
    make_guest(fleet.host, "web")
    fleet.host.sh(f"mkdir -p {fleet.store} && echo mine >{fleet.store}/mine")
    refused = fleet.run("incus_export", store_create=True)
    assert (refused.ok, refused["error"]) == (False, "StoreError")
    assert fleet.host.sh(f"ls -A {fleet.store}") == "mine"


@pytest.mark.parametrize("place", ["/var/lib/incus/store", f"{BACKUPS}/store", f"{STORES}/pool/store"])
def test_a_store_in_what_it_protects_is_refused(fleet, place):
    make_guest(fleet.host, "web")
    fleet.host.sh(f"mkdir {STORES}/pool && incus storage create extra dir source={STORES}/pool")
    refused = fleet.run("incus_export", store=place, store_create=True)
    found = fleet.host.succeeds(f"test -e {place}/{SITE}")
    fleet.host.sh(f"rm -rf {place}; incus storage delete extra")
    assert (refused.ok, refused["error"]) == (False, "StoreError"), refused
    assert "refused" in refused["msg"]
    assert not found
    for fact in ("operation", "hint"):
        assert refused[fact]


def test_a_store_beside_incus_is_recorded_as_near_and_warned_of(fleet):
    make_guest(fleet.host, "web")
    exported = fleet.export()
    head = fleet.manifest(exported)["set"]
    assert (head["off_host"], head["same_device"]) == (False, True)
    assert any("same device" in words for words in exported.words)


def test_another_server_under_the_same_name_is_refused_until_it_is_adopted(fleet):
    """As after a server was rebuilt: the store is the old one, the certificate is not."""
    make_guest(fleet.host, "web")
    first = fleet.export()
    stranger = "0" * 64
    owner = fleet.host.read_json(f"{fleet.site}/site.json")
    fleet.host.sh(f"sed -i 's/{owner['fingerprints'][0]}/{stranger}/' {fleet.site}/site.json")
    digests = fleet.host.digests(fleet.store)
    refused, planned = fleet.play(fleet.task("incus_export"), fleet.task("incus_export", check=True))
    for each in (refused, planned):
        assert (each.ok, each["error"], each["entity"]) == (False, "OwnerMismatch", SITE), each
        assert each["operation"] == "claim the site"
        assert "adopt" in each["hint"]
    assert fleet.host.digests(fleet.store) == digests
    adopted, later = fleet.play(fleet.task("incus_export", adopt=True), fleet.task("incus_export"))
    assert (adopted.ok, later.ok) == (True, True)
    assert fleet.host.read_json(f"{fleet.site}/site.json")["fingerprints"] == [stranger, owner["fingerprints"][0]]
    assert fleet.published()[0] == first["set"]


def test_a_set_is_open_until_its_run_publishes_it(fleet):
    make_guest(fleet.host, "a")
    make_guest(fleet.host, "b")
    opening = {"store_create": True, "run_id": "tonight"}
    planned, opened, again, other = fleet.play(
        fleet.task("incus_backup_set", check=True, **opening),
        fleet.task("incus_backup_set", **opening),
        fleet.task("incus_backup_set", **opening),
        fleet.task("incus_backup_set", run_id="another"),
    )
    assert (planned.ok, planned["changed"], planned["set"]) == (True, True, None)
    assert (opened["changed"], opened["state"]) == (True, "incomplete")
    assert (again["changed"], again["set"]) == (False, opened["set"])
    assert (other.ok, other["error"]) == (False, "LeaseHeld")
    mine = {"set": opened["set"], "run_id": "tonight"}
    one, two, stranger = fleet.play(
        fleet.task("incus_export", instances=["a"], **mine),
        fleet.task("incus_export", instances=["b"], **mine),
        fleet.task("incus_export", instances=["b"], set=opened["set"], run_id="another"),
    )
    assert (one["result"], one["set"], two["set"]) == (None, opened["set"], opened["set"])
    assert (stranger.ok, stranger["error"]) == (False, "LeaseHeld")
    assert fleet.published() == []
    closing = {"run_id": "tonight", "state": "published"}
    planned, published, again = fleet.play(
        fleet.task("incus_backup_set", check=True, **closing),
        fleet.task("incus_backup_set", **closing),
        fleet.task("incus_backup_set", set=opened["set"], **closing),
    )
    assert (planned["changed"], published["changed"], again["changed"]) == (True, True, False)
    assert (published["state"], published["succeeded"], again["succeeded"]) == ("complete", 2, 2)
    assert set(published) == set(again)
    assert fleet.published() == [opened["set"]]
    assert not fleet.host.succeeds(f"test -e {fleet.site}/lease.json")


def test_an_aborted_set_is_gone_and_a_published_one_cannot_be_aborted(fleet):
    make_guest(fleet.host, "a")
    opened = fleet.do("incus_backup_set", store_create=True, run_id="tonight")
    mine = {"set": opened["set"], "run_id": "tonight"}
    fleet.do("incus_export", **mine)
    planned, aborted, again = fleet.play(
        fleet.task("incus_backup_set", state="aborted", check=True, **mine),
        fleet.task("incus_backup_set", state="aborted", **mine),
        fleet.task("incus_backup_set", state="aborted", **mine),
    )
    assert (planned["changed"], aborted["changed"], again["changed"]) == (True, True, False), (planned, aborted, again)
    assert aborted["state"] == again["state"] == "absent"
    assert fleet.open_sets() == []
    kept = fleet.export(run_id="tomorrow")
    refused = fleet.run("incus_backup_set", state="aborted", set=kept["set"], run_id="tomorrow")
    assert (refused.ok, refused["error"]) == (False, "SetInvalid")
    assert fleet.published() == [kept["set"]]


def test_an_open_set_with_nothing_in_it_is_not_published(fleet):
    opened = fleet.do("incus_backup_set", store_create=True)
    refused = fleet.run("incus_backup_set", state="published", run_id=opened["run_id"])
    assert (refused.ok, refused["error"]) == (False, "StoreError")
    assert refused["operation"] == "publish the set"
    assert fleet.published() == []


def test_a_user_without_rights_is_told_so_and_one_with_sudo_is_not(both):
    make_guest(both.host, "web")
    place = f"{STORES}/theirs"
    both.host.sh(f"install -d -o nobody-special {place} && chmod 755 {STORES}")
    export = both.task("incus_export", store=f"{place}/store", store_create=True)
    refused = both.play(export, variables={"ansible_user": "nobody-special"})[0]
    assert (refused.ok, refused["error"]) == (False, "PermissionDenied"), refused
    assert refused["operation"] == "connect"
    assert "unix.socket" in refused["server"]
    assert "incus-admin" in refused["hint"]
    assert both.host.sh(f"ls -A {place}") == ""
    allowed = both.play(export, variables={"ansible_user": "operator", "ansible_become": True})[0]
    assert allowed.ok, allowed


def test_info_picks_sets_and_recovery_points(fleet):
    make_guest(fleet.host, "web")
    make_guest(fleet.host, "web-prod")
    first = fleet.export(run_id="one", instances=["web"])
    second = fleet.export(run_id="two")
    all_of_it, by_run, by_name, none, newest = fleet.play(
        fleet.task("incus_backup_info"),
        fleet.task("incus_backup_info", run_id="one"),
        fleet.task("incus_backup_info", name="web-prod"),
        fleet.task("incus_backup_info", before="2020-01-01"),
        fleet.task("incus_backup_info", limit=1),
    )
    assert [item["set"] for item in all_of_it["sets"]] == [second["set"], first["set"]]
    assert [item["set"] for item in by_run["sets"]] == [first["set"]]
    assert [(item["set"], item["name"]) for item in by_name["recovery_points"]] == [(second["set"], "web-prod")]
    assert (none["sets"], none["newest"]) == ([], None)
    assert [item["set"] for item in newest["sets"]] == [second["set"]]
    assert not any(result["changed"] for result in (all_of_it, by_run, by_name, none, newest))
