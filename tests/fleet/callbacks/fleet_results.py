# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes each task's result as one line of JSON, whatever else is printed."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fleet_results
type: notification
short_description: Write each result as a line of JSON into the file that FLEET_RESULTS names
description:
  - For the tests in tests/fleet only.
"""


class CallbackModule(CallbackBase):
    """One line for each result: host, task, outcome, and what the module returned."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "fleet_results"
    CALLBACK_NEEDS_ENABLED = True

    def _note(self, outcome: str, result: Any) -> None:
        line = {
            "host": result._host.get_name(),
            "task": result._task.get_name(),
            "outcome": outcome,
            "result": result._result,
        }
        with open(os.environ["FLEET_RESULTS"], "a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note("failed", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._note("unreachable", result)
