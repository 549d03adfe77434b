# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Backups of instances on the server, and their bytes: the classic object, the direct stream, the import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError, NotFound
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.operations import Operation, Progress
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.quoting import config_header, devices_header
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.streams import ByteStream

DIRECT = "direct_backup"
OVERRIDE_CONFIG = "backup_override_config"

# Before 7.0 the server sends nothing, not even headers, until an optimized stream is in a temporary file; no API
# extension tells, so an optimized direct stream may always be silent as long as a whole operation may last.


@dataclass(frozen=True)
class ServerBackup:
    """A backup object that lies on the server; ``expires_at`` is RFC 3339, None for never."""

    name: str
    created_at: str | None
    expires_at: str | None
    instance_only: bool
    optimized: bool


@dataclass(frozen=True)
class BackupOptions:
    """What goes into a backup.  ``compression`` is the server's (``none``, ``zstd -3``); None for its default."""

    instance_only: bool = False
    optimized: bool = False
    compression: str | None = None

    def body(self) -> dict[str, Any]:
        """The request's JSON (Incus: shared/api/instance_backup.go)."""
        body: dict[str, Any] = {"instance_only": self.instance_only, "optimized_storage": self.optimized}
        if self.compression is not None:
            body["compression_algorithm"] = self.compression
        return body


def list_backups(client: IncusClient, project: str, instance: str) -> list[ServerBackup]:
    """The backup objects of an instance that lie on the server.  Raises as ``IncusClient.get``."""
    with _about(client, "list backups", project, instance):
        answer = client.get("instances/{}/backups", instance, project=project, recursion=1)
    return [
        ServerBackup(
            name=str(item["name"]).rpartition("/")[2],
            created_at=moment(item.get("created_at")),
            expires_at=moment(item.get("expires_at")),
            instance_only=bool(item.get("instance_only")),
            optimized=bool(item.get("optimized_storage")),
        )
        for item in answer or ()
    ]


def create_backup(
    client: IncusClient,
    project: str,
    instance: str,
    *,
    name: str,
    expires_at: str,
    options: BackupOptions,
    timeout: float | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Let the server write a backup object and wait for it.

    ``expires_at`` (RFC 3339) is the safety net for a run that dies before it deletes the object; ``timeout`` seconds
    for all of it.  Raises as ``IncusClient.change``.
    """
    body = {**options.body(), "name": name, "expires_at": expires_at}
    with _about(client, "create backup", project, instance):
        client.post(
            "instances/{}/backups", instance, body=body, project=project, timeout=timeout, on_progress=on_progress
        )


def delete_backup(client: IncusClient, project: str, instance: str, name: str) -> bool:
    """Delete a backup object and wait for it; False where it was gone already."""
    try:
        with _about(client, "delete backup", project, instance):
            client.delete("instances/{}/backups/{}", instance, name, project=project)
    except NotFound:
        return False
    return True


def stream_backup(
    client: IncusClient, project: str, instance: str, name: str, *, timeout: float | None = None
) -> AbstractContextManager[ByteStream]:
    """The bytes of a backup object, with their length; ``timeout`` is the stall time-out in seconds."""
    return _streaming(
        client,
        "read backup",
        project,
        instance,
        client.stream_out("GET", "instances/{}/backups/{}/export", instance, name, project=project, timeout=timeout),
    )


def stream_direct(
    client: IncusClient, project: str, instance: str, *, options: BackupOptions, timeout: float | None = None
) -> AbstractContextManager[ByteStream]:
    """The bytes of a backup as the server makes them, nothing staged there (except optimized streams).

    ``timeout`` is the stall time-out in seconds; where it is not given it is the connection's, but the operation
    time-out for optimized backups, during which the server is silent while it writes its temporary file.
    Raises ExtensionMissing before anything is sent, then as ``IncusClient.stream_out``.
    """
    client.require(DIRECT, "a direct export")
    if timeout is None and options.optimized:
        timeout = max(client.connection.stall_timeout, client.connection.operation_timeout)
    stream = client.stream_out(
        "POST",
        "instances/{}/backups",
        instance,
        body=options.body(),
        project=project,
        # Exactly this: the server compares the header as text (instance_backup.go).
        headers={"Accept": "application/octet-stream"},
        timeout=timeout,
    )
    return _streaming(client, "export instance", project, instance, stream)


def import_instance(
    client: IncusClient,
    project: str,
    name: str,
    *,
    body: Iterable[bytes],
    length: int | None = None,
    pool: str | None = None,
    config: Mapping[str, str] | None = None,
    devices: Mapping[str, Mapping[str, str]] | None = None,
    timeout: float | None = None,
) -> Operation:
    """Upload a backup as the instance ``name`` and return the server's operation, to be waited for.

    ``config`` and ``devices`` override what the backup says; an empty value lets the server make up a new one.
    ``length`` in bytes where known; ``timeout`` is the stall time-out in seconds.
    Raises UsageError and ExtensionMissing before anything is sent, then as ``IncusClient.upload``.
    """
    headers = {"X-Incus-name": name}
    with _about(client, "import instance", project, name):
        if pool:
            headers["X-Incus-pool"] = pool
        if config or devices:
            client.require(OVERRIDE_CONFIG, "changing configuration or devices during an import")
        if config:
            headers["X-Incus-config"] = config_header(config)
        if devices:
            headers["X-Incus-devices"] = devices_header(devices)
        return client.upload("instances", body=body, length=length, project=project, headers=headers, timeout=timeout)


@contextmanager
def _about(client: IncusClient, operation: str, project: str, instance: str) -> Iterator[None]:
    """Errors of the block say what was done to which instance."""
    try:
        yield
    except BackupError as error:
        error.within(operation=operation, server=client.server, entity=f"{project}/{instance}")
        raise


@contextmanager
def _streaming(
    client: IncusClient, operation: str, project: str, instance: str, opening: AbstractContextManager[ByteStream]
) -> Iterator[ByteStream]:
    with _about(client, operation, project, instance), opening as stream:
        yield stream
