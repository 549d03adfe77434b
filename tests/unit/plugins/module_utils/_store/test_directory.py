# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    PermissionDenied,
    SetInvalid,
    StoreError,
    StoreFull,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store import directory as module
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import LOCK, MARKER, DirectoryStore
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    in_child,
    killed_before_step,
    needs_root,
)


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


class TestAttach:
    def test_a_directory_without_the_marker_is_no_store(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="holds no store") as caught:
            DirectoryStore.attach(str(tmp_path), create=False)
        assert caught.value.operation == "open the store"
        assert "mounted" in (caught.value.hint or "")
        assert everything(tmp_path) == []

    def test_an_absent_place_is_no_store_and_is_not_made(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError):
            DirectoryStore.attach(str(tmp_path / "absent"), create=False)
        assert not (tmp_path / "absent").exists()

    def test_create_makes_it_once_and_then_just_opens_it(self, tmp_path: Path) -> None:
        place = tmp_path / "store"
        DirectoryStore.attach(str(place), create=True)
        marker = (place / MARKER).read_bytes()
        DirectoryStore.attach(str(place), create=True)
        DirectoryStore.attach(str(place), create=False)
        assert (place / MARKER).read_bytes() == marker

    def test_a_dry_run_makes_nothing_and_refuses_what_the_real_one_would(self, tmp_path: Path) -> None:
        store = DirectoryStore.attach(str(tmp_path / "store"), create=True, dry_run=True)
        assert store.names("") == []
        assert not (tmp_path / "store").exists()
        (tmp_path / "precious").write_text("mine")
        with pytest.raises(StoreError, match="not empty"):
            DirectoryStore.attach(str(tmp_path), create=True, dry_run=True)
        with pytest.raises(StoreError, match="holds no store"):
            DirectoryStore.attach(str(tmp_path / "store"), create=False, dry_run=True)

    def test_create_refuses_a_directory_with_other_things_in_it(self, tmp_path: Path) -> None:
        (tmp_path / "precious").write_text("mine")
        with pytest.raises(StoreError, match="not empty"):
            DirectoryStore.attach(str(tmp_path), create=True)
        assert everything(tmp_path) == ["precious"]

    def test_a_fresh_file_systems_lost_and_found_is_no_hindrance(self, tmp_path: Path) -> None:
        (tmp_path / "lost+found").mkdir()
        DirectoryStore.attach(str(tmp_path), create=True)

    def test_a_creation_that_was_killed_at_any_step_can_be_repeated(self, tmp_path: Path) -> None:
        step = 1
        while True:
            place = tmp_path / f"store{step}"
            if not killed_before_step(step, place, lambda: DirectoryStore.attach(str(place), create=True)):  # noqa: B023
                break
            DirectoryStore.attach(str(place), create=True)
            step += 1
        assert step > 3

    def test_many_runs_create_one_store_at_once(self, tmp_path: Path) -> None:
        for turn in range(3):
            place = tmp_path / f"store{turn}"
            script = (
                "import sys\n"
                f"from {module.__package__} import directory\n"
                "sys.stdin.read()\n"
                "store = directory.DirectoryStore.attach(sys.argv[1], create=True)\n"
                "store.make_directory(sys.argv[2], exclusive=False)\n"
            )
            children = [
                subprocess.Popen(
                    [sys.executable, "-c", script, str(place), f"site{number}"],
                    stdin=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                )
                for number in range(4)
            ]
            for child in children:
                assert child.stdin is not None
                child.stdin.close()
            assert [child.wait() for child in children] == [0, 0, 0, 0]

    @pytest.mark.parametrize(
        ("marker", "says"),
        [
            ('{"format": 2, "kind": "directory"}', "newer"),
            ('{"format": 1, "kind": "restic"}', "another kind"),
            ("", "not readable"),
            ("[" * 50000, "not readable"),
        ],
    )
    def test_a_store_of_a_newer_format_another_kind_or_none_is_refused(
        self, tmp_path: Path, marker: str, says: str
    ) -> None:
        (tmp_path / MARKER).write_text(marker)
        with pytest.raises(SetInvalid, match=says):
            DirectoryStore.attach(str(tmp_path), create=True)
        assert (tmp_path / MARKER).read_text() == marker

    @pytest.mark.parametrize("place", ["store", "", "./store", "~/store"])
    def test_a_relative_place_is_refused(self, place: str) -> None:
        with pytest.raises(StoreError, match="not an absolute path"):
            DirectoryStore.attach(place, create=True)

    @needs_root
    def test_a_store_whose_file_system_is_not_mounted_is_not_taken_for_one(self, small: Path) -> None:
        store = DirectoryStore.attach(str(small), create=True)
        store.make_directory("site1", exclusive=False)
        subprocess.run(["umount", str(small)], check=True)
        try:
            with pytest.raises(StoreError, match="holds no store"):
                DirectoryStore.attach(str(small), create=False)
            # Unmounted under a run that is at work: the disk below must not be filled in its place.
            with pytest.raises(StoreError, match="holds no store"), store.create("site1/set/a") as sink:
                sink.write(b"x")
            with pytest.raises(StoreError):
                store.replace("site1/lease.json", b"{}")
            assert os.listdir(small) == []
        finally:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "incus-fleet-test", str(small)], check=True)


