# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Memory does not grow with an artifact."""

from __future__ import annotations

import pytest

from fleetkit.guests import make_guest

MIB = 1024 * 1024
SIZE = 2048
LIMIT = 150

# A file of random bytes, 2 GiB to its readers, 64 MiB on the disk.
GROW = """
import fcntl, os, struct, sys
FICLONERANGE, piece = 0x4020940D, 64 << 20
with open(sys.argv[1], "w+b") as file:
    file.write(os.urandom(piece))
    file.flush()
    os.fsync(file.fileno())
    for number in range(1, int(sys.argv[2]) * (1 << 20) // piece):
        fcntl.ioctl(file, FICLONERANGE, struct.pack("qQQQ", file.fileno(), 0, piece, number * piece))
"""
# The sum of the peaks of a process and of all that it started, in KiB, once it has ended.
WATCH = """
import glob, json, sys, time
peaks = {}
def look(pid):
    try:
        status = open(f"/proc/{pid}/status").read()
        peaks[pid] = max(peaks.get(pid, 0), int(status.split("VmHWM:")[1].split()[0]))
        for path in glob.glob(f"/proc/{pid}/task/*/children"):
            for child in open(path).read().split():
                look(child)
        return True
    except (OSError, IndexError):
        return False
deadline = time.time() + 60
while True:
    try:
        pid = json.load(open(sys.argv[1]))["pid"]
        break
    except (OSError, ValueError):
        assert time.time() < deadline
        time.sleep(0.02)
while look(pid):
    time.sleep(0.05)
print(sum(peaks.values()), len(peaks))
"""


@pytest.mark.memory
def test_two_gibibytes_pass_out_and_back_in_flat_memory(fleet):
    make_guest(fleet.host, "big")
    root = "/var/lib/incus/storage-pools/default/containers/big/rootfs/root"
    fleet.host.run("python3", "-c", GROW, f"{root}/big", str(SIZE))
    peaks = {}
    for module, name in (("incus_export", "server"), ("incus_import", "server-import")):
        options = {"store_create": True} if module == "incus_export" else {}
        running = fleet.start(fleet.task(module, **options))
        told = fleet.host.run("python3", "-c", WATCH, f"/var/lib/incus-fleet/progress/{name}.json").stdout.split()
        result = running.one()
        assert result.ok, result
        assert result["stored_bytes"] > SIZE * MIB
        kibibytes, processes = map(int, told)
        assert processes >= 2, "the compressor is part of it"
        peaks[module] = kibibytes / 1024
        if module == "incus_export":
            fleet.host.incus("delete", "big")
    assert max(peaks.values()) < LIMIT, peaks
