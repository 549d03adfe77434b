# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands in a restore's way is told at once, and nothing that exists is ever hurt by one."""

from __future__ import annotations

import pytest

from fleetkit.ansible import task
from fleetkit.guests import make_guest, weigh

MARKER = "user.incus-fleet.restoring"


def delete(*names: str):
    return task("ansible.builtin.command", argv=["incus", "delete", "--force", *names])


def test_everything_that_is_missing_is_told_at_once_and_nothing_is_changed(fleet):
    host = fleet.host
    host.sh(
        "incus storage create extra dir && incus network create extrabr0 ipv4.address=none ipv6.address=none\n"
        "incus profile create special\n"
        "incus project create shop -c features.images=false\n"
        "incus profile device add default root disk path=/ pool=default --project shop"
    )
    make_guest(host, "here")
    make_guest(host, "web", pool="extra")
    make_guest(host, "db", project="shop")
    host.incus("profile", "add", "web", "special")
    host.incus("network", "attach", "extrabr0", "web", "eth1")
    exported = fleet.export()
    host.incus("delete", "web")
    host.incus("delete", "db", project="shop")
    host.sh(
        "incus storage delete extra && incus network delete extrabr0 && incus profile delete special\n"
        "incus project delete shop"
    )
    before = host.instances()
    planned, real = fleet.play(fleet.task("incus_import", check=True), fleet.task("incus_import"))
    for refused in (planned, real):
        assert not refused.ok
        assert refused["error"] == "PreflightFailed"
        found = {(item["code"], item["entity"]) for item in refused["problems"]}
        assert found == {
            ("pool_missing", "default/web"),
            ("network_missing", "default/web"),
            ("profile_missing", "default/web"),
            ("project_missing", "shop/db"),
            ("name_taken", "default/here"),
        }
        told = " ".join(item["problem"] for item in refused["problems"])
        for name in ("extra", "extrabr0", "special", "shop"):
            assert name in told
        assert all(item["hint"] for item in refused["problems"])
        assert refused["operation"] == "check the restore"
        assert refused["server"]
    assert host.instances() == before
    assert fleet.published() == [exported["set"]]


def test_an_instance_that_is_there_stops_it_all_unless_it_is_to_be_left_alone(fleet):
    for name in ("a", "b", "web"):
        make_guest(fleet.host, name, running=name == "a")
    fleet.export()
    fleet.host.incus("delete", "web")
    before = fleet.host.instances()
    refused = fleet.run("incus_import")
    assert refused["error"] == "PreflightFailed"
    assert sorted(item["entity"] for item in refused["problems"]) == ["default/a", "default/b"]
    assert fleet.host.instances() == before
    skipped, again = fleet.play(
        fleet.task("incus_import", conflict="skip"), fleet.task("incus_import", conflict="skip")
    )
    assert (skipped["changed"], skipped["succeeded"], skipped["left_alone"]) == (True, 1, 2)
    assert (again["changed"], again["succeeded"], again["left_alone"]) == (False, 0, 3)
    after = fleet.host.instances()
    assert after.pop("default/web")["status"] == "Stopped"
    assert after == before


def identity(instance) -> tuple[str | None, str | None]:
    config = instance["config"]
    return config.get("volatile.uuid"), config.get("volatile.eth0.hwaddr")


def test_a_copy_beside_the_renamed_original_gets_an_identity_of_its_own_and_both_start(both):
    make_guest(both.host, "web")
    both.host.sh("incus start web && incus stop --force web")
    both.export()
    both.host.incus("rename", "web", "original")
    original = both.host.instances()["default/original"]
    kept, auto = both.play(both.task("incus_import", identity="keep"), both.task("incus_import", power_state="running"))
    assert kept["error"] == "PreflightFailed"
    problems = {item["code"]: item["problem"] for item in kept["problems"]}
    assert set(problems) == {"identity_taken"}
    assert "default/original" in problems["identity_taken"]
    assert auto.ok, auto
    assert auto["restored"][0]["identity"] == "regenerate"
    both.host.incus("start", "original")
    assert both.host.states() == {"default/original": "Running", "default/web": "Running"}
    after = both.host.instances()
    assert identity(after["default/original"]) == identity(original)
    for mine, theirs in zip(identity(after["default/web"]), identity(original), strict=True):
        assert mine
        assert mine != theirs


def test_without_a_conflict_the_identity_is_kept_unless_a_new_one_is_wanted(fleet):
    make_guest(fleet.host, "web")
    before = identity(fleet.host.instances()["default/web"])
    fleet.play(
        fleet.task("incus_export", store_create=True),
        delete("web"),
        fleet.task("incus_import", identity="keep"),
    )
    assert identity(fleet.host.instances()["default/web"]) == before
    fleet.play(delete("web"), fleet.task("incus_import", identity="regenerate", power_state="running"))
    after = identity(fleet.host.instances()["default/web"])
    assert all(after)
    assert not set(after) & set(before)


def test_a_restored_instance_does_not_start_by_itself_when_it_is_to_stay_stopped(both):
    make_guest(both.host, "web", running=True)
    results = both.play(
        both.task("incus_export", store_create=True),
        delete("web"),
        both.task("incus_import", power_state="stopped"),
    )
    assert all(result.ok for result in results), results
    assert both.host.states() == {"default/web": "Stopped"}
    assert both.host.instances()["default/web"]["config"].get("volatile.last_state.power", "STOPPED") == "STOPPED"


