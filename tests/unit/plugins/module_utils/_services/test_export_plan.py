# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Compression
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export_plan import (
    ExportOptions,
    ExportStep,
    Surroundings,
    artifact_path,
    covers,
    plan_export,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import (
    ROOT_DISK,
    a_pool,
    an_instance,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import an_artifact

PLAIN = ExportOptions()
OPTIMIZED = ExportOptions(optimized_storage=True)
FALLBACK = ExportOptions(optimized_storage=True, optimized_fallback=True)
OPEN = {"default": {"config": {}}}


def around(driver: str = "btrfs", *, direct: bool = True, projects: Any = None) -> Surroundings:
    return Surroundings(
        pools={"default": a_pool("default", driver)},
        projects=OPEN if projects is None else projects,
        direct_backup=direct,
    )


def step(options: ExportOptions = PLAIN, place: Surroundings | None = None, **changes: Any) -> ExportStep:
    """What is planned for one instance."""
    (planned,) = plan_export([an_instance("web", **changes)], options, place or around())
    return planned


def taken(options: ExportOptions = PLAIN, **changes: Any) -> Artifact:
    """The finished artifact of that instance."""
    return an_artifact("web", options_digest=options.digest(), **changes)


def test_an_instance_is_exported_with_the_reason_and_the_place_told() -> None:
    planned = step()
    assert (planned.action, planned.reason, planned.hint, planned.warnings) == ("export", "selected", None, ())
    assert planned.told() == {
        "action": "export",
        "kind": "instance",
        "project": "default",
        "name": "web",
        "reason": "selected",
        "path": "instances/default/web.tar.zst",
        "pool": "default",
        "driver": "btrfs",
        "optimized": False,
        "transport": "direct",
        "method": "snapshot",
        "guarantee": "crash",
        "warnings": [],
    }


def test_instances_keep_their_order_and_do_not_mix() -> None:
    instances = [an_instance(name) for name in ("web", "web-prod", "db")]
    assert [one.name for one in plan_export(instances, PLAIN, around())] == ["web", "web-prod", "db"]
    assert plan_export([], PLAIN, around()) == []


def test_bytes_come_by_way_of_a_backup_object_where_the_server_cannot_stream() -> None:
    assert step(place=around(direct=False)).transport == "staged"


@pytest.mark.parametrize("driver", ["btrfs", "zfs"])
def test_the_drivers_format_is_used_where_there_is_one(driver: str) -> None:
    for options in (OPTIMIZED, FALLBACK):
        planned = step(options, around(driver))
        assert (planned.action, planned.optimized, planned.warnings) == ("export", True, ())


@pytest.mark.parametrize("driver", ["dir", "lvm", "ceph", "linstor"])
def test_a_driver_without_a_format_of_its_own_is_never_passed_over_in_silence(driver: str) -> None:
    refused = step(OPTIMIZED, around(driver))
    assert (refused.action, refused.optimized) == ("refuse", False)
    assert refused.reason == f"the driver {driver} of pool default has no optimized format"
    assert refused.hint == "Leave optimized_storage off for it, or set optimized_fallback=true"
    fallen = step(FALLBACK, around(driver))
    assert (fallen.action, fallen.optimized) == ("export", False)
    assert fallen.warnings == (
        f"the driver {driver} of pool default has no optimized format: exported in the plain format",
    )


@pytest.mark.parametrize(
    ("config", "action"),
    [
        ({}, "export"),
        ({"restricted": "false", "restricted.backups": "block"}, "export"),
        ({"restricted": "true"}, "refuse"),  # what a restricted project blocks unless it is told otherwise
        ({"restricted": "true", "restricted.backups": "block"}, "refuse"),
        ({"restricted": "true", "restricted.backups": "allow"}, "export"),
    ],
)
def test_a_project_may_forbid_backups(config: dict[str, str], action: str) -> None:
    planned = step(place=around(projects={"default": {"config": config}}))
    assert planned.action == action
    if action == "refuse":
        assert "the project default forbids backups" in planned.reason
        assert "restricted.backups=allow" in (planned.hint or "")


def test_a_project_that_cannot_be_seen_forbids_nothing() -> None:
    assert step(place=around(projects={})).action == "export"


@pytest.mark.parametrize("disk", [{**ROOT_DISK, "pool": "gone"}, {"type": "disk", "path": "/data", "source": "vol"}])
def test_an_instance_without_a_pool_is_refused(disk: dict[str, str]) -> None:
    planned = step(expanded_devices={"root": disk})
    assert planned.action == "refuse"
    assert "is not on the server" in planned.reason
    assert planned.hint == "Repair the instance's root device"
    assert planned.told()["pool"] is None


def test_an_instance_that_the_server_cannot_look_at_is_refused() -> None:
    planned = step(status="Error", status_code=112, expanded_devices={}, config={})
    assert (planned.action, planned.reason) == ("refuse", "the server lists it, but cannot look at it")
    assert planned.hint


@pytest.mark.parametrize(
    ("finished", "action"),
    [
        pytest.param(taken(), "reuse", id="finished by the run that died"),
        pytest.param(taken(OPTIMIZED), "export", id="with other options"),
        pytest.param(taken(uuid="uuid-of-another"), "export", id="another instance of that name"),
        pytest.param(taken(project="other"), "export", id="another project's"),
        pytest.param(replace(taken(), name="web-prod"), "export", id="another name"),
        pytest.param(taken(kind="volume"), "export", id="another kind of thing"),
    ],
)
def test_what_a_resumed_set_holds_is_not_taken_again(finished: Artifact, action: str) -> None:
    (planned,) = plan_export([an_instance("web")], PLAIN, around(), [finished])
    assert planned.action == action
    if action == "reuse":
        assert planned.reason == "finished at 2026-11-23T14:15:00Z by the run that is resumed"


def test_every_option_that_changes_the_file_changes_the_digest() -> None:
    different = [
        PLAIN,
        OPTIMIZED,
        FALLBACK,
        ExportOptions(instance_only=True),
        *(ExportOptions(compression=Compression.parse(text)) for text in ("zstd-9", "gzip", "gzip-9", "none")),
    ]
    assert len({options.digest() for options in different}) == len(different)


@pytest.mark.parametrize(
    "changes", [{"parallel": 8}, {"nice": 0}, {"compress_threads": 4}, {"rate_limit": 1000}, {"project": "shop"}]
)
def test_options_that_change_nothing_in_the_file_do_not_change_the_digest(changes: dict[str, Any]) -> None:
    assert replace(PLAIN, **changes).digest() == PLAIN.digest()


@pytest.mark.parametrize(
    ("artifacts", "covered"),
    [
        pytest.param([taken(), an_artifact("db", options_digest=PLAIN.digest())], True, id="both"),
        pytest.param([taken()], False, id="one is missing"),
        pytest.param([taken(), an_artifact("db", options_digest=OPTIMIZED.digest())], False, id="other options"),
        pytest.param(
            [taken(), an_artifact("db", uuid="uuid-of-another", options_digest=PLAIN.digest())], False, id="other uuid"
        ),
        pytest.param([taken(), an_artifact("db", kind="volume", options_digest=PLAIN.digest())], False, id="a volume"),
        pytest.param([], False, id="nothing"),
    ],
)
def test_a_young_set_is_enough_only_when_it_holds_all_that_is_selected(
    artifacts: list[Artifact], covered: bool
) -> None:
    assert covers(artifacts, [an_instance("web"), an_instance("db")], PLAIN) is covered


def test_whatever_else_a_set_holds_does_not_matter() -> None:
    assert covers([taken(), an_artifact("db")], [an_instance("web")], PLAIN)
    assert covers([], [], PLAIN)


@pytest.mark.parametrize(
    ("project", "name", "compression", "path"),
    [
        ("default", "web", "zstd", "instances/default/web.tar.zst"),
        ("default", "web", "gzip-9", "instances/default/web.tar.gz"),
        ("default", "web", "none", "instances/default/web.tar"),
        ("../..", "web", "zstd", "instances/%2E.%2F../web.tar.zst"),
        ("default", "..", "zstd", "instances/default/%2E..tar.zst"),
    ],
)
def test_a_path_is_made_of_names_that_cannot_leave_the_set(
    project: str, name: str, compression: str, path: str
) -> None:
    instance = an_instance(name, project)
    assert artifact_path(instance, Compression.parse(compression)) == path


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"parallel": 0}, "parallel must be between 1 and 64"),
        ({"parallel": 65}, "parallel must be between"),
        ({"nice": -1}, "nice must be between 0 and 19"),
        ({"nice": 20}, "nice must be between"),
        ({"compress_threads": -1}, "compress_threads must be between"),
        ({"rate_limit": -1}, "rate_limit must not be negative"),
        ({"optimized_fallback": True}, "makes sense with optimized_storage only"),
    ],
)
def test_options_out_of_range_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ExportOptions(**options)


@pytest.mark.parametrize(
    ("processors", "parallel", "given", "threads"),
    [(1, 1, 0, 1), (2, 2, 0, 1), (8, 2, 0, 3), (8, 1, 0, 7), (8, 16, 0, 1), (8, 2, 5, 5)],
)
def test_compression_leaves_a_core_to_the_guests(processors: int, parallel: int, given: int, threads: int) -> None:
    options = ExportOptions(parallel=parallel, compress_threads=given)
    assert options.threads(processors) == threads
