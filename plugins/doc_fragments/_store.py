# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options that say where sets live."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - The directory that holds the backups of all sites, as an absolute path on the host where the module runs.
      - A store carries a marker (C(store.json)), so that an empty mount point is never taken for one.
    type: path
    required: true
  site:
    description:
      - Under which name the server (or the cluster) has its directory in the store, for example its name in the
        inventory.
      - The directory remembers whose it is. Another server under the same name is an error.
    type: str
"""
