# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host of the lab, reached from this machine and past everything under test: its shell, and the incus command."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[3]
LAB = CHECKOUT / "tests/lab/lab"
DEADLINE = 60.0
BACKUPS = "/var/lib/incus/backups"
STATE = "/var/lib/incus-fleet"
STORES = "/srv/fleet-test"

_RESET = f"""
set -eu
for mounted in $(awk '$2 ~ "^{STORES}" || $2 == "{BACKUPS}" {{ print $2 }}' /proc/mounts | sort -r); do
  umount -l "$mounted"  # Incus 6.0 keeps a backup that failed open
done
rm -rf {STORES} {STATE}/*
for volume in /var/lib/incus/storage-pools/default/containers/*/; do  # what a test broke, Incus does not delete
  [ -d "$volume" ] || break
  btrfs subvolume show "$volume" >/dev/null 2>&1 || {{ rm -rf "$volume"; btrfs -q subvolume create "$volume"; }}
done
incus list --all-projects -fcsv -cne | while IFS=, read -r name project; do
  incus delete -f --project "$project" "$name" </dev/null
done
for volume in /var/lib/incus/storage-pools/default/containers-snapshots/*/* \\
  /var/lib/incus/storage-pools/default/containers/*; do  # what a test made Incus forget
  if [ -d "$volume" ]; then btrfs -q subvolume delete "$volume" 2>/dev/null || rm -rf "$volume"; fi
done
for project in $(incus project list -fjson | python3 -c 'import json, sys
for item in json.load(sys.stdin): print(item["name"])'); do
  for profile in $(incus profile list --project "$project" -fcsv | cut -d, -f1); do
    [ "$profile" = default ] || incus profile delete --project "$project" "$profile"
  done
  [ "$project" = default ] || incus project delete --force "$project" 2>/dev/null \\
    || incus project delete "$project"
done
for pool in $(incus storage list -fcsv | cut -d, -f1); do
  case $pool in default | plain) ;; *) incus storage delete "$pool" ;; esac
done
for network in $(incus network list -fcsv | grep ',YES,' | cut -d, -f1); do
  [ "$network" = incusbr0 ] || incus network delete "$network"
done
mkdir -p {STORES}
"""


def until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> Any:
    """Wait for something that happens by itself, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(0.05)


class Host:
    """One host; nothing in here goes through Ansible or the collection."""

    def __init__(self, name: str, version: str) -> None:
        self.name = name
        self.version = version

    def __repr__(self) -> str:
        return self.name

    @property
    def streams(self) -> bool:
        """Whether its server can export without staging (API extension direct_backup)."""
        return self.version != "6.0"

    def run(self, *argv: str, stdin: bytes | None = None, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Run a command as root in the host."""
        done = subprocess.run(
            [str(LAB), "exec", self.name, *argv], input=stdin or b"", capture_output=True, check=False
        )
        if check and done.returncode:
            raise AssertionError(
                f"{shlex.join(argv)[:300]} on {self.name}: exit code {done.returncode}\n"
                f"{done.stdout.decode(errors='replace')}{done.stderr.decode(errors='replace')}"
            )
        return done

    def sh(self, script: str, *arguments: str) -> str:
        """What a shell script prints."""
        return self.run("sh", "-c", script, "sh", *arguments).stdout.decode().strip()

    def succeeds(self, script: str) -> bool:
        return self.run("sh", "-c", script, check=False).returncode == 0

    def incus(self, *argv: str, project: str = "default") -> str:
        """What the incus command prints."""
        return self.run("incus", "--project", project, *argv).stdout.decode().strip()

    def api(self, path: str) -> Any:
        """What Incus's API has there, by way of `incus query`."""
        return json.loads(self.run("incus", "query", path).stdout)

    def instances(self) -> dict[str, dict[str, Any]]:
        """Every instance by project/name, with its snapshots and backups, without what changes by itself."""
        found = json.loads(self.run("incus", "list", "--all-projects", "-fjson").stdout)
        return {f"{item['project']}/{item['name']}": {**item, "state": None} for item in found}

    def states(self) -> dict[str, str]:
        """Every instance's state by project/name."""
        return {name: item["status"] for name, item in self.instances().items()}

    def backups_of(self, name: str, project: str = "default") -> list[str]:
        """The backups of an instance that lie on the server."""
        return [path.rpartition("/")[2] for path in self.api(f"/1.0/instances/{name}/backups?project={project}")]

    def digests(self, directory: str) -> dict[str, str]:
        """The SHA-256 of every file below a directory."""
        listed = self.sh('cd "$1" && find . -type f ! -name .lock -exec sha256sum {} +', directory)
        return {line[66:]: line[:64] for line in listed.splitlines()}

    def write(self, path: str, content: str, mode: str = "0600") -> None:
        self.run("sh", "-c", 'cat >"$1" && chmod "$2" "$1"', "sh", path, mode, stdin=content.encode())

    def read_json(self, path: str) -> Any:
        return json.loads(self.run("cat", path).stdout)

    def reset(self) -> None:
        """Take away what a test may have left."""
        self.run("sh", "-c", _RESET)


def lab(*words: str, check: bool = True) -> str:
    """Run a command of the lab."""
    done = subprocess.run([str(LAB), *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0 or not check, f"lab {' '.join(words)}:\n{done.stdout}{done.stderr}"
    return done.stdout
