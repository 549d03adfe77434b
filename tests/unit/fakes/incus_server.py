# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A strict Incus server for what a real one will not do on demand: half answers, silence, vanished operations.

It speaks HTTP byte by byte, so a test can break any rule of it.  Strict means: a path or a header that the test did
not announce is answered with an error and recorded in ``complaints``, which the fixture asserts to be empty.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

KNOWN_HEADERS = {
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "host",
    "if-match",
    "transfer-encoding",
    "user-agent",
    "x-incus-config",
    "x-incus-devices",
    "x-incus-name",
    "x-incus-pool",
}
REASONS = {200: "OK", 202: "Accepted"}
PATIENCE = 10.0


class HungUp(Exception):
    """The client closed its connection."""


@dataclass
class Request:
    """One request as it came: the path still quoted, the body only where an act read it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    body_length: int = 0
    body_complete: bool = False

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(self, request: Request, connection: socket.socket, rest: bytes) -> None:
        self.request = request
        self.connection = connection
        self._rest = rest

    def send(self, data: bytes) -> None:
        """Raw bytes."""
        self.connection.sendall(data)

    def head(self, status: int, **headers: str) -> None:
        """A status line and headers (underscores become dashes)."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Error')}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode())

    def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; b"" ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def json(self, status: int, envelope: Any) -> None:
        """A whole JSON answer."""
        body = json.dumps(envelope).encode()
        self.head(status, Content_Type="application/json", Content_Length=str(len(body)), ETag='"tag"')
        self.send(body)

    def read_body(self, keep: bool = True) -> int:
        """Read the request's body, count it, keep it if wanted; ``body_complete`` says whether it had its end."""
        for piece in self.pieces():
            self.request.body_length += len(piece)
            if keep:
                self.request.body += piece
        return self.request.body_length

    def pieces(self) -> Iterator[bytes]:
        """The body's payload as it comes."""
        headers = self.request.headers
        if "transfer-encoding" in headers:
            yield from self._chunks()
            return
        left = int(headers.get("content-length", "0"))
        while left:
            piece = self.receive(min(left, 65536))
            if not piece:
                return
            left -= len(piece)
            yield piece
        self.request.body_complete = True

    def receive(self, size: int) -> bytes:
        """Bytes of the connection, b"" when the client is gone."""
        if self._rest:
            piece, self._rest = self._rest[:size], self._rest[size:]
            return piece
        try:
            return self.connection.recv(size)
        except ConnectionError:
            return b""

    def wait_for_hangup(self) -> bool:
        """Whether the client closes its connection within the test's patience."""
        self.connection.settimeout(PATIENCE)
        try:
            return self.receive(1) == b""
        except TimeoutError:
            return False

    def _chunks(self) -> Iterator[bytes]:
        while True:
            line = self._line()
            if line is None:
                return
            left = int(line, 16)
            end = left == 0
            while left:
                piece = self.receive(min(left, 65536))
                if not piece:
                    return
                left -= len(piece)
                yield piece
            if self._line() is None:
                return
            if end:
                self.request.body_complete = True
                return

    def _line(self) -> bytes | None:
        line = b""
        while not line.endswith(b"\r\n"):
            byte = self.receive(1)
            if not byte:
                return None
            line += byte
        return line[:-2]


Act = Callable[[Exchange], None]


def sync(metadata: Any) -> Act:
    """A synchronous success."""

    def act(exchange: Exchange) -> None:
        exchange.read_body()
        envelope = {"type": "sync", "status": "Success", "status_code": 200, "metadata": metadata}
        exchange.json(200, envelope)

    return act


def background(operation_id: str, **state: Any) -> Act:
    """An operation was started."""

    def act(exchange: Exchange) -> None:
        exchange.read_body(keep=False)
        exchange.json(202, operation_envelope(operation_id, **state))

    return act


def operation_envelope(operation_id: str, **state: Any) -> dict[str, Any]:
    """The 202's JSON."""
    metadata = {"id": operation_id, "class": "task", "description": "Testing", "status_code": 103, **state}
    return {"type": "async", "status_code": 100, "operation": f"/1.0/operations/{operation_id}", "metadata": metadata}


def refusal(status: int, words: str) -> Act:
    """An error of the API, with the body unread where it is long: what Incus does."""

    def act(exchange: Exchange) -> None:
        if int(exchange.request.headers.get("content-length", "0")) < 65536:
            exchange.read_body()
        exchange.json(status, {"type": "error", "error": words, "error_code": status, "metadata": None})

    return act


