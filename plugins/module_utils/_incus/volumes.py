# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Custom storage volumes, as far as instances depend on them."""

from __future__ import annotations

from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient


def list_custom_volumes(client: IncusClient, pool: str, project: str) -> list[str]:
    """The names of the custom volumes on a pool that instances of a project may use."""
    volumes = client.get("storage-pools/{}/volumes/custom", pool, project=project, recursion=1)
    return [str(volume["name"]) for volume in volumes or ()]
