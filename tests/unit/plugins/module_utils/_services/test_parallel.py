# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    Interrupted,
    ServerUnreachable,
    StoreError,
    StoreFull,
    StreamBroken,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.progress import Progress
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.parallel import Outcome, for_each

PATIENCE = 20.0


@dataclass(frozen=True)
class Item:
    """A step that is about something."""

    name: str
    project: str = "default"


class Connection:
    """Stands for a client, which is only passed through: says which thread it was made for."""

    def __init__(self) -> None:
        self.made: list[Connection] = []

    def clone_for_thread(self) -> Connection:
        clone = Connection()
        self.made.append(clone)
        return clone


class Runner:
    """``for_each`` with real threads and a real progress file."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.stop = Stop()
        self.connection = Connection()

    def __call__(
        self, names: str, work: Callable[[Any, Item], Any], *, parallel: int = 1, **options: Any
    ) -> Outcome[Any]:
        steps = [Item(name) for name in names.split()]
        progress = Progress(self.state, "site1", {"total": len(steps)})
        client: Any = self.connection
        return for_each(client, steps, work, parallel=parallel, stop=self.stop, progress=progress, **options)


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_every_step_is_done_in_order(run: Runner) -> None:
    outcome = run("a b c", lambda _client, step: step.name.upper())
    assert (outcome.done, outcome.failures) == (["A", "B", "C"], [])


def test_nothing_to_do_is_fine(run: Runner) -> None:
    assert run("", lambda _client, step: step.name) == Outcome()


@pytest.mark.parametrize("parallel", [1, 3])
def test_one_that_fails_does_not_stop_the_others(run: Runner, parallel: int) -> None:
    def work(_client: Any, step: Item) -> str:
        if step.name == "bad":
            raise StreamBroken(
                "it ended early", operation="export instance", server="host1", server_said="EOF", hint="x"
            )
        return step.name

    outcome = run("a bad b c", work, parallel=parallel)
    assert sorted(outcome.done) == ["a", "b", "c"]
    (failure,) = outcome.failures
    assert (failure.project, failure.name, failure.error, failure.message) == (
        "default",
        "bad",
        "StreamBroken",
        "it ended early",
    )
    assert (failure.operation, failure.server, failure.entity, failure.server_said, failure.hint) == (
        "export instance",
        "host1",
        "default/bad",
        "EOF",
        "x",
    )


def test_as_many_as_wanted_work_at_a_time_with_a_client_each(run: Runner) -> None:
    together = threading.Barrier(3)
    clients: dict[int, set[int]] = {}

    def work(client: Connection, step: Item) -> None:
        together.wait(PATIENCE)  # three at a time, or nobody gets past here
        clients.setdefault(threading.get_ident(), set()).add(id(client))

    run("a b c d e f", work, parallel=3)
    assert len(run.connection.made) == 3
    assert [len(used) for used in clients.values()] == [1, 1, 1]
    assert len(set().union(*clients.values())) == 3


def test_no_more_than_wanted_work_at_a_time(run: Runner) -> None:
    lock, busy, most = threading.Lock(), 0, 0
    pause = threading.Event()

    def work(_client: Any, step: Item) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        pause.wait(0.01)
        with lock:
            busy -= 1

    run("a b c d e f g h", work, parallel=2)
    assert most == 2


def test_a_thread_that_gets_no_connection_fails_its_step_only(run: Runner) -> None:
    class Moody(Connection):
        tries = 0

        def clone_for_thread(self) -> Connection:
            self.tries += 1
            if self.tries == 1:
                raise ServerUnreachable("nothing listens there")
            return super().clone_for_thread()

    run.connection = Moody()
    outcome = run("a b", lambda _client, step: step.name)
    assert outcome.done == ["b"]
    assert [failure.error for failure in outcome.failures] == ["ServerUnreachable"]


def test_a_fatal_error_is_raised_itself_and_nothing_new_is_begun(run: Runner) -> None:
    begun = []

    def work(_client: Any, step: Item) -> None:
        begun.append(step.name)
        if step.name == "b":
            raise StoreFull("no space left", hint="Free space")

    with pytest.raises(StoreFull, match="no space left") as caught:
        run("a b c d", work, fatal=(StoreError,))
    assert begun == ["a", "b"]
    assert caught.value.hint == "Free space"


def test_a_fatal_error_is_raised_only_when_every_thread_has_come_to_rest(run: Runner) -> None:
    both, rested = threading.Barrier(2), []

    def work(_client: Any, step: Item) -> None:
        both.wait(PATIENCE)
        if step.name == "fatal":
            raise StoreFull("no space left")
        run.stop.wait(PATIENCE)
        rested.append(step.name)
        run.stop.check()

    with pytest.raises(StoreFull):
        run("fatal slow", work, parallel=2, fatal=(StoreError,))
    assert rested == ["slow"]


def test_an_error_is_fatal_only_where_it_was_said(run: Runner) -> None:
    def work(_client: Any, step: Item) -> None:
        raise StoreError("not readable")

    assert [failure.name for failure in run("a b", work).failures] == ["a", "b"]


def test_a_stop_ends_the_work_of_all(run: Runner) -> None:
    begun = []

    def work(_client: Any, step: Item) -> None:
        begun.append(step.name)
        run.stop.request(Interrupted("received SIGTERM"))
        run.stop.check()

    with pytest.raises(Interrupted, match="the work was stopped: received SIGTERM"):
        run("a b c", work)
    assert begun == ["a"]


def test_a_stop_that_comes_after_the_last_step_is_heard(run: Runner) -> None:
    with pytest.raises(Interrupted):
        run("a", lambda _client, _step: run.stop.request(Interrupted("received SIGTERM")))


def test_the_progress_counts_what_ended_well_or_badly_and_goes_with_the_work(run: Runner) -> None:
    shown = run.state / "progress/site1.json"
    seen = []

    def work(_client: Any, step: Item) -> None:
        seen.append(shown.read_text() if shown.exists() else "")
        if step.name == "b":
            raise StreamBroken("it ended early")

    run("a b c", work)
    assert '"done": 1' in seen[1]
    assert '"done": 2' in seen[2]
    assert not shown.exists()


def test_a_state_directory_that_cannot_be_used_stops_nobody(run: Runner, tmp_path: Path) -> None:
    run.state = tmp_path / "file"
    run.state.write_text("not a directory")
    assert run("a b", lambda _client, step: step.name).done == ["a", "b"]
