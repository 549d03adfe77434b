# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner of commands, with real commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import CommandFailed
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.commands import Filter


def output_of(argv: list[str], *, nice: int = 0) -> str:
    with Filter(argv, nice=nice) as tool:
        tool.stdin.close()
        said = tool.stdout.read()
        tool.wait()
    return said.decode()


def test_tools_speak_c_and_users_variables_do_not_disturb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("ZSTD_CLEVEL", "19")
    assert output_of(["sh", "-c", 'echo "$LC_ALL/$ZSTD_CLEVEL"']) == "C/\n"


def test_missing_tool_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for nice in (0, 5):
        with pytest.raises(CommandFailed) as caught:
            output_of(["zstd"], nice=nice)
        assert "host_setup" in (caught.value.hint or "")


def test_nice_reaches_the_tool() -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert output_of(["nice"], nice=7) == f"{min(mine + 7, 19)}\n"


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
