# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The other topology: a backup host pulls from servers over HTTPS, with a client certificate and a pinned one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fleetkit.ansible import Result
from fleetkit.fleet import Fleet
from fleetkit.guests import fill, look, make_guest
from fleetkit.hosts import STORES

KEYS = f"{STORES}/keys"
HTTPS_PORT = 8443


@dataclass
class Pull:
    """A backup host with its keys, and the server that it pulls from."""

    fleet: Fleet  # the backup host: the modules run there
    server: Fleet
    url: str

    def keys(self, **others: str) -> dict[str, str]:
        """The connection's options, as paths on the backup host."""
        known = {
            "client_cert": f"{KEYS}/client.crt",
            "client_key": f"{KEYS}/client.key",
            "server_cert": f"{KEYS}/server.crt",
        }
        return {"url": self.url, **known, **others}

    def contents(self) -> dict[str, str]:
        """The same as text."""
        told = self.keys()
        return {"url": self.url} | {
            f"{key}_content": self.fleet.host.sh(f"cat {path}") for key, path in told.items() if key != "url"
        }

    def run(self, module: str, **options: str) -> Result:
        creating = {"store_create": True} if module == "incus_export" else {}
        return self.fleet.run(module, **creating, **options)


def make_pair(fleet: Fleet, name: str) -> None:
    fleet.host.sh(
        f"mkdir -p {KEYS} && cd {KEYS} && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
        f"-days 2 -subj /CN={name} -keyout {name}.key -out {name}.crt 2>/dev/null"
    )


@pytest.fixture(params=[("f60", "f70"), ("f70", "f60")], ids=["from-7.0", "from-6.0"])
def pull(request: pytest.FixtureRequest, fleet_on: Callable[[str], Fleet], ansible) -> Iterator[Pull]:
    here, there = (fleet_on(name) for name in request.param)
    for fleet in (here, there):
        fleet.host.reset()
    make_pair(here, "client")
    there.host.write("/root/client.crt", here.host.sh(f"cat {KEYS}/client.crt"))
    there.host.run("incus", "config", "trust", "add-certificate", "/root/client.crt", "--name", "fleet-test")
    here.host.write(f"{KEYS}/server.crt", there.host.sh("cat /var/lib/incus/server.crt"))
    address = there.host.api("/1.0")["environment"]["addresses"][0].rpartition(":")[0]
    yield Pull(here, there, f"https://{address}:{HTTPS_PORT}")
    there.host.sh(
        "incus config trust list -fcsv -cnf | grep ^fleet-test, | cut -d, -f2 | xargs -r -n1 incus config trust remove"
    )
    for fleet in (here, there):
        fleet.host.reset()


def test_a_backup_host_pulls_and_pushes_back(pull):
    make_guest(pull.server.host, "web", running=True)
    fill(pull.server.host, "web")
    contents = look(pull.server.host, "web")
    exported = pull.run("incus_export", **pull.keys())
    assert exported.ok, exported
    head = pull.fleet.manifest(exported)["set"]
    assert head["off_host"] is True
    assert head["server"]["name"] == pull.server.host.name
    assert not any("same device" in words for words in exported.words)
    assert pull.server.nothing_left()
    pull.server.host.incus("delete", "--force", "web")
    imported = pull.run("incus_import", **pull.contents())
    assert imported.ok, imported
    assert pull.server.host.states() == {"default/web": "Running"}
    assert look(pull.server.host, "web") == contents
    assert pull.fleet.host.states() == {}


def test_keys_given_as_text_stay_out_of_what_is_printed_and_off_the_disk(pull):
    make_guest(pull.server.host, "web")
    secret = pull.contents()["client_key_content"].splitlines()[1]
    running = pull.fleet.start(pull.fleet.task("incus_export", store_create=True, **pull.contents()))
    exported = running.one()
    assert exported.ok, exported
    assert secret not in running.printed
    assert secret not in Path(running.results).read_text("utf-8")
    assert not pull.fleet.host.succeeds(
        f"grep -rqF '{secret}' /root/.ansible /tmp /var/lib/incus-fleet {pull.fleet.store}"
    )


def test_a_server_with_another_certificate_than_the_pinned_one_is_refused(pull):
    make_pair(pull.fleet, "wrong")
    refused = pull.run("incus_export", **pull.keys(server_cert=f"{KEYS}/wrong.crt"))
    assert (refused.ok, refused["error"], refused["operation"]) == (False, "ServerUnreachable", "connect"), refused
    assert "pinned" in refused["msg"]
    assert pull.url.removeprefix("https://") in refused["server"]
    assert "server_cert" in refused["hint"]
    assert not pull.fleet.host.succeeds(f"test -e {pull.fleet.store}")


def test_a_certificate_that_the_server_does_not_trust_is_told_as_such(pull):
    make_pair(pull.fleet, "unknown")
    keys = pull.keys(client_cert=f"{KEYS}/unknown.crt", client_key=f"{KEYS}/unknown.key")
    refused = pull.run("incus_export", **keys)
    assert (refused.ok, refused["error"], refused["operation"]) == (False, "PermissionDenied", "connect"), refused
    assert "trust" in f"{refused['msg']} {refused['hint']}"
    assert not pull.fleet.host.succeeds(f"test -e {pull.fleet.store}")
