# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Exports and imports of instances over the API (incus: cmd/incusd/instance_backup.go, instances_post.go)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import Interrupted, UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.streams import ByteStream

_OCTETS = {"Accept": "application/octet-stream"}


def stream_direct(
    client: IncusClient, project: str, name: str, *, instance_only: bool, optimized: bool
) -> AbstractContextManager[ByteStream]:
    """A new export, uncompressed, as it is made; nothing is staged on the server. Needs ``direct_backup``."""
    return client.stream_out(
        "POST",
        "instances/{}/backups",
        name,
        project=project,
        headers=_OCTETS,
        body=_request(instance_only, optimized),
        timeout=_patience(client, optimized),
    )


def create_backup(
    client: IncusClient,
    project: str,
    name: str,
    backup: str,
    *,
    expires_at: datetime,
    instance_only: bool,
    optimized: bool,
    on_wait: Callable[[], None],
) -> None:
    """Make a backup on the server and wait for it; Incus deletes it at ``expires_at`` if nobody else does.

    ``on_wait`` is called now and then; what it raises ends the wait and cancels the operation.
    """
    body = {"name": backup, "expires_at": format_moment(expires_at), **_request(instance_only, optimized)}
    _see_through(client, client.start("POST", "instances/{}/backups", name, project=project, body=body), on_wait)


def stream_backup(
    client: IncusClient, project: str, name: str, backup: str
) -> AbstractContextManager[ByteStream]:
    """The bytes of a backup that lies on the server."""
    return client.stream_out("GET", "instances/{}/backups/{}/export", name, backup, project=project)


def delete_backup(client: IncusClient, project: str, name: str, backup: str) -> None:
    """Delete a backup on the server. Raises NotFound."""
    client.delete("instances/{}/backups/{}", name, backup, project=project)


def import_instance(
    client: IncusClient,
    project: str,
    name: str,
    *,
    body: Iterable[bytes],
    length: int,
    pool: str | None,
    config: Mapping[str, str] | None,
    on_wait: Callable[[], None],
) -> None:
    """Upload an export and wait until the instance is made of it; it is stopped then.

    ``config`` overrides keys on the way (needs ``backup_override_config``; an empty value takes a key away).  Incus
    splits the header at spaces, so a value with one raises UsageError before anything is sent.
    """
    headers = {"X-Incus-name": name}
    if pool:
        headers["X-Incus-pool"] = pool
    if config:
        headers["X-Incus-config"] = _overrides(config)
    operation = client.upload("instances", body=body, length=length, project=project, headers=headers)
    _see_through(client, operation, on_wait)


def _see_through(client: IncusClient, operation: Any, on_wait: Callable[[], None]) -> None:
    try:
        client.wait(operation, on_progress=lambda _metadata: on_wait())
    except Interrupted:
        client.cancel(operation)
        raise


def _overrides(config: Mapping[str, str]) -> str:
    for key, value in config.items():
        if any(character.isspace() for character in key + value):
            raise UsageError(
                f"the configuration {key}={value!r} cannot be set on import",
                operation="import instance",
                hint="Incus takes no value with spaces there: set it afterwards",
            )
    return " ".join(f"{key}={value}" for key, value in config.items())


def _request(instance_only: bool, optimized: bool) -> dict[str, Any]:
    return {"instance_only": instance_only, "optimized_storage": optimized, "compression_algorithm": "none"}


def _patience(client: IncusClient, optimized: bool) -> float | None:
    """Seconds without a byte: while Incus writes an optimized stream to a temporary file, it sends none."""
    return client.connection.operation_timeout if optimized else None
