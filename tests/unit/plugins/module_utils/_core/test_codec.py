# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import decode, encode, schema
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import SetInvalid


@dataclass(frozen=True)
class Inner:
    """An inner thing."""

    count: int
    label: str | None = None


@dataclass(frozen=True)
class Outer:
    """An outer thing.

    With more to say.
    """

    name: str
    ratio: float
    good: bool
    inner: Inner
    maybe: Inner | None
    many: tuple[Inner, ...]
    words: dict[str, str]
    free: dict[str, Any] = field(default_factory=dict)


WHOLE = Outer(
    name="ü\n\"'",
    ratio=1.5,
    good=True,
    inner=Inner(1),
    maybe=None,
    many=(Inner(2, "two"), Inner(3)),
    words={"a": "b"},
    free={"x": [1, None, {"y": True}]},
)


def told(value: Any) -> Any:
    return json.loads(json.dumps(encode(value)))


@pytest.mark.parametrize("value", [WHOLE, Outer("", 0.0, False, Inner(0), Inner(-1, ""), (), {})])
def test_what_is_written_is_read_back_the_same(value: Outer) -> None:
    assert decode(Outer, told(value), "it") == value


def test_unknown_keys_are_left_alone_everywhere() -> None:
    data = told(WHOLE)
    data["later"] = data["inner"]["later"] = data["many"][0]["later"] = {"more": 1}
    assert decode(Outer, data, "it") == WHOLE


def test_a_key_with_a_default_may_be_missing_and_no_other() -> None:
    data = told(WHOLE)
    del data["free"], data["inner"]["label"]
    assert decode(Outer, data, "it").free == {}
    for key in ("name", "inner", "maybe", "many", "words"):
        cut = {name: value for name, value in data.items() if name != key}
        with pytest.raises(SetInvalid, match=f"it: the key '{key}' is missing"):
            decode(Outer, cut, "it")


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("name", 1, "it.name: expected string, found int"),
        ("name", None, "it.name: expected string, found NoneType"),
        ("ratio", "1.5", "it.ratio: expected number, found str"),
        ("ratio", True, "it.ratio: expected number, found bool"),
        ("good", 1, "it.good: expected boolean, found int"),
        ("inner", [], "it.inner: expected an object, found list"),
        ("inner", {"count": 1.0}, "it.inner.count: expected integer, found float"),
        ("inner", {"count": True}, "it.inner.count: expected integer, found bool"),
        ("maybe", {"count": "1"}, "it.maybe.count: expected integer"),
        ("many", {}, "it.many: expected a list, found dict"),
        ("many", "text", "it.many: expected a list, found str"),
        ("many", [{"count": 1}, {"count": None}], r"it.many\[1\].count: expected integer"),
        ("words", [], "it.words: expected an object, found list"),
        ("words", {"a": 1}, "it.words.a: expected string"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(key: str, value: Any, where: str) -> None:
    with pytest.raises(SetInvalid, match=where):
        decode(Outer, {**told(WHOLE), key: value}, "it")


@pytest.mark.parametrize("data", [None, [], "x", 1, True])
def test_what_is_no_object_is_refused(data: Any) -> None:
    with pytest.raises(SetInvalid, match="it: expected an object"):
        decode(Outer, data, "it")


def test_a_whole_number_passes_for_a_number() -> None:
    assert decode(Outer, {**told(WHOLE), "ratio": 2}, "it").ratio == 2.0


def test_the_schema_says_what_decode_demands() -> None:
    inner = {
        "title": "Inner",
        "description": "An inner thing.",
        "type": "object",
        "properties": {"count": {"type": "integer"}, "label": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        "required": ["count"],
    }
    assert schema(Outer, "urn:it") == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:it",
        "title": "Outer",
        "description": "An outer thing.",
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "ratio": {"type": "number"},
            "good": {"type": "boolean"},
            "inner": inner,
            "maybe": {"anyOf": [inner, {"type": "null"}]},
            "many": {"type": "array", "items": inner},
            "words": {"type": "object", "additionalProperties": {"type": "string"}},
            "free": {"type": "object", "additionalProperties": {}},
        },
        "required": ["name", "ratio", "good", "inner", "maybe", "many", "words"],
    }


def test_a_type_that_json_has_not_is_the_programmers_error() -> None:
    @dataclass(frozen=True)
    class Strange:
        """Holds what no format can."""

        data: bytes

    Strange.__annotations__["data"] = bytes
    with pytest.raises(TypeError):
        schema(Strange, "urn:it")
    with pytest.raises(TypeError):
        decode(Strange, {"data": ""}, "it")
