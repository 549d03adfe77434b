# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Exports instances into a set: survey the server, decide, then act on the same plan, several instances at a time."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import StoreError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import COMPLETE, Artifact, Failure
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import now
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.selection import select
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.progress import Progress
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.throttle import Throttle
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import (
    Instance,
    list_instances,
    list_projects,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export_one import (
    ExportContext,
    export_instance,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export_plan import (
    EXPORT,
    REFUSE,
    ExportOptions,
    ExportStep,
    Surroundings,
    covers,
    plan_export,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.parallel import for_each
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.site import (
    Site,
    SiteOptions,
    own_pools,
    placement_warnings,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.sweep import leftovers, sweep
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import (
    Filter,
    StoredSet,
    published_sets,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import Lease
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import (
    SetWriter,
    drop_dead_sets,
    runs_of_open_sets,
)

DIRECT_BACKUP = "direct_backup"


@dataclass(frozen=True)
class Run:
    """What an export is called with, beside the client. ``max_age`` in seconds, None to take always."""

    where: SiteOptions
    options: ExportOptions
    max_age: int | None
    state_directory: Path
    stop: Stop


@dataclass
class ExportResult:
    """The answer of a run; sizes in bytes, time in seconds."""

    changed: bool = False
    set: str | None = None
    set_path: str | None = None
    run_id: str | None = None
    result: str | None = None
    reason: str | None = None
    resumed_from: tuple[str, ...] = ()
    steps: list[ExportStep] = field(default_factory=list)
    artifacts: list[Artifact] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    swept: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """The result as plain JSON types; the keys are always the same."""
        return {
            "changed": self.changed,
            "set": self.set,
            "set_path": self.set_path,
            "run_id": self.run_id,
            "result": self.result,
            "reason": self.reason,
            "resumed_from": list(self.resumed_from),
            "plan": [step.told() for step in self.steps],
            "artifacts": [_brief(artifact) for artifact in self.artifacts],
            "failures": [asdict(failure) for failure in self.failures],
            "succeeded": len(self.artifacts),
            "stored_bytes": sum(artifact.stored_bytes for artifact in self.artifacts),
            "plain_bytes": sum(artifact.plain_bytes for artifact in self.artifacts),
            "swept": self.swept,
            "seconds": round(self.seconds, 3),
        }


def run_export(client: IncusClient, run: Run) -> ExportResult:
    """Take what is selected into a set. One bad instance does not stop the others: look at ``failures``.

    Raises BackupError where nothing could be done at all, and where the store itself failed; what was finished until
    then stays in the open set and is not taken again by the next run.
    """
    began = time.monotonic()
    site = Site.of(client, run.where)
    pools = own_pools(client, site.server)
    placement = site.place(client, pools)
    instances = _located(list_instances(client, project=run.options.project), site)
    selected = select(instances, run.options.selection)
    around = Surroundings(
        pools={pool.name: pool for pool in pools},
        projects=list_projects(client),
        direct_backup=client.has(DIRECT_BACKUP),
    )
    result = ExportResult(run_id=site.run_id, warnings=placement_warnings(placement))
    young = _young_set(site, run, selected)
    if young is not None:
        result.set, result.set_path, result.result = young.name, young.path, young.manifest.result
        result.reason = f"the complete set {young.name} is younger than max_age and holds all that is selected"
        return result
    if run.where.check_mode:
        result.steps = plan_export(selected, run.options, around, site.finished(placement))
        result.changed = any(step.action == EXPORT for step in result.steps)
        result.failures = [_refusal(step) for step in result.steps if step.action == REFUSE]
        return result
    with site.lease() as lease:
        result.swept, told = sweep(client, leftovers(instances), _dead_runs(site, lease))
        result.warnings += told
        writer = site.writer(lease, placement)
        result.set, result.resumed_from = writer.head.name, writer.head.resumed_from
        result.steps = plan_export(selected, run.options, around, writer.artifacts())
        _act(client, writer, result, run)
        result.changed = True
        _finish(site, lease, writer, result)
    result.seconds = time.monotonic() - began
    return result


def _located(instances: list[Instance], site: Site) -> list[Instance]:
    """In a cluster, a member's set holds what is located on that member."""
    if not site.server.clustered:
        return instances
    return [instance for instance in instances if instance.location == site.server.member]


def _young_set(site: Site, run: Run, selected: list[Instance]) -> StoredSet | None:
    """The newest complete set that makes this run unnecessary."""
    if run.max_age is None or run.where.set:
        return None
    wanted = Filter(kind="partial", result=COMPLETE, after=now() - timedelta(seconds=run.max_age))
    for found in published_sets(site.store, site.name, wanted)[0]:
        if found.member == site.server.member and covers(found.manifest.artifacts, selected, run.options):
            return found
    return None


def _dead_runs(site: Site, lease: Lease) -> set[str]:
    """The runs of this site that are over: we hold its lease, so nobody else is at work here."""
    runs = runs_of_open_sets(site.store, site.directory) | {site.run_id}
    return runs | ({lease.replaced.run_id} if lease.replaced else set())


def _act(client: IncusClient, writer: SetWriter, result: ExportResult, run: Run) -> None:
    """Carry out the plan; fills the result. A failure of the store itself ends the run for all, and is raised."""
    finished = {artifact.path: artifact for artifact in writer.artifacts()}
    for step in result.steps:
        if step.action == REFUSE:
            result.failures.append(_refusal(step))
        elif step.action != EXPORT:
            result.artifacts.append(finished[step.path])
        else:  # another instance of that name, or other options: a set holds one artifact of an entity
            for artifact in finished.values():
                if (artifact.kind, artifact.project, artifact.name) == ("instance", step.project, step.name):
                    writer.discard(artifact.path)
    todo = [step for step in result.steps if step.action == EXPORT]
    name = "-".join(filter(None, (writer.head.site, writer.head.server.member)))
    progress = Progress(run.state_directory, name, {"run_id": writer.head.run_id, "total": len(todo)})
    context = ExportContext(
        options=run.options,
        threads=run.options.threads(os.cpu_count() or 1),
        throttle=Throttle(run.options.rate_limit, sleep=run.stop.wait) if run.options.rate_limit else None,
        stop=run.stop,
        on_progress=progress.update,
        warn=result.warnings.append,
    )
    outcome = for_each(
        client,
        todo,
        lambda own, step: export_instance(own, writer, step, context),
        parallel=run.options.parallel,
        stop=run.stop,
        progress=progress,
        fatal=(StoreError,),
    )
    result.artifacts += outcome.done
    result.failures += outcome.failures
    result.warnings += [progress.problem] if progress.problem else []
    if result.failures:
        writer.note_failures(result.failures)


def _finish(site: Site, lease: Lease, writer: SetWriter, result: ExportResult) -> None:
    """Publish a set of our own; one that the run opened before is the run's to publish."""
    if site.options.set:
        lease.hand_on()
        return
    if writer.is_empty():
        writer.abort()
        result.set, result.changed = None, bool(result.swept)
        result.reason = "nothing was taken, so no set was published"
        return
    manifest = writer.publish()
    result.set_path, result.result = writer.path, manifest.result
    if manifest.result == COMPLETE:
        drop_dead_sets(site.store, site.directory, older_than=site.options.resume_within)


def _refusal(step: ExportStep) -> Failure:
    return Failure(
        kind="instance",
        project=step.instance.project,
        name=step.instance.name,
        error="Refused",
        message=step.reason,
        operation="plan the export",
        entity=step.entity,
        hint=step.hint,
    )


def _brief(artifact: Artifact) -> dict[str, Any]:
    """What a result says of an artifact; the rest is in the manifest."""
    told = asdict(artifact)
    keys = (
        "kind", "project", "name", "path", "stored_bytes", "stored_sha256", "plain_bytes", "compression", "optimized",
        "transport", "method", "guarantee", "seconds",
    )  # fmt: skip
    return {key: told[key] for key in keys}
