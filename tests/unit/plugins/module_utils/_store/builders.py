# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Values of the formats, and things that only real processes can do to a store: race, and die at any step."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import StoreFull
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    FORMAT,
    Artifact,
    Dependencies,
    Failure,
    Manifest,
    ServerIdentity,
    SetHead,
    SnapshotRecord,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import Store
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.lease import Lease
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import claim_site
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.sets import NewSet, SetWriter, open_set

SERVER = ServerIdentity(
    name="host1",
    version="7.0",
    clustered=False,
    member=None,
    certificate_fingerprint="ab" * 32,
    extensions=("direct_backup",),
)
NEW = NewSet(
    site="site1", kind="partial", run_id="run-1", server=SERVER, off_host=True, same_device=False, made_by="tests"
)


def an_artifact(name: str, content: bytes = b"bytes", **changes: Any) -> Artifact:
    """The record of an instance's artifact that holds ``content``."""
    project = changes.get("project", "default")
    made = Artifact(
        kind="instance",
        project=project,
        name=name,
        uuid=f"uuid-of-{name}",
        path=f"instances/{project}/{name}.tar.zst",
        stored_bytes=len(content),
        stored_sha256=hashlib.sha256(content).hexdigest(),
        plain_bytes=len(content),
        plain_sha256=hashlib.sha256(content).hexdigest(),
        compression="zstd",
        encryption=None,
        pool="default",
        driver="btrfs",
        member=None,
        instance_type="container",
        architecture="x86_64",
        instance_only=False,
        optimized=False,
        transport="direct",
        method="snapshot",
        guarantee="crash",
        power_state="Running",
        macs={"eth0": "10:66:6a:00:00:01"},
        snapshots=(SnapshotRecord("snap0", "2026-11-20T00:00:00Z", None),),
        dependencies=Dependencies(profiles=("default",), pools=("default",)),
        taken_at="2026-11-23T14:15:00Z",
        seconds=1.5,
        options_digest="0123",
    )
    return replace(made, **changes)


def a_failure(name: str, **changes: Any) -> Failure:
    """An instance that could not be taken."""
    made = Failure(
        kind="instance", project="default", name=name, error="StreamBroken", message="the stream ended early"
    )
    return replace(made, **changes)


def a_head(name: str, **changes: Any) -> SetHead:
    """The head of the set ``name``, of SERVER."""
    made = SetHead(
        format=FORMAT,
        name=name,
        site="site1",
        kind="partial",
        run_id="run-1",
        started_at="2026-11-23T14:15:00Z",
        resumed_from=(),
        server=SERVER,
        off_host=True,
        same_device=False,
        made_by="tests",
    )
    return replace(made, **changes)


def a_manifest(name: str, *artifacts: Artifact, **changes: Any) -> Manifest:
    """A complete set's manifest."""
    made = Manifest(
        format=FORMAT,
        set=a_head(name),
        result="complete",
        finished_at="2026-11-23T14:20:00Z",
        artifacts=artifacts,
        failures=(),
        stored_bytes=sum(artifact.stored_bytes for artifact in artifacts),
        seconds=300.0,
    )
    return replace(made, **changes)


@contextmanager
def a_set(store: Store, directory: str = "site1", resume_within: int = 0, **changes: Any) -> Iterator[SetWriter]:
    """An open set under a lease of its own, in a site that is claimed."""
    new = replace(NEW, **changes)
    with Lease.acquire(store, directory, new.run_id) as lease:
        claim_site(store, directory, new.site, new.server, adopt=True)
        yield open_set(store, directory, lease, new, resume_within=resume_within, usable=lambda _head: True)


def put(writer: SetWriter, artifact: Artifact, content: bytes = b"bytes") -> Artifact:
    """Write and record an artifact."""
    with writer.artifact(artifact.path) as sink:
        sink.write(content)
    writer.record(artifact)
    return artifact


def in_child(work: Callable[[], object]) -> int:
    """Run ``work`` in a forked process; its exit status as ``os.waitstatus_to_exitcode`` has it (1: it raised)."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


CHANGING = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.utime",
    "os.truncate",
    "os.link",
    "shutil.rmtree",
    "open",
)


def killed_before_step(step: int, root: Path, work: Callable[[], object]) -> bool:
    """Run ``work`` in a process that kills itself (-9) before its ``step``-th change below ``root``.

    Steps are what the interpreter audits: every file opened for writing, directory made, name changed or removed
    (relative names are those within an open directory). False where the work has fewer steps and came to its end.
    """
    count = 0

    def is_step(event: str, arguments: tuple[Any, ...]) -> bool:
        place = arguments[0] if arguments else None
        if event not in CHANGING or isinstance(place, int):
            return False
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return False
        return not str(place).startswith("/") or str(place).startswith(str(root))

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if is_step(event, arguments):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    def doomed() -> None:
        sys.addaudithook(hook)
        work()

    status = in_child(doomed)
    assert status in (0, -signal.SIGKILL), f"step {step}: the work failed by itself"
    return status != 0


class FailingStore(Store):
    """A real store that fails at its ``fails_at``-th call, and counts them. Everything else is passed on."""

    def __init__(self, real: DirectoryStore, fails_at: int) -> None:
        self.location = real.location
        self.calls = 0
        self._real = real
        self._fails_at = fails_at

    def _count(self) -> DirectoryStore:
        self.calls += 1
        if self.calls == self._fails_at:
            raise StoreFull("no space left", operation="test", server_said="No space left on device")
        return self._real

    def exists(self, path: str) -> bool:
        return self._count().exists(path)

    def names(self, path: str) -> list[str]:
        return self._count().names(path)

    def files(self, path: str) -> list[str]:
        return self._count().files(path)

    def size(self, path: str) -> int | None:
        return self._count().size(path)

    def read(self, path: str, limit: int) -> bytes:
        return self._count().read(path, limit)

    def open(self, path: str) -> BinaryIO:
        return self._count().open(path)

    def create(self, path: str) -> AbstractContextManager[BinaryIO]:
        return self._count().create(path)

    def replace(self, path: str, content: bytes) -> None:
        self._count().replace(path, content)

    def delete(self, path: str) -> None:
        self._count().delete(path)

    def delete_tree(self, path: str) -> None:
        self._count().delete_tree(path)

    def make_directory(self, path: str, *, exclusive: bool) -> bool:
        return self._count().make_directory(path, exclusive=exclusive)

    def publish_directory(self, path: str) -> None:
        self._count().publish_directory(path)

    def lock(self, path: str) -> AbstractContextManager[None]:
        return self._count().lock(path)

    def touch(self, path: str) -> None:
        self._count().touch(path)

    def age(self, path: str) -> float | None:
        return self._count().age(path)

    def free_bytes(self) -> int | None:
        return self._count().free_bytes()


needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT RUN: mounting a small file system needs root (CI has it)"
)
