# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import StoreError
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.placement import (
    Mount,
    Placement,
    ProtectedPool,
    incus_directory_of,
    judge_placement,
    mount_of,
    read_mounts,
)

INCUS = "/var/lib/incus"
ROOT = Mount("/", "8:1", "ext4", "/dev/sda1")
DISK = Mount("/backup", "8:17", "xfs", "/dev/sdb1")
ELSEWHERE = Placement(off_host=False, same_device=False)
BESIDE = Placement(off_host=False, same_device=True)
AWAY = Placement(off_host=True, same_device=False)


def judge(store: str, *mounts: Mount, pools: tuple[ProtectedPool, ...] = ()) -> Placement:
    return judge_placement(store, incus_directory=INCUS, pools=pools, mounts=[ROOT, *mounts])


# The kernel's lines, see proc(5): optional fields come and go, blanks in names are written in octal.
MOUNTINFO = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
26 22 0:5 / /dev rw,nosuid shared:2 master:3 - devtmpfs udev rw,size=1k
40 22 8:17 /sub /mnt/with\\040blank rw - xfs /dev/sdb1 rw
41 22 0:45 / /mnt/tab\\011line\\012back\\134slash\\040 rw - fuse.sshfs me@host:/a\\040b\\043c rw
42 22 0:46 / /mnt/new rw - tmpfs  rw
43 22 0:47 / /mnt/literally\\134040 rw - tmpfs none rw
"""


def test_mounts_are_read_as_the_kernel_writes_them() -> None:
    assert read_mounts(MOUNTINFO) == [
        Mount("/", "8:1", "ext4", "/dev/sda1"),
        Mount("/dev", "0:5", "devtmpfs", "udev"),
        Mount("/mnt/with blank", "8:17", "xfs", "/dev/sdb1"),
        Mount("/mnt/tab\tline\nback\\slash ", "0:45", "fuse.sshfs", "me@host:/a b#c"),
        Mount("/mnt/new", "0:46", "tmpfs", ""),
        Mount("/mnt/literally\\040", "0:47", "tmpfs", "none"),
    ]


def test_the_mounts_of_this_machine_can_be_read() -> None:
    assert mount_of("/", read_mounts()) is not None
    assert mount_of("/proc/self", read_mounts()) == next(mount for mount in read_mounts() if mount.point == "/proc")


@pytest.mark.parametrize(
    ("path", "point"),
    [("/backup", "/backup"), ("/backup/store", "/backup"), ("/backup-old/store", "/"), ("/srv", "/"), ("/", "/")],
)
def test_the_longest_mount_point_above_a_path_holds_it(path: str, point: str) -> None:
    found = mount_of(path, [ROOT, DISK])
    assert found is not None
    assert found.point == point


def test_of_two_mounts_on_one_point_the_later_covers_the_earlier() -> None:
    later = Mount("/backup", "8:33", "ext4", "/dev/sdc1")
    assert mount_of("/backup/store", [ROOT, DISK, later]) == later


@pytest.mark.parametrize("store", [INCUS, f"{INCUS}/backups", f"{INCUS}/storage-pools/default/custom/default_store"])
def test_a_store_within_incuss_own_directory_is_refused(store: str) -> None:
    # Whatever is mounted there: what is within it goes with it.
    with pytest.raises(StoreError, match=r"is refused: it lies in Incus's own directory") as caught:
        judge(store, Mount(INCUS, "0:50", "nfs4", "files:/incus"))
    assert caught.value.operation == "check the store's place"
    assert caught.value.hint is not None


def test_a_name_that_merely_begins_alike_is_another_place() -> None:
    assert judge(f"{INCUS}-backup") == BESIDE


@pytest.mark.parametrize(
    ("pool", "store", "mounts"),
    [
        pytest.param(ProtectedPool("data", "dir", "/srv/pool"), "/srv/pool/store", [], id="dir pool's directory"),
        pytest.param(
            ProtectedPool("data", "btrfs", "/dev/sdb1"),
            "/backup/store",
            [Mount("/backup", "0:51", "btrfs", "/dev/sdb1")],
            id="another subvolume of a pool's btrfs",
        ),
        pytest.param(
            ProtectedPool("data", "zfs", "tank/incus"),
            "/backup/store",
            [Mount("/backup", "0:52", "zfs", "tank/incus/backup")],
            id="a dataset within the pool's",
        ),
        pytest.param(
            ProtectedPool("data", "zfs", "tank"),
            "/tank",
            [Mount("/tank", "0:52", "zfs", "tank")],
            id="the pool's own dataset",
        ),
    ],
)
def test_a_store_on_a_pool_is_refused_by_its_name(pool: ProtectedPool, store: str, mounts: list[Mount]) -> None:
    with pytest.raises(StoreError, match=r"is refused: it lies on the storage pool data \("):
        judge(store, *mounts, pools=(ProtectedPool("other", "dir", "/elsewhere"), pool))


def test_a_pool_whose_source_is_a_link_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "disk/pool").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    pool = ProtectedPool("data", "dir", str(tmp_path / "link/pool"))
    with pytest.raises(StoreError, match="storage pool data"):
        judge(str(tmp_path / "disk/pool/store"), pools=(pool,))


@pytest.mark.parametrize(
    "pool",
    [
        ProtectedPool("data", "dir", "/srv/pool"),
        ProtectedPool("data", "zfs", "tank/incus"),
        ProtectedPool("data", "lvm", "vg0"),
        ProtectedPool("data", "ceph", "incus"),
        ProtectedPool("data", "dir", ""),  # a server that does not show it
        ProtectedPool("data", "btrfs", ""),
    ],
)
def test_a_store_on_a_disk_of_its_own_is_fine_beside_any_pool(pool: ProtectedPool) -> None:
    assert judge("/backup/store", DISK, pools=(pool,)) == ELSEWHERE


def test_a_dataset_whose_name_merely_begins_alike_is_not_the_pool() -> None:
    backup = Mount("/backup", "0:52", "zfs", "tank/incus-backup")
    assert judge("/backup/store", backup, pools=(ProtectedPool("data", "zfs", "tank/incus"),)) == BESIDE


@pytest.mark.parametrize(
    ("mounts", "pools", "expected"),
    [
        pytest.param([], (), BESIDE, id="one file system"),
        pytest.param([DISK], (), ELSEWHERE, id="a disk of its own"),
        pytest.param([Mount(INCUS, "8:17", "xfs", "/dev/sdb1"), DISK], (), BESIDE, id="Incus on that disk"),
        pytest.param(
            [Mount(INCUS, "0:60", "btrfs", "/dev/sdb1"), Mount("/backup", "0:61", "btrfs", "/dev/sdb1")],
            (),
            BESIDE,
            id="two subvolumes of one btrfs, whose device numbers differ",
        ),
        pytest.param(
            [Mount(INCUS, "0:60", "zfs", "tank/incus"), Mount("/backup", "0:61", "zfs", "tank/backup")],
            (),
            BESIDE,
            id="two datasets of one zpool",
        ),
        pytest.param(
            [Mount("/backup", "0:61", "zfs", "tank/backup")],
            (ProtectedPool("data", "zfs", "tank/incus"),),
            BESIDE,
            id="a pool on that zpool",
        ),
        pytest.param(
            [Mount("/backup", "0:61", "zfs", "safe/backup")],
            (ProtectedPool("data", "zfs", "tank/incus"),),
            ELSEWHERE,
            id="a pool on another zpool",
        ),
        pytest.param([DISK], (ProtectedPool("data", "dir", "/backup/pool"),), BESIDE, id="a dir pool on that disk"),
        pytest.param(
            [Mount(INCUS, "0:60", "tmpfs", "tmpfs"), Mount("/backup", "0:61", "tmpfs", "tmpfs")],
            (),
            ELSEWHERE,
            id="two things without a device",
        ),
    ],
)
def test_what_dies_with_the_server_is_known(
    mounts: list[Mount], pools: tuple[ProtectedPool, ...], expected: Placement
) -> None:
    assert judge("/backup/store", *mounts, pools=pools) == expected


@pytest.mark.parametrize(
    "kind", ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "virtiofs", "glusterfs", "fuse.sshfs", "fuse.rclone"]
)
def test_a_network_file_system_is_off_host(kind: str) -> None:
    assert judge("/backup/store", Mount("/backup", "0:70", kind, "files:/backup")) == AWAY


def test_a_share_that_incus_lies_on_too_is_off_host_all_the_same() -> None:
    share = Mount(INCUS, "0:70", "nfs4", "files:/share")
    assert judge("/backup/store", share, replace(share, point="/backup")) == AWAY


def test_an_unknown_fuse_file_system_is_not_believed_to_be_off_host() -> None:
    assert not judge("/backup/store", Mount("/backup", "0:70", "fuse.bindfs", "/srv")).off_host


def test_what_is_pulled_over_https_is_off_host_wherever_it_lies_here() -> None:
    # The backup host may run an Incus of its own: that one is not what is protected.
    assert judge_placement(f"{INCUS}/x", incus_directory=None, pools=[], mounts=[ROOT]) == AWAY


@pytest.mark.parametrize(
    ("socket", "incus_dir", "directory"),
    [
        ("/var/lib/incus/unix.socket", None, "/var/lib/incus"),
        ("/run/incus/unix.socket", None, "/var/lib/incus"),
        ("/srv/incus/unix.socket", None, "/srv/incus"),
        ("/run/incus/unix.socket", "/srv/incus", "/srv/incus"),
    ],
)
def test_incuss_directory_is_told_by_its_socket(socket: str, incus_dir: str | None, directory: str) -> None:
    assert incus_directory_of(socket, incus_dir) == directory
