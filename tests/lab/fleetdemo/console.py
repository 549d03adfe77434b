# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the demo talks: short lines for the reader, everything else into a log."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_PATIENCE = 90.0
_TAIL = 25
_LONGEST = 100


class DemoFailed(Exception):
    """Something did not come out as it should; carries a sentence."""


class Interrupted(Exception):
    """Somebody asked the demo to stop."""


class Console:
    """Prints the story and runs commands, whose output goes to the log unless it is asked for."""

    def __init__(self, log: Path) -> None:
        self.log = log
        log.write_bytes(b"")

    def say(self, line: str = "") -> None:
        """One line for the reader, and for the log."""
        print(line, flush=True)
        self._note(f"### {line}\n")

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Announce what is done now, and say afterwards how long it took."""
        print(f"{title} …", end="", flush=True)
        self._note(f"### {title}\n")
        began = time.monotonic()
        try:
            yield
        except BaseException:
            print(" failed", flush=True)
            raise
        print(f" {time.monotonic() - began:.1f} s", flush=True)

    def run(self, command: Sequence[str | Path], *, stdin: str = "") -> str:
        """Run a command; returns what it printed. Raises DemoFailed when it fails, with the end of what it said."""
        words = self._noted(command)
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        with _ended_politely(process):
            out, err = process.communicate(stdin)
        self._note(out + err)
        if process.returncode:
            raise DemoFailed(f"`{words}` ended with exit code {process.returncode}:\n{_gist(out + err)}")
        return out

    def follow(self, command: Sequence[str | Path]) -> None:
        """Run a command that says itself what it does to the machine, line by line. Raises DemoFailed."""
        words = self._noted(command)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        said = ""
        with _ended_politely(process):
            for line in process.stdout or ():
                said += line
                self.say(f"  {line.rstrip()}")
            process.wait()
        if process.returncode:
            raise DemoFailed(f"`{words}` ended with exit code {process.returncode}:\n{_gist(said)}")

    def _noted(self, command: Sequence[str | Path]) -> str:
        """Write a command into the log; returns its beginning, for messages."""
        words = " ".join(str(word) for word in command)
        self._note(f"$ {words}\n")
        return words if len(words) < _LONGEST else words[:_LONGEST] + " …"

    def _note(self, text: str) -> None:
        with self.log.open("a", encoding="utf-8") as sink:
            sink.write(text)


@contextmanager
def _ended_politely(process: subprocess.Popen[str]) -> Iterator[None]:
    """Should we be interrupted, ask the command to end, and wait: `lab up` tidies up after itself."""
    try:
        yield
    except BaseException:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise


def _gist(said: str) -> str:
    """What matters of a failed command's output: Ansible's complaints where there are any, else its end."""
    lines = said.splitlines()
    complaints = [line for line in lines if line.startswith(("fatal:", "failed:", "[ERROR]"))]
    return "\n".join(f"    {line}" for line in (complaints or lines)[-_TAIL:])


def interruptible() -> None:
    """Let every polite signal end the demo by way of its clean-up."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(signal.Signals(number).name)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


def undisturbed() -> None:
    """From here on nobody interrupts the clean-up, nor the commands that it starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdout.flush()
