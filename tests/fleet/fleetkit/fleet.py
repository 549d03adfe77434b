# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One host of the fleet with a store on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fleetkit.ansible import Ansible, Result, Running, Task, task
from fleetkit.hosts import STORES, Host, until

VERSIONS = {"f70": "7.0", "f60": "6.0"}
SITE = "server"


class Fleet:
    """One host, one store on it, and our modules on that host."""

    def __init__(self, ansible: Ansible, host: Host) -> None:
        self.ansible = ansible
        self.host = host
        self.store = f"{STORES}/store"

    def task(self, module: str, **options: Any) -> Task:
        """A task with this store and site, unless others are given."""
        return task(module, **{"store": self.store, "site": SITE, **options})

    def start(self, *tasks: Task, **how: Any) -> Running:
        return self.ansible.start(self.host.name, tasks, **how)

    def play(self, *tasks: Task, **how: Any) -> list[Result]:
        """Run tasks and return a result for each."""
        running = self.start(*tasks, **how)
        found = running.wait()
        assert len(found) == len(tasks), running.printed
        return found

    def run(self, module: str, **options: Any) -> Result:
        """Run one module, whatever comes of it."""
        return self.play(self.task(module, **options))[0]

    def do(self, module: str, **options: Any) -> Result:
        """Run one module that is expected to succeed."""
        found = self.run(module, **options)
        assert found.ok, found
        return found

    def export(self, **options: Any) -> Result:
        """Take a backup that is expected to succeed, in a store that may be new."""
        return self.do("incus_export", store_create=True, **options)

    def info(self, **options: Any) -> Result:
        return self.do("incus_backup_info", **options)

    @property
    def site(self) -> str:
        return f"{self.store}/{SITE}"

    def open_sets(self) -> list[str]:
        """The directories of sets that are not published."""
        return self.host.sh(f"cd {self.site} 2>/dev/null && ls -d *.incomplete 2>/dev/null || true").split()

    def artifact(self, result: Result, name: str, project: str = "default") -> str:
        """The path of an instance's file in a published set."""
        found = [item for item in result["artifacts"] if (item["project"], item["name"]) == (project, name)]
        return f"{self.store}/{result['set_path']}/{found[0]['path']}"

    def manifest(self, result: Mapping[str, Any]) -> Any:
        return json.loads(self.host.run("cat", f"{self.store}/{result['set_path']}/manifest.json").stdout)

    def published(self) -> list[str]:
        """The names of the published sets, oldest first."""
        return self.host.sh(f"cd {self.site} 2>/dev/null && ls -d 2*-???? 2>/dev/null || true").split()

    def pid(self) -> int:
        """The process that holds the site's lease."""
        found: int = self.host.read_json(f"{self.site}/lease.json")["holder"]["pid"]
        return found

    def kill(self, signal: str) -> None:
        self.host.run("kill", f"-{signal}", str(self.pid()))

    def until_mid_stream(self, name: str) -> None:
        """Wait until bytes of an instance's artifact arrive in the store."""
        look = f"find {self.site}/*.incomplete/instances/*/ -name '{name}.tar*.part' -size +256k | grep -q ."
        until(lambda: self.host.succeeds(f"{look} 2>/dev/null"), f"the export of {name}")

    def until_recorded(self, name: str) -> None:
        """Wait until an instance's artifact is finished, and noted in its set."""
        record = f"{self.site}/*.incomplete/instances/*/{name}.tar.zst.json"
        until(lambda: self.host.succeeds(f"ls {record} 2>/dev/null"), f"the end of the export of {name}")

    def until_alone(self) -> None:
        """Wait until no process of ours holds the site."""
        until(lambda: not self.host.succeeds(f"test -e {self.site}/lease.json"), "the end of the run")

    def nothing_left(self) -> bool:
        """Whether the server has no backup of ours and no staged file."""
        found = [name for item in self.host.instances().values() for name in item.get("backups") or []]
        return not found and not self.host.sh("find /var/lib/incus/backups -type f")
