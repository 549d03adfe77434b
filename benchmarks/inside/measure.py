# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside a host: runs a command and writes what it cost.

usage: measure.py [--memory] RESULT COMMAND [ARGUMENT ...]

RESULT becomes a JSON object: ``seconds`` on the wall, ``cpu_seconds`` of the command and all its children (what the
server does for them is not in it), and with ``--memory`` ``peak_bytes``: the most that the processes below this one
have held at a time, as the sum of their peak resident sizes, looked at a hundred times a second.  That is more than
they ever held together, never less.

The command runs in a session of its own that comes before the machine's other work, as the server does (see host.py):
what is compared are the rivals, not who of them met a busy machine.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path


def children(pid: int) -> list[int]:
    """All processes below ``pid``."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(word) for word in task.read_text("ascii").split()]
        except OSError:  # it has ended meanwhile
            continue
        for child in direct:
            found += [child, *children(child)]
    return found


def peak_size(pid: int) -> int:
    """A process's peak resident size in bytes; 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Watch(threading.Thread):
    """Looks at the memory of the processes below this one until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.01):
            self.peak = max(self.peak, sum(peak_size(pid) for pid in children(os.getpid())))

    def stop(self) -> int:
        """The peak in bytes."""
        self._over.set()
        self.join()
        return self.peak


def go_first() -> None:
    """Come before other work, ourselves and as a session (kernels weigh sessions against each other)."""
    if os.getpid() != os.getsid(0):
        os.setsid()
    os.setpriority(os.PRIO_PROCESS, 0, -10)
    weight = Path("/proc/self/autogroup")
    if weight.exists():
        weight.write_text("-10", "ascii")


def main(words: list[str]) -> int:
    """Run the command; its exit code is ours."""
    memory = words[0] == "--memory"
    result, *command = words[1:] if memory else words
    watch = Watch() if memory else None
    go_first()
    began = time.monotonic()
    if watch:
        watch.start()
    code = subprocess.run(command, check=False).returncode
    cost: dict[str, float] = {"seconds": time.monotonic() - began}
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost["cpu_seconds"] = used.ru_utime + used.ru_stime
    if watch:
        cost["peak_bytes"] = watch.stop()
    Path(result).write_text(json.dumps(cost) + "\n", "ascii")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
