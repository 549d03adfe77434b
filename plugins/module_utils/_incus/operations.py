# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Background operations of the daemon: waited for with a deadline, cancelled when it passes, never lost silently."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    BackupError,
    NotFound,
    OperationFailed,
    OperationTimeout,
    PermissionDenied,
    ServerError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.quoting import fill_path
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.transport import Answer, Transport

# Incus: shared/api/status_code.go
_SUCCESS = 200
_FINAL = 200

# A wait is asked for in slices, so that progress is seen, signals are handled and a dead daemon is noticed.
_SLICE = 10.0
_PROGRESS_SLICE = 2.0
_GRACE = 60.0
_PAUSE = 0.2

Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Operation:
    """A background operation that was started: its id, what it does in the server's words, and its first state."""

    id: str
    description: str
    state: Mapping[str, Any]

    @classmethod
    def from_answer(cls, answer: Answer, server: str) -> Operation:
        """Read the 202 of a request.  Raises ServerError where the answer announces no operation."""
        state = answer.metadata if isinstance(answer.metadata, dict) else {}
        if not answer.is_async or not state.get("id"):
            raise ServerError("the server started no background operation", status=answer.status, server=server)
        return cls(str(state["id"]), str(state.get("description") or "the operation"), state)

    @property
    def resources(self) -> Mapping[str, list[str]]:
        """The URLs of what it works on, by kind, as known when it was started."""
        resources = self.state.get("resources")
        return resources if isinstance(resources, dict) else {}


def wait(
    transport: Transport, operation: Operation, *, timeout: float, on_progress: Progress | None = None
) -> dict[str, Any]:
    """Wait for success and return the operation's last state (with ``resources`` and ``metadata``).

    ``timeout`` is in seconds, on a clock that nobody sets; ``on_progress`` gets the state every two seconds or so, and
    what it raises comes through, after the operation was cancelled.
    Raises OperationFailed with the server's words, also where the operation vanished; OperationTimeout after it was
    cancelled; ServerUnreachable where the daemon went away.
    """
    deadline = time.monotonic() + timeout
    length = _PROGRESS_SLICE if on_progress else _SLICE
    while True:
        asked = time.monotonic()
        if asked >= deadline:
            raise _timed_out(transport, operation, timeout)
        state = _wait_once(transport, operation, min(length, deadline - asked))
        code = int(state.get("status_code") or 0)
        if code == _SUCCESS:
            return state
        if code > _FINAL:
            raise OperationFailed(
                f"{operation.description}: {str(state.get('status') or 'failed').lower()}",
                server=transport.server,
                server_said=str(state.get("err") or state.get("status") or "") or None,
            )
        if on_progress:
            try:
                on_progress(state)
            except BaseException:
                cancel(transport, operation)
                raise
        if time.monotonic() - asked < _PAUSE:
            # A server that does not really wait must not be asked without a pause.
            time.sleep(min(_PAUSE, max(0.0, deadline - time.monotonic())))


def cancel(transport: Transport, operation: Operation) -> str | None:
    """Ask the server to cancel; None where it did (or the operation is over), else the server's words why not."""
    try:
        transport.call("DELETE", fill_path("/1.0/operations/{}", (operation.id,)), params={})
    except NotFound:
        return None
    except (ServerError, PermissionDenied) as error:
        return error.server_said or error.message
    return None


def _wait_once(transport: Transport, operation: Operation, seconds: float) -> dict[str, Any]:
    whole = max(1, math.ceil(seconds))  # the server takes whole seconds; 0 would not wait at all
    try:
        return _state(
            transport,
            fill_path("/1.0/operations/{}/wait", (operation.id,)),
            {"timeout": str(whole)},
            whole + min(_GRACE, transport.endpoint.stall_timeout),
        )
    except (ServerError, PermissionDenied) as error:
        # Incus 6.0 answers a wait with the operation's own failure, or with one for the end of the waiting time, as
        # if the request had failed; a "not found" may be either, too.  Only the operation itself tells.
        words = error.server_said
    try:
        return _state(transport, fill_path("/1.0/operations/{}", (operation.id,)), {}, None)
    except NotFound:
        # The daemon forgets operations when it restarts, and some seconds after their end.
        raise OperationFailed(
            f"{operation.description}: the operation vanished, its outcome is unknown",
            server=transport.server,
            server_said=words,
            hint="The Incus daemon may have been restarted; look at the server for what it left behind",
        ) from None


def _state(transport: Transport, path: str, params: dict[str, str], read_timeout: float | None) -> dict[str, Any]:
    answer = transport.call("GET", path, params=params, read_timeout=read_timeout)
    if not isinstance(answer.metadata, dict):
        raise ServerError("the server gave no state of the operation", status=answer.status, server=transport.server)
    return answer.metadata


def _timed_out(transport: Transport, operation: Operation, timeout: float) -> OperationTimeout:
    try:
        refused = cancel(transport, operation)
    except BackupError as error:
        refused = error.message
    return OperationTimeout(
        f"{operation.description}: not finished within {timeout:g} seconds",
        server=transport.server,
        server_said=refused,
        hint="It could not be cancelled and may still be running" if refused else "It was cancelled",
    )
