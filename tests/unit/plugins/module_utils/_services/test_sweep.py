# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import temporary_name
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.sweep import Leftover, leftovers
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import an_instance

RUN = "20261123T141500Z-0a1b2c3d"


def of(*names: str) -> list[Leftover]:
    backups: list[dict[str, Any]] = [{"name": name} for name in names]
    return leftovers([an_instance("web", "shop", backups=backups)])


def test_our_temporary_backups_are_told_with_the_run_that_made_them() -> None:
    (found,) = of(temporary_name(RUN))
    assert found == Leftover("shop", "web", f"incus-fleet-{RUN}", RUN)
    assert found.entity == f"shop/web/incus-fleet-{RUN}"


def test_servers_that_put_the_instance_before_the_name_are_understood() -> None:
    assert [found.backup for found in of(f"web/{temporary_name(RUN)}")] == [temporary_name(RUN)]


@pytest.mark.parametrize(
    "name",
    [
        "backup0",
        "incus-fleet",
        "incus-fleet-",
        f"my-incus-fleet-{RUN}",
        f"Incus-fleet-{RUN}",
        "incus-fleet-by hand",
        "incus-fleet--x",
        "incus-fleet-" + "x" * 48,
    ],
)
def test_no_other_backup_is_ever_taken_for_ours(name: str) -> None:
    assert of(name) == []


def test_servers_without_backups_have_no_leftovers() -> None:
    assert leftovers([an_instance("web", backups=None), an_instance("db", backups=[])]) == []
