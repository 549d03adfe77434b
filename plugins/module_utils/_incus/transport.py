# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""One connection to one server: requests go out, answers come back decoded, everything else becomes an error of ours.

This and nothing else speaks HTTP.  pylxd's ``Client`` opens the connection and its session carries every request; the
session is used directly because pylxd's own verbs read every body into memory and quote nothing.
"""

from __future__ import annotations

import errno
import json
import os
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError, UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus import failures
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import (
    Connection,
    Credentials,
    find_socket,
    prepare_credentials,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.quoting import header_values
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.streams import (
    ByteStream,
    SourceFailed,
    UploadBody,
)

LIBRARY_ERROR: str | None = None
try:
    import requests
    import urllib3
    from pylxd import client as pylxd_client
    from pylxd.exceptions import LXDAPIException
except ImportError as missing:
    LIBRARY_ERROR = str(missing)


@dataclass(frozen=True)
class Answer:
    """A decoded answer of the API: its HTTP status, its JSON envelope and its headers."""

    status: int
    envelope: Mapping[str, Any]
    headers: Mapping[str, str]

    @property
    def metadata(self) -> Any:
        """What was asked for (``metadata`` of the envelope)."""
        return self.envelope.get("metadata")

    @property
    def is_async(self) -> bool:
        """Whether the answer announces a background operation."""
        return self.envelope.get("type") == "async"


class RequestCounter:
    """Counts requests of a transport and all its clones, in any number of threads."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        """One more."""
        with self._lock:
            self.value += 1


@dataclass(frozen=True)
class Endpoint:
    """Where and as whom: ``base`` is the URL below which the API lives, ``server`` its name in messages."""

    base: str
    server: str
    credentials: Credentials | None
    connect_timeout: float
    stall_timeout: float


def resolve_endpoint(connection: Connection, workdir: Path) -> Endpoint:
    """Find the socket or prepare the credentials.  Raises ServerUnreachable, UsageError or PermissionDenied."""
    if connection.is_remote:
        base = server = connection.server
        credentials = prepare_credentials(connection, workdir)
    else:
        path = connection.socket or find_socket(os.environ)
        base, server, credentials = f"http+unix://{quote(path, safe='')}", f"unix:{path}", None
    return Endpoint(base, server, credentials, connection.connect_timeout, connection.stall_timeout)


class Transport:
    """Sends requests to one endpoint.  Not for use by two threads at once: each takes its own ``clone``."""

    def __init__(self, endpoint: Endpoint, counter: RequestCounter | None = None) -> None:
        if LIBRARY_ERROR is not None:
            raise UsageError(
                f"the Python library pylxd cannot be imported by {sys.executable}: {LIBRARY_ERROR}",
                hint="Run the role host_setup for this host and use the interpreter that it sets up",
            )
        self.endpoint = endpoint
        self.server = endpoint.server
        self.counter = counter or RequestCounter()
        credentials = endpoint.credentials
        self._session = pylxd_client.get_session_for_url(
            endpoint.base,
            verify=(credentials.server_cert or True) if credentials else None,
            cert=(credentials.client_cert, credentials.client_key) if credentials else None,
        )
        # No proxy, netrc or certificate setting of the environment may change where the bytes go.
        self._session.trust_env = False
        self._session.headers["Accept-Encoding"] = "identity"
        if credentials:
            adapter = self._session.get_adapter(endpoint.base)
            adapter.poolmanager.pool_classes_by_scheme = {"https": _pool_that_hears_refusals()}

    def clone(self) -> Transport:
        """The same endpoint and counter with connections of its own; sends nothing."""
        return Transport(self.endpoint, self.counter)

    def close(self) -> None:
        """Close all idle connections; the transport stays usable."""
        self._session.close()

    def hello(self) -> Any:
        """Connect: the metadata of ``GET /1.0``, through pylxd's own client.  Raises what ``call`` raises."""
        sent = "GET /1.0"
        self.counter.add()
        try:
            client = pylxd_client.Client(
                endpoint=self.endpoint.base,
                session=self._session,
                timeout=(self.endpoint.connect_timeout, self.endpoint.stall_timeout),
            )
        except LXDAPIException as error:
            response = error.response
            decoded = _decode(response.content)
            raise failures.from_answer(response.status_code, response.content, decoded, self.server, sent) from error
        except (ValueError, KeyError, TypeError) as error:
            # requests' InvalidURL and decoding errors are ValueErrors both.
            if isinstance(error, requests.exceptions.InvalidURL):
                raise failures.no_answer(error, self.server, sent) from error
            raise failures.not_incus(200, b"", self.server, sent) from error
        except Exception as error:
            # pylxd wraps some errors of the transport and lets others through bare.
            raise failures.no_answer(error, self.server, sent) from error
        return client.host_info

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        read_timeout: float | None = None,
    ) -> Answer:
        """Send one request and decode its answer.

        ``path`` is quoted already and begins with ``/``; ``read_timeout`` (seconds of silence) is the stall time-out
        unless said otherwise.  Raises ServerUnreachable, PermissionDenied, NotFound, Conflict or ServerError.
        """
        sent = f"{method} {path}"
        response = self._send(method, path, params, headers, sent, json=body, read_timeout=read_timeout)
        return self._decoded(response, sent)

    def upload(
        self,
        path: str,
        *,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        body: UploadBody,
        stall_timeout: float,
    ) -> Answer:
        """POST a body of any size and decode the answer; what the body's source raises comes through as it is.

        Raises as ``call``, StreamStalled where the server takes no bytes, StreamBroken where it goes away meanwhile.
        """
        sent = f"POST {path}"
        encoded = header_values(headers)
        self.counter.add()
        try:
            response = self._session.request(
                "POST",
                self.endpoint.base + path,
                params=params,
                data=body,
                headers=encoded,
                # While the body is being sent urllib3 applies the first of the two to every send.
                timeout=(stall_timeout, stall_timeout),
                allow_redirects=False,
            )
        except SourceFailed as error:
            self.close()
            raise (body.failure or error) from None
        except (requests.RequestException, OSError) as error:
            raise self._upload_error(error, sent, body, stall_timeout) from error
        answer = self._decoded(response, sent)
        if not body.complete:
            # An early refusal has been raised as such by now; a success without the whole body cannot be one.
            self.close()
            raise failures.stream_error(OSError("success was answered before the end"), self.server, 0, body.sent)
        return answer

    def _upload_error(self, error: Exception, sent: str, body: UploadBody, stall: float) -> BackupError:
        self.close()
        if failures.is_timeout(error):
            return failures.stalled(self.server, stall, f"after {body.sent} bytes were sent")
        if body.sent:
            return failures.stream_error(error, self.server, stall, body.sent)
        return failures.no_answer(error, self.server, sent)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str],
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        stall_timeout: float,
    ) -> Iterator[ByteStream]:
        """Send one request and hand out its body unread.  Leaving the context closes the connection, read or not.

        Raises as ``call`` for a refusal; StreamStalled where no byte comes for ``stall_timeout`` seconds, also before
        the answer begins; StreamBroken where the body ends before its end.
        """
        sent = f"{method} {path}"
        response = self._send(method, path, params, headers, sent, json=body, read_timeout=stall_timeout, stream=True)
        try:
            content_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            if response.status_code != 200 or content_type == "application/json":
                answer = self._decoded(response, sent)
                raise failures.from_answer(answer.status, b"not a stream", None, self.server, sent)
            # The response as http.client sees it: whether and how its body is framed, and the buffered socket.
            framed = response.raw._original_response
            if framed is None:
                raise failures.not_incus(response.status_code, b"", self.server, sent)
            yield ByteStream(
                framed.fp,
                length=framed.length,
                chunked=framed.chunked,
                describe=lambda error, received: failures.stream_error(error, self.server, stall_timeout, received),
            )
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        headers: Mapping[str, str] | None,
        sent: str,
        *,
        json: Any,
        read_timeout: float | None,
        stream: bool = False,
        is_second_try: bool = False,
    ) -> requests.Response:
        encoded = header_values(headers or {})
        timeout = read_timeout or self.endpoint.stall_timeout
        self.counter.add()
        try:
            response: requests.Response = self._session.request(
                method,
                self.endpoint.base + path,
                params=params,
                json=json,
                headers=encoded,
                timeout=(self.endpoint.connect_timeout, timeout),
                stream=stream,
                allow_redirects=False,
            )
        except (requests.RequestException, OSError) as error:
            if stream and isinstance(error, requests.exceptions.ReadTimeout):
                raise failures.stalled(self.server, timeout, "before the first byte") from error
            if method == "GET" and not is_second_try and _was_hung_up(error):
                # A kept connection may have been closed by a daemon that restarted; asking twice changes nothing.
                self.close()
                return self._send(
                    method,
                    path,
                    params,
                    headers,
                    sent,
                    json=json,
                    read_timeout=read_timeout,
                    stream=stream,
                    is_second_try=True,
                )
            raise failures.no_answer(error, self.server, sent) from error
        return response

    def _decoded(self, response: requests.Response, sent: str) -> Answer:
        """The answer's envelope; raises for everything that is not a success of the API."""
        try:
            body = response.content
        except (requests.RequestException, OSError) as error:
            raise failures.no_answer(error, self.server, sent) from error
        decoded = _decode(body)
        # Incus sends the headers of some answers early, so a failure may come with status 200.
        if response.status_code >= 400 or (isinstance(decoded, dict) and decoded.get("type") == "error"):
            raise failures.from_answer(response.status_code, body, decoded, self.server, sent)
        if not isinstance(decoded, dict) or decoded.get("type") not in ("sync", "async"):
            raise failures.not_incus(response.status_code, body, self.server, sent)
        return Answer(response.status_code, decoded, response.headers)


def _pool_that_hears_refusals() -> type[urllib3.HTTPSConnectionPool]:
    """Connections on which a server's answer in mid-upload is read although it stopped listening.

    urllib3 goes on to read the answer after a broken pipe; with TLS the same event has another name.
    """

    class Connection(urllib3.connection.HTTPSConnection):
        def send(self, data: Any) -> None:
            try:
                super().send(data)
            except ssl.SSLEOFError as error:
                raise BrokenPipeError(errno.EPIPE, "the server closed the connection") from error

    class Pool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Connection

    return Pool


def _decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _was_hung_up(error: Exception) -> bool:
    """Whether the connection was lost after the request was sent, rather than never made or silent for too long."""
    return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ProtocolError)
