# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Dependencies
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export_one import dependencies_of
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import (
    NIC,
    ROOT_DISK,
    an_instance,
    snapshot,
)


def test_what_an_instance_needs_is_read_from_its_profiles_and_devices() -> None:
    devices = {
        "root": ROOT_DISK,
        "eth0": NIC,
        "eth1": {"type": "nic", "nictype": "bridged", "parent": "br0"},  # not Incus's
        "data": {"type": "disk", "pool": "bulk", "source": "data", "path": "/data"},
        "more": {"type": "disk", "pool": "bulk", "source": "data", "path": "/more"},
        "state": {"type": "disk", "pool": "default", "source": "state", "path": "/state", "dependent": "true"},
        "host": {"type": "disk", "source": "/srv", "path": "/srv"},  # a directory of the host
        "gpu": {"type": "gpu"},
    }
    instance = an_instance("web", profiles=["default", "web"], expanded_devices=devices)
    assert dependencies_of(instance) == Dependencies(
        profiles=("default", "web"),
        networks=("incusbr0",),
        pools=("bulk", "default"),
        volumes=("bulk/data", "default/state"),
        dependent_volumes=("default/state",),
    )


def test_a_path_within_a_volume_is_not_part_of_its_name() -> None:
    disk = {"type": "disk", "pool": "bulk", "source": "data/www", "path": "/var/www", "dependent": "true"}
    needs = dependencies_of(an_instance("web", expanded_devices={"data": disk}))
    assert (needs.volumes, needs.dependent_volumes) == (("bulk/data",), ("bulk/data",))


@pytest.mark.parametrize(
    ("taken", "profiles"),
    [((), ()), (("monday",), ("old",)), (("monday", "tuesday"), ("old", "older"))],
)
def test_profiles_of_snapshots_count_where_the_snapshot_is_in_the_archive(
    taken: tuple[str, ...], profiles: tuple[str, ...]
) -> None:
    snapshots = [
        snapshot("monday", profiles=["default", "old"]),
        snapshot("tuesday", profiles=["older", "old"]),
        snapshot("wednesday", profiles=["unused"]),
    ]
    assert dependencies_of(an_instance("web", snapshots=snapshots), taken).snapshot_profiles == profiles
