# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Where a store may lie: never within what it protects (rule 8.10), and how far away it really is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import StoreError

_NETWORK_TYPES = ("nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "glusterfs", "lustre", "afs")
_NETWORK_FUSE = ("fuse.sshfs", "fuse.rclone", "fuse.glusterfs", "fuse.s3fs", "fuse.ceph-fuse", "fuse.juicefs")


@dataclass(frozen=True)
class Mount:
    """A line of ``/proc/self/mountinfo`` (proc(5)): mount point, device number, type and source."""

    point: str
    device: str
    kind: str
    source: str


@dataclass(frozen=True)
class ProtectedPool:
    """A storage pool of the server that is backed up: its driver and ``source``."""

    name: str
    driver: str
    source: str


@dataclass(frozen=True)
class Placement:
    """How far the store is from the server: on another host, and whether it shares Incus's own device."""

    off_host: bool
    same_device: bool


def read_mounts(text: str | None = None) -> list[Mount]:
    """The mounts this process sees, in the kernel's order (later ones cover earlier ones)."""
    if text is None:
        text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    mounts = []
    for line in text.splitlines():
        before, _dash, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        mounts.append(Mount(_unescape(fields[4]), fields[2], tail[0], _unescape(tail[1])))
    return mounts


def mount_of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that holds ``path``: the longest mount point above it, the last one where several are equal."""
    best: Mount | None = None
    for mount in mounts:
        if _within(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best


def judge_placement(
    store: str, *, incus_directory: str | None, pools: Sequence[ProtectedPool], mounts: Sequence[Mount]
) -> Placement:
    """Decide whether ``store`` (a real path) may serve for the server, and how far away it is.

    ``incus_directory`` is None where the server is reached over the network, and then only the bytes' distance counts.
    Raises StoreError where the store lies in Incus's directory or on a pool.
    """
    if incus_directory is None:
        return Placement(off_host=True, same_device=False)
    here, incus = mount_of(store, mounts), mount_of(incus_directory, mounts)
    if _within(store, incus_directory):
        raise _refused(store, f"it lies in Incus's own directory {incus_directory}")
    for pool in pools:
        reason = _on_pool(store, here, pool)
        if reason:
            raise _refused(store, reason)
    network = here is not None and (here.kind in _NETWORK_TYPES or here.kind in _NETWORK_FUSE)
    beside = [incus, *(_mount_of_pool(pool, mounts) for pool in pools)]
    same = here is not None and any(other is not None and _share_device(here, other) for other in beside)
    return Placement(off_host=network, same_device=same and not network)


def incus_directory_of(socket: str, incus_dir: str | None) -> str:
    """Where the daemon behind a socket keeps its data: ``INCUS_DIR``, the socket's directory, or the default.

    Packages of Fedora and Enterprise Linux put the socket into ``/run/incus`` (incus: client/connection.go).
    """
    if incus_dir:
        return os.path.realpath(incus_dir)
    parent = os.path.realpath(os.path.dirname(socket))
    return "/var/lib/incus" if parent in ("/run/incus", "/var/run/incus") else parent


def _on_pool(store: str, here: Mount | None, pool: ProtectedPool) -> str | None:
    source = _device_of(pool)
    if source.startswith("/") and _within(store, source):
        return f"it lies on the storage pool {pool.name} ({pool.source})"
    if here is None or not source:
        return None
    mounted = os.path.realpath(here.source) if here.source.startswith("/dev/") else here.source
    if pool.driver in ("btrfs", "zfs") and (mounted == source or mounted.startswith(source + "/")):
        return f"it lies on the storage pool {pool.name} ({pool.source})"
    return None


def _device_of(pool: ProtectedPool) -> str:
    """The pool's source without links; of a btrfs pool it may be a file system's UUID (incus: driver_btrfs.go)."""
    by_uuid = f"/dev/disk/by-uuid/{pool.source}"
    source = by_uuid if pool.driver == "btrfs" and pool.source and os.path.exists(by_uuid) else pool.source
    return os.path.realpath(source) if source.startswith("/") else source


def _mount_of_pool(pool: ProtectedPool, mounts: Iterable[Mount]) -> Mount | None:
    """The mount that a pool's bytes lie on, as far as its source tells: a path, or a ZFS dataset."""
    source = _device_of(pool)
    if pool.driver == "zfs" and source and not source.startswith("/"):
        return Mount(point="", device="", kind="zfs", source=source)
    return mount_of(source, mounts) if source.startswith("/") and not source.startswith("/dev/") else None


def _share_device(one: Mount, other: Mount) -> bool:
    """Whether two mounts die together: one device, subvolumes of one btrfs, datasets of one zpool."""
    if one.kind == other.kind == "zfs":
        return one.source.partition("/")[0] == other.source.partition("/")[0]
    return one.device == other.device or (one.source == other.source and one.source.startswith("/"))


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _refused(store: str, reason: str) -> StoreError:
    return StoreError(
        f"the store {store} is refused: {reason}",
        operation="check the store's place",
        hint="A backup must not die with what it protects: use another disk, or better another machine",
    )


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
