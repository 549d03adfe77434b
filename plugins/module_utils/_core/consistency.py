# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""What an export of an instance is worth: driver × type × power state → method and guarantee, as plain facts.

Incus never freezes what it exports. Only ZFS and btrfs *file system* volumes are read from a temporary snapshot, all
else is read while it changes (incus: internal/server/storage/drivers, BackupVolume of each driver).
"""

from __future__ import annotations

from dataclasses import dataclass

_SNAPSHOT_DRIVERS = ("btrfs", "zfs")
OPTIMIZED_DRIVERS = ("btrfs", "zfs")


@dataclass(frozen=True)
class Consistency:
    """``method``: how the bytes were brought to rest; ``guarantee``: what a restored copy can be relied on for."""

    method: str
    guarantee: str


COLD = Consistency("cold", "application")
FROZEN = Consistency("frozen", "crash")
SNAPSHOT = Consistency("snapshot", "crash")
LIVE = Consistency("live", "none")


def consistency(*, driver: str, instance_type: str, status: str) -> Consistency:
    """What can be said of an export that begins while the instance has ``status`` (Stopped, Running, Frozen …)."""
    if status == "Stopped":
        return COLD
    if status == "Frozen":
        return FROZEN
    if driver in _SNAPSHOT_DRIVERS and instance_type == "container":
        return SNAPSHOT
    return LIVE


def confirmed(planned: Consistency, *, before: tuple[str, str], after: tuple[str, str] | None) -> Consistency:
    """The same once the bytes are read.

    ``before`` and ``after`` are (status, last start); ``after`` is None where it could not be read.  A guest that was
    at rest by its power state and did not stay so was read live.  A snapshot needs nobody to stay at rest.
    """
    if planned in (COLD, FROZEN) and after != before:
        return LIVE
    return planned
