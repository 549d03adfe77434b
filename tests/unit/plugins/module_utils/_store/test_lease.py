# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    LeaseHeld,
    StoreError,
    StreamBroken,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store import lease as module
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import MARKER, DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import (
    IDLE_AFTER,
    LEASE,
    SILENT_AFTER,
    Holder,
    Lease,
    LeaseRecord,
    live_lease,
    process_start,
    read_lease,
    this_process,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    in_child,
    killed_before_step,
)

ELSEWHERE = Holder(host="other", world="another-boot:1", pid=1, started="1")


def plant(store: DirectoryStore, holder: Holder | None, age: float = 0.0) -> None:
    """Put a lease of the run "old" there, whose last heartbeat is ``age`` seconds ago."""
    record = LeaseRecord("old", "token", "2026-11-23T14:15:00Z", "host", holder, "20261123T141500Z-partial-7f3a")
    store.make_directory("site", exclusive=False)
    store.replace(f"site/{LEASE}", json.dumps(asdict(record)).encode())
    grow_old(store, age)


def grow_old(store: DirectoryStore, age: float) -> None:
    moment = time.time() - age
    os.utime(store.root / "site" / LEASE, (moment, moment))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def hold_in_child(store: DirectoryStore, run_id: str = "old") -> int:
    """A process that holds the lease until it is killed; its number."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        with Lease.acquire(store, "site", run_id):
            os.write(write, b"held")
            signal.pause()
    os.close(write)
    assert os.read(read, 4) == b"held"
    os.close(read)
    return pid


class TestAliveOrDead:
    def test_a_live_process_on_this_host_keeps_the_lease_however_silent(self, store: DirectoryStore) -> None:
        pid = hold_in_child(store)
        try:
            grow_old(store, 10 * IDLE_AFTER)
            with pytest.raises(LeaseHeld, match=f"process {pid} is alive") as caught:
                Lease.acquire(store, "site", "new")
            assert caught.value.operation == "take the lease"
            assert caught.value.server == store.location
            assert "run again" in (caught.value.hint or "")
            assert live_lease(store, "site") == read_lease(store, "site")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def test_a_killed_process_loses_it_at_once(self, store: DirectoryStore) -> None:
        pid = hold_in_child(store)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert live_lease(store, "site") is None
        with Lease.acquire(store, "site", "new") as lease:
            assert lease.replaced is not None
            assert lease.replaced.run_id == "old"

    def test_a_zombie_is_dead(self, store: DirectoryStore) -> None:
        pid = hold_in_child(store)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        try:
            Lease.acquire(store, "site", "new")
        finally:
            os.waitpid(pid, 0)

    def test_another_process_of_the_same_number_does_not_keep_it_alive(self, store: DirectoryStore) -> None:
        me = this_process()
        plant(store, replace(me, started=str(int(me.started) - 1)))
        Lease.acquire(store, "site", "new")

    def test_another_hosts_lease_counts_by_its_heartbeat(self, store: DirectoryStore) -> None:
        plant(store, ELSEWHERE, age=SILENT_AFTER / 2)
        with pytest.raises(LeaseHeld, match="last sign of life from other"):
            Lease.acquire(store, "site", "new")
        grow_old(store, SILENT_AFTER + 1)
        Lease.acquire(store, "site", "new")

    def test_the_same_number_on_another_host_is_not_looked_up_here(self, store: DirectoryStore) -> None:
        plant(store, replace(this_process(), world="another-boot:1"), age=SILENT_AFTER + 1)
        Lease.acquire(store, "site", "new")

    def test_a_run_between_its_modules_keeps_it_for_a_while(self, store: DirectoryStore) -> None:
        plant(store, None, age=IDLE_AFTER / 2)
        with pytest.raises(LeaseHeld, match="between two of its steps") as caught:
            Lease.acquire(store, "site", "new")
        assert caught.value.entity == "20261123T141500Z-partial-7f3a"
        grow_old(store, IDLE_AFTER + 1)
        Lease.acquire(store, "site", "new")

    def test_the_runs_own_next_module_takes_it_at_once_with_the_set(self, store: DirectoryStore) -> None:
        with Lease.acquire(store, "site", "run") as first:
            first.note_set("20261123T141500Z-partial-7f3a")
            first.hand_on()
        with Lease.acquire(store, "site", "run") as second:
            assert second.record.set == "20261123T141500Z-partial-7f3a"

    def test_a_second_module_of_a_run_at_the_same_time_is_refused(self, store: DirectoryStore) -> None:
        with Lease.acquire(store, "site", "run"), pytest.raises(LeaseHeld):
            Lease.acquire(store, "site", "run")

    def test_after_a_kill_the_same_run_goes_on_with_its_set(self, store: DirectoryStore) -> None:
        def work() -> None:
            with Lease.acquire(store, "site", "run") as lease:
                lease.note_set("20261123T141500Z-partial-7f3a")
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(work) == -signal.SIGKILL
        assert Lease.acquire(store, "site", "run").record.set == "20261123T141500Z-partial-7f3a"

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": 99}', b"[" * 60000, b"\xff\xfe"])
    def test_one_that_cannot_be_read_counts_while_it_is_young(self, store: DirectoryStore, content: bytes) -> None:
        """It may be a later release's, whose run is alive."""
        store.make_directory("site", exclusive=True)
        store.replace(f"site/{LEASE}", content)
        with pytest.raises(LeaseHeld, match="cannot be read"):
            Lease.acquire(store, "site", "new")
        grow_old(store, IDLE_AFTER + 1)
        Lease.acquire(store, "site", "new")


