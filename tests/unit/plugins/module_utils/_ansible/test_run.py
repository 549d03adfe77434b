# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible.run import RESULT_LIMIT, limited


def size(result: dict[str, Any]) -> int:
    return len(json.dumps(result))


def items(count: int) -> list[dict[str, Any]]:
    return [{"name": f"instance-{number}", "reason": "x" * 100} for number in range(count)]


def test_a_small_result_is_left_alone() -> None:
    result = {"changed": True, "plan": items(10), "failures": []}
    assert limited(result) is result


def test_the_longest_list_is_cut_first_and_named() -> None:
    result = {"changed": True, "plan": items(2000), "failures": items(20), "set": "s"}
    cut = limited(result)
    assert size(cut) <= RESULT_LIMIT + 100
    assert cut["truncated"] == ["plan"]
    assert cut["failures"] == result["failures"]
    assert 0 < len(cut["plan"]) < 2000
    assert cut["plan"] == result["plan"][: len(cut["plan"])]
    assert (cut["set"], cut["changed"]) == ("s", True)


@pytest.mark.parametrize(
    "key", ["plan", "artifacts", "restored", "recovery_points", "incomplete", "broken", "anything"]
)
def test_any_list_can_be_cut_and_keeps_its_beginning(key: str) -> None:
    cut = limited({key: items(5000)})
    assert size(cut) <= RESULT_LIMIT + 100
    assert cut["truncated"] == [key]
    assert cut[key][0] == items(1)[0]


def test_several_lists_are_cut_until_it_fits() -> None:
    cut = limited({"plan": items(1500), "artifacts": items(1500), "failures": items(1500)})
    assert size(cut) <= RESULT_LIMIT + 100
    assert cut["truncated"] == ["artifacts", "failures", "plan"]


def test_lists_within_a_result_are_cut_too() -> None:
    one = {"set": "s", "failures": items(2000)}
    cut = limited({"sets": [one], "newest": one})
    assert size(cut) <= RESULT_LIMIT + 100
    assert cut["truncated"] == ["newest.failures", "sets.failures"]
    assert cut["newest"]["set"] == "s"


def test_what_is_cut_is_a_copy() -> None:
    result = {"plan": items(2000)}
    limited(result)
    assert len(result["plan"]) == 2000


def test_a_result_that_cannot_be_cut_is_given_as_it_is() -> None:
    cut = limited({"msg": "x" * (RESULT_LIMIT * 2), "plan": items(1)})
    assert (cut["plan"], cut["truncated"]) == (items(1), [])
