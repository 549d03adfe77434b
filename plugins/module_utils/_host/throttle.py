# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Rate limit of a stream, so that a backup leaves disk and network to the guests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Throttle:
    """Lets ``rate`` bytes a second pass on average, with bursts of at most ``burst_seconds`` worth.

    Call it with each chunk's size before the chunk moves on: it sleeps as long as the rate demands.  One object may be
    shared by several threads, which then share the rate.  ``clock`` returns monotonic seconds, ``sleep`` takes
    seconds; both are handed in for tests and for callers whose sleep must end early.
    """

    def __init__(
        self,
        rate: int,
        *,
        burst_seconds: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if rate <= 0:
            raise ValueError("a rate limit is a positive number of bytes a second")
        self._rate = rate
        self._burst = burst_seconds
        self._clock = clock
        self._sleep = sleep
        self._paid_until = clock()  # the time at which all bytes that passed so far would have passed at the rate
        self._lock = threading.Lock()

    def __call__(self, size: int) -> None:
        """Account for ``size`` bytes and sleep until they may pass."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - self._burst) + size / self._rate
            wait = self._paid_until - now
        if wait > 0:
            self._sleep(wait)
