# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host image is made of; its digest names the image, so that a changed recipe builds a new one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path

SUITE = "trixie"
# Raise it when a change to this file or to bases.py is not visible in the lists below.
RECIPE = 1
PACKAGES = (
    "acl",
    "attr",
    "btrfs-progs",
    "busybox-static",
    "ca-certificates",
    "curl",
    "dbus",
    "dnsmasq-base",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "nftables",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "python3-venv",
    "rsync",
    "squashfs-tools",
    "sudo",
    "systemd",
    "systemd-sysv",
    "xz-utils",
    "zstd",
)
INCUS_PACKAGES = ("incus-base", "incus-client")
INCUS_SUITES = {"7.0": f"{SUITE}-backports", "6.0": SUITE}
SUDOER = "operator"
NOBODY = "nobody-special"
# Units that would reach through to the machine (kernel settings, modules, its file systems) or only cost time.
MASKED_UNITS = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "proc-sys-fs-binfmt_misc.automount",
    "sshd-keygen.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-udevd.service",
)
# The lab cuts connections on purpose; sshd must not punish the controller for it.
SSHD = """\
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
PerSourcePenalties no
MaxStartups 100
MaxSessions 100
"""
_CHARACTER_DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "fuse": (10, 229),
    "btrfs-control": (10, 234),
    "loop-control": (10, 237),
    "net/tun": (10, 200),
}
_LINKS = {
    "ptmx": "pts/ptmx",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
}
LOOP_DEVICES = 256


def digest(architecture: str) -> str:
    """Twelve hexadecimal digits that change with anything the images depend on."""
    parts = [
        RECIPE,
        SUITE,
        architecture,
        PACKAGES,
        INCUS_PACKAGES,
        INCUS_SUITES,
        SUDOER,
        NOBODY,
        MASKED_UNITS,
        SSHD,
        LOOP_DEVICES,
        _CHARACTER_DEVICES,
        _LINKS,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def make_devices(directory: Path) -> None:
    """Fill a directory with the device nodes of a host."""
    directory.mkdir(parents=True)
    for name in ("net", "pts", "shm", "mqueue"):
        (directory / name).mkdir()
    for name, (major, minor) in _CHARACTER_DEVICES.items():
        _node(directory / name, stat.S_IFCHR | 0o666, major, minor)
    for number in range(LOOP_DEVICES):
        _node(directory / f"loop{number}", stat.S_IFBLK | 0o660, 7, number)
    for name, target in _LINKS.items():
        (directory / name).symlink_to(target)


def _node(path: Path, mode: int, major: int, minor: int) -> None:
    os.mknod(path, mode, os.makedev(major, minor))
    path.chmod(stat.S_IMODE(mode))  # whatever the umask took away
