# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Instances and what they depend on, as the API lists them: typed where we decide on it, raw beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient

Devices = Mapping[str, Mapping[str, str]]

# Incus: shared/api/status_code.go
STATUS_RUNNING = 103
STATUS_STOPPED = 102
STATUS_FROZEN = 110
STATUS_ERROR = 112

# Go's zero time is how Incus says "never".
_NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class Snapshot:
    """A snapshot of an instance; ``created_at`` and ``expires_at`` are RFC 3339 as Incus writes it, None for never."""

    name: str
    created_at: str | None
    expires_at: str | None
    stateful: bool
    profiles: tuple[str, ...]
    devices: Devices
    expanded_devices: Devices
    raw: Mapping[str, Any]

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Snapshot:
        """Read one of the API's objects; older servers name it ``instance/snapshot``."""
        return cls(
            name=str(item["name"]).rpartition("/")[2],
            created_at=moment(item.get("created_at")),
            expires_at=moment(item.get("expires_at")),
            stateful=bool(item.get("stateful")),
            profiles=tuple(item.get("profiles") or ()),
            devices=item.get("devices") or {},
            expanded_devices=item.get("expanded_devices") or {},
            raw=item,
        )


@dataclass(frozen=True)
class Instance:
    """An instance with its snapshots, oldest first.  ``type`` is ``container`` or ``virtual-machine``."""

    name: str
    project: str
    type: str
    location: str
    status: str
    status_code: int
    config: Mapping[str, str]
    expanded_config: Mapping[str, str]
    devices: Devices
    expanded_devices: Devices
    profiles: tuple[str, ...]
    description: str
    architecture: str
    ephemeral: bool
    snapshots: tuple[Snapshot, ...]
    raw: Mapping[str, Any]

    @classmethod
    def parse(cls, item: Mapping[str, Any]) -> Instance:
        """Read one of the API's objects."""
        snapshots = sorted(map(Snapshot.parse, item.get("snapshots") or ()), key=lambda one: one.created_at or "")
        return cls(
            name=str(item["name"]),
            project=str(item.get("project") or "default"),
            type=str(item.get("type", "")),
            location=str(item.get("location", "")),
            status=str(item.get("status", "")),
            status_code=int(item.get("status_code") or 0),
            config=item.get("config") or {},
            expanded_config=item.get("expanded_config") or {},
            devices=item.get("devices") or {},
            expanded_devices=item.get("expanded_devices") or {},
            profiles=tuple(item.get("profiles") or ()),
            description=str(item.get("description", "")),
            architecture=str(item.get("architecture", "")),
            ephemeral=bool(item.get("ephemeral")),
            snapshots=tuple(snapshots),
            raw=item,
        )

    @property
    def is_running(self) -> bool:
        """Whether processes of the guest exist (also when frozen)."""
        return self.status_code in (STATUS_RUNNING, STATUS_FROZEN)

    @property
    def is_unknown(self) -> bool:
        """Whether the server lists it but could not look at it: its member is offline, or its description is broken.

        Everything but name, project, type and location is then missing, not empty (Incus: instances_get.go).
        """
        return self.status_code == STATUS_ERROR and not self.expanded_devices

    @property
    def uuid(self) -> str | None:
        """Its ``volatile.uuid``, the identity that survives renames."""
        return self.config.get("volatile.uuid") or None

    @property
    def macs(self) -> Mapping[str, str]:
        """Hardware addresses by device name: those of the configuration, else those that Incus made up."""
        found: dict[str, str] = {}
        for name, device in self.expanded_devices.items():
            mac = device.get("hwaddr") or self.config.get(f"volatile.{name}.hwaddr")
            if device.get("type") == "nic" and mac:
                found[name] = mac.lower()
        return found

    @property
    def fixed_macs(self) -> tuple[str, ...]:
        """The network devices whose hardware address somebody wrote into their configuration."""
        devices = self.expanded_devices.items()
        return tuple(name for name, device in devices if device.get("type") == "nic" and device.get("hwaddr"))

    @property
    def root_pool(self) -> str | None:
        """The storage pool of its root disk."""
        for device in self.expanded_devices.values():
            if device.get("type") == "disk" and device.get("path") == "/" and not device.get("source"):
                return device.get("pool")
        return None

    @property
    def networks(self) -> frozenset[str]:
        """The managed networks that its devices name."""
        devices = self.expanded_devices.values()
        return frozenset(device["network"] for device in devices if device.get("network"))


@dataclass(frozen=True)
class Pool:
    """A storage pool.  ``source`` is None where the server does not show it (on clusters, to restricted clients)."""

    name: str
    driver: str
    source: str | None
    status: str
    config: Mapping[str, str]
    raw: Mapping[str, Any]


def moment(text: object) -> str | None:
    """A point in time as the API gives it; None where it stands for never or is missing."""
    return str(text) if text and text != _NEVER else None


def list_instances(client: IncusClient, *, project: str | None = None) -> list[Instance]:
    """All instances of one project, or (None) of all projects that the client may see, in one request.

    The request is ``recursion=2``, the only one that has snapshots; the server also asks every running instance for
    its state for it.  Sorted by project and name.  For a project that does not exist the server has an empty list.
    Raises as ``IncusClient.get``.
    """
    params: dict[str, int | bool] = {"recursion": 2}
    if project is None:
        params["all-projects"] = True
    answer = _listed(client, "instances", "list instances", project, params)
    return sorted(map(Instance.parse, answer), key=lambda instance: (instance.project, instance.name))


def get_instance(client: IncusClient, project: str, name: str) -> Instance:
    """One instance with its snapshots, in one request.  Raises NotFound."""
    try:
        return Instance.parse(client.get("instances/{}", name, project=project, recursion=1))
    except BackupError as error:
        error.within(operation="read instance", entity=f"{project}/{name}")
        raise


def list_pools(client: IncusClient, *, target: str | None = None) -> list[Pool]:
    """All storage pools; on a cluster ``target`` is the member whose own settings (``source``) are wanted."""
    pools = _listed(client, "storage-pools", "list storage pools", None, {"recursion": 1}, target=target)
    return [
        Pool(
            name=str(item["name"]),
            driver=str(item.get("driver", "")),
            source=(item.get("config") or {}).get("source"),
            status=str(item.get("status", "")),
            config=item.get("config") or {},
            raw=item,
        )
        for item in pools
    ]


def list_profiles(client: IncusClient, project: str) -> dict[str, Mapping[str, Any]]:
    """The profiles that instances of a project use, by name."""
    return _by_name(_listed(client, "profiles", "list profiles", project, {"recursion": 1}))


def list_networks(client: IncusClient, project: str) -> dict[str, Mapping[str, Any]]:
    """The networks that instances of a project may use, by name; the API's ``managed`` tells Incus's own."""
    return _by_name(_listed(client, "networks", "list networks", project, {"recursion": 1}))


def list_projects(client: IncusClient) -> dict[str, Mapping[str, Any]]:
    """All projects that the client may see, by name."""
    return _by_name(_listed(client, "projects", "list projects", None, {"recursion": 1}))


def _listed(
    client: IncusClient,
    path: str,
    operation: str,
    project: str | None,
    params: Mapping[str, int | bool],
    *,
    target: str | None = None,
) -> list[Mapping[str, Any]]:
    try:
        answer = client.get(path, project=project, target=target, **params)
    except BackupError as error:
        error.within(operation=operation)
        raise
    return list(answer or ())


def _by_name(items: list[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(item["name"]): item for item in items}
