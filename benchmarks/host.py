# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The host that benchmarks run on: a server of the lab, and the two ways to make it work, a shell and a module."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gates.workshop import Workshop

NAME = "bench70"
PLACE = "/opt/bench"
STORE = f"{PLACE}/store"
SITE = "bench"
_INSIDE = Path(__file__).parent / "inside"
_COST = f"{PLACE}/cost.json"
_WHEN = f"{PLACE}/memory"
# Stands in for the interpreter, so that what a module costs is measured around its whole process.
_PYTHON = f"""\
#!/bin/sh
case $1 in
  */AnsiballZ_incus_*)
    exec /usr/bin/python3 {PLACE}/measure.py $(cat {_WHEN} 2>/dev/null) {_COST} {PLACE}/venv/bin/python "$@" ;;
esac
exec {PLACE}/venv/bin/python "$@"
"""
# As measure.py does for the rivals.
_GO_FIRST = """
for process in $(pidof incusd); do
  renice -n -10 -p $(ls /proc/$process/task) >/dev/null
  if [ -e /proc/$process/autogroup ]; then echo -10 > /proc/$process/autogroup; fi
done
"""


@dataclass(frozen=True)
class Cost:
    """What something took. ``own_seconds`` is what a module says of itself, ``task_seconds`` the task around it."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int = 0
    own_seconds: float | None = None
    task_seconds: float | None = None


class BenchHost:
    """A host of the lab with a Python that has our modules' libraries."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._lab = shop.checkout / "tests/lab/lab"
        self._work = shop.own / "benchmarks"
        self._work.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Put the measuring script and a virtual environment on the host."""
        version = self.shell("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'")
        wheels = self._shop.wheels(self._shop.checkout / "tests/integration/requirements.txt", version)
        self.shell(f"mkdir -p {PLACE}/wheels {PLACE}/out")
        for path in sorted(_INSIDE.glob("*.py")):
            self.put(f"{PLACE}/{path.name}", path.read_bytes())
        for path in sorted(wheels.glob("*.whl")):
            self.put(f"{PLACE}/wheels/{path.name}", path.read_bytes())
        self.put(f"{PLACE}/python", _PYTHON.encode())
        self.shell(_GO_FIRST)
        self.shell(
            f"chmod +x {PLACE}/python && python3 -m venv {PLACE}/venv"
            f" && {PLACE}/venv/bin/pip install -q --no-index --find-links {PLACE}/wheels pylxd jmespath"
        )

    def put(self, path: str, content: bytes) -> None:
        """Write a file on the host."""
        self._exec(["sh", "-c", f"cat > {path}"], stdin=content)

    def shell(self, script: str) -> str:
        """Run a script of bash on the host; returns what it printed, and shows it when it fails."""
        return self._exec(["bash", "-ec", script])

    def measured(self, script: str) -> Cost:
        """Run a script of bash on the host and say what it took. What was written before is on the disk by then."""
        self.shell("sync")
        self._exec(["python3", f"{PLACE}/measure.py", _COST, "bash", "-o", "pipefail", "-ec", script])
        return Cost(**json.loads(self.shell(f"cat {_COST}")))

    def task(self, module: str, options: Mapping[str, object], *, memory: bool = False) -> tuple[dict[str, Any], Cost]:
        """Run one of our modules as a task; returns its result and what it took."""
        self.shell(f"sync; echo {'--memory' if memory else ''} > {_WHEN}")
        answer = self._work / "answer.json"
        answer.unlink(missing_ok=True)
        book = self._work / "book.json"
        book.write_text(json.dumps(_play(module, options, answer)), "utf-8")
        inventory = self._work / "inventory.yml"
        inventory.write_text(self._run([self._lab, "inventory"]), "utf-8")
        command = ["ansible-playbook", "-i", inventory, "--limit", NAME, book]
        self._run([self._lab, "controller", "env", *self._environment(), *command])
        said = json.loads(answer.read_text("utf-8"))
        result = said["result"]
        if result.get("failed"):
            sys.exit(f"{module} failed: {json.dumps(result, indent=1)}")
        measured = json.loads(self.shell(f"cat {_COST}"))
        cost = Cost(**measured, own_seconds=result.get("seconds"), task_seconds=said["ended"] - said["began"])
        return result, cost

    def versions(self) -> dict[str, str]:
        """Versions of what takes part, inside and outside the host."""
        inside = self.shell(
            "incus query /1.0 | python3 -c 'import json, sys; print(json.load(sys.stdin)"
            '["environment"]["server_version"])\'; python3 -V; zstd -V | head -1'
        ).splitlines()
        ansible = self._run([self._shop.environment("dev") / "ansible", "--version"]).splitlines()[0]
        git = ["git", "-c", f"safe.directory={self._shop.checkout}", "-C", self._shop.checkout]
        commit = self._run([*git, "describe", "--always", "--dirty"]).strip()
        return {"incus": inside[0], "python": inside[1], "zstd": inside[2], "ansible": ansible, "commit": commit}

    def _environment(self) -> list[str]:
        own = self._shop.surroundings("dev")
        settings = {
            "PATH": own["PATH"],
            "HOME": own["HOME"],
            "ANSIBLE_COLLECTIONS_PATH": str(self._shop.linked()),
            "ANSIBLE_PIPELINING": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return [f"{name}={value}" for name, value in settings.items()]

    def _exec(self, command: list[str], stdin: bytes = b"") -> str:
        return self._run([self._lab, "exec", NAME, *command], stdin)

    @staticmethod
    def _run(command: list[Any], stdin: bytes = b"") -> str:
        done = subprocess.run(command, check=False, capture_output=True, input=stdin)
        if done.returncode:
            words = " ".join(str(word) for word in command)
            sys.exit(f"{words} failed:\n{done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode()


def _play(module: str, options: Mapping[str, object], answer: Path) -> list[dict[str, Any]]:
    """A playbook with the module as its one task, that leaves the result and the time around it in ``answer``."""
    clock = "{{ now(utc=true).timestamp() }}"
    said = "{{ {'result': result, 'began': began | float, 'ended': ended | float} | to_json }}"
    return [
        {
            "hosts": NAME,
            "gather_facts": False,
            "vars": {"ansible_python_interpreter": f"{PLACE}/python"},
            "tasks": [
                {"ansible.builtin.set_fact": {"began": clock}},
                {f"incus_fleet.backup.{module}": dict(options), "register": "result", "ignore_errors": True},
                {"ansible.builtin.set_fact": {"ended": clock}},
                {
                    "ansible.builtin.copy": {"content": said, "dest": str(answer), "mode": "0600"},
                    "delegate_to": "localhost",
                    "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
                },
            ],
        }
    ]


@contextmanager
def bench_host(shop: Workshop, *, keep: bool) -> Iterator[BenchHost]:
    """A host for the benchmarks alone; it goes away with the block unless it is to be kept."""
    lab = shop.checkout / "tests/lab/lab"
    if subprocess.run([lab, "up", f"{NAME}=7.0"], check=False, stdout=sys.stderr).returncode:
        sys.exit("the lab did not come up")
    try:
        host = BenchHost(shop)
        host.prepare()
        yield host
    finally:
        if not keep:
            subprocess.run([lab, "down", NAME], check=False, stdout=sys.stderr)
