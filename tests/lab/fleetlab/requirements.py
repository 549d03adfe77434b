# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the machine must have before a lab can run on it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from fleetlab.commands import Commands
from fleetlab.enter import HOST_PATH
from fleetlab.errors import Unusable

_ARCHIVE_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FREE_BYTES = 4 * 1024**3
# Tool → the Debian package that has it.
_TOOLS = {
    "btrfs": "btrfs-progs",
    "mkfs.btrfs": "btrfs-progs",
    "debootstrap": "debootstrap",
    "dpkg": "dpkg",
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
}


def require_root() -> None:
    """Unusable unless the caller is root."""
    if os.geteuid() != 0:
        raise Unusable("the lab needs root: it mounts file systems and makes namespaces (try sudo)")


def missing_packages() -> dict[str, list[str]]:
    """The Debian packages to install, each with the tools it is for."""
    missing: dict[str, list[str]] = {}
    for tool, package in _TOOLS.items():
        if not shutil.which(tool, path=HOST_PATH):
            missing.setdefault(package, []).append(tool)
    if not _ARCHIVE_KEYRING.exists():
        missing["debian-archive-keyring"] = [str(_ARCHIVE_KEYRING)]
    return missing


def install(packages: list[str], commands: Commands) -> None:
    """Install Debian packages with apt-get."""
    print(f"installing with apt-get: {' '.join(packages)}", flush=True)
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    commands.run(["apt-get", "update", "-q"], env=env)
    commands.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], env=env)


def require_tools(allowed_to_install: bool, commands: Commands) -> None:
    """Install what is missing when that is allowed; Unusable names what is missing still."""
    missing = missing_packages()
    if missing and allowed_to_install:
        install(sorted(missing), commands)
        missing = missing_packages()
    if missing:
        tools = ", ".join(f"{' and '.join(tools)} (package {package})" for package, tools in sorted(missing.items()))
        raise Unusable(
            f"the lab needs {tools}: run `lab up --install` or `apt-get install {' '.join(sorted(missing))}`"
        )


def require_btrfs(commands: Commands, listing: Path = Path("/proc/filesystems")) -> None:
    """Unusable when the running kernel cannot mount btrfs."""
    if not has_btrfs(listing) and shutil.which("modprobe", path=HOST_PATH):
        commands.run(["modprobe", "btrfs"], check=False)
    if not has_btrfs(listing):
        raise Unusable("this machine's kernel has no btrfs, which the lab's images and storage pools are made of")


def has_btrfs(listing: Path) -> bool:
    """Whether the kernel's list of file systems names btrfs."""
    return "btrfs" in listing.read_text(encoding="ascii").split()


def require_space(directory: Path) -> None:
    """Unusable when the file system of the cache is nearly full."""
    while not directory.exists():
        directory = directory.parent
    free = shutil.disk_usage(directory).free
    if free < _FREE_BYTES:
        raise Unusable(
            f"{directory} has {free / 1024**3:.1f} GiB left, the lab wants {_FREE_BYTES / 1024**3:.0f} GiB"
            " (INCUS_FLEET_LAB_CACHE names another place)"
        )
