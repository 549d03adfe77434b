# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Reads a plain tar stream to its end while it passes by, and proves that the archive is whole.

Incus imports an archive that was cut at a member boundary with "Success" and without the missing files, so what is
stored must be known to reach its end marker.  The checker is pushed the stream's bytes, looks at headers only and
remembers which parts an archive has, never its files: its memory does not grow with the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from zlib import adler32

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import ArchiveInvalid

INDEX_NAME = "backup/index.yaml"

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
# The limit for extended headers is that of Go's archive/tar, the one for the index is Incus's
# (internal/server/backup/backup_info.go); a member that is kept in memory is never bigger.
_MOST_KEPT = 1 << 20
_MOST_PARTS = 65536
# Directories whose entries are parts of their own (internal/server/storage/drivers/generic_vfs.go).
_SNAPSHOT_DIRECTORIES = frozenset({b"snapshots", b"virtual-machine-snapshots", b"volume-snapshots"})
_ROOTFS = b"rootfs"  # a container's files; a part of its own, because the rest of a container is there without it
_WITH_ROOTFS = frozenset({b"container", b"snapshots"})
_NO_NAME = b"\0"  # what no member's name starts with
_HEADER_ONLY = frozenset(b"123456")  # links, devices, directories, fifos: Go's reader takes them to have no data
_WITH_DATA = frozenset(b"0\x007")
_EXTENSIONS = {ord("x"): "pax", ord("g"): "pax global", ord("L"): "long name", ord("K"): "long link name"}


@dataclass(frozen=True)
class Part:
    """A top-level part of an archive, e.g. ``backup/container``: how many members, how many bytes of data they have."""

    members: int
    data_bytes: int


@dataclass(frozen=True)
class ArchiveIndex:
    """What a whole archive consists of.

    ``members`` counts entries, ``plain_bytes`` everything up to the last byte of padding.  ``parts`` is keyed by the
    first two components of the members' names (three below the directories of snapshots), and a ``rootfs`` in there is
    a part of its own.  ``index_yaml`` is the content of ``backup/index.yaml``, None when the checker was not
    told to require it.
    """

    members: int
    plain_bytes: int
    parts: Mapping[str, Part]
    index_yaml: bytes | None


@dataclass
class _Extension:
    """What extended headers said about the next member; None where they said nothing."""

    name: bytes | None = None
    size: int | None = None
    seen: bool = False


@dataclass
class _Kept:
    """A member whose data is being kept: what it is, where it starts, how long it is without padding."""

    what: str
    offset: int
    size: int


@dataclass
class _Tally:
    """The part that members are being counted for; ``prefix`` is what the names of its members start with."""

    name: str = ""
    prefix: bytes = _NO_NAME
    members: int = 0
    data_bytes: int = 0
    done: dict[str, Part] = field(default_factory=dict)

    def turn_to(self, part: bytes, *, closed: bool) -> None:
        """Book what was counted and count for ``part`` from now on; ``closed`` when no other part lies within it."""
        self.flush()
        self.name = part.decode("utf-8", "surrogateescape")
        self.prefix = part + b"/" if closed else _NO_NAME

    def flush(self) -> None:
        """Book what was counted."""
        if self.members:
            before = self.done.get(self.name, Part(0, 0))
            self.done[self.name] = Part(before.members + self.members, before.data_bytes + self.data_bytes)
        self.members = self.data_bytes = 0


