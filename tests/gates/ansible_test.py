# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates that are ansible-test's, in virtual environments instead of containers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tests.gates.junit import count_cases
from tests.gates.model import Outcome
from tests.gates.tools import judged, run
from tests.gates.workshop import COLLECTION, ENVIRONMENTS, Workshop, lock

CORES = [name for name in ENVIRONMENTS if name.startswith("core-")]


def sanity(core: str) -> Callable[[Workshop, Path], Outcome]:
    """ansible-test's sanity tests with one ansible-core."""

    def check(shop: Workshop, log: Path) -> Outcome:
        # Without the tool the test would fail; the gate "shellcheck" then says NOT RUN once for all.
        left_out = [] if shutil.which("shellcheck") else ["--skip-test", "shellcheck"]
        code = _ansible_test(shop, log, core, "sanity", *left_out)
        findings = [line for line in log.read_text("utf-8").splitlines() if line.startswith(("ERROR", "FATAL"))]
        return Outcome.of((findings or ["ansible-test failed"]) if code else [])

    return check


def units(core: str) -> Callable[[Workshop, Path], Outcome]:
    """The unit tests under ansible-test with one ansible-core; each test case counts."""

    def check(shop: Workshop, log: Path) -> Outcome:
        results = shop.own / f"export-{core}" / COLLECTION / "tests/output/junit"
        shutil.rmtree(results, ignore_errors=True)
        code = _ansible_test(shop, log, core, "units", "--num-workers", "2")
        outcome = count_cases(sorted(results.glob("*.xml")))
        if (code and not outcome.failed) or not outcome.passed:
            outcome.failed += 1
        if outcome.failed:
            outcome.shown = judged(1, log).shown
        return outcome

    return check


def _ansible_test(shop: Workshop, log: Path, core: str, *words: str) -> int:
    python = ENVIRONMENTS[core]
    env = shop.surroundings(core)
    root = shop.exported(core)
    # The environments that ansible-test makes itself are in the tools' home, which all checkouts share.
    with lock(shop.cache / "ansible-test.lock"):
        command = ["ansible-test", words[0], "--venv", "--python", python, "--color", "no", *words[1:]]
        return run(command, log=log, env=env, cwd=root / COLLECTION)
