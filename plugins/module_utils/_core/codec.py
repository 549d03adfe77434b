# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Dataclasses to JSON and back, strictly, and their JSON schema: one description of a format, three uses."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import SetInvalid

T = TypeVar("T")
_SCALARS: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def encode(value: Any) -> Any:
    """Plain JSON types for a dataclass (recursively)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    return value


def decode(cls: type[T], data: Any, where: str) -> T:
    """A ``cls`` from parsed JSON.

    Unknown keys are left alone (a later release may add some within a format), missing ones without a default and
    values of another type raise SetInvalid, which names the place as ``where.key``.
    """
    if not isinstance(data, dict):
        raise SetInvalid(f"{where}: expected an object, found {type(data).__name__}")
    hints = _hints(typing.cast(Hashable, cls))
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, cls)):
        if field.name in data:
            arguments[field.name] = _value(hints[field.name], data[field.name], f"{where}.{field.name}")
        elif _is_required(field):
            raise SetInvalid(f"{where}: the key {field.name!r} is missing")
    return cls(**arguments)


@functools.cache  # a lease is read again for every artifact, and resolving the names costs more than all the rest
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def schema(cls: type, identifier: str) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of ``cls``."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": identifier, **_object_schema(cls)}


def _object_schema(cls: type) -> dict[str, Any]:
    hints = _hints(cls)
    fields = dataclasses.fields(typing.cast(Any, cls))
    return {
        "title": cls.__name__,
        "description": (cls.__doc__ or "").strip().split("\n", maxsplit=1)[0],
        "type": "object",
        "properties": {field.name: _type_schema(hints[field.name]) for field in fields},
        "required": [field.name for field in fields if _is_required(field)],
    }


def _type_schema(hint: Any) -> dict[str, Any]:
    if hint in _SCALARS:
        return {"type": _SCALARS[hint]}
    if hint is Any:
        return {}
    if dataclasses.is_dataclass(hint):
        return _object_schema(typing.cast(type, hint))
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [{"type": "null"} if arm is types.NoneType else _type_schema(arm) for arm in arguments]}
    if origin is tuple:
        return {"type": "array", "items": _type_schema(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1])}
    raise TypeError(f"no JSON schema for {hint!r}")


def _value(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    if hint in _SCALARS:
        return _scalar(hint, value, where)
    if dataclasses.is_dataclass(hint):
        return decode(typing.cast(type, hint), value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        arms = [arm for arm in arguments if arm is not types.NoneType]
        return None if value is None else _value(arms[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise SetInvalid(f"{where}: expected a list, found {type(value).__name__}")
        return tuple(_value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise SetInvalid(f"{where}: expected an object, found {type(value).__name__}")
        return {key: _value(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    raise TypeError(f"no JSON decoding for {hint!r}")


def _scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise SetInvalid(f"{where}: expected {_SCALARS[hint]}, found {type(value).__name__}")
    return value
