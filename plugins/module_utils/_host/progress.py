# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The progress file: what a long module is doing, for whoever looks at the host meanwhile."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import now

STATE_DIRECTORY = "/var/lib/incus-fleet"
_EVERY_SECONDS = 2.0


class Progress:
    """Writes ``<state>/progress/<name>.json`` atomically, at most every two seconds; deleted at the end.

    A state directory that cannot be written must not stop a backup: ``problem`` tells it, once, for a warning.
    """

    def __init__(self, state_directory: Path, name: str, head: dict[str, Any]) -> None:
        self.problem: str | None = None
        self._path = state_directory / "progress" / f"{name}.json"
        self._draft = self._path.with_name(f"{name}.json.part")
        self._content: dict[str, Any] = {**head, "pid": os.getpid(), "now": {}}
        self._lock = threading.Lock()
        self._written = 0.0

    def update(self, entity: str, plain_bytes: int) -> None:
        """Note how many bytes of ``entity`` have passed."""
        with self._lock:
            self._content["now"][entity] = plain_bytes
            self._write_if_due()

    def done(self, entity: str) -> None:
        """Note that ``entity`` is finished."""
        with self._lock:
            self._content["now"].pop(entity, None)
            self._content["done"] = self._content.get("done", 0) + 1
            self._written = 0.0
            self._write_if_due()

    def close(self) -> None:
        """The work is over: delete the file."""
        with self._lock:
            for path in (self._path, self._draft):
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self.problem = self.problem or f"progress is not shown: {error}"

    def _write_if_due(self) -> None:
        if self.problem or time.monotonic() - self._written < _EVERY_SECONDS:
            return
        self._written = time.monotonic()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            content = {**self._content, "updated_at": format_moment(now())}
            self._draft.write_text(json.dumps(content), encoding="utf-8")
            self._draft.rename(self._path)
        except OSError as error:
            self.problem = f"progress is not shown: {error}"
