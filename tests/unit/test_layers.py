# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Imports of the plugins point downwards only, and each outside library is known in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parents[2] / "plugins"
OURS = "ansible_collections.incus_fleet.backup.plugins."
UTILS = OURS + "module_utils."
# Each layer of module_utils, and the layers that it may import besides itself.
BELOW = {
    "_core": set(),
    "_host": {"_core"},
    "_incus": {"_core", "_host"},
    "_store": {"_core", "_host"},
    "_services": {"_core", "_host", "_incus", "_store"},
    "_ansible": {"_core", "_host", "_incus", "_store", "_services"},
}
HTTP = {"http", "httpx", "pylxd", "requests", "requests_toolbelt", "requests_unixsocket", "urllib3", "ws4py"}


def imports(source: str) -> Iterator[str]:
    """The absolute dotted names that a file imports, wherever in the file; names of a from-import are appended."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_by(folder: Path) -> list[tuple[str, str]]:
    """(file, imported name) of every Python file under a folder."""
    found = [
        (str(path.relative_to(PLUGINS)), name)
        for path in sorted(folder.rglob("*.py"))
        for name in imports(path.read_text("utf-8"))
    ]
    assert found, f"nothing is imported in {folder}: is the test looking in the right place?"
    return found


def roots(pairs: list[tuple[str, str]], wanted: set[str]) -> list[tuple[str, str]]:
    return [(file, name) for file, name in pairs if name.split(".", 1)[0] in wanted]


def test_every_directory_of_module_utils_is_a_known_layer() -> None:
    found = {path.name for path in (PLUGINS / "module_utils").iterdir() if path.name != "__pycache__"}
    assert found <= BELOW.keys()


@pytest.mark.parametrize("layer", BELOW)
def test_a_layer_imports_only_layers_below_it(layer: str) -> None:
    allowed = tuple(f"{UTILS}{name}." for name in {layer, *BELOW[layer]})
    pairs = imported_by(PLUGINS / "module_utils" / layer)
    assert [(file, name) for file, name in pairs if name.startswith(OURS) and not name.startswith(allowed)] == []


def test_modules_import_nothing_of_ours_but_module_utils() -> None:
    pairs = imported_by(PLUGINS / "modules")
    assert [(file, name) for file, name in pairs if name.startswith(OURS) and not name.startswith(UTILS)] == []


@pytest.mark.parametrize("layer", [layer for layer in BELOW if layer != "_ansible"])
def test_only_the_topmost_layer_knows_ansible(layer: str) -> None:
    assert roots(imported_by(PLUGINS / "module_utils" / layer), {"ansible"}) == []


@pytest.mark.parametrize("folder", ["modules", *(f"module_utils/{layer}" for layer in BELOW if layer != "_incus")])
def test_only_the_client_speaks_http(folder: str) -> None:
    assert roots(imported_by(PLUGINS / folder), HTTP) == []
