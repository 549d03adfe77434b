# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the machine's tools, and can stop all of them at once when the lab is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TypeVar

from fleetlab.enter import HOST_PATH
from fleetlab.errors import LabError, Stopped

_LAST_LINES = 20
Item = TypeVar("Item")


class Commands:
    """Starts tools, each in a process group of its own, so that a Ctrl-C meant for the lab reaches them by our hand."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self.interrupted: int | None = None

    @property
    def running(self) -> int:
        """How many tools run at this moment."""
        return len(self._running)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: bytes | None = None,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> str:
        """Run a tool to its end and return what it printed ("" when it prints to ``log``).

        LabError names the tool, its exit code and its last words, unless ``check`` is off.
        """
        code, output = self.run_code(argv, stdin=stdin, log=log, env=env)
        if code != 0 and check:
            words = " ".join(str(word) for word in argv)
            last = "\n".join(output.splitlines()[-_LAST_LINES:])
            raise LabError(f"`{words}` failed with exit code {code}:\n{last}")
        return "" if log else output

    def run_code(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: bytes | None = None,
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> tuple[int, str]:
        """Run a tool to its end; return its exit code and its output (with ``log``: the log's text)."""
        environment = {**os.environ, "LC_ALL": "C", "PATH": HOST_PATH, **(env or {})}
        with ExitStack() as stack:
            sink = stack.enter_context(open(log, "ab")) if log else None
            process = self._start(argv, stdin is not None, sink, environment)
            try:
                output, _unused = process.communicate(stdin)
            finally:
                with self._lock:
                    self._running.discard(process)
        text = log.read_text(errors="replace") if log else output.decode(errors="replace")
        return process.returncode, text

    def _start(
        self, argv: Sequence[str | Path], feed: bool, sink: IO[bytes] | None, environment: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        try:
            with self._lock:
                self.check()
                process = subprocess.Popen(
                    [str(word) for word in argv],
                    stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                    stdout=sink or subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
                self._running.add(process)
                return process
        except FileNotFoundError as error:
            raise LabError(f"`{argv[0]}` is not installed") from error

    def interrupt(self, signal_number: int) -> None:
        """Stop everything because a signal asks for it; only the first counts, cleaning up is not interrupted again.

        Called from a signal handler, hence by the main thread: work that uses the commands is done by other threads.
        """
        if self.interrupted is None:
            self.interrupted = signal_number
            self.stop()

    def stop(self) -> None:
        """Kill whatever runs, and refuse to start more until ``resume``."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue

    def resume(self) -> None:
        """Allow tools again: cleaning up needs them."""
        with self._lock:
            self._stopped = False

    def check(self) -> None:
        """Raise Stopped when everything is to stop; for loops that wait without running a tool."""
        if self._stopped:
            raise Stopped("the lab is being stopped")

    def in_parallel(self, work: Callable[[Item], None], items: Iterable[Item]) -> None:
        """Do the same for all items at once; the first failure stops the others and is raised."""
        todo = list(items)
        if not todo:
            return
        with ThreadPoolExecutor(max_workers=len(todo)) as executor:
            futures = [executor.submit(work, item) for item in todo]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.stop()
                raise
