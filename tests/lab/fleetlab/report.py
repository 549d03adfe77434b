# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What `lab status` prints."""

from __future__ import annotations

from fleetlab.lab import Lab


def print_status(lab: Lab) -> None:
    """Print a line for each host and one for the image."""
    records = lab.records()
    if not records:
        print("the lab is not up")
    for record in records:
        pid = lab.host(record.name).pid
        state = "incomplete" if not record.ready else f"running (pid {pid})" if pid else "off"
        cable = "" if lab.network.link_is_up(record.number) else ", cable cut"
        host = lab.host(record.name)
        print(f"{record.name:<12} Incus {record.version}  {host.address:<14} {state}{cable}")
    image = lab.pool.image
    if image.exists():
        used = image.stat().st_blocks * 512 / 1024**3
        where = f"mounted on {lab.pool.mountpoint}" if lab.pool.mounted else "not mounted"
        print(f"image {image}: {used:.1f} GiB on disk, {where}")