def refusal_while_sending(status: int, words: str, *, after: int = 0) -> Act:
    """An error in the middle of an upload, as Go's server does it: answer, stop reading, close half a second later."""

    def act(exchange: Exchange) -> None:
        taken = 0
        while taken < after:
            taken += len(exchange.receive(65536))
        body = json.dumps({"type": "error", "error": words, "error_code": status}).encode()
        exchange.head(status, Content_Type="application/json", Content_Length=str(len(body)), Connection="close")
        exchange.send(body)
        if not isinstance(exchange.connection, ssl.SSLSocket):
            exchange.connection.shutdown(socket.SHUT_WR)
        threading.Event().wait(0.5)
        raise HungUp

    return act


@dataclass
class FakeIncus:
    """The server: routes by method and quoted path, with what it saw."""

    extensions: list[str] = field(default_factory=list)
    auth: str = "trusted"
    kind: str = "incus"
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    url: str = ""
    certificate: str = ""

    def __post_init__(self) -> None:
        self._routes: dict[tuple[str, str], list[Act]] = {}
        self._listener: socket.socket | None = None
        self._context: ssl.SSLContext | None = None
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []

    def on(self, method: str, path: str, *acts: Act) -> None:
        """Announce a request; several acts are taken one after the other, the last one for good."""
        self._routes[method, path] = list(acts)

    def seen(self, method: str, path: str) -> list[Request]:
        """The requests of that kind."""
        return [request for request in self.requests if (request.method, request.path) == (method, path)]

    def listen_unix(self, path: Path) -> FakeIncus:
        """Serve on a socket."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        self.url = f"unix://{path}"
        return self._start(listener)

    def listen_tls(self, cert: Path, key: Path) -> FakeIncus:
        """Serve on 127.0.0.1 with TLS; asks for a client certificate without checking it, as Incus does."""
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(cert, key)
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        self.certificate = str(cert)
        return self._start(listener)

    def stop(self) -> None:
        """Close everything."""
        if self._listener is not None:
            # A mere close leaves it open for the thread that is waiting in accept().
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(PATIENCE)

    def _start(self, listener: socket.socket) -> FakeIncus:
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _peer = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._context is not None:
                connection = self._context.wrap_socket(connection, server_side=True)
            self._connections.append(connection)
            rest = b""
            while True:
                exchange = self._next(connection, rest)
                rest = self._answer(exchange)
        except (HungUp, OSError):
            pass
        finally:
            connection.close()

    def _next(self, connection: socket.socket, rest: bytes) -> Exchange:
        while b"\r\n\r\n" not in rest:
            piece = connection.recv(65536)
            if not piece:
                raise HungUp
            rest += piece
        head, _unused, rest = rest.partition(b"\r\n\r\n")
        lines = head.decode("utf-8").split("\r\n")
        method, target, _version = lines[0].split(" ")
        path, _unused, query = target.partition("?")
        headers = {name.lower(): value for name, _unused, value in (line.partition(": ") for line in lines[1:])}
        unknown = set(headers) - KNOWN_HEADERS
        if unknown:
            self.complaints.append(f"{method} {path}: unknown headers {sorted(unknown)}")
        request = Request(method, path, dict(parse_qsl(query, keep_blank_values=True)), headers)
        self.requests.append(request)
        return Exchange(request, connection, rest)

    def _answer(self, exchange: Exchange) -> bytes:
        request = exchange.request
        acts = self._routes.get((request.method, request.path))
        if (request.method, request.path) == ("GET", "/1.0") and acts is None:
            acts = [sync(self._hello())]
        if acts is None:
            self.complaints.append(f"unknown request {request.method} {request.path}")
            acts = [refusal(500, "the fake server does not know this request")]
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        act(exchange)
        return exchange._rest

    def _hello(self) -> dict[str, Any]:
        environment = {
            "server": self.kind,
            "server_name": "fake",
            "server_version": "7.0.2",
            "server_clustered": False,
            "certificate_fingerprint": "ab" * 32,
            "storage": "btrfs | dir",
            "storage_supported_drivers": [{"Name": "btrfs"}, {"Name": "dir"}, {"Name": "zfs"}],
        }
        return {"auth": self.auth, "api_extensions": self.extensions, "environment": environment, "config": {}}
