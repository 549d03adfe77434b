# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Answers questions about a store: which sets, which recovery points, what is unfinished or broken."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Artifact
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX, Store
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.catalogue import (
    Filter,
    StoredSet,
    newest_complete,
    open_sets,
    published_sets,
    recovery_points,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import live_lease
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import read_head


@dataclass(frozen=True)
class Question:
    """What is asked; None means any. ``name`` and ``project`` are exact, ``limit`` counts the newest sets."""

    site: str | None
    wanted: Filter
    project: str | None
    name: str | None
    limit: int | None


def describe_store(store: Store, question: Question) -> dict[str, Any]:
    """The answer as plain JSON types, newest first everywhere."""
    sets, broken = published_sets(store, question.site, question.wanted)
    if question.name is not None or question.project is not None:
        sets = [found for found in sets if _points([found], question)]
    newest = newest_complete(sets)
    sets = sets[: question.limit]
    return {
        "changed": False,
        "sets": [describe_set(found) for found in sets],
        "newest": describe_set(newest) if newest else None,
        "recovery_points": [_point(found, artifact) for found, artifact in _points(sets, question)],
        "incomplete": [_open_set(store, path) for path in open_sets(store, question.site)],
        "broken": [{"set_path": item.path, **item.error.facts()} for item in broken],
    }


def describe_set(found: StoredSet) -> dict[str, Any]:
    """A set in one line, so to speak."""
    manifest, head = found.manifest, found.manifest.set
    return {
        "set": head.name,
        "set_path": found.path,
        "site": found.site,
        "member": found.member,
        "kind": head.kind,
        "result": manifest.result,
        "run_id": head.run_id,
        "started_at": head.started_at,
        "finished_at": manifest.finished_at,
        "server": head.server.name,
        "server_version": head.server.version,
        "off_host": head.off_host,
        "artifacts": len(manifest.artifacts),
        "failures": [asdict(failure) for failure in manifest.failures],
        "stored_bytes": manifest.stored_bytes,
    }


def _points(sets: list[StoredSet], question: Question) -> list[tuple[StoredSet, Artifact]]:
    return list(recovery_points(sets, kind=None, project=question.project, name=question.name))


def _point(found: StoredSet, artifact: Artifact) -> dict[str, Any]:
    return {
        "set": found.name,
        "set_path": found.path,
        "site": found.site,
        "kind": artifact.kind,
        "project": artifact.project,
        "name": artifact.name,
        "uuid": artifact.uuid,
        "taken_at": artifact.taken_at,
        "path": artifact.path,
        "stored_bytes": artifact.stored_bytes,
        "method": artifact.method,
        "guarantee": artifact.guarantee,
        "snapshots": [snapshot.name for snapshot in artifact.snapshots],
    }


def _open_set(store: Store, path: str) -> dict[str, Any]:
    directory, _slash, name = path.rpartition("/")
    head = read_head(store, path + INCOMPLETE_SUFFIX)
    lease = live_lease(store, directory)
    return {
        "set": name,
        "set_path": path,
        "run_id": head.run_id if head else None,
        "started_at": head.started_at if head else None,
        "alive": lease is not None and lease.set == name,
    }
