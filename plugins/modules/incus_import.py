#!/usr/bin/python
# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: incus_import
short_description: Bring instances back from a backup set to an Incus server
version_added: 0.1.0
description:
  - Restores instances from the artifacts of a published set.
  - Before anything moves, everything that stands in the way is looked for and told at once, in check mode too. Names,
    MAC addresses
    and uuids that are taken, and pools, profiles (also those of snapshots), networks, volumes and projects that are
    missing.
  - Nothing that exists is ever changed or deleted. An instance of the same name is an error, or is left alone.
  - Each archive is read to its end and its checksum is compared with the manifest before it is sent, because Incus
    takes a cut
    archive for a whole one.
  - Afterwards the snapshots get their expiry back, which Incus loses on import, and C(backup.yaml) is true again, so
    that the
    instance can be recovered from its pool.
author:
  - The incus_fleet.backup authors (@incus-fleet)
extends_documentation_fragment:
  - incus_fleet.backup._attributes
  - incus_fleet.backup._attributes.server_and_store
  - incus_fleet.backup._connection
  - incus_fleet.backup._store
  - incus_fleet.backup._selection
attributes:
  check_mode:
    support: full
    details:
      - The archives themselves are read in a real run only.
  diff_mode:
    support: none
    details:
      - An import adds an instance and changes none. RV(plan) tells which.
  idempotent:
    support: partial
    details:
      - With O(conflict=skip) a second run changes nothing. With O(conflict=fail) it fails.
options:
  set:
    description: The set to restore from. By default the newest complete one of the site.
    type: str
  before:
    description: Take the newest complete set that was opened before this moment, for example V(2026-11-23T14:15:00Z),
      in UTC.
    type: str
  conflict:
    description:
      - What to do where an instance of that name exists.
      - V(fail) stops before anything is moved, and lists all of them. V(skip) leaves them alone and restores the
        others.
    type: str
    choices:
      - fail
      - skip
    default: fail
  identity:
    description:
      - What becomes of the instance's uuid and the MAC addresses that Incus gave it.
      - V(keep) brings them back. It is an error where another instance of the server has them.
      - V(regenerate) lets Incus make new ones.
      - V(auto) keeps them, and regenerates where another instance of the server has them.
    type: str
    choices:
      - keep
      - regenerate
      - auto
    default: auto
  power_state:
    description:
      - V(recorded) starts what ran when the backup was taken, and leaves the rest stopped.
      - V(stopped) starts none, V(running) starts all.
    type: str
    choices:
      - recorded
      - stopped
      - running
    default: recorded
  parallel:
    description: How many instances are restored at a time.
    type: int
    default: 2
  nice:
    description: By how much checking the archives gives way to other processes, from V(0) to V(19).
    type: int
    default: 10
  state_directory:
    description: Where the module shows its progress while it works.
    type: path
    default: /var/lib/incus-fleet
seealso:
  - module: incus_fleet.backup.incus_export
  - module: incus_fleet.backup.incus_backup_info
"""

EXAMPLES = r"""
---
- name: See what bringing back one instance would do
  incus_fleet.backup.incus_import:
    store: /srv/backup
    site: "{{ inventory_hostname }}"
    instances:
      - web
  check_mode: true

- name: Bring back what is missing, as it was on Sunday
  incus_fleet.backup.incus_import:
    store: /srv/backup
    site: "{{ inventory_hostname }}"
    before: "2026-11-23"
    conflict: skip
"""

RETURN = r"""
set:
  description: The name of the set.
  returned: success
  type: str
set_path:
  description: Where it lies, relative to O(store).
  returned: success
  type: str
plan:
  description: What is (or in check mode, would be) done with each instance, and why.
  returned: success
  type: list
  elements: dict
problems:
  description: Everything that stood in the way, each with C(code), C(entity), C(problem) and C(hint). Then nothing
    was changed.
  returned: when the preflight failed
  type: list
  elements: dict
restored:
  description: The instances that were brought back, with bytes, seconds, and what became of their identity and power
    state.
  returned: success
  type: list
  elements: dict
failures:
  description: What failed, with C(error), C(message), C(operation), C(server), C(entity), C(server_said) and C(hint).
  returned: always
  type: list
  elements: dict
succeeded:
  description: How many instances were brought back.
  returned: success
  type: int
left_alone:
  description: How many were left alone because they exist.
  returned: success
  type: int
stored_bytes:
  description: How many bytes were sent.
  returned: success
  type: int
seconds:
  description: How long it took.
  returned: success
  type: float
truncated:
  description: Which lists were cut because the answer would have been too long. The manifest has all of it.
  returned: when something was cut
  type: list
  elements: str
"""

from pathlib import Path
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.argspec import (
    CONNECTION,
    CONNECTION_CONSTRAINTS,
    SELECTION,
    STATE_DIRECTORY,
    STORE,
    connection_of,
    make_module,
    selection_of,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.run import ModuleContext, run_module
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import parse_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_ import Run, run_import
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_plan import ImportOptions

OWN: dict[str, dict[str, Any]] = {
    "set": {"type": "str"},
    "before": {"type": "str"},
    "conflict": {"type": "str", "choices": ["fail", "skip"], "default": "fail"},
    "identity": {"type": "str", "choices": ["keep", "regenerate", "auto"], "default": "auto"},
    "power_state": {"type": "str", "choices": ["recorded", "stopped", "running"], "default": "recorded"},
    "parallel": {"type": "int", "default": 2},
    "nice": {"type": "int", "default": 10},
}


def work(context: ModuleContext) -> dict[str, Any]:
    """Options in, result out."""
    params = context.params
    client = IncusClient.connect(connection_of(params), workdir=context.workdir)
    run = Run(
        store=params["store"],
        site=params["site"],
        set=params["set"],
        target=params["target"],
        before=parse_moment(params["before"], "before") if params["before"] is not None else None,
        options=ImportOptions(
            selection=selection_of(params),
            project=params["project"],
            conflict=params["conflict"],
            identity=params["identity"],
            power_state=params["power_state"],
            parallel=params["parallel"],
            nice=params["nice"],
        ),
        state_directory=Path(params["state_directory"]),
        check_mode=context.check_mode,
        stop=context.stop,
    )
    result = run_import(client, run)
    for warning in result.warnings:
        context.warn(warning)
    return result.told()


def main() -> None:
    """The module's entry point."""
    run_module(make_module(OWN, CONNECTION, STORE, SELECTION, STATE_DIRECTORY, **CONNECTION_CONSTRAINTS), work)


if __name__ == "__main__":
    main()
