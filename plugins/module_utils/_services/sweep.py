# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Clear away what dead runs left on a server: temporary backups with our prefix, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import temporary_owner
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.backups import delete_backup
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import Instance


@dataclass(frozen=True)
class Leftover:
    """A temporary backup of ours on the server."""

    project: str
    instance: str
    backup: str
    run_id: str

    @property
    def entity(self) -> str:
        """``project/instance/backup``."""
        return f"{self.project}/{self.instance}/{self.backup}"


def leftovers(instances: Iterable[Instance]) -> list[Leftover]:
    """Our temporary backups among those that the server lists. Names are exact: prefix and a run id, nothing else."""
    found = []
    for instance in instances:
        for backup in instance.raw.get("backups") or ():
            name = str(backup["name"]).rpartition("/")[2]
            run_id = temporary_owner(name)
            if run_id is not None:
                found.append(Leftover(instance.project, instance.name, name, run_id))
    return found


def sweep(client: IncusClient, found: Iterable[Leftover], dead_runs: Iterable[str]) -> tuple[list[str], list[str]]:
    """Delete the leftovers of the dead runs; the others may be alive elsewhere, and expire by themselves.

    Returns the entities that were deleted, and warnings about those that were not.
    """
    dead = set(dead_runs)
    swept, warnings = [], []
    for leftover in found:
        if leftover.run_id not in dead:
            warnings.append(
                f"the temporary backup {leftover.entity} belongs to a run that is not of this store; left alone, "
                "Incus deletes it when it expires"
            )
            continue
        try:
            delete_backup(client, leftover.project, leftover.instance, leftover.backup)
            swept.append(leftover.entity)
        except BackupError as error:
            warnings.append(f"the stale backup {leftover.entity} could not be deleted: {error.sentence()}")
    return swept, warnings
