# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The lease: who is at work in a site, and whether that run is still alive."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import final

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import decode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    BackupError,
    LeaseHeld,
    SetInvalid,
    StoreError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import now
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import PART_SUFFIX, Store

LEASE = "lease.json"
HEARTBEAT_SECONDS = 15.0
SILENT_AFTER = 120.0
IDLE_AFTER = 900.0


@dataclass(frozen=True)
class Holder:
    """A process, in a way that a later process of the same number is not taken for it.

    ``world`` tells the kernel's boot and the process-number namespace: only within the same one can a process be
    looked up; everywhere else only the heartbeat counts.
    """

    host: str
    world: str
    pid: int
    started: str


@dataclass(frozen=True)
class LeaseRecord:
    """The lease's file. ``holder`` is null while a run is between two of its modules."""

    run_id: str
    token: str
    acquired_at: str
    host: str
    holder: Holder | None
    set: str | None = None


def this_process() -> Holder:
    """The holder that is us."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    world = f"{boot}:{os.stat('/proc/self/ns/pid').st_ino}"
    return Holder(host=socket.gethostname(), world=world, pid=os.getpid(), started=process_start(os.getpid()) or "")


def process_start(pid: int) -> str | None:
    """When a process began, in the kernel's ticks since boot (proc(5), field 22); None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def why_alive(record: LeaseRecord, me: Holder, age: float) -> str | None:
    """Why the lease still counts, in words, or None where its run is dead. ``age``: seconds since its heartbeat."""
    holder = record.holder
    if holder is None:
        return f"it is between two of its steps since {age:.0f} s" if age < IDLE_AFTER else None
    if holder.world == me.world:
        return f"its process {holder.pid} is alive" if process_start(holder.pid) == holder.started else None
    return f"its last sign of life from {holder.host} is {age:.0f} s old" if age < SILENT_AFTER else None


@final
class Lease:
    """A held lease; use as a context manager: it beats while held, and is released or handed on at the end.

    Leaving the block releases the lease; after ``hand_on()`` it stays for the run's next module instead.
    """

    def __init__(self, store: Store, directory: str, record: LeaseRecord, replaced: LeaseRecord | None) -> None:
        self.store = store
        self.record = record
        self.replaced = replaced  # the dead (or handed on) lease whose place this one took
        self._directory = directory
        self._path = f"{directory}/{LEASE}"
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None
        self._keep = False

    @classmethod
    def acquire(cls, store: Store, directory: str, run_id: str) -> Lease:
        """Take the site's lease for ``run_id``; raises LeaseHeld where another live run (or module) has it."""
        me = this_process()
        store.make_directory(directory, exclusive=False)
        with store.lock(directory):
            held = ensure_free(store, directory, run_id)
            _sweep_pieces(store, directory)
            record = LeaseRecord(
                run_id=run_id,
                token=secrets.token_hex(8),
                acquired_at=format_moment(now()),
                host=me.host,
                holder=me,
                set=held.set if held is not None and held.run_id == run_id else None,
            )
            store.replace(f"{directory}/{LEASE}", _dump(record))
        return cls(store, directory, record, held)

    def __enter__(self) -> Lease:
        self._beat = threading.Thread(target=self._keep_beating, name="lease", daemon=True)
        self._beat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
        try:
            self._release()
        except BackupError:
            if error is None:  # else the store is in trouble: the first cause is what must be told
                raise

    def _release(self) -> None:
        with self.store.lock(self._directory):
            if not self._still_ours():
                return
            if self._keep:
                self.store.replace(self._path, _dump(replace(self.record, holder=None)))
            else:
                self.store.delete(self._path)

    def hand_on(self) -> None:
        """Leave the lease to the next module of this run when the block ends."""
        self._keep = True

    def note_set(self, name: str) -> None:
        """Write down which set the run is making."""
        self.record = replace(self.record, set=name)
        with self.store.lock(self._directory):
            self.check()
            self.store.replace(self._path, _dump(self.record))

    def check(self) -> None:
        """Raise LeaseHeld where another run has taken the lease over; called before anything is published."""
        if not self._still_ours():
            raise LeaseHeld(
                f"the lease of {self._directory} was taken over by another run",
                hint="This run was silent for too long; look at the other run, then run again",
            )

    def _still_ours(self) -> bool:
        held = read_lease(self.store, self._directory)
        return held is not None and held.token == self.record.token

    def _keep_beating(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if not self._still_ours():
                    return  # taken over: a beat now would be for somebody else's life
                self.store.touch(self._path)
            except BackupError:  # the store is in trouble: the module's own work will meet it and say so
                continue


def read_lease(store: Store, directory: str) -> LeaseRecord | None:
    """The lease that lies in a site's directory, None where there is none or it is not readable."""
    path = f"{directory}/{LEASE}"
    if not store.exists(path):
        return None
    try:
        return decode(LeaseRecord, json.loads(store.read(path, 64 * 1024)), path)
    except (SetInvalid, ValueError, RecursionError):
        return None
    except StoreError:
        if store.exists(path):
            raise
        return None  # given back between the two looks


def ensure_free(store: Store, directory: str, run_id: str) -> LeaseRecord | None:
    """The dead (or handed on) lease that a run would replace; raises LeaseHeld where another live run has it."""
    held = read_lease(store, directory)
    if held is None or not _ours_to_take(held, run_id):
        reason = _why_kept(held, this_process(), store.age(f"{directory}/{LEASE}"))
        if reason is not None:
            raise _held(held, directory, store, reason)
    return held


def live_lease(store: Store, directory: str) -> LeaseRecord | None:
    """The lease, where its run is alive."""
    held = read_lease(store, directory)
    if held is None:
        return None
    age = store.age(f"{directory}/{LEASE}")
    return held if age is not None and why_alive(held, this_process(), age) else None


def _why_kept(held: LeaseRecord | None, me: Holder, age: float | None) -> str | None:
    """Why the lease may not be taken, None where it may; one that cannot be read counts while it is young."""
    if age is None:
        return None
    if held is None:  # written by a later release, perhaps, whose run is alive
        return f"its lease cannot be read and is {age:.0f} s old" if age < IDLE_AFTER else None
    return why_alive(held, me, age)


def _sweep_pieces(store: Store, directory: str) -> None:
    """Delete what a run that was killed while it wrote a lease or an owner record left; the lock is held."""
    for name in store.names(directory):
        if name.endswith(PART_SUFFIX):
            store.delete(f"{directory}/{name}")


def _ours_to_take(held: LeaseRecord, run_id: str) -> bool:
    return held.run_id == run_id and held.holder is None


def _held(held: LeaseRecord | None, directory: str, store: Store, reason: str) -> LeaseHeld:
    who = f"run {held.run_id}" if held is not None else "a run"
    return LeaseHeld(
        f"{who} is at work in {directory} ({reason})",
        operation="take the lease",
        entity=held.set if held is not None else None,
        server=store.location,
        hint="Let it end, or stop it; then run again: what it finished is kept",
    )


def _dump(record: LeaseRecord) -> bytes:
    return (json.dumps(asdict(record), indent=2) + "\n").encode()
