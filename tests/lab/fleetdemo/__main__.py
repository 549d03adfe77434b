# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`make demo`: two real Incus servers are backed up, lose an instance each, and get it back bit for bit."""

from __future__ import annotations

import difflib
import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

from tests.gates.model import NotRun
from tests.gates.workshop import Workshop
from tests.lab.fleetdemo import content
from tests.lab.fleetdemo.console import Console, DemoFailed, Interrupted, interruptible, undisturbed
from tests.lab.fleetdemo.server import STORE, Evidence, Server, StoredSet, digest

HOSTS = {"demo70": "7.0", "demo60": "6.0"}
ROOT = Path(__file__).resolve().parents[3]
LAB = ROOT / "tests/lab/lab"


@dataclass
class Case:
    """All that is known of one server."""

    server: Server
    version: str
    snapshot_taken: str
    before: Evidence
    stored: StoredSet | None = None
    after: Evidence | None = None


def main() -> int:
    """Tell the story; 0 only when every proof holds."""
    shop = Workshop(ROOT)
    console = Console(shop.logs / "demo.log")
    interruptible()
    try:
        with _alone(shop), _servers(console) as servers:
            good = _story(shop, console, servers)
    except Interrupted as signal:
        console.say(f"Interrupted ({signal}).")
        return 130
    except DemoFailed as error:
        console.say(f"\nThe demo failed: {error}\n\nWhole log: {console.log}")
        return 1
    if not good:
        console.say(f"NOT proved: see what differs above. Whole log: {console.log}")
        return 1
    console.say("Proved: both servers lost an instance and have it back, bit for bit, from a backup. Nothing is left.")
    return 0


def _story(shop: Workshop, console: Console, servers: list[Server]) -> bool:
    with console.step("Making the controller's Python environment and fetching what the hosts need"):
        playbook = _playbooks(shop, console, servers)
    cases = []
    with console.step(f"Creating {content.SHOP} and {content.NEIGHBOUR} on each server, with content and a snapshot"):
        for server in servers:
            taken = server.furnish()
            cases.append(Case(server, server.version(), taken, server.evidence()))
    with console.step("Playbook incus_fleet.backup.host_setup"):
        playbook.run("host_setup")
    with console.step("Playbook incus_fleet.backup.partial_backup"):
        backup_seconds = playbook.run("partial_backup")
    for case in cases:
        case.stored = case.server.stored()
    with console.step(f"Destroying {content.SHOP} on both servers"):
        for case in cases:
            case.server.destroy()
    with console.step("Playbook incus_fleet.backup.partial_restore"):
        restore_seconds = playbook.run("partial_restore", partial_restore_instances=[content.SHOP])
    with console.step("Looking at what came back"):
        for case in cases:
            case.after = case.server.evidence()
    console.say(
        "\nNone of what follows was asked of the collection. Busybox in the guests, the incus command, and sha256sum"
        "\nand getfattr on the hosts told it, before and after. (In brackets: a digest of what they told.)"
    )
    good = [_told(console, case) for case in cases]
    console.say(
        f"\nBoth servers at once: backup {backup_seconds:.1f} s, restore {restore_seconds:.1f} s, Ansible included."
    )
    return all(good)


def _playbooks(shop: Workshop, console: Console, servers: list[Server]) -> _Playbook:
    """What runs playbooks, with the environment that it needs; what pip says goes to the log."""
    try:
        with console.log.open("a", encoding="utf-8") as log, redirect_stderr(log):
            return _Playbook(shop, console, servers)
    except (NotRun, SystemExit) as error:
        raise DemoFailed(str(error)) from error


