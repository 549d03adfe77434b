# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The errors of the collection: every one carries facts that a tired operator can act on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class BackupError(Exception):
    """Something failed; says what was tried, where, on what, what was answered, and what to do.

    ``operation`` is what was being done ("export instance"), ``server`` the endpoint or host it was done on,
    ``entity`` the thing it was done to ("default/web"), ``server_said`` the other side's own words, and ``hint`` what
    the reader can do about it.  A layer that knows more than the one that raised adds it with ``within()``.
    """

    def __init__(
        self,
        message: str,
        *,
        operation: str | None = None,
        server: str | None = None,
        entity: str | None = None,
        server_said: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.server = server
        self.entity = entity
        self.server_said = server_said
        self.hint = hint

    def within(
        self,
        *,
        operation: str | None = None,
        server: str | None = None,
        entity: str | None = None,
        hint: str | None = None,
    ) -> BackupError:
        """Fill in the facts that the raising layer did not know; what is already there stays.  Returns itself."""
        self.operation = self.operation or operation
        self.server = self.server or server
        self.entity = self.entity or entity
        self.hint = self.hint or hint
        return self

    @property
    def kind(self) -> str:
        """The error's stable machine-readable name, e.g. ``StoreFull``."""
        return type(self).__name__

    def facts(self) -> dict[str, Any]:
        """What the error knows, as plain JSON types; keys are always the same."""
        return {
            "error": self.kind,
            "msg": self.message,
            "operation": self.operation,
            "server": self.server,
            "entity": self.entity,
            "server_said": self.server_said,
            "hint": self.hint,
        }

    def sentence(self) -> str:
        """One line for people: message, what was tried on what, the answer and the hint."""
        parts = [_ended(self.message)]
        tried = " ".join(
            part
            for part in (
                self.operation,
                f"of {self.entity}" if self.entity else "",
                f"on {self.server}" if self.server else "",
            )
            if part
        )
        if tried:
            parts.append(f"Tried: {tried}.")
        if self.server_said and self.server_said not in self.message:
            parts.append(_ended(f"The server said: {self.server_said}"))
        if self.hint:
            parts.append(_ended(self.hint))
        return " ".join(parts)


def _ended(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else text + "."


class UsageError(BackupError):
    """An option's value makes no sense, alone or with the others."""


class ServerUnreachable(BackupError):
    """No answer from the Incus daemon: socket missing, connection refused, TLS failed, daemon gone."""


class PermissionDenied(BackupError):
    """The daemon, its socket or the store's file system refused us."""


class ServerError(BackupError):
    """The daemon answered with an error; ``status`` is the HTTP status code."""

    def __init__(self, message: str, *, status: int = 0, **facts: str | None) -> None:
        super().__init__(message, **facts)
        self.status = status


class NotFound(ServerError):
    """The daemon does not know the entity (404)."""


class Conflict(ServerError):
    """The entity exists already or changed meanwhile (409, 412)."""


class OperationFailed(BackupError):
    """A background operation of the daemon ended in failure."""


class OperationTimeout(BackupError):
    """A background operation did not end before its deadline and was cancelled."""


class StreamStalled(BackupError):
    """No byte moved on a stream for longer than the stall time-out."""


class StreamBroken(BackupError):
    """A stream ended before its end: the connection was lost, or the other side closed it."""


class ExtensionMissing(BackupError):
    """The server lacks an API extension that the request needs."""


class ArchiveInvalid(BackupError):
    """An archive is cut, damaged, or does not hold what its index says."""


class ChecksumMismatch(ArchiveInvalid):
    """A stored file's bytes are not those that were recorded."""


class CommandFailed(BackupError):
    """A tool on the host (zstd, …) is missing or failed."""


class StoreError(BackupError):
    """The store refused: not mounted, unsafe place, wrong rights, input/output error."""


class StoreFull(StoreError):
    """No space (or quota) left in the store."""


class StoreDenied(StoreError, PermissionDenied):
    """The store's file system refused us: owner, mode, or mounted read-only."""


class SetInvalid(StoreError):
    """A set, a record or a manifest is unreadable, of a newer format, or in the wrong state."""


class OwnerMismatch(StoreError):
    """The site's directory belongs to another server."""


class LeaseHeld(StoreError):
    """Another run is at work in this site."""


class NothingSelected(BackupError):
    """The selection matched nothing, or an explicit name was not found."""


class Interrupted(BackupError):
    """The module was told to stop (SIGTERM) and cleaned up."""


class PreflightFailed(BackupError):
    """Nothing was changed: ``problems`` lists everything that stands in the way, all at once."""

    def __init__(self, message: str, problems: Sequence[dict[str, Any]], **facts: str | None) -> None:
        super().__init__(message, **facts)
        self.problems = list(problems)

    def facts(self) -> dict[str, Any]:
        """As in the base class, with ``problems``."""
        return {**super().facts(), "problems": self.problems}
