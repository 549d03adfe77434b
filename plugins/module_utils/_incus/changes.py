# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The changes to an instance that a restore makes after the import."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient

_START_SECONDS = 60


def patch_config(client: IncusClient, project: str, name: str, config: Mapping[str, str]) -> None:
    """Change some configuration keys; an empty value takes a key away.

    Incus then writes the instance's ``backup.yaml`` anew; with nothing to change that is all it does.
    """
    client.patch("instances/{}", name, project=project, body={"config": dict(config)} if config else {})


def set_snapshot_expiry(client: IncusClient, project: str, name: str, snapshot: str, expires_at: str) -> None:
    """Give a snapshot its expiry (RFC 3339)."""
    client.put("instances/{}/snapshots/{}", name, snapshot, project=project, body={"expires_at": expires_at})


def start_instance(client: IncusClient, project: str, name: str) -> None:
    """Start a stopped instance and wait until the daemon says that it runs."""
    client.put("instances/{}/state", name, project=project, body={"action": "start", "timeout": _START_SECONDS})
