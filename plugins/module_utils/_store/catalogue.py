# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Reading what a store holds: sites, sets and the recovery points in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import decode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import parse_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError, SetInvalid, UsageError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    COMPLETE,
    FORMAT,
    Artifact,
    Manifest,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import (
    checked_site,
    file_name,
    is_site,
    original_name,
    set_time,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX, Store
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import OWNER
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import MANIFEST, incomplete_sets, read_json


@dataclass(frozen=True)
class StoredSet:
    """A published set; ``path`` is relative to the store."""

    path: str
    site: str
    member: str | None
    manifest: Manifest

    @property
    def name(self) -> str:
        """The set's name."""
        return self.manifest.set.name

    @property
    def started(self) -> datetime:
        """When it was opened."""
        return parse_moment(self.manifest.set.started_at)


@dataclass(frozen=True)
class Unreadable:
    """A set that looks published, or a whole site, that cannot be read."""

    path: str
    error: BackupError


@dataclass(frozen=True)
class Filter:
    """Which sets are wanted; None means any."""

    kind: str | None = None
    result: str | None = None
    run_id: str | None = None
    before: datetime | None = None
    after: datetime | None = None


def site_directories(store: Store, site: str | None) -> list[tuple[str, str, str | None]]:
    """(directory, site, member) of the site and its members, or of all sites in the store that can be read."""
    return _directories(store, site)[0]


def _directories(store: Store, site: str | None) -> tuple[list[tuple[str, str, str | None]], list[Unreadable]]:
    found: list[tuple[str, str, str | None]] = []
    broken: list[Unreadable] = []
    for name in [checked_site(site)] if site else filter(is_site, store.names("")):
        try:
            within = store.names(name)
        except BackupError as error:
            if site:
                raise
            broken.append(Unreadable(name, error))
            continue
        if _holds_sets(within):
            found.append((name, name, None))
        for member in filter(_is_member, within):
            try:
                if _holds_sets(store.names(f"{name}/{member}")):
                    found.append((f"{name}/{member}", name, original_name(member)))
            except BackupError as error:  # one strange thing must not hide the others
                broken.append(Unreadable(f"{name}/{member}", error))
    return found, broken


def _holds_sets(names: list[str]) -> bool:
    """Whether a directory with these names in it is a server's: sets are found also where the owner record is lost."""
    return any(name == OWNER or set_time(name.removesuffix(INCOMPLETE_SUFFIX)) for name in names)


def _is_member(name: str) -> bool:
    """Whether a name in a site's directory can be that of a member's directory; sets and ``.lock`` cannot."""
    if set_time(name.removesuffix(INCOMPLETE_SUFFIX)):
        return False
    try:
        return file_name(original_name(name)) == name
    except UsageError:
        return False


def read_set(store: Store, path: str, site: str, member: str | None) -> StoredSet:
    """A published set; raises SetInvalid where its manifest is missing, damaged, misplaced or of a newer format."""
    if not store.exists(f"{path}/{MANIFEST}"):
        raise SetInvalid(f"{path} has no manifest", operation="read the set", entity=path)
    content = read_json(store, f"{path}/{MANIFEST}")
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise SetInvalid(
            f"{path} has format {found}, newer than this release knows", entity=path, hint="Update the collection"
        )
    manifest = decode(Manifest, content, f"{path}/{MANIFEST}")
    if path.rpartition("/")[2] != manifest.set.name:
        raise SetInvalid(f"{path} holds the manifest of another set ({manifest.set.name})", entity=path)
    try:
        parse_moment(manifest.set.started_at)
    except UsageError as error:
        raise SetInvalid(f"{path} was made at no known time", entity=path, server_said=error.message) from error
    return StoredSet(path=path, site=site, member=member, manifest=manifest)


def published_sets(store: Store, site: str | None, wanted: Filter) -> tuple[list[StoredSet], list[Unreadable]]:
    """The published sets that fit, newest first, and those that cannot be read."""
    sets: list[StoredSet] = []
    directories, broken = _directories(store, site)
    for directory, of_site, member in directories:
        for name in store.names(directory):
            if set_time(name) is None:
                continue
            try:
                found = read_set(store, f"{directory}/{name}", of_site, member)
            except BackupError as error:
                broken.append(Unreadable(f"{directory}/{name}", error))
                continue
            if _fits(found, wanted):
                sets.append(found)
    return sorted(sets, key=lambda item: (item.started, item.name), reverse=True), broken


def open_sets(store: Store, site: str | None) -> list[str]:
    """The paths of sets that are not published: still being made, or left by a run that died."""
    return [
        f"{directory}/{name}"
        for directory, _site, _member in site_directories(store, site)
        for name in incomplete_sets(store, directory)
    ]


def recovery_points(
    sets: list[StoredSet], *, kind: str | None, project: str | None, name: str | None
) -> Iterator[tuple[StoredSet, Artifact]]:
    """Every good artifact of the entities meant, with its set, in the order of ``sets``. Names are exact."""
    for found in sets:
        for artifact in found.manifest.artifacts:
            if kind in (None, artifact.kind) and project in (None, artifact.project) and name in (None, artifact.name):
                yield found, artifact


def newest_complete(sets: list[StoredSet]) -> StoredSet | None:
    """The newest set without failures."""
    return next((found for found in sets if found.manifest.result == COMPLETE), None)


def _fits(found: StoredSet, wanted: Filter) -> bool:
    head = found.manifest.set
    return (
        wanted.kind in (None, head.kind)
        and wanted.result in (None, found.manifest.result)
        and wanted.run_id in (None, head.run_id)
        and (wanted.before is None or found.started < wanted.before)
        and (wanted.after is None or found.started >= wanted.after)
    )
