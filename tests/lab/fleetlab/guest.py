# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest image of the lab: a busybox and an init, made from the host image's own static busybox."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from fleetlab.commands import Commands

ALIAS = "tiny"
_INIT = """\
#!/bin/sh
# Stays until the server asks it to go (Incus sends SIGPWR), and reaps what its children leave behind.
trap 'exit 0' PWR TERM INT
export PATH=/usr/bin:/bin:/sbin:/usr/sbin
ip link set lo up
if [ -e /sys/class/net/eth0 ]; then
  ip link set eth0 up
  udhcpc -b -q -i eth0 >/dev/null 2>&1 &
fi
[ -x /etc/rc.local ] && /etc/rc.local &
while :; do
  sleep 3600 &
  wait $!
done
"""
_UDHCPC = """\
#!/bin/sh
case $1 in
  deconfig) ip address flush dev "$interface" ;;
  bound|renew)
    ip address replace "$ip/$mask" dev "$interface"
    [ -n "$router" ] && ip route replace default via "${router%% *}"
    : >/etc/resolv.conf
    for server in $dns; do echo "nameserver $server" >>/etc/resolv.conf; done ;;
esac
exit 0
"""
_FILES = {
    "etc/passwd": (0o644, "root:x:0:0:root:/root:/bin/sh\nguest:x:1000:1000:guest:/home/guest:/bin/sh\n"),
    "etc/group": (0o644, "root:x:0:\nguest:x:1000:\n"),
    "etc/hostname": (0o644, "tiny\n"),
    "etc/hosts": (0o644, "127.0.0.1 localhost\n"),
    "etc/resolv.conf": (0o644, ""),
    "etc/os-release": (0o644, 'ID=tiny\nNAME="lab guest"\n'),
    "sbin/init": (0o755, _INIT),
    "etc/udhcpc/default.script": (0o755, _UDHCPC),
}
_DIRECTORIES = ("bin", "dev", "etc", "home/guest", "mnt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr/bin")
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def ensure_image(base: Path, cache: Path, commands: Commands) -> Path:
    """Return the guest image's tarball in the cache, made from the host image ``base`` if it is not there yet."""
    busybox = (base / "bin/busybox").read_bytes()
    applets = commands.run([base / "bin/busybox", "--list-full"]).split()
    architecture = commands.run(["dpkg", "--print-architecture"]).strip()
    metadata = {
        "architecture": _ARCHITECTURES.get(architecture, architecture),
        "creation_date": 1700000000,
        "properties": {"os": "tiny", "description": "busybox guest of the lab"},
    }
    recipe = json.dumps([metadata, applets, _FILES, _DIRECTORIES], sort_keys=True).encode()
    path = cache / f"tiny-{hashlib.sha256(busybox + recipe).hexdigest()[:12]}.tar.gz"
    if not path.exists():
        part = path.with_suffix(".part")
        _write_image(part, busybox, applets, json.dumps(metadata))
        part.rename(path)
    return path


def _write_image(path: Path, busybox: bytes, applets: list[str], metadata: str) -> None:
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        _add(tar, "metadata.yaml", 0o644, metadata.encode())
        made = {"."}
        for name in _DIRECTORIES:
            _add_directory(tar, f"rootfs/{name}", made)
        _add(tar, "rootfs/bin/busybox", 0o755, busybox)
        for name, (mode, text) in _FILES.items():
            _add_directory(tar, str(Path("rootfs", name).parent), made)
            _add(tar, f"rootfs/{name}", mode, text.encode())
        for applet in applets:
            if applet not in _FILES and applet != "bin/busybox":
                _add_directory(tar, str(Path("rootfs", applet).parent), made)
                link = tarfile.TarInfo(f"rootfs/{applet}")
                link.type, link.linkname, link.mode = tarfile.SYMTYPE, "/bin/busybox", 0o777
                tar.addfile(link)


def _add_directory(tar: tarfile.TarFile, name: str, made: set[str]) -> None:
    for parent in reversed([Path(name), *Path(name).parents]):
        if str(parent) not in made:
            made.add(str(parent))
            entry = tarfile.TarInfo(str(parent))
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if parent.name == "tmp" else 0o755
            tar.addfile(entry)


def _add(tar: tarfile.TarFile, name: str, mode: int, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.size = mode, len(content)
    tar.addfile(entry, io.BytesIO(content))
