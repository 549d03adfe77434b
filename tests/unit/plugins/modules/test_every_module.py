# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What holds for each module, whatever it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible import argspec
from ansible_collections.incus_fleet.backup.tests.unit.plugins.modules.running import Runner

NAMES = sorted(path.stem for path in (Path(argspec.__file__).parents[2] / "modules").glob("incus_*.py"))
ON_A_SERVER = [name for name in NAMES if name != "incus_backup_info"]
SECRET = "BEGIN-PRIVATE-KEY-Zm9vYmFy"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("library", ["pylxd", "jmespath"])
def test_a_host_without_the_libraries_is_told_what_to_do(run: Runner, name: str, library: str) -> None:
    hidden = run.home / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(f"import sys; sys.modules[{library!r}] = None")
    run.first_on_path = [str(hidden)]
    answer = run(name)
    assert (answer["failed"], answer["error"]) == (True, "LibraryMissing")
    assert f"({library})" in answer["msg"]
    assert "incus_fleet.backup.host_setup" in answer["hint"]


@pytest.mark.parametrize("name", ON_A_SERVER)
def test_the_key_is_nowhere_in_the_answer(run: Runner, name: str) -> None:
    run.store.mkdir()
    certificate = "-----BEGIN CERTIFICATE-----"
    answer = run(name, url="https://127.0.0.1:1", client_cert_content=certificate, client_key_content=SECRET)
    assert (answer["failed"], answer["operation"]) == (True, "connect")
    assert SECRET not in json.dumps(answer)
    # Ansible 2.19 and older repeat the options in the answer: what is no secret stays readable there.
    assert "invocation" not in answer or certificate in json.dumps(answer["invocation"])
    left = [path for path in run.home.rglob("*") if path.is_file() and SECRET in path.read_text("utf-8", "replace")]
    assert left == []


@pytest.mark.parametrize("name", ON_A_SERVER)
def test_a_path_and_its_content_are_not_taken_together(run: Runner, name: str) -> None:
    answer = run(name, client_key="/key.pem", client_key_content=SECRET)
    assert answer["failed"]
    assert "mutually exclusive" in answer["msg"]


@pytest.mark.parametrize("name", ON_A_SERVER)
def test_a_server_that_is_not_there_is_told_with_what_was_tried(run: Runner, name: str) -> None:
    answer = run(name, url=f"unix://{run.home}/absent.socket")
    assert (answer["failed"], answer["error"], answer["operation"]) == (True, "ServerUnreachable", "connect")
    assert str(run.home / "absent.socket") in answer["server"]
    assert answer["hint"]
    assert set(answer) >= {"error", "msg", "operation", "server", "entity", "server_said", "hint"}


@pytest.mark.parametrize("name", ON_A_SERVER)
def test_the_socket_is_looked_for_where_the_incus_command_does(run: Runner, name: str) -> None:
    answer = run(name, env={"INCUS_SOCKET": str(run.home / "absent.socket")})
    assert (answer["failed"], answer["error"]) == (True, "ServerUnreachable")
    assert "from INCUS_SOCKET" in answer["msg"]
