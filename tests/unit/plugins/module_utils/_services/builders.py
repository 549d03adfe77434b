# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances and pools, as a server describes them."""

from __future__ import annotations

from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import Instance, Pool

ROOT_DISK = {"type": "disk", "path": "/", "pool": "default"}
NIC = {"type": "nic", "name": "eth0", "network": "incusbr0"}
MAC = "10:66:6a:00:00:01"


def described(name: str, project: str = "default", **changes: Any) -> dict[str, Any]:
    """A running container in the API's own words (GET /1.0/instances?recursion=2)."""
    told: dict[str, Any] = {
        "name": name,
        "project": project,
        "type": "container",
        "status": "Running",
        "status_code": 103,
        "location": "none",
        "architecture": "x86_64",
        "last_used_at": "2026-11-20T10:00:00Z",
        "config": {"volatile.uuid": f"uuid-of-{name}", "volatile.eth0.hwaddr": MAC},
        "expanded_devices": {"root": ROOT_DISK, "eth0": NIC},
        "profiles": ["default"],
        "snapshots": [],
        "backups": [],
    }
    return {**told, **changes}


def snapshot(name: str, created_at: str = "2026-11-20T00:00:00Z", **changes: Any) -> dict[str, Any]:
    """A snapshot that never expires."""
    return {"name": name, "created_at": created_at, "expires_at": "0001-01-01T00:00:00Z", "profiles": [], **changes}


def an_instance(name: str, project: str = "default", **changes: Any) -> Instance:
    """The same, read."""
    return Instance.parse(described(name, project, **changes))


def a_pool(name: str, driver: str = "btrfs", status: str = "Created") -> Pool:
    """A storage pool."""
    return Pool(name=name, driver=driver, source=f"/dev/disk/{name}", status=status, config={}, raw={})
