# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The collection on real servers: hosts of the lab, driven by ansible-playbook, looked at past the code under test.

The hosts are this suite's own.  Those that are up already stay up (and the next run starts sooner); the others go down
with the session.  ``ANSIBLE_COLLECTIONS_PATH`` names the collection to test, the checkout itself where it is not set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetkit.ansible import COLLECTION, VENV, Ansible
from fleetkit.fleet import VERSIONS, Fleet
from fleetkit.hosts import CHECKOUT, Host, lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "memory: moves gigabytes")


@pytest.fixture(scope="session")
def hosts() -> Iterator[dict[str, Host]]:
    """The hosts, prepared by the role host_setup."""
    before = lab("status")
    lab("up", "--install", *(f"{name}={version}" for name, version in VERSIONS.items()))
    yield {name: Host(name, version) for name, version in VERSIONS.items()}
    mine = [name for name in VERSIONS if f"{name} " not in before]
    if mine:
        lab("down", *mine)


@pytest.fixture(scope="session")
def collections() -> Iterator[str]:
    """The collections path whose incus_fleet.backup is tested."""
    given = os.environ.get("ANSIBLE_COLLECTIONS_PATH")
    if given:
        yield given
        return
    root = Path(tempfile.mkdtemp(prefix="fleet-"))
    link = root / "ansible_collections" / COLLECTION.replace(".", "/")
    link.parent.mkdir(parents=True)
    link.symlink_to(CHECKOUT)
    yield str(root)
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def ansible(hosts: dict[str, Host], collections: str) -> Iterator[Ansible]:
    """ansible-playbook, with hosts that can run our modules."""
    # Not pytest's own directory: the path of a control socket must be short.
    place = Path(tempfile.mkdtemp(prefix="fleet-"))
    inventory = place / "inventory.yml"
    inventory.write_text(lab("inventory"), "utf-8")
    tool = Ansible(inventory, collections, place)
    wheels = subprocess.run(
        [sys.executable, "-B", "-m", "tests.gates", "--wheels", "3.13"],
        cwd=CHECKOUT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    prepare = {
        "name": "host_setup",
        "ansible.builtin.import_role": {"name": f"{COLLECTION}.host_setup"},
        "vars": {"host_setup_wheels": wheels, "host_setup_venv": VENV},
    }
    running = tool.start(",".join(hosts), [prepare], variables={"ansible_python_interpreter": "/usr/bin/python3"})
    running.wait(300)
    assert running.process.returncode == 0, running.printed
    yield tool
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def fleet_on(ansible: Ansible, hosts: dict[str, Host]) -> Callable[[str], Fleet]:
    def make(name: str) -> Fleet:
        return Fleet(ansible, hosts[name])

    return make


@pytest.fixture(params=list(VERSIONS))
def both(request: pytest.FixtureRequest, fleet_on: Callable[[str], Fleet]) -> Iterator[Fleet]:
    """Either version in turn, clean before and after."""
    yield from _clean(fleet_on(request.param))


@pytest.fixture
def fleet(fleet_on: Callable[[str], Fleet]) -> Iterator[Fleet]:
    """The newer version, where the other would only do the same; clean before and after."""
    yield from _clean(fleet_on("f70"))


@pytest.fixture
def staging(fleet_on: Callable[[str], Fleet]) -> Iterator[Fleet]:
    """The version that stages backups on the server; clean before and after."""
    yield from _clean(fleet_on("f60"))


@pytest.fixture
def mended(hosts: dict[str, Host]) -> Iterator[None]:
    """The hosts' cables are in again afterwards, whatever happens."""
    yield
    for name in hosts:
        lab("mend", name)


def _clean(fleet: Fleet) -> Iterator[Fleet]:
    fleet.host.reset()
    yield fleet
    fleet.host.reset()