class TestCreate:
    def test_the_file_appears_under_its_name_only_when_finished(self, store: DirectoryStore) -> None:
        with store.create("a/b/file") as sink:
            sink.write(b"half")
            sink.flush()
            assert not store.exists("a/b/file")
            sink.write(b" and half")
        assert store.read("a/b/file", 100) == b"half and half"
        assert store.names("a/b") == ["file"]

    @pytest.mark.parametrize("error", [RuntimeError("ours"), KeyboardInterrupt(), ConnectionResetError(104, "reset")])
    def test_nothing_is_left_after_an_exception_which_passes_unchanged(
        self, store: DirectoryStore, error: BaseException
    ) -> None:
        def work() -> None:
            with store.create("a/file") as sink:
                sink.write(b"half")
                raise error

        with pytest.raises(type(error)) as caught:
            work()
        assert caught.value is error
        assert store.names("a") == []

    def test_a_taken_name_is_refused_and_the_old_file_stays(self, store: DirectoryStore) -> None:
        with store.create("file") as sink:
            sink.write(b"old")
        with pytest.raises(StoreError, match="exists already"), store.create("file") as sink:
            sink.write(b"new")
        assert store.read("file", 100) == b"old"
        assert store.names("") == ["file", MARKER]

    def test_of_two_writers_of_one_name_only_one_succeeds(self, store: DirectoryStore) -> None:
        with store.create("file") as sink:
            with pytest.raises(StoreError), store.create("file") as other:
                other.write(b"second")
            sink.write(b"first")
        assert store.read("file", 100) == b"first"

    def test_it_is_absent_or_whole_wherever_the_writer_is_killed(self, store: DirectoryStore) -> None:
        def work() -> None:
            with store.create("site/instances/file") as sink:
                sink.write(b"x" * 100000)

        step = 1
        while killed_before_step(step, store.root, work):
            assert store.size("site/instances/file") in (None, 100000), f"before step {step}"
            store.delete_tree("site")
            step += 1
        assert step > 3
        assert store.size("site/instances/file") == 100000

    def test_a_killed_writer_leaves_only_a_piece(self, store: DirectoryStore) -> None:
        def work() -> None:
            with store.create("site/file") as sink:
                sink.write(b"x" * 100000)
                os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(work) == -signal.SIGKILL
        assert store.names("site") == ["file.part"]

    @needs_root
    @pytest.mark.parametrize("chunk", [4096, 100_000, 3_000_000])
    def test_a_full_disk_is_told_and_nothing_is_left(self, small: Path, chunk: int) -> None:
        store = DirectoryStore.attach(str(small), create=True)
        with store.create("site/old") as sink:
            sink.write(b"old")

        def work() -> None:
            with store.create("site/new") as sink:
                for _unused in range(3_000_000 // chunk):
                    sink.write(b"x" * chunk)

        with pytest.raises(StoreFull) as caught:
            work()
        assert caught.value.operation == "write"
        assert "No space" in (caught.value.server_said or "")
        assert "run again" in (caught.value.hint or "")
        assert store.names("site") == ["old"]
        assert store.read("site/old", 10) == b"old"

    @needs_root
    def test_a_write_that_the_disk_takes_in_part_only_is_never_passed_over(self, small: Path) -> None:
        """A raw file's last short write is not an error: who does not count would store a cut file."""
        store = DirectoryStore.attach(str(small), create=True)
        with pytest.raises(StoreFull), store.create("file") as sink:
            sink.write(b"x" * (2 << 20))
        assert not store.exists("file")


class TestReplace:
    def test_old_or_new_whole_wherever_it_is_killed(self, store: DirectoryStore) -> None:
        old, new = b"old" * 1000, b"new" * 2000
        step = 1
        store.replace("file", old)
        while killed_before_step(step, store.root, lambda: store.replace("file", new)):
            assert store.read("file", 10000) in (old, new)
            step += 1
        assert step > 2  # at least the open and the rename
        assert store.read("file", 10000) == new

    @needs_root
    def test_on_a_full_disk_the_old_content_stays(self, small: Path) -> None:
        store = DirectoryStore.attach(str(small), create=True)
        store.replace("file", b"old")
        with pytest.raises(StoreFull):
            store.replace("file", b"x" * (2 << 20))
        assert store.names("") == ["file", MARKER]
        assert store.read("file", 10) == b"old"

    def test_threads_that_replace_one_file_do_not_disturb_each_other(self, store: DirectoryStore) -> None:
        errors: list[BaseException] = []

        def work(content: bytes) -> None:
            try:
                for _unused in range(20):
                    store.replace("file", content)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(letter * 1000,)) for letter in (b"a", b"b", b"c")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert store.read("file", 1000) in (b"a" * 1000, b"b" * 1000, b"c" * 1000)


