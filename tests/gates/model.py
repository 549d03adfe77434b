# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a gate is, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.gates.workshop import Workshop


class NotRun(Exception):
    """A gate could not run here; says what is missing.  Never counted as passed."""


@dataclass
class Outcome:
    """What a gate found: counts of what passed and failed, what could not run, and what a reader must see."""

    passed: int = 0
    failed: int = 0
    not_run: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, problems: list[str]) -> Outcome:
        """One check that passes when there are no problems, and shows them when there are."""
        return cls(passed=0 if problems else 1, failed=1 if problems else 0, shown=problems)

    def add(self, other: Outcome) -> None:
        """Take another outcome's counts and lines into this one."""
        self.passed += other.passed
        self.failed += other.failed
        self.not_run += other.not_run
        self.shown += other.shown


@dataclass(frozen=True)
class Gate:
    """A named check. ``group`` is what make asks for; gates of one ``lane`` never run at the same time."""

    name: str
    group: str
    check: Callable[[Workshop, Path], Outcome]
    lane: str = "checks"


@dataclass(frozen=True)
class Report:
    """A gate that has been tried."""

    gate: Gate
    outcome: Outcome
    seconds: float
    log: Path

    @property
    def verdict(self) -> str:
        """PASS, FAIL, or NOT RUN where nothing at all could be tried."""
        if self.outcome.failed:
            return "FAIL"
        return "PASS" if self.outcome.passed else "NOT RUN"
