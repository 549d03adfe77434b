# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core import selection as module
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import NothingSelected, UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.selection import Selection, compile_query, select


@dataclass(frozen=True)
class Thing:
    project: str
    name: str
    raw: dict[str, Any] = field(default_factory=dict, hash=False)


WEB, WEB_PROD, DB, OTHER_WEB = (
    Thing("default", "web", {"name": "web", "status": "Running", "config": {"user.backup": "yes"}}),
    Thing("default", "web-prod", {"name": "web-prod", "status": "Running", "config": {}}),
    Thing("default", "db", {"name": "db", "status": "Stopped", "config": {}}),
    Thing("other", "web", {"name": "web", "status": "Stopped", "config": {}}),
)
ALL = [OTHER_WEB, WEB_PROD, WEB, DB]


def chosen(*things: Thing, **options: Any) -> list[Thing]:
    return select(things or ALL, Selection(**options))


def test_nothing_said_means_everything_in_a_fixed_order() -> None:
    assert chosen() == [DB, WEB, WEB_PROD, OTHER_WEB]


class TestNames:
    def test_web_is_not_web_prod(self) -> None:
        assert chosen(WEB, WEB_PROD, names=("web",)) == [WEB]

    def test_a_project_can_be_said(self) -> None:
        assert chosen(names=("other/web", "default/web")) == [WEB, OTHER_WEB]

    def test_one_said_twice_is_chosen_once(self) -> None:
        assert chosen(names=("db", "default/db", "db")) == [DB]

    def test_one_in_two_projects_is_ambiguous_and_both_are_named(self) -> None:
        with pytest.raises(UsageError, match="ambiguous: default/web, other/web") as caught:
            chosen(names=("web",))
        assert caught.value.hint == "Write project/name"

    @pytest.mark.parametrize("allow_empty", [False, True])
    def test_one_that_is_not_there_is_always_an_error_and_all_of_them_are_named(self, allow_empty: bool) -> None:
        with pytest.raises(NothingSelected, match="no instance is called gone, mail"):
            chosen(names=("db", "gone", "mail"), allow_empty=allow_empty)

    @pytest.mark.parametrize("name", ["w*", "we", "", "default/", "web/"])
    def test_it_is_no_pattern_and_no_beginning(self, name: str) -> None:
        with pytest.raises(NothingSelected):
            chosen(names=(name,), allow_empty=True)


class TestGlobs:
    def test_include_matches_names(self) -> None:
        assert chosen(include=("web*",)) == [WEB, WEB_PROD, OTHER_WEB]
        assert chosen(include=("web",)) == [WEB, OTHER_WEB]
        assert chosen(include=("w?b", "d[a-c]")) == [DB, WEB, OTHER_WEB]

    def test_one_with_a_slash_matches_project_and_name(self) -> None:
        assert chosen(include=("default/web*",)) == [WEB, WEB_PROD]
        assert chosen(include=("*/db",)) == [DB]

    def test_exclude_wins(self) -> None:
        assert chosen(include=("web*",), exclude=("*-prod", "other/*")) == [WEB]

    def test_case_matters(self) -> None:
        with pytest.raises(NothingSelected):
            chosen(include=("WEB",))


class TestQuery:
    def test_it_looks_at_each_object_by_itself(self) -> None:
        assert chosen(query="status == 'Running'") == [WEB, WEB_PROD]
        assert chosen(query='config."user.backup" == `"yes"`') == [WEB]

    def test_it_comes_after_the_globs(self) -> None:
        assert chosen(include=("web*",), query="status == 'Stopped'") == [OTHER_WEB]

    @pytest.mark.parametrize("query", ["a[?", "  ", "`", "length(", '"'])
    def test_one_that_does_not_parse_is_an_error_with_the_parsers_words(self, query: str) -> None:
        with pytest.raises(UsageError, match="not a JMESPath expression") as caught:
            compile_query(query)
        assert caught.value.server_said

    @pytest.mark.parametrize("query", ["length(absent)", "keys(@)[::0]", "max_by([{a: 'x'}, {a: `1`}], &a)"])
    def test_one_that_fails_on_an_object_names_it(self, query: str) -> None:
        with pytest.raises(UsageError, match="failed on 'db'"):
            chosen(DB, query=query)

    def test_without_jmespath_it_is_an_error_that_says_what_to_install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "HAS_JMESPATH", False)
        with pytest.raises(UsageError, match="jmespath"):
            chosen(query="name")
        assert chosen(DB) == [DB]


class TestEmpty:
    @pytest.mark.parametrize(
        "options", [{"include": ("x*",)}, {"exclude": ("*",)}, {"query": "absent"}, {"include": ("",)}]
    )
    def test_nothing_chosen_is_an_error_unless_allowed(self, options: dict[str, Any]) -> None:
        with pytest.raises(NothingSelected, match="matches no instance") as caught:
            chosen(**options)
        assert "4 instance(s) were there" in (caught.value.hint or "")
        assert chosen(**options, allow_empty=True) == []

    def test_so_is_an_empty_server(self) -> None:
        with pytest.raises(NothingSelected):
            select([], Selection())
        assert select([], Selection(allow_empty=True)) == []
