#!/usr/bin/python
# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: incus_export
short_description: Export instances of an Incus server into a backup set
version_added: 0.1.0
description:
  - Exports instances, several at a time, as tarballs that C(incus import) accepts, into a set of a store.
  - Every archive is read to its end marker while it streams, hashed before and after compression, and its index is
    compared with
    the server, so that a cut stream is never taken for a backup.
  - Where the server has the API extension C(direct_backup) (Incus 6.0.6, 6.22 and later) the bytes stream straight
    into the store
    and nothing is staged on the server. Otherwise a temporary backup is made there, downloaded and deleted.
  - Without O(set) the module opens a set of its own and publishes it. A set that an earlier run left unfinished is
    gone on with.
  - One instance that fails does not stop the others. The task fails at the end and names what failed.
  - A running instance is exported as it runs. What that is worth is recorded as C(method) and C(guarantee) of each
    artifact.
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
  diff_mode:
    support: none
    details:
      - An export adds a file and changes none. RV(plan) tells what it takes, and why.
  idempotent:
    support: partial
    details:
      - Every run takes a new backup, unless O(max_age) says that a younger one is enough.
options:
  set:
    description:
      - The name of the set that M(incus_fleet.backup.incus_backup_set) opened for this run. O(run_id) is needed too.
      - Without it the module opens and publishes a set of its own.
    type: str
  run_id:
    description: The identifier of the run over the fleet. Made up where it is not given.
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
  max_age:
    description:
      - If the site has a complete set that is younger than this and holds everything selected, made with the same
        options, nothing
        is done. In seconds or for example V(20h).
    type: str
  instance_only:
    description: Leave the instances' snapshots out.
    type: bool
    default: false
  optimized_storage:
    description:
      - Use the storage driver's own format (ZFS and btrfs). It can only be restored to a pool of the same driver.
      - An instance on a pool whose driver has no such format fails, unless O(optimized_fallback=true).
    type: bool
    default: false
  optimized_fallback:
    description: Export in the plain format, and record it, where O(optimized_storage) is not possible.
    type: bool
    default: false
  compression:
    description:
      - V(zstd), V(gzip) or V(none), with a level if wanted, for example V(zstd-9).
      - Done by the host on which the module runs, with the command of that name.
    type: str
    default: zstd
  compress_threads:
    description: Threads of each compression (zstd only). V(0) uses what leaves one core to the guests.
    type: int
    default: 0
  parallel:
    description: How many instances are exported at a time.
    type: int
    default: 2
  nice:
    description: By how much the compression gives way to other processes, from V(0) to V(19).
    type: int
    default: 10
  rate_limit:
    description: The most bytes in a second that are read from the server, all exports together. V(0) is no limit.
    type: int
    default: 0
  state_directory:
    description: Where the module shows its progress while it works.
    type: path
    default: /var/lib/incus-fleet
seealso:
  - module: incus_fleet.backup.incus_import
  - module: incus_fleet.backup.incus_backup_info
"""

EXAMPLES = r"""
---
- name: Export every instance of this host's server
  incus_fleet.backup.incus_export:
    store: /srv/backup
    site: "{{ inventory_hostname }}"

- name: Export two instances, without their snapshots, unless that was done today
  incus_fleet.backup.incus_export:
    store: /srv/backup
    site: "{{ inventory_hostname }}"
    instances:
      - web
      - shop/db
    instance_only: true
    max_age: 20h

- name: Pull what is tagged from another server
  incus_fleet.backup.incus_export:
    url: https://incus1.example.net:8443
    client_cert: /etc/incus-fleet/client.crt
    client_key: /etc/incus-fleet/client.key
    server_cert: /etc/incus-fleet/incus1.crt
    store: /srv/backup
    site: incus1
    query: config."user.tier" == 'gold'
"""

RETURN = r"""
set:
  description: The name of the set, null where none was made.
  returned: success
  type: str
  sample: 20261123T141500Z-partial-7f3a
set_path:
  description: Where the published set lies, relative to O(store).
  returned: success
  type: str
run_id:
  description: The identifier of the run.
  returned: success
  type: str
result:
  description: V(complete) or V(with_failures), null for a set that is still open.
  returned: success
  type: str
reason:
  description: Why nothing was done, where nothing was.
  returned: success
  type: str
resumed_from:
  description: The runs whose unfinished set was gone on with.
  returned: success
  type: list
  elements: str
plan:
  description: What is (or in check mode, would be) done with each instance, and why.
  returned: success
  type: list
  elements: dict
artifacts:
  description: What is in the set now, in short. The whole truth is in its manifest.
  returned: success
  type: list
  elements: dict
failures:
  description: What failed, with C(error), C(message), C(operation), C(server), C(entity), C(server_said) and C(hint).
  returned: always
  type: list
  elements: dict
succeeded:
  description: How many artifacts are in the set.
  returned: success
  type: int
stored_bytes:
  description: Their size in the store.
  returned: success
  type: int
plain_bytes:
  description: Their size before compression.
  returned: success
  type: int
swept:
  description: Temporary backups of dead runs that were deleted on the server.
  returned: success
  type: list
  elements: str
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
    WRITE,
    connection_of,
    make_module,
    selection_of,
    site_options_of,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.run import ModuleContext, run_module
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Compression
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import parse_duration
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export import Run, run_export
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export_plan import ExportOptions

OWN: dict[str, dict[str, Any]] = {
    "max_age": {"type": "str"},
    "instance_only": {"type": "bool", "default": False},
    "optimized_storage": {"type": "bool", "default": False},
    "optimized_fallback": {"type": "bool", "default": False},
    "compression": {"type": "str", "default": "zstd"},
    "compress_threads": {"type": "int", "default": 0},
    "parallel": {"type": "int", "default": 2},
    "nice": {"type": "int", "default": 10},
    "rate_limit": {"type": "int", "default": 0},
}


def work(context: ModuleContext) -> dict[str, Any]:
    """Options in, result out."""
    params = context.params
    client = IncusClient.connect(connection_of(params), workdir=context.workdir)
    run = Run(
        where=site_options_of(params, check_mode=context.check_mode),
        options=ExportOptions(
            selection=selection_of(params),
            project=params["project"],
            instance_only=params["instance_only"],
            optimized_storage=params["optimized_storage"],
            optimized_fallback=params["optimized_fallback"],
            compression=Compression.parse(params["compression"]),
            compress_threads=params["compress_threads"],
            nice=params["nice"],
            rate_limit=params["rate_limit"],
            parallel=params["parallel"],
        ),
        max_age=parse_duration(params["max_age"], "max_age") if params["max_age"] is not None else None,
        state_directory=Path(params["state_directory"]),
        stop=context.stop,
    )
    result = run_export(client, run)
    for warning in result.warnings:
        context.warn(warning)
    return result.told()


def main() -> None:
    """The module's entry point."""
    run_module(make_module(OWN, CONNECTION, STORE, WRITE, SELECTION, STATE_DIRECTORY, **CONNECTION_CONSTRAINTS), work)


if __name__ == "__main__":
    main()
