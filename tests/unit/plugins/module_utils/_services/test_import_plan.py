# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact, Dependencies
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_plan import (
    MARKER,
    ImportOptions,
    ImportStep,
    Problem,
    Target,
    identity_conflicts,
    plan_import,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._services.builders import (
    MAC,
    a_pool,
    an_instance,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import an_artifact

SET = "20261123T141500Z-partial-7f3a"
OLDER = "20261122T141500Z-partial-0001"
READY = Target(
    instances=(),
    projects=frozenset({"default"}),
    pools={"default": a_pool("default")},
    profiles=frozenset({("default", "default")}),
    networks=frozenset({("default", "incusbr0")}),
    volumes=frozenset(),
    storage_drivers=frozenset({"btrfs", "dir"}),
    architectures=("x86_64", "i686"),
    virtual_machines=False,
)


def plan(artifact: Artifact, target: Target = READY, **options: Any) -> tuple[list[ImportStep], list[Problem]]:
    return plan_import([artifact], SET, ImportOptions(**options), target)


def only_step(artifact: Artifact, target: Target = READY, **options: Any) -> ImportStep:
    """The step for an artifact that nothing stands in the way of."""
    (step,), problems = plan(artifact, target, **options)
    assert problems == []
    return step


def with_instances(*instances: Any) -> Target:
    return replace(READY, instances=instances)


def test_an_artifact_is_imported_where_nothing_stands_in_its_way() -> None:
    step = only_step(an_artifact("web"))
    assert step.told() == {
        "action": "import",
        "kind": "instance",
        "project": "default",
        "name": "web",
        "reason": "selected",
        "path": "instances/default/web.tar.zst",
        "stored_bytes": 5,
        "pool": "default",
        "identity": "keep",
        "start": True,
        "taken_at": "2026-11-23T14:15:00Z",
        "guarantee": "crash",
    }


NEEDS = Dependencies(profiles=("default",), pools=("default",))
PROBLEMS = [
    (an_artifact("web"), with_instances(an_instance("web")), "name_taken", "name exists", "conflict=skip"),
    (an_artifact("web", project="shop"), READY, "project_missing", "project shop", "Create the project"),
    (
        an_artifact("web", dependencies=replace(NEEDS, profiles=("default", "web"))),
        READY,
        "profile_missing",
        "the profile web is missing in project default",
        "Create the profile",
    ),
    (
        an_artifact("web", dependencies=replace(NEEDS, snapshot_profiles=("old",))),
        READY,
        "profile_missing",
        "the profile old, which a snapshot uses,",
        "Create the profile",
    ),
    (
        an_artifact("web", dependencies=replace(NEEDS, networks=("incusbr0", "dmz"))),
        READY,
        "network_missing",
        "the network dmz is missing in project default",
        "Create the network",
    ),
    (
        an_artifact("web", dependencies=replace(NEEDS, volumes=("default/data",))),
        READY,
        "volume_missing",
        "the volume default/data is missing in project default",
        "Restore the volume",
    ),
    (an_artifact("web", pool="fast"), READY, "pool_missing", "the storage pool fast is missing", "Create the pool"),
    (
        an_artifact("web", dependencies=replace(NEEDS, pools=("default", "bulk"))),
        READY,
        "pool_missing",
        "the storage pool bulk is missing",
        "Create the pool",
    ),
    (
        an_artifact("web"),
        replace(READY, pools={"default": a_pool("default", status="Unavailable")}),
        "pool_unavailable",
        "the storage pool default is Unavailable",
        "Repair the pool",
    ),
    (
        an_artifact("web", optimized=True),
        replace(READY, pools={"default": a_pool("default", "dir")}),
        "driver_differs",
        "in the format of btrfs, and the pool default is of dir",
        "same driver",
    ),
    (
        an_artifact("web", optimized=True, driver="zfs"),
        replace(READY, pools={"default": a_pool("default", "zfs")}),
        "driver_missing",
        "the server cannot use the driver zfs",
        "Install the driver",
    ),
    (
        an_artifact("web", architecture="aarch64"),
        READY,
        "architecture",
        "made for aarch64, the server runs x86_64, i686",
        "of that architecture",
    ),
    (
        an_artifact("web", instance_type="virtual-machine"),
        READY,
        "no_virtual_machines",
        "cannot run virtual machines",
        "Install QEMU",
    ),
    (an_artifact("web", encryption="age"), READY, "encrypted", "is encrypted (age)", "Update the collection"),
    (
        an_artifact("web", compression="lz4"),
        READY,
        "compression_unknown",
        "compressed with lz4",
        "Update the collection",
    ),
    (
        an_artifact("web"),
        with_instances(an_instance("web", config={MARKER: OLDER})),
        "half_restored",
        f"half restored from the set {OLDER}",
        f"Finish it with set={OLDER}",
    ),
]


@pytest.mark.parametrize(
    ("artifact", "target", "code", "said", "hint"), PROBLEMS, ids=[f"{one[2]}: {one[3]}" for one in PROBLEMS]
)
def test_each_thing_that_stands_in_the_way_is_told_with_what_to_do(
    artifact: Artifact, target: Target, code: str, said: str, hint: str
) -> None:
    _steps, problems = plan(artifact, target)
    assert [problem.code for problem in problems] == [code]
    assert said in problems[0].problem
    assert hint in problems[0].hint
    assert problems[0].entity == f"{artifact.project}/web"
    assert set(problems[0].told()) == {"code", "entity", "problem", "hint"}


def test_everything_that_stands_in_the_way_is_told_at_once() -> None:
    bad = an_artifact("web", pool="fast", architecture="aarch64", dependencies=Dependencies(profiles=("a", "b")))
    worse = an_artifact("db", project="shop", encryption="age")
    _steps, problems = plan_import([bad, an_artifact("fine"), worse], SET, ImportOptions(), READY)
    assert [(problem.entity, problem.code) for problem in problems] == [
        ("default/web", "profile_missing"),
        ("default/web", "profile_missing"),
        ("default/web", "pool_missing"),
        ("default/web", "architecture"),
        ("shop/db", "project_missing"),
        ("shop/db", "encrypted"),
    ]


@pytest.mark.parametrize(
    ("artifact", "target"),
    [
        pytest.param(an_artifact("web", architecture=None), READY, id="an artifact that names no architecture"),
        pytest.param(an_artifact("web"), replace(READY, architectures=()), id="a server that names none"),
        pytest.param(
            an_artifact("web"), replace(READY, pools={"default": a_pool("default", "dir")}), id="plain, another driver"
        ),
        pytest.param(
            an_artifact("web", instance_type="virtual-machine"),
            replace(READY, virtual_machines=True),
            id="a machine where there is QEMU",
        ),
        pytest.param(
            an_artifact("web", dependencies=replace(NEEDS, volumes=("default/data",))),
            replace(READY, volumes=frozenset({("default", "default", "data")})),
            id="a volume that is there",
        ),
        pytest.param(an_artifact("web", optimized=True), READY, id="optimized, the same driver"),
        pytest.param(an_artifact("web"), with_instances(an_instance("web-prod", config={})), id="a name like it"),
        pytest.param(
            an_artifact("web", macs={}, uuid=None), with_instances(an_instance("web", "shop")), id="another project's"
        ),
    ],
)
def test_what_does_not_stand_in_the_way_is_no_problem(artifact: Artifact, target: Target) -> None:
    assert only_step(artifact, target).action == "import"


def test_volumes_are_told_apart_by_pool_and_project() -> None:
    needs = an_artifact("web", dependencies=replace(NEEDS, volumes=("default/data",)))
    others = frozenset({("default", "bulk", "data"), ("shop", "default", "data"), ("default", "default", "data2")})
    _steps, problems = plan(needs, replace(READY, volumes=others))
    assert [problem.code for problem in problems] == ["volume_missing"]


def test_an_instance_that_exists_is_left_alone_where_that_was_asked_for() -> None:
    broken = an_artifact("web", pool="fast", architecture="aarch64", encryption="age")
    step = only_step(broken, with_instances(an_instance("web")), conflict="skip", power_state="running")
    assert (step.action, step.start) == ("skip", False)


def test_a_half_restored_instance_is_not_one_to_be_left_alone() -> None:
    _steps, problems = plan(
        an_artifact("web"), with_instances(an_instance("web", config={MARKER: OLDER})), conflict="skip"
    )
    assert [problem.code for problem in problems] == ["half_restored"]


@pytest.mark.parametrize("conflict", ["fail", "skip"])
@pytest.mark.parametrize(
    ("uuid", "identity"), [("uuid-of-web", "keep"), ("made-up", "regenerate"), (None, "regenerate")]
)
def test_an_interrupted_restore_from_the_same_set_is_finished(conflict: str, uuid: str | None, identity: str) -> None:
    config = {MARKER: SET, **({"volatile.uuid": uuid} if uuid else {})}
    step = only_step(an_artifact("web"), with_instances(an_instance("web", config=config)), conflict=conflict)
    assert (step.action, step.start, step.told()["identity"]) == ("finish", True, identity)


TWIN = an_instance("twin", "shop", config={"volatile.uuid": "uuid-of-web", "volatile.eth0.hwaddr": MAC.upper()})


def test_what_another_instance_has_of_the_identity_is_told_in_words() -> None:
    assert identity_conflicts(an_artifact("web"), [an_instance("other", config={}), TWIN]) == [
        "shop/twin has its uuid uuid-of-web",
        f"shop/twin has the MAC address {MAC} of its eth0",
    ]


@pytest.mark.parametrize(
    ("artifact", "instance"),
    [
        pytest.param(an_artifact("twin", project="shop", uuid="uuid-of-web"), TWIN, id="itself"),
        pytest.param(an_artifact("web", uuid=None, macs={}), an_instance("other", config={}), id="nothing known"),
        pytest.param(
            an_artifact("web"),
            an_instance("other", config={"volatile.uuid": "x", "volatile.eth0.hwaddr": "10:66:6a:00:00:02"}),
            id="others",
        ),
    ],
)
def test_no_conflict_is_made_up(artifact: Artifact, instance: Any) -> None:
    assert identity_conflicts(artifact, [instance]) == []


def test_a_mac_address_that_is_written_into_a_device_counts_too() -> None:
    devices = {"net": {"type": "nic", "network": "incusbr0", "hwaddr": MAC}}
    other = an_instance("other", config={}, expanded_devices=devices)
    assert identity_conflicts(an_artifact("web"), [other]) == [f"default/other has the MAC address {MAC} of its eth0"]


@pytest.mark.parametrize(
    ("identity", "instances", "result", "reason"),
    [
        ("auto", (), "keep", "selected"),
        ("auto", (TWIN,), "regenerate", "selected; gets a new identity, because shop/twin has its uuid"),
        ("regenerate", (), "regenerate", "selected; gets a new identity"),
        ("keep", (), "keep", "selected"),
    ],
)
def test_the_identity_is_kept_or_made_anew(identity: str, instances: tuple[Any, ...], result: str, reason: str) -> None:
    step = only_step(an_artifact("web"), with_instances(*instances), identity=identity)
    assert step.told()["identity"] == result
    assert step.reason.startswith(reason)


def test_an_identity_that_must_be_kept_and_is_taken_is_a_problem() -> None:
    _steps, problems = plan(an_artifact("web"), with_instances(TWIN), identity="keep")
    assert [problem.code for problem in problems] == ["identity_taken", "identity_taken"]
    assert "Set identity to auto" in problems[0].hint


@pytest.mark.parametrize("recorded", ["Running", "Frozen", "Ready", "Stopped", "Error", None])
@pytest.mark.parametrize("power_state", ["recorded", "stopped", "running"])
def test_what_ran_is_started_unless_something_else_is_asked_for(recorded: str | None, power_state: str) -> None:
    ran = recorded in ("Running", "Frozen", "Ready")
    expected = {"recorded": ran, "stopped": False, "running": True}[power_state]
    assert only_step(an_artifact("web", power_state=recorded), power_state=power_state).start is expected


@pytest.mark.parametrize("options", [{"parallel": 0}, {"parallel": 65}, {"nice": -1}, {"nice": 20}])
def test_options_out_of_range_are_refused_by_name(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} must be between"):
        ImportOptions(**options)  # type: ignore[arg-type]


def test_a_configured_address_that_is_taken_is_a_problem_because_no_new_one_is_made() -> None:
    nic, mac = "eth0", next(iter(TWIN.macs.values()))
    artifact = an_artifact("web", macs={nic: mac}, fixed_macs=(nic,), power_state="Running")
    _steps, problems = plan(artifact, with_instances(TWIN))
    assert [problem.code for problem in problems] == ["address_fixed"]
    assert mac in problems[0].problem
    assert "power_state=stopped" in problems[0].hint


def test_a_configured_address_that_is_taken_does_not_matter_to_what_stays_stopped() -> None:
    nic, mac = "eth0", next(iter(TWIN.macs.values()))
    artifact = an_artifact("web", macs={nic: mac}, fixed_macs=(nic,), power_state="Stopped")
    _steps, problems = plan(artifact, with_instances(TWIN))
    assert problems == []
