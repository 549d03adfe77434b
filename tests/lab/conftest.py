# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Labs of checkouts that exist for one test: copies of this directory elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleetlab.checkout import PREFIX, STATE, checkout_key

HERE = Path(__file__).resolve().parent


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "lab: needs root and starts real hosts")


class LabCopy:
    """A checkout of its own, with the lab's command in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.command = root / "tests/lab/lab"
        self.key = checkout_key(root)
        ignored = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(HERE, root / "tests/lab", ignore=ignored)

    def run(self, *words: str, check: bool = True, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Run `lab WORDS`; with ``check``, a failure shows what it printed."""
        done = subprocess.run(
            [self.command, *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **env},
        )
        if check and done.returncode:
            pytest.fail(f"lab {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def out(self, *words: str) -> str:
        return self.run(*words).stdout.strip()

    def has_network_of(self, name: str) -> bool:
        """Whether a host's network is there, which is early in its life; a look that costs no time."""
        return any(Path("/run/netns").glob(f"{PREFIX}-{self.key}-host-{name}"))

    def traces(self) -> list[str]:
        """Everything on this machine that bears this checkout's key."""
        found = [str(path) for path in STATE.glob(f"*{self.key}*")]
        found += [str(path) for path in STATE.glob(f"pool-*/run/{self.key}")]
        found += [str(path) for path in Path("/run/netns").glob(f"{PREFIX}-{self.key}*")]
        found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{PREFIX}-{self.key}*")]
        found += [
            line for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines() if self.key in line
        ]
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if self.key in words:
                found.append(words)
        return found


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The host images, made beforehand: what waits for something in a test shall not wait for a download."""
    LabCopy(tmp_path_factory.mktemp("images") / "checkout").run("build", "--install")


@pytest.fixture
def new_lab(images: None, tmp_path: Path) -> Iterator[Callable[[str], LabCopy]]:
    """Makes labs of checkouts that share the images with this one and nothing else; they go down with the test."""
    made: list[LabCopy] = []

    def make(name: str) -> LabCopy:
        made.append(LabCopy(tmp_path / name))
        return made[-1]

    yield make
    for lab in made:
        lab.run("down")
        assert lab.traces() == []


@pytest.fixture
def lab(new_lab: Callable[[str], LabCopy]) -> LabCopy:
    return new_lab("checkout")
