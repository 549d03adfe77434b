# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A set is worth something where nobody has ever heard of this collection: with incus, sh and sha256sum alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from fleetkit.fleet import Fleet
from fleetkit.guests import fill, look, make_guest
from fleetkit.hosts import Host, lab

STRANGER = "fnew"
EXPIRY = "2999-05-06T07:08:09Z"


@pytest.fixture(scope="module")
def stranger() -> Iterator[Host]:
    """A server that no test has touched and no module of ours has run on."""
    there = f"{STRANGER} " in lab("status")
    lab("up", f"{STRANGER}=7.0")
    yield Host(STRANGER, "7.0")
    if not there:
        lab("down", STRANGER)


@dataclass
class Carried:
    """A set on the stranger, and what its guest said of itself at home."""

    host: Host
    directory: str
    path: str
    contents: str
    before: dict[str, Any]


@pytest.fixture(params=["f70", "f60"])
def carried(request: pytest.FixtureRequest, fleet_on: Callable[[str], Fleet], stranger: Host) -> Iterator[Carried]:
    fleet = fleet_on(request.param)
    fleet.host.reset()
    stranger.reset()
    make_guest(fleet.host, "web", running=True)
    make_guest(fleet.host, "other")
    fill(fleet.host, "web")
    contents = look(fleet.host, "web")
    fleet.host.incus("snapshot", "create", "web", "one")
    body = f'{{"expires_at": "{EXPIRY}"}}'
    fleet.host.run("incus", "query", "--wait", "-X", "PUT", "-d", body, "/1.0/instances/web/snapshots/one")
    exported = fleet.export()
    packed = fleet.host.run("tar", "-c", "-C", fleet.store, exported["set_path"]).stdout
    stranger.run("tar", "-x", "-C", "/srv/fleet-test", stdin=packed)
    directory = f"/srv/fleet-test/{exported['set_path']}"
    path = fleet.artifact(exported, "web").replace(fleet.store, "/srv/fleet-test")
    yield Carried(stranger, directory, path, contents, fleet.host.instances())
    fleet.host.reset()
    stranger.reset()


def test_incus_import_takes_an_artifact_as_the_readme_says(carried):
    text = carried.host.sh(f"cat {carried.directory}/README.txt")
    assert "instance default/web: instances/default/web.tar.zst" in text
    assert "incus import --project PROJECT FILE" in text
    carried.host.incus("import", carried.path)
    carried.host.incus("start", "web")
    assert look(carried.host, "web") == carried.contents
    assert [item["name"] for item in carried.host.instances()["default/web"]["snapshots"]] == ["one"]


def test_the_sets_own_script_restores_what_is_there_not_yet_and_refuses_what_is_damaged(carried):
    host, script = carried.host, f"{carried.directory}/restore.sh"
    assert "python" not in host.sh(f"cat {script}")
    first = host.run("sh", script, "default/web", check=False)
    assert first.returncode == 0, first
    assert list(host.states()) == ["default/web"]
    web = host.instances()["default/web"]
    assert [(item["name"], item["expires_at"][:19]) for item in web["snapshots"]] == [("one", EXPIRY[:19])]
    assert web["status"] == "Stopped"
    host.incus("start", "web")
    assert look(host, "web") == carried.contents
    flip = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(99); b = f.read(1); f.seek(99); f.write(bytes([b[0] ^ 1]))"
    host.run("python3", "-c", flip, carried.path.replace("/web.", "/other."))
    rest = host.run("sh", script, check=False)
    assert rest.returncode != 0
    assert b"default/other: instances/default/other.tar.zst is damaged" in rest.stdout
    assert b"default/web: is there already, left alone" in rest.stdout
    assert list(host.states()) == ["default/web"]
    assert host.states()["default/web"] == "Running"
