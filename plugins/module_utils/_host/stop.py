# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""A stop that reaches every worker: SIGTERM sets it, and whoever moves bytes looks at it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError, Interrupted


class Stop:
    """Why work is to end early, once somebody said so; shared by all threads of a module."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._reason: BackupError | None = None

    @property
    def requested(self) -> bool:
        """Whether work is to end."""
        return self._event.is_set()

    def request(self, reason: BackupError) -> None:
        """Ask everybody to end; the first reason stays."""
        if self._reason is None:  # set first: a second signal may come while the first one's handler is in here
            self._reason = reason
            self._event.set()

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until work is to end."""
        self._event.wait(seconds)

    def check(self) -> None:
        """Raise the reason where work is to end; called between two pieces of a stream."""
        if self._event.is_set() and self._reason is not None:
            raise Interrupted(f"the work was stopped: {self._reason.message}", hint=self._reason.hint)


@contextmanager
def stop_on_sigterm(stop: Stop) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP (the connection was cut) request the stop instead of killing us."""

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.request(
            Interrupted(
                f"received {signal.Signals(number).name}",
                hint="Run again: what is finished in the open set is kept",
            )
        )

    # What is ignored already (nohup) stays so.
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            # Who was told to stop still has to say what happened: being told again must not cut that short.
            signal.signal(number, signal.SIG_IGN if stop.requested else handler)
