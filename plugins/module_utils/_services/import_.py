# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Imports instances from a set: look at the server, decide, name every problem at once, then act on the same plan."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import encode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    NothingSelected,
    PreflightFailed,
    SetInvalid,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    COMPLETE,
    Artifact,
    Failure,
    ServerIdentity,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import checked_site, set_time
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.selection import select
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.progress import Progress
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.instances import (
    list_instances,
    list_networks,
    list_profiles,
    list_projects,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.volumes import list_custom_volumes
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_one import (
    ImportContext,
    import_instance,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_plan import (
    SKIP,
    ImportOptions,
    ImportStep,
    Target,
    plan_import,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.parallel import for_each
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.site import identify, own_pools
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import (
    Filter,
    StoredSet,
    published_sets,
    read_set,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import site_directory


@dataclass(frozen=True)
class Run:
    """What an import is called with, beside the client."""

    store: str
    site: str | None
    set: str | None
    target: str | None
    before: datetime | None
    options: ImportOptions
    state_directory: Path
    check_mode: bool
    stop: Stop


@dataclass
class ImportResult:
    """The answer of a run; sizes in bytes, time in seconds."""

    set: str
    set_path: str
    steps: list[ImportStep]
    changed: bool = False
    restored: list[dict[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """The result as plain JSON types; the keys are always the same."""
        return {
            "changed": self.changed,
            "set": self.set,
            "set_path": self.set_path,
            "plan": [step.told() for step in self.steps],
            "restored": self.restored,
            "failures": [asdict(failure) for failure in self.failures],
            "succeeded": len(self.restored),
            "left_alone": sum(step.action == SKIP for step in self.steps),
            "stored_bytes": sum(item["stored_bytes"] for item in self.restored),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class _Candidate:
    """An artifact in the shape that a selection looks at."""

    artifact: Artifact

    @property
    def project(self) -> str:
        return self.artifact.project

    @property
    def name(self) -> str:
        return self.artifact.name

    @property
    def raw(self) -> dict[str, Any]:
        told: dict[str, Any] = encode(self.artifact)
        return told


def run_import(client: IncusClient, run: Run) -> ImportResult:
    """Bring back what is selected. One bad archive does not stop the others: look at ``failures``.

    Raises PreflightFailed, with every problem, before anything is moved; other BackupErrors where nothing could be
    done at all.
    """
    began = time.monotonic()
    store = DirectoryStore.attach(run.store, create=False)
    server = identify(client, run.target)
    if server.member and server.member != client.facts.name:
        raise UsageError(
            f"an import lands on the member that is asked, {client.facts.name}, and not on {server.member}",
            server=client.server,
            hint="Incus ignores the target of an import: connect to that member's own url",
        )
    found = _find_set(store, run, server.member)
    artifacts = _selected(found, run)
    steps, problems = plan_import(artifacts, found.name, run.options, _survey(client, server, artifacts))
    if problems:
        raise PreflightFailed(
            f"{len(problems)} problem(s) stand in the way, nothing was changed: "
            + "; ".join(f"{item.entity}: {item.problem}" for item in problems[:20]),
            [item.told() for item in problems],
            operation="check the restore",
            server=client.server,
            entity=", ".join(sorted({item.entity for item in problems})[:20]),
            hint="; ".join(dict.fromkeys(item.hint for item in problems)),
        )
    result = ImportResult(set=found.name, set_path=found.path, steps=steps)
    todo = [step for step in steps if step.action != SKIP]
    result.changed = bool(todo)
    if todo and not run.check_mode:
        _act(client, todo, result, run, store)
    result.seconds = time.monotonic() - began
    return result


def _find_set(store: DirectoryStore, run: Run, member: str | None) -> StoredSet:
    """The set that is named, or the newest complete one of the site (before a moment)."""
    if not run.site:
        raise UsageError("site is required", hint="Name the server (or cluster) that the set is of")
    if run.set and run.before:
        raise UsageError("set and before exclude each other")
    site = checked_site(run.site)
    directory = site_directory(site, member)
    if run.set:
        if set_time(run.set) is None:
            raise UsageError(f"{run.set!r} is not a set's name")
        if not store.exists(f"{directory}/{run.set}"):
            raise SetInvalid(
                f"{directory} has no published set {run.set}",
                operation="find the set",
                entity=run.set,
                hint="List the sets with incus_backup_info",
            )
        return read_set(store, f"{directory}/{run.set}", site, member)
    sets, broken = published_sets(store, site, Filter(kind="partial", result=COMPLETE, before=run.before))
    usable = [found for found in sets if found.member == member]
    if not usable:
        raise SetInvalid(
            f"{directory} has no complete set" + (" before that moment" if run.before else ""),
            operation="find the newest complete set",
            entity=site,
            server_said="; ".join(item.error.message for item in broken) or None,
            hint="List what there is with incus_backup_info, and name a set",
        )
    return usable[0]


def _selected(found: StoredSet, run: Run) -> list[Artifact]:
    candidates = [
        _Candidate(artifact)
        for artifact in found.manifest.artifacts
        if artifact.kind == "instance" and run.options.project in (None, artifact.project)
    ]
    try:
        return [candidate.artifact for candidate in select(candidates, run.options.selection)]
    except NothingSelected as error:
        error.hint = f"Other sets may have it, see incus_backup_info. {error.hint or ''}".strip()
        raise error.within(operation="select from the set", entity=found.name) from error


def _survey(client: IncusClient, server: ServerIdentity, artifacts: list[Artifact]) -> Target:
    """What of the server the plan needs, in a handful of requests whatever the number of artifacts."""
    projects = list_projects(client)
    pools = {pool.name: pool for pool in own_pools(client, server)}
    concerned = sorted({artifact.project for artifact in artifacts} & set(projects))
    wanted = {volume.partition("/")[0] for artifact in artifacts for volume in artifact.dependencies.volumes}
    return Target(
        instances=tuple(list_instances(client)),
        projects=frozenset(projects),
        pools=pools,
        profiles=frozenset((project, name) for project in concerned for name in list_profiles(client, project)),
        networks=frozenset((project, name) for project in concerned for name in list_networks(client, project)),
        volumes=frozenset(
            (project, pool, name)
            for pool in sorted(wanted & set(pools))
            for project in concerned
            for name in list_custom_volumes(client, pool, project)
        ),
        storage_drivers=client.facts.storage_drivers,
        architectures=client.facts.architectures,
        virtual_machines="qemu" in client.facts.instance_drivers,
    )


def _act(client: IncusClient, todo: list[ImportStep], result: ImportResult, run: Run, store: DirectoryStore) -> None:
    progress = Progress(run.state_directory, f"{run.site}-import", {"set": result.set, "total": len(todo)})
    context = ImportContext(
        store=store,
        base=result.set_path,
        set_name=result.set,
        options=run.options,
        stop=run.stop,
        on_progress=progress.update,
        warn=result.warnings.append,
    )
    outcome = for_each(
        client,
        todo,
        lambda own, step: import_instance(own, step, context),
        parallel=run.options.parallel,
        stop=run.stop,
        progress=progress,
    )
    result.restored, result.failures = outcome.done, outcome.failures
    result.warnings += [progress.problem] if progress.problem else []
