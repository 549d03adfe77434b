# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Making a set: opened (or resumed) under a lease, filled artifact by artifact, published with its manifest last."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import BinaryIO

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import decode, encode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment, parse_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    BackupError,
    SetInvalid,
    StoreError,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    COMPLETE,
    FORMAT,
    WITH_FAILURES,
    Artifact,
    Failure,
    Manifest,
    ServerIdentity,
    SetHead,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import (
    new_set_name,
    now,
    set_kind,
    set_time,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.paperwork import readme, restore_script
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import INCOMPLETE_SUFFIX, Store
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import Lease

HEAD = "set.json"
MANIFEST = "manifest.json"
FAILURES = "failures.json"
RECORD_SUFFIX = ".json"
_ATTEMPTS = 20
_LIMIT = 256 * 1024 * 1024
_PAPERS = (MANIFEST, "README.txt", "restore.sh")
_OWN_FILES = (HEAD, FAILURES, *_PAPERS)


@dataclass(frozen=True)
class NewSet:
    """What a set is opened with."""

    site: str
    kind: str
    run_id: str
    server: ServerIdentity
    off_host: bool
    same_device: bool
    made_by: str


class SetWriter:
    """A set that is being made. Its lease must be held all the while.

    Artifacts may be added from several threads.
    """

    def __init__(self, store: Store, directory: str, head: SetHead, lease: Lease) -> None:
        self.store = store
        self.head = head
        self._directory = directory
        self._lease = lease
        self._lock = threading.Lock()
        self.base = f"{directory}/{head.name}{INCOMPLETE_SUFFIX}"

    @property
    def path(self) -> str:
        """Where the set will lie once it is published, relative to the store."""
        return f"{self._directory}/{self.head.name}"

    def artifact(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A sink for a new artifact's bytes; it appears under its name only when the block ends well."""
        self._lease.check()
        return self.store.create(f"{self.base}/{path}")

    def record(self, artifact: Artifact) -> None:
        """Note a finished artifact, at once and on disk: from here on a later run can go on from it."""
        self._lease.check()
        self._write(artifact.path + RECORD_SUFFIX, encode(artifact))

    def discard(self, path: str) -> None:
        """Delete an artifact with its record."""
        self.store.delete(f"{self.base}/{path}{RECORD_SUFFIX}")
        self.store.delete(f"{self.base}/{path}")

    def artifacts(self) -> list[Artifact]:
        """The finished artifacts, by path."""
        found = []
        for name in _record_names(self.store, self.base):
            artifact = decode(Artifact, self._read(name), name)
            if artifact.path + RECORD_SUFFIX != name:
                raise SetInvalid(f"{self.base}/{name} is the record of another file ({artifact.path})")
            found.append(artifact)
        return found

    def note_failures(self, failures: Iterable[Failure]) -> None:
        """Add failures to those that the manifest will name; a later one of the same entity replaces an earlier."""
        with self._lock:
            named = {(failure.kind, failure.project, failure.name): failure for failure in self.failures()}
            named.update({(failure.kind, failure.project, failure.name): failure for failure in failures})
            self._write(FAILURES, [encode(failure) for failure in named.values()])

    def failures(self) -> list[Failure]:
        """What could not be taken, and is not in the set by now either."""
        if not self.store.exists(f"{self.base}/{FAILURES}"):
            return []
        taken = {(artifact.kind, artifact.project, artifact.name) for artifact in self.artifacts()}
        content = self._read(FAILURES)
        if not isinstance(content, list):
            raise SetInvalid(f"{self.base}/{FAILURES}: expected a list, found {type(content).__name__}")
        noted = [decode(Failure, item, FAILURES) for item in content]
        return [failure for failure in noted if (failure.kind, failure.project, failure.name) not in taken]

    def publish(self) -> Manifest:
        """Write the manifest, last of all, and give the set its final name.

        Raises StoreError for an empty set, SetInvalid where a recorded file is not what was recorded, LeaseHeld.
        """
        artifacts, failures = self.artifacts(), self.failures()
        if not artifacts:
            raise StoreError(
                f"the set {self.head.name} holds nothing and is not published",
                operation="publish the set",
                hint=f"{len(failures)} failure(s) were noted; look at them first",
            )
        for artifact in artifacts:
            if not self._is_whole(artifact):
                raise SetInvalid(
                    f"{self.base}/{artifact.path} is not there with its {artifact.stored_bytes} bytes any more",
                    operation="publish the set",
                    entity=f"{artifact.project}/{artifact.name}",
                    hint="Run again: it is taken anew, what is whole is kept",
                )
        self._sweep_unrecorded(_OWN_FILES, artifacts)
        finished = now()
        manifest = Manifest(
            format=FORMAT,
            set=self.head,
            result=WITH_FAILURES if failures else COMPLETE,
            finished_at=format_moment(finished),
            artifacts=tuple(artifacts),
            failures=tuple(failures),
            stored_bytes=sum(artifact.stored_bytes for artifact in artifacts),
            seconds=(finished - parse_moment(self.head.started_at)).total_seconds(),
        )
        self.store.replace(f"{self.base}/README.txt", readme(manifest).encode())
        self.store.replace(f"{self.base}/restore.sh", restore_script(manifest).encode())
        if not failures:  # those of a first try that came well; real ones stay, or a second publish would forget them
            self.store.delete(f"{self.base}/{FAILURES}")
        with self.store.lock(self._directory):  # so that nobody takes the lease over between the check and the end
            self._lease.check()
            self._write(MANIFEST, encode(manifest))
            self.store.publish_directory(self.path)
        return manifest

    def abort(self) -> None:
        """Delete the set with all that is in it."""
        self._lease.check()
        self.store.delete_tree(self.base)

    def is_empty(self) -> bool:
        """Whether no artifact is finished yet."""
        return not self.artifacts()

    def tidy(self) -> list[str]:
        """After a death: delete what has no (readable) record, or not the recorded size. Returns what was deleted."""
        return self._sweep_unrecorded((HEAD, FAILURES), whole_artifacts(self.store, self.base))

    def _is_whole(self, artifact: Artifact) -> bool:
        return self.store.size(f"{self.base}/{artifact.path}") == artifact.stored_bytes

    def _sweep_unrecorded(self, own: Iterable[str], artifacts: Iterable[Artifact]) -> list[str]:
        known = set(own)
        for artifact in artifacts:
            known |= {artifact.path, artifact.path + RECORD_SUFFIX}
        stray = [name for name in self.store.files(self.base) if name not in known]
        for name in stray:
            self.store.delete(f"{self.base}/{name}")
        return stray

    def _write(self, name: str, content: object) -> None:
        self.store.replace(f"{self.base}/{name}", (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())

    def _read(self, name: str) -> object:
        return read_json(self.store, f"{self.base}/{name}")


def open_set(
    store: Store, directory: str, lease: Lease, new: NewSet, *, resume_within: int, usable: Callable[[SetHead], bool]
) -> SetWriter:
    """Go on with the newest dead set that is not older than ``resume_within`` seconds, or open a new one.

    The caller holds the site's lease, hence no incomplete set of this site is alive.  ``usable`` decides whether a
    set's head fits what is to be done.
    """
    head = find_resumable(store, directory, new, resume_within=resume_within, usable=usable)
    if head is not None:
        return _resume(store, directory, lease, new, head)
    return _create(store, directory, lease, new, now())


def find_resumable(
    store: Store, directory: str, new: NewSet, *, resume_within: int, usable: Callable[[SetHead], bool]
) -> SetHead | None:
    """The head of the incomplete set that ``open_set`` would go on with, None where it would open a new one."""
    moment = now()
    for name in reversed(incomplete_sets(store, directory)):
        opened = set_time(name)
        if opened is None or (moment - opened).total_seconds() > resume_within or set_kind(name) != new.kind:
            continue
        head = read_head(store, f"{directory}/{name}{INCOMPLETE_SUFFIX}")
        if (
            head is None
            or head.name != name
            or not usable(head)
            or head.server.certificate_fingerprint != new.server.certificate_fingerprint
        ):
            continue
        return head
    return None


def whole_artifacts(store: Store, base: str) -> list[Artifact]:
    """The finished artifacts of a set that was left by a death: with a readable record, and of the recorded size."""
    good = []
    for name in _record_names(store, base):
        try:
            artifact = decode(Artifact, read_json(store, f"{base}/{name}"), name)
        except SetInvalid:
            continue
        if artifact.path + RECORD_SUFFIX == name and store.size(f"{base}/{artifact.path}") == artifact.stored_bytes:
            good.append(artifact)
    return good


def _record_names(store: Store, base: str) -> list[str]:
    return [name for name in store.files(base) if name.endswith(RECORD_SUFFIX) and name not in _OWN_FILES]


def join_set(store: Store, directory: str, lease: Lease, name: str, run_id: str) -> SetWriter:
    """The open set ``name`` of this run; raises SetInvalid where it is not open or belongs to another run."""
    if set_time(name) is None:
        raise UsageError(f"{name!r} is not a set's name")
    head = read_head(store, f"{directory}/{name}{INCOMPLETE_SUFFIX}")
    if head is None or head.name != name:
        state = "published already" if store.exists(f"{directory}/{name}") else "not there"
        raise SetInvalid(f"the set {name} is {state}", operation="join the set", hint="Open one with incus_backup_set")
    if head.run_id != run_id:
        raise SetInvalid(f"the set {name} belongs to run {head.run_id}, not to {run_id}", operation="join the set")
    writer = SetWriter(store, directory, head, lease)
    writer.tidy()  # the run's module before us may have been killed
    lease.note_set(name)
    return writer


def incomplete_sets(store: Store, directory: str) -> list[str]:
    """The names (without suffix) of the sets in a site that are not published, oldest first."""
    names = [
        name.removesuffix(INCOMPLETE_SUFFIX) for name in store.names(directory) if name.endswith(INCOMPLETE_SUFFIX)
    ]
    return [name for name in names if set_time(name)]


def drop_dead_sets(store: Store, directory: str, *, older_than: int) -> list[str]:
    """Delete the incomplete sets that no run will go on with; call it after a newer set is published."""
    limit = now().timestamp() - older_than
    dead = []
    for name in incomplete_sets(store, directory):
        opened = set_time(name) or datetime.now(timezone.utc)
        if opened.timestamp() < limit:
            store.delete_tree(f"{directory}/{name}{INCOMPLETE_SUFFIX}")
            dead.append(name)
    return dead


def runs_of_open_sets(store: Store, directory: str) -> set[str]:
    """The runs that made, or went on with, the site's incomplete sets."""
    heads = [read_head(store, f"{directory}/{name}{INCOMPLETE_SUFFIX}") for name in incomplete_sets(store, directory)]
    return {run for head in heads if head for run in (head.run_id, *head.resumed_from)}


def read_head(store: Store, base: str) -> SetHead | None:
    """An open set's head, None where there is none or it cannot be read (a death between two steps)."""
    if not store.exists(f"{base}/{HEAD}"):
        return None
    try:
        head = decode(SetHead, read_json(store, f"{base}/{HEAD}"), HEAD)
    except SetInvalid:
        return None
    return head if head.format == FORMAT else None


def read_json(store: Store, path: str) -> object:
    """Parsed JSON of a small file in the store; raises SetInvalid."""
    try:
        content: object = json.loads(store.read(path, _LIMIT))
    except (ValueError, RecursionError) as error:
        raise SetInvalid(f"{path} is not readable", operation="read", server_said=str(error)) from error
    return content


def _resume(store: Store, directory: str, lease: Lease, new: NewSet, head: SetHead) -> SetWriter:
    if head.run_id != new.run_id:
        head = replace(head, run_id=new.run_id, resumed_from=(*head.resumed_from, head.run_id))
    writer = SetWriter(store, directory, head, lease)
    writer.tidy()
    writer._write(HEAD, encode(head))
    lease.note_set(head.name)
    return writer


def _create(store: Store, directory: str, lease: Lease, new: NewSet, moment: datetime) -> SetWriter:
    for _attempt in range(_ATTEMPTS):
        name = new_set_name(new.kind, moment)
        taken = store.exists(f"{directory}/{name}")
        if taken or not store.make_directory(f"{directory}/{name}{INCOMPLETE_SUFFIX}", exclusive=True):
            continue
        head = SetHead(
            format=FORMAT,
            name=name,
            site=new.site,
            kind=new.kind,
            run_id=new.run_id,
            started_at=format_moment(moment),
            resumed_from=(),
            server=new.server,
            off_host=new.off_host,
            same_device=new.same_device,
            made_by=new.made_by,
        )
        writer = SetWriter(store, directory, head, lease)
        try:
            writer._write(HEAD, encode(head))
            lease.note_set(name)
        except BackupError:
            with suppress(BackupError):  # a full store must not gather empty sets; the first cause is what must be told
                store.delete_tree(writer.base)
            raise
        return writer
    raise StoreError(f"no free set name in {directory} after {_ATTEMPTS} tries", operation="open a set")
