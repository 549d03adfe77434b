# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""What every kind of store can do; sets, leases and the catalogue are built on these verbs alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import BinaryIO

INCOMPLETE_SUFFIX = ".incomplete"
PART_SUFFIX = ".part"  # what ends so is a piece: being written, or left by a writer that was killed


class Store(ABC):
    """A place where sets live. Paths are relative, with ``/``, and checked by the store before they are used.

    Every method raises StoreError (StoreFull where space or quota ran out) or PermissionDenied.
    """

    location: str

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether a file or directory of that path is there."""

    @abstractmethod
    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; empty where the directory is not there."""

    @abstractmethod
    def files(self, path: str) -> list[str]:
        """The paths, relative to ``path``, of all files below it, sorted."""

    @abstractmethod
    def size(self, path: str) -> int | None:
        """A file's size in bytes, None where it is not there."""

    @abstractmethod
    def read(self, path: str, limit: int) -> bytes:
        """A small file, whole; larger than ``limit`` bytes is an error."""

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """A file for reading."""

    @abstractmethod
    def create(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A new file for writing, that appears under its name only when the block ends well, its bytes safely on disk.

        The name itself is on disk when the next ``replace`` in its directory is: every artifact's record follows it.
        A name that is taken is an error; after an exception nothing is left.
        """

    @abstractmethod
    def replace(self, path: str, content: bytes) -> None:
        """Write a small file at once, over an older one of that name."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file; one that is not there is fine."""

    @abstractmethod
    def delete_tree(self, path: str) -> None:
        """Delete a directory with all in it."""

    @abstractmethod
    def make_directory(self, path: str, *, exclusive: bool) -> bool:
        """Make a directory (and those above it). With ``exclusive`` returns False where it was there already."""

    @abstractmethod
    def publish_directory(self, path: str) -> None:
        """Turn ``<path>.incomplete`` into ``<path>``, in one step that survives a crash."""

    @abstractmethod
    def lock(self, path: str) -> AbstractContextManager[None]:
        """Short mutual exclusion over the directory ``path``, ended also by the death of the process."""

    @abstractmethod
    def touch(self, path: str) -> None:
        """Set a file's time to the store's present."""

    @abstractmethod
    def age(self, path: str) -> float | None:
        """Seconds, by the store's own clock, since the file was written or touched; None where it is not there."""

    @abstractmethod
    def free_bytes(self) -> int | None:
        """Free space for this user, None where the store cannot tell."""
