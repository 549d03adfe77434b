# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests whose contents are known, and a look at them from the inside."""

from __future__ import annotations

from fleetkit.hosts import Host

# Everything that a tarball can lose: contents, owners, modes, links of both kinds, holes, odd names, times.
_FILL = """
set -e
mkdir -p /data/deep/er && cd /data
head -c 3000000 /dev/urandom >random
echo text >text && chown 12:34 text && chmod 640 text
ln text linked
ln -s text symlink
ln -s /nowhere/at/all dangling
mkfifo pipe
mknod device c 1 3 2>/dev/null || true
: >empty
truncate -s 9000000 sparse && echo middle | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null
echo odd >"a name with spaces, ü and 'quotes'"
cp /bin/busybox setuid && chown 1000:1000 setuid && chmod 4755 setuid
mkdir sticky && chmod 1777 sticky && chown 1000:1000 deep/er
# Incus rounds times to whole seconds.
find . | while read -r path; do touch -h -t 202001020304.05 "$path"; done
touch -t 200102030405.06 text
"""
_LOOK = """
cd /data
find . | sort | while read -r path; do stat -c '%n|%F|%a|%u|%g|%h|%Y|%N' "$path"; done
find . -type f | sort | while read -r path; do stat -c '%s' "$path"; sha256sum "$path"; done
getfattr -n user.fleet random
cat /proc/sys/kernel/hostname
"""


def make_guest(
    host: Host,
    name: str,
    *,
    pool: str = "default",
    project: str = "default",
    running: bool = False,
    config: dict[str, str] | None = None,
) -> None:
    """A guest of the lab's image, without contents of its own."""
    words = [item for key, value in (config or {}).items() for item in ("--config", f"{key}={value}")]
    image = [] if project == "default" else ["--project", project]
    host.run("incus", "launch" if running else "init", *image, "tiny", name, "--storage", pool, *words)


def fill(host: Host, name: str, project: str = "default") -> None:
    """Give a running guest contents that a careless backup would not bring back."""
    host.incus("exec", name, "--", "sh", "-c", _FILL, project=project)
    # busybox can read extended attributes, not set them.
    volume = name if project == "default" else f"{project}_{name}"
    host.sh(
        'for root in /var/lib/incus/storage-pools/*/containers/"$1"/rootfs; do '
        "setfattr -n user.fleet -v kept $root/data/random; done",
        volume,
    )


def look(host: Host, name: str, project: str = "default") -> str:
    """What a running guest itself says of its contents: names, kinds, modes, owners, links, times, checksums."""
    seen = host.incus("exec", name, "--", "sh", "-c", _LOOK, project=project)
    assert "random" in seen
    return seen


def weigh(host: Host, name: str, mebibytes: int) -> None:
    """Give a stopped guest on the btrfs pool a file of random bytes, so that its export takes its time."""
    host.incus("start", name)
    host.incus("exec", name, "--", "sh", "-c", f"dd if=/dev/urandom of=/root/weight bs=1M count={mebibytes} && sync")
    host.incus("stop", "--force", name)
