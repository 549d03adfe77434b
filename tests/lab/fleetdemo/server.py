# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server of the demo, seen through its shell, its guests' shells and the incus command; never through our code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.fleetdemo import content
from tests.lab.fleetdemo.console import Console, DemoFailed

STORE = "/srv/backup"
# What a restore may change, and a restart does change: none of it is the instance's own.
_OF_THE_MOMENT = ("volatile.last_state.", "volatile.eth0.host_name", "volatile.uuid.generation", "volatile.cloud-init")


@dataclass(frozen=True)
class Evidence:
    """What is known of the instance at one time: listings as text, and what the incus command says."""

    files: str
    attributes: str
    snapshot_files: str
    said: dict[str, Any]
    neighbour: str

    @property
    def count(self) -> int:
        """How many files the guest listed with their checksums."""
        return sum(1 for line in self.files.splitlines() if len(line.split("  ", 1)[0]) == 64)


@dataclass(frozen=True)
class StoredSet:
    """The newest set in the store, as it lies there: what its manifest says, what sha256sum says of the file."""

    name: str
    artifact: dict[str, Any]
    checksum: str


class Server:
    """One host of the lab with Incus on it."""

    def __init__(self, name: str, lab: Path, console: Console) -> None:
        self.name = name
        self._lab = lab
        self._console = console

    def shell(self, script: str, *words: str) -> str:
        """Run a script on the host; returns what it printed."""
        return self._console.run([self._lab, "exec", self.name, "sh", "-ec", script, "sh", *words])

    def guest(self, instance: str, script: str) -> str:
        """Run a script inside a guest."""
        return self._console.run([self._lab, "exec", self.name, "incus", "exec", instance, "--", "sh"], stdin=script)

    def version(self) -> str:
        """The Incus server's version."""
        version: str = json.loads(self.shell("incus query /1.0"))["environment"]["server_version"]
        return version

    def furnish(self) -> str:
        """Make the instances with content and a snapshot; returns the shop's files as they are in the snapshot."""
        self.shell(f"incus launch -q tiny {content.SHOP}; incus launch -q tiny {content.NEIGHBOUR}")
        self.shell(f"incus config set {content.SHOP} user.purpose='sells things' limits.processes=200")
        self.guest(content.SHOP, content.FILL)
        self.shell(content.SET_ATTRIBUTES)
        listed = self.guest(content.SHOP, content.LIST)
        self.shell(
            f"incus config set {content.SHOP} snapshots.expiry={content.EXPIRY}"
            f"; incus snapshot create {content.SHOP} {content.SNAPSHOT}"
        )
        self.guest(content.SHOP, content.CHANGE)
        return listed

    def evidence(self) -> Evidence:
        """Look at everything there is to know about the shop, its snapshot included."""
        files = self.guest(content.SHOP, content.LIST)
        return Evidence(
            files=files,
            attributes=self.shell(content.LIST_ATTRIBUTES),
            snapshot_files=self._snapshot_files(),
            said=_described(self._listing(content.SHOP)),
            neighbour=self._neighbour(),
        )

    def destroy(self) -> None:
        """The accident: the shop is gone, with its snapshot."""
        self.shell(f"incus delete --force {content.SHOP}")
        if content.SHOP in self.shell("incus list -f csv -c n").splitlines():
            raise DemoFailed(f"{self.name}: {content.SHOP} is still there after it was deleted")

    def stored(self) -> StoredSet:
        """The set in the store, read with nothing but the host's shell."""
        site = f"{STORE}/{self.name}"
        name = self.shell('cd "$1"; ls -d */ | tail -n 1', site).strip().rstrip("/")
        manifest = json.loads(self.shell('cat "$1"', f"{site}/{name}/manifest.json"))
        artifact = next(item for item in manifest["artifacts"] if item["name"] == content.SHOP)
        checksum = self.shell('sha256sum "$1"', f"{site}/{name}/{artifact['path']}").split()[0]
        return StoredSet(f"{site}/{name}", artifact, checksum)

    def _snapshot_files(self) -> str:
        """What is in the snapshot, asked of a guest made from it."""
        twin = content.TWIN
        self.shell(f"incus copy {content.SHOP}/{content.SNAPSHOT} {twin}; incus start {twin}")
        try:
            return self.guest(twin, content.LIST)
        finally:
            self.shell(f"incus delete --force {twin}")

    def _listing(self, instance: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.shell(f"incus list -f json name={instance}"))
        listing = next((item for item in found if item["name"] == instance), None)
        if listing is None:
            raise DemoFailed(f"{self.name}: `incus list` does not show {instance}")
        return listing

    def _neighbour(self) -> str:
        """Changes when the neighbour is restarted or anything happens to it."""
        found = self._listing(content.NEIGHBOUR)
        return f"{found['status']}, process {found['state']['pid']}, started {found['last_used_at']}"


def _described(listing: dict[str, Any]) -> dict[str, Any]:
    """What must come back of what `incus list` says: all but the moment's own."""
    config = {key: value for key, value in listing["config"].items() if not key.startswith(_OF_THE_MOMENT)}
    keys = ("name", "status", "type", "architecture", "description", "devices", "profiles", "ephemeral", "stateful")
    snapshots = {
        item["name"]: {"created": item["created_at"], "expires": item["expires_at"], "stateful": item["stateful"]}
        for item in listing["snapshots"] or []
    }
    return {**{key: listing[key] for key in keys}, "config": config, "snapshots": snapshots}


def digest(text: str) -> str:
    """A short name for a listing."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
