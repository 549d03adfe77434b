# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import encode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import SetInvalid, StoreError, UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import COMPLETE, WITH_FAILURES, Manifest
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import (
    Filter,
    newest_complete,
    open_sets,
    published_sets,
    read_set,
    recovery_points,
    site_directories,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import OWNER, claim_site
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import MANIFEST
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    SERVER,
    a_head,
    a_manifest,
    a_set,
    an_artifact,
    in_child,
    needs_root,
    put,
)

MONDAY, TUESDAY, WEDNESDAY = (f"2026112{day}T010000Z-partial-0001" for day in (3, 4, 5))


def at(name: str) -> str:
    return f"{name[:4]}-{name[4:6]}-{name[6:8]}T{name[9:11]}:00:00Z"


def published(store: DirectoryStore, name: str, directory: str = "site1", **changes: object) -> Manifest:
    """A published set of that name, with the instances ``web`` and ``web-prod``."""
    store.make_directory(f"{directory}/{name}", exclusive=True)
    head = a_head(name, started_at=at(name), kind=name.split("-")[1])
    manifest = replace(a_manifest(name, an_artifact("web"), an_artifact("web-prod")), set=head)
    manifest = replace(manifest, **changes)  # type: ignore[arg-type]
    store.replace(f"{directory}/{name}/{MANIFEST}", json.dumps(encode(manifest)).encode())
    return manifest


@pytest.fixture
def stocked(store: DirectoryStore) -> DirectoryStore:
    """A site with three sets, the newest of them with failures, and an open one."""
    with a_set(store) as writer:
        put(writer, an_artifact("web"))
    for name in (TUESDAY, MONDAY):
        published(store, name)
    published(store, WEDNESDAY, result=WITH_FAILURES)
    return store


def names(store: DirectoryStore, **wanted: object) -> list[str]:
    sets, broken = published_sets(store, "site1", Filter(**wanted))  # type: ignore[arg-type]
    assert broken == []
    return [found.name for found in sets]


class TestListing:
    def test_newest_first_and_no_open_set_among_them(self, stocked: DirectoryStore) -> None:
        assert names(stocked) == [WEDNESDAY, TUESDAY, MONDAY]
        (opened,) = open_sets(stocked, "site1")
        assert opened.startswith("site1/")

    def test_the_newest_complete_one_is_not_the_newest(self, stocked: DirectoryStore) -> None:
        found = newest_complete(published_sets(stocked, "site1", Filter())[0])
        assert found is not None
        assert found.name == TUESDAY
        assert newest_complete([]) is None

    def test_before_is_exclusive_and_after_inclusive(self, stocked: DirectoryStore) -> None:
        tuesday = datetime(2026, 11, 24, 1, tzinfo=timezone.utc)
        assert names(stocked, before=tuesday) == [MONDAY]
        assert names(stocked, after=tuesday) == [WEDNESDAY, TUESDAY]
        assert names(stocked, after=tuesday, before=tuesday) == []

    def test_by_kind_result_and_run(self, stocked: DirectoryStore) -> None:
        full = "20261122T010000Z-full-0001"
        published(stocked, full)
        assert names(stocked, kind="full") == [full]
        assert names(stocked, result=WITH_FAILURES) == [WEDNESDAY]
        assert len(names(stocked, result=COMPLETE)) == 3
        assert len(names(stocked, run_id="run-1")) == 4
        assert names(stocked, run_id="run") == []

    def test_all_sites_and_members(self, stocked: DirectoryStore) -> None:
        for directory in ("east/node1", "east/node2"):
            stocked.make_directory(directory, exclusive=True)
            claim_site(stocked, directory, "east", SERVER, adopt=False)
            published(stocked, MONDAY, directory)
        assert site_directories(stocked, None) == [
            ("east/node1", "east", "node1"),
            ("east/node2", "east", "node2"),
            ("site1", "site1", None),
        ]
        sets = published_sets(stocked, "east", Filter())[0]
        assert {(found.site, found.member) for found in sets} == {("east", "node1"), ("east", "node2")}
        assert len(published_sets(stocked, None, Filter())[0]) == 5

    def test_a_site_of_no_such_name_is_empty_and_an_impossible_one_an_error(self, stocked: DirectoryStore) -> None:
        assert published_sets(stocked, "site", Filter()) == ([], [])  # a beginning of "site1" is not it
        with pytest.raises(UsageError):
            published_sets(stocked, "../store", Filter())

    def test_sets_are_found_also_where_the_owner_record_is_lost(self, stocked: DirectoryStore) -> None:
        stocked.delete(f"site1/{OWNER}")
        assert names(stocked) == [WEDNESDAY, TUESDAY, MONDAY]


