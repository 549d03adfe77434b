# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The `lab` command's words, and running tools so that they can be stopped."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from fleetlab.cli import _parse, main
from fleetlab.commands import Commands
from fleetlab.errors import LabError, Stopped, Unusable
from fleetlab.host import unified_cgroup
from fleetlab.requirements import has_btrfs


def test_names_and_options_may_be_mixed():
    assert _parse("up", ["a=7.0", "--install", "b"]) == (["a=7.0", "b"], {"--install"})


@pytest.mark.parametrize(
    ("command", "words"),
    [("up", ["--lost"]), ("kill", []), ("kill", ["a", "b"]), ("status", ["a"]), ("unheard-of", [])],
)
def test_words_that_do_not_fit_the_command_are_refused(command, words):
    with pytest.raises(Unusable):
        _parse(command, words)


def test_a_mistake_is_told_in_a_sentence_and_by_exit_code_2(capsys):
    assert main(["unheard-of"]) == 2
    assert "lab: no command 'unheard-of'" in capsys.readouterr().err


def test_a_failing_tool_is_named_with_its_last_words():
    with pytest.raises(LabError, match=r"exit code 3:\nwhat went wrong"):
        Commands().run(["sh", "-c", "echo what went wrong; exit 3"])


def test_a_missing_tool_is_named():
    with pytest.raises(LabError, match="`no-such-tool` is not installed"):
        Commands().run(["no-such-tool"])


def test_a_log_collects_what_a_tool_prints(tmp_path):
    log = tmp_path / "log"
    assert Commands().run(["echo", "words"], log=log) == ""
    assert log.read_text() == "words\n"


def test_a_signal_ends_running_tools_with_their_children_and_starts_no_others():
    commands = Commands()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            commands.run(["sh", "-c", "sleep 60; true"])
        except LabError as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    deadline = time.monotonic() + 10
    while not commands.running and time.monotonic() < deadline:
        time.sleep(0.01)
    commands.interrupt(signal.SIGTERM)
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert failures
    assert commands.interrupted == signal.SIGTERM
    with pytest.raises(Stopped):
        commands.run(["true"])


def test_cleaning_up_runs_tools_again_and_is_not_interrupted_twice():
    commands = Commands()
    commands.interrupt(signal.SIGINT)
    commands.resume()
    commands.interrupt(signal.SIGTERM)
    assert commands.run(["echo", "tidy"]) == "tidy\n"
    assert commands.interrupted == signal.SIGINT


def test_one_failure_stops_the_others_at_once():
    commands = Commands()

    def work(script: str) -> None:
        commands.run(["sh", "-c", script])

    started = time.monotonic()
    with pytest.raises(LabError, match="first"):
        commands.in_parallel(work, ["sleep 60", "echo first; exit 1"])
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "/sys/fs/cgroup"),
        (
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\nc /sys/fs/cgroup/unified cgroup2 rw 0 0\n",
            "/sys/fs/cgroup/unified",
        ),
        ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n", None),
    ],
)
def test_the_unified_hierarchy_is_found_beside_the_old_ones_or_alone(tmp_path, mounts, expected):
    listing = tmp_path / "mounts"
    listing.write_text(mounts)
    found = unified_cgroup(listing)
    assert (str(found) if found else None) == expected


def test_btrfs_is_looked_for_in_the_kernels_list(tmp_path):
    listing = tmp_path / "filesystems"
    listing.write_text("nodev\tproc\n\text4\n\tbtrfs\n")
    assert has_btrfs(listing)
    listing.write_text("nodev\tproc\n\text4\n")
    assert not has_btrfs(listing)
