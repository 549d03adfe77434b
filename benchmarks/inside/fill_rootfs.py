# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs inside a host: fills a directory with copies of the host's own small files, the same ones every time.

usage: fill_rootfs.py DIRECTORY MIB   (prints a JSON object: files, bytes)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

LARGEST = 128 * 1024


def small_files(root: Path) -> list[Path]:
    """Every regular file that is neither empty nor large, in the order of the names."""
    found = []
    for folder, _folders, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and 0 < path.stat().st_size <= LARGEST:
                found.append(path)
    return sorted(found)


def fill(target: Path, wanted: int) -> dict[str, int]:
    """Copy the files again and again, each round into a directory of its own, until ``wanted`` bytes are there."""
    sources = small_files(Path("/usr"))
    files = size = 0
    while size < wanted:
        copy = target / f"copy{files // len(sources):03d}"
        for source in sources:
            if size >= wanted:
                break
            place = copy / source.relative_to("/usr")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
            files += 1
            size += source.stat().st_size
    return {"files": files, "bytes": size}


if __name__ == "__main__":
    print(json.dumps(fill(Path(sys.argv[1]), int(sys.argv[2]) << 20)))
