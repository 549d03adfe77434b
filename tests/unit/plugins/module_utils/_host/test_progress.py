# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._host import progress as module
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.progress import Progress
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import in_child

HEAD = {"run_id": "run-1", "total": 3}


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """Where the progress of ``site1`` is shown."""
    return tmp_path / "progress/site1.json"


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update is due."""
    monkeypatch.setattr(module, "_EVERY_SECONDS", 0.0)


@pytest.mark.usefixtures("_hasty")
def test_what_is_going_on_can_be_read_while_it_goes_on(tmp_path: Path, shown: Path) -> None:
    progress = Progress(tmp_path, "site1", HEAD)
    progress.update("default/web", 10)
    progress.update("default/db", 7)
    told = json.loads(shown.read_text())
    assert told.pop("updated_at").endswith("Z")
    assert told == {**HEAD, "pid": os.getpid(), "now": {"default/web": 10, "default/db": 7}}
    progress.done("default/web")
    assert json.loads(shown.read_text())["now"] == {"default/db": 7}
    assert json.loads(shown.read_text())["done"] == 1


def test_it_is_not_written_for_every_piece(tmp_path: Path, shown: Path) -> None:
    progress = Progress(tmp_path, "site1", HEAD)
    progress.update("default/web", 1)
    first = shown.read_text()
    progress.update("default/web", 2)
    assert shown.read_text() == first


@pytest.mark.usefixtures("_hasty")
def test_whoever_reads_never_sees_half_of_it(tmp_path: Path, shown: Path) -> None:
    progress = Progress(tmp_path, "site1", {**HEAD, "padding": "x" * 20000})
    progress.update("default/web", 0)
    over = threading.Event()

    def write() -> None:
        for size in range(300):
            progress.update("default/web", size)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    readings = 0
    while not over.is_set() or not readings:
        json.loads(shown.read_text())
        readings += 1
    writer.join()


@pytest.mark.usefixtures("_hasty")
def test_nothing_is_left_when_the_work_is_over(tmp_path: Path, shown: Path) -> None:
    progress = Progress(tmp_path, "site1", HEAD)
    progress.update("default/web", 1)
    (shown.parent / "site1.json.part").write_text("of a predecessor that was killed")
    progress.close()
    assert list(shown.parent.iterdir()) == []
    assert progress.problem is None


def test_names_with_dots_do_not_meet(tmp_path: Path) -> None:
    one, two = Progress(tmp_path, "web.example.net", HEAD), Progress(tmp_path, "web.example.com", HEAD)
    one.update("default/web", 1)
    two.update("default/web", 2)
    one.close()
    assert [path.name for path in (tmp_path / "progress").iterdir()] == ["web.example.com.json"]


@pytest.mark.usefixtures("_hasty")
def test_a_state_directory_that_cannot_be_used_is_told_once_and_stops_nobody(tmp_path: Path) -> None:
    # A file in the directory's place stops root too, whom no mode would stop.
    (tmp_path / "state").write_text("not a directory")
    progress = Progress(tmp_path / "state", "site1", HEAD)
    progress.update("default/web", 1)
    problem = progress.problem
    assert problem is not None
    assert "progress is not shown" in problem
    progress.update("default/web", 2)
    progress.done("default/web")
    progress.close()
    assert progress.problem == problem


def test_a_run_that_has_nothing_to_show_minds_no_state_directory(tmp_path: Path) -> None:
    progress = Progress(tmp_path / "absent", "site1", HEAD)
    progress.close()
    assert progress.problem is None
    assert not (tmp_path / "absent").exists()


def test_a_directory_of_somebody_else_is_a_problem_and_no_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    def as_a_user() -> None:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setuid(65534)
        progress = Progress(tmp_path, "site1", HEAD)
        progress.update("default/web", 1)
        progress.close()
        assert "progress is not shown" in (progress.problem or "")

    assert in_child(as_a_user) == 0
