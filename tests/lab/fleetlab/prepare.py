# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gives a host's Incus what every test starts from: HTTPS, two pools, a bridge, a default profile, a guest image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from fleetlab.guest import ALIAS
from fleetlab.host import Host

HTTPS_PORT = 8443
POOL_SIZE = "8GiB"  # of the btrfs pool's loop file, sparse
BRIDGE_ADDRESS = "10.177.0.1/24"


def preseed(address: str) -> dict[str, object]:
    """What `incus admin init --preseed` gets."""
    bridge = {"ipv4.address": BRIDGE_ADDRESS, "ipv4.nat": "true", "ipv6.address": "none"}
    return {
        "config": {"core.https_address": f"{address}:{HTTPS_PORT}"},
        "storage_pools": [
            {"name": "default", "driver": "btrfs", "config": {"size": POOL_SIZE}},
            {"name": "plain", "driver": "dir"},
        ],
        "networks": [{"name": "incusbr0", "type": "bridge", "config": bridge}],
        "profiles": [
            {
                "name": "default",
                "devices": {
                    "root": {"type": "disk", "path": "/", "pool": "default"},
                    "eth0": {"type": "nic", "name": "eth0", "network": "incusbr0"},
                },
            }
        ],
    }


def prepare(host: Host, image: Path) -> None:
    """Configure the host's fresh Incus and import the guest image."""
    host.run(["incus", "admin", "waitready", "--timeout=120"])
    host.run(["incus", "admin", "init", "--preseed"], stdin=json.dumps(preseed(host.address)).encode())
    inside = Path("/var/cache/lab") / image.name
    outside = host.root / inside.relative_to("/")
    outside.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(image, outside)
    host.run(["incus", "image", "import", str(inside), "--alias", ALIAS])