class TarChecker:
    """A push parser of one tar stream: ``feed()`` it every byte in order, then ask ``finish()`` for the verdict.

    It understands what Go's archive/tar writes (ustar, PAX) and GNU tar's own format, and is stricter than both:
    checksums must be right, the end marker must be there, and nothing but zeros may follow it.  ``require_index``
    demands Incus's ``backup/index.yaml`` as the first member.  Every error is an ArchiveInvalid that names the byte
    offset in the plain stream; after one the checker is of no further use.
    """

    def __init__(self, *, require_index: bool = True) -> None:
        self._require_index = require_index
        self._offset = 0  # of the next byte that will be fed
        self._skip = 0  # bytes of data and padding that are still to pass by
        self._held = bytearray()  # the beginning of a block that the previous chunk cut in two
        self._kept: _Kept | None = None
        self._extension = _Extension()
        self._zero_blocks = 0
        self._members = 0
        self._tally = _Tally()
        self._last = b""  # the newest member's header, for messages
        self._index_yaml: bytes | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take the stream's next bytes, as many as there happen to be.  Raises ArchiveInvalid."""
        start, end = self._offset, len(data)
        self._offset += end
        at = self._skip
        if at >= end:
            self._skip -= end
            return
        while at < end:
            if self._zero_blocks == 2:
                self._only_zeros(bytes(data[at:]), start + at)
                at = end
                break
            want = _BLOCK if self._kept is None else _padded(self._kept.size)
            if self._held or end - at < want:
                taken = min(want - len(self._held), end - at)
                self._held += data[at : at + taken]
                at += taken
                if len(self._held) < want:
                    break
                block = bytes(self._held)
                self._held.clear()
            else:
                block = bytes(data[at : at + want])
                at += want
            if self._kept is None:
                at += self._header(block, start + at - _BLOCK)
            else:
                self._keep(self._kept, block)
        self._skip = at - end

    def finish(self) -> ArchiveIndex:
        """Say that the stream has ended.  Returns what was seen; raises ArchiveInvalid where the archive is cut."""
        if self._zero_blocks < 2:
            raise _invalid(self._offset, f"the archive ends, {self._still_expected()} was expected")
        self._tally.flush()
        parts = self._tally.done
        if self._require_index:
            found = parts[INDEX_NAME].members if INDEX_NAME in parts else 0
            if found != 1:
                raise ArchiveInvalid(f"The archive has {found} members {INDEX_NAME}, one was expected")
        return ArchiveIndex(self._members, self._offset, parts, self._index_yaml)

    def _still_expected(self) -> str:
        if self._kept is not None:
            return f"the rest of the {self._kept.what} that starts at byte {self._kept.offset}"
        if self._skip:
            return f"{self._skip} more bytes of {_shown(_header_name(self._last))}"
        if self._held:
            return f"the rest of a header, {_BLOCK - len(self._held)} more bytes,"
        if self._zero_blocks:
            return "the second zero block of the end marker"
        if self._extension.seen:
            return "the member that an extended header announces"
        return "the end marker (two zero blocks) at this member boundary"

    def _header(self, block: bytes, offset: int) -> int:
        """Read one header; returns how many bytes of data and padding to pass over.

        This runs once a member in the stream's hot path, hence the few calls and the shortcut for a member of the
        same part as the one before it.
        """
        if block == _ZERO_BLOCK:
            if self._extension.seen:
                raise _invalid(offset, "end marker, the member that an extended header announces was expected")
            self._zero_blocks += 1
            return 0
        if self._zero_blocks:
            raise _invalid(offset, "a header, the second zero block of the end marker was expected")
        _check_checksum(block, offset)
        kind = block[156]
        size = _number(block[124:136], offset)
        if kind in _EXTENSIONS:
            return self._start_keeping(_EXTENSIONS[kind] + " header", offset, size)
        if kind not in _WITH_DATA and kind not in _HEADER_ONLY:
            raise _invalid(offset, f"member type {chr(kind)!r}, a file, directory, link, device or fifo was expected")
        tally = self._tally
        extension = self._extension
        name: bytes | None = None
        if extension.seen:
            name = extension.name
            size = size if extension.size is None else extension.size
            self._extension = _Extension()
        if kind in _HEADER_ONLY:
            size = 0
        self._last = block
        self._members += 1
        # A name is split into prefix and name only in POSIX's format; GNU's has other things in that place.
        name_at = 345 if block[345] and block[257:263] == b"ustar\0" else 0
        if name is not None or not block.startswith(tally.prefix, name_at):
            self._turn_to_part(_header_name(block) if name is None else name, offset)
        tally.members += 1
        tally.data_bytes += size
        if self._members == 1 and self._require_index:
            return self._start_keeping(INDEX_NAME, offset, size)
        return (size + 511) & ~511

    def _turn_to_part(self, name: bytes, offset: int) -> None:
        if self._members == 1 and self._require_index and name != INDEX_NAME.encode():
            raise _invalid(offset, f"first member {_shown(name)}, {INDEX_NAME} was expected")
        pieces = name.rstrip(b"/").split(b"/", 4)
        depth = 3 if len(pieces) > 2 and pieces[1] in _SNAPSHOT_DIRECTORIES else 2
        may_have_rootfs = len(pieces) > 1 and pieces[1] in _WITH_ROOTFS
        if may_have_rootfs and len(pieces) > depth and pieces[depth] == _ROOTFS:
            depth, may_have_rootfs = depth + 1, False
        part = b"/".join(pieces[:depth])
        if len(self._tally.done) > _MOST_PARTS:
            raise _invalid(offset, f"more than {_MOST_PARTS} top-level parts, an Incus backup was expected")
        self._tally.turn_to(part, closed=not may_have_rootfs)

    def _start_keeping(self, what: str, offset: int, size: int) -> int:
        if size > _MOST_KEPT:
            raise _invalid(offset, f"{what} of {size} bytes, at most {_MOST_KEPT} were expected")
        kept = _Kept(what, offset, size)
        if size:
            self._kept = kept
        else:
            self._keep(kept, b"")
        return 0

    def _keep(self, kept: _Kept, padded: bytes) -> None:
        """Take the data of a member that is kept, with its padding."""
        self._kept = None
        data = padded[: kept.size]
        extension = self._extension
        if kept.what == INDEX_NAME:
            self._index_yaml = data
        elif kept.what == "pax header":
            extension.seen = True
            records = _pax_records(data, kept.offset)
            extension.name = records.get(b"path", extension.name)
            if b"size" in records:
                extension.size = _decimal(records[b"size"], kept.offset)
        elif kept.what == "pax global header":
            # Go's reader applies none of these records: what would move the members' borders cannot be let through.
            if not _pax_records(data, kept.offset).keys().isdisjoint({b"path", b"size"}):
                raise _invalid(kept.offset, "global pax header that names a path or size, none was expected")
        else:
            extension.seen = True
            if kept.what == "long name header":
                extension.name = data.split(b"\0", 1)[0]

    @staticmethod
    def _only_zeros(data: bytes, offset: int) -> None:
        if data.count(0) != len(data):
            where = len(data) - len(data.lstrip(b"\0"))
            raise _invalid(offset + where, "more data, nothing but zeros was expected after the end marker")


