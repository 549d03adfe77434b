# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Ansible inventory and the ssh configuration of a lab."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One host as Ansible and ssh see it."""

    name: str
    address: str
    version: str
    host_key: str


@dataclass(frozen=True)
class Access:
    """How the controller reaches the hosts."""

    ssh_key: Path
    known_hosts: Path

    @property
    def options(self) -> dict[str, str]:
        return {
            "UserKnownHostsFile": str(self.known_hosts),
            "StrictHostKeyChecking": "yes",
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }


def group_name(version: str) -> str:
    """The group of the hosts with one version of Incus, as Ansible allows it to be named."""
    return "incus_" + version.replace(".", "")


def yaml(value: Mapping[str, object], indent: int = 0) -> str:
    """Write nested mappings of strings, numbers and lists as YAML; every JSON scalar is a YAML scalar."""
    text = ""
    for key, item in value.items():
        text += " " * indent + f"{key}:"
        if isinstance(item, Mapping) and item:
            text += "\n" + yaml(item, indent + 2)
        else:
            text += f" {json.dumps(item)}\n"
    return text


def inventory(entries: Iterable[Entry], access: Access) -> str:
    """An Ansible inventory (YAML): all hosts in group `incus`, and one child group for each version."""
    groups: dict[str, dict[str, object]] = {}
    for entry in sorted(entries, key=lambda entry: entry.name):
        variables = {"ansible_host": entry.address, "lab_incus_version": entry.version}
        groups.setdefault(group_name(entry.version), {})[entry.name] = variables
    options = " ".join(f"-o {name}={value}" for name, value in access.options.items())
    variables = {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(access.ssh_key),
        "ansible_ssh_common_args": options,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    children = {group: {"hosts": hosts} for group, hosts in sorted(groups.items())}
    header = "# The lab's hosts. Ansible has to run in the controller's network: `lab controller ansible-playbook …`.\n"
    return header + "---\n" + yaml({"all": {"children": {"incus": {"children": children, "vars": variables}}}})


def known_hosts(entries: Iterable[Entry]) -> str:
    """The hosts' ssh keys, by address and by name."""
    return "".join(f"{entry.address},{entry.name} {entry.host_key}\n" for entry in entries)


def ssh_config(entries: Iterable[Entry], access: Access) -> str:
    """An ssh configuration with the hosts' names, for people (`lab ssh`)."""
    text = "".join(f"Host {entry.name}\n  HostName {entry.address}\n" for entry in entries)
    text += f"Host *\n  User root\n  IdentityFile {access.ssh_key}\n"
    return text + "".join(f"  {name} {value}\n" for name, value in access.options.items())


def etc_hosts(name: str, entries: Iterable[Entry], controller: str) -> str:
    """A host's /etc/hosts: itself, the controller and all others; there is no name server."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost", f"{controller} controller"]
    lines += [f"{entry.address} {entry.name}" for entry in entries]
    if not any(entry.name == name for entry in entries):
        lines.append(f"127.0.1.1 {name}")
    return "\n".join(lines) + "\n"
