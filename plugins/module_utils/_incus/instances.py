# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""What is on a server, as far as backups care: instances with their snapshots, and what they depend on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import ServerError
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient

_VOLATILE_MAC = re.compile(r"volatile\.(?P<nic>.+)\.hwaddr")
_START_SECONDS = 60


@dataclass(frozen=True)
class Snapshot:
    """An instance's snapshot; times as the server writes them, Go's zero time where there is none."""

    name: str
    created_at: str | None
    expires_at: str | None
    stateful: bool
    profiles: tuple[str, ...]


@dataclass(frozen=True)
class Instance:
    """An instance; ``raw`` is the API's own object, ``backups`` are the names of what lies on the server for it."""

    project: str
    name: str
    type: str
    status: str
    location: str
    architecture: str
    last_used_at: str
    config: Mapping[str, str]
    expanded_devices: Mapping[str, Mapping[str, str]]
    profiles: tuple[str, ...]
    snapshots: tuple[Snapshot, ...]
    backups: tuple[str, ...]
    raw: dict[str, Any]

    @property
    def uuid(self) -> str | None:
        """The identity that Incus gave it."""
        return self.config.get("volatile.uuid") or None

    @property
    def macs(self) -> dict[str, str]:
        """The MAC address that Incus generated for each network device."""
        found = ((_VOLATILE_MAC.fullmatch(key), value) for key, value in self.config.items())
        return {match["nic"]: value for match, value in found if match and value}

    @property
    def pool(self) -> str | None:
        """The pool of its root disk."""
        for device in self.expanded_devices.values():
            if device.get("type") == "disk" and device.get("path") == "/" and not device.get("source"):
                return device.get("pool")
        return None


@dataclass(frozen=True)
class Pool:
    """A storage pool; ``source`` is empty where the server does not show it."""

    name: str
    driver: str
    status: str
    source: str


@dataclass(frozen=True)
class Project:
    """A project with the features that decide where its entities live (doc/reference/projects)."""

    name: str
    config: Mapping[str, str]

    @property
    def has_profiles(self) -> bool:
        """Whether it has profiles of its own, rather than those of ``default``."""
        return self._has("profiles")

    @property
    def has_networks(self) -> bool:
        """Whether it has networks of its own."""
        return self._has("networks")

    @property
    def has_storage_volumes(self) -> bool:
        """Whether it has custom volumes of its own."""
        return self._has("storage.volumes")

    @property
    def forbids_backups(self) -> bool:
        """Whether exports are refused: in a restricted project they are, unless allowed (config_options.txt)."""
        return self.config.get("restricted") == "true" and self.config.get("restricted.backups", "block") == "block"

    def _has(self, feature: str) -> bool:
        return self.name == "default" or self.config.get(f"features.{feature}") == "true"


@dataclass(frozen=True)
class Entity:
    """Anything else that has a project and a name; ``pool`` where it lies on one."""

    project: str
    name: str
    pool: str = ""


def list_instances(client: IncusClient, *, project: str | None = None) -> list[Instance]:
    """All instances of a project, or of all projects, with snapshots and backups: one request however many there are."""
    where: dict[str, Any] = {"project": project} if project else {"all-projects": "true"}
    return [_instance(raw) for raw in client.get("instances", recursion=2, **where)]


def get_instance(client: IncusClient, project: str, name: str) -> Instance:
    """One instance with its snapshots. Raises NotFound."""
    return _instance(client.get("instances/{}", name, project=project, recursion=1))


def list_pools(client: IncusClient) -> list[Pool]:
    """The storage pools. In a cluster, ``source`` is what the contacted member uses."""
    target = client.facts.name if client.facts.clustered else None
    pools = client.get("storage-pools", recursion=1, target=target)
    return [
        Pool(
            name=raw["name"],
            driver=raw["driver"],
            status=raw.get("status", ""),
            source=(raw.get("config") or {}).get("source", ""),
        )
        for raw in pools
    ]


def list_projects(client: IncusClient) -> list[Project]:
    """The projects that the connection may see."""
    return [Project(raw["name"], raw.get("config") or {}) for raw in client.get("projects", recursion=1)]


def list_profiles(client: IncusClient, projects: Iterable[str]) -> list[Entity]:
    """The profiles of the projects."""
    return _entities(client, "profiles", projects)


def list_networks(client: IncusClient, projects: Iterable[str]) -> list[Entity]:
    """The networks of the projects, managed or not."""
    return _entities(client, "networks", projects)


def list_custom_volumes(client: IncusClient, pool: str, projects: Iterable[str]) -> list[Entity]:
    """The custom volumes of the projects on one pool."""
    return [
        Entity(project, raw["name"], pool)
        for project in projects
        for raw in client.get("storage-pools/{}/volumes/custom", pool, project=project, recursion=1)
    ]


def patch_config(client: IncusClient, project: str, name: str, config: Mapping[str, str]) -> None:
    """Change some configuration keys of an instance; an empty value takes a key away, nothing rewrites its files."""
    client.patch("instances/{}", name, project=project, body={"config": dict(config)} if config else {})


def set_snapshot_expiry(client: IncusClient, project: str, name: str, snapshot: str, expires_at: str) -> None:
    """Give a snapshot its expiry (RFC 3339)."""
    client.put("instances/{}/snapshots/{}", name, snapshot, project=project, body={"expires_at": expires_at})


def start_instance(client: IncusClient, project: str, name: str) -> None:
    """Start a stopped instance and wait for the daemon to say that it runs."""
    client.put("instances/{}/state", name, project=project, body={"action": "start", "timeout": _START_SECONDS})


def _entities(client: IncusClient, kind: str, projects: Iterable[str]) -> list[Entity]:
    return [
        Entity(project, raw["name"]) for project in projects for raw in client.get(kind, project=project, recursion=1)
    ]


def _instance(raw: dict[str, Any]) -> Instance:
    try:
        return Instance(
            project=raw["project"],
            name=raw["name"],
            type=raw["type"],
            status=raw["status"],
            location=raw.get("location", ""),
            architecture=raw.get("architecture", ""),
            last_used_at=raw.get("last_used_at", ""),
            config=raw.get("config") or {},
            expanded_devices=raw.get("expanded_devices") or {},
            profiles=tuple(raw.get("profiles") or ()),
            snapshots=tuple(_snapshot(snapshot) for snapshot in raw.get("snapshots") or ()),
            backups=tuple(backup["name"].rpartition("/")[2] for backup in raw.get("backups") or ()),
            raw=raw,
        )
    except (KeyError, TypeError) as error:
        raise ServerError(f"the server described an instance without {error}", operation="list instances") from error


def _snapshot(raw: Mapping[str, Any]) -> Snapshot:
    return Snapshot(
        name=raw["name"].rpartition("/")[2],
        created_at=raw.get("created_at"),
        expires_at=raw.get("expires_at"),
        stateful=bool(raw.get("stateful")),
        profiles=tuple(raw.get("profiles") or ()),
    )
