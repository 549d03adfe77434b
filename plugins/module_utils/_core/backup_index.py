# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""What ``backup/index.yaml`` says about an Incus backup, compared with what the archive holds and what was wanted.

pylxd does not bring a YAML library to a host, so the few keys that the comparison needs are read by hand, strictly:
Incus writes them with Go's YAML encoder as a flat mapping at the top (internal/server/backup/backup_info.go, ``Info``)
and nests everything else below ``config``.  A line that is neither is an error, never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import INDEX_NAME, Part
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import ArchiveInvalid

_KEY = re.compile(r"([a-z_]+):(?: +(\S.*))?")
_ITEM = re.compile(r" *- (\S.*)")
# A plain scalar without anything that YAML would read as more than text.
_PLAIN = re.compile(r"[^\s\-?:,\[\]{}#&*!|>'\"%@`](?:[^\s:#]|:(?=\S)|(?<=\S)#| (?=[^\s#]))*")
_SINGLE_QUOTED = re.compile(r"'((?:[^']|'')*)'")
_DOUBLE_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))")
_ESCAPED = {
    "0": "\0", "a": "\a", "b": "\b", "t": "\t", "n": "\n", "v": "\v", "f": "\f", "r": "\r", "e": "\x1b",
    '"': '"', "\\": "\\", "/": "/", "N": "\x85", "_": "\xa0", "L": "\u2028", "P": "\u2029",
}  # fmt: skip


@dataclass(frozen=True)
class BackupIndex:
    """The top of ``backup/index.yaml``; ``snapshots`` are bare names, oldest first."""

    name: str
    backend: str
    pool: str
    type: str
    snapshots: tuple[str, ...]
    optimized: bool
    optimized_header: bool


@dataclass(frozen=True)
class _Layout:
    """Where an instance type's data lies below ``backup/``: suffixes to its main part and to each snapshot.

    ``files`` is the part that must be there below each in the plain format, even if it is empty.
    """

    main: str
    snapshots: str
    plain: tuple[str, ...]
    optimized: tuple[str, ...]
    files: str = ""


# internal/server/storage/drivers: generic_vfs.go and utils.go for plain, driver_zfs/btrfs_volumes.go for optimized.
_LAYOUTS = {
    "container": _Layout("container", "snapshots", ("",), (".bin",), "/rootfs"),
    "virtual-machine": _Layout("virtual-machine", "virtual-machine-snapshots", ("", ".img"), ("-config.bin", ".bin")),
}


def read_backup_index(data: bytes) -> BackupIndex:
    """Read the bytes of ``backup/index.yaml``.

    What is missing takes Incus's own defaults: type ``container``, nothing optimized, no snapshots.  Raises
    ArchiveInvalid with the line's number where the text is not what Incus writes.
    """
    scalars, snapshots = _top_level(data)
    for key in ("name", "backend", "pool"):
        if not scalars.get(key):
            raise ArchiveInvalid(f"{INDEX_NAME} has no {key}")
    return BackupIndex(
        name=scalars["name"],
        backend=scalars["backend"],
        pool=scalars["pool"],
        type=scalars.get("type") or "container",
        snapshots=tuple(snapshots),
        optimized=_truth(scalars, "optimized"),
        optimized_header=_truth(scalars, "optimized_header"),
    )


def check_backup_index(
    index: BackupIndex,
    parts: Mapping[str, Part],
    *,
    name: str,
    instance_type: str,
    snapshots: Collection[str],
    optimized: bool | None = None,
) -> list[str]:
    """Compare an archive's index and parts with the instance that was to be exported; pure.

    ``snapshots`` are the bare names that the server listed, empty for an export without them.  ``optimized`` is what
    was asked for, None when it does not matter (Incus downgrades silently; ``index.optimized`` is the truth).
    Returns a sentence for each thing that is wrong, nothing when the archive holds what it should.
    """
    problems = []
    if index.name != name:
        problems.append(f"the index names {index.name!r}, {name!r} was expected")
    if index.type != instance_type:
        problems.append(f"the index says type {index.type}, {instance_type} was expected")
    if optimized is not None and index.optimized != optimized:
        problems.append(f"the index says optimized {_yes_no(index.optimized)}, {_yes_no(optimized)} was expected")
    for missing in sorted(set(snapshots) - set(index.snapshots)):
        problems.append(f"the index lacks snapshot {missing!r}, which the server has")
    for extra in sorted(set(index.snapshots) - set(snapshots)):
        problems.append(f"the index has snapshot {extra!r}, which was not expected")
    layout = _LAYOUTS.get(index.type)
    if layout is None:
        problems.append(f"the index says type {index.type}, which is not an instance's")
    else:
        problems += _compare_parts(index, parts, layout)
    return problems


