# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Which entities of a server an option set means: explicit names, globs, a JMESPath query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Protocol, TypeVar

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import NothingSelected, UsageError

try:
    import jmespath
except ImportError:  # only a selection by query needs it
    HAS_JMESPATH = False
else:
    HAS_JMESPATH = True


class Named(Protocol):
    """What can be selected: something with a project, a name and the API's own object."""

    @property
    def project(self) -> str:
        """The project that holds it."""

    @property
    def name(self) -> str:
        """Its name within the project."""

    @property
    def raw(self) -> Mapping[str, Any]:
        """The object as the API (or the manifest) gives it: what ``query`` looks at."""


E = TypeVar("E", bound=Named)


@dataclass(frozen=True)
class Selection:
    """The selection options; ``names`` are ``name`` or ``project/name``, globs match either form."""

    names: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    query: str | None = None
    allow_empty: bool = False


def select(entities: Iterable[E], selection: Selection, *, what: str = "instance") -> list[E]:
    """The selected entities, ordered by project and name.

    Raises NothingSelected for an explicit name that is not there (always) and for an empty result (unless
    ``allow_empty``), UsageError for an ambiguous name or a query that does not parse.
    """
    pool = sorted(entities, key=lambda entity: (entity.project, entity.name))
    chosen = _by_name(pool, selection.names, what) if selection.names else pool
    if selection.include:
        chosen = [entity for entity in chosen if _matches(entity, selection.include)]
    chosen = [entity for entity in chosen if not _matches(entity, selection.exclude)]
    if selection.query:
        predicate = compile_query(selection.query)
        chosen = [entity for entity in chosen if predicate(entity.raw)]
    if not chosen and not selection.allow_empty:
        raise NothingSelected(
            f"the selection matches no {what}",
            hint=f"{len(pool)} {what}(s) were there to choose from; set allow_empty if none is fine",
        )
    return chosen


def compile_query(query: str) -> Callable[[Mapping[str, Any]], bool]:
    """A predicate from a JMESPath expression that is evaluated on one object at a time; truthy means selected."""
    if not HAS_JMESPATH:
        raise UsageError("a selection by query needs jmespath", hint="Install it there with the role host_setup")
    try:
        expression = jmespath.compile(query)
    except ValueError as error:  # what jmespath's own errors are
        raise UsageError(f"query {query!r} is not a JMESPath expression", server_said=str(error)) from error

    def predicate(raw: Mapping[str, Any]) -> bool:
        try:
            return bool(expression.search(raw))
        except (TypeError, ValueError) as error:  # jmespath lets some of Python's own through
            raise UsageError(f"query {query!r} failed on {raw.get('name')!r}", server_said=str(error)) from error

    return predicate


def _by_name(pool: Sequence[E], names: Sequence[str], what: str) -> list[E]:
    chosen: dict[tuple[str, str], E] = {}
    missing = []
    for name in dict.fromkeys(names):
        found = [entity for entity in pool if name in (entity.name, f"{entity.project}/{entity.name}")]
        if not found:
            missing.append(name)
        if len(found) > 1:
            places = ", ".join(f"{entity.project}/{entity.name}" for entity in found)
            raise UsageError(f"the name {name!r} is ambiguous: {places}", hint="Write project/name")
        chosen.update({(entity.project, entity.name): entity for entity in found})
    if missing:
        raise NothingSelected(f"no {what} is called {', '.join(missing)}", hint="Check the names and the project")
    return [entity for entity in pool if (entity.project, entity.name) in chosen]


def _matches(entity: Named, globs: Iterable[str]) -> bool:
    full = f"{entity.project}/{entity.name}"
    return any(fnmatchcase(full if "/" in glob else entity.name, glob) for glob in globs)
