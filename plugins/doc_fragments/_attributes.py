# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """What every module promises, or does not."""

    DOCUMENTATION = r"""
options: {}
requirements:
  - python >= 3.10
  - pylxd >= 2.4.1
  - jmespath >= 1.0.0
attributes:
  check_mode:
    description: Can run in C(check_mode) and return what a real run would do, without changing anything.
  diff_mode:
    description: Returns details on what has changed (or would change) in diff mode.
  idempotent:
    description: Run again with the same options and nothing changed meanwhile, it changes nothing.
"""

    SERVER = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/incus_fleet.backup.server) in C(module_defaults) to set the connection's options for all
      its modules.
    support: full
    membership:
      - incus_fleet.backup.server
"""

    STORE = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/incus_fleet.backup.store) in C(module_defaults) to set the store's options for all its
      modules.
    support: full
    membership:
      - incus_fleet.backup.store
"""

    SERVER_AND_STORE = r"""
options: {}
attributes:
  action_group:
    description:
      - Use C(group/incus_fleet.backup.server) and C(group/incus_fleet.backup.store) in C(module_defaults) to set the
        options
        of the connection and of the store for all their modules.
    support: full
    membership:
      - incus_fleet.backup.server
      - incus_fleet.backup.store
"""
