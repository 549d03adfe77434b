# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names: everything that the lab puts on a machine is keyed by the checkout it belongs to."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from fleetlab.errors import Unusable

STATE = Path("/var/lib/incus-fleet-lab")
PREFIX = "incus-fleet-lab"
NETWORK = "198.51.100"  # reserved for documentation (RFC 5737): no real network is hidden by it
CONTROLLER_NUMBER = 1
FIRST_NUMBER, LAST_NUMBER = 10, 250
VERSIONS = ("7.0", "6.0")
DEFAULT_HOSTS = {"inc70": "7.0", "inc60": "6.0"}
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


def checkout_key(path: Path) -> str:
    """Eight hexadecimal digits that stand for a checkout's real path."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]


def parse_hosts(words: list[str]) -> dict[str, str | None]:
    """Read `NAME` and `NAME=VERSION` words; no words means the two default hosts, no version means "as it is"."""
    if not words:
        return {**DEFAULT_HOSTS}
    wanted: dict[str, str | None] = {}
    for word in words:
        name, equals, version = word.partition("=")
        check_name(name)
        if equals and version not in VERSIONS:
            raise Unusable(f"no host image for Incus {version!r}: there are {' and '.join(VERSIONS)}")
        wanted[name] = version or None
    return wanted


def check_name(name: str) -> None:
    """Refuse what cannot be a host name."""
    if not _NAME.fullmatch(name):
        raise Unusable(f"{name!r} is not a host name: lower-case letters, digits and hyphens, 31 at most")


def default_cache() -> Path:
    """Where images are kept between runs, outside of any checkout."""
    named = os.environ.get("INCUS_FLEET_LAB_CACHE")
    if named:
        return Path(named).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).resolve() / "incus-fleet-backup" / "lab"


@dataclass(frozen=True)
class Checkout:
    """The names and places of one checkout's lab."""

    key: str

    @property
    def state(self) -> Path:
        """The directory with the lab's running state (keys, host records, consoles)."""
        return STATE / self.key

    @property
    def hosts(self) -> Path:
        return self.state / "hosts"

    @property
    def ssh_key(self) -> Path:
        return self.state / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        return self.state / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        return self.state / "ssh_config"

    @property
    def switch(self) -> str:
        """The network namespace with the bridge."""
        return f"{PREFIX}-{self.key}-switch"

    @property
    def controller(self) -> str:
        """The network namespace that stands for the machine Ansible runs on."""
        return f"{PREFIX}-{self.key}-controller"

    def namespace(self, name: str) -> str:
        """A host's network namespace."""
        return f"{PREFIX}-{self.key}-host-{name}"

    def cgroup(self, name: str) -> str:
        """A host's cgroup, below the unified hierarchy's root."""
        return f"{PREFIX}-{self.key}-{name}"


def address(number: int) -> str:
    """The address with that number in the lab's network."""
    return f"{NETWORK}.{number}"


def port(number: int) -> str:
    """The switch's side of a cable; short, since the kernel allows 15 characters."""
    return f"port{number}"
