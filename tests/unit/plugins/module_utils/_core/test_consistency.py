# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.consistency import (
    OPTIMIZED_DRIVERS,
    Consistency,
    confirmed,
    consistency,
)

COLD = Consistency("cold", "application")
FROZEN = Consistency("frozen", "crash")
SNAPSHOT = Consistency("snapshot", "crash")
LIVE = Consistency("live", "none")

# Every driver of Incus, and what the export of a running container and of a running machine is worth on it.
DRIVERS = {
    "btrfs": (SNAPSHOT, LIVE),
    "zfs": (SNAPSHOT, LIVE),
    "dir": (LIVE, LIVE),
    "lvm": (LIVE, LIVE),
    "lvmcluster": (LIVE, LIVE),
    "ceph": (LIVE, LIVE),
    "cephfs": (LIVE, LIVE),
    "linstor": (LIVE, LIVE),
    "truenas": (LIVE, LIVE),
    "": (LIVE, LIVE),
}
TYPES = ("container", "virtual-machine")
AT_REST = {"Stopped": COLD, "Frozen": FROZEN}
NOT_AT_REST = ("Running", "Ready", "Starting", "Stopping", "Freezing", "Thawed", "Error", "Unknown", "")
LAST_START = "2026-11-20T10:00:00Z"


@pytest.mark.parametrize("status", NOT_AT_REST)
@pytest.mark.parametrize(("kind", "column"), [(kind, column) for column, kind in enumerate(TYPES)])
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_runs_is_worth_what_its_driver_reads_from(driver: str, kind: str, column: int, status: str) -> None:
    assert consistency(driver=driver, instance_type=kind, status=status) == DRIVERS[driver][column]


@pytest.mark.parametrize("status", AT_REST)
@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("driver", DRIVERS)
def test_what_is_at_rest_is_worth_the_same_on_every_driver(driver: str, kind: str, status: str) -> None:
    assert consistency(driver=driver, instance_type=kind, status=status) == AT_REST[status]


@pytest.mark.parametrize(
    ("after", "worth"),
    [
        (("Stopped", LAST_START), COLD),
        (("Running", LAST_START), LIVE),  # started meanwhile
        (("Stopped", "2026-11-23T14:16:00Z"), LIVE),  # started and stopped again meanwhile
        (None, LIVE),  # gone meanwhile: nobody can tell
    ],
)
def test_a_stopped_guest_must_have_stayed_stopped(after: tuple[str, str] | None, worth: Consistency) -> None:
    assert confirmed(COLD, before=("Stopped", LAST_START), after=after) == worth


@pytest.mark.parametrize(
    ("after", "worth"), [(("Frozen", LAST_START), FROZEN), (("Running", LAST_START), LIVE), (None, LIVE)]
)
def test_a_frozen_guest_must_have_stayed_frozen(after: tuple[str, str] | None, worth: Consistency) -> None:
    assert confirmed(FROZEN, before=("Frozen", LAST_START), after=after) == worth


@pytest.mark.parametrize("planned", [SNAPSHOT, LIVE])
@pytest.mark.parametrize("after", [None, ("Running", LAST_START), ("Stopped", LAST_START), ("Frozen", LAST_START)])
def test_nothing_is_ever_worth_more_than_was_planned(planned: Consistency, after: tuple[str, str] | None) -> None:
    assert confirmed(planned, before=("Running", LAST_START), after=after) == planned


def test_only_drivers_with_a_send_stream_have_an_optimized_format() -> None:
    assert set(OPTIMIZED_DRIVERS) == {"btrfs", "zfs"}
