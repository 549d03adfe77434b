# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Names into URLs, parameters into queries, values into headers: nothing of the caller's ever changes their meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import quote

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError

ParamValue: TypeAlias = "str | int | bool | None"


def fill_path(template: str, names: tuple[str, ...]) -> str:
    """``instances/{}/backups/{}`` with every ``{}`` replaced by a fully quoted name.

    Raises UsageError for a name that cannot be a path segment, ValueError where the count is wrong (a defect of ours).
    """
    pieces = template.split("{}")
    if len(pieces) != len(names) + 1:
        raise ValueError(f"{template!r} takes {len(pieces) - 1} names, not {len(names)}")
    path = pieces[0]
    for name, piece in zip(names, pieces[1:], strict=True):
        path += quote_segment(name) + piece
    return path


def quote_segment(name: str) -> str:
    """One name as one segment of a path, also with ``/``, ``?``, ``#``, ``%`` or any letter of Unicode in it."""
    # Dots are never quoted in URLs, and every client and server folds such segments away.
    if name in ("", ".", ".."):
        raise UsageError(f"{name!r} cannot be a name on an Incus server")
    try:
        return quote(name, safe="")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name!r} is not valid Unicode") from error


def query(params: Mapping[str, ParamValue]) -> dict[str, str]:
    """Parameters as Incus wants them: None is left out, booleans become ``true`` and ``false``."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in params.items()
        if value is not None
    }


def header_values(headers: Mapping[str, str]) -> dict[str, bytes]:
    """Headers as they go over the wire, in UTF-8 as Incus's own client sends them.  Raises UsageError."""
    encoded: dict[str, bytes] = {}
    for name, value in headers.items():
        if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value):
            raise UsageError(f"the header {name} cannot carry {value!r}: it has control characters")
        if value != value.strip():
            raise UsageError(f"the header {name} cannot carry {value!r}: it begins or ends with a space")
        try:
            encoded[name] = value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"the header {name} cannot carry {value!r}: it is not valid Unicode") from error
    return encoded


def config_header(config: Mapping[str, str]) -> str:
    """``X-Incus-config``: the server splits it at spaces and each part at its first ``=`` (instances_post.go).

    Raises UsageError for a key or value that this cannot carry.
    """
    return " ".join(
        f"{_word(key, 'config key', '=')}={_word(value, f'value of {key}')}" for key, value in config.items()
    )


def devices_header(devices: Mapping[str, Mapping[str, str]]) -> str:
    """``X-Incus-devices``: ``device,key=value`` separated by spaces.  Raises UsageError as ``config_header``."""
    return " ".join(
        f"{_word(device, 'device name', ',=')},{_word(key, f'key of device {device}', '=')}="
        f"{_word(value, f'value of {device}.{key}')}"
        for device, keys in devices.items()
        for key, value in keys.items()
    )


def _word(text: str, what: str, forbidden: str = "") -> str:
    if any(character.isspace() for character in text):
        raise UsageError(
            f"the {what} {text!r} contains a space, which Incus cannot take while it imports",
            hint="Import without this override and change the instance afterwards",
        )
    if any(character in forbidden for character in text) or (forbidden and not text):
        raise UsageError(f"the {what} {text!r} is not a valid one")
    return text
