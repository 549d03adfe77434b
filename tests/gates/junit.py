# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting test cases from JUnit files."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from tests.gates.model import Outcome


def count_cases(files: Sequence[Path]) -> Outcome:
    """Each case once: passed, failed (errors included), or not run where it was skipped, with the reason."""
    outcome = Outcome()
    for file in files:
        for case in ET.parse(file).iter("testcase"):
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                outcome.failed += 1
            elif skipped is not None:
                name = f"{case.get('classname')}::{case.get('name')}"
                outcome.not_run.append(f"{name}: {skipped.get('message')}")
            else:
                outcome.passed += 1
    return outcome
