#!/usr/bin/python
# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: incus_backup_set
short_description: Open, publish, suspend or abort the backup set of a run
version_added: 0.1.0
description:
  - A set holds the artifacts of one run for one server. A module that makes artifacts opens and publishes one of its
    own, unless it
    is given one that this module opened. So several modules can fill one set.
  - Opening takes a lease on the site, which the modules of the same run hand on to each other. Another run is refused
    meanwhile.
  - Publishing writes the manifest, last of all. Only then the set counts.
author:
  - The incus_fleet.backup authors (@incus-fleet)
extends_documentation_fragment:
  - incus_fleet.backup._attributes
  - incus_fleet.backup._attributes.server_and_store
  - incus_fleet.backup._connection
  - incus_fleet.backup._store
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
    details:
      - The set's state before and after is all there is to tell, and RV(state) tells it.
  idempotent:
    support: full
options:
  state:
    description:
      - V(open) opens a set, or goes on with one that a run left unfinished within O(resume_within).
      - V(published) writes the manifest of the run's open set and gives the set its final name.
      - V(suspended) leaves the run's open set as it is, for a run that failed. The next run need not wait for the
        lease to lapse before it goes on with the set.
      - V(aborted) deletes the run's open set with all that is in it. A published set is never touched.
    type: str
    choices:
      - open
      - published
      - suspended
      - aborted
    default: open
  set:
    description: The set's name, for O(state=published) and O(state=aborted). By default the one that the run opened
      last.
    type: str
  run_id:
    description: The identifier of the run over the fleet. Made up for O(state=open) where it is not given, required
      otherwise.
    type: str
  store_create:
    description: Whether O(store) may be made into a store. Needed once, and only accepted for an empty or absent
      directory.
    type: bool
    default: false
  adopt:
    description: Accept a site that belongs to another certificate, and remember this one too. For a server that was
      rebuilt.
    type: bool
    default: false
  resume_within:
    description: How old an unfinished set may be to be gone on with, in seconds or for example V(12h).
    type: str
    default: 24h
seealso:
  - module: incus_fleet.backup.incus_export
"""

EXAMPLES = r"""
---
- name: Open a set
  incus_fleet.backup.incus_backup_set:
    store: /srv/backup
    site: "{{ inventory_hostname }}"
  register: opened

- name: Fill it
  incus_fleet.backup.incus_export:
    store: /srv/backup
    site: "{{ inventory_hostname }}"
    set: "{{ opened.set }}"
    run_id: "{{ opened.run_id }}"

- name: Publish it
  incus_fleet.backup.incus_backup_set:
    store: /srv/backup
    site: "{{ inventory_hostname }}"
    run_id: "{{ opened.run_id }}"
    state: published
"""

RETURN = r"""
set:
  description: The set's name.
  returned: success
  type: str
set_path:
  description: Where the set lies (or will lie, once it is published), relative to O(store).
  returned: success
  type: str
run_id:
  description: The identifier of the run.
  returned: success
  type: str
state:
  description: What the set is now, V(incomplete), V(complete), V(with_failures) or V(absent). In check mode, what
    would be done.
  returned: success
  type: str
resumed_from:
  description: The runs whose unfinished set was gone on with.
  returned: when O(state=open)
  type: list
  elements: str
succeeded:
  description: How many artifacts the set holds.
  returned: when O(state=published)
  type: int
stored_bytes:
  description: Their size in the store.
  returned: when O(state=published)
  type: int
seconds:
  description: How long it took from opening to publishing.
  returned: when O(state=published)
  type: float
"""

from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.argspec import (
    CONNECTION,
    CONNECTION_CONSTRAINTS,
    STORE,
    WRITE,
    connection_of,
    make_module,
    site_options_of,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.run import ModuleContext, run_module
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.backup_set import (
    abort_backup_set,
    open_backup_set,
    publish_backup_set,
    suspend_backup_set,
)

OWN: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "choices": ["open", "published", "suspended", "aborted"], "default": "open"},
}
_ACTIONS = {
    "open": open_backup_set,
    "published": publish_backup_set,
    "suspended": suspend_backup_set,
    "aborted": abort_backup_set,
}


def work(context: ModuleContext) -> dict[str, Any]:
    """Options in, result out."""
    client = IncusClient.connect(connection_of(context.params), workdir=context.workdir)
    action = _ACTIONS[context.params["state"]]
    result, warnings = action(client, site_options_of(context.params, check_mode=context.check_mode))
    for warning in warnings:
        context.warn(warning)
    return result


def main() -> None:
    """The module's entry point."""
    run_module(make_module(OWN, CONNECTION, STORE, WRITE, **CONNECTION_CONSTRAINTS), work)


if __name__ == "__main__":
    main()
