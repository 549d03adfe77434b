# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import Interrupted, StoreFull
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop, stop_on_sigterm

# Works in small steps until it is stopped, and says how that went.
WORKER = """
import sys
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop, stop_on_sigterm
stop = Stop()
try:
    with stop_on_sigterm(stop):
        print("ready", flush=True)
        while True:
            stop.check()
            stop.wait(0.02)
except BackupError as error:
    print(error.kind, error.message, error.hint, sep="|", flush=True)
    sys.exit(3)
"""


def worker(hangups: str = "--default-signal=HUP") -> subprocess.Popen[str]:
    """The worker in a process of its own, past the point from which it takes signals.

    Whoever started us may ignore hang-ups (nohup does): ``hangups`` tells env(1) what the worker finds.
    """
    child = subprocess.Popen(
        ["env", hangups, sys.executable, "-c", WORKER],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_work_with_an_error_that_says_so(number: signal.Signals) -> None:
    with worker() as child:
        child.send_signal(number)
        told, _nothing = child.communicate(timeout=20)
    kind, message, hint = told.strip().split("|")
    assert (child.returncode, kind, message) == (3, "Interrupted", f"the work was stopped: received {number.name}")
    assert "Run again" in hint


def test_a_second_signal_does_not_kill_what_is_being_cleaned_up() -> None:
    with worker() as child:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGTERM):
            child.send_signal(number)
        told, _nothing = child.communicate(timeout=20)
    assert child.returncode == 3
    assert told.startswith("Interrupted|the work was stopped: received SIG")


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    with worker("--ignore-signal=HUP") as child:
        child.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(0.3)
        child.terminate()
        told, _nothing = child.communicate(timeout=20)
    assert "received SIGTERM" in told


def test_the_handlers_from_before_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    with stop_on_sigterm(Stop()):
        assert signal.getsignal(signal.SIGTERM) not in before
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


def test_nothing_is_raised_while_nobody_asks() -> None:
    stop = Stop()
    stop.check()
    assert not stop.requested


def test_the_first_reason_stays() -> None:
    stop = Stop()
    stop.request(StoreFull("no space left", hint="Free space"))
    stop.request(Interrupted("received SIGTERM"))
    with pytest.raises(Interrupted) as caught:
        stop.check()
    assert caught.value.message == "the work was stopped: no space left"
    assert caught.value.hint == "Free space"


def test_a_sleep_ends_when_the_work_is_to_end() -> None:
    stop = Stop()
    began = time.monotonic()
    threading.Timer(0.05, stop.request, [Interrupted("enough")]).start()
    stop.wait(60)
    assert time.monotonic() - began < 30
    assert stop.requested
