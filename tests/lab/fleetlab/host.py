# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host: a root file system, a network namespace, a cgroup, and systemd as PID 1 in namespaces of its own."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fleetlab import enter, recipe
from fleetlab.checkout import PREFIX, STATE, Checkout, address
from fleetlab.commands import Commands
from fleetlab.errors import LabError
from fleetlab.network import Network
from fleetlab.pool import Pool

# Where the unified hierarchy is mounted when the machine has not mounted it itself.
OWN_CGROUP_MOUNT = STATE / "cgroup"
_INIT = Path(__file__).resolve().parent.parent / "host-init"
_BOOT_SECONDS = 60
_DEATH_SECONDS = 30
_ANSWER_SECONDS = 3
_STEP = 0.02
_ALIVE = ("initializing", "starting", "running", "degraded", "maintenance")


@dataclass
class Record:
    """What is kept about a host in the lab's state."""

    name: str
    version: str
    number: int
    bare: bool
    ready: bool = False  # set once it is complete; what is not ready was left by an interrupted `up`


def unified_cgroup(mounts: Path = Path("/proc/self/mounts")) -> Path | None:
    """Where the unified hierarchy is mounted: beside the old ones, or alone."""
    for line in mounts.read_text(encoding="utf-8").splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    return None


def _delegate(cgroup: Path) -> None:
    """Let a host have the controllers that the machine hands down (none where the old hierarchies have them)."""
    for controller in (cgroup / "cgroup.controllers").read_text(encoding="ascii").split():
        with suppress(OSError):  # a controller that cannot be had is one the host does without
            (cgroup / "cgroup.subtree_control").write_text(f"+{controller}", encoding="ascii")


def leave_cgroup_mount(commands: Commands) -> None:
    """Take away the cgroup mount that the lab made itself, once no lab on this machine has a host in it."""
    if OWN_CGROUP_MOUNT.is_mount() and not any(OWN_CGROUP_MOUNT.glob(f"{PREFIX}-*")):
        commands.run(["umount", OWN_CGROUP_MOUNT])
        OWN_CGROUP_MOUNT.rmdir()


