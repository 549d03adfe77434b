# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import encode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    LeaseHeld,
    SetInvalid,
    StoreError,
    StoreFull,
    StreamBroken,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    COMPLETE,
    WITH_FAILURES,
    Artifact,
    Manifest,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import TIME_FORMAT, now
from ansible_collections.incus_fleet.backup.plugins.module_utils._store import sets as module
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX, Store
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import Filter, published_sets
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import LEASE, SILENT_AFTER, Lease
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import OWNER
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import (
    FAILURES,
    HEAD,
    MANIFEST,
    SetWriter,
    drop_dead_sets,
    incomplete_sets,
    join_set,
    open_set,
    read_head,
    runs_of_open_sets,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    NEW,
    SERVER,
    FailingStore,
    a_failure,
    a_set,
    an_artifact,
    in_child,
    killed_before_step,
    needs_root,
    put,
)

DAY = 86400


def left_behind(store: Store, *names: str, directory: str = "site1", **changes: object) -> str:
    """A set with these artifacts, whose run is over without having published it; its name."""
    with a_set(store, directory, **changes) as writer:  # type: ignore[arg-type]
        for name in names:
            put(writer, an_artifact(name))
        return writer.head.name


def paths(writer: SetWriter) -> list[str]:
    return [artifact.path for artifact in writer.artifacts()]


