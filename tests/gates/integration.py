# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""ansible-test's integration targets, each on every host of the lab.

The convention for those who write targets (tests/integration/targets/<name>/):

* `testhost` *is* a host of the lab: ansible-test runs in the lab controller's network, and its integration_config.yml,
  which this gate writes, points testhost's connection there (root, over SSH).  Each target runs once on each of
  `inc70` and `inc60`; `lab_host` is the host's name and `lab_incus_version` what it runs.  A target is a plain role,
  with `aliases` as ansible-test wants them.
* Targets named `setup_*` do not run by themselves: others depend on them in their meta/main.yml.
* `lab_wheels` is a directory on the controller with pylxd, jmespath and all that they need for the hosts' Python:
  nothing in the lab reaches a package index.  Modules of ours need an interpreter with both: set
  `ansible_python_interpreter` for a block; the hosts' own /usr/bin/python3 is the default.
* A task for the controller needs `delegate_to: localhost` and
  `vars: {ansible_connection: local, ansible_python_interpreter: "{{ ansible_playbook_python }}"}`.
* What a target makes it removes, also when it fails (`block`/`always`): the hosts live on for the next target.

A target on a host is one case.  `K=word` runs only targets whose name contains the word.  The lab is started when it
is down, and then taken down again; a lab that was up stays up.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gates.model import NotRun, Outcome
from tests.gates.tools import ask, run
from tests.gates.workshop import COLLECTION, ENVIRONMENTS, Workshop

HOSTS = ("inc70", "inc60")
HOST_PYTHON = "3.13"
CORE = "core-2.19"


def integration(shop: Workshop, log: Path) -> Outcome:
    """Every integration target passes on every host."""
    targets = chosen_targets(shop, os.environ.get("K", ""))
    if os.geteuid() != 0:
        raise NotRun("the lab needs root")
    lab = str(shop.checkout / "tests/lab/lab")
    was_up = "running" in ask([lab, "status"], env=os.environ, cwd=shop.checkout)
    try:
        if run([lab, "up", "--install"], log=log, env=os.environ, cwd=shop.checkout):
            return Outcome.of(["the lab does not start", *log.read_text("utf-8").splitlines()[-40:]])
        hosts = host_variables(shop, lab)
        outcome = Outcome()
        for target in targets:
            for host in HOSTS:
                outcome.add(_one(shop, log, lab, target, hosts[host]))
        return outcome
    finally:
        if not was_up:
            run([lab, "down"], log=log, env=os.environ, cwd=shop.checkout)


def chosen_targets(shop: Workshop, word: str) -> list[str]:
    """The names of the targets to run; raises NotRun when there are none."""
    folder = shop.checkout / "tests/integration/targets"
    names = sorted(path.name for path in folder.glob("*") if path.is_dir() and not path.name.startswith("setup_"))
    chosen = [name for name in names if word in name]
    if not chosen:
        raise NotRun(f"no target matches K={word}" if names else "there are no targets")
    return chosen


def host_variables(shop: Workshop, lab: str) -> dict[str, dict[str, Any]]:
    """Each host's variables from the lab's inventory, with those that targets are promised."""
    inventory = shop.own / "lab-inventory.yml"
    inventory.write_text(ask([lab, "inventory"], env=os.environ, cwd=shop.checkout), "utf-8")
    command = ["ansible-inventory", "--inventory", str(inventory), "--list"]
    listed = json.loads(ask(command, env=shop.surroundings(CORE), cwd=shop.own))["_meta"]["hostvars"]
    wheels = str(shop.wheels(shop.checkout / "tests/integration/requirements.txt", HOST_PYTHON))
    return {
        host: {
            **variables,
            "ansible_connection": "ssh",
            "lab_host": host,
            "lab_wheels": wheels,
        }
        for host, variables in listed.items()
    }


def _one(shop: Workshop, log: Path, lab: str, target: str, variables: Mapping[str, Any]) -> Outcome:
    """Run one target on one host."""
    place = shop.exported("integration") / COLLECTION
    # JSON is YAML.
    (place / "tests/integration/integration_config.yml").write_text(json.dumps(variables), "utf-8")
    own_log = log.with_name(f"integration-{target}-{variables['lab_host']}.log")
    own_log.write_bytes(b"")
    command = [lab, "controller", "ansible-test", "integration", "--local", "--python", ENVIRONMENTS[CORE]]
    command += ["--color", "no", "--allow-destructive", target]
    code = run(command, log=own_log, env=shop.surroundings(CORE), cwd=place)
    text = own_log.read_text("utf-8", "replace")
    with log.open("a", encoding="utf-8") as whole:
        whole.write(text)
    shown = [f"{target} on {variables['lab_host']}:", *text.splitlines()[-60:]]
    return Outcome.of(shown if code else [])
