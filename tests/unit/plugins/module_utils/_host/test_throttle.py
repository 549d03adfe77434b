# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rate limit, by a clock that only moves when somebody sleeps or works."""

from __future__ import annotations

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._host.throttle import Throttle


class Clock:
    """Time that passes by sleeping; remembers the sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sleeps: list[float] = []

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.mark.parametrize("chunk", [1000, 4096, 1 << 20])
def test_average_is_the_rate_whatever_the_chunks(chunk: int) -> None:
    clock = Clock()
    throttle = Throttle(1 << 20, clock=clock.time, sleep=clock.sleep)
    for _unused in range(0, 10 << 20, chunk):
        throttle(chunk)
    assert clock.now - 100.0 == pytest.approx(10, rel=0.03)


def test_slow_source_is_not_slowed_further() -> None:
    clock = Clock()
    throttle = Throttle(1000, clock=clock.time, sleep=clock.sleep)
    for _unused in range(10):
        clock.now += 2.0
        throttle(250)
    assert clock.sleeps == []


def test_pause_earns_no_more_than_a_burst() -> None:
    clock = Clock()
    throttle = Throttle(1000, burst_seconds=0.5, clock=clock.time, sleep=clock.sleep)
    clock.now += 3600
    throttle(1500)
    assert clock.sleeps == [pytest.approx(1.0)]


@pytest.mark.parametrize("rate", [0, -1])
def test_rate_must_be_positive(rate: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        Throttle(rate)
