# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab itself, on this machine, with real hosts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable

import pytest
import yaml

pytestmark = pytest.mark.lab

DEADLINE = 60
HOSTS = {"inc70": "7.0", "inc60": "6.0"}


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE} s"
        time.sleep(0.02)


def in_guest(lab, name: str, *command: str) -> str:
    """What a command in a guest says, once the guest is so far: a launch ends before its first process has come up."""
    said: list[str] = []

    def answered() -> str:
        said[:] = [lab.run("exec", "one", "incus", "exec", name, "--", *command, check=False).stdout]
        return said[0]

    until(answered, f"an answer of {name}")
    return said[0]


def running(lab, host: str) -> list[str]:
    """The names of the host's running instances, by Incus's own word."""
    listing = json.loads(lab.out("exec", host, "incus", "list", "--format=json"))
    return sorted(instance["name"] for instance in listing if instance["status"] == "Running")


def test_two_versions_come_up_side_by_side_and_a_second_up_changes_nothing(lab):
    lab.run("up")
    before = lab.out("status")
    assert before.count("running") == 2
    again = lab.out("up")
    assert "will" not in again
    assert lab.out("status") == before
    for name, version in HOSTS.items():
        assert f"Server version: {version}." in lab.out("exec", name, "incus", "version")


@pytest.mark.parametrize("version", ["7.0", "6.0"])
def test_a_guest_runs_unprivileged_on_both_pools_with_an_address_and_is_exported(lab, version):
    lab.run("up", f"one={version}")
    for name, pool in (("b1", "default"), ("d1", "plain")):
        lab.run("exec", "one", "incus", "launch", "tiny", name, "--storage", pool)
        # The guest's root is not the host's: its user ids are shifted.
        first = in_guest(lab, name, "cat", "/proc/self/uid_map").split()
        assert first[0] == "0"
        assert int(first[1]) > 0
        digest = in_guest(lab, name, "sh", "-c", "echo hello | sha256sum")
        assert digest.startswith("5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03")
        until(lambda name=name: "10.177.0." in lab.out("exec", "one", "incus", "list", name, "-fcsv", "-c4"), "DHCP")
        lab.run("exec", "one", "incus", "export", name, f"/var/tmp/{name}.tar.gz")
        members = lab.out("exec", "one", "tar", "-tf", f"/var/tmp/{name}.tar.gz")
        assert "backup/index.yaml" in members
    pools = lab.out("exec", "one", "incus", "storage", "list", "-fcsv", "-cnD").split()
    assert pools == ["default,btrfs", "plain,dir"]
    lab.run("exec", "one", "incus", "stop", "b1")
    assert running(lab, "one") == ["d1"]


def test_two_checkouts_run_side_by_side_with_the_same_names_and_addresses(new_lab):
    one, two = new_lab("one"), new_lab("two")
    one.run("up", "same=7.0", "--bare")
    two.run("up", "same=7.0", "--bare")
    assert one.out("inventory").replace(one.key, "") == two.out("inventory").replace(two.key, "")
    identities = [each.out("ssh", "same", "cat", "/etc/machine-id") for each in (one, two)]
    assert identities[0] != identities[1]
    one.run("down")
    assert two.out("ssh", "same", "hostname") == "same"


def test_three_users_log_in_and_only_two_of_them_may_do_things(lab):
    lab.run("up", "one=6.0")
    assert lab.out("ssh", "one", "id", "-un") == "root"
    assert lab.out("ssh", "one", "-l", "operator", "sudo", "-n", "id", "-un") == "root"
    assert lab.out("ssh", "one", "-l", "nobody-special", "id", "-un") == "nobody-special"
    assert lab.run("ssh", "one", "-l", "nobody-special", "sudo", "-n", "true", check=False).returncode != 0
    refused = lab.run("ssh", "one", "-l", "nobody-special", "incus", "list", check=False)
    assert "permission" in refused.stderr


def test_exec_passes_input_output_and_exit_code_through(lab):
    lab.run("up", "one=6.0", "--bare")
    done = lab.run("exec", "one", "sh", "-c", "cat; echo said >&2; exit 7", stdin="given", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "given", "said\n")
    assert lab.run("exec", "two", "true", check=False).returncode == 2


def test_hosts_speak_https_to_each_other_and_to_the_controller(lab):
    lab.run("up")
    token = lab.out("exec", "inc60", "incus", "config", "trust", "add", "inc70", "--quiet").splitlines()[-1]
    lab.run("exec", "inc70", "incus", "remote", "add", "inc60", token)
    lab.run("exec", "inc70", "incus", "init", "tiny", "c1")
    lab.run("exec", "inc70", "incus", "copy", "c1", "inc60:c2")
    assert lab.out("exec", "inc60", "incus", "list", "-fcsv", "-cn") == "c2"
    hosts = yaml.safe_load(lab.out("inventory"))["all"]["children"]["incus"]["children"]["incus_70"]["hosts"]
    url = f"https://{hosts['inc70']['ansible_host']}:8443/1.0"
    script = "import ssl, sys, urllib.request as r; c = ssl._create_unverified_context()"
    script += "; print(r.urlopen(sys.argv[1], context=c).status)"
    assert lab.out("controller", "python3", "-c", script, url) == "200"


def test_nothing_in_the_lab_reaches_the_world_outside(lab):
    lab.run("up", "one=6.0", "--bare")
    assert lab.out("exec", "one", "ip", "route", "show", "default") == ""
    assert lab.out("controller", "ip", "route", "show", "default") == ""


