# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Names: of sets, runs, temporary objects, and of files made from names that a server or a manifest gave."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timezone
from urllib.parse import quote, unquote

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError

TIME_FORMAT = "%Y%m%dT%H%M%SZ"
TEMPORARY_PREFIX = "incus-fleet-"
KINDS = ("partial", "full")

_SITE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,126}")
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,46}")
_SET_NAME = re.compile(r"(?P<time>[0-9]{8}T[0-9]{6}Z)-(?P<kind>partial|full)-(?P<tail>[0-9a-f]{4})")


def now() -> datetime:
    """The present moment, in UTC, without fractions of a second (what names and records hold)."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def new_run_id(moment: datetime | None = None) -> str:
    """An identifier for one pass over the fleet, unique by its random tail."""
    return f"{(moment or now()).strftime(TIME_FORMAT)}-{secrets.token_hex(4)}"


def checked_run_id(text: str) -> str:
    """Return ``text`` if it can be part of an Incus backup's name; raise UsageError otherwise."""
    if not _RUN_ID.fullmatch(text):
        raise UsageError(
            f"run_id {text!r} is not usable",
            hint="Use 1 to 47 letters, digits and dashes, beginning with a letter or digit",
        )
    return text


def checked_site(text: str) -> str:
    """Return ``text`` if it can name a site's directory; raise UsageError otherwise."""
    if not is_site(text):
        raise UsageError(
            f"site {text!r} is not usable as a directory's name",
            hint="Use letters, digits, dots, dashes and underscores, beginning with a letter or digit",
        )
    return text


def is_site(text: str) -> bool:
    """Whether ``text`` can name a site's directory: other things that lie in a store (``lost+found``) cannot."""
    return _SITE.fullmatch(text) is not None


def new_set_name(kind: str, moment: datetime) -> str:
    """A set's name, ``<UTC time>-<kind>-<4 hex>``; the caller must create it exclusively."""
    return f"{moment.strftime(TIME_FORMAT)}-{kind}-{secrets.token_hex(2)}"


def set_time(name: str) -> datetime | None:
    """When the set of that name was opened, or None where ``name`` is not a set's name."""
    match = _SET_NAME.fullmatch(name)
    if match is None:
        return None
    try:
        return datetime.strptime(match["time"], TIME_FORMAT).replace(tzinfo=timezone.utc)
    except ValueError:  # a thirteenth month, say: somebody else's directory
        return None


def set_kind(name: str) -> str | None:
    """The kind that a set's name tells, or None where ``name`` is not a set's name."""
    match = _SET_NAME.fullmatch(name)
    return match["kind"] if match and set_time(name) else None


def temporary_name(run_id: str) -> str:
    """The name of an object that a run leaves on a server for a while."""
    return TEMPORARY_PREFIX + run_id


def temporary_owner(name: str) -> str | None:
    """The run id in a temporary object's name, or None where the object is not ours."""
    if not name.startswith(TEMPORARY_PREFIX):
        return None
    run_id = name[len(TEMPORARY_PREFIX) :]
    return run_id if _RUN_ID.fullmatch(run_id) else None


def file_name(name: str) -> str:
    """A name from a server or manifest as one path component; ``original_name`` undoes it.

    Everything but letters, digits, ``_``, ``-`` and ``.`` is percent-encoded, and so is a leading dot, so that no name
    can leave its directory or hide in it.
    """
    try:
        quoted = quote(name, safe="").replace("~", "%7E")
    except UnicodeEncodeError as error:
        raise UsageError(f"the name {name!r} cannot be a file's name", hint="It is not valid Unicode") from error
    if quoted.startswith("."):
        quoted = "%2E" + quoted[1:]
    if not quoted or len(quoted) > 200:
        raise UsageError(f"the name {name!r} cannot be a file's name", hint="It is empty or too long")
    return quoted


def original_name(component: str) -> str:
    """What ``file_name`` was given."""
    return unquote(component)
