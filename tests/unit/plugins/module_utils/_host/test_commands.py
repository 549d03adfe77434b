# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner of commands, with real commands."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.commands import Filter, run


def test_output_input_and_exit_code_are_returned() -> None:
    result = run(["sh", "-c", "cat; echo no >&2; exit 3"], timeout=60, stdin=b"hello", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (3, "hello", "no\n")


def test_tools_speak_c_and_users_variables_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("ZSTD_CLEVEL", "19")
    said = run(["sh", "-c", 'echo "$LC_ALL/$ZSTD_CLEVEL"'], timeout=60).stdout
    assert said == "C/\n"


def test_input_is_empty_unless_given() -> None:
    assert run(["cat"], timeout=60).stdout == ""


def test_failure_carries_the_tools_words() -> None:
    with pytest.raises(CommandFailed) as caught:
        run(["sh", "-c", "echo broken >&2; exit 7"], timeout=60)
    assert "exit code 7" in caught.value.message
    assert caught.value.server_said == "broken"


def test_missing_tool_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for nice in (0, 5):
        with pytest.raises(CommandFailed) as caught:
            run(["zstd"], timeout=60, nice=nice)
        assert "host_setup" in (caught.value.hint or "")


def test_too_slow_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"within 0\.2 seconds"):
        run(["sleep", "600"], timeout=0.2)
    assert time.monotonic() - began < 300


def test_nice_reaches_the_tool() -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert run(["nice"], timeout=60, nice=7).stdout == f"{min(mine + 7, 19)}\n"


def test_filter_is_dead_and_reaped_after_its_block() -> None:
    with Filter(["cat"]) as child:
        pid = child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_filter_keeps_only_the_end_of_what_the_tool_complained() -> None:
    with Filter(["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x >&2; echo END >&2; exit 1"]) as child:
        assert child.stdout.read() == b""
        with pytest.raises(CommandFailed) as caught:
            child.wait()
    assert (caught.value.server_said or "").endswith("xEND")
    assert len(caught.value.server_said or "") <= 4096
