# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The compressions of stored artifacts: their names, suffixes, magic numbers and the tools' command lines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError


class Method(str, Enum):
    """How an artifact is compressed; the value is the option's and the manifest's word."""

    ZSTD = "zstd"
    GZIP = "gzip"
    NONE = "none"


_SUFFIXES = {Method.ZSTD: ".zst", Method.GZIP: ".gz", Method.NONE: ""}
_MAGIC = {Method.ZSTD: b"\x28\xb5\x2f\xfd", Method.GZIP: b"\x1f\x8b"}
# Above 19 zstd wants --ultra and hundreds of MiB on both ends, which is no good neighbour.
_LEVELS = {Method.ZSTD: range(1, 20), Method.GZIP: range(1, 10), Method.NONE: range(0)}
_DEFAULT_LEVELS = {Method.ZSTD: 3, Method.GZIP: 6, Method.NONE: 0}

MAGIC_BYTES = 4
"""How many of a file's first bytes ``detect()`` needs."""


@dataclass(frozen=True)
class Compression:
    """One compression at one level; a level of 0 means the method's default."""

    method: Method
    level: int = 0

    def __post_init__(self) -> None:
        if self.level and self.level not in _LEVELS[self.method]:
            levels = _LEVELS[self.method]
            allowed = f"{levels[0]} to {levels[-1]}" if levels else "none"
            raise UsageError(f"{self.method.value} has no level {self.level}; allowed: {allowed}")

    @classmethod
    def parse(cls, word: str) -> Compression:
        """Read ``zstd``, ``gzip``, ``none``, or one with a level such as ``zstd-9``.  Raises UsageError."""
        name, dash, level = word.partition("-")
        try:
            return cls(Method(name), int(level) if dash else 0)
        except ValueError:
            raise UsageError(
                f"{word!r} is not a compression", hint="Use zstd, gzip or none, with a level if you like: zstd-9"
            ) from None

    def __str__(self) -> str:
        return f"{self.method.value}-{self.level}" if self.level else self.method.value

    @property
    def tool(self) -> str | None:
        """The command that compresses and decompresses; None where none is needed."""
        return None if self.method is Method.NONE else self.method.value

    def suffix(self, base: str = ".tar") -> str:
        """The end of a stored file's name for a stream of kind ``base``, e.g. ``.tar.zst``."""
        return base + _SUFFIXES[self.method]

    def compress_argv(self, threads: int = 1) -> list[str]:
        """The command from standard input to standard output; ``threads`` is for zstd, 0 means all cores."""
        level = f"-{self.level or _DEFAULT_LEVELS[self.method]}"
        if self.method is Method.ZSTD:
            # Jobs of 4 MiB: at two threads 37 instead of 60 MiB of memory, for 0.3 % of size (measured).
            return ["zstd", "-q", "-c", level, f"-T{threads}", "-B4MiB"]
        if self.method is Method.GZIP:
            return ["gzip", "-n", "-c", level]
        return []

    def decompress_argv(self) -> list[str]:
        """The command back; it fails on anything that is not whole."""
        if self.method is Method.ZSTD:
            return ["zstd", "-q", "-d", "-c"]
        if self.method is Method.GZIP:
            return ["gzip", "-d", "-c"]
        return []


def detect(first_bytes: bytes) -> Compression:
    """Tell a stored file's compression by its first MAGIC_BYTES bytes; what is not known is taken as plain."""
    for method, magic in _MAGIC.items():
        if first_bytes.startswith(magic):
            return Compression(method)
    return Compression(Method.NONE)
