# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The options that many modules share, once, with the constraints that belong to them."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import parse_duration
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.selection import Selection
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.connection import Connection
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.site import SiteOptions

Spec = dict[str, dict[str, Any]]

CONNECTION: Spec = {
    "url": {"type": "str"},
    "client_cert": {"type": "path"},
    "client_cert_content": {"type": "str"},
    "client_key": {"type": "path"},
    "client_key_content": {"type": "str", "no_log": True},
    "server_cert": {"type": "path"},
    "server_cert_content": {"type": "str"},
    "project": {"type": "str"},
    "target": {"type": "str"},
    "connect_timeout": {"type": "int", "default": 30},
    "stall_timeout": {"type": "int", "default": 300},
    "operation_timeout": {"type": "int", "default": 86400},
}
CONNECTION_CONSTRAINTS: dict[str, Any] = {
    "mutually_exclusive": [
        ("client_cert", "client_cert_content"),
        ("client_key", "client_key_content"),
        ("server_cert", "server_cert_content"),
    ],
}
STORE: Spec = {
    "store": {"type": "path", "required": True},
    "site": {"type": "str"},
}
WRITE: Spec = {
    "set": {"type": "str"},
    "run_id": {"type": "str"},
    "store_create": {"type": "bool", "default": False},
    "adopt": {"type": "bool", "default": False},
    "resume_within": {"type": "str", "default": "24h"},
}
SELECTION: Spec = {
    "instances": {"type": "list", "elements": "str", "default": []},
    "include": {"type": "list", "elements": "str", "default": []},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "query": {"type": "str"},
    "allow_empty": {"type": "bool", "default": False},
}
STATE_DIRECTORY: Spec = {"state_directory": {"type": "path", "default": "/var/lib/incus-fleet"}}


def connection_of(params: dict[str, Any]) -> Connection:
    """The connection that the options describe; raises UsageError where they do not fit together."""
    return Connection(
        url=params["url"],
        client_cert=params["client_cert"],
        client_cert_content=params["client_cert_content"],
        client_key=params["client_key"],
        client_key_content=params["client_key_content"],
        server_cert=params["server_cert"],
        server_cert_content=params["server_cert_content"],
        connect_timeout=params["connect_timeout"],
        stall_timeout=params["stall_timeout"],
        operation_timeout=params["operation_timeout"],
    )


def site_options_of(params: dict[str, Any], *, check_mode: bool) -> SiteOptions:
    """Where, and under which conditions, a module that writes sets may do so; raises UsageError."""
    return SiteOptions(
        store=params["store"],
        site=params["site"],
        store_create=params["store_create"],
        adopt=params["adopt"],
        run_id=params["run_id"],
        resume_within=parse_duration(params["resume_within"], "resume_within"),
        set=params["set"],
        target=params["target"],
        check_mode=check_mode,
    )


def selection_of(params: dict[str, Any]) -> Selection:
    """The selection that the options describe."""
    return Selection(
        names=tuple(params["instances"]),
        include=tuple(params["include"]),
        exclude=tuple(params["exclude"]),
        query=params["query"],
        allow_empty=params["allow_empty"],
    )


def make_module(own: Spec, *groups: Spec, **constraints: Any) -> AnsibleModule:
    """An AnsibleModule (always with check mode) from a module's own options and the shared ones."""
    spec: Spec = {}
    for part in (*groups, own):
        spec.update(part)
    return AnsibleModule(argument_spec=spec, supports_check_mode=True, **constraints)