class TestBroken:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b"\xff\xfe\x00",
            b"[" * 100000,
            b'{"format": 2}',
            b'{"format": "1"}',
            b"null",
        ],
    )
    def test_one_that_cannot_be_read_is_told_and_the_others_are_listed(
        self, stocked: DirectoryStore, content: bytes
    ) -> None:
        (stocked.root / "site1" / TUESDAY / MANIFEST).write_bytes(content)
        sets, broken = published_sets(stocked, "site1", Filter())
        assert [found.name for found in sets] == [WEDNESDAY, MONDAY]
        assert [item.path for item in broken] == [f"site1/{TUESDAY}"]
        assert isinstance(broken[0].error, SetInvalid)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("set", None),
            ("artifacts", {}),
            ("artifacts", [{}]),
            ("failures", [1]),
            ("stored_bytes", "many"),
            ("stored_bytes", True),
            ("seconds", None),
        ],
    )
    def test_a_value_of_another_type_is_told_by_its_place(
        self, stocked: DirectoryStore, key: str, value: object
    ) -> None:
        path = stocked.root / "site1" / TUESDAY / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        _sets, broken = published_sets(stocked, "site1", Filter())
        assert f"{MANIFEST}.{key}" in broken[0].error.message

    def test_a_newer_format_is_refused_with_what_to_do(self, stocked: DirectoryStore) -> None:
        (stocked.root / "site1" / TUESDAY / MANIFEST).write_text('{"format": 2, "all": "else is new"}')
        with pytest.raises(SetInvalid, match="format 2, newer") as caught:
            read_set(stocked, f"site1/{TUESDAY}", "site1", None)
        assert caught.value.hint == "Update the collection"

    def test_what_a_later_release_adds_within_a_format_is_left_alone(self, stocked: DirectoryStore) -> None:
        path = stocked.root / "site1" / TUESDAY / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), "later": {"more": 1}}))
        assert names(stocked) == [WEDNESDAY, TUESDAY, MONDAY]

    def test_a_set_without_a_manifest_or_with_anothers_does_not_count(self, stocked: DirectoryStore) -> None:
        (stocked.root / "site1" / TUESDAY / MANIFEST).unlink()
        (stocked.root / "site1" / MONDAY / MANIFEST).write_bytes(
            (stocked.root / "site1" / WEDNESDAY / MANIFEST).read_bytes()
        )
        sets, broken = published_sets(stocked, "site1", Filter())
        assert [found.name for found in sets] == [WEDNESDAY]
        assert ["has no manifest" in item.error.message for item in broken] == [False, True]

    def test_a_time_that_is_none_does_not_break_the_list(self, stocked: DirectoryStore) -> None:
        path = stocked.root / "site1" / TUESDAY / MANIFEST
        content = json.loads(path.read_text())
        content["set"]["started_at"] = "last Tuesday"
        path.write_text(json.dumps(content))
        sets, broken = published_sets(stocked, "site1", Filter())
        assert (len(sets), len(broken)) == (2, 1)

    def test_a_link_in_the_place_of_a_set_a_member_or_a_site_is_not_followed(
        self, stocked: DirectoryStore, tmp_path: Path
    ) -> None:
        for place in ("latest", "site1/latest", "site1/20261126T010000Z-partial-0001"):
            (stocked.root / place).symlink_to(stocked.root / "site1" / MONDAY)
        sets, broken = published_sets(stocked, None, Filter())
        assert [found.name for found in sets] == [WEDNESDAY, TUESDAY, MONDAY]
        assert sorted(item.path for item in broken) == [
            "latest",
            "site1/20261126T010000Z-partial-0001",
            "site1/latest",
        ]

    def test_other_peoples_things_in_a_store_are_no_sites(self, stocked: DirectoryStore) -> None:
        for name in ("lost+found", ".snapshots", "notes", "site1/20261399T010000Z-partial-0001", "site1/partial"):
            (stocked.root / name).mkdir()
        for name in ("lost+found", ".snapshots"):
            published(stocked, MONDAY, name)
        (stocked.root / "a-file").write_text("")
        sets, broken = published_sets(stocked, None, Filter())
        assert (len(sets), broken) == (3, [])

    @needs_root
    def test_a_site_that_we_may_not_read_does_not_hide_the_others(self, reachable: DirectoryStore) -> None:
        store = reachable
        store.make_directory("site0", exclusive=True)
        store.make_directory("site1", exclusive=True)
        published(store, MONDAY)
        for path in [store.root / "site1", *(store.root / "site1").rglob("*")]:
            path.chmod(0o755)

        def as_nobody() -> None:
            published_sets(store, None, Filter())  # Python itself may lie where nobody may read: load all it needs
            os.setuid(65534)
            sets, broken = published_sets(store, None, Filter())
            assert ([found.name for found in sets], [item.path for item in broken]) == ([MONDAY], ["site0"])

        assert in_child(as_nobody) == 0


class TestRecoveryPoints:
    def test_names_are_exact(self, stocked: DirectoryStore) -> None:
        sets = published_sets(stocked, "site1", Filter())[0]
        points = list(recovery_points(sets, kind="instance", project="default", name="web"))
        assert [(found.name, artifact.name) for found, artifact in points] == [
            (WEDNESDAY, "web"),
            (TUESDAY, "web"),
            (MONDAY, "web"),
        ]
        assert list(recovery_points(sets, kind="instance", project="default", name="we")) == []
        assert list(recovery_points(sets, kind=None, project="other", name=None)) == []
        assert len(list(recovery_points(sets, kind=None, project=None, name=None))) == 6

    @pytest.mark.parametrize("path", ["../../../etc/passwd", "/etc/passwd", "instances/../../x"])
    def test_a_tampered_path_is_refused_when_it_is_opened(self, store: DirectoryStore, path: str) -> None:
        store.make_directory("site1", exclusive=True)
        published(store, MONDAY, artifacts=(an_artifact("web", path=path),))
        sets = published_sets(store, "site1", Filter())[0]
        ((found, artifact),) = recovery_points(sets, kind=None, project=None, name="web")
        with pytest.raises(StoreError, match="not a path within the store"):
            store.open(f"{found.path}/{artifact.path}")
