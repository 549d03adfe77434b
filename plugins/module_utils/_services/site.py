# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""A server and its place in a store: identity, directory, ownership, and the lease that a run works under."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact, ServerIdentity, SetHead
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import (
    checked_run_id,
    checked_site,
    new_run_id,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.placement import (
    Placement,
    ProtectedPool,
    incus_directory_of,
    judge_placement,
    read_mounts,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import find_socket
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import Pool, list_pools
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import Lease, ensure_free
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import (
    claim_site,
    foreign,
    mismatch,
    read_owner,
    site_directory,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import (
    NewSet,
    SetWriter,
    find_resumable,
    join_set,
    open_set,
    whole_artifacts,
)

MADE_BY = "incus_fleet.backup 0.1.0"


@dataclass(frozen=True)
class SiteOptions:
    """Where a run's sets go, and under which conditions a set is opened."""

    store: str
    site: str | None
    store_create: bool = False
    adopt: bool = False
    run_id: str | None = None
    resume_within: int = 86400
    set: str | None = None
    target: str | None = None
    check_mode: bool = False


class Site:
    """One server's place in a store, before and under the lease."""

    def __init__(self, store: DirectoryStore, site: str, server: ServerIdentity, options: SiteOptions) -> None:
        self.store = store
        self.name = site
        self.server = server
        self.options = options
        self.run_id = checked_run_id(options.run_id) if options.run_id else new_run_id()
        self.directory = site_directory(site, server.member)

    @classmethod
    def of(cls, client: IncusClient, options: SiteOptions) -> Site:
        """The site of the server behind ``client``; refuses one that is another server's (before anything is written).

        Raises UsageError, StoreError, OwnerMismatch.
        """
        if not options.site:
            raise UsageError("site is required", hint="Name the server (or cluster) that the set is of")
        if options.set and not options.run_id:
            raise UsageError("a set of a run needs its run_id too", hint="Pass the one that incus_backup_set returned")
        server = identify(client, options.target)
        store = DirectoryStore.attach(options.store, create=options.store_create, dry_run=options.check_mode)
        site = cls(store, checked_site(options.site), server, options)
        owner = read_owner(store, site.directory)
        reason = mismatch(owner, server) if owner is not None else None
        if reason is not None and not options.adopt:
            raise foreign(site.name, reason, store.location)
        return site

    def place(self, client: IncusClient, pools: Iterable[Pool]) -> Placement:
        """Check where the store lies (rule 8.10). Raises StoreError where that is on what it protects."""
        directory = None
        if not client.connection.is_remote:
            socket = client.connection.socket or find_socket(os.environ)
            directory = incus_directory_of(socket, os.environ.get("INCUS_DIR"))
        return judge_placement(
            os.path.realpath(self.store.location),
            incus_directory=directory,
            pools=[ProtectedPool(pool.name, pool.driver, pool.source or "") for pool in pools],
            mounts=read_mounts(),
        )

    def lease(self) -> Lease:
        """Take the site's lease for this run. Raises LeaseHeld."""
        return Lease.acquire(self.store, self.directory, self.run_id)

    def writer(self, lease: Lease, placement: Placement) -> SetWriter:
        """The run's set: joined, resumed, or new. The caller holds the lease."""
        claim_site(self.store, self.directory, self.name, self.server, adopt=self.options.adopt)
        if self.options.set:
            return join_set(self.store, self.directory, lease, self.options.set, self.run_id)
        new, usable = self._wanted(placement)
        within = self.options.resume_within
        return open_set(self.store, self.directory, lease, new, resume_within=within, usable=usable)

    def finished(self, placement: Placement) -> list[Artifact]:
        """What check mode has to know: the artifacts in the set that a real run would go on with.

        Raises LeaseHeld as a real run would.
        """
        ensure_free(self.store, self.directory, self.run_id)
        if self.options.set:
            return whole_artifacts(self.store, f"{self.directory}/{self.options.set}{INCOMPLETE_SUFFIX}")
        new, usable = self._wanted(placement)
        within = self.options.resume_within
        head = find_resumable(self.store, self.directory, new, resume_within=within, usable=usable)
        return whole_artifacts(self.store, f"{self.directory}/{head.name}{INCOMPLETE_SUFFIX}") if head else []

    def _wanted(self, placement: Placement) -> tuple[NewSet, Callable[[SetHead], bool]]:
        new = NewSet(
            site=self.name,
            kind="partial",
            run_id=self.run_id,
            server=self.server,
            off_host=placement.off_host,
            same_device=placement.same_device,
            made_by=MADE_BY,
        )
        return new, lambda head: (head.off_host, head.same_device) == (placement.off_host, placement.same_device)


def own_pools(client: IncusClient, server: ServerIdentity) -> list[Pool]:
    """The storage pools; in a cluster with the settings of the member that is meant."""
    return list_pools(client, target=server.member)


def identify(client: IncusClient, target: str | None) -> ServerIdentity:
    """Who the server is, for owner records and manifests.

    In a cluster it is one member: ``target``, or the one that answers.  Raises UsageError for a target elsewhere.
    """
    facts = client.facts
    if target and not facts.clustered:
        raise UsageError(f"target {target!r} makes sense with a cluster only", server=client.server)
    return ServerIdentity(
        name=facts.name,
        version=facts.version,
        clustered=facts.clustered,
        member=(target or facts.name) if facts.clustered else None,
        certificate_fingerprint=facts.certificate_fingerprint,
        extensions=tuple(sorted(facts.extensions)),
    )


def placement_warnings(placement: Placement) -> list[str]:
    """What a user must be told of a store that is too near."""
    if placement.same_device:
        return ["the store lies on the same device as Incus itself: this backup dies with the server (off_host: false)"]
    return []
