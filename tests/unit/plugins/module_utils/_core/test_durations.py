# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import (
    NEVER,
    format_moment,
    is_never,
    parse_duration,
    parse_moment,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("90", 90),
        ("90s", 90),
        ("90m", 5400),
        ("36h", 129600),
        ("1d12h", 129600),
        ("2w", 1209600),
        (" 7D ", 604800),
        ("0d", 0),
    ],
)
def test_a_duration_is_seconds_or_numbers_with_units(text: str, seconds: int) -> None:
    assert parse_duration(text, "max_age") == seconds


@pytest.mark.parametrize(
    "text", ["", " ", "h", "-1", "-1d", "1.5h", "1y", "1d 12h", "d1", "1d12", "none", "∞", "٣h", "1e3", "0x10", "1h\n2"]
)
def test_anything_else_is_an_error_that_names_the_option(text: str) -> None:
    """An empty or misspelt age must never mean "always" or "at once"."""
    with pytest.raises(UsageError, match="max_age"):
        parse_duration(text, "max_age")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T14:15:00Z", datetime(2026, 11, 23, 14, 15, tzinfo=timezone.utc)),
        ("2026-11-23", datetime(2026, 11, 23, tzinfo=timezone.utc)),
        ("2026-11-23 14:15:00", datetime(2026, 11, 23, 14, 15, tzinfo=timezone.utc)),
        ("2026-11-23T14:15:00+02:00", datetime(2026, 11, 23, 12, 15, tzinfo=timezone.utc)),
        ("2026-11-23T14:15:00-0530", datetime(2026, 11, 23, 19, 45, tzinfo=timezone.utc)),
        ("2026-11-23T14:15:00.123456789Z", datetime(2026, 11, 23, 14, 15, 0, 123456, tzinfo=timezone.utc)),
        ("2026-11-23T14:15:00.5Z", datetime(2026, 11, 23, 14, 15, 0, 500000, tzinfo=timezone.utc)),
        (NEVER, datetime.min.replace(tzinfo=timezone.utc)),
        ("0001-01-01T00:00:00+14:00", datetime.min.replace(tzinfo=timezone.utc)),
    ],
)
def test_a_moment_is_what_go_and_people_write(text: str, moment: datetime) -> None:
    assert parse_moment(text) == moment


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "2026-13-01", "2026-02-30T00:00:00Z", "2026-11-23T25:00:00Z", "2026-11-23T14:15", "1700000000",
     "2026-11-23T14:15:00+99:99", "9999-12-31T23:59:59-23:00"],
)  # fmt: skip
def test_what_is_no_moment_is_an_error_that_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="before"):
        parse_moment(text, "before")


def test_a_moment_is_written_in_utc_with_whole_seconds() -> None:
    assert format_moment(parse_moment("2026-11-23T14:15:00.9+02:00")) == "2026-11-23T12:15:00Z"


def test_gos_zero_time_nothing_and_emptiness_mean_never() -> None:
    assert all(is_never(text) for text in (NEVER, "0001-01-01T00:00:00+00:00", "", None))
    assert not is_never("2026-11-23T14:15:00Z")
