# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Brings one instance back: proves the archive, sends it, mends what Incus loses on import, checks, starts."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import TarChecker
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Compression, Method
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import is_never, parse_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    ArchiveInvalid,
    BackupError,
    ChecksumMismatch,
    OperationFailed,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import now
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.pipeline import verify_stored
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus import backups, changes
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import get_instance
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_plan import (
    FINISH,
    MARKER,
    REGENERATE,
    ImportOptions,
    ImportStep,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import Store

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ImportContext:
    """What all imports of a run share; ``base`` is the set's path in the store."""

    store: Store
    base: str
    set_name: str
    options: ImportOptions
    stop: Stop
    on_progress: Callable[[str, int], None]
    warn: Callable[[str], None]


def import_instance(client: IncusClient, step: ImportStep, context: ImportContext) -> dict[str, Any]:
    """Bring one instance back; returns what became of it, for the result.

    Raises BackupError with what was tried on what.  A damaged archive is found before anything is sent.  What fails
    after the upload leaves a stopped instance with a marker, which the next run goes on with.
    """
    began = time.monotonic()
    try:
        if step.action != FINISH:
            _prove(step, context)
            _send(client, step, context)
        _compare(client, step)
        _mend(client, step, context)
        if step.start:
            _start(client, step)
    except BackupError as error:
        raise error.within(operation="import instance", server=client.server, entity=step.entity) from error
    return {
        "kind": "instance",
        "project": step.artifact.project,
        "name": step.artifact.name,
        "stored_bytes": step.artifact.stored_bytes,
        "identity": REGENERATE if step.regenerate else "keep",
        "started": step.start,
        "seconds": round(time.monotonic() - began, 3),
    }


def _prove(step: ImportStep, context: ImportContext) -> None:
    """Read the archive to its end and compare it with its record: Incus takes a cut one for whole."""
    artifact = step.artifact

    def tell(plain: int, _stored: int) -> None:
        context.stop.check()
        context.on_progress(step.entity, plain)

    with context.store.open(f"{context.base}/{artifact.path}") as source:
        facts = verify_stored(
            source,
            compression=Compression(Method(artifact.compression)),
            nice=context.options.nice,
            checker=TarChecker(),
            on_progress=tell,
        )
    found = (facts.stored_bytes, facts.stored_sha256, facts.plain_bytes, facts.plain_sha256)
    recorded = (artifact.stored_bytes, artifact.stored_sha256, artifact.plain_bytes, artifact.plain_sha256)
    if found != recorded:
        raise _damaged(artifact)


def _damaged(artifact: Artifact) -> ChecksumMismatch:
    return ChecksumMismatch(
        f"{artifact.path} is not the file that was recorded (its checksum differs)",
        hint="Restore from another set; look at the store's disk",
    )


def _send(client: IncusClient, step: ImportStep, context: ImportContext) -> None:
    artifact = step.artifact
    overrides = {MARKER: context.set_name, "volatile.last_state.power": "STOPPED"}
    if step.regenerate:
        overrides |= _new_identity(artifact)
    in_headers = client.has(backups.OVERRIDE_CONFIG)
    with context.store.open(f"{context.base}/{artifact.path}") as source:
        operation = backups.import_instance(
            client,
            artifact.project,
            artifact.name,
            body=_once_more(source, artifact, context.stop),
            length=artifact.stored_bytes,
            pool=artifact.pool,
            config=overrides if in_headers else None,
        )
    client.wait(operation, on_progress=lambda _state: context.stop.check())
    if not in_headers:  # Incus before 6.0.6: the same, a moment later
        changes.patch_config(client, artifact.project, artifact.name, overrides)


def _once_more(source: Any, artifact: Artifact, stop: Stop) -> Iterator[bytes]:
    """The file's bytes, hashed again on their way: the last piece is held back until they are the proven ones."""
    digest, held = hashlib.sha256(), b""
    while chunk := source.read(_CHUNK):
        stop.check()
        digest.update(chunk)
        if held:
            yield held
        held = chunk
    if digest.hexdigest() != artifact.stored_sha256:
        raise _damaged(artifact)
    yield held


def _new_identity(artifact: Artifact) -> dict[str, str]:
    """The keys that, set to nothing, make Incus generate a new identity at the next start."""
    return {"volatile.uuid": "", **{f"volatile.{nic}.hwaddr": "" for nic in artifact.macs}}


def _mend(client: IncusClient, step: ImportStep, context: ImportContext) -> None:
    """Put back what Incus loses, and take our marker off as the last step.

    The last, empty change makes Incus write ``backup.yaml`` anew from its database, with the snapshots and without the
    marker.
    """
    artifact = step.artifact
    for snapshot in artifact.snapshots:
        if is_never(snapshot.expires_at) or snapshot.expires_at is None:
            continue
        if parse_moment(snapshot.expires_at) <= now():
            context.warn(f"{step.entity}: the snapshot {snapshot.name} expired meanwhile; restored without expiry")
            continue
        changes.set_snapshot_expiry(client, artifact.project, artifact.name, snapshot.name, snapshot.expires_at)
    changes.patch_config(client, artifact.project, artifact.name, {MARKER: ""})
    changes.patch_config(client, artifact.project, artifact.name, {})


def _start(client: IncusClient, step: ImportStep) -> None:
    try:
        changes.start_instance(client, step.artifact.project, step.artifact.name)
    except BackupError as error:
        raise error.within(
            operation="start the restored instance", hint="It is restored; only its start failed: start it by hand"
        ) from error


def _compare(client: IncusClient, step: ImportStep) -> None:
    """The server's own view of the result, against the manifest."""
    found = get_instance(client, step.artifact.project, step.artifact.name)
    wanted = [snapshot.name for snapshot in step.artifact.snapshots]
    have = {snapshot.name for snapshot in found.snapshots}
    if set(wanted) != have:
        raise OperationFailed(
            f"the restored instance has the snapshots {sorted(have)}, and should have {sorted(wanted)}",
            hint="Delete it and restore from another set",
        )
    if found.type != step.artifact.instance_type:
        raise ArchiveInvalid(f"the restored instance is a {found.type}, and should be a {step.artifact.instance_type}")