class Host:
    """Creates, boots, kills and removes one host."""

    def __init__(self, record: Record, checkout: Checkout, pool: Pool, network: Network, commands: Commands) -> None:
        self.record = record
        self.name = record.name
        self.address = address(record.number)
        self.root = pool.run / checkout.key / record.name
        self._checkout = checkout
        self._pool = pool
        self._network = network
        self._commands = commands

    @property
    def pid(self) -> int | None:
        """The process that is the host's PID 1, None when it is not running."""
        return enter.host_pid(self._checkout.state, self._checkout.cgroup(self.name), self.name)

    def is_off(self) -> bool:
        """Whether the host is not running; one that is shutting down is waited for."""
        deadline = time.monotonic() + _DEATH_SECONDS
        while (pid := self.pid) is not None and time.monotonic() < deadline:
            # In the last part of a shutdown nobody answers any more, and who asks then may be stopped together with all
            # that runs in the host (systemd sends SIGSTOP before it kills) and would wait for ever.
            patience = ["timeout", "--signal=KILL", str(_ANSWER_SECONDS)]
            argv = [*patience, *enter.host_argv(pid, ["systemctl", "is-system-running"])]
            if self._commands.run_code(argv, env=enter.host_environment())[1].strip() in _ALIVE:
                return False
            time.sleep(_STEP)
        return self.pid is None

    def save(self) -> None:
        self._checkout.hosts.mkdir(parents=True, exist_ok=True)
        part = self._file("part")
        part.write_text(json.dumps(asdict(self.record), indent=1) + "\n", encoding="utf-8")
        part.rename(self._file("json"))

    def create(self, base: Path) -> None:
        """Clone the image and make the clone an individual: name, machine id, host key, authorized keys."""
        self._pool.snapshot(base, self.root)
        (self.root / "etc/hostname").write_text(f"{self.name}\n", encoding="utf-8")
        (self.root / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n", encoding="utf-8")
        key = self.root / "etc/ssh/ssh_host_ed25519_key"
        self._commands.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.name, "-f", key])
        public = self._checkout.ssh_key.with_suffix(".pub").read_bytes()
        for user in ("root", recipe.SUDOER, recipe.NOBODY):
            home = self.root / ("root" if user == "root" else f"home/{user}")
            owner = home.stat()
            ssh = home / ".ssh"
            ssh.mkdir(mode=0o700, exist_ok=True)
            (ssh / "authorized_keys").write_bytes(public)
            for path in (ssh, ssh / "authorized_keys"):
                os.chown(path, owner.st_uid, owner.st_gid)

    @property
    def host_key(self) -> str:
        """The public key that the host's sshd shows, as `type base64`."""
        words = (self.root / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="ascii").split()
        return " ".join(words[:2])

    def plug(self) -> None:
        """Give the host its network; not to be called from several threads at once."""
        self._network.connect(self.name, self.record.number)

    def boot(self) -> float:
        """Start systemd and wait until sshd and Incus's socket answer; return the seconds that took."""
        started = time.monotonic()
        cgroup = self._cgroup()
        keeper, own = cgroup / "keeper", cgroup / "host"
        for path in (cgroup, keeper, own):
            path.mkdir(exist_ok=True)
        _delegate(cgroup)
        command = 'echo 0 >"$1/cgroup.procs" && shift && exec "$@"'
        unshare = ["unshare", "--mount", "--propagation", "private", "--uts", "--ipc", "--pid", "--fork"]
        unshare += ["--kill-child", "--"]
        network = ["nsenter", f"--net=/run/netns/{self._checkout.namespace(self.name)}", "--"]
        init = ["bash", str(_INIT), str(self.root), self.name, str(own)]
        with open(self._file("console"), "wb") as console:
            outer = subprocess.Popen(
                ["sh", "-c", command, "sh", str(keeper), *network, *unshare, *init],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd="/",
                env={"PATH": enter.HOST_PATH, "LC_ALL": "C"},
            )
        self._wait_for_init(outer)
        self._wait_for_services()
        return time.monotonic() - started

    def _wait_for_init(self, outer: subprocess.Popen[bytes]) -> None:
        """Find systemd: the only child of the process that unshared, once it has become it."""
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            if outer.poll() is not None:
                break
            for child in children.read_text(encoding="ascii").split():
                try:
                    command = Path(f"/proc/{child}/comm").read_text(encoding="utf-8").strip()
                except OSError:
                    continue
                if command == "systemd":
                    self._file("pid").write_text(child, encoding="ascii")
                    return
            time.sleep(_STEP)
        raise LabError(f"host {self.name} did not start; its console says:\n{self._console()}")

    def _wait_for_services(self) -> None:
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline and self.pid is not None:
            # Both are listening once they are "active".
            if self.run_code(["systemctl", "-q", "is-active", "ssh.service", "incus.socket"])[0] == 0:
                return
            time.sleep(_STEP)
        units = self.run_code(["systemctl", "--failed", "--no-legend"])[1] if self.pid else "it is dead"
        raise LabError(f"host {self.name} did not come up: {units}\n{self._console()}")

    def run(self, argv: list[str], stdin: bytes | None = None) -> str:
        """Run a command as root in the host; LabError with its words when it fails."""
        code, output = self.run_code(argv, stdin)
        if code != 0:
            raise LabError(f"`{' '.join(argv)}` on host {self.name} failed with exit code {code}:\n{output}")
        return output

    def run_code(self, argv: list[str], stdin: bytes | None = None) -> tuple[int, str]:
        """Run a command as root in the host; return its exit code and output."""
        pid = self.pid
        if pid is None:
            raise LabError(f"host {self.name} is not running")
        return self._commands.run_code(enter.host_argv(pid, argv), stdin=stdin, env=enter.host_environment())

    def kill(self) -> None:
        """Take the power away: every process dies at once, nothing is told. The root file system stays."""
        cgroup = self._cgroup()
        if cgroup.is_dir():
            (cgroup / "cgroup.kill").write_text("1", encoding="ascii")
            deadline = time.monotonic() + _DEATH_SECONDS
            while "populated 1" in (cgroup / "cgroup.events").read_text(encoding="ascii"):
                if time.monotonic() > deadline:
                    raise LabError(f"the processes of host {self.name} do not die (see {cgroup})")
                time.sleep(_STEP)
            for directory, _unused, _unused in os.walk(cgroup, topdown=False):
                os.rmdir(directory)
        self._file("pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Kill the host and delete all there is of it; parts that are missing are fine."""
        self.kill()
        self._network.disconnect(self.name)
        if self._pool.mounted:
            self._pool.delete(self.root)
        for suffix in ("console", "part", "json"):  # the record goes last: until then a rerun knows of the host
            self._file(suffix).unlink(missing_ok=True)

    def _cgroup(self) -> Path:
        top = unified_cgroup()
        if top is None:
            top = OWN_CGROUP_MOUNT
            top.mkdir(parents=True, exist_ok=True)
            self._commands.run(["mount", "-t", "cgroup2", "cgroup2", top])
        return top / self._checkout.cgroup(self.name)

    def _file(self, suffix: str) -> Path:
        return self._checkout.hosts / f"{self.name}.{suffix}"

    def _console(self) -> str:
        return self._file("console").read_text(errors="replace")[-2000:]