def _compare_parts(index: BackupIndex, parts: Mapping[str, Part], layout: _Layout) -> list[str]:
    problems = []
    wanted, unwanted = layout.plain, layout.optimized
    if index.optimized:
        wanted, unwanted = unwanted, wanted
    stems = [f"backup/{layout.main}", *(f"backup/{layout.snapshots}/{snapshot}" for snapshot in index.snapshots)]
    for stem in stems:
        for suffix in wanted:
            part = parts.get(stem + suffix)
            if part is None:
                problems.append(f"the archive lacks {stem + suffix}")
            elif not part.data_bytes + _data_below(parts, stem + layout.files):
                problems.append(f"{stem + suffix} is in the archive, but holds no data")
        if stem in parts and layout.files and not index.optimized and stem + layout.files not in parts:
            problems.append(f"the archive lacks {stem + layout.files}")
        problems += [
            f"the archive has {stem + suffix}, but its index says optimized {_yes_no(index.optimized)}"
            for suffix in unwanted
            if stem + suffix in parts
        ]
    if index.optimized_header and "backup/optimized_header.yaml" not in parts:
        problems.append("the archive lacks backup/optimized_header.yaml, which its index announces")
    # Subvolumes of btrfs have parts of their own, named after the snapshot: "<snapshot>_<path>.bin".
    subvolumes = tuple(stem + "_" for stem in stems[1:])
    known = {stem + suffix for stem in stems[1:] for suffix in wanted + unwanted}
    problems += [
        f"the archive has {name}, which its index does not name"
        for name in sorted(parts)
        if name.startswith(f"backup/{layout.snapshots}/")
        and name.count("/") == 2
        and name not in known
        and not name.startswith(subvolumes)
    ]
    return problems


def _data_below(parts: Mapping[str, Part], name: str) -> int:
    return parts[name].data_bytes if name in parts else 0


def _top_level(data: bytes) -> tuple[dict[str, str], list[str]]:
    """The scalars of the top-level mapping and the list of snapshots; everything else that is nested is passed over."""
    scalars: dict[str, str] = {}
    snapshots: list[str] = []
    key = ""
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ArchiveInvalid(f"{INDEX_NAME} is not UTF-8 text", server_said=str(error)) from error
    for number, line in enumerate(lines, 1):
        nested = line.startswith((" ", "- ")) or line == "-"
        if not line or (nested and key and key != "snapshots" and not scalars[key]):
            continue
        if nested and key == "snapshots":
            item = _ITEM.fullmatch(line)
            if not item:
                raise _unreadable(number)
            snapshots.append(_scalar(item[1], number))
            continue
        found = _KEY.fullmatch(line)
        if not found or found[1] in scalars:
            raise _unreadable(number)
        key = found[1]
        text = found[2] or ""
        if key == "snapshots" and text not in ("", "[]"):
            raise _unreadable(number)
        scalars[key] = "" if text in ("", "[]", "{}", "null") else _scalar(text, number)
    return scalars, snapshots


def _scalar(text: str, line: int) -> str:
    """The value of a one-line scalar: plain, 'single quoted' or "double quoted"."""
    if _PLAIN.fullmatch(text):
        return text
    if single := _SINGLE_QUOTED.fullmatch(text):
        return single[1].replace("''", "'")
    if double := _DOUBLE_QUOTED.fullmatch(text):
        try:
            return _ESCAPE.sub(_unescaped, double[1])
        except (KeyError, ValueError, OverflowError):
            pass  # an escape that YAML does not know
    raise _unreadable(line)


def _unescaped(escape: re.Match[str]) -> str:
    code = escape[1] or escape[2] or escape[3]
    return chr(int(code, 16)) if code else _ESCAPED[escape[4]]


def _truth(scalars: Mapping[str, str], key: str) -> bool:
    word = scalars.get(key, "false")
    if word not in ("true", "false"):
        raise ArchiveInvalid(f"{INDEX_NAME} says {key}: {word!r}, true or false was expected")
    return word == "true"


def _unreadable(line: int) -> ArchiveInvalid:
    return ArchiveInvalid(f"{INDEX_NAME} is not what Incus writes, line {line} could not be read")


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"
