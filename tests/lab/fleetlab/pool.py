# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The btrfs image that holds the host images and the hosts, so that a new host is an instant snapshot."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fleetlab.checkout import STATE
from fleetlab.commands import Commands

IMAGE_SIZE = 64 * 1024**3  # sparse: only what is written takes space, and what is deleted is given back


@contextmanager
def locked(path: Path, waiting_for: str, commands: Commands) -> Iterator[None]:
    """Hold an exclusive lock; the kernel drops it with the process, so a killed lab never blocks the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        with open(path, "ab") as handle:
            if _lock(handle, path):
                yield
                return
        if not told:
            print(f"waiting for {waiting_for} ({path} is locked)", flush=True)
            told = True
        commands.check()  # polled, so that an interruption ends the waiting
        time.sleep(0.1)


def _lock(handle: IO[bytes], path: Path) -> bool:
    """Lock an open file; False while another has it, or when its name stands for another file by now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path.stat().st_ino == os.fstat(handle.fileno()).st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


class Pool:
    """One image file in the cache, mounted once per machine, shared by all checkouts that use that cache."""

    def __init__(self, cache: Path, commands: Commands) -> None:
        self.cache = cache
        self.image = cache / "pool.btrfs"
        self.mountpoint = STATE / f"pool-{hashlib.sha256(str(cache).encode()).hexdigest()[:8]}"
        self.bases = self.mountpoint / "bases"
        self.run = self.mountpoint / "run"
        self._commands = commands

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the image for a change to its list of host images or to its mount."""
        with locked(self.cache / "lock", "another lab that prepares host images", self._commands):
            yield

    @property
    def mounted(self) -> bool:
        return os.path.ismount(self.mountpoint)

    def mount(self) -> None:
        """Make the image if it is missing and mount it; the lock is the caller's."""
        if self.mounted:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        if not self.image.exists():
            part = self.image.with_suffix(".part")
            part.unlink(missing_ok=True)
            with open(part, "wb") as handle:
                os.fchmod(handle.fileno(), 0o600)
                handle.truncate(IMAGE_SIZE)
            self._commands.run(["mkfs.btrfs", "-q", part])
            part.rename(self.image)
        self.mountpoint.mkdir(parents=True, exist_ok=True)
        self._commands.run(["mount", "-o", "loop,noatime,discard=async", self.image, self.mountpoint])
        self.bases.mkdir(exist_ok=True)
        self.run.mkdir(exist_ok=True)

    def unmount_if_unused(self) -> None:
        """Unmount the image when no checkout uses it. The lock is the caller's.

        A directory in ``run``, even an empty one, is a checkout's claim.
        """
        if self.mounted:
            self.remove_parts()
            if any(self.run.iterdir()):
                return
            self._commands.run(["umount", self.mountpoint])
        if self.mountpoint.is_dir():
            self.mountpoint.rmdir()

    def remove_parts(self) -> None:
        """Delete host images that nobody is building any more; the lock is the caller's."""
        for path in self.bases.glob("*.part"):
            self.delete(path)

    def snapshot(self, source: Path, target: Path) -> None:
        """Make ``target`` a writable copy of the subvolume ``source``."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._commands.run(["btrfs", "-q", "subvolume", "snapshot", source, target])

    def create(self, target: Path) -> None:
        """Make an empty subvolume."""
        self._commands.run(["btrfs", "-q", "subvolume", "create", target])

    def delete(self, target: Path) -> None:
        """Delete a subvolume with those inside it (systemd and Incus make some); none there is fine."""
        if not target.is_dir():
            return
        listing = self._commands.run(["btrfs", "subvolume", "list", "-o", target])
        for line in listing.splitlines():
            self.delete(self.mountpoint / line.partition(" path ")[2])
        self._commands.run(["btrfs", "-q", "subvolume", "delete", target])