def _invalid(offset: int, found: str) -> ArchiveInvalid:
    return ArchiveInvalid(f"The tar archive is damaged or cut. At byte {offset}: {found}")


def _padded(size: int) -> int:
    return (size + 511) & ~511


def _shown(name: bytes) -> str:
    return ascii(name.decode("utf-8", "replace"))


def _header_name(block: bytes) -> bytes:
    """The member's name as the header alone has it."""
    name = block[:100].split(b"\0", 1)[0]
    if block[345] and block[257:263] == b"ustar\0":
        return block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _check_checksum(block: bytes, offset: int) -> None:
    """The sum of the header's bytes, its own field taken as spaces, is what the field says, and the magic is there.

    Adler-32's low half is one plus the sum of the bytes modulo 65521: exact for 256 bytes, and some ten times quicker
    than adding them up here.
    """
    said = block[148:156]
    actual = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - (adler32(said) & 0xFFFF) + 255
    expected = _number(said, offset)
    if actual != expected:
        raise _invalid(offset, f"header with checksum {actual}, {expected} was expected")
    if block[257:262] != b"ustar":
        raise _invalid(offset, "header without the magic word 'ustar'")


def _number(number_field: bytes, offset: int) -> int:
    """A number of a header: octal digits, or base 256 where they do not suffice (more than 8 GiB in GNU's format)."""
    digits = number_field.strip(b" \0")
    if digits.isdigit():  # int() alone would let signs and underscores pass
        try:
            return int(digits, 8)
        except ValueError:
            pass
    elif number_field[0] == 0x80:
        return int.from_bytes(number_field[1:], "big")
    elif not digits:
        return 0
    raise _invalid(offset, f"header with number {_shown(number_field)}, octal digits were expected")


def _decimal(digits: bytes, offset: int) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise _invalid(offset, f"pax header with size {_shown(digits)}, a number of bytes was expected")
    return int(digits)


def _pax_records(data: bytes, offset: int) -> dict[bytes, bytes]:
    """The records of a pax header: ``<length> <key>=<value>\\n``, the length counting the whole record."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = int(data[at:space]) if space > at and data[at:space].isdigit() else 0
        record = data[space + 1 : at + length]
        key, equals, value = record[:-1].partition(b"=")
        if at + length > len(data) or not record.endswith(b"\n") or not equals or not key:
            raise _invalid(offset, f"pax header with a malformed record at its byte {at}")
        records[key] = value
        at += length
    return records
