# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Opens, publishes and aborts a run's set, for runs that fill one set by several modules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import SetInvalid, UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import COMPLETE, Manifest
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.site import (
    Site,
    SiteOptions,
    own_pools,
    placement_warnings,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import (
    Filter,
    published_sets,
    read_set,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import ensure_free, live_lease
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import (
    drop_dead_sets,
    incomplete_sets,
    join_set,
    read_head,
)

Answer = tuple[dict[str, Any], list[str]]
"""A module's result and its warnings."""


def open_backup_set(client: IncusClient, options: SiteOptions) -> Answer:
    """Open the run's set, or go on with a dead one, and keep the lease for the modules that fill it.

    Opening the same run's set again is no change. Raises LeaseHeld, OwnerMismatch, StoreError.
    """
    site = Site.of(client, replace(options, set=None))
    placement = site.place(client, own_pools(client, site.server))
    warnings = placement_warnings(placement)
    if options.check_mode:
        ensure_free(site.store, site.directory, site.run_id)
        return _answer(site, changed=True, set_name=None, state="would be opened"), warnings
    with site.lease() as lease:
        before = lease.replaced.set if lease.replaced and lease.replaced.run_id == site.run_id else None
        writer = site.writer(lease, placement)
        lease.hand_on()
    told = _answer(site, changed=writer.head.name != before, set_name=writer.head.name, state="incomplete")
    return {**told, "resumed_from": list(writer.head.resumed_from)}, warnings


def publish_backup_set(client: IncusClient, options: SiteOptions) -> Answer:
    """Write the manifest of the run's open set and give it its final name; done already is no change.

    Raises SetInvalid where there is no such set, StoreError where it is empty.
    """
    site, name = _named(client, options)
    if name is None:
        raise SetInvalid(f"run {site.run_id} has no set in {site.name}", operation="find the set")
    path = f"{site.directory}/{name}"
    if site.store.exists(path):
        found = read_set(site.store, path, site.name, site.server.member)
        return _published(site, found.manifest, changed=False), []
    if options.check_mode:
        _check_open(site, name)
        return _answer(site, changed=True, set_name=name, state="would be published"), []
    with site.lease() as lease:
        manifest = join_set(site.store, site.directory, lease, name, site.run_id).publish()
        if manifest.result == COMPLETE:  # under the lease: without it another run may be going on with one of them
            drop_dead_sets(site.store, site.directory, older_than=options.resume_within)
    return _published(site, manifest, changed=True), []


def suspend_backup_set(client: IncusClient, options: SiteOptions) -> Answer:
    """Give the run's lease back and leave its set as it is, so that the next run need not wait to go on with it.

    Where the run has no lease, that is no change.
    """
    if not options.run_id:
        raise UsageError("run_id is required to suspend a set")
    site = Site.of(client, options)
    held = live_lease(site.store, site.directory)
    if held is None or held.run_id != site.run_id:
        return _answer(site, changed=False, set_name=options.set, state="incomplete"), []
    if options.check_mode:
        return _answer(site, changed=True, set_name=held.set, state="would be suspended"), []
    with site.lease():
        pass  # taken, and given back at the end of the block
    return _answer(site, changed=True, set_name=held.set, state="incomplete"), []


def abort_backup_set(client: IncusClient, options: SiteOptions) -> Answer:
    """Delete the run's open set with all that is in it, and give the lease back; a published set is never touched."""
    site, name = _named(client, options)
    if name is None:
        return _answer(site, changed=False, set_name=None, state="absent"), []
    if site.store.exists(f"{site.directory}/{name}"):
        raise SetInvalid(f"the set {name} is published and is not aborted", operation="abort the set", entity=name)
    if not site.store.exists(f"{site.directory}/{name}{INCOMPLETE_SUFFIX}"):
        return _answer(site, changed=False, set_name=name, state="absent"), []
    if options.check_mode:
        return _answer(site, changed=True, set_name=name, state="would be aborted"), []
    with site.lease() as lease:
        join_set(site.store, site.directory, lease, name, site.run_id).abort()
    return _answer(site, changed=True, set_name=name, state="absent"), []


def _named(client: IncusClient, options: SiteOptions) -> tuple[Site, str | None]:
    """The site, and the set meant: the one named, or the run's newest, open ones first (its lease may have lapsed)."""
    if not options.run_id:
        raise UsageError("run_id is required to publish or abort a set")
    site = Site.of(client, options)
    if options.set:
        return site, options.set
    for name in reversed(incomplete_sets(site.store, site.directory)):
        head = read_head(site.store, f"{site.directory}/{name}{INCOMPLETE_SUFFIX}")
        if head is not None and head.run_id == site.run_id:
            return site, name
    for found in published_sets(site.store, site.name, Filter(run_id=site.run_id))[0]:
        if found.member == site.server.member:
            return site, found.name
    return site, None


def _check_open(site: Site, name: str) -> None:
    head = read_head(site.store, f"{site.directory}/{name}{INCOMPLETE_SUFFIX}")
    if head is None or head.run_id != site.run_id:
        raise SetInvalid(f"run {site.run_id} has no open set {name} in {site.name}", operation="find the set")


def _answer(site: Site, *, changed: bool, set_name: str | None, state: str) -> dict[str, Any]:
    return {
        "changed": changed,
        "set": set_name,
        "run_id": site.run_id,
        "state": state,
        "set_path": f"{site.directory}/{set_name}" if set_name else None,
    }


def _published(site: Site, manifest: Manifest, *, changed: bool) -> dict[str, Any]:
    return {
        **_answer(site, changed=changed, set_name=manifest.set.name, state=manifest.result),
        "succeeded": len(manifest.artifacts),
        "stored_bytes": manifest.stored_bytes,
        "seconds": manifest.seconds,
    }
