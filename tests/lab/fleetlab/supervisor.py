# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets a signal end the lab's work in an orderly way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from fleetlab.commands import Commands

_GLANCE = 0.1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def supervised(commands: Commands, work: Callable[[], None]) -> int:
    """Do the work in a thread while the main thread listens for signals; return the exit code.

    A signal stops the running tools, so the work fails at its next step and cleans up there: nothing is ever broken
    off between two lines of Python.
    """
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # handed on below, whatever it is
            failure.append(error)

    for number in _SIGNALS:
        signal.signal(number, lambda received, _frame: commands.interrupt(received))
    thread = threading.Thread(target=run)
    thread.start()
    while thread.is_alive():
        # Not once and for all: a signal that another thread took is handled here, and only between two waits.
        thread.join(_GLANCE)
    if commands.interrupted:
        return 128 + commands.interrupted
    if failure:
        raise failure[0]
    return 0
