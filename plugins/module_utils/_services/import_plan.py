# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Decide what an import does, and find everything that stands in its way; nothing in here touches anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Method
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.consistency import OPTIMIZED_DRIVERS
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.selection import Selection
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import Instance, Pool

IMPORT, SKIP, FINISH = "import", "skip", "finish"
FAIL, KEEP, REGENERATE, AUTO = "fail", "keep", "regenerate", "auto"
RECORDED, STOPPED, RUNNING = "recorded", "stopped", "running"
MARKER = "user.incus-fleet.restoring"
"""The key that an instance carries while its restore is not finished; its value is the set's name."""
_RUNNING_STATES = ("Running", "Frozen", "Ready")


@dataclass(frozen=True)
class ImportOptions:
    """What the user asked for."""

    selection: Selection = field(default_factory=Selection)
    project: str | None = None
    conflict: str = FAIL
    identity: str = AUTO
    power_state: str = RECORDED
    parallel: int = 2
    nice: int = 10

    def __post_init__(self) -> None:
        for option, least, most in (("parallel", 1, 64), ("nice", 0, 19)):
            if not least <= getattr(self, option) <= most:
                raise UsageError(f"{option} must be between {least} and {most}")


@dataclass(frozen=True)
class Target:
    """What of the server matters to the plan.

    Profiles and networks are (project, name), volumes (project, pool, name), as an instance of that project sees them:
    a project without the feature sees those of ``default``.
    """

    instances: tuple[Instance, ...]
    projects: frozenset[str]
    pools: Mapping[str, Pool]
    profiles: frozenset[tuple[str, str]]
    networks: frozenset[tuple[str, str]]
    volumes: frozenset[tuple[str, str, str]]
    storage_drivers: frozenset[str]
    architectures: tuple[str, ...]
    virtual_machines: bool


@dataclass(frozen=True)
class Problem:
    """Something that stands in the way; ``hint`` says what to do about it."""

    code: str
    entity: str
    problem: str
    hint: str

    def told(self) -> dict[str, str]:
        """As plain JSON types."""
        return {"code": self.code, "entity": self.entity, "problem": self.problem, "hint": self.hint}


@dataclass(frozen=True)
class ImportStep:
    """One artifact's part of the plan."""

    action: str
    artifact: Artifact
    reason: str
    regenerate: bool
    start: bool

    @property
    def project(self) -> str:
        """The instance's project."""
        return self.artifact.project

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.artifact.name

    @property
    def entity(self) -> str:
        """``project/name``."""
        return f"{self.project}/{self.name}"

    def told(self) -> dict[str, Any]:
        """The step as plain JSON types."""
        return {
            "action": self.action,
            "kind": self.artifact.kind,
            "project": self.artifact.project,
            "name": self.artifact.name,
            "reason": self.reason,
            "path": self.artifact.path,
            "stored_bytes": self.artifact.stored_bytes,
            "pool": self.artifact.pool,
            "identity": REGENERATE if self.regenerate else KEEP,
            "start": self.start,
            "taken_at": self.artifact.taken_at,
            "guarantee": self.artifact.guarantee,
        }


def plan_import(
    artifacts: Iterable[Artifact], set_name: str, options: ImportOptions, target: Target
) -> tuple[list[ImportStep], list[Problem]]:
    """A step for each artifact, and every problem at once; with a problem, nothing may be done."""
    existing = {(instance.project, instance.name): instance for instance in target.instances}
    steps, problems = [], []
    for artifact in artifacts:
        found = existing.get((artifact.project, artifact.name))
        begun = found.config.get(MARKER) if found is not None else None
        if found is not None and begun == set_name:
            regenerate = found.uuid != artifact.uuid  # what the interrupted run decided
            steps.append(_step(FINISH, artifact, "its restore from this set was interrupted", options, regenerate))
        elif found is not None and begun:
            entity, problem = f"{artifact.project}/{artifact.name}", f"it is there, half restored from the set {begun}"
            problems.append(Problem("half_restored", entity, problem, f"Finish it with set={begun}, or delete it"))
        elif found is not None and options.conflict == SKIP:
            steps.append(_step(SKIP, artifact, "an instance of that name exists", options, False))
        else:
            taken = identity_conflicts(artifact, target.instances)
            regenerate = options.identity == REGENERATE or (options.identity == AUTO and bool(taken))
            problems += _problems(artifact, found, taken if options.identity == KEEP else [], target)
            step = _step(IMPORT, artifact, _why(taken, regenerate), options, regenerate)
            problems += _fixed_address_problems(step, target)
            steps.append(step)
    return steps, problems


def identity_conflicts(artifact: Artifact, instances: Iterable[Instance]) -> list[str]:
    """Which parts of the artifact's identity another instance has, in words."""
    conflicts = []
    wanted = {mac.lower(): nic for nic, mac in artifact.macs.items()}
    for instance in instances:
        if (instance.project, instance.name) == (artifact.project, artifact.name):
            continue
        who = f"{instance.project}/{instance.name}"
        if artifact.uuid is not None and instance.uuid == artifact.uuid:
            conflicts.append(f"{who} has its uuid {artifact.uuid}")
        for mac in instance.macs.values():
            if mac.lower() in wanted:
                conflicts.append(f"{who} has the MAC address {mac} of its {wanted[mac.lower()]}")
    return conflicts


