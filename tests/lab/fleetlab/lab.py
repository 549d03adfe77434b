# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab of one checkout: brings hosts up and takes them down, and leaves nothing half done."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fleetlab import guest, inventory, prepare, requirements
from fleetlab.bases import Bases
from fleetlab.checkout import (
    CONTROLLER_NUMBER,
    DEFAULT_HOSTS,
    FIRST_NUMBER,
    LAST_NUMBER,
    STATE,
    VERSIONS,
    Checkout,
    address,
    checkout_key,
    default_cache,
)
from fleetlab.commands import Commands
from fleetlab.errors import LabError, Unusable
from fleetlab.host import OWN_CGROUP_MOUNT, Host, Record, leave_cgroup_mount, unified_cgroup
from fleetlab.network import Network
from fleetlab.pool import IMAGE_SIZE, Pool, locked


class Lab:
    """One checkout's lab. ``path`` is the checkout's root directory."""

    def __init__(self, path: Path, key: str | None = None, commands: Commands | None = None) -> None:
        self.path = path
        self.checkout = Checkout(key or checkout_key(path))
        self.commands = commands or Commands()
        self.network = Network(self.checkout, self.commands)
        self.pool = Pool(self._cache(), self.commands)
        self._lock = STATE / f"{self.checkout.key}.lock"

    def _cache(self) -> Path:
        """A running lab stays with the cache that it was started with."""
        try:
            return Path(json.loads((self.checkout.state / "lab.json").read_text(encoding="utf-8"))["cache"])
        except FileNotFoundError:
            return default_cache()

    # What is there

    def records(self) -> list[Record]:
        """The hosts of this lab, by name."""
        paths = sorted(self.checkout.hosts.glob("*.json"))
        return [Record(**json.loads(path.read_text(encoding="utf-8"))) for path in paths]

    def host(self, name: str) -> Host:
        """The host of that name; Unusable when there is none."""
        for record in self.records():
            if record.name == name:
                return self._host(record)
        names = ", ".join(record.name for record in self.records())
        raise Unusable(f"no host {name!r} in this lab (there are: {names})" if names else "the lab is not up")

    def access(self) -> inventory.Access:
        return inventory.Access(self.checkout.ssh_key, self.checkout.known_hosts)

    def entries(self) -> list[inventory.Entry]:
        hosts = [self._host(record) for record in self.records() if record.ready]
        return [inventory.Entry(host.name, host.address, host.record.version, host.host_key) for host in hosts]

    def inventory(self) -> str:
        """The Ansible inventory of the hosts that are up; Unusable when there are none."""
        entries = self.entries()
        if not entries:
            raise Unusable("the lab is not up: run `lab up` first")
        return inventory.inventory(entries, self.access())

    def _host(self, record: Record) -> Host:
        return Host(record, self.checkout, self.pool, self.network, self.commands)

    # Up

    def build(self, versions: list[str], install: bool) -> None:
        """Build the host images that are missing, and the guest image."""
        self._require(install)
        with self.locked(), self._tidy_on_interrupt(set()):
            self._announce([], versions)
            self._open_state()
            self._build(versions)
            self._leave_if_empty()

    def up(self, wanted: dict[str, str | None], bare: bool, install: bool) -> None:
        """Have the wanted hosts run; those that do are left alone, those that are off are booted."""
        self._require(install)
        with self.locked():
            before = {record.name: record for record in self.records()}
            complete = {name for name, record in before.items() if record.ready}
            for name, version in wanted.items():
                if name in complete and version not in (None, before[name].version):
                    raise Unusable(f"host {name} is there with Incus {before[name].version}: `lab down {name}` first")
            missing = {
                name: version or DEFAULT_HOSTS.get(name, VERSIONS[0])
                for name, version in wanted.items()
                if name not in complete
            }
            asleep = [name for name in wanted if name in complete and self._host(before[name]).is_off()]
            with self._tidy_on_interrupt(complete):
                self._remove_leftovers(complete)
                if missing or asleep or not self.network.exists:
                    self._announce([*missing, *asleep], sorted(set(missing.values()), reverse=True))
                    self._start(missing, asleep, bare)
                for name in wanted:
                    host = self.host(name)
                    print(f"{name} is up: Incus {host.record.version}, {host.address}", flush=True)

    def _start(self, missing: dict[str, str], asleep: list[str], bare: bool) -> None:
        self._open_state()
        image = self._build(sorted(set(missing.values()), reverse=True))
        if not self.checkout.ssh_key.exists():
            self.commands.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", self.checkout.ssh_key])
        self.network.ensure()
        numbers = self._free_numbers()
        new = []
        for name, version in missing.items():
            host = self._host(Record(name, version, next(numbers), bare))
            host.save()
            host.create(Bases(self.pool, self.commands).of(version))
            new.append(host)
        hosts = [*new, *(self.host(name) for name in asleep)]
        for host in hosts:
            host.kill()  # one whose PID 1 ended by itself has left its cgroup
            host.plug()
        self._write_names(hosts)

        def bring_up(host: Host) -> None:
            booted = host.boot()
            started = time.monotonic()
            if not host.record.ready and not host.record.bare and image:
                prepare.prepare(host, image)
            prepared = time.monotonic() - started
            print(f"host {host.name} booted in {booted:.1f} s, Incus prepared in {prepared:.1f} s", flush=True)

        self.commands.in_parallel(bring_up, hosts)
        for host in new:
            host.record.ready = True
            host.save()
        self._write_names([])

    def _open_state(self) -> None:
        """Leave word of this lab before anything else, so that `down` finds what a killed `up` has left."""
        self.checkout.hosts.mkdir(parents=True, exist_ok=True)
        self.checkout.state.chmod(0o700)
        about = {"checkout": str(self.path), "cache": str(self.pool.cache)}
        (self.checkout.state / "lab.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")

    def _build(self, versions: list[str]) -> Path | None:
        """Have the images; return the guest image's path (None when no host needs one)."""
        with self.pool.locked():
            self.pool.mount()
            # Claimed under the lock, so that nobody unmounts what is about to be used.
            (self.pool.run / self.checkout.key).mkdir(exist_ok=True)
            if not versions:
                return None
            bases = Bases(self.pool, self.commands)
            bases.build(versions)
            return guest.ensure_image(bases.of(versions[0]), self.pool.cache, self.commands)

    def _require(self, install: bool) -> None:
        requirements.require_tools(install, self.commands)
        requirements.require_btrfs(self.commands)
        if not self.pool.mounted:
            requirements.require_space(self.pool.cache)

    def _announce(self, hosts: list[str], versions: list[str]) -> None:
        """Say what will be put on the machine before it is."""
        if not self.pool.mounted:
            size = f"sparse, at most {IMAGE_SIZE // 1024**3} GiB"
            print(f"will mount {self.pool.image} ({size}) on {self.pool.mountpoint}")
        missing = Bases(self.pool, self.commands).missing(versions) if self.pool.mounted else versions
        if missing:
            print(f"will build, where the image has not got them yet: Debian with Incus {' and '.join(missing)}")
        if hosts and not self.network.exists:
            print(f"will add the network namespaces {self.checkout.switch} and {self.checkout.controller}")
        if hosts and unified_cgroup() is None:
            print(f"will mount the unified cgroup hierarchy on {OWN_CGROUP_MOUNT}")
        for name in hosts:
            print(
                f"will start the host {name} (namespace {self.checkout.namespace(name)}, state {self.checkout.state})"
            )
        sys.stdout.flush()

    def _free_numbers(self) -> Iterator[int]:
        taken = {record.number for record in self.records()}
        for number in range(FIRST_NUMBER, LAST_NUMBER + 1):
            if number not in taken:
                yield number
        raise LabError("the lab's network is full")

    def _write_names(self, extra: list[Host]) -> None:
        """Tell ssh, and every host, the names of all."""
        entries = {entry.name: entry for entry in self.entries()}
        for host in extra:
            entries[host.name] = inventory.Entry(host.name, host.address, host.record.version, host.host_key)
        ordered = [entries[name] for name in sorted(entries)]
        self.checkout.known_hosts.write_text(inventory.known_hosts(ordered), encoding="utf-8")
        self.checkout.ssh_config.write_text(inventory.ssh_config(ordered, self.access()), encoding="utf-8")
        for name in entries:
            text = inventory.etc_hosts(name, ordered, address(CONTROLLER_NUMBER))
            (self.pool.run / self.checkout.key / name / "etc/hosts").write_text(text, encoding="utf-8")

    # Trouble, for the tests of faults

    def boot(self, name: str) -> None:
        with self.locked():
            host = self.host(name)
            if not host.is_off():
                raise Unusable(f"host {name} is running")
            host.kill()  # what a PID 1 that ended by itself has left in the cgroup
            host.plug()
            print(f"host {name} booted in {host.boot():.1f} s", flush=True)

    def kill(self, name: str) -> None:
        with self.locked():
            host = self.host(name)
            if host.pid is None:
                raise Unusable(f"host {name} is not running")
            host.kill()

    def set_link(self, name: str, up: bool) -> None:
        self.network.set_link(self.host(name).record.number, up)

    # Down

    def down(self, names: list[str]) -> None:
        """Remove hosts; without names, all of them with the switch, the state and (unless others use it) the mount."""
        if not self.checkout.state.is_dir():
            print("the lab is not up")
            return
        with self.locked():
            known = [record.name for record in self.records()]
            for name in names:
                self.host(name)
            for name in names or known:
                self.host(name).remove()
                print(f"host {name} is removed", flush=True)
            if names:
                self._write_names([])
            else:
                self._remove_leftovers(set())
            self._leave_if_empty()

    def down_lost(self) -> None:
        """Remove the labs of checkouts that no longer exist."""
        for about in STATE.glob("*/lab.json"):
            path = Path(json.loads(about.read_text(encoding="utf-8"))["checkout"])
            if not path.is_dir():
                print(f"removing the lab of {path}", flush=True)
                Lab(path, about.parent.name, self.commands).down([])

    def _remove_leftovers(self, complete: set[str]) -> None:
        """Remove what a killed `up` left behind: hosts that are not complete, and parts without a record."""
        for record in self.records():
            if record.name not in complete:
                self._host(record).remove()
        found = set(self.network.leftovers(complete))
        top = unified_cgroup() or OWN_CGROUP_MOUNT
        prefix = self.checkout.cgroup("")
        found |= {path.name.removeprefix(prefix) for path in top.glob(f"{prefix}*")} - complete
        if self.pool.mounted:
            found |= {path.name for path in (self.pool.run / self.checkout.key).glob("*")} - complete
        for name in found:
            self._host(Record(name, VERSIONS[0], 0, bare=True)).remove()

    def _leave_if_empty(self) -> None:
        """With the last host goes everything else of this checkout."""
        if self.records():
            return
        self.network.remove()
        with self.pool.locked():
            if self.pool.mounted:
                shutil.rmtree(self.pool.run / self.checkout.key, ignore_errors=True)
            self.pool.unmount_if_unused()
        if self.checkout.state.is_dir():
            shutil.rmtree(self.checkout.state)
        leave_cgroup_mount(self.commands)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `up` or `down` of a checkout at a time. The lock file is beside the state, which goes away under it."""
        with locked(self._lock, "another lab command of this checkout", self.commands):
            try:
                yield
            finally:
                self._forget_lock()

    def _forget_lock(self) -> None:
        """Without a state there is nothing to lock; whoever waits for the file notices that it is another one."""
        if not self.checkout.state.exists():
            self._lock.unlink(missing_ok=True)
            with suppress(OSError):
                STATE.rmdir()

    @contextmanager
    def _tidy_on_interrupt(self, complete: set[str]) -> Iterator[None]:
        """Remove whatever was begun when it fails or is interrupted; the complete hosts stay."""
        try:
            yield
        except BaseException:
            if self.commands.interrupted:
                print("interrupted: removing what was begun", file=sys.stderr, flush=True)
            self.commands.resume()
            self._remove_leftovers(complete)
            self._leave_if_empty()
            raise