class _Playbook:
    """Runs the collection's playbooks on the servers of the demo, as a user would."""

    def __init__(self, shop: Workshop, console: Console, servers: list[Server]) -> None:
        self._console = console
        # A true copy of what belongs to the project, like an installed collection.
        collections = shop.exported("demo")
        surroundings = shop.surroundings("dev")
        kept = ("HOME", "PATH", "LC_ALL", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NO_COLOR")
        own = {
            **{key: surroundings[key] for key in kept},
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
            # Ansible's connections outlive it by a minute otherwise: nothing of the demo is to be left.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=2s",
        }
        self._env = [f"{key}={value}" for key, value in own.items()]
        version = servers[0].shell("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
        wheels = shop.wheels(ROOT / "tests/integration/requirements.txt", version)
        self._inventory = shop.own / "demo-inventory.yml"
        self._inventory.write_text(console.run([LAB, "inventory"]), "utf-8")
        self._settings = {
            "incus_backup_hosts": ":".join(server.name for server in servers),
            "incus_backup_store": STORE,
            "incus_backup_store_create": True,
            "host_setup_wheels": str(wheels),
        }

    def run(self, name: str, **more: object) -> float:
        """Run a playbook to its end; returns the seconds it took."""
        began = time.monotonic()
        settings = json.dumps({**self._settings, "partial_backup_poll": 1, "partial_restore_poll": 1, **more})
        command = ["ansible-playbook", "-i", str(self._inventory), f"incus_fleet.backup.{name}", "-e", settings]
        try:
            self._console.run([LAB, "controller", "env", *self._env, *command])
        except DemoFailed as error:
            _first, _newline, rest = str(error).partition("\n")
            raise DemoFailed(f"the playbook incus_fleet.backup.{name} failed:\n{rest}") from error
        return time.monotonic() - began


def _told(console: Console, case: Case) -> bool:
    """Print what is proved of one server; True when all of it holds."""
    before, after, stored = case.before, case.after, case.stored
    if after is None or stored is None:
        raise DemoFailed(f"{case.server.name}: not everything was looked at")
    artifact = stored.artifact
    plain, kept = artifact["plain_bytes"] / 2**20, artifact["stored_bytes"] / 2**20
    snapshots = before.said["snapshots"].items()
    expires = ", ".join(f"snapshot {name} expires {it['expires'][:19]}" for name, it in snapshots)
    console.say(f"\n{case.server.name}: Incus {case.version}")
    console.say(f"  set        {stored.name}")
    console.say(f"  artifact   {plain:.1f} MiB, {kept:.1f} MiB stored, in {artifact['seconds']:.1f} s")
    console.say(f"  method     {artifact['method']} ({artifact['transport']}), guarantee: {artifact['guarantee']}")
    checks = [
        ("stored", "sha256 as the manifest says", artifact["stored_sha256"], stored.checksum),
        ("content", f"{before.count} checksums, owners, modes, links, times", before.files, after.files),
        ("attributes", f"{before.attributes.count('user.')} extended attributes", before.attributes, after.attributes),
        ("snapshot", "all that, in a guest made from it", case.snapshot_taken, after.snapshot_files),
        ("incus list", f"state, configuration; {expires}", _sorted(before.said), _sorted(after.said)),
        (content.NEIGHBOUR, "left alone", before.neighbour, after.neighbour),
    ]
    good = True
    for name, what, was, now in checks:
        same = was == now and bool(was)
        told = f"same [{digest(now)}]" if same else f"DIFFERENT [{digest(was)}, now {digest(now)}]"
        console.say(f"  {name:11}{what}: {told}")
        if not same:
            good = False
            for line in list(difflib.unified_diff(was.splitlines(), now.splitlines(), "before", "after", n=0))[:20]:
                console.say(f"      {line.rstrip()}")
    return good


def _sorted(said: dict[str, object]) -> str:
    return json.dumps(said, indent=1, sort_keys=True)


@contextmanager
def _alone(shop: Workshop) -> Iterator[None]:
    """One demo of a checkout at a time; the kernel drops the lock with the process."""
    with (shop.own / "demo.lock").open("w", encoding="ascii") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DemoFailed("another demo of this checkout is running") from error
        yield


@contextmanager
def _servers(console: Console) -> Iterator[list[Server]]:
    """The two servers, which go away with the block, whatever happens; other hosts of the lab are left alone."""
    console.say("Two real Incus servers on this machine are backed up, lose an instance each, and get it back.")
    console.say(f"Log: {console.log}\n")
    _remove(console)
    try:
        console.say("Starting the hosts (the first time their images are built, which takes some minutes):")
        console.follow([LAB, "up", "--install", *(f"{name}={version}" for name, version in HOSTS.items())])
        yield [Server(name, LAB, console) for name in HOSTS]
    finally:
        undisturbed()
        console.say()
        with console.step("Removing the hosts"):
            _remove(console)


def _remove(console: Console) -> None:
    """Take down what there is of the demo's hosts, also what a killed demo left."""
    there = {line.split()[0] for line in console.run([LAB, "status"]).splitlines() if line.strip()}
    mine = [name for name in HOSTS if name in there]
    if mine:
        console.run([LAB, "down", *mine])


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C.UTF-8"
    sys.exit(main())