def test_systemd_has_the_root_of_its_cgroup_hierarchy_to_itself(lab):
    lab.run("up", "one=6.0", "--bare")
    # A process of somebody else there would keep it from handing out memory and processor limits.
    assert lab.out("exec", "one", "cat", "/sys/fs/cgroup/cgroup.procs") == ""
    assert lab.out("exec", "one", "cat", "/proc/1/cgroup").splitlines()[-1] == "0::/init.scope"
    assert lab.out("exec", "one", "systemctl", "--failed", "--no-legend") == ""


def test_a_power_loss_keeps_the_root_file_system_and_guests_start_again(lab):
    lab.run("up", "one=7.0")
    lab.run("exec", "one", "incus", "launch", "tiny", "c1")
    lab.run("exec", "one", "touch", "/kept")
    lab.run("kill", "one")
    assert "off" in lab.out("status")
    assert lab.run("exec", "one", "true", check=False).returncode == 2
    lab.run("boot", "one")
    lab.run("exec", "one", "test", "-e", "/kept")
    until(lambda: running(lab, "one") == ["c1"], "the start of the guest")


def test_up_boots_a_host_that_was_shut_down(lab):
    lab.run("up", "one=7.0", "--bare")
    lab.run("exec", "one", "touch", "/kept")
    lab.run("exec", "one", "systemctl", "poweroff", check=False)
    lab.run("up", "one")
    lab.run("exec", "one", "test", "-e", "/kept")


def test_a_cut_cable_is_mended(lab):
    lab.run("up", "one=6.0", "--bare")
    lab.run("cut", "one")
    assert "cable cut" in lab.out("status")
    assert lab.run("ssh", "one", "-o", "ConnectTimeout=1", "true", check=False).returncode == 255
    lab.run("mend", "one")
    assert "cable cut" not in lab.out("status")
    until(lambda: lab.run("ssh", "one", "-o", "ConnectTimeout=1", "true", check=False).returncode == 0, "ssh")


def test_a_new_host_at_the_address_of_one_that_is_gone_is_reached_at_once(lab):
    lab.run("up", "stays", "goes")
    where = lab.out("ssh", "goes", "hostname", "-I")
    lab.run("down", "goes")
    lab.run("up", "comes")
    # The controller remembers who had the address, for longer than a connection waits.
    assert lab.out("ssh", "comes", "-o", "ConnectTimeout=3", "hostname", "-I") == where


def start(lab, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen([lab.command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_up_leaves_nothing(lab, number):
    process = start(lab, "up", "one=7.0")
    until(lambda: lab.has_network_of("one"), "the host's network")
    process.send_signal(number)
    said, _unused = process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + number, said
    assert "removing what was begun" in said
    assert lab.traces() == []


def test_an_interrupted_up_keeps_the_hosts_that_were_there(lab):
    lab.run("up", "one=6.0", "--bare")
    process = start(lab, "up", "two=6.0")
    until(lambda: lab.has_network_of("two"), "the second host's network")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE)
    assert "host-two" not in " ".join(lab.traces())
    assert lab.out("ssh", "one", "hostname") == "one"


@pytest.mark.parametrize("heal", ["down", "up"])
def test_what_a_killed_up_left_is_removed_by_the_next_command(lab, heal):
    process = start(lab, "up", "one=6.0", "--bare")
    until(lambda: lab.has_network_of("one"), "the host's network")
    process.kill()
    process.communicate(timeout=DEADLINE)
    assert lab.traces() != []
    if heal == "down":
        lab.run("down")
        assert lab.traces() == []
    else:
        lab.run("up", "two=6.0", "--bare")
        assert "host-one" not in " ".join(lab.traces())
        assert lab.out("ssh", "two", "hostname") == "two"


def test_the_lab_of_a_checkout_that_is_gone_can_be_removed_from_another(new_lab):
    gone, here = new_lab("gone"), new_lab("here")
    gone.run("up", "one=6.0", "--bare")
    moved = gone.root.rename(gone.root.with_name("elsewhere"))
    here.run("down", "--lost")
    assert gone.traces() == []
    moved.rename(gone.root)


def test_a_host_keeps_its_version(lab):
    lab.run("up", "one=6.0", "--bare")
    refused = lab.run("up", "one=7.0", check=False)
    assert refused.returncode == 2
    assert "lab down one" in refused.stderr


def test_without_root_the_lab_says_so(lab):
    shutil.chown(lab.root, 65534)
    for path in (lab.root, *lab.root.parents[:3]):
        path.chmod(0o755)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", lab.command, "up"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 2
    assert "needs root" in done.stderr


@pytest.mark.parametrize("tool", ["debootstrap", "mkfs.btrfs"])
def test_a_missing_tool_is_named_with_its_package_and_nothing_is_touched(lab, tmp_path, tool):
    # Hidden behind a file that cannot be executed, in a mount namespace of its own.
    hidden = tmp_path / "hidden"
    hidden.touch(mode=0o000)
    found = {os.path.realpath(path) for path in (f"/usr/sbin/{tool}", f"/sbin/{tool}") if os.path.exists(path)}
    script = 'for path; do mount --bind "$hidden" "$path" || exit; done; exec "$lab" up'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *found],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "lab": str(lab.command), "hidden": str(hidden)},
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert tool in done.stderr
    assert "--install" in done.stderr
    assert lab.traces() == []
