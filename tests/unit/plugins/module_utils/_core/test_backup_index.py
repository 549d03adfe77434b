# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading the top of backup/index.yaml, and comparing it with an archive's parts and the server's word."""

from __future__ import annotations

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import Part
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.backup_index import (
    BackupIndex,
    check_backup_index,
    read_backup_index,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import ArchiveInvalid

# As Incus 6.0's encoder (four spaces, indented lists) and a compact one write it.
INDENTED = """name: web
backend: btrfs
pool: default
snapshots:
    - daily
    - "2024-01-01"
    - 'it''s'
optimized: true
optimized_header: true
type: virtual-machine
config:
    container:
        config:
            user.data: |-
                name: intruder

                snapshots:
                - not-ours
        name: web
    profiles:
        - name: default
"""
COMPACT = """name: web
backend: dir
pool: default
snapshots:
- daily
- "a\\u00e9\\x41\\tb"
optimized: false
config:
  profiles:
  - name: default
type: container
later_key:
- unknown
"""
FULL = Part(3, 1000)


def index(**changed: object) -> BackupIndex:
    """An index of a container with one snapshot, changed as told."""
    values: dict[str, object] = {
        "name": "web",
        "backend": "dir",
        "pool": "default",
        "type": "container",
        "snapshots": ("daily",),
        "optimized": False,
        "optimized_header": False,
    }
    return BackupIndex(**{**values, **changed})  # type: ignore[arg-type]


PARTS = {
    "backup/index.yaml": Part(1, 9),
    "backup/snapshots/daily": FULL,
    "backup/snapshots/daily/rootfs": FULL,
    "backup/container": FULL,
    "backup/container/rootfs": FULL,
}


def test_indented_index_is_read() -> None:
    assert read_backup_index(INDENTED.encode()) == BackupIndex(
        "web", "btrfs", "default", "virtual-machine", ("daily", "2024-01-01", "it's"), True, True
    )


def test_compact_index_is_read_and_unknown_keys_are_passed_over() -> None:
    found = read_backup_index(COMPACT.encode())
    assert found == BackupIndex("web", "dir", "default", "container", ("daily", "aéA\tb"), False, False)


def test_what_is_missing_takes_the_defaults_of_incus() -> None:
    found = read_backup_index(b"name: c\nbackend: dir\npool: p\n")
    assert (found.type, found.snapshots, found.optimized, found.optimized_header) == ("container", (), False, False)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"name: c\nbackend: dir\n",
        b"name: c\nname: d\nbackend: dir\npool: p\n",
        b"name: &anchor c\nbackend: dir\npool: p\n",
        b"name: c # why\nbackend: dir\npool: p\n",
        b"name: c\n  continued\nbackend: dir\npool: p\n",
        b'name: "c\\q"\nbackend: dir\npool: p\n',
        b'name: "c\nbackend: dir\npool: p\n',
        b"name: c\nbackend: dir\npool: p\nsnapshots: [a, b]\n",
        b"name: c\nbackend: dir\npool: p\nsnapshots:\n  - a\n    more\n",
        b"name: c\nbackend: dir\npool: p\nsnapshots:\n- name: a\n",
        b"name: c\nbackend: dir\npool: p\noptimized: yes\n",
        b"name: \xff\nbackend: dir\npool: p\n",
        b"--- \nname: c\nbackend: dir\npool: p\n",
        b"\tname: c\nbackend: dir\npool: p\n",
    ],
)
def test_what_incus_does_not_write_is_refused(text: bytes) -> None:
    with pytest.raises(ArchiveInvalid, match=r"backup/index\.yaml"):
        read_backup_index(text)


def test_archive_that_holds_what_it_should_has_no_problem() -> None:
    assert check_backup_index(index(), PARTS, name="web", instance_type="container", snapshots=["daily"]) == []


