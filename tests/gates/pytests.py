# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates that are pytest on the checkout itself."""

from __future__ import annotations

import os
from pathlib import Path

from tests.gates.junit import count_cases
from tests.gates.model import NotRun, Outcome
from tests.gates.tools import judged, run
from tests.gates.workshop import Workshop

NOTHING_COLLECTED = 5


def unit(shop: Workshop, log: Path) -> Outcome:
    """The unit tests, quickly: one ansible-core, no throw-away environments."""
    return _pytest(shop, log, "tests/unit", "--numprocesses", "2")


def lab(shop: Workshop, log: Path) -> Outcome:
    """The tests on the lab: its own, and those of the collection on a fleet of real servers."""
    if os.geteuid() != 0:
        raise NotRun("the lab needs root")
    folders = [name for name in ("tests/lab", "tests/fleet") if (shop.checkout / name).is_dir()]
    return _pytest(shop, log, *folders)


def _pytest(shop: Workshop, log: Path, *words: str) -> Outcome:
    results = log.with_suffix(".xml")
    results.unlink(missing_ok=True)
    root = shop.linked()
    # The real home: the lab keeps its images where the user's other caches are.
    env = {
        **os.environ,
        "PATH": os.pathsep.join([str(shop.environment("dev")), os.environ["PATH"]]),
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANSIBLE_COLLECTIONS_PATH": str(root),
    }
    command = ["python", "-m", "pytest", "-q", "-ra", "-o", f"cache_dir={shop.own / 'pytest'}", f"--junitxml={results}"]
    wanted = os.environ.get("K", "")
    if wanted:
        command += ["-k", wanted]
    code = run([*command, *words], log=log, env=env, cwd=shop.checkout)
    outcome = count_cases([results] if results.exists() else [])
    if code == NOTHING_COLLECTED and wanted:
        outcome.not_run.append(f"no test matches K={wanted}")
    elif code and not outcome.failed:
        outcome.failed += 1
    if outcome.failed:
        outcome.shown = judged(code, log).shown
    return outcome
