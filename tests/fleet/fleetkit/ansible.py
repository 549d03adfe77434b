# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs tasks on the lab's hosts as a user does: by ansible-playbook, from the controller's network."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleetkit.hosts import CHECKOUT, LAB

COLLECTION = "incus_fleet.backup"
VENV = "/opt/incus-fleet/venv"
PYTHON = f"{VENV}/bin/python"
CALLBACKS = Path(__file__).resolve().parent.parent / "callbacks"
# A task's keywords; everything else is an option of the module.
Task = Mapping[str, Any]


class Result(dict[str, Any]):
    """What a module returned; ``outcome`` is ok, failed or unreachable."""

    def __init__(self, outcome: str, content: Mapping[str, Any]) -> None:
        super().__init__(content)
        self.outcome = outcome

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"

    def facts(self) -> dict[str, Any]:
        """The facts of the error that ended the module."""
        return {key: self.get(key) for key in ("error", "operation", "server", "entity", "server_said", "hint")}

    @property
    def words(self) -> list[str]:
        """The warnings, as text, however this ansible-core hands them over."""
        return [
            str(item.get("msg", item)) if isinstance(item, dict) else str(item) for item in self.get("warnings", [])
        ]


def task(module: str, *, check: bool = False, environment: Mapping[str, str] | None = None, **options: Any) -> Task:
    """One task; a module of this collection unless its name has a dot."""
    name = module if "." in module else f"{COLLECTION}.{module}"
    told: dict[str, Any] = {"name": module, name: options, "ignore_errors": True}
    if check:
        told["check_mode"] = True
    if environment:
        told["environment"] = dict(environment)
    return told


@dataclass
class Running:
    """A playbook at work."""

    process: subprocess.Popen[str]
    results: Path
    printed: str = field(default="")

    def wait(self, seconds: float = 120) -> list[Result]:
        """Its results, once it is over."""
        self.printed, _unused = self.process.communicate(timeout=seconds)
        lines = self.results.read_text("utf-8").splitlines() if self.results.exists() else []
        found = [json.loads(line) for line in lines]
        return [Result(line["outcome"], line["result"]) for line in found]

    def one(self, seconds: float = 120) -> Result:
        """The result of its only task."""
        found = self.wait(seconds)
        assert len(found) == 1, self.printed
        return found[0]


class Ansible:
    """ansible-playbook with an inventory; ``collections`` is where it finds the collection."""

    def __init__(self, inventory: Path, collections: str, place: Path) -> None:
        self.inventory = inventory
        self.collections = collections
        self.place = place
        self._count = 0
        self._settings = place / "ansible.cfg"  # empty: nobody's own settings count here
        self._settings.touch()

    def environment(self, results: Path) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
        return {
            **kept,
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self._settings),
            "ANSIBLE_HOME": str(self.place / "home"),
            "ANSIBLE_COLLECTIONS_PATH": self.collections,
            "ANSIBLE_PIPELINING": "true",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.place / "cp"),
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=30s",
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
            "ANSIBLE_CALLBACKS_ENABLED": "fleet_results",
            "ANSIBLE_NOCOLOR": "true",
            "FLEET_RESULTS": str(results),
        }

    def start(
        self,
        hosts: str,
        tasks: Sequence[Task],
        *,
        variables: Mapping[str, Any] | None = None,
        ssh_args: str | None = None,
    ) -> Running:
        """Start a play and return at once."""
        told = {"ansible_python_interpreter": PYTHON, **(variables or {})}
        play = {"name": "fleet", "hosts": hosts, "gather_facts": False, "vars": told, "tasks": list(tasks)}
        return self.start_playbook([play], ssh_args=ssh_args)

    def start_playbook(self, plays: Sequence[Mapping[str, Any]], *, ssh_args: str | None = None) -> Running:
        """Start a whole playbook and return at once."""
        self._count += 1
        playbook = self.place / f"{self._count}.json"
        # JSON is YAML.
        playbook.write_text(json.dumps(list(plays)), "utf-8")
        results = playbook.with_suffix(".results")
        environment = self.environment(results)
        if ssh_args:
            environment["ANSIBLE_SSH_ARGS"] = ssh_args
        command = [str(LAB), "controller", "ansible-playbook", "-i", str(self.inventory), str(playbook)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=CHECKOUT,
        )
        return Running(process, results)
