# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from datetime import datetime, timezone

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core import names
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError

MOMENT = datetime(2026, 11, 23, 14, 15, tzinfo=timezone.utc)


class TestSetNames:
    @pytest.mark.parametrize("kind", names.KINDS)
    def test_time_and_kind_are_read_back_from_a_new_name(self, kind: str) -> None:
        name = names.new_set_name(kind, MOMENT)
        assert re.fullmatch(rf"20261123T141500Z-{kind}-[0-9a-f]{{4}}", name)
        assert names.set_time(name) == MOMENT
        assert names.set_kind(name) == kind

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "web",
            "20261123T141500Z-partial-7f3a.incomplete",
            "20261123T141500Z-partial-7f3",
            "20261123T141500Z-partial-7F3A",
            "20261123T141500Z-other-7f3a",
            "20261323T141500Z-partial-7f3a",
            "20261123T251500Z-partial-7f3a",
            "20261123T141500Z-partial-7f3a\n",
            "x20261123T141500Z-partial-7f3a",
            "\u0662\u0660261123T141500Z-partial-7f3a",
        ],
    )
    def test_what_is_no_sets_name_has_neither_time_nor_kind(self, name: str) -> None:
        assert names.set_time(name) is None
        assert names.set_kind(name) is None

    def test_now_has_no_fractions_so_that_names_and_records_agree(self) -> None:
        assert names.now().microsecond == 0
        assert names.now().tzinfo is timezone.utc


class TestRunIds:
    def test_new_ones_differ_and_are_usable(self) -> None:
        made = {names.new_run_id(MOMENT) for _unused in range(50)}
        assert len(made) == 50
        assert {names.checked_run_id(run_id) for run_id in made} == made

    @pytest.mark.parametrize("text", ["", "-x", "a b", "a/b", "a_b", "x" * 48, "a\n", "a.b"])
    def test_what_cannot_be_in_a_backups_name_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="run_id"):
            names.checked_run_id(text)

    def test_a_temporary_object_tells_its_run(self) -> None:
        run_id = names.new_run_id(MOMENT)
        assert names.temporary_owner(names.temporary_name(run_id)) == run_id
        assert len(names.temporary_name("x" * 47)) <= 63

    @pytest.mark.parametrize(
        "name", ["backup0", "incus-fleet", "incus-fleet-", "incus-fleet-a/b", "my-incus-fleet-run"]
    )
    def test_somebody_elses_object_is_not_ours(self, name: str) -> None:
        assert names.temporary_owner(name) is None


class TestSites:
    @pytest.mark.parametrize("text", ["host1", "host1.example.org", "a_b-c.d", "1", "x" * 127])
    def test_a_hosts_name_is_a_site(self, text: str) -> None:
        assert names.checked_site(text) == text

    @pytest.mark.parametrize("text", ["", ".", "..", ".x", "a/b", "a b", "-a", "lost+found", "x" * 128, "a\n", "ä"])
    def test_what_is_no_plain_name_is_refused(self, text: str) -> None:
        assert not names.is_site(text)
        with pytest.raises(UsageError, match="site"):
            names.checked_site(text)


class TestFileNames:
    @pytest.mark.parametrize(
        ("name", "component"),
        [
            ("web", "web"),
            ("web-prod_1.2", "web-prod_1.2"),
            ("..", "%2E."),
            (".", "%2E"),
            (".hidden", "%2Ehidden"),
            ("../../etc/passwd", "%2E.%2F..%2Fetc%2Fpasswd"),
            ("a b", "a%20b"),
            ("a\0b\nc", "a%00b%0Ac"),
            ("100%", "100%25"),
            ("%2F", "%252F"),
            ("~root", "%7Eroot"),
            ("ä", "%C3%A4"),
        ],
    )
    def test_a_name_becomes_one_harmless_component_and_comes_back(self, name: str, component: str) -> None:
        assert names.file_name(name) == component
        assert names.original_name(component) == name

    @pytest.mark.parametrize("name", ["", "x" * 201, "ä" * 40, "\ud800"])
    def test_one_that_is_empty_too_long_or_no_unicode_is_refused(self, name: str) -> None:
        with pytest.raises(UsageError):
            names.file_name(name)
