# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The formats of a set: an artifact's record, the set's own head, its manifest, and a site's owner record.

These dataclasses *are* the format; ``docs/formats`` holds a copy of their JSON schema that a test keeps equal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError

FORMAT = 1

COMPLETE = "complete"
WITH_FAILURES = "with_failures"
INCOMPLETE = "incomplete"


@dataclass(frozen=True)
class SnapshotRecord:
    """A snapshot inside an artifact; times are RFC 3339, ``expires_at`` is null where it never expires."""

    name: str
    created_at: str | None
    expires_at: str | None
    stateful: bool = False


@dataclass(frozen=True)
class Dependencies:
    """What must exist on a server before the artifact can be restored there."""

    profiles: tuple[str, ...] = ()
    snapshot_profiles: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    pools: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    dependent_volumes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Artifact:
    """One stored file of a set. ``path`` is relative to the set; sizes are bytes, ``seconds`` wall time.

    ``fixed_macs`` names the network devices whose address is configured, so that Incus cannot make a new one.

    ``stored_*`` describe the file as it lies in the store, ``plain_*`` the stream before compression and encryption.
    """

    kind: str
    project: str
    name: str
    uuid: str | None
    path: str
    stored_bytes: int
    stored_sha256: str
    plain_bytes: int
    plain_sha256: str
    compression: str
    encryption: str | None
    pool: str | None
    driver: str | None
    member: str | None
    instance_type: str | None
    architecture: str | None
    instance_only: bool
    optimized: bool
    transport: str
    method: str
    guarantee: str
    power_state: str | None
    macs: dict[str, str]
    snapshots: tuple[SnapshotRecord, ...]
    dependencies: Dependencies
    taken_at: str
    seconds: float
    options_digest: str
    warnings: tuple[str, ...] = ()
    fixed_macs: tuple[str, ...] = ()
    base: str | None = None
    chain: tuple[str, ...] = ()
    restore_seconds: float | None = None


@dataclass(frozen=True)
class Failure:
    """Something that was selected and is not in the set, with the error's facts."""

    kind: str
    project: str
    name: str
    error: str
    message: str
    operation: str | None = None
    server: str | None = None
    entity: str | None = None
    server_said: str | None = None
    hint: str | None = None

    @classmethod
    def of(cls, project: str, name: str, error: BackupError, kind: str = "instance") -> Failure:
        """The record of an error that met one entity."""
        return cls(
            kind=kind,
            project=project,
            name=name,
            error=error.kind,
            message=error.message,
            operation=error.operation,
            server=error.server,
            entity=error.entity or f"{project}/{name}",
            server_said=error.server_said,
            hint=error.hint,
        )


@dataclass(frozen=True)
class ServerIdentity:
    """Who the set was taken from."""

    name: str
    version: str
    clustered: bool
    member: str | None
    certificate_fingerprint: str
    extensions: tuple[str, ...]


@dataclass(frozen=True)
class SetHead:
    """What is known of a set from the moment it is opened; lies in it as ``set.json``."""

    format: int
    name: str
    site: str
    kind: str
    run_id: str
    started_at: str
    resumed_from: tuple[str, ...]
    server: ServerIdentity
    off_host: bool
    same_device: bool
    made_by: str


@dataclass(frozen=True)
class Manifest:
    """A published set, whole; its presence is what makes a set count."""

    format: int
    set: SetHead
    result: str
    finished_at: str
    artifacts: tuple[Artifact, ...]
    failures: tuple[Failure, ...]
    stored_bytes: int
    seconds: float
    signature: str | None = None


@dataclass(frozen=True)
class Owner:
    """Whom a site's directory belongs to; lies in it as ``site.json``."""

    format: int
    site: str
    server_name: str
    clustered: bool
    fingerprints: tuple[str, ...]
    created_at: str
    notes: dict[str, Any] = field(default_factory=dict)
