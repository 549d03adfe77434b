# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Durations as people write them in options, and moments as Incus writes them in JSON."""

from __future__ import annotations

import re
from datetime import datetime, timezone

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError

_PART = re.compile(r"([0-9]+)([smhdw]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MOMENT = re.compile(
    r"(?P<stamp>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d)(?:\.(?P<fraction>\d+))?\s*(?P<zone>Z|[+-]\d\d:?\d\d)?"
)
NEVER = "0001-01-01T00:00:00Z"  # how Go, and so Incus, writes "no time"


def parse_duration(text: str, option: str) -> int:
    """Seconds in ``text``: a number, or numbers with units such as ``36h``, ``1d12h``, ``2w``.

    Raises UsageError, naming ``option``, for anything else: an empty or misspelt age must never mean "always".
    """
    compact = text.strip().lower()
    if not compact or _PART.sub("", compact):
        raise UsageError(
            f"{option}: {text!r} is not a duration", hint="Write seconds, or for example 90m, 36h, 7d, 1d12h"
        )
    parts = _PART.findall(compact)
    if len(parts) > 1 and any(unit == "" for _number, unit in parts):
        raise UsageError(f"{option}: {text!r} mixes numbers with and without units", hint="Write for example 1d12h")
    return sum(int(number) * _SECONDS[unit] for number, unit in parts)


def parse_moment(text: str, option: str = "time") -> datetime:
    """A moment in UTC from RFC 3339 text (nanoseconds, as Go writes them, are cut to microseconds) or a plain date."""
    candidate = text.strip()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", candidate):
        candidate += "T00:00:00Z"
    match = _MOMENT.fullmatch(candidate)
    if match is None:
        raise UsageError(f"{option}: {text!r} is not a time", hint="Write for example 2026-11-23T14:15:00Z")
    zone = (match["zone"] or "Z").replace("Z", "+00:00")
    fraction = ((match["fraction"] or "0") + "000000")[:6]
    try:
        moment = datetime.fromisoformat(f"{match['stamp'].replace(' ', 'T')}.{fraction}{_with_colon(zone)}")
        return moment.astimezone(timezone.utc) if moment.year > 1 else datetime.min.replace(tzinfo=timezone.utc)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option}: {text!r} is not a time ({error})") from error


def is_never(text: str | None) -> bool:
    """Whether Incus's time means "not set" (absent, empty, or Go's zero time)."""
    return not text or text.startswith("0001-01-01")


def format_moment(moment: datetime) -> str:
    """RFC 3339 text in UTC with whole seconds."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_colon(zone: str) -> str:
    return zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
