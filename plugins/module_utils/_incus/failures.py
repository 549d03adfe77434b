# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""What went wrong on the way to a server or came back from it, as the collection's own errors."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Callable, Iterator
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    BackupError,
    Conflict,
    NotFound,
    PermissionDenied,
    ServerError,
    ServerUnreachable,
    StreamBroken,
    StreamStalled,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import RIGHTS_HINT, SOCKET_HINT

_WORDS_LIMIT = 2000
CERTIFICATE_HINT = (
    "If the server's certificate was changed on purpose, fetch the new one and set server_cert; "
    "if not, something else answers there"
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything behind it: causes, contexts, and errors that libraries carry as arguments or reasons."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop(0)
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]


def is_timeout(error: BaseException) -> bool:
    """Whether a time-out is behind the error; libraries name theirs differently."""
    return any(isinstance(cause, TimeoutError) or "Timeout" in type(cause).__name__ for cause in causes(error))


def _is(*types: type[BaseException]) -> Callable[[BaseException], bool]:
    return lambda cause: isinstance(cause, types)


def _says(words: str) -> Callable[[BaseException], bool]:
    return lambda cause: words in str(cause)


def _named(words: str) -> Callable[[BaseException], bool]:
    return lambda cause: words in type(cause).__name__


# What a cause looks like, which error it becomes, its message ({sent} is the request) and its hint; first match wins.
_NO_ANSWER: tuple[tuple[Callable[[BaseException], bool], type[BackupError], str, str | None], ...] = (
    (
        _is(ssl.SSLCertVerificationError),
        ServerUnreachable,
        "the server's certificate could not be verified",
        "Set server_cert to the server's own certificate to pin it",
    ),
    (
        _says("Fingerprints did not match"),
        ServerUnreachable,
        "the server presented another certificate than the pinned one",
        CERTIFICATE_HINT,
    ),
    (_is(PermissionError), PermissionDenied, "no permission to talk to Incus", RIGHTS_HINT),
    (_is(FileNotFoundError), ServerUnreachable, "the socket of Incus does not exist", SOCKET_HINT),
    (
        _is(ConnectionRefusedError),
        ServerUnreachable,
        "nothing listens there",
        "Check that the Incus daemon is running (systemctl status incus)",
    ),
    (_says("AF_UNIX path too long"), UsageError, "the path of the socket is too long (107 bytes at most)", None),
    (
        _is(ssl.SSLError),
        ServerUnreachable,
        "the TLS connection failed",
        "Check that this is the HTTPS address of an Incus server, and that the client certificate is valid",
    ),
    (_named("InvalidURL"), UsageError, "the server's address cannot be used", None),
    (_is(UnicodeError), UsageError, "the server's address cannot be used", None),
    (
        _is(TimeoutError),
        ServerUnreachable,
        "no answer to {sent} in time",
        "The server hangs, is overloaded, or the network drops packets",
    ),
    (_named("Timeout"), ServerUnreachable, "no answer to {sent} in time", "The server hangs or is overloaded"),
    (
        _is(ConnectionError),
        ServerUnreachable,
        "the connection was lost before {sent} was answered",
        "The Incus daemon may have been restarted",
    ),
)


def no_answer(error: BaseException, server: str, sent: str) -> BackupError:
    """A request that never got its answer.  ``sent`` is the request as messages name it."""
    behind = list(causes(error))
    words = _first_words(behind)
    for matches, kind, message, hint in _NO_ANSWER:
        if any(matches(cause) for cause in behind):
            return kind(message.format(sent=sent), server=server, server_said=words, hint=hint)
    return ServerUnreachable(f"{sent} could not be sent or answered", server=server, server_said=words)


def stream_error(error: BaseException, server: str, stall: float, received: int) -> BackupError:
    """A body that stopped in the middle, after ``received`` bytes, with a time-out of ``stall`` seconds per read."""
    if is_timeout(error):
        return stalled(server, stall, f"after {received} bytes")
    return StreamBroken(
        f"the stream broke off after {received} bytes", server=server, server_said=_first_words(list(causes(error)))
    )


def stalled(server: str, stall: float, when: str) -> StreamStalled:
    """No byte moved for the stall time-out; ``when`` places it ("before the first byte")."""
    return StreamStalled(
        f"no byte moved for {stall:g} seconds {when}",
        server=server,
        hint="If the server or its storage is merely slow, raise stall_timeout",
    )


def from_answer(status: int, body: bytes, decoded: Any, server: str, sent: str) -> BackupError:
    """The error for an answer that is one.  ``decoded`` is the body's JSON where it is JSON."""
    said = words_of(body, decoded)
    if isinstance(decoded, dict) and isinstance(decoded.get("error_code"), int) and decoded["error_code"] >= 400:
        # Incus sends its headers early on some calls: the body's code is then the true one.
        status = decoded["error_code"]
    facts: dict[str, str | None] = {"server": server, "server_said": said}
    if status in (401, 403):
        return PermissionDenied(
            f"the server refused {sent}", **facts, hint="Check that the server trusts this client, and for this project"
        )
    message = f"the server answered {status} to {sent}"
    if status == 404:
        return NotFound(message, status=status, **facts)
    if status in (409, 412):
        return Conflict(message, status=status, **facts)
    return ServerError(message, status=status, **facts)


def not_incus(status: int, body: bytes, server: str, sent: str) -> ServerError:
    """An answer that is no answer of the Incus API at all."""
    return ServerError(
        f"the answer to {sent} is not one of the Incus API",
        status=status,
        server=server,
        server_said=words_of(body, None),
        hint="Check that this is the address of an Incus server, with nothing in between that answers itself",
    )


def words_of(body: bytes, decoded: Any) -> str | None:
    """The other side's own words: the API's ``error``, else the text of the body, cut to a readable length."""
    if isinstance(decoded, dict) and isinstance(decoded.get("error"), str) and decoded["error"]:
        return str(decoded["error"])[:_WORDS_LIMIT]
    text = body[:_WORDS_LIMIT].decode("utf-8", "replace").strip()
    return text or None


def _first_words(behind: list[BaseException]) -> str | None:
    """The innermost readable reason: an operating system's error beats a library's rendering of it."""
    for cause in behind:
        if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
            # OpenSSL counts its errors from 1, too: those are not the operating system's.
            code = None if isinstance(cause, ssl.SSLError) else errno.errorcode.get(cause.errno)
            return f"{cause.strerror} ({code})" if code else cause.strerror
    return next((str(cause) for cause in reversed(behind) if str(cause)), None)
