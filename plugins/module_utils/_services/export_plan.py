# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Decide what an export does, from what is wanted and what is there; nothing in here touches anything."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Compression, Method
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.consistency import (
    OPTIMIZED_DRIVERS,
    Consistency,
    consistency,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import file_name
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.selection import Selection
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import Instance, Pool

EXPORT, REUSE, REFUSE = "export", "reuse", "refuse"
DIRECT, STAGED = "direct", "staged"


@dataclass(frozen=True)
class ExportOptions:
    """What the user asked for. ``compress_threads`` 0 means: what leaves a core to the guests."""

    selection: Selection = field(default_factory=Selection)
    project: str | None = None
    instance_only: bool = False
    optimized_storage: bool = False
    optimized_fallback: bool = False
    compression: Compression = field(default_factory=lambda: Compression(Method.ZSTD))
    compress_threads: int = 0
    nice: int = 10
    rate_limit: int = 0
    parallel: int = 2

    def __post_init__(self) -> None:
        for option, least, most in (("parallel", 1, 64), ("compress_threads", 0, 256), ("nice", 0, 19)):
            if not least <= getattr(self, option) <= most:
                raise UsageError(f"{option} must be between {least} and {most}")
        if self.rate_limit < 0:
            raise UsageError("rate_limit must not be negative", hint="0 is no limit")
        if self.optimized_fallback and not self.optimized_storage:
            raise UsageError("optimized_fallback makes sense with optimized_storage only")

    def digest(self) -> str:
        """Tells whether an artifact was made with options that lead to the same kind of file."""
        told = [self.instance_only, self.optimized_storage, self.optimized_fallback, str(self.compression)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]

    def threads(self, processors: int) -> int:
        """Compression threads for each of the parallel exports."""
        return self.compress_threads or max(1, (processors - 1) // self.parallel)


@dataclass(frozen=True)
class ExportStep:
    """One instance's part of the plan. ``reason`` says why this action; ``warnings`` go into the record."""

    action: str
    instance: Instance
    reason: str
    path: str
    pool: Pool | None
    optimized: bool
    transport: str
    planned: Consistency
    warnings: tuple[str, ...] = ()
    hint: str | None = None

    @property
    def project(self) -> str:
        """The instance's project."""
        return self.instance.project

    @property
    def name(self) -> str:
        """The instance's name."""
        return self.instance.name

    @property
    def entity(self) -> str:
        """``project/name``."""
        return f"{self.project}/{self.name}"

    def told(self) -> dict[str, Any]:
        """The step as plain JSON types, for the result and for people."""
        return {
            "action": self.action,
            "kind": "instance",
            "project": self.instance.project,
            "name": self.instance.name,
            "reason": self.reason,
            "path": self.path,
            "pool": self.pool.name if self.pool else None,
            "driver": self.pool.driver if self.pool else None,
            "optimized": self.optimized,
            "transport": self.transport,
            "method": self.planned.method,
            "guarantee": self.planned.guarantee,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Surroundings:
    """What of the server matters to the plan."""

    pools: Mapping[str, Pool]
    projects: Mapping[str, Mapping[str, Any]]
    direct_backup: bool


def plan_export(
    instances: Iterable[Instance], options: ExportOptions, around: Surroundings, finished: Iterable[Artifact] = ()
) -> list[ExportStep]:
    """A step for each instance; ``finished`` are the artifacts that the resumed set holds already."""
    by_identity = {(item.project, item.name, item.uuid): item for item in finished if item.kind == "instance"}
    return [_step(instance, options, around, by_identity) for instance in instances]


def covers(artifacts: Iterable[Artifact], instances: Iterable[Instance], options: ExportOptions) -> bool:
    """Whether there is an artifact, made with the same options, of every one of the instances."""
    have = {
        (item.project, item.name, item.uuid)
        for item in artifacts
        if item.kind == "instance" and item.options_digest == options.digest()
    }
    return all((instance.project, instance.name, instance.uuid) in have for instance in instances)


def artifact_path(instance: Instance, compression: Compression) -> str:
    """Where an instance's artifact lies in a set."""
    return f"instances/{file_name(instance.project)}/{file_name(instance.name)}{compression.suffix()}"


def _step(
    instance: Instance,
    options: ExportOptions,
    around: Surroundings,
    finished: Mapping[tuple[str, str, str | None], Artifact],
) -> ExportStep:
    pool = around.pools.get(instance.root_pool or "")
    action, reason, hint = EXPORT, "selected", None
    optimized, warnings = options.optimized_storage, []
    found = finished.get((instance.project, instance.name, instance.uuid))
    if found is not None and found.options_digest == options.digest():
        action, reason = REUSE, f"finished at {found.taken_at} by the run that is resumed"
    elif instance.is_unknown:
        action, reason = REFUSE, "the server lists it, but cannot look at it"
        hint = "Is its cluster member online, are its profiles and devices in order?"
    elif _forbids_backups(around.projects.get(instance.project)):
        action, reason = REFUSE, f"the project {instance.project} forbids backups (restricted.backups=block)"
        hint = "Set restricted.backups=allow on the project, or leave its instances out"
    elif pool is None:
        action, reason = REFUSE, f"its root disk's pool {instance.root_pool!r} is not on the server"
        hint = "Repair the instance's root device"
    elif optimized and pool.driver not in OPTIMIZED_DRIVERS:
        optimized = False
        said = f"the driver {pool.driver} of pool {pool.name} has no optimized format"
        if options.optimized_fallback:
            warnings.append(f"{said}: exported in the plain format")
        else:
            action, reason = REFUSE, said
            hint = "Leave optimized_storage off for it, or set optimized_fallback=true"
    return ExportStep(
        action=action,
        instance=instance,
        reason=reason,
        path=artifact_path(instance, options.compression),
        pool=pool,
        optimized=optimized,
        transport=DIRECT if around.direct_backup else STAGED,
        planned=consistency(driver=pool.driver if pool else "", instance_type=instance.type, status=instance.status),
        warnings=tuple(warnings),
        hint=hint,
    )


def _forbids_backups(project: Mapping[str, Any] | None) -> bool:
    """A restricted project refuses exports unless it allows them (Incus: doc/config_options.txt)."""
    config = (project or {}).get("config") or {}
    return config.get("restricted") == "true" and config.get("restricted.backups", "block") == "block"
