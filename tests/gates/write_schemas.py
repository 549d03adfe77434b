# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Writes docs/formats/*.schema.json from the code: ``python tests/gates/write_schemas.py``, nothing to install."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
FORMATS = CHECKOUT / "docs" / "formats"


def schemas() -> dict[str, str]:
    """The schema files' names and contents, as the code has them now; the collection must be importable."""
    from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import schema
    from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
        FORMAT,
        Artifact,
        Manifest,
        Owner,
    )

    kinds = {"manifest": Manifest, "record": Artifact, "site": Owner}
    return {
        f"{name}.schema.json": json.dumps(schema(cls, f"urn:incus-fleet-backup:{name}:{FORMAT}"), indent=2) + "\n"
        for name, cls in kinds.items()
    }


def main() -> None:
    """Write them, with the checkout importable under the collection's name."""
    with tempfile.TemporaryDirectory() as tree:
        namespace = Path(tree) / "ansible_collections" / "incus_fleet"
        namespace.mkdir(parents=True)
        (namespace / "backup").symlink_to(CHECKOUT)
        sys.path.insert(0, tree)
        FORMATS.mkdir(parents=True, exist_ok=True)
        for name, content in schemas().items():
            (FORMATS / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