class TestPaths:
    @pytest.mark.parametrize(
        "path", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", ".", "a/", "a\0b", "a\nb", "\ud800"]
    )
    def test_a_path_that_leaves_the_store_or_is_none_is_refused(self, store: DirectoryStore, path: str) -> None:
        for verb in (store.exists, store.names, store.files, store.size, store.open, store.delete, store.delete_tree):
            with pytest.raises(StoreError, match="not a path within the store"):
                verb(path)
        with pytest.raises(StoreError), store.create(path):
            pass
        with pytest.raises(StoreError):
            store.replace(path, b"")
        with pytest.raises(StoreError):
            store.make_directory(path, exclusive=False)

    def test_a_link_to_a_file_is_not_read(self, store: DirectoryStore, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("secret")
        (store.root / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(StoreError):
            store.read("link", 100)
        assert store.size("link") is None

    def test_nothing_is_read_written_or_deleted_through_a_linked_directory(
        self, store: DirectoryStore, tmp_path: Path
    ) -> None:
        outside = tmp_path / "outside"
        (outside / "deep").mkdir(parents=True)
        (outside / "file").write_text("secret")
        (store.root / "link").symlink_to(outside)
        for path in ("link/file", "link/deep/file"):
            with pytest.raises(StoreError, match="symbolic link"):
                store.open(path)
            with pytest.raises(StoreError, match="symbolic link"):
                store.delete(path)
            with pytest.raises(StoreError, match="symbolic link"), store.create(path):
                pass
            with pytest.raises(StoreError, match="symbolic link"):
                store.replace(path, b"")
        with pytest.raises(StoreError, match="symbolic link"):
            store.names("link")
        with pytest.raises(StoreError):
            store.delete_tree("link")
        assert (outside / "file").read_text() == "secret"
        assert everything(outside) == ["file"]

    def test_deleting_a_tree_leaves_what_its_links_point_to(self, store: DirectoryStore, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_text("precious")
        store.make_directory("set", exclusive=True)
        (store.root / "set" / "link").symlink_to(outside)
        assert store.files("set") == ["link"]
        store.delete_tree("set")
        assert (outside / "file").read_text() == "precious"
        assert not store.exists("set")

    def test_a_pipe_in_the_place_of_a_file_does_not_hang_the_reader(self, store: DirectoryStore) -> None:
        os.mkfifo(store.root / "pipe")
        with pytest.raises(StoreError, match="not a file"):
            store.open("pipe")

    def test_a_directory_in_the_place_of_a_file_is_refused(self, store: DirectoryStore) -> None:
        store.make_directory("dir", exclusive=True)
        with pytest.raises(StoreError, match="not a file"):
            store.read("dir", 10)

    def test_a_file_above_the_limit_is_not_read(self, store: DirectoryStore) -> None:
        store.replace("file", b"x" * 11)
        assert store.read("file", 11) == b"x" * 11
        with pytest.raises(StoreError, match="larger than 10"):
            store.read("file", 10)

    def test_an_absent_file_is_an_error_to_read_and_none_to_ask_for(self, store: DirectoryStore) -> None:
        with pytest.raises(StoreError):
            store.open("absent")
        assert store.size("absent") is None
        assert store.age("absent") is None
        assert not store.exists("absent/deeper")
        assert store.names("absent") == []
        assert not store.exists(f"{MARKER}/below-a-file")
        store.delete("absent")
        store.delete_tree("absent")


class TestDirectories:
    def test_exclusive_tells_who_came_first(self, store: DirectoryStore) -> None:
        assert store.make_directory("a/b", exclusive=True)
        assert not store.make_directory("a/b", exclusive=True)
        assert store.make_directory("a/b", exclusive=False)

    def test_a_file_in_its_place_is_an_error(self, store: DirectoryStore) -> None:
        store.replace("a", b"")
        with pytest.raises(StoreError):
            store.make_directory("a", exclusive=False)

    def test_publishing_never_overwrites(self, store: DirectoryStore) -> None:
        store.make_directory("site/set", exclusive=True)
        store.make_directory("site/set.incomplete", exclusive=True)
        store.replace("site/set.incomplete/file", b"new")
        with pytest.raises(StoreError, match="exists already"):
            store.publish_directory("site/set")
        assert store.files("site") == ["set.incomplete/file"]

    def test_files_are_listed_to_the_bottom(self, store: DirectoryStore) -> None:
        for path in ("set/a", "set/b/c", "set/b/d/e"):
            store.make_directory(os.path.dirname(path), exclusive=False)
            store.replace(path, b"")
        assert store.files("set") == ["a", "b/c", "b/d/e"]


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_directories_are_0700_and_files_0600_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        store = DirectoryStore.attach(str(tmp_path / "store"), create=True)
        with store.create("site/set/instances/file") as sink:
            sink.write(b"x")
        store.replace("site/lease.json", b"{}")
        with store.lock("site"):
            pass
        store.age("site/set/instances/file")
    finally:
        os.umask(before)
    for path in [store.root, *store.root.rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.lstat().st_mode) == wanted, path


class TestLock:
    def test_one_at_a_time_and_free_again_after_a_kill(self, store: DirectoryStore) -> None:
        store.make_directory("site", exclusive=True)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            with store.lock("site"):
                os.write(write, b"locked")
                signal.pause()
        assert os.read(read, 6) == b"locked"
        got = threading.Event()

        def wait_for_it() -> None:
            with store.lock("site"):
                got.set()

        waiting = threading.Thread(target=wait_for_it)
        waiting.start()
        assert not got.wait(0.1)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert got.wait(10)
        waiting.join()

    def test_a_holder_that_hangs_is_an_error_not_a_wait_for_ever(
        self, store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "LOCK_SECONDS", 0.1)
        store.make_directory("site", exclusive=True)
        with store.lock("site"), pytest.raises(StoreError, match="has been locked") as caught, store.lock("site"):
            pass
        assert "stopped process" in (caught.value.hint or "")

    def test_a_link_in_the_place_of_the_lock_is_not_followed(self, store: DirectoryStore, tmp_path: Path) -> None:
        store.make_directory("site", exclusive=True)
        (store.root / "site" / LOCK).symlink_to(tmp_path / "made")
        with pytest.raises(StoreError), store.lock("site"):
            pass
        assert not (tmp_path / "made").exists()


class TestAge:
    def test_it_is_the_time_since_the_last_touch(self, store: DirectoryStore) -> None:
        store.replace("file", b"")
        os.utime(store.root / "file", (1_000_000, 1_000_000))
        assert (store.age("file") or 0) > 86400
        store.touch("file")
        assert (store.age("file") or 0) < 60

    @needs_root
    def test_a_store_that_is_mounted_read_only_can_be_read(self, small: Path) -> None:
        store = DirectoryStore.attach(str(small), create=True)
        store.make_directory("site", exclusive=True)
        store.replace("site/file", b"content")
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        store = DirectoryStore.attach(str(small), create=False)
        assert store.read("site/file", 10) == b"content"
        assert (store.age("site/file") or 0.0) < 60
        with pytest.raises(PermissionDenied) as caught:
            store.replace("site/file", b"")
        assert "mount" in (caught.value.hint or "")


def test_the_file_systems_refusals_are_told_apart_from_absence(store: DirectoryStore) -> None:
    """``exists`` of what cannot be looked at must not be "no": a claimed site would look like a new one."""
    name = "x" * 300  # ENAMETOOLONG stands for all that is neither "there" nor "not there"
    with pytest.raises(StoreError):
        store.exists(name)


@needs_root
def test_another_users_site_is_refused_with_a_hint(reachable: DirectoryStore) -> None:
    store = reachable
    store.make_directory("site", exclusive=True)

    def as_nobody() -> None:
        os.setuid(65534)
        for attempt in (
            lambda: store.exists("site/site.json"),
            lambda: store.names("site"),
            lambda: store.replace("site/x", b""),
        ):
            with pytest.raises(PermissionDenied) as caught:
                attempt()
            assert "owner" in (caught.value.hint or "")

    assert in_child(as_nobody) == 0


def test_free_bytes_is_what_the_file_system_says(store: DirectoryStore) -> None:
    assert (store.free_bytes() or 0) > 0
