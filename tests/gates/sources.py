# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates that read the sources themselves: licences and switched-off checks."""

from __future__ import annotations

import fnmatch
import itertools
import re
from pathlib import Path

import tomllib

from tests.gates.model import Outcome
from tests.gates.workshop import Workshop

MOST_SUPPRESSIONS = 10
LICENCE = "SPDX-License-Identifier: GPL-3.0-or-later"
_SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma|ruff:|mypy:|pylint:)")
# A reason is a comment of its own after the switch: `# type: ignore[arg-type]  # pylxd's annotation says str only`.
_REASON = re.compile(r"#\s*(?:noqa|type:\s*ignore|pragma|ruff:|mypy:|pylint:)[^#]*#\s*\S+\s+\S+")


def suppressions(shop: Workshop, log: Path) -> Outcome:
    """Few checks are switched off in the plugins, each with its reason on the line; sanity ignores nothing at all."""
    found: list[str] = []
    problems: list[str] = []
    for name in shop.files():
        if name.parts[0] == "plugins" and name.suffix == ".py":
            lines = (shop.checkout / name).read_text("utf-8").splitlines()
            for number, line in enumerate(lines, 1):
                if _SUPPRESSION.search(line):
                    found.append(f"{name}:{number}: {line.strip()}")
                    if not _REASON.search(line):
                        problems.append(f"{name}:{number}: a check is switched off without a reason on its line")
        if name.match("tests/sanity/ignore-*.txt") and (shop.checkout / name).read_text("utf-8").strip():
            problems.append(f"{name}: sanity ignores must be empty")
    if len(found) > MOST_SUPPRESSIONS:
        problems += [f"{len(found)} checks are switched off in plugins/, {MOST_SUPPRESSIONS} at most:", *found]
    log.write_text("\n".join([f"{len(found)} suppressions in plugins/", *found, *problems]) + "\n", "utf-8")
    return Outcome.of(problems)


def licences(shop: Workshop, log: Path) -> Outcome:
    """Every file names its licence, in its head or in REUSE.toml."""
    declared = tomllib.loads((shop.checkout / "REUSE.toml").read_text("utf-8"))
    globs = [glob for annotation in declared["annotations"] for glob in annotation["path"]]
    problems = []
    for name in shop.files():
        with (shop.checkout / name).open(encoding="utf-8", errors="replace") as handle:
            head = "".join(itertools.islice(handle, 10))
        if LICENCE not in head and not any(fnmatch.fnmatch(str(name), glob) for glob in globs):
            problems.append(f'{name}: no line "{LICENCE}" at its top, and not in REUSE.toml')
    log.write_text("\n".join(problems), "utf-8")
    return Outcome.of(problems)
