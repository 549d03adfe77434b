# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible and ssh are told about the hosts."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fleetlab.inventory import Access, Entry, etc_hosts, group_name, inventory, known_hosts, ssh_config

ENTRIES = [
    Entry("inc70", "198.51.100.10", "7.0", "ssh-ed25519 AAAA"),
    Entry("inc60", "198.51.100.11", "6.0", "ssh-ed25519 BBBB"),
    Entry("other", "198.51.100.12", "7.0", "ssh-ed25519 CCCC"),
]
ACCESS = Access(Path("/state/id"), Path("/state/known_hosts"))


@pytest.fixture
def incus() -> dict:
    return yaml.safe_load(inventory(ENTRIES, ACCESS))["all"]["children"]["incus"]


def test_hosts_are_grouped_by_version_below_one_group_of_all(incus):
    assert {group: set(content["hosts"]) for group, content in incus["children"].items()} == {
        "incus_70": {"inc70", "other"},
        "incus_60": {"inc60"},
    }


def test_a_host_has_its_address_and_its_version_as_strings(incus):
    assert incus["children"]["incus_60"]["hosts"]["inc60"] == {
        "ansible_host": "198.51.100.11",
        "lab_incus_version": "6.0",
    }


def test_ansible_is_told_how_to_log_in(incus):
    variables = incus["vars"]
    assert variables["ansible_user"] == "root"
    assert variables["ansible_ssh_private_key_file"] == "/state/id"
    assert variables["ansible_python_interpreter"] == "/usr/bin/python3"
    assert (
        "-o UserKnownHostsFile=/state/known_hosts -o StrictHostKeyChecking=yes" in variables["ansible_ssh_common_args"]
    )


def test_group_names_are_ones_that_ansible_allows():
    assert group_name("7.0").isidentifier()


def test_known_hosts_has_a_line_for_address_and_name():
    assert known_hosts(ENTRIES[:1]) == "198.51.100.10,inc70 ssh-ed25519 AAAA\n"


def test_ssh_finds_a_host_by_its_name():
    assert "Host inc60\n  HostName 198.51.100.11\n" in ssh_config(ENTRIES, ACCESS)


def test_a_host_knows_itself_the_others_and_the_controller():
    lines = etc_hosts("inc70", ENTRIES, "198.51.100.1").splitlines()
    assert {"198.51.100.10 inc70", "198.51.100.11 inc60", "198.51.100.1 controller"} <= set(lines)
