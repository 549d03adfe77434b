# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The Incus client: quoted paths, ``project`` and ``target`` on calls, typed errors, operations, streams both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    BackupError,
    ExtensionMissing,
    PermissionDenied,
    ServerError,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus import operations
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import Connection
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.operations import Operation, Progress
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.quoting import ParamValue, fill_path, query
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.server import ServerFacts
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.streams import (
    ByteStream,
    SizedUploadBody,
    UploadBody,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.transport import (
    Answer,
    Transport,
    resolve_endpoint,
)


class IncusClient:
    """A connection to one Incus daemon.

    ``server`` names it in messages, ``facts`` is what it said when the connection was made.  Templates of paths are
    relative to ``/1.0/``: ``instances/{}/backups/{}`` takes two names, quoted in full.
    A client belongs to one thread.  Every other thread takes its own from ``clone_for_thread()``, which costs no
    request; ``requests_made`` counts for all of them together.
    """

    def __init__(self, transport: Transport, facts: ServerFacts, connection: Connection) -> None:
        self.facts = facts
        self.connection = connection
        self.server = transport.server
        self._transport = transport

    @classmethod
    def connect(cls, connection: Connection, *, workdir: Path) -> IncusClient:
        """Connect and read the server's facts (one request).

        ``workdir`` is a directory of the caller's (0700) for credentials that were given as contents; it must live as
        long as the client.  Raises UsageError, ServerUnreachable, PermissionDenied or ServerError, all of them with
        ``operation`` "connect".
        """
        try:
            transport = Transport(resolve_endpoint(connection, workdir))
            answer = transport.hello()
            if not isinstance(answer, dict):
                raise ServerError("the server did not describe itself", server=transport.server)
            facts = ServerFacts.parse(answer)
            _check_usable(facts, transport.server)
        except BackupError as error:
            error.within(operation="connect", server=connection.server)
            raise
        return cls(transport, facts, connection)

    def clone_for_thread(self) -> IncusClient:
        """A client of the same server, with connections of its own, for another thread; sends nothing."""
        return IncusClient(self._transport.clone(), self.facts, self.connection)

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

    @property
    def requests_made(self) -> int:
        """How many HTTP requests were sent by this client and all its clones, the first one included."""
        return self._transport.counter.value

    def has(self, extension: str) -> bool:
        """Whether the server has an API extension."""
        return extension in self.facts.extensions

    def require(self, extension: str, purpose: str) -> None:
        """Raise ExtensionMissing unless the server has the extension; ``purpose`` is what needs it."""
        if not self.has(extension):
            raise ExtensionMissing(
                f"{purpose} needs the API extension {extension}, which this server (Incus {self.facts.version}) lacks",
                server=self.server,
                hint="Upgrade Incus on the server, or do without",
            )

    def get(
        self, template: str, *names: str, project: str | None = None, target: str | None = None, **params: ParamValue
    ) -> Any:
        """What the API has there.  Raises ServerUnreachable, PermissionDenied, NotFound, ServerError."""
        return self._call("GET", template, names, project=project, target=target, params=params).metadata

    def get_with_etag(
        self, template: str, *names: str, project: str | None = None, target: str | None = None, **params: ParamValue
    ) -> tuple[Any, str | None]:
        """As ``get``, with the ETag that a later ``put`` or ``patch`` can insist on."""
        answer = self._call("GET", template, names, project=project, target=target, params=params)
        return answer.metadata, answer.headers.get("ETag")

    def put(self, template: str, *names: str, **options: Any) -> Any:
        """Replace.  Options and errors as ``change``."""
        return self.change("PUT", template, *names, **options)

    def patch(self, template: str, *names: str, **options: Any) -> Any:
        """Change a part.  Options and errors as ``change``."""
        return self.change("PATCH", template, *names, **options)

    def post(self, template: str, *names: str, **options: Any) -> Any:
        """Create, rename, run.  Options and errors as ``change``."""
        return self.change("POST", template, *names, **options)

    def delete(self, template: str, *names: str, **options: Any) -> Any:
        """Delete.  Options and errors as ``change``."""
        return self.change("DELETE", template, *names, **options)

    def change(
        self,
        method: str,
        template: str,
        *names: str,
        body: Any = None,
        project: str | None = None,
        target: str | None = None,
        etag: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, ParamValue] | None = None,
        timeout: float | None = None,
        on_progress: Progress | None = None,
    ) -> Any:
        """Send a change and see it through: the answer's metadata, or the finished operation's state.

        ``etag`` makes the server refuse (Conflict) when the entity changed since it was read; ``timeout`` is the
        operation's, in seconds.  Raises as ``get`` and as ``wait``.
        """
        answer = self._call(
            method,
            template,
            names,
            project=project,
            target=target,
            body=body,
            headers=_with_etag(headers, etag),
            params=params,
        )
        if not answer.is_async:
            return answer.metadata
        return self.wait(Operation.from_answer(answer, self.server), timeout=timeout, on_progress=on_progress)

    def start(
        self,
        method: str,
        template: str,
        *names: str,
        body: Any = None,
        project: str | None = None,
        target: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, ParamValue] | None = None,
    ) -> Operation:
        """Send a change and return the operation that it became, without waiting.  Raises as ``get``."""
        answer = self._call(
            method, template, names, project=project, target=target, body=body, headers=headers, params=params
        )
        return Operation.from_answer(answer, self.server)

    def wait(
        self, operation: Operation, *, timeout: float | None = None, on_progress: Progress | None = None
    ) -> dict[str, Any]:
        """See ``operations.wait``; ``timeout`` is the connection's ``operation_timeout`` unless given."""
        seconds = self.connection.operation_timeout if timeout is None else timeout
        return operations.wait(self._transport, operation, timeout=seconds, on_progress=on_progress)

    def stream_out(
        self,
        method: str,
        template: str,
        *names: str,
        body: Any = None,
        project: str | None = None,
        target: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> AbstractContextManager[ByteStream]:
        """A request whose answer's body is read piece by piece, within the returned context.

        ``timeout`` is the stall time-out in seconds, the connection's unless given.  Leaving the context closes the
        connection: a server in the middle of an export gives it up.  Raises as ``Transport.stream``.
        """
        return self._transport.stream(
            method,
            "/1.0/" + fill_path(template, names),
            params=query({"project": project, "target": target}),
            body=body,
            headers=headers,
            stall_timeout=timeout or self.connection.stall_timeout,
        )

    def upload(
        self,
        template: str,
        *names: str,
        body: Iterable[bytes],
        length: int | None = None,
        project: str | None = None,
        target: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Operation:
        """POST a body of any size; returns the operation that the server makes of it once it has all of it.

        ``length`` in bytes, None where it is not known beforehand; a body of another length aborts the upload.  What
        ``body`` raises comes through, and the server sees a broken request, never a complete one.
        ``timeout`` is the stall time-out in seconds.  Raises as ``Transport.upload``.
        """
        if length is not None and length <= 0:
            raise UsageError("there is nothing to upload", server=self.server)
        answer = self._transport.upload(
            "/1.0/" + fill_path(template, names),
            params=query({"project": project, "target": target}),
            headers={"Content-Type": "application/octet-stream", **(headers or {})},
            body=UploadBody(body) if length is None else SizedUploadBody(body, length),
            stall_timeout=timeout or self.connection.stall_timeout,
        )
        return Operation.from_answer(answer, self.server)

    def internal_get(self, template: str, *names: str, **params: ParamValue) -> Any:
        """``GET /internal/…``, which needs full rights on the server.  Raises as ``get``."""
        path = "/internal/" + fill_path(template, names)
        return self._transport.call("GET", path, params=query(params)).metadata

    def internal_post(self, template: str, *names: str, body: Any = None, timeout: float | None = None) -> Any:
        """``POST /internal/…``; ``timeout`` is how many seconds its answer may take.  Raises as ``get``."""
        path = "/internal/" + fill_path(template, names)
        return self._transport.call("POST", path, params={}, body=body, read_timeout=timeout).metadata

    def _call(
        self,
        method: str,
        template: str,
        names: tuple[str, ...],
        *,
        project: str | None,
        target: str | None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, ParamValue] | None = None,
    ) -> Answer:
        return self._transport.call(
            method,
            "/1.0/" + fill_path(template, names),
            params=query({**(params or {}), "project": project, "target": target}),
            body=body,
            headers=headers,
        )


def _with_etag(headers: Mapping[str, str] | None, etag: str | None) -> Mapping[str, str] | None:
    return {**(headers or {}), "If-Match": etag} if etag else headers


def _check_usable(facts: ServerFacts, server: str) -> None:
    if facts.auth != "trusted":
        raise PermissionDenied(
            "the server does not trust this client",
            server=server,
            hint="Add the client certificate on the server (incus config trust add-certificate)",
        )
    kind = (facts.raw.get("environment") or {}).get("server")
    if kind != "incus":
        raise ServerError(f"the server is {kind or 'of an unknown kind'}, not Incus", server=server)
