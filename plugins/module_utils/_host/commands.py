# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The one way to run tools on the host: no shell, LC_ALL=C, niced, with the tool's words in errors."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from types import TracebackType
from typing import IO

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import CommandFailed

_STDERR_TAIL = 4096
_GRACE = 30.0  # seconds for a tool to end after its input has ended and its output is read
# Variables by which a user's profile would change what the tools do.
_DISTURBING = ("LANGUAGE", "GZIP", "ZSTD_CLEVEL", "ZSTD_NBTHREADS")


def environment() -> dict[str, str]:
    """The environment that tools run in: ours, in the C locale, without what would change their behaviour."""
    kept = {name: value for name, value in os.environ.items() if name not in _DISTURBING}
    return {**kept, "LC_ALL": "C"}


def resolve(argv: Sequence[str], *, nice: int = 0) -> list[str]:
    """The command line with the tool's full path, prefixed by ``nice`` where asked for.

    Raises CommandFailed where the tool is missing.  ``nice -n`` in front, rather than ``os.setpriority()`` on the
    child: on Linux that call changes one thread, and zstd may have started its others by then; and rather than a
    ``preexec_fn``, which can deadlock in a process with threads.
    """
    path = environment().get("PATH", os.defpath)
    found = []
    for tool in (["nice"] if nice else []) + [argv[0]]:
        place = shutil.which(tool, path=path)
        if place is None:
            raise CommandFailed(
                f"The command {tool} is not installed",
                operation=f"run {tool}",
                hint=f"Run the host_setup role on this host, or install {tool}",
            )
        found.append(place)
    prefix = [found[0], "-n", str(nice)] if nice else []
    return [*prefix, found[-1], *argv[1:]]


def failure(tool: str, returncode: int, stderr: str) -> CommandFailed:
    """The error for a command that ended badly; a negative code is the signal that ended it, as in subprocess."""
    how = f"was killed by signal {-returncode}" if returncode < 0 else f"failed with exit code {returncode}"
    return CommandFailed(f"The command {tool} {how}", operation=f"run {tool}", server_said=stderr or None)


class Filter:
    """A tool that is running between two pipes: ``stdin`` takes bytes, ``stdout`` gives them.

    Use it in a ``with``: whatever happens in there, afterwards the pipes are closed and the child is dead and reaped.
    It stays in our process group (a session of its own would have a scheduling group of its own, in which ``nice``
    means nothing to the rest of the host); should we be killed, its input ends and so does it.
    Raises CommandFailed where the tool is missing.
    """

    def __init__(self, argv: Sequence[str], *, nice: int = 0) -> None:
        self.tool = argv[0]
        command = resolve(argv, nice=nice)
        # A pipe for the tool's complaints would need a reader of its own; they are few and fit in memory.
        self._stderr = os.memfd_create(f"stderr of {self.tool}")
        try:
            # AnsibleModule.run_command waits for the end and holds the output, and stays above this layer.
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function  # a stream needs both pipes
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=environment(),
                bufsize=0,
            )
        except OSError as error:
            os.close(self._stderr)
            raise CommandFailed(f"The command {self.tool} could not be started: {error}") from error
        self.stdin: IO[bytes] = _present(self._process.stdin)
        self.stdout: IO[bytes] = _present(self._process.stdout)

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How the child ended, negative for a signal; None before ``wait()``."""
        return self._process.returncode

    def kill(self) -> None:
        """End the child at once; may be called from any thread, also when it is dead already."""
        self._process.kill()

    def wait(self) -> None:
        """Wait for the child's end, its input being closed and its output read.  Raises CommandFailed if it failed."""
        try:
            returncode = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"The command {self.tool} does not end", operation=f"run {self.tool}") from error
        if returncode:
            raise failure(self.tool, returncode, self.complaints())

    def complaints(self) -> str:
        """The end of what the tool has written to its standard error."""
        size = os.fstat(self._stderr).st_size
        return _tail(os.pread(self._stderr, _STDERR_TAIL, max(0, size - _STDERR_TAIL)))

    def __enter__(self) -> Filter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()
        self._process.wait()
        self.stdin.close()
        self.stdout.close()
        os.close(self._stderr)


def _present(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise CommandFailed("A pipe to a command is missing")
    return pipe


def _tail(stderr: bytes) -> str:
    return stderr[-_STDERR_TAIL:].decode("utf-8", "replace").strip()
