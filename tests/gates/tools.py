# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates that are one run of a tool."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.gates.model import NotRun, Outcome
from tests.gates.workshop import COLLECTION, Workshop


def run(command: Sequence[str | Path], *, log: Path, env: Mapping[str, str], cwd: Path) -> int:
    """Run a tool without input, append what it says to the log, and return its exit code."""
    with log.open("ab") as sink:
        sink.write(("$ " + " ".join(str(word) for word in command) + "\n").encode())
        sink.flush()
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=env, cwd=cwd
        )
    return done.returncode


def ask(command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path) -> str:
    """Run a command without input for what it prints; raises CalledProcessError."""
    done = subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=env, cwd=cwd, text=True
    )
    return done.stdout


def judged(code: int, log: Path, lines: int = 200) -> Outcome:
    """An outcome from an exit code; a failure shows the end of the log."""
    return Outcome.of(log.read_text("utf-8", "replace").splitlines()[-lines:] if code else [])


def ruff_check(shop: Workshop, log: Path) -> Outcome:
    """Ruff finds nothing."""
    return _ruff(shop, log, "check", "--output-format=concise")


def ruff_format(shop: Workshop, log: Path) -> Outcome:
    """Every Python file is as ruff would write it."""
    return _ruff(shop, log, "format", "--check")


def _ruff(shop: Workshop, log: Path, *words: str) -> Outcome:
    command = ["ruff", *words, "--cache-dir", str(shop.own / "ruff"), "."]
    return judged(run(command, log=log, env=shop.surroundings("dev"), cwd=shop.checkout), log)


def mypy(shop: Workshop, log: Path) -> Outcome:
    """Types are right, strictly: plugins, lab, demo, benchmarks and gates, each under the name it is imported by."""
    env = shop.surroundings("dev")
    command = ["mypy", "--config-file", str(shop.checkout / "mypy.ini"), "--cache-dir", str(shop.own / "mypy")]
    package = ".".join((*COLLECTION.parts, "plugins"))
    code = 0
    for path, name, python in (
        (f"{shop.linked()}", package, "3.10"),
        (f"{shop.checkout / 'tests/lab'}", "fleetlab", "3.11"),
        (f"{shop.checkout}", "tests.lab.fleetdemo", "3.11"),
        (f"{shop.checkout}:{shop.linked()}", "benchmarks", "3.11"),
        (f"{shop.checkout}:{shop.linked()}", "tests.gates", "3.11"),
    ):
        words = [*command, "--python-version", python, "--package", name]
        # Elsewhere than in the checkout, or a file there would be found under two names.
        code |= run(words, log=log, env={**env, "MYPYPATH": path}, cwd=shop.own)
    return judged(code, log)


def yamllint(shop: Workshop, log: Path) -> Outcome:
    """YAML is tidy, warnings included."""
    command = ["yamllint", "--strict", "--format", "parsable", "."]
    return judged(run(command, log=log, env=shop.surroundings("dev"), cwd=shop.checkout), log)


def shellcheck(shop: Workshop, log: Path) -> Outcome:
    """Shell scripts are sound, also those without a suffix."""
    if not shutil.which("shellcheck"):
        raise NotRun("shellcheck is not installed")
    scripts = [name for name in shop.files() if _is_shell(shop.checkout / name)]
    return judged(run(["shellcheck", *scripts], log=log, env=shop.surroundings("dev"), cwd=shop.checkout), log)


def _is_shell(path: Path) -> bool:
    with path.open("rb") as handle:
        first = handle.readline(80)
    return first.startswith(b"#!") and first.split(b"/")[-1].split()[-1] in (b"sh", b"bash")


def ansible_lint(shop: Workshop, log: Path) -> Outcome:
    """ansible-lint's production profile finds nothing, without asking any server."""
    root = shop.exported("lint")
    env = {**shop.surroundings("dev"), "ANSIBLE_COLLECTIONS_PATH": str(root), "ANSIBLE_HOME": str(shop.own / "lint")}
    command = ["ansible-lint", "--offline", "--profile", "production", "--strict", "--format", "pep8"]
    return judged(run(command, log=log, env=env, cwd=root / COLLECTION), log)


def antsibull_docs(shop: Workshop, log: Path) -> Outcome:
    """The modules' and roles' documentation is sound and refers to things that exist."""
    root = shop.exported("docs")
    env = {**shop.surroundings("dev"), "ANSIBLE_COLLECTIONS_PATH": str(root)}
    command = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", "."]
    return judged(run(command, log=log, env=env, cwd=root / COLLECTION), log)


def antsibull_changelog(shop: Workshop, log: Path) -> Outcome:
    """The changelog and its fragments are sound."""
    root = shop.exported("docs")
    command = ["antsibull-changelog", "lint"]
    return judged(run(command, log=log, env=shop.surroundings("dev"), cwd=root / COLLECTION), log)
