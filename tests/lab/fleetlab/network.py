# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's network: a bridge in a namespace of its own, so that nothing the hosts send can leave it."""

from __future__ import annotations

from pathlib import Path

from fleetlab.checkout import CONTROLLER_NUMBER, Checkout, address, port
from fleetlab.commands import Commands

_NAMESPACES = Path("/run/netns")
_BRIDGE = "br0"


class Network:
    """The switch, the controller's namespace and the cables to the hosts."""

    def __init__(self, checkout: Checkout, commands: Commands) -> None:
        self._checkout = checkout
        self._commands = commands

    @property
    def exists(self) -> bool:
        return (_NAMESPACES / self._checkout.switch).exists()

    def ensure(self) -> None:
        """Make the switch and plug the controller in, unless that is done."""
        switch = self._checkout.switch
        self._ensure_namespace(switch)
        if not self._has_link(switch, _BRIDGE):
            self._ip(switch, "link", "add", _BRIDGE, "type", "bridge")
            self._ip(switch, "link", "set", _BRIDGE, "up")
        self._ensure_namespace(self._checkout.controller)
        if not self._has_link(self._checkout.controller, "eth0"):
            self._plug(self._checkout.controller, CONTROLLER_NUMBER)

    def connect(self, name: str, number: int) -> None:
        """Give a host a fresh network namespace with a cable; what an earlier boot left in it is gone."""
        self.disconnect(name)
        namespace = self._checkout.namespace(name)
        self._ensure_namespace(namespace)
        self._plug(namespace, number)

    def disconnect(self, name: str) -> None:
        self._delete(self._checkout.namespace(name))

    def set_link(self, number: int, up: bool) -> None:
        """Pull a host's cable out of the switch, or put it back."""
        self._ip(self._checkout.switch, "link", "set", port(number), "up" if up else "down")

    def link_is_up(self, number: int) -> bool:
        code, text = self._commands.run_code(["ip", "-n", self._checkout.switch, "link", "show", port(number)])
        return code == 0 and "state DOWN" not in text

    def remove(self) -> None:
        self._delete(self._checkout.controller)
        self._delete(self._checkout.switch)

    def leftovers(self, known: set[str]) -> list[str]:
        """Host names that have a namespace of this checkout but are not among the known ones."""
        prefix = self._checkout.namespace("")
        found = [path.name.removeprefix(prefix) for path in _NAMESPACES.glob(f"{prefix}*")]
        return [name for name in found if name not in known]

    def _plug(self, namespace: str, number: int) -> None:
        switch = self._checkout.switch
        # The other end may outlive a deleted namespace for a moment; the cable is one pair, so this takes both.
        self._commands.run_code(["ip", "-n", switch, "link", "delete", port(number)])
        # An address keeps its MAC, whoever has it: the others remember the two together, also when the host is another.
        peer = ["peer", "name", "eth0", "address", f"02:00:00:00:00:{number:02x}", "netns", namespace]
        self._ip(switch, "link", "add", port(number), "type", "veth", *peer)
        self._ip(switch, "link", "set", port(number), "master", _BRIDGE, "up")
        self._ip(namespace, "address", "add", f"{address(number)}/24", "dev", "eth0")
        self._ip(namespace, "link", "set", "eth0", "up")

    def _ensure_namespace(self, namespace: str) -> None:
        if not (_NAMESPACES / namespace).exists():
            self._commands.run(["ip", "netns", "add", namespace])
        self._ip(namespace, "link", "set", "lo", "up")

    def _delete(self, namespace: str) -> None:
        if (_NAMESPACES / namespace).exists():
            self._commands.run(["ip", "netns", "delete", namespace])

    def _has_link(self, namespace: str, link: str) -> bool:
        return self._commands.run_code(["ip", "-n", namespace, "link", "show", link])[0] == 0

    def _ip(self, namespace: str, *words: str) -> None:
        self._commands.run(["ip", "-n", namespace, *words])
