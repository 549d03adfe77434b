# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.argspec import (
    CONNECTION,
    SELECTION,
    STORE,
    WRITE,
    connection_of,
    selection_of,
    site_options_of,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError


def defaults(*groups: Any, **given: Any) -> dict[str, Any]:
    """The parameters of a module that was given these."""
    return {**{name: told.get("default") for group in groups for name, told in group.items()}, **given}


def test_every_option_of_the_connection_arrives() -> None:
    given = {
        "url": "https://host1:8443",
        "client_cert": "/c",
        "client_key": "/k",
        "server_cert": "/s",
        "connect_timeout": 1,
        "stall_timeout": 2,
        "operation_timeout": 3,
    }
    made = connection_of(defaults(CONNECTION, **given))
    assert {name: getattr(made, name) for name in given} == given


def test_contents_arrive_and_stay_out_of_what_is_printed() -> None:
    contents = {name: f"PEM of {name}" for name in ("client_cert_content", "client_key_content", "server_cert_content")}
    made = connection_of(defaults(CONNECTION, url="https://host1:8443", **contents))
    assert {name: getattr(made, name) for name in contents} == contents
    assert "PEM of" not in repr(made)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"connect_timeout": 0}, "connect_timeout must be more than 0"),
        ({"url": "http://host1:8443"}, "http"),
        ({"url": "https://host1:8443"}, "needs a client certificate"),
        ({"client_cert": "/c"}, "needs its key"),
    ],
)
def test_a_connection_that_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        connection_of(defaults(CONNECTION, **given))


def test_every_option_about_the_set_arrives() -> None:
    given = {"store": "/s", "site": "site1", "set": "x", "run_id": "r", "store_create": True, "adopt": True}
    made = site_options_of(
        defaults(CONNECTION, STORE, WRITE, target="node1", resume_within="1d12h", **given), check_mode=True
    )
    assert {name: getattr(made, name) for name in given} == given
    assert (made.resume_within, made.target, made.check_mode) == (129600, "node1", True)


def test_without_a_word_nothing_is_created_adopted_or_old() -> None:
    made = site_options_of(defaults(CONNECTION, STORE, WRITE, store="/s"), check_mode=False)
    assert (made.store_create, made.adopt, made.resume_within, made.run_id, made.set) == (
        False,
        False,
        86400,
        None,
        None,
    )


def test_every_option_of_the_selection_arrives() -> None:
    given = {"instances": ["a"], "include": ["b*"], "exclude": ["c*"], "query": "name=='d'", "allow_empty": True}
    made = selection_of(defaults(SELECTION, **given))
    assert (made.names, made.include, made.exclude, made.query, made.allow_empty) == (
        ("a",),
        ("b*",),
        ("c*",),
        "name=='d'",
        True,
    )
