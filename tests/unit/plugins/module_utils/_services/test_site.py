# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a set says of its maker."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.incus_fleet.backup.plugins.module_utils._services import site


def test_sets_name_the_version_that_made_them() -> None:
    root = Path(site.__file__).parents[3]
    version = re.search(r"^version: (\S+)$", (root / "galaxy.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert f"incus_fleet.backup {version[1]}" == site.MADE_BY
