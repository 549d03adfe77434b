# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command lines that run something inside a host or in the controller's network. Imports nothing slow."""

from __future__ import annotations

import os
from pathlib import Path

from fleetlab.errors import Unusable

HOST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def host_pid(state: Path, cgroup: str, name: str) -> int | None:
    """The process that is a host's PID 1, None when the host is not running.

    The recorded number counts only while that process sits in the host's own cgroup: numbers are used again.
    """
    try:
        pid = int((state / "hosts" / f"{name}.pid").read_text(encoding="ascii"))
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return pid if f"/{cgroup}/" in groups or groups.rstrip("\n").endswith(f"/{cgroup}") else None


def host_argv(pid: int, argv: list[str]) -> list[str]:
    """A command line that runs ``argv`` as root inside a host, killed together with the one who waits for it."""
    enter = ["nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w"]
    return [*enter, "--", "setpriv", "--pdeathsig", "KILL", "--", *argv]


def host_environment() -> dict[str, str]:
    """The environment of a command inside a host: nothing of the caller's but the terminal."""
    environment = {"PATH": HOST_PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}
    if "TERM" in os.environ:
        environment["TERM"] = os.environ["TERM"]
    return environment


def controller_argv(namespace: str, argv: list[str]) -> list[str]:
    """A command line that runs ``argv`` in the controller's network namespace, everything else as it is."""
    path = Path("/run/netns") / namespace
    if not path.exists():
        raise Unusable("the lab is not up: run `lab up` first")
    return ["nsenter", f"--net={path}", "--", *argv]
