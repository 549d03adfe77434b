# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""From a service to a module's answer: libraries checked, errors turned into facts, results kept small."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop, stop_on_sigterm

RESULT_LIMIT = 64 * 1024
"""A module's answer in bytes: it passes through the controller's memory once for every host of the fleet."""


@dataclass(frozen=True)
class ModuleContext:
    """What a service needs of the world around it."""

    params: dict[str, Any]
    check_mode: bool
    workdir: Path
    stop: Stop
    warn: Callable[[str], None]


def run_module(module: AnsibleModule, work: Callable[[ModuleContext], dict[str, Any]]) -> None:
    """Do the module's work and answer; never returns.

    ``work`` returns the result; one with ``failures`` fails the task, after all the rest was done.  (Not ``failed``:
    that key is Ansible's own.)
    """
    _require_libraries(module)
    stop = Stop()
    context = ModuleContext(
        params=module.params,
        check_mode=module.check_mode,
        workdir=Path(module.tmpdir),
        stop=stop,
        warn=module.warn,
    )
    try:
        with stop_on_sigterm(stop):
            result = work(context)
    except BackupError as error:
        facts = error.facts()
        facts["msg"] = error.sentence()
        module.fail_json(**limited(facts))
    if result.get("failures"):
        module.fail_json(msg=_told(result), **limited(result))
    module.exit_json(**limited(result))


def limited(result: dict[str, Any]) -> dict[str, Any]:
    """The result, with its longest lists cut until it is small enough; ``truncated`` names what was cut."""
    text = json.dumps(result, default=str)
    if len(text) <= RESULT_LIMIT:
        return result
    small: dict[str, Any] = json.loads(text)
    cut: set[str] = set()
    while len(json.dumps(small)) > RESULT_LIMIT:
        lists = list(_lists(small))
        if not lists:
            break
        name, longest = max(lists, key=lambda item: len(json.dumps(item[1])))
        del longest[len(longest) // 2 :]
        cut.add(name)
    return {**small, "truncated": sorted(cut)}


def _lists(value: Any, name: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Every list of more than one item in a result, with the keys that lead to it (``sets.failures``)."""
    if isinstance(value, list):
        if len(value) > 1:
            yield name, value
        for item in value:
            yield from _lists(item, name)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _lists(item, f"{name}.{key}" if name else key)


def _told(result: dict[str, Any]) -> str:
    failures: list[dict[str, Any]] = result["failures"]
    names = ", ".join(f"{item['project']}/{item['name']} ({item['message']})" for item in failures[:10])
    more = f" and {len(failures) - 10} more" if len(failures) > 10 else ""
    return f"{len(failures)} failed, {result.get('succeeded', 0)} done. Failed: {names}{more}"


def _require_libraries(module: AnsibleModule) -> None:
    missing = [name for name in ("pylxd", "jmespath") if find_spec(name) is None]
    if missing:
        module.fail_json(
            msg=missing_required_lib(" and ".join(missing), reason="on the host where the module runs"),
            error="LibraryMissing",
            hint="Run the playbook incus_fleet.backup.host_setup, or point ansible_python_interpreter at its Python",
        )