def test_check_mode_shows_the_plan_with_the_same_keys_and_changes_nothing(fleet):
    make_guest(fleet.host, "web")
    fleet.play(fleet.task("incus_export", store_create=True), delete("web"))
    planned, real = fleet.play(fleet.task("incus_import", check=True), fleet.task("incus_import"))
    assert planned.ok, planned
    assert planned["changed"]
    assert planned["succeeded"] == 0
    assert planned["plan"] == real["plan"]
    assert set(planned) == set(real)


def test_names_are_exact_and_one_that_is_not_in_the_set_is_an_error(fleet):
    for name in ("web", "web-prod"):
        make_guest(fleet.host, name)
    fleet.play(fleet.task("incus_export", store_create=True), delete("web", "web-prod"))
    unknown, exact = fleet.play(
        fleet.task("incus_import", instances=["web", "db"]), fleet.task("incus_import", instances=["web"])
    )
    assert unknown["error"] == "NothingSelected"
    assert "db" in unknown["msg"]
    assert exact.ok, exact
    assert list(fleet.host.states()) == ["default/web"]


FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    file.seek(1000000)
    byte = file.read(1)[0]
    file.seek(1000000)
    file.write(bytes([byte ^ 1]))
"""
# Cuts at a member boundary; with a second argument the manifest is made to agree, so that only the missing end tells.
CUT = """
import hashlib, json, sys, tarfile
path, manifest = sys.argv[1:3]
with tarfile.open(path) as tar:
    offsets = [member.offset for member in tar]
with open(path, "r+b") as file:
    file.truncate(offsets[-3])
if len(sys.argv) > 3:
    whole = json.load(open(manifest))
    content = open(path, "rb").read()
    for item in whole["artifacts"]:
        if path.endswith(item["path"]):
            item.update({f"{kind}_bytes": len(content) for kind in ("stored", "plain")})
            item.update({f"{kind}_sha256": hashlib.sha256(content).hexdigest() for kind in ("stored", "plain")})
    json.dump(whole, open(manifest, "w"))
"""


@pytest.mark.parametrize(
    ("script", "arguments", "error"),
    [(FLIP, (), "ChecksumMismatch"), (CUT, (), "ArchiveInvalid"), (CUT, ("agree",), "ArchiveInvalid")],
    ids=["flipped", "cut", "cut-and-recorded-so"],
)
def test_a_damaged_file_is_found_before_anything_is_sent_and_the_others_come_back(fleet, script, arguments, error):
    for name in ("bad", "good"):
        make_guest(fleet.host, name)
    exported = fleet.play(fleet.task("incus_export", store_create=True, compression="none"), delete("bad", "good"))[0]
    manifest = f"{fleet.store}/{exported['set_path']}/manifest.json"
    fleet.host.run("python3", "-c", script, fleet.artifact(exported, "bad"), manifest, *arguments)
    result = fleet.run("incus_import")
    assert not result.ok
    [failure] = result["failures"]
    assert failure["error"] == error, failure
    assert (failure["entity"], failure["operation"]) == ("default/bad", "import instance")
    assert failure["hint"] or "end marker" in failure["message"]
    assert list(fleet.host.states()) == ["default/good"]
    assert fleet.nothing_left()


# Kills the import as soon as the instance is on the server with our mark.
AMBUSH = """
import http.client, json, os, signal, socket, sys, time
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/lib/incus/unix.socket")
deadline = time.time() + 60
connection = Unix("incus")
while time.time() < deadline:
    connection.request("GET", "/1.0/instances/web")
    answer = json.loads(connection.getresponse().read())
    if answer.get("metadata") and sys.argv[1] in answer["metadata"]["config"]:
        pid = json.load(open("/var/lib/incus-fleet/progress/server-import.json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        sys.exit(0)
    time.sleep(0.002)
sys.exit(1)
"""


def test_an_import_that_was_killed_half_way_is_finished_by_the_next_run(both):
    make_guest(both.host, "web")
    weigh(both.host, "web", 1)
    for number in range(6):
        name = f"s{number}"
        both.host.incus("snapshot", "create", "web", name)
        body = '{"expires_at": "2999-05-06T07:08:09Z"}'
        both.host.run("incus", "query", "--wait", "-X", "PUT", "-d", body, f"/1.0/instances/web/snapshots/{name}")
    both.host.incus("start", "web")
    both.play(both.task("incus_export", store_create=True), delete("web"))
    running = both.start(both.task("incus_import"))
    both.host.run("python3", "-c", AMBUSH, MARKER)
    running.wait()
    half = both.host.instances()["default/web"]
    assert MARKER in half["config"]
    assert half["status"] == "Stopped"
    finished = both.do("incus_import")
    assert [step["action"] for step in finished["plan"]] == ["finish"]
    whole = both.host.instances()["default/web"]
    assert MARKER not in whole["config"]
    assert whole["status"] == "Running"
    assert {item["expires_at"][:19] for item in whole["snapshots"]} == {"2999-05-06T07:08:09"}
    assert both.run("incus_import")["error"] == "PreflightFailed", "it is an ordinary instance again"
