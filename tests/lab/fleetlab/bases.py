# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Builds the host images: one debootstrap, snapshotted, then Incus of each version on top."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fleetlab import apt, recipe
from fleetlab.commands import Commands
from fleetlab.errors import LabError, Stopped
from fleetlab.pool import Pool

# Everything below runs in a process tree and mounts of its own, which end with the lab even when that is killed.
_DIE_TOGETHER = ("setpriv", "--pdeathsig", "KILL", "--")
_OWN_MOUNTS = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
_BOX = (*_DIE_TOGETHER, *_OWN_MOUNTS)
_KEEP_UNUSED = 14 * 24 * 3600
_DPKG = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/info/*
"""
_POLICY = "#!/bin/sh\nexit 101\n"
_CHROOT = 'mount -t proc proc "$0/proc" && mount -t sysfs sysfs "$0/sys" && exec chroot "$0" "$@"'


@dataclass(frozen=True)
class Mirror:
    """Where packages come from and how."""

    uri: str
    keyring: bytes
    proxy: str
    tolerate: tuple[str, ...]  # apt options on dates of the index, as the machine has them


def machine_mirror(commands: Commands) -> Mirror:
    """Read the mirror, keyring and proxy out of the machine's apt configuration."""
    codename = ""
    for line in Path("/etc/os-release").read_text(encoding="utf-8").splitlines():
        if line.startswith("VERSION_CODENAME="):
            codename = line.partition("=")[2].strip('"')
    source = apt.choose_mirror(apt.machine_sources(), codename)
    config = apt.parse_config(commands.run(["apt-config", "dump"]))
    helper = ["/usr/lib/apt/apt-helper", "auto-detect-proxy", source.uri]
    names = ("Acquire::Check-Valid-Until", "Acquire::Check-Date")
    return Mirror(
        uri=source.uri,
        keyring=apt.keyring(source),
        proxy=apt.proxy(source.uri, config, lambda: commands.run(helper, check=False), os.environ),
        tolerate=tuple(f'{name} "{config[name.lower()]}";' for name in names if name.lower() in config),
    )


class Bases:
    """The host images in a pool."""

    def __init__(self, pool: Pool, commands: Commands) -> None:
        self._pool = pool
        self._commands = commands
        self._architecture = commands.run(["dpkg", "--print-architecture"]).strip()
        self._digest = recipe.digest(self._architecture)

    @property
    def common(self) -> Path:
        """The image without Incus."""
        return self._pool.bases / f"{recipe.SUITE}-{self._digest}"

    def of(self, version: str) -> Path:
        """The image with that version of Incus."""
        return self._pool.bases / f"incus-{version}-{self._digest}"

    def missing(self, versions: list[str]) -> list[str]:
        """The versions whose image would have to be built; all while the pool is not mounted."""
        return [version for version in versions if not self.of(version).is_dir()]

    def build(self, versions: list[str]) -> None:
        """Build what is missing; the pool's lock is the caller's."""
        self._pool.remove_parts()
        self._remove_unused()
        missing = self.missing(versions)
        if missing:
            mirror = machine_mirror(self._commands)
            if not self.common.is_dir():
                self._make(self.common, lambda root, log: self._build_common(root, log, mirror))
            self._commands.in_parallel(self._build_version, missing)
        for path in (self.common, *(self.of(version) for version in versions)):
            os.utime(path)  # "used now": what nobody has used for two weeks is removed

    def _remove_unused(self) -> None:
        for path in self._pool.bases.iterdir():
            if self._digest not in path.name and time.time() - path.stat().st_mtime > _KEEP_UNUSED:
                self._pool.delete(path)

    def _make(self, target: Path, fill: Callable[[Path, Path], None], source: Path | None = None) -> None:
        part = target.with_name(target.name + ".part")
        log = self._pool.cache / f"{target.name}.log"
        log.unlink(missing_ok=True)
        if source:
            self._pool.snapshot(source, part)
        else:
            self._pool.create(part)
        started = time.monotonic()
        try:
            fill(part, log)
        except Stopped:
            raise
        except LabError as error:
            raise LabError(f"the host image {target.name} could not be built (log: {log}): {error}") from error
        part.rename(target)
        print(f"built the host image {target.name} in {time.monotonic() - started:.0f} s", flush=True)

    def _in(self, root: Path, log: Path, *argv: str) -> None:
        env = {"DEBIAN_FRONTEND": "noninteractive", "HOME": "/root"}
        self._commands.run([*_BOX, "sh", "-c", _CHROOT, root, *argv], log=log, env=env)

    def _build_common(self, root: Path, log: Path, mirror: Mirror) -> None:
        _write(root / "etc/dpkg/dpkg.cfg.d/lab", _DPKG)
        keyring = root / "etc/apt/keyrings/lab-mirror.gpg"
        keyring.parent.mkdir(parents=True)
        keyring.write_bytes(mirror.keyring)
        env = {f"{scheme}_proxy": mirror.proxy for scheme in ("http", "https")} if mirror.proxy else {}
        print(f"downloading and installing Debian {recipe.SUITE} from {mirror.uri} (log: {log})", flush=True)
        debootstrap = ["debootstrap", "--variant=minbase", "--include=ca-certificates", f"--keyring={keyring}"]
        self._commands.run([*_BOX, *debootstrap, recipe.SUITE, root, mirror.uri], log=log, env=env)
        signed = "[signed-by=/etc/apt/keyrings/lab-mirror.gpg]"
        suites = (recipe.SUITE, f"{recipe.SUITE}-backports")
        _write(root / "etc/apt/sources.list", "".join(f"deb {signed} {mirror.uri} {suite} main\n" for suite in suites))
        options = [*mirror.tolerate, 'Acquire::Languages "none";']
        if mirror.proxy:
            options += [f'Acquire::{scheme}::Proxy "{mirror.proxy}";' for scheme in ("http", "https")]
        _write(root / "etc/apt/apt.conf.d/90lab", "".join(f"{option}\n" for option in options))
        _write(root / "usr/sbin/policy-rc.d", _POLICY, 0o755)
        self._in(root, log, "apt-get", "update", "-q")
        self._in(root, log, "apt-get", "install", "-q", "-y", "--no-install-recommends", *recipe.PACKAGES)
        self._settle(root, log)

    def _settle(self, root: Path, log: Path) -> None:
        """What turns a Debian into a lab host: users, sshd, units that stay off, device nodes."""
        for user in (recipe.SUDOER, recipe.NOBODY):
            self._in(root, log, "useradd", "--create-home", "--no-user-group", "--shell", "/bin/bash", user)
        _write(root / "etc/sudoers.d/lab", f"{recipe.SUDOER} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
        _write(root / "etc/ssh/sshd_config.d/lab.conf", recipe.SSHD)
        for key in (root / "etc/ssh").glob("ssh_host_*"):
            key.unlink()
        for unit in recipe.MASKED_UNITS:
            path = root / "etc/systemd/system" / unit
            path.unlink(missing_ok=True)
            path.symlink_to("/dev/null")
        recipe.make_devices(root / "usr/local/lib/lab/dev")
        (root / ".old").mkdir()

    def _build_version(self, version: str) -> None:
        def fill(root: Path, log: Path) -> None:
            release = ["--target-release", recipe.INCUS_SUITES[version]]
            install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *release]
            self._in(root, log, *install, *recipe.INCUS_PACKAGES)
            self._in(root, log, "sh", "-c", "apt-get clean && rm -rf /var/lib/apt/lists/*")
            (root / "usr/sbin/policy-rc.d").unlink()
            _write(root / "etc/resolv.conf", "# The lab has no name server; its hosts are in /etc/hosts.\n")

        self._make(self.of(version), fill, source=self.common)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it may be a link to a file of the machine
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