@pytest.mark.parametrize(
    ("changed", "wanted", "sentence"),
    [
        ({"name": "web-prod"}, {}, "the index names 'web-prod', 'web' was expected"),
        ({}, {"instance_type": "virtual-machine"}, "the index says type container, virtual-machine was expected"),
        ({}, {"optimized": True}, "the index says optimized no, yes was expected"),
        ({}, {"snapshots": ["daily", "new"]}, "the index lacks snapshot 'new', which the server has"),
        ({}, {"snapshots": []}, "the index has snapshot 'daily', which was not expected"),
        ({"snapshots": ()}, {"snapshots": []}, "the archive has backup/snapshots/daily, which its index does not name"),
    ],
)
def test_each_difference_is_one_sentence(changed: dict[str, object], wanted: dict[str, object], sentence: str) -> None:
    expected: dict[str, object] = {"name": "web", "instance_type": "container", "snapshots": ["daily"], **wanted}
    assert check_backup_index(index(**changed), PARTS, **expected) == [sentence]  # type: ignore[arg-type]


def test_snapshot_of_the_index_that_is_not_in_the_archive_is_a_problem() -> None:
    parts = {name: part for name, part in PARTS.items() if "daily" not in name}
    found = check_backup_index(index(), parts, name="web", instance_type="container", snapshots=["daily"])
    assert found == ["the archive lacks backup/snapshots/daily"]


def test_longer_name_of_another_snapshot_does_not_stand_in() -> None:
    parts = {**PARTS, "backup/snapshots/daily-2": FULL, "backup/snapshots/daily-2/rootfs": FULL}
    found = check_backup_index(
        index(snapshots=("daily-2", "daily")), parts, name="web", instance_type="container", snapshots=["daily"]
    )
    assert found == ["the index has snapshot 'daily-2', which was not expected"]


@pytest.mark.parametrize("missing", ["backup/container/rootfs", "backup/snapshots/daily/rootfs"])
def test_container_without_its_files_is_a_problem_although_its_configuration_is_there(missing: str) -> None:
    parts = {name: part for name, part in PARTS.items() if name != missing}
    found = check_backup_index(index(), parts, name="web", instance_type="container", snapshots=["daily"])
    assert found == [f"the archive lacks {missing}"]


def test_container_whose_files_are_all_empty_is_whole() -> None:
    parts = {**PARTS, "backup/container/rootfs": Part(1, 0)}
    assert check_backup_index(index(), parts, name="web", instance_type="container", snapshots=["daily"]) == []


def test_part_without_data_is_a_problem() -> None:
    parts = {**PARTS, "backup/container": Part(1, 0), "backup/container/rootfs": Part(1, 0)}
    found = check_backup_index(index(), parts, name="web", instance_type="container", snapshots=["daily"])
    assert found == ["backup/container is in the archive, but holds no data"]


def test_claim_of_optimized_must_be_true() -> None:
    found = check_backup_index(index(optimized=True), PARTS, name="web", instance_type="container", snapshots=["daily"])
    assert "the archive lacks backup/container.bin" in found
    assert "the archive has backup/container, but its index says optimized yes" in found


def test_optimized_btrfs_archive_with_subvolumes_is_accepted() -> None:
    parts = {
        "backup/optimized_header.yaml": FULL,
        "backup/snapshots/daily.bin": FULL,
        "backup/snapshots/daily_rootfs-var.bin": FULL,
        "backup/container.bin": FULL,
    }
    optimized = index(optimized=True, optimized_header=True)
    assert (
        check_backup_index(optimized, parts, name="web", instance_type="container", snapshots=["daily"], optimized=True)
        == []
    )
    del parts["backup/optimized_header.yaml"]
    assert check_backup_index(optimized, parts, name="web", instance_type="container", snapshots=["daily"]) == [
        "the archive lacks backup/optimized_header.yaml, which its index announces"
    ]


@pytest.mark.parametrize(("optimized", "suffixes"), [(False, ("", ".img")), (True, ("-config.bin", ".bin"))])
def test_virtual_machine_needs_configuration_and_disk(optimized: bool, suffixes: tuple[str, str]) -> None:
    stems = ("backup/virtual-machine", "backup/virtual-machine-snapshots/daily")
    parts = {stem + suffix: FULL for stem in stems for suffix in suffixes}
    machine = index(type="virtual-machine", optimized=optimized)
    assert check_backup_index(machine, parts, name="web", instance_type="virtual-machine", snapshots=["daily"]) == []
    for name in list(parts):
        rest = {other: part for other, part in parts.items() if other != name}
        found = check_backup_index(machine, rest, name="web", instance_type="virtual-machine", snapshots=["daily"])
        assert found == [f"the archive lacks {name}"]