def fingerprint(root: Path) -> dict[str, tuple[str, int]]:
    """Every file below a directory, with its content's hash and its time of change."""
    return {
        str(path.relative_to(root)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


def the_only_set(store: Store) -> Manifest:
    sets, broken = published_sets(store, "site1", Filter())
    assert broken == []
    (found,) = sets
    return found.manifest


class TestOpening:
    def test_a_set_is_named_by_time_kind_and_chance_and_is_not_published_yet(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            assert re.fullmatch(r"\d{8}T\d{6}Z-partial-[0-9a-f]{4}", writer.head.name)
            assert store.names("site1") == [".lock", writer.head.name + INCOMPLETE_SUFFIX, LEASE, OWNER]
            assert writer.is_empty()

    def test_a_name_is_never_given_twice(self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        names = iter(["20261123T141500Z-partial-0001"] * 2 + ["20261123T141500Z-partial-0002"] * 2)
        monkeypatch.setattr(module, "new_set_name", lambda _kind, _moment: next(names))
        first = left_behind(store, "web")
        second = left_behind(store, "web")
        assert (first, second) == ("20261123T141500Z-partial-0001", "20261123T141500Z-partial-0002")

    def test_a_published_sets_name_is_not_given_again(
        self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        names = iter(["20261123T141500Z-partial-0001"] * 2 + ["20261123T141500Z-partial-0002"])
        monkeypatch.setattr(module, "new_set_name", lambda _kind, _moment: next(names))
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            writer.publish()
        with a_set(store) as writer:
            assert writer.head.name.endswith("0002")

    def test_it_gives_up_where_every_name_is_taken(
        self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "new_set_name", lambda _kind, _moment: "20261123T141500Z-partial-0001")
        left_behind(store, "web")
        with pytest.raises(StoreError, match="no free set name"), a_set(store):
            pass

    def test_one_that_was_killed_at_any_step_hinders_nobody(self, store: DirectoryStore) -> None:
        def work() -> None:
            with a_set(store):
                pass

        step = 1
        while killed_before_step(step, store.root, work):
            with a_set(store, run_id="run-2", resume_within=DAY) as writer:
                put(writer, an_artifact("web"))
                writer.publish()
            store.delete_tree("site1")
            step += 1
        assert step > 10

    @needs_root
    def test_on_a_full_disk_no_empty_sets_gather(self, small: Path) -> None:
        store = DirectoryStore.attach(str(small), create=True)
        with Lease.acquire(store, "site1", "run-1") as lease:
            (small / "filler").write_bytes(b"x" * ((store.free_bytes() or 0) - 4096))
            (small / "filler2").write_bytes(b"x" * (store.free_bytes() or 0))
            for _turn in range(3):
                with pytest.raises(StoreFull):
                    open_set(store, "site1", lease, NEW, resume_within=DAY, usable=lambda _head: True)
            assert incomplete_sets(store, "site1") == []


class TestResuming:
    def test_what_is_finished_is_kept_and_the_runs_are_named(self, store: DirectoryStore) -> None:
        name = left_behind(store, "db", "web")
        with a_set(store, resume_within=DAY, run_id="run-2") as writer:
            assert writer.head.name == name
            assert paths(writer) == ["instances/default/db.tar.zst", "instances/default/web.tar.zst"]
            assert (writer.head.run_id, writer.head.resumed_from) == ("run-2", ("run-1",))
        assert runs_of_open_sets(store, "site1") == {"run-1", "run-2"}

    def test_pieces_unrecorded_files_and_those_of_another_size_are_dropped(self, store: DirectoryStore) -> None:
        name = left_behind(store, "good", "short", "gone", "garbled", "moved")
        base = store.root / "site1" / (name + INCOMPLETE_SUFFIX)
        project = base / "instances" / "default"
        (project / "short.tar.zst").write_bytes(b"byte")
        (project / "gone.tar.zst").unlink()
        (project / "garbled.tar.zst.json").write_text('{"kind": ')
        moved = json.loads((project / "moved.tar.zst.json").read_text())
        (project / "moved.tar.zst.json").write_text(json.dumps({**moved, "path": "instances/default/good.tar.zst"}))
        (project / "cut.tar.zst.part").write_bytes(b"piece")
        (project / "unrecorded.tar.zst").write_bytes(b"whole, perhaps")
        (base / MANIFEST).write_text("a publication that did not come to its end")
        with a_set(store, resume_within=DAY) as writer:
            assert paths(writer) == ["instances/default/good.tar.zst"]
            assert store.files(writer.base) == [
                "instances/default/good.tar.zst",
                "instances/default/good.tar.zst.json",
                HEAD,
            ]

    @pytest.mark.parametrize("path", ["../../../precious", "/precious", "../20261123T141500Z-partial-0001/manifest"])
    def test_a_tampered_record_makes_nothing_be_deleted_elsewhere(self, store: DirectoryStore, path: str) -> None:
        name = left_behind(store, "web")
        base = store.root / "site1" / (name + INCOMPLETE_SUFFIX)
        (store.root / "precious").write_text("precious")
        (store.root / "precious.json").write_text("precious")
        record = base / "instances" / "default" / "web.tar.zst.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "path": path, "stored_bytes": 8}))
        with a_set(store, resume_within=DAY) as writer:
            assert writer.is_empty()
        assert (store.root / "precious").read_text() == "precious"
        assert (store.root / "precious.json").read_text() == "precious"

    def test_a_tampered_record_is_not_published(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            record = store.root / writer.base / "instances" / "default" / "web.tar.zst.json"
            record.write_text(json.dumps({**json.loads(record.read_text()), "path": "../../../../etc/shadow"}))
            with pytest.raises(SetInvalid, match="record of another file"):
                writer.publish()

    @pytest.mark.parametrize(("age", "again"), [(60, True), (DAY - 60, True), (DAY + 60, False), (30 * DAY, False)])
    def test_only_within_the_time_allowed(
        self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, age: int, again: bool
    ) -> None:
        opened = time.strftime(TIME_FORMAT, time.gmtime(now().timestamp() - age))
        with monkeypatch.context() as patch:
            patch.setattr(module, "new_set_name", lambda _kind, _moment: f"{opened}-partial-0001")
            left_behind(store, "web")
        with a_set(store, resume_within=DAY) as writer:
            assert (writer.head.name == f"{opened}-partial-0001") is again
            assert writer.is_empty() is not again

    def test_the_newest_one_is_gone_on_with(self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
        moment = now().timestamp()
        ages = iter([300, 100, 200])
        with monkeypatch.context() as patch:
            patch.setattr(
                module,
                "new_set_name",
                lambda _kind, _moment: time.strftime(TIME_FORMAT, time.gmtime(moment - next(ages))) + "-partial-0001",
            )
            names = [left_behind(store, "web") for _unused in range(3)]
        with a_set(store, resume_within=DAY) as writer:
            assert writer.head.name == names[1]

    def test_not_another_kinds_nor_another_servers_nor_one_that_does_not_fit(self, store: DirectoryStore) -> None:
        name = left_behind(store, "web")
        with a_set(store, resume_within=DAY, kind="full") as writer:
            assert writer.head.name != name
            store.delete_tree(writer.base)
        stranger = replace(SERVER, certificate_fingerprint="cd" * 32)
        with a_set(store, resume_within=DAY, server=stranger) as writer:
            assert writer.head.name != name
            store.delete_tree(writer.base)
        with Lease.acquire(store, "site1", "run-2") as lease:
            writer = open_set(store, "site1", lease, NEW, resume_within=DAY, usable=lambda head: head.name != name)
            assert writer.head.name != name

    @pytest.mark.parametrize("change", [{"format": 2}, {"name": "20261123T141500Z-partial-0001"}, {"name": "../../x"}])
    def test_not_one_with_a_head_that_is_newer_or_another_sets(
        self, store: DirectoryStore, change: dict[str, object]
    ) -> None:
        name = left_behind(store, "web")
        head = store.root / "site1" / (name + INCOMPLETE_SUFFIX) / HEAD
        head.write_text(json.dumps({**json.loads(head.read_text()), **change}))
        with a_set(store, resume_within=DAY) as writer:
            assert writer.head.name != name
            assert writer.is_empty()

    def test_a_garbled_head_is_passed_over(self, store: DirectoryStore) -> None:
        name = left_behind(store, "web")
        (store.root / "site1" / (name + INCOMPLETE_SUFFIX) / HEAD).write_text("{")
        with a_set(store, resume_within=DAY) as writer:
            assert writer.head.name != name

    def test_an_export_killed_at_any_step_is_gone_on_with_and_nothing_finished_is_lost(
        self, store: DirectoryStore
    ) -> None:
        def work() -> None:
            with a_set(store) as writer:
                for name in ("one", "two"):
                    put(writer, an_artifact(name))
                    (store.root / f"finished-{name}").touch()

        step, counts = 1, set()
        while killed_before_step(step, store.root, work):
            finished = {
                f"instances/default/{name}.tar.zst" for name in ("one", "two") if store.exists(f"finished-{name}")
            }
            with a_set(store, resume_within=DAY, run_id="run-2") as writer:
                kept = set(paths(writer))
                assert finished <= kept
                strays = [path for path in store.files(writer.base) if path.removesuffix(".json") not in kept]
                assert strays == [HEAD]
                for name in ("one", "two"):
                    if f"instances/default/{name}.tar.zst" not in kept:
                        put(writer, an_artifact(name))
                assert writer.publish().result == COMPLETE
            counts.add(len(kept))
            for name in store.names(""):
                if name != "store.json":
                    (store.delete_tree if name == "site1" else store.delete)(name)
            step += 1
        assert counts == {0, 1, 2}
        assert step > 20


class TestJoining:
    def test_a_runs_next_module_goes_on(self, store: DirectoryStore) -> None:
        name = left_behind(store, "web")
        with Lease.acquire(store, "site1", "run-1") as lease:
            writer = join_set(store, "site1", lease, name, "run-1")
            assert paths(writer) == ["instances/default/web.tar.zst"]
            put(writer, an_artifact("db"))
            assert writer.publish().stored_bytes == 10

    def test_after_a_kill_the_same_run_can_take_what_was_cut(self, store: DirectoryStore) -> None:
        name = left_behind(store, "web")

        def work() -> None:
            with Lease.acquire(store, "site1", "run-1") as lease:
                writer = join_set(store, "site1", lease, name, "run-1")
                with writer.artifact("instances/default/whole.tar.zst") as sink:
                    sink.write(b"bytes")
                with writer.artifact("instances/default/cut.tar.zst") as sink:
                    sink.write(b"by")
                    os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(work) == -signal.SIGKILL
        with Lease.acquire(store, "site1", "run-1") as lease:
            writer = join_set(store, "site1", lease, name, "run-1")
            put(writer, an_artifact("whole"))
            put(writer, an_artifact("cut"))
            assert len(writer.publish().artifacts) == 3

    def test_another_runs_set_an_absent_one_and_a_published_one_are_refused(self, store: DirectoryStore) -> None:
        name = left_behind(store, "web")
        with Lease.acquire(store, "site1", "run-2") as lease:
            with pytest.raises(SetInvalid, match="belongs to run run-1, not to run-2"):
                join_set(store, "site1", lease, name, "run-2")
            with pytest.raises(SetInvalid, match="not there"):
                join_set(store, "site1", lease, "20261123T141500Z-partial-0001", "run-2")
            with pytest.raises(UsageError):
                join_set(store, "site1", lease, "../site2/20261123T141500Z-partial-0001", "run-2")
            join_set(store, "site1", lease, name, "run-1").publish()
            with pytest.raises(SetInvalid, match="published already"):
                join_set(store, "site1", lease, name, "run-1")


class TestArtifacts:
    def test_nothing_of_a_failed_one_is_left(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:

            def work() -> None:
                with writer.artifact("instances/default/web.tar.zst") as sink:
                    sink.write(b"half")
                    raise StreamBroken("the stream ended early")

            with pytest.raises(StreamBroken):
                work()
            assert store.files(writer.base) == [HEAD]

    def test_a_discarded_one_can_be_taken_again(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            writer.discard("instances/default/web.tar.zst")
            assert writer.is_empty()
            put(writer, an_artifact("web"))

    def test_web_and_web_prod_are_two(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            put(writer, an_artifact("web-prod"))
            writer.discard("instances/default/web.tar.zst")
            assert paths(writer) == ["instances/default/web-prod.tar.zst"]

    @needs_root
    def test_a_full_disk_keeps_what_is_finished_and_the_next_run_goes_on(self, small: Path) -> None:
        store = DirectoryStore.attach(str(small), create=True)
        with a_set(store) as writer:
            put(writer, an_artifact("one"))
            with pytest.raises(StoreFull):
                put(writer, an_artifact("two", b"x" * (2 << 20)), b"x" * (2 << 20))
        assert store.names(f"{writer.base}/instances/default") == ["one.tar.zst", "one.tar.zst.json"]
        with a_set(store, resume_within=DAY, run_id="run-2") as again:
            assert paths(again) == ["instances/default/one.tar.zst"]
            put(again, an_artifact("two"))
            assert len(again.publish().artifacts) == 2

    def test_who_has_lost_the_lease_writes_nothing_more(self, store: DirectoryStore) -> None:
        with a_set(store) as old:
            put(old, an_artifact("one"))
            with old.artifact("instances/default/two.tar.zst") as sink:
                sink.write(b"bytes")
            take_over(store)
            with Lease.acquire(store, "site1", "run-2") as lease:
                for forbidden in (
                    lambda: old.record(an_artifact("two")),
                    lambda: old.artifact("instances/default/three.tar.zst"),
                    old.publish,
                    old.abort,
                ):
                    with pytest.raises(LeaseHeld, match="taken over"):
                        forbidden()
                new = open_set(store, "site1", lease, NEW, resume_within=DAY, usable=lambda _head: True)
                assert paths(new) == ["instances/default/one.tar.zst"]
                new.publish()
        assert len(the_only_set(store).artifacts) == 1


def take_over(store: DirectoryStore) -> None:
    """Make the lease look as another host sees one that has been silent for too long."""
    path = store.root / "site1" / LEASE
    record = json.loads(path.read_text())
    record["holder"]["world"] = "another-boot:1"
    path.write_text(json.dumps(record))
    os.utime(path, (time.time() - SILENT_AFTER - 1,) * 2)


class TestPublishing:
    def test_the_manifest_tells_what_lies_there_and_the_papers_are_with_it(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            put(writer, an_artifact("db", b"more bytes"), b"more bytes")
            manifest = writer.publish()
        assert store.names("site1") == [".lock", writer.head.name, OWNER]
        assert the_only_set(store) == manifest
        assert (manifest.result, manifest.stored_bytes, manifest.failures) == (COMPLETE, 15, ())
        for artifact in manifest.artifacts:
            content = store.read(f"{writer.path}/{artifact.path}", 100)
            assert hashlib.sha256(content).hexdigest() == artifact.stored_sha256
        own = [path for path in store.files(writer.path) if "/" not in path]
        assert own == ["README.txt", MANIFEST, "restore.sh", HEAD]
        assert all(
            stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600) for path in store.root.rglob("*")
        )

    def test_an_empty_set_is_not_published(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            writer.note_failures([a_failure("web")])
            with pytest.raises(StoreError, match="holds nothing") as caught:
                writer.publish()
            assert "1 failure" in (caught.value.hint or "")
        assert published_sets(store, "site1", Filter()) == ([], [])

    def test_a_set_whose_file_is_gone_or_cut_is_not_published(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            put(writer, an_artifact("db"))
            (store.root / writer.base / "instances/default/web.tar.zst").write_bytes(b"cut")
            with pytest.raises(SetInvalid) as caught:
                writer.publish()
            assert caught.value.entity == "default/web"
        assert published_sets(store, "site1", Filter()) == ([], [])

    def test_failures_are_named_and_one_that_was_taken_later_is_none(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            writer.note_failures([a_failure("db"), a_failure("web-prod")])
            writer.note_failures([a_failure("db", message="again")])
            put(writer, an_artifact("web-prod"))
            manifest = writer.publish()
        assert manifest.result == WITH_FAILURES
        assert manifest.failures == (a_failure("db", message="again"),)

    def test_once_all_failures_came_well_it_is_complete(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            writer.note_failures([a_failure("web")])
            put(writer, an_artifact("web"))
            assert writer.publish().result == COMPLETE
        assert FAILURES not in store.files(writer.path)

    def test_a_stray_file_is_not_published(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            with writer.artifact("instances/default/unrecorded.tar.zst") as sink:
                sink.write(b"x")
            writer.publish()
        assert not store.exists(f"{writer.path}/instances/default/unrecorded.tar.zst")

    def test_killed_at_any_step_it_is_open_or_whole_and_never_forgets_a_failure(self, store: DirectoryStore) -> None:
        step, seen = 1, set()
        while True:
            with a_set(store) as writer:
                put(writer, an_artifact("web"))
                writer.note_failures([a_failure("db")])
                name = writer.head.name

            def work(name: str = name) -> None:
                with Lease.acquire(store, "site1", "run-1") as lease:
                    join_set(store, "site1", lease, name, "run-1").publish()

            killed = killed_before_step(step, store.root, work)
            published, broken = published_sets(store, "site1", Filter())
            assert broken == []
            assert len(published) + len(incomplete_sets(store, "site1")) == 1
            if not published:
                with a_set(store, resume_within=DAY, run_id="run-2") as again:
                    assert again.head.name == name
                    again.publish()
            seen.add(bool(published))
            manifest = the_only_set(store)
            assert manifest.result == WITH_FAILURES
            assert manifest.failures == (a_failure("db"),)
            assert [artifact.name for artifact in manifest.artifacts] == ["web"]
            if not killed:
                break
            store.delete_tree("site1")
            step += 1
        assert seen == {False, True}
        assert step > 15

    def test_a_store_that_fails_at_any_call_leaves_it_open_and_a_second_try_publishes_it(
        self, store: DirectoryStore
    ) -> None:
        fails_at = 1
        while True:
            with a_set(store) as writer:
                put(writer, an_artifact("web"))
                writer.note_failures([a_failure("db")])
            with Lease.acquire(store, "site1", "run-1") as lease:
                failing = FailingStore(store, fails_at)
                try:
                    SetWriter(failing, "site1", writer.head, lease).publish()
                except StoreFull:
                    assert published_sets(store, "site1", Filter()) == ([], [])
                    SetWriter(store, "site1", writer.head, lease).publish()
            assert the_only_set(store).failures == (a_failure("db"),)
            if failing.calls < fails_at:
                break
            store.delete_tree("site1")
            fails_at += 1
        assert fails_at > 10

    def test_a_published_set_is_never_touched_again(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            writer.publish()
        published = store.root / writer.path
        before = fingerprint(published)
        left_behind(store, "web", run_id="run-2")
        with a_set(store, resume_within=DAY, run_id="run-3") as other:
            put(other, an_artifact("db"))
            other.publish()
        with a_set(store, run_id="run-4") as other:
            other.abort()
        drop_dead_sets(store, "site1", older_than=0)
        with pytest.raises(StoreError):
            writer.publish()
        assert fingerprint(published) == before


class TestEnding:
    def test_an_aborted_set_is_gone(self, store: DirectoryStore) -> None:
        with a_set(store) as writer:
            put(writer, an_artifact("web"))
            writer.abort()
            assert incomplete_sets(store, "site1") == []
            assert not store.exists(writer.base)

    def test_an_abort_that_was_killed_at_any_step_leaves_no_lie(self, store: DirectoryStore) -> None:
        name = left_behind(store, "web", "db")

        def work() -> None:
            with Lease.acquire(store, "site1", "run-1") as lease:
                join_set(store, "site1", lease, name, "run-1").abort()

        step = 1
        while killed_before_step(step, store.root, work):
            with a_set(store, resume_within=DAY, run_id="run-2") as writer:
                for artifact in writer.artifacts():
                    assert store.size(f"{writer.base}/{artifact.path}") == artifact.stored_bytes
            store.delete_tree("site1")
            name = left_behind(store, "web", "db")
            step += 1
        assert step > 10

    def test_only_dead_sets_that_are_old_enough_are_dropped(
        self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moment = now().timestamp()
        ages = iter([2 * DAY, DAY // 2])
        with monkeypatch.context() as patch:
            patch.setattr(
                module,
                "new_set_name",
                lambda _kind, _moment: time.strftime(TIME_FORMAT, time.gmtime(moment - next(ages))) + "-partial-0001",
            )
            old, young = left_behind(store, "web"), left_behind(store, "web")
        store.make_directory("site1/strange.incomplete", exclusive=True)
        assert drop_dead_sets(store, "site1", older_than=DAY) == [old]
        assert incomplete_sets(store, "site1") == [young]
        assert store.exists("site1/strange.incomplete")


def test_a_head_is_read_back_as_written(store: DirectoryStore) -> None:
    with a_set(store) as writer:
        assert read_head(store, writer.base) == writer.head


def test_a_record_holds_all_of_the_artifact(store: DirectoryStore) -> None:
    with a_set(store) as writer:
        artifact: Artifact = put(writer, an_artifact("web"))
        assert json.loads(store.read(f"{writer.base}/{artifact.path}.json", 10000)) == encode(artifact)
