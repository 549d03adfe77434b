#!/usr/bin/python
# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: incus_backup_info
short_description: List and pick backup sets and recovery points of a store
version_added: 0.1.0
description:
  - Reads the manifests in a store. Only published sets count. Unfinished and unreadable ones are listed apart.
  - Needs no Incus server.
author:
  - The incus_fleet.backup authors (@incus-fleet)
extends_documentation_fragment:
  - incus_fleet.backup._attributes
  - incus_fleet.backup._attributes.store
  - incus_fleet.backup._store
attributes:
  check_mode:
    support: full
    details:
      - This module does not change anything.
  diff_mode:
    support: N/A
    details:
      - This module does not change anything.
  idempotent:
    support: full
    details:
      - This module does not change anything.
options:
  kind:
    description: Only sets of this kind.
    type: str
    choices:
      - partial
      - full
  result:
    description: Only sets with this result.
    type: str
    choices:
      - complete
      - with_failures
  run_id:
    description: Only sets of this run.
    type: str
  before:
    description: Only sets that were opened before this moment, for example V(2026-11-23T14:15:00Z) or V(2026-11-23),
      in UTC.
    type: str
  after:
    description: Only sets that were opened at this moment or later.
    type: str
  project:
    description: Only recovery points of this project, and sets that have some.
    type: str
  name:
    description: Only recovery points of the entity with exactly this name, and sets that have some.
    type: str
  limit:
    description: At most this many sets, the newest ones.
    type: int
seealso:
  - module: incus_fleet.backup.incus_import
"""

EXAMPLES = r"""
---
- name: Find the newest complete set of a server before the accident
  incus_fleet.backup.incus_backup_info:
    store: /srv/backup
    site: incus1
    before: "2026-11-23T02:00:00Z"
    result: complete
    limit: 1
  register: found

- name: List the recovery points of one instance
  incus_fleet.backup.incus_backup_info:
    store: /srv/backup
    site: incus1
    project: shop
    name: db
"""

RETURN = r"""
sets:
  description: The published sets that fit, newest first.
  returned: success
  type: list
  elements: dict
newest:
  description: The newest of them without failures, null where there is none.
  returned: success
  type: dict
recovery_points:
  description: Every artifact in those sets that fits, newest set first.
  returned: success
  type: list
  elements: dict
incomplete:
  description: Sets that are not published. C(alive) tells whether a run is at work on it.
  returned: success
  type: list
  elements: dict
broken:
  description: Sets whose manifest cannot be read, and why.
  returned: success
  type: list
  elements: dict
truncated:
  description: Which lists were cut because the answer would have been too long. The manifest has all of it.
  returned: when something was cut
  type: list
  elements: str
"""

from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.argspec import STORE, make_module
from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.run import ModuleContext, run_module
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import parse_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import checked_site
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.catalogue import Question, describe_store
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import Filter
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore

OWN: dict[str, dict[str, Any]] = {
    "kind": {"type": "str", "choices": ["partial", "full"]},
    "result": {"type": "str", "choices": ["complete", "with_failures"]},
    "run_id": {"type": "str"},
    "before": {"type": "str"},
    "after": {"type": "str"},
    "project": {"type": "str"},
    "name": {"type": "str"},
    "limit": {"type": "int"},
}


def work(context: ModuleContext) -> dict[str, Any]:
    """Options in, result out."""
    params = context.params
    if params["limit"] is not None and params["limit"] < 1:
        raise UsageError("limit must be at least 1")
    question = Question(
        site=checked_site(params["site"]) if params["site"] is not None else None,
        wanted=Filter(
            kind=params["kind"],
            result=params["result"],
            run_id=params["run_id"],
            before=parse_moment(params["before"], "before") if params["before"] is not None else None,
            after=parse_moment(params["after"], "after") if params["after"] is not None else None,
        ),
        project=params["project"],
        name=params["name"],
        limit=params["limit"],
    )
    return describe_store(DirectoryStore.attach(params["store"], create=False), question)


def main() -> None:
    """The module's entry point."""
    run_module(make_module(OWN, STORE), work)


if __name__ == "__main__":
    main()
