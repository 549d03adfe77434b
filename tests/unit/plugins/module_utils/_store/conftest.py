# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A new store on a real file system."""
    return DirectoryStore.attach(str(tmp_path / "store"), create=True)


@pytest.fixture
def reachable() -> Iterator[DirectoryStore]:
    """A new store that other users can reach (pytest's own directories are closed to them)."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o755)
        store = DirectoryStore.attach(f"{place}/store", create=True)
        store.root.chmod(0o755)
        for name in os.listdir(store.root):
            (store.root / name).chmod(0o644)
        yield store


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "incus-fleet-test", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