def _fixed_address_problems(step: ImportStep, target: Target) -> list[Problem]:
    """A configured MAC address stays what it is, and with a taken one Incus refuses to start the instance."""
    artifact = step.artifact
    if not (step.regenerate and step.start):
        return []
    fixed = {nic: mac for nic, mac in artifact.macs.items() if nic in artifact.fixed_macs}
    hint = "Change the address of the other instance, or restore with power_state=stopped and change this one's"
    return [
        Problem("address_fixed", step.entity, f"{reason}, and it is configured, so no new one is made", hint)
        for reason in identity_conflicts(replace(artifact, uuid=None, macs=fixed), target.instances)
    ]


def _step(action: str, artifact: Artifact, reason: str, options: ImportOptions, regenerate: bool) -> ImportStep:
    ran = artifact.power_state in _RUNNING_STATES
    start = options.power_state == RUNNING or (options.power_state == RECORDED and ran)
    return ImportStep(action, artifact, reason, regenerate, start and action != SKIP)


def _why(taken: list[str], regenerate: bool) -> str:
    if regenerate and taken:
        return "selected; gets a new identity, because " + ", ".join(taken)
    return "selected; gets a new identity" if regenerate else "selected"


def _problems(artifact: Artifact, found: Instance | None, taken: list[str], target: Target) -> list[Problem]:
    entity = f"{artifact.project}/{artifact.name}"
    problems = []

    def add(code: str, problem: str, hint: str) -> None:
        problems.append(Problem(code, entity, problem, hint))

    if found is not None:
        add("name_taken", "an instance of that name exists", "Rename or delete it, or set conflict=skip")
    for reason in taken:
        add("identity_taken", reason, "Set identity to auto or regenerate, or remove the other instance")
    if artifact.project not in target.projects:
        add("project_missing", f"the project {artifact.project} is missing", "Create the project first")
    else:
        for code, problem, hint in _missing(artifact, target):
            add(code, problem, hint)
    found_elsewhere = (_pool_problems(artifact, target), _machine_problems(artifact, target), _file_problems(artifact))
    for code, problem, hint in chain.from_iterable(found_elsewhere):
        add(code, problem, hint)
    return problems


def _missing(artifact: Artifact, target: Target) -> Iterable[tuple[str, str, str]]:
    needs = artifact.dependencies
    project = artifact.project
    for name in needs.profiles:
        if (project, name) not in target.profiles:
            problem = f"the profile {name} is missing in project {project}"
            yield "profile_missing", problem, "Create the profile first"
    for name in needs.snapshot_profiles:
        if (project, name) not in target.profiles:
            problem = f"the profile {name}, which a snapshot uses, is missing in project {project}"
            yield "profile_missing", problem, "Create the profile first"
    for name in needs.networks:
        if (project, name) not in target.networks:
            problem = f"the network {name} is missing in project {project}"
            yield "network_missing", problem, "Create the network first"
    for volume in needs.volumes:
        pool, _slash, name = volume.partition("/")
        if (project, pool, name) not in target.volumes:
            problem = f"the volume {volume} is missing in project {project}"
            yield "volume_missing", problem, "Restore the volume first"


def _pool_problems(artifact: Artifact, target: Target) -> Iterable[tuple[str, str, str]]:
    """Incus falls back to another pool without a word (cmd/incusd/instances_post.go): we do not."""
    for name in sorted({*artifact.dependencies.pools, artifact.pool or ""} - {""}):
        pool = target.pools.get(name)
        if pool is None:
            yield "pool_missing", f"the storage pool {name} is missing", "Create the pool first"
        elif pool.status not in ("Created", ""):
            yield "pool_unavailable", f"the storage pool {name} is {pool.status}", "Repair the pool first"
    own = target.pools.get(artifact.pool or "")
    if artifact.optimized and own is not None and own.driver != artifact.driver:
        problem = f"the archive is in the format of {artifact.driver}, and the pool {own.name} is of {own.driver}"
        yield "driver_differs", problem, "An optimized archive can only go to a pool of the same driver"
    if artifact.optimized and artifact.driver in OPTIMIZED_DRIVERS and artifact.driver not in target.storage_drivers:
        yield "driver_missing", f"the server cannot use the driver {artifact.driver}", "Install the driver's tools"


def _machine_problems(artifact: Artifact, target: Target) -> Iterable[tuple[str, str, str]]:
    if artifact.architecture and target.architectures and artifact.architecture not in target.architectures:
        problem = f"it is made for {artifact.architecture}, the server runs {', '.join(target.architectures)}"
        yield "architecture", problem, "Restore it on a server of that architecture"
    if artifact.instance_type == "virtual-machine" and not target.virtual_machines:
        yield "no_virtual_machines", "the server cannot run virtual machines", "Install QEMU there, see incus info"


def _file_problems(artifact: Artifact) -> Iterable[tuple[str, str, str]]:
    """A later release may have written the set."""
    if artifact.encryption is not None:
        problem = f"the archive is encrypted ({artifact.encryption}), which this release cannot read"
        yield "encrypted", problem, "Update the collection"
    if artifact.compression not in [method.value for method in Method]:
        problem = f"the archive is compressed with {artifact.compression}, which this release does not know"
        yield "compression_unknown", problem, "Update the collection"
