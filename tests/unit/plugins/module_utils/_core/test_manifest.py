# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import decode, encode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact, Manifest, Owner
from ansible_collections.incus_fleet.backup.tests.gates.write_schemas import FORMATS, schemas
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    a_failure,
    a_manifest,
    an_artifact,
)

NAME = "20261123T141500Z-partial-7f3a"
OWNER = Owner(1, "site1", "host1", False, ("ab" * 32,), "2026-11-23T14:15:00Z", {"any": ["thing"]})
MANIFEST = replace(a_manifest(NAME, an_artifact("web")), failures=(a_failure("db"),), result="with_failures")


def fits(value: Any, rule: dict[str, Any]) -> bool:
    """Whether a value obeys a schema, as far as ours go."""
    if "anyOf" in rule:
        return any(fits(value, arm) for arm in rule["anyOf"])
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    if rule.get("type") == "null":
        return value is None
    if "type" in rule and (
        not isinstance(value, kinds[rule["type"]]) or (rule["type"] != "boolean" and isinstance(value, bool))
    ):
        return False
    if isinstance(value, list):
        return all(fits(item, rule.get("items", {})) for item in value)
    if isinstance(value, dict):
        known = rule.get("properties", {})
        other = rule.get("additionalProperties", {})
        return set(rule.get("required", [])) <= set(value) and all(
            fits(item, known.get(key, other)) for key, item in value.items()
        )
    return True


def test_the_documented_schemas_are_the_codes() -> None:
    """When this fails after a change of a format: ``python tests/gates/write_schemas.py``."""
    documented = {path.name: path.read_text(encoding="utf-8") for path in FORMATS.glob("*.schema.json")}
    assert documented == schemas()


@pytest.mark.parametrize("value", [MANIFEST, an_artifact("web"), OWNER], ids=["manifest", "record", "site"])
def test_what_is_written_is_read_back_the_same(value: Manifest | Artifact | Owner) -> None:
    assert decode(type(value), json.loads(json.dumps(encode(value))), "it") == value


@pytest.mark.parametrize(("name", "value"), [("manifest", MANIFEST), ("record", an_artifact("web")), ("site", OWNER)])
def test_what_is_written_obeys_its_schema_and_what_lacks_a_key_does_not(
    name: str, value: Manifest | Artifact | Owner
) -> None:
    rule = json.loads((FORMATS / f"{name}.schema.json").read_text(encoding="utf-8"))
    told = json.loads(json.dumps(encode(value)))
    assert fits(told, rule)
    for key in rule["required"]:
        assert not fits({other: item for other, item in told.items() if other != key}, rule)


def test_the_reserved_fields_are_there_from_the_first_release_on() -> None:
    """Incremental chains, measured restores and signatures must not need a new format."""
    told = encode(MANIFEST)
    assert told["signature"] is None
    assert {"base": None, "chain": [], "restore_seconds": None}.items() <= told["artifacts"][0].items()
