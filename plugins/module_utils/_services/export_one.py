# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Exports one instance into an open set: stream, check, store, and only then the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import TarChecker
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.backup_index import (
    BackupIndex,
    check_backup_index,
    read_backup_index,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.consistency import confirmed
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    ArchiveInvalid,
    BackupError,
    NotFound,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    Artifact,
    Dependencies,
    SnapshotRecord,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import now, temporary_name
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.pipeline import StreamFacts, store_stream
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus import backups
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import Instance, get_instance
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.streams import ByteStream
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export_plan import (
    DIRECT,
    ExportOptions,
    ExportStep,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import SetWriter

TEMPORARY_LIFETIME = timedelta(hours=24)
"""How long Incus keeps a staged backup that nobody deletes: the same as the ``incus`` command's own."""


@dataclass(frozen=True)
class ExportContext:
    """What all exports of a run share; ``threads`` are one export's."""

    options: ExportOptions
    threads: int
    throttle: Callable[[int], None] | None
    stop: Stop
    on_progress: Callable[[str, int], None]
    warn: Callable[[str], None]


def export_instance(client: IncusClient, writer: SetWriter, step: ExportStep, context: ExportContext) -> Artifact:
    """Take one instance; its record is in the set when this returns.

    Raises BackupError with what was tried on what; then nothing of it is in the set, nor on the server.
    """
    started, taken_at = time.monotonic(), format_moment(now())
    try:
        with writer.artifact(step.path) as sink:
            with _source(client, writer.head.run_id, step, context) as stream:
                facts = store_stream(
                    _watched(stream, context.stop),
                    sink,
                    compression=context.options.compression,
                    threads=context.threads,
                    nice=context.options.nice,
                    throttle=context.throttle,
                    checker=TarChecker(),
                    on_progress=lambda plain, _stored: context.on_progress(step.entity, plain),
                )
            after = _instance_now(client, step.instance)
            index = _checked_index(step, facts, after, instance_only=context.options.instance_only)
        seconds = time.monotonic() - started
        artifact = _artifact(step, writer, facts, index, after, context.options, taken_at, seconds)
        writer.record(artifact)
    except BackupError as error:
        raise error.within(operation="export instance", server=client.server, entity=step.entity) from error
    return artifact


@contextmanager
def _source(client: IncusClient, run_id: str, step: ExportStep, context: ExportContext) -> Iterator[ByteStream]:
    """The instance's bytes, uncompressed: straight from the daemon, or by way of a temporary backup there."""
    instance = step.instance
    options = backups.BackupOptions(context.options.instance_only, step.optimized, compression="none")
    if step.transport == DIRECT:
        with backups.stream_direct(client, instance.project, instance.name, options=options) as stream:
            yield stream
        return
    name = temporary_name(run_id)
    try:
        backups.create_backup(
            client,
            instance.project,
            instance.name,
            name=name,
            expires_at=format_moment(now() + TEMPORARY_LIFETIME),
            options=options,
            on_progress=lambda _state: context.stop.check(),
        )
        with backups.stream_backup(client, instance.project, instance.name, name) as stream:
            yield stream
    finally:
        _delete_temporary(client, instance, name, context.warn)


def _delete_temporary(client: IncusClient, instance: Instance, name: str, warn: Callable[[str], None]) -> None:
    try:
        backups.delete_backup(client, instance.project, instance.name, name)
    except BackupError as error:  # the artifact's fate is decided already; the next run sweeps, and Incus expires it
        warn(f"the temporary backup {instance.project}/{instance.name}/{name} was not deleted: {error.sentence()}")


def _watched(stream: ByteStream, stop: Stop) -> Iterator[bytes]:
    for chunk in stream:
        stop.check()
        yield chunk


def _instance_now(client: IncusClient, instance: Instance) -> Instance | None:
    """The instance after its export, None where it is gone by now (which is nobody's fault)."""
    try:
        return get_instance(client, instance.project, instance.name)
    except NotFound:
        return None


def _checked_index(step: ExportStep, facts: StreamFacts, after: Instance | None, *, instance_only: bool) -> BackupIndex:
    """The archive's index, proven to be of this instance and whole; raises ArchiveInvalid.

    Snapshots may come and go by schedule while the export runs: those that were there all the time must be in it, and
    no other than those that were there at some time.
    """
    if facts.index is None or facts.index.index_yaml is None:
        raise ArchiveInvalid("the archive has no backup/index.yaml")
    index = read_backup_index(facts.index.index_yaml)
    before_names = {snapshot.name for snapshot in step.instance.snapshots}
    after_names = {snapshot.name for snapshot in after.snapshots} if after else before_names
    must, may = before_names & after_names, before_names | after_names
    wanted = set() if instance_only else must | (set(index.snapshots) & may)
    problems = check_backup_index(
        index,
        facts.index.parts,
        name=step.instance.name,
        instance_type=step.instance.type,
        snapshots=wanted,
        optimized=step.optimized,
    )
    if problems:
        raise ArchiveInvalid(
            "the archive is not what was asked for: " + "; ".join(problems), hint="Run again; if it stays, report it"
        )
    return index


def _artifact(
    step: ExportStep,
    writer: SetWriter,
    facts: StreamFacts,
    index: BackupIndex,
    after: Instance | None,
    options: ExportOptions,
    taken_at: str,
    seconds: float,
) -> Artifact:
    instance, newest = step.instance, after or step.instance
    known = {snapshot.name: snapshot for snapshot in (*instance.snapshots, *newest.snapshots)}
    reached = confirmed(
        step.planned,
        before=(instance.status, _last_start(instance)),
        after=(after.status, _last_start(after)) if after else None,
    )
    return Artifact(
        kind="instance",
        project=instance.project,
        name=instance.name,
        uuid=instance.uuid,
        path=step.path,
        stored_bytes=facts.stored_bytes,
        stored_sha256=facts.stored_sha256,
        plain_bytes=facts.plain_bytes,
        plain_sha256=facts.plain_sha256,
        compression=options.compression.method.value,
        encryption=None,
        pool=step.pool.name if step.pool else None,
        driver=step.pool.driver if step.pool else None,
        member=writer.head.server.member,
        instance_type=instance.type,
        architecture=instance.architecture,
        instance_only=options.instance_only,
        optimized=index.optimized,
        transport=step.transport,
        method=reached.method,
        guarantee=reached.guarantee,
        power_state=instance.status,
        macs=dict(instance.macs),
        fixed_macs=instance.fixed_macs,
        snapshots=tuple(
            SnapshotRecord(
                name=name,
                created_at=known[name].created_at,
                expires_at=known[name].expires_at,
                stateful=known[name].stateful,
            )
            for name in index.snapshots
        ),
        dependencies=dependencies_of(instance, index.snapshots),
        taken_at=taken_at,
        seconds=round(seconds, 3),
        options_digest=options.digest(),
        warnings=step.warnings,
    )


def _last_start(instance: Instance) -> str:
    return str(instance.raw.get("last_used_at", ""))


def dependencies_of(instance: Instance, snapshots: tuple[str, ...] = ()) -> Dependencies:
    """What must be there before the instance (with these snapshots) can be restored, from its devices and profiles."""
    taken = [snapshot for snapshot in instance.snapshots if snapshot.name in snapshots]
    devices = list(instance.expanded_devices.values())
    disks = [device for device in devices if device.get("type") == "disk" and device.get("pool")]
    nics = [device for device in devices if device.get("type") == "nic"]
    # A source may go on with a path within the volume; names of volumes have no slash.
    volumes = {f"{disk['pool']}/{disk['source'].partition('/')[0]}": disk for disk in disks if disk.get("source")}
    return Dependencies(
        profiles=tuple(instance.profiles),
        snapshot_profiles=tuple(
            sorted({name for snapshot in taken for name in snapshot.profiles} - set(instance.profiles))
        ),
        networks=tuple(sorted({nic["network"] for nic in nics if nic.get("network")})),
        pools=tuple(sorted({disk["pool"] for disk in disks})),
        volumes=tuple(sorted(volumes)),
        dependent_volumes=tuple(sorted(name for name, disk in volumes.items() if disk.get("dependent") == "true")),
    )