def test_of_many_that_want_a_dead_runs_lease_at_once_exactly_one_gets_it(store: DirectoryStore) -> None:
    for _turn in range(10):
        plant(store, ELSEWHERE, age=SILENT_AFTER + 1)
        start_read, start = os.pipe()
        told_read, told = os.pipe()
        end_read, end = os.pipe()
        children = []
        for number in range(4):
            pid = os.fork()
            if pid == 0:
                os.close(start)
                os.close(end)
                os.read(start_read, 1)
                try:
                    Lease.acquire(store, "site", f"run{number}")
                except LeaseHeld:
                    os.write(told, b"-")
                except BaseException:
                    os.write(told, b"!")
                else:
                    os.write(told, b"+")
                os.read(end_read, 1)  # stay alive until all have tried
                os._exit(0)
            children.append(pid)
        os.close(start)
        answers = b""
        while len(answers) < 4:
            answers += os.read(told_read, 4)
        os.close(end)
        for pid in children:
            os.waitpid(pid, 0)
        for handle in (start_read, told_read, told, end_read):
            os.close(handle)
        assert sorted(answers) == sorted(b"+---")


class TestHeld:
    def test_it_is_gone_after_the_block_also_after_an_error(self, store: DirectoryStore) -> None:
        with Lease.acquire(store, "site", "run"):
            assert store.exists(f"site/{LEASE}")
        assert not store.exists(f"site/{LEASE}")
        with pytest.raises(StreamBroken), Lease.acquire(store, "site", "run"):
            raise StreamBroken("cut")
        assert not store.exists(f"site/{LEASE}")

    def test_after_a_takeover_the_old_holder_is_stopped_and_spoils_nothing(self, store: DirectoryStore) -> None:
        with Lease.acquire(store, "site", "slow") as old:
            plant(store, ELSEWHERE, age=SILENT_AFTER + 1)  # as another host sees one that is silent for too long
            with Lease.acquire(store, "site", "new") as new:
                with pytest.raises(LeaseHeld, match="taken over"):
                    old.check()
                with pytest.raises(LeaseHeld):
                    old.note_set("20261123T141500Z-partial-7f3a")
                old.hand_on()
                old.__exit__(None, None, None)
                new.check()
                assert read_lease(store, "site") == new.record

    def test_it_beats_while_held(self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
        with Lease.acquire(store, "site", "run"):
            grow_old(store, 1000)
            until(lambda: (store.age(f"site/{LEASE}") or 0) < 500)

    def test_a_heart_does_not_beat_for_somebody_elses_lease(
        self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
        with Lease.acquire(store, "site", "slow") as old:
            plant(store, ELSEWHERE, age=1000)
            assert old._beat is not None
            old._beat.join(10)
            assert not old._beat.is_alive()
            assert (store.age(f"site/{LEASE}") or 0) > 500

    def test_a_store_that_vanishes_does_not_hide_the_first_error(self, store: DirectoryStore, tmp_path: Path) -> None:
        def work() -> None:
            with Lease.acquire(store, "site", "run"):
                store.root.rename(tmp_path / "away")
                raise StreamBroken("the first cause")

        with pytest.raises(StreamBroken):
            work()

    def test_a_store_that_vanishes_is_told_where_nothing_else_went_wrong(
        self, store: DirectoryStore, tmp_path: Path
    ) -> None:
        with pytest.raises(StoreError), Lease.acquire(store, "site", "run"):
            store.root.rename(tmp_path / "away")

    def test_killed_at_any_step_it_can_be_taken_again_and_no_piece_stays(self, store: DirectoryStore) -> None:
        def work() -> None:
            with Lease.acquire(store, "site", "run") as lease:
                lease.note_set("20261123T141500Z-partial-7f3a")
                lease.hand_on()

        step = 1
        while killed_before_step(step, store.root, work):
            with Lease.acquire(store, "site", "run"):
                assert [name for name in store.names("site") if name.endswith(".part")] == []
            step += 1
        assert step > 8
        assert [name for name in store.names("") if name != "site"] == [MARKER]


def test_a_process_is_told_by_when_it_started() -> None:
    assert process_start(os.getpid()) == this_process().started
    assert this_process().started.isdigit()
    assert process_start(2**22 + 1) is None
