# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Carries out the steps of a plan, several at a time, so that one that fails does not stop the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import Failure
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.progress import Progress
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.stop import Stop
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient


class Step(Protocol):
    """A step of a plan that is about one entity."""

    @property
    def project(self) -> str:
        """The entity's project."""

    @property
    def name(self) -> str:
        """The entity's name."""


_GLANCE = 0.2  # seconds
S = TypeVar("S", bound=Step)
R = TypeVar("R")


@dataclass
class Outcome(Generic[R]):
    """What the steps came to, in the order in which they ended."""

    done: list[R] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def for_each(
    client: IncusClient,
    steps: Sequence[S],
    work: Callable[[IncusClient, S], R],
    *,
    parallel: int,
    stop: Stop,
    progress: Progress,
    fatal: tuple[type[BackupError], ...] = (),
) -> Outcome[R]:
    """Call ``work`` for every step, in ``parallel`` threads with a client each.

    Errors of one entity become failures.  An error of a ``fatal`` type, and a requested stop, end the work of all; it
    is raised once every thread has come to rest.
    """
    outcome: Outcome[R] = Outcome()
    lock, own = threading.Lock(), threading.local()
    ended_by: list[BackupError] = []

    def take(step: S) -> None:
        if stop.requested:
            return
        try:
            if not hasattr(own, "client"):
                own.client = client.clone_for_thread()
            result = work(own.client, step)
        except fatal as error:
            with lock:
                ended_by.append(error)
            stop.request(error)
        except BackupError as error:
            with lock:
                outcome.failures.append(Failure.of(step.project, step.name, error))
        else:
            with lock:
                outcome.done.append(result)
        finally:
            progress.done(f"{step.project}/{step.name}")

    try:
        with ThreadPoolExecutor(max_workers=parallel, thread_name_prefix="step") as executor:
            futures = [executor.submit(take, step) for step in steps]
            # Not once and for all: a signal that another thread took is handled here, and only between two waits.
            while wait(futures, timeout=_GLANCE).not_done:
                pass
        for future in futures:
            future.result()  # raises what is no BackupError
    finally:
        progress.close()
    if ended_by:
        raise ended_by[0]
    stop.check()
    return outcome
